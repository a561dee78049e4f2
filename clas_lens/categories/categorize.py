"""Sort neurons by how many languages they are active in, and choose the bridge layers from the result."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, ClassVar, assert_never, get_args

import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from clas_lens.display import bands, card, listed
from clas_lens.given import given, given_number, given_whole, given_word
from clas_lens.models.presets import paper_bridge_layers
from clas_lens.models.sites import check_layers
from clas_lens.models.units import site_of, to_heads, units_fact, units_in_words
from clas_lens.saved import SAVED_ONLY, Saved
from clas_lens.statistics.neurons import NeuronStatistics
from clas_lens.vocabulary import Activity, UnitSite, fits_activity


class NeuronCategory(IntEnum):
    """By the number of languages a neuron is active in: 0, 1, 2 to all but one, all."""

    DEAD = 0
    LANGUAGE_SPECIFIC = 1
    PARTIAL_SHARED = 2
    ALL_SHARED = 3

    @property
    def label(self) -> str:
        """ "dead", "language-specific", "partial-shared", "all-shared"."""
        return self.name.lower().replace("_", "-")

    @classmethod
    def of(cls, category: "NeuronCategory | str") -> "NeuronCategory":
        """This category, by itself or by its label.

        Raises:
            ValueError: no such category.
        """
        is_one = getattr(category, "ndim", 0) == 0  # comparing a table or a tensor gives many answers
        for one in cls:
            if is_one and category in (one, one.label):
                return one
        raise ValueError(f"no neuron category {category!r}; available: {', '.join(one.label for one in cls)}")


def check_axes(name: str, mask: Bool[Tensor, "lang layer neuron"], languages: Sequence[str]) -> None:
    """Raise unless this has a mask by layer and neuron for each of these languages, which are different ones."""
    if mask.ndim != 3 or len(languages) != len(mask) or len(set(languages)) != len(languages):
        raise ValueError(
            f"{name} needs one [layer neuron] mask for each of different languages: it is {tuple(mask.shape)} "
            f"for the {len(languages)} languages {', '.join(languages) or 'none'}"
        )


@dataclass(frozen=True, eq=False)
class NeuronCategories(Saved):
    """One category a neuron, mutually exclusive and covering every neuron.

    Attributes:
        active: in which languages each neuron is active.
        languages: the names of the `lang` axis.
        threshold, activity, quantile: what "active" means here: above `threshold`, or above the layer's own `quantile`.
        model: see `NeuronStatistics.model`; its `site` says whether these are MLP neurons or attention's units.
        source: what the statistics were: `NeuronStatistics.source()`.
    """

    kind: ClassVar[str] = "neuron categories"

    active: Bool[Tensor, "lang layer neuron"]
    languages: tuple[str, ...]
    threshold: float = 0.0
    activity: Activity = "mean"
    model: Mapping[str, Any] = field(default_factory=dict, metadata=SAVED_ONLY)
    source: Mapping[str, Any] = field(default_factory=dict, metadata=SAVED_ONLY)
    quantile: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_axes("active", self.active, self.languages)
        if len(self.languages) < 2:
            raise ValueError(
                f"categories compare languages: at least 2 are needed, got {', '.join(self.languages) or 'none'}"
            )

    @property
    def bar(self) -> str:
        """What an activity has to exceed, in words."""
        return f"{self.threshold:g}" if self.quantile is None else f"its layer's {100 * self.quantile:g}th percentile"

    @property
    def counts(self) -> Int[Tensor, "layer neuron"]:
        """In how many languages each neuron is active."""
        return self.active.sum(0)

    @property
    def labels(self) -> Int[Tensor, "layer neuron"]:
        """`NeuronCategory` values, int8."""
        return categories_of(self.counts, len(self.languages))

    @property
    def site(self) -> UnitSite:
        """Whose units these are: "mlp" (neurons) or "attn" (of the heads)."""
        return site_of(self.model)

    @property
    def n_layers(self) -> int:
        return self.active.shape[1]

    @property
    def n_neurons(self) -> int:
        return self.active.shape[2]

    def mask(self, category: NeuronCategory | str) -> Bool[Tensor, "layer neuron"]:
        """Where a category's neurons are; it may be given by its label.

        Raises:
            ValueError: no such category.
        """
        wanted = int(NeuronCategory.of(category))
        return self.labels == wanted

    def specific_to(self, language: str) -> Bool[Tensor, "layer neuron"]:
        """Neurons active in this language alone.

        Raises:
            ValueError: the language was not among those that the categories were made from.
        """
        if not isinstance(language, str) or language not in self.languages:
            raise ValueError(
                f"no language-specific neurons for {language!r}: it was not in the statistics; "
                f"available: {', '.join(self.languages)}"
            )
        return self.mask(NeuronCategory.LANGUAGE_SPECIFIC) & self.active[self.languages.index(language)]

    def shares(self) -> pd.DataFrame:
        """Tidy: layer, category (label), count, percent (of the layer's neurons, 0 to 100)."""
        labels = self.labels
        rows = []
        for layer in range(self.n_layers):
            for category in NeuronCategory:
                count = int((labels[layer] == int(category)).sum())
                rows.append((layer, category.label, count, 100.0 * count / self.n_neurons))
        return pd.DataFrame(rows, columns=["layer", "category", "count", "percent"])

    def by_head(self) -> pd.DataFrame:
        """Tidy: layer, head, category (label), count, percent (of the head's units, 0 to 100).

        Raises:
            ValueError: categories of MLP neurons, which have no heads.
        """
        heads: Int[Tensor, "layer head d_head"] = to_heads(self.labels, self.model)
        counts = {c: (heads == int(c)).sum(2) for c in NeuronCategory}
        rows = [
            (layer, head, c.label, n := int(counts[c][layer, head]), 100.0 * n / heads.shape[2])
            for layer in range(heads.shape[0])
            for head in range(heads.shape[1])
            for c in NeuronCategory
        ]
        return pd.DataFrame(rows, columns=["layer", "head", "category", "count", "percent"])

    def __repr__(self) -> str:
        total = self.counts.numel()
        parts = [f"{100 * float(self.mask(c).sum()) / total:.1f}% {c.label}" for c in NeuronCategory]
        units = units_in_words(self.model, self.n_neurons)
        return (
            f"NeuronCategories({self.model.get('name')!r}, {self.n_layers} layers x {units}, "
            f"{len(self.languages)} languages, {self.activity} > {self.bar}: {', '.join(parts)})"
        )

    def _repr_html_(self) -> str:
        total = self.counts.numel()
        counts = {category.label: int(self.mask(category).sum()) for category in NeuronCategory}
        facts = {
            "languages": listed(self.languages),
            "active where": f"{self.activity} > {self.bar}",
            **units_fact(self.model, self.n_layers, self.n_neurons),
            **{label: f"{count:,} ({100 * count / total:.1f}%)" for label, count in counts.items()},
        }
        return card("NeuronCategories", self.model.get("name", "unnamed model"), facts, bands(self.percent_by_layer()))

    def percent_by_layer(self) -> dict[str, list[float]]:
        """Category label to the percentage of each layer's neurons."""
        labels = self.labels
        return {c.label: (100 * (labels == int(c)).double().mean(1)).tolist() for c in NeuronCategory}


def categories_of(counts: Int[Tensor, "*shape"], n_languages: int) -> Int[Tensor, "*shape"]:
    """`NeuronCategory` values (int8) from the number of languages that each neuron is active in."""
    given(counts, Tensor, "categories_of needs counts of languages", "NeuronCategories has them")
    if counts.is_floating_point() or counts.is_complex() or counts.is_meta:
        raise ValueError(f"categories_of needs whole counts of languages, got a tensor of {counts.dtype}")
    n_languages = given_whole("n_languages", n_languages, least=max(2, int(counts.max()) if counts.numel() else 0))
    labels = torch.full_like(counts, int(NeuronCategory.PARTIAL_SHARED), dtype=torch.int8)
    labels[counts == 0] = int(NeuronCategory.DEAD)
    labels[counts == 1] = int(NeuronCategory.LANGUAGE_SPECIFIC)
    labels[counts == n_languages] = int(NeuronCategory.ALL_SHARED)
    return labels


def activities(stats: NeuronStatistics, activity: Activity) -> Float[Tensor, "lang layer neuron"]:
    """How active every neuron is in every language: what `categorize` compares with its threshold.

    Raises:
        ValueError: an unknown measure.
    """
    match given_word("activity", activity, get_args(Activity)):
        case "mean":
            return stats.mean
        case "abs_mean":
            return stats.mean.abs()
        case "firing_rate":
            return stats.firing_rate
        case unknown:
            assert_never(unknown)


def categorize(
    stats: NeuronStatistics, threshold: float = 0.0, activity: Activity = "mean", *, quantile: float | None = None
) -> NeuronCategories:
    """Call a neuron active in a language where its activity is above `threshold`, and categorise.

    Args:
        activity: "mean" is the signed mean of h (the default; the paper's T_act = 0), "abs_mean" the magnitude of that
            mean, "firing_rate" P(h > 0), with a threshold in [0, 1).
        quantile: in place of a threshold, between 0 and 1: in each layer the bar is this quantile of the activities of all its
            neurons in all languages together, so that every layer has the same share of active pairs.

    Raises:
        ValueError: no statistics, fewer than two languages, an unknown activity, a threshold that is no finite number, a
            rate threshold outside [0, 1), a quantile outside (0, 1), or both.
    """
    given(stats, NeuronStatistics, "categorize needs NeuronStatistics", "run collect_statistics first")
    threshold = given_number("a threshold", threshold)
    values = activities(stats, activity)
    if not fits_activity(activity, threshold):
        raise ValueError(f"a {activity} threshold is in [0, 1), got {threshold}")
    bar: Float[Tensor, "layer neuron"] | float = threshold
    if quantile is not None:
        quantile = given_number("a quantile", quantile)
        if not 0 < quantile < 1 or threshold != 0:
            raise ValueError(
                f"a quantile is between 0 and 1 and takes the threshold's place; got quantile={quantile}, threshold={threshold}"
            )
        by_layer = values.transpose(0, 1).flatten(1).double()
        bar = by_layer.quantile(quantile, dim=1)[:, None].to(values.dtype).expand(stats.n_layers, stats.n_neurons)
    return NeuronCategories(values > bar, stats.languages, threshold, activity, stats.model, stats.source(), quantile)


def check_bridge_layers(layers: Sequence[int], n_layers: int) -> tuple[int, ...]:
    """These layers in order, if they can be steered in a model of so many: all but the last two.

    Raises:
        ValueError: a layer out of range, there twice or one of the last two, or none.
    """
    try:
        return check_layers(layers, n_layers - 2)
    except ValueError as error:
        raise ValueError(f"bridge {error} (of {n_layers}; the last two are never taken)") from None


def select_bridge_layers(cats: NeuronCategories, *, layers: Sequence[int] | None = None) -> tuple[int, ...]:
    """The layers to steer, near the output: the paper's for its two models, a rule for any other, or your own.

    The rule: leave out the last two layers; of the second half of the rest take the run of consecutive layers, an eighth
    of the model long (at least one), with the highest mean score, where a layer's score is its percentage of partial-shared
    neurons minus its percentages of dead and language-specific ones. Of equal runs the later one wins. The paper does not
    state a rule; this one uses its stated criteria.

    The paper's models are told by their shape and vocabulary, so that renamed copies and fine-tunes get its layers; so do
    their relatives of exactly that shape (Llama 3 8B, Qwen2 7B). These layers are of their MLPs: for attention's units the rule
    holds in every model.

    Args:
        layers: your own choice, checked and sorted.

    Raises:
        ValueError: fewer than three layers, or a chosen layer that is out of range, there twice or one of the last two.
    """
    given(cats, NeuronCategories, "select_bridge_layers needs NeuronCategories", "run categorize first")
    n_layers = cats.n_layers
    if n_layers < 3:
        raise ValueError(f"no bridge layer in a model of {n_layers} layers: the last two are never taken")
    if layers is not None:
        return check_bridge_layers(layers, n_layers)
    preset = paper_bridge_layers(n_layers, cats.n_neurons, cats.model.get("d_vocab", 0))
    if preset is not None and cats.site == "mlp":
        return preset
    percent = cats.shares().pivot(index="layer", columns="category", values="percent")
    score = percent["partial-shared"] - percent["dead"] - percent["language-specific"]
    width = max(1, n_layers // 8)
    allowed = n_layers - 2
    starts = range(min(allowed // 2, allowed - width), allowed - width + 1)
    best = max(starts, key=lambda start: (round(score.iloc[start : start + width].mean(), 9), start))
    return tuple(range(best, best + width))
