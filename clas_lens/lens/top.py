"""The most probable words at each layer and position of one prompt."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import pandas as pd

from clas_lens.corpus.arguments import check_bare, given_model
from clas_lens.corpus.tokens import pad, require_tokenizer, tokenize
from clas_lens.given import given, given_whole
from clas_lens.lens.reading import LensPass
from clas_lens.models.sites import LensModel, check_layers, device_of
from clas_lens.steering.intervention import Intervention
from clas_lens.steering.steer import steer


def top_tokens(
    model: LensModel,
    prompt: str,
    *,
    intervention: Intervention | None = None,
    language: str | None = None,
    layers: Sequence[int] | None = None,
    n_positions: int = 8,
    k: int = 5,
) -> pd.DataFrame:
    """What the logit lens reads after each layer at the last positions of a prompt: the `k` most probable next tokens.

    Args:
        intervention: the model is steered with it, as text in `language`; None for the model as it is.
        n_positions: tokens from the end, BOS not among them; fewer where the prompt is shorter.

    Returns:
        One row a layer, position and rank: `position` (from the end, -1 is the last), `token` (the text read there), `rank`
        (from 1), `top` (text of the token that would come next), `token_id`, `probability` (0 to 1). The last layer's
        are the model's own.

    Raises:
        ValueError: a model of another kind or inside `steer`, a prompt without tokens or longer than the model has room for,
            one of `intervention` and `language` without the other.
        ModelLoadError: a model that the lens does not read.
    """
    model = given_model(model)
    check_bare(model, "top_tokens", kept=False)
    given(prompt, str, "top_tokens reads one prompt", "such as lens_prompt('water', 'de')")
    if (intervention is None) != (language is None):
        raise ValueError("intervention= and language= go together: which language is the prompt steered in?")
    n_positions, k = given_whole("n_positions", n_positions, least=1), given_whole("k", k, least=1)
    chosen = check_layers(range(model.cfg.n_layers) if layers is None else layers, model.cfg.n_layers)
    tokenizer: Any = require_tokenizer(model)
    held = tokenize(tokenizer, [prompt])
    check_room(model, held.ids)
    batch = pad(held.ids, [0], n_prefix=held.n_prefix, device=device_of(model))
    n = min(n_positions, held.n_tokens)
    with nullcontext() if intervention is None or language is None else steer(model, intervention, language):
        read = LensPass(model, batch, chosen, n)
    rows = []
    for layer, found in zip(chosen, read.log_probs(), strict=True):
        values, ids = found[0].topk(min(k, found.shape[-1]), dim=-1)
        for place, position in enumerate(range(-n, 0)):
            for rank, (value, token) in enumerate(zip(values[place].exp().tolist(), ids[place].tolist(), strict=True)):
                rows.append((layer, position, held.ids[0][position], rank + 1, token, value))
    frame = pd.DataFrame(rows, columns=["layer", "position", "token", "rank", "token_id", "probability"])
    texts = {one: str(tokenizer.decode([one])) for one in {*frame["token"], *frame["token_id"]}}
    frame["token"] = frame["token"].map(texts)
    frame.insert(4, "top", frame["token_id"].map(texts))
    return frame


def check_room(model: LensModel, ids: Sequence[Sequence[int]]) -> None:
    """Raise `ValueError` for a prompt that is longer than the model has room for."""
    longest = max(map(len, ids))
    if longest > model.cfg.n_ctx:
        raise ValueError(
            f"a prompt has {longest} tokens and {model.cfg.model_name} has room for {model.cfg.n_ctx}: "
            "fewer shots make it shorter"
        )
