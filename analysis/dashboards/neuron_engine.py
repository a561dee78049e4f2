"""What the neuron browser shows, without widgets: a layer's neurons of a category, their activations, their text."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from clas_lens.categories.browser import selectivity
from clas_lens.categories.categorize import NeuronCategories, NeuronCategory
from clas_lens.corpus.tokens import pad, require_tokenizer, tokenize
from clas_lens.models.blocks import only_layers
from clas_lens.models.forward import run_layers
from clas_lens.models.sites import LensModel, Site, device_of, hooked
from clas_lens.models.units import flat
from clas_lens.statistics.neurons import NeuronStatistics
from clas_lens.vocabulary import UnitSite

BROKEN = "\N{REPLACEMENT CHARACTER}"  # at the end of a text whose last character needs the next token


@dataclass(frozen=True)
class Piece:
    """A piece of text, whole characters, and the largest activation of its tokens."""

    text: str
    activation: float


def layer_neurons(
    stats: NeuronStatistics, cats: NeuronCategories, layer: int, category: NeuronCategory, *, n: int
) -> pd.DataFrame:
    """A layer's neurons of one category, the most selective for a language first.

    Returns:
        At most `n` rows: neuron, language (that it is most selective for), selectivity (see `clas_lens.neurons`).
    """
    scores = torch.stack([selectivity(stats, language)[layer] for language in stats.languages])
    best = scores.max(0)
    here = cats.mask(category)[layer].nonzero().flatten()
    chosen = here[best.values[here].argsort(descending=True, stable=True)[:n]]
    return pd.DataFrame(
        {
            "neuron": chosen.tolist(),
            "language": [stats.languages[row] for row in best.indices[chosen].tolist()],
            "selectivity": best.values[chosen].tolist(),
        }
    )


def language_profile(stats: NeuronStatistics, layer: int, neurons: Sequence[int]) -> pd.DataFrame:
    """What neurons do in each language.

    Returns:
        Tidy: neuron, language, mean (of h), relative (the mean in units of the neuron's root mean square over all languages,
        0 for a silent neuron), firing_rate (0 to 1), max, example (row of the corpus with the largest h).
    """
    chosen = list(neurons)
    mean = stats.mean[:, layer, chosen]
    scale = stats.second_moment[:, layer, chosen].double().mean(0).sqrt()
    relative = torch.where(scale > 0, mean.double() / scale, 0.0)
    values = {
        "mean": mean,
        "relative": relative,
        "firing_rate": stats.firing_rate[:, layer, chosen],
        "max": stats.max[:, layer, chosen],
        "example": stats.max_example[:, layer, chosen],
    }
    index = pd.MultiIndex.from_product([stats.languages, chosen], names=["language", "neuron"])
    frame = pd.DataFrame({name: value.flatten().tolist() for name, value in values.items()}, index=index)
    return frame.reset_index()


def token_activations(
    model: LensModel, text: str, layer: int, neuron: int, *, max_tokens: int | None = None, site: UnitSite = "mlp"
) -> list[Piece]:
    """A neuron's activation at each piece of a text; only the layers up to its own are run."""
    tokenizer = require_tokenizer(model)
    limit = min(max_tokens or model.cfg.n_ctx, model.cfg.n_ctx)
    texts = tokenize(tokenizer, [text], max_tokens=limit)
    batch = pad(texts.ids, [0], device=device_of(model))
    read: list[float] = []

    def on_units(activation: Tensor, hook: object) -> None:
        read.extend(flat(activation)[0, texts.n_prefix :, neuron].float().tolist())

    with hooked(model, [(Site(site, layer).hook_name(model), on_units)]), only_layers(model, 0, layer + 1):
        run_layers(model, batch.tokens, batch.attention_mask)
    pieces: list[Piece] = []
    held: list[int] = []
    for place, token in enumerate(texts.ids[0][texts.n_prefix :]):
        held.append(token)
        piece = str(tokenizer.decode(held))
        if not piece.endswith(BROKEN):
            pieces.append(Piece(piece, max(read[place + 1 - len(held) : place + 1])))
            held = []
    if held:  # cut within a character
        pieces.append(Piece(str(tokenizer.decode(held)), max(read[-len(held) :])))
    return pieces
