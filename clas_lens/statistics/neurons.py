"""What every MLP neuron or attention unit does in every language: the frozen result of a collection, one file a language."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clas_lens.artifacts import keep, provenance
from clas_lens.corpus.content import example_keys, texts_behind
from clas_lens.display import card, line, listed
from clas_lens.given import given, given_each, given_path
from clas_lens.models.units import site_of, units_fact, units_in_words
from clas_lens.statistics.accumulator import NeuronAccumulator
from clas_lens.statistics.files import KIND, LanguageOrigin, language_path, read_language, read_together
from clas_lens.statistics.sums import NeuronSums
from clas_lens.vocabulary import Pooling, Quantity, UnitSite, check_languages


@dataclass(frozen=True, eq=False)
class NeuronStatistics:
    """What every MLP neuron does in every language; or every unit of attention, with h the heads' outputs, and without a gate.

    The means and `second_moment` are pooled as `pooling` says; `firing_rate`, `gate_rate` and histograms always count tokens.
    `max_example` is a row of the corpus (`example_ids` names it) and `max_position` counts the text's content tokens.

    Attributes:
        languages: in the order of every `lang` axis.
        sums: raw running values, each [lang layer neuron], histograms with an axis of bins more; exact to merge.
        n_samples, n_tokens: per language.
        example_ids: the corpus's ids.
        model: `name`, `n_layers`, `n_neurons`, `d_vocab`, `neurons` (fingerprint), `weights` (fingerprint), `dtype`; of
            attention also `site`, `n_heads` and `d_head` (see `to_heads`).
        settings: what else the numbers depend on: `max_tokens` and the corpus's name.
        texts: per language: the texts' `fingerprint` and how many were `truncated`.
        made: per language: when and with which versions it was measured (`provenance`), kept when it is saved again.
    """

    languages: tuple[str, ...]
    sums: NeuronSums
    n_samples: Int[Tensor, "lang"]
    n_tokens: Int[Tensor, "lang"]
    pooling: Pooling
    example_ids: tuple[str, ...]
    model: Mapping[str, Any]
    settings: Mapping[str, Any] = field(default_factory=dict)
    texts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    made: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @cached_property
    def mean(self) -> Float[Tensor, "lang layer neuron"]:
        """Mean of h."""
        return (self.sums.sum / self._weight).float()

    @cached_property
    def second_moment(self) -> Float[Tensor, "lang layer neuron"]:
        """Mean of h squared."""
        return (self.sums.square_sum / self._weight).float()

    @cached_property
    def gate_mean(self) -> Float[Tensor, "lang layer neuron"]:
        """Mean of the gate before its nonlinearity (of an MLP without a gate: of the pre-activation)."""
        return (self._of_gate(self.sums.gate_sum) / self._weight).float()

    @cached_property
    def gate_act_mean(self) -> Float[Tensor, "lang layer neuron"]:
        """Mean of the gate after its nonlinearity."""
        return (self._of_gate(self.sums.gate_act_sum) / self._weight).float()

    @cached_property
    def firing_rate(self) -> Float[Tensor, "lang layer neuron"]:
        """P(h > 0), in [0, 1]."""
        return (self.sums.fired.double() / self.n_counted[:, None, None]).float()

    @cached_property
    def gate_rate(self) -> Float[Tensor, "lang layer neuron"]:
        """P(gate > 0), in [0, 1]: the p of LAPE. For an MLP without a gate: P(pre-activation > 0)."""
        return self.gate_rate_exact.float()

    @property
    def gate_rate_exact(self) -> Float[Tensor, "lang layer neuron"]:
        """`gate_rate` in float64.

        Raises:
            ValueError: statistics of attention, which has no gate.
        """
        return self._of_gate(self.sums.gated).double() / self.n_counted[:, None, None]

    def _of_gate(self, values: Tensor | None) -> Tensor:
        if values is None:
            raise ValueError(
                "these statistics are of attention (site='attn'), which has no gate; those of site='mlp' have one"
            )
        return values

    def histogram(self, of: Quantity) -> Int[Tensor, "lang layer neuron bin"]:
        """Tokens in each bin of `clas_lens.histogram`: of h, of the gate before ("gate") or after its nonlinearity.

        Raises:
            ValueError: collected without histograms, an unknown quantity, or the gate of attention, which has none.
        """
        sums = self.sums
        if of != "h" and self.site != "mlp":
            self._of_gate(None)
        held = {"h": sums.histogram, "gate": sums.gate_histogram, "gate_act": sums.gate_act_histogram}
        if not isinstance(of, str) or of not in held:
            raise ValueError(f"unknown quantity {of!r}; available: {', '.join(held)}")
        counts = held[of]
        if counts is None:
            raise ValueError(
                "these statistics have no histograms, which percentiles need: collect_statistics(..., histograms=True)"
            )
        return counts

    @property
    def max(self) -> Float[Tensor, "lang layer neuron"]:
        """Largest h."""
        return self.sums.max

    @property
    def max_example(self) -> Int[Tensor, "lang layer neuron"]:
        """Corpus row of the largest h."""
        return self.sums.max_example

    @property
    def max_position(self) -> Int[Tensor, "lang layer neuron"]:
        """Content-token position of the largest h in that text."""
        return self.sums.max_position

    @property
    def site(self) -> UnitSite:
        """Whose units these are: "mlp" or "attn"."""
        return site_of(self.model)

    @property
    def n_layers(self) -> int:
        return self.sums.sum.shape[1]

    @property
    def n_neurons(self) -> int:
        return self.sums.sum.shape[2]

    @property
    def _weight(self) -> Tensor:
        weight = self.n_tokens if self.pooling == "token" else self.n_samples
        return weight.double()[:, None, None]

    @property
    def n_counted(self) -> Int[Tensor, "lang"]:
        """How many tokens the rates are fractions of: all, or one a sample with pooling "last"."""
        return self.n_samples if self.pooling == "last" else self.n_tokens

    def __repr__(self) -> str:
        units = units_in_words(self.model, self.n_neurons)
        return (
            f"NeuronStatistics({self.model.get('name')!r}, {len(self.languages)} languages x {self.n_layers} layers x "
            f"{units}, {int(self.n_samples.sum())} samples, {int(self.n_tokens.sum())} tokens, "
            f"pooling={self.pooling!r})"
        )

    def _repr_html_(self) -> str:
        rates = self.firing_rate.double().mean(2)
        facts = {
            "languages": listed(self.languages),
            **units_fact(self.model, self.n_layers, self.n_neurons),
            "texts": f"{len(self.example_ids):,} examples of {self.settings.get('corpus', 'unnamed texts')}, "
            f"{int(self.n_samples.sum()):,} samples, {int(self.n_tokens.sum()):,} tokens, pooling {self.pooling!r}",
            "P(h > 0)": f"{100 * float(rates.mean()):.1f}% over all neurons and languages",
        }
        middle, low, high = rates.mean(0).tolist(), rates.amin(0).tolist(), rates.amax(0).tolist()
        picture = line(middle, low, high, f"P(h > 0), 0 to 1, by layer, 0 to {self.n_layers - 1}; band: all languages")
        return card("NeuronStatistics", self.model.get("name", "unnamed model"), facts, picture)

    @classmethod
    def from_accumulators(
        cls,
        accumulators: Mapping[str, NeuronAccumulator],
        *,
        example_ids: Sequence[str] = (),
        model: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
        texts: Mapping[str, Mapping[str, Any]] | None = None,
        made: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> "NeuronStatistics":
        """Freeze one accumulator a language. The accumulators are left as they are.

        Raises:
            ValueError: different poolings, a language without samples, histograms for some languages only.
        """
        how = "collect_statistics does it for you"
        given(accumulators, Mapping, "from_accumulators needs accumulators by language", how)
        parts = given_each(accumulators.values(), NeuronAccumulator, "from_accumulators needs accumulators", how)
        poolings = sorted({part.pooling for part in parts})
        if len(poolings) != 1:
            raise ValueError(f"all languages need one pooling, got {poolings or 'no languages'}")
        empty = [code for code, part in accumulators.items() if part.n_samples == 0]
        if empty:
            raise ValueError(f"no samples seen for {', '.join(empty)}")
        return cls(
            languages=tuple(accumulators),
            sums=NeuronSums.stacked([part.sums for part in parts]),
            n_samples=torch.tensor([part.n_samples for part in parts]),
            n_tokens=torch.tensor([part.n_tokens for part in parts]),
            pooling=parts[0].pooling,
            example_ids=tuple(example_ids),
            model=dict(model or {}),
            settings=dict(settings or {}),
            texts=dict(texts or {}),
            made=dict(made or {code: provenance() for code in accumulators}),
        )

    def accumulators(self) -> dict[str, NeuronAccumulator]:
        """The running sums again, one accumulator a language, to go on adding or merging."""
        return {
            language: NeuronAccumulator.from_sums(
                self.sums.each(itemgetter(row)),
                pooling=self.pooling,
                samples=int(self.n_samples[row]),
                tokens=int(self.n_tokens[row]),
            )
            for row, language in enumerate(self.languages)
        }

    def merge(self, other: "NeuronStatistics") -> "NeuronStatistics":
        """Statistics over this shard's examples and then the other's; equal to one pass over both.

        Raises:
            ValueError: shards of different models, languages, settings or pooling, or with an example in common.
        """
        given(other, NeuronStatistics, "merge needs NeuronStatistics", "those of another shard")
        for what in ("languages", "model", "settings", "pooling"):
            if getattr(self, what) != getattr(other, what):
                raise ValueError(
                    f"cannot merge statistics with different {what}: {getattr(self, what)} and {getattr(other, what)}"
                )
        common = set(self.example_ids) & set(other.example_ids)
        if common:
            raise ValueError(f"cannot merge: example {min(common)!r} is in both shards")
        merged, added = self.accumulators(), other.accumulators()
        for language in self.languages:
            added[language].sums.max_example += len(self.example_ids)
            merged[language].merge(added[language])
        texts = {
            code: {
                "fingerprint": f"{here['fingerprint']}+{other.texts[code]['fingerprint']}",
                "truncated": here["truncated"] + other.texts[code]["truncated"],
                "content": [*here.get("content", ()), *other.texts[code].get("content", ())],
            }
            for code, here in self.texts.items()
        }
        return NeuronStatistics.from_accumulators(
            merged,
            example_ids=self.example_ids + other.example_ids,
            model=self.model,
            settings=self.settings,
            texts=texts,
        )

    def source(self) -> dict[str, Any]:
        """What these numbers are of: pooling, settings, and each language's texts and sample count."""
        counts = zip(self.languages, self.n_samples.tolist(), strict=True)
        return {
            "pooling": self.pooling,
            **({} if self.site == "mlp" else {"site": self.site}),
            "settings": dict(self.settings),
            "example_keys": [
                *example_keys(self.settings.get("corpus", "texts"), self.example_ids),
                *texts_behind(self.texts),
            ],
            "texts": {
                code: {**{k: v for k, v in self.texts.get(code, {}).items() if k != "content"}, "n_samples": n}
                for code, n in counts
            },
        }

    def select(self, languages: Sequence[str]) -> "NeuronStatistics":
        """Only these languages, in this order."""
        languages = check_languages(languages, "statistics")
        missing = [code for code in languages if code not in self.languages]
        if missing:
            raise ValueError(f"no statistics for {missing[0]!r}; available: {', '.join(self.languages)}")
        rows = torch.tensor([self.languages.index(code) for code in languages])
        return replace(
            self,
            languages=languages,
            sums=self.sums.each(lambda values: values[rows]),
            n_samples=self.n_samples[rows],
            n_tokens=self.n_tokens[rows],
            texts={code: self.texts[code] for code in languages if code in self.texts},
            made={code: self.made[code] for code in languages if code in self.made},
        )

    def save(self, folder: str | Path) -> Path:
        """Write one `<language>.safetensors` a language; `load` reads them back."""
        root = given_path("folder", folder)
        for row, language in enumerate(self.languages):
            origin, made = self._origin(language), self.made.get(language) or provenance()
            counts = int(self.n_samples[row]), int(self.n_tokens[row])
            content = origin.content(self.sums.each(itemgetter(row)), *counts, made)
            keep(language_path(root, language), KIND, origin.key(), content)
        return root

    def _origin(self, language: str) -> LanguageOrigin:
        return LanguageOrigin(
            language=language,
            pooling=self.pooling,
            histograms=self.sums.histogram is not None,
            example_ids=self.example_ids,
            model=self.model,
            settings=self.settings,
            text=self.texts.get(language, {}),
        )

    @classmethod
    def load(cls, folder: str | Path, languages: Sequence[str] | None = None) -> "NeuronStatistics":
        """Read what `save` or `collect_statistics(..., out=)` wrote; default all languages there, by name.

        Raises:
            ArtifactError: nothing there, a damaged file, one of another language than its name says or of an earlier version
                without today's sums, or files of different models, examples or settings.
        """
        held = read_together(
            given_path("folder", folder), languages, KIND, ("example_ids", "model", "settings"), read_language
        )
        first = next(iter(held.values()))[1]
        return cls.from_accumulators(
            {code: sums for code, (sums, _) in held.items()},
            example_ids=first["example_ids"],
            model=first["model"],
            settings=first["settings"],
            texts={code: header["text"] for code, (_, header) in held.items()},
            made={code: header["provenance"] for code, (_, header) in held.items()},
        )
