"""What an intervention changes inside the model: the next-token distribution, and the likeness to the anchor language."""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cosine_similarity
from tqdm import tqdm

from clas_lens.artifacts import content_key, resumed_table, save_table
from clas_lens.categories.browser import check_neuron
from clas_lens.corpus.parallel import ParallelCorpus
from clas_lens.corpus.reading import pooling_residuals
from clas_lens.corpus.tokens import TokenBatch, TokenizedTexts, forward_batches, pad, require_tokenizer, tokenize
from clas_lens.models.identity import describe_model
from clas_lens.models.sites import (
    LensModel,
    check_layers,
    device_of,
    hooked,
    last_logits,
    post_name,
    run_layers,
)
from clas_lens.representations.sentences import (
    Representations,
    check_steers_texts,
    is_collected,
    unread_representations,
)
from clas_lens.steering.clas import Clas
from clas_lens.steering.intervention import Intervention
from clas_lens.steering.steer import steer

KIND = "steering effects"


def measure_effects(
    model: LensModel,
    clas: Clas,
    corpus: ParallelCorpus,
    *,
    layers: Sequence[int] | None = None,
    batch_size: int = 16,
    max_tokens: int = 512,
    out: str | Path | None = None,
    representations: str | Path | None = None,
    more_layers: Sequence[int] = (),
    progress: bool = True,
) -> pd.DataFrame:
    """Run every text with and without steering and compare.

    Sentence representations are the residual stream at the output of each layer, mean over content tokens; cosines are of
    parallel pairs (language, anchor), averaged over pairs and then layers, with the anchor unsteered in both.

    Args:
        layers: where the cosine is taken; default the steered layers.
        out: a folder for one file a language; those there, made from the same model, texts and intervention, are kept.
        representations: a folder whose `before/` and `after/` keep the sentence representations of this same pass, at
            `layers` and `more_layers`: `collect_representations(..., out=)` with those does not read the texts again.

    Returns:
        One row a language: `kl` (mean KL(unsteered || steered) of the next-token distribution after the text, in nats),
        `top1_changed` (share of texts whose most likely next token changed, 0 to 1), `cosine_before`, `cosine_after`,
        `n_texts`, `n_truncated`. The anchor's row is a check: kl is 0 and both cosines are 1.

    Raises:
        ValueError: the anchor is not in the corpus, or `clas` steers generated tokens only.
    """
    if clas.anchor not in corpus.languages:
        raise ValueError(
            f"the corpus has no {clas.anchor!r}, the anchor to compare with; it has: {', '.join(corpus.languages)}"
        )
    check_steers_texts(clas)
    limit = min(max_tokens, model.cfg.n_ctx)
    chosen = check_layers(clas.layers if layers is None else layers, model.cfg.n_layers)
    read = check_layers(sorted({*chosen, *more_layers}), model.cfg.n_layers)
    tokenizer = require_tokenizer(model)
    texts = {code: tokenize(tokenizer, corpus[code], max_tokens=limit) for code in corpus.languages}
    inputs = (clas.fingerprint(), describe_model(model), chosen, corpus.ids, texts[clas.anchor].ids)
    keys = {code: content_key(*inputs, texts[code].ids) for code in corpus.languages}
    folder = None if out is None else Path(out)
    kept: dict[Path, Representations] = {}
    if representations is not None:
        for name, one in (("before", None), ("after", clas)):
            place = Path(representations) / name
            kept[place] = unread_representations(model, corpus, texts, read, pool="mean", intervention=one)
    rows = {} if folder is None else {c: resumed_table(folder / f"{c}.parquet", KIND, keys[c]) for c in keys}
    missing = {code for place, unread in kept.items() for code in keys if not is_collected(place, code, unread)}
    todo = [code for code in corpus.languages if rows.get(code) is None or code in missing]
    batches = {
        code: forward_batches([len(row) for row in texts[code].ids], batch_size, device_of(model)) for code in texts
    }
    measured = [clas.anchor, *(code for code in todo if code != clas.anchor)] if todo else []
    cosine_at = [read.index(layer) for layer in chosen]
    with tqdm(total=sum(len(batches[code]) for code in measured), unit="batch", disable=not progress) as bar:
        anchor: Float[Tensor, "text layer d_model"] | None = None
        for language in measured:
            bar.set_description(f"effects {language}")
            before, after, kl, changed = _measure(model, clas, language, texts[language], batches[language], read, bar)
            for place, unread in kept.items():
                unread.with_values({language: before if unread.intervention is None else after}).save(place)
            before, after = before[:, cosine_at], after[:, cosine_at]
            anchor = before if anchor is None else anchor
            row = {
                "language": language,
                "kl": float(kl.mean()),
                "top1_changed": float(changed.float().mean()),
                "cosine_before": float(cosine_similarity(before, anchor, dim=-1).mean()),
                "cosine_after": float(cosine_similarity(after, anchor, dim=-1).mean()),
                "n_texts": len(corpus),
                "n_truncated": len(texts[language].truncated),
            }
            table = pd.DataFrame([row])
            if folder is not None:
                save_table(folder / f"{language}.parquet", KIND, table, {"key": keys[language]})
            rows[language] = table
    return pd.concat([rows[code] for code in corpus.languages], ignore_index=True)


def _measure(
    model: LensModel,
    clas: Clas,
    language: str,
    texts: TokenizedTexts,
    batches: Sequence[Sequence[int]],
    layers: Sequence[int],
    bar: "tqdm[Any]",
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Representations before and after, KL, and whether the most likely token changed, in corpus order."""
    count = len(texts.ids)
    before, after = (torch.zeros(count, len(layers), model.cfg.d_model) for _ in range(2))
    kl, changed = torch.zeros(count, dtype=torch.float64), torch.zeros(count, dtype=torch.bool)
    for group in batches:
        rows = list(group)
        batch = pad(texts.ids, rows, n_prefix=texts.n_prefix, device=device_of(model))
        logits, before[rows] = _forward(model, batch, layers)
        with steer(model, clas, language=language):
            steered_logits, after[rows] = _forward(model, batch, layers)
        kl[rows] = kl_divergence(logits, steered_logits)
        changed[rows] = (logits.argmax(-1) != steered_logits.argmax(-1)).cpu()
        bar.update()
    return before, after, kl, changed


def kl_divergence(
    before: Float[Tensor, "batch d_vocab"], after: Float[Tensor, "batch d_vocab"]
) -> Float[Tensor, "batch"]:
    """KL(softmax(before) || softmax(after)) in nats, in float64."""
    log_p, log_q = before.double().log_softmax(-1), after.double().log_softmax(-1)
    return (log_p.exp() * (log_p - log_q)).sum(-1).cpu()


def _forward(
    model: LensModel, batch: TokenBatch, layers: Sequence[int]
) -> tuple[Float[Tensor, "batch d_vocab"], Float[Tensor, "batch layer d_model"]]:
    """Logits after the text, and each text's mean residual stream at the given layers."""
    with pooling_residuals(model, batch, layers) as pooled:
        logits = last_logits(model, batch.tokens, batch.attention_mask)
    return logits, torch.stack([pooled[layer] for layer in layers], dim=1)


def neuron_activations(
    model: LensModel,
    corpus: ParallelCorpus,
    layer: int,
    neuron: int,
    *,
    intervention: Intervention | None = None,
    batch_size: int = 16,
    max_tokens: int = 512,
    progress: bool = True,
) -> pd.DataFrame:
    """One neuron's activation in every text, mean over the text's content tokens, without and with steering.

    Returns:
        Tidy: language, example (id), when ("before", and "after" if there is an intervention), value.
    """
    check_neuron(model, layer, neuron)
    tokenizer = require_tokenizer(model)
    limit = min(max_tokens, model.cfg.n_ctx)
    parts = []
    for language in tqdm(corpus.languages, desc="neuron", disable=not progress):
        texts = tokenize(tokenizer, corpus[language], max_tokens=limit)
        batches = forward_batches([len(ids) for ids in texts.ids], batch_size, device_of(model))
        for when in ("before",) if intervention is None else ("before", "after"):
            with steer(model, intervention, language) if when == "after" and intervention else nullcontext():
                values = _text_means(model, texts, batches, layer, neuron)
            parts.append(pd.DataFrame({"language": language, "example": corpus.ids, "when": when, "value": values}))
    return pd.concat(parts, ignore_index=True)


def _text_means(
    model: LensModel, texts: TokenizedTexts, batches: Sequence[Sequence[int]], layer: int, neuron: int
) -> list[float]:
    """The mean over each text's content tokens, in corpus order."""
    means = torch.zeros(len(texts.ids), dtype=torch.float64)
    for group in batches:
        rows = list(group)
        batch = pad(texts.ids, rows, n_prefix=texts.n_prefix, device=device_of(model))
        weights = batch.content_mask.float()
        weights = weights / weights.sum(1, keepdim=True)

        def on_post(activation: Tensor, hook: object, rows: list[int] = rows, weights: Tensor = weights) -> None:
            means[rows] = (activation[:, :, neuron].float() * weights).sum(1).double().cpu()

        with hooked(model, [(post_name(layer), on_post)]):
            run_layers(model, batch.tokens, batch.attention_mask)
    return means.tolist()
