"""CLAS with a strength that adapts to the example (the paper's future work), and its null: the same strengths, shuffled."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Protocol, get_args, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from clas_lens.baselines.bases import OfClas
from clas_lens.baselines.vectors import measured_on
from clas_lens.corpus.arguments import given_model
from clas_lens.corpus.tokens import length_batches, pad
from clas_lens.given import given, given_whole, given_word
from clas_lens.models.decoding import make_decoder
from clas_lens.models.room import in_parts_that_fit
from clas_lens.models.sites import LensModel, Site, device_of
from clas_lens.representations.sentences import Representations
from clas_lens.saved import SAVED_ONLY
from clas_lens.steering.clas import Clas
from clas_lens.steering.edits import LanguageTable
from clas_lens.steering.generate import Prompt, prompt_ids
from clas_lens.steering.intervention import Edit, SteeringError
from clas_lens.steering.prompt_strengths import PromptStrengths, StrengthRescale
from clas_lens.steering.steer import steer
from clas_lens.tasks.base import Task
from clas_lens.vocabulary import AdaptBy


@dataclass(frozen=True, eq=False)
class Adaptive(OfClas):
    """CLAS at alpha * w, with a w for each example that its prompt decides and that is held for generated tokens.

    by="margin": w = 1 - (p1 - p2), with the two largest probabilities of the next token after the prompt without steering. So
    an example of which the model is unsure is steered most. Each prompt is run twice, which `SearchResult.passes` counts.

    by="distance", made by `Adaptive.by_distance`: where the prompt's last state, at the output of the layer below the first
    steered one, lies along the line from the anchor's centroid (w = 0) to its own language's (w = 1), between 0 and 2. So what
    lies far from the anchor is steered most, in the same pass.

    An example's w does not depend on its batch. `shuffled` is the null.

    Args:
        clas: gives everything but alpha.
        alpha: CLAS's, in place of the one that `clas` has; 0 is bit-identical to no steering.
        centroids: of `languages`, the anchor's among them; for "distance".
        measured: what the centroids were made from, for manifests.
        targets, ordered, dealt: of a null: languages, the strengths of examples in each, ascending, and which take their
            places.

    Raises:
        SteeringError: "distance" without centroids or with no layer below the first steered one.
    """

    kind: ClassVar[str] = "adaptive CLAS"
    reads_prompts: ClassVar[bool] = True  # prompts have to come whole

    clas: Clas
    by: AdaptBy = "margin"
    alpha: Any = None
    languages: tuple[str, ...] = ()
    centroids: Float[Tensor, "lang d_model"] | None = field(default=None, repr=False)
    targets: tuple[str, ...] = ()
    ordered: Float[Tensor, "target example"] | None = field(default=None, repr=False)
    dealt: Float[Tensor, "target example"] | None = field(default=None, repr=False)
    measured: Mapping[str, Any] = field(default_factory=dict, repr=False, metadata=SAVED_ONLY)

    def __post_init__(self) -> None:
        given(self.clas, Clas, "Adaptive needs a Clas", "Clas(categories, layers=...)", error=SteeringError)
        object.__setattr__(self, "alpha", self.clas.alpha if self.alpha is None else self.alpha)
        super().__post_init__()
        given_word("by", self.by, get_args(AdaptBy), error=SteeringError)
        if self.by == "distance" and self.centroids is None:
            raise SteeringError(
                "by='distance' needs the languages' centroids: Adaptive.by_distance(clas, collect_representations(model, "
                f"corpus, [{self._layer_below()}], pool='last')) measures them"
            )

    @classmethod
    def by_distance(cls, clas: Clas, states: Representations) -> "Adaptive":
        """Strengths from where a prompt lies between its language's centroid and the anchor's.

        Args:
            states: last-token states of the unsteered model at the output of the layer below the first steered one. They belong
                to the statistics part: the examples they were measured on are not reported on.

        Raises:
            SteeringError: states of another site, pooling or layer, steered ones, or none in the anchor.
        """
        given(clas, Clas, "by_distance needs a Clas", "Clas(categories, layers=...)", error=SteeringError)
        given(
            states, Representations, "by_distance needs Representations", "collect_representations", error=SteeringError
        )
        layer = cls(clas)._layer_below()
        found = (states.site, states.pool, states.intervention, layer in states.layers, clas.anchor in states.languages)
        if found != ("residual", "last", None, True, True):
            raise SteeringError(
                f"needs unsteered states of the residual stream at layer {layer}, pool='last', with the anchor "
                f"{clas.anchor!r}; got site {states.site!r}, pool {states.pool!r}, layers {list(states.layers)}, languages "
                f"{', '.join(states.languages)}, intervention {states.intervention}"
            )
        centroids = torch.stack([states.at(code, layer).double().mean(0) for code in states.languages])
        return cls(clas, "distance", None, states.languages, centroids.float(), measured=measured_on(states))

    def shuffled(self, model: LensModel, task: Task, *, seed: int = 0, batch_size: int = 16) -> "Adaptive":
        """The null: the strengths of the task's examples dealt out anew within each language.

        Their distribution is kept, what they have to do with the example is not: each gets the strength of another, drawn once
        with the seed; an example of another task gets that of the nearest in strength, and examples of equal strength get one.
        No gold answer is looked at.
        """
        given_model(model)
        given(task, Task, "shuffled needs a task", "cl.tasks.XNLI(...) makes one")
        seed = given_whole("seed", seed)
        rng = torch.Generator().manual_seed(seed)
        others = tuple(code for code in task.languages if code != self.anchor)
        own = replace(self, targets=(), ordered=None, dealt=None)
        found = [
            own.strengths(model, [prompt.ids for prompt in task.prompts(model, code)], code, batch_size=batch_size)
            for code in others
        ]
        ordered = torch.stack([one.sort().values for one in found])
        dealt = torch.stack([one[torch.randperm(len(one), generator=rng)] for one in ordered])
        return replace(self, targets=others, ordered=ordered, dealt=dealt)

    def strengths(
        self, model: LensModel, prompts: Sequence[Prompt], language: str, *, batch_size: int = 16
    ) -> Float[Tensor, "prompt"]:
        """The w of each prompt, by one pass over it."""
        ids = prompt_ids(given_model(model), prompts)
        found = torch.zeros(len(ids))
        active = replace(self, alpha=self.alpha or 1.0)
        with steer(model, active, language, must_fire=False) as steering:

            def read(rows: Sequence[int]) -> Tensor:
                batch = pad(ids, rows, device=device_of(model))
                with torch.inference_mode():
                    make_decoder(model, len(rows)).step(batch.tokens, batch.attention_mask)
                assert steering.strengths is not None
                return steering.strengths.cpu()

            for batch_rows in length_batches([len(one) for one in ids], batch_size):
                for rows, held in in_parts_that_fit(batch_rows, read, what="prompts"):
                    found[list(rows)] = held
        return found

    @property
    def source(self) -> Mapping[str, Any]:
        """What the categories, and the centroids where there are some, were measured on."""
        keys = [*super().source.get("example_keys", ()), *self.measured.get("example_keys", ())]
        return {**super().source, "example_keys": list(dict.fromkeys(keys))}

    def settings(self) -> dict[str, Any]:
        """CLAS's, and what the strength follows."""
        null = {"null": "strengths shuffled between examples"} if self.dealt is not None else {}
        return {**super().settings(), **null}

    def edits(self, model: LensModel, languages: Sequence[str]) -> dict[Site, Edit]:
        """A rescaling a steered layer; before them, for "distance", a look at the layer below."""
        if self.alpha == 0 or set(languages) == {self.anchor}:
            return dict(self.clas.edits(model, languages))
        deal = self._dealing(languages)
        held = PromptStrengths(None if self.by == "distance" else lambda logits, rows: deal(unsureness(logits), rows))
        edits: dict[Site, Edit] = {}
        if self.by == "distance":
            edits[Site("residual", self._layer_below())] = self._reader(languages, held, deal)
        changes = {code: self.clas.scale(code) for code in dict.fromkeys(languages)}
        edits |= {
            Site(self.clas.site, layer): StrengthRescale(
                LanguageTable.of({code: scale[layer] - 1 for code, scale in changes.items()}, languages), held
            )
            for layer in self.clas.layers
        }
        return edits

    def _layer_below(self) -> int:
        if self.clas.layers[0] == 0:
            raise SteeringError("by='distance' reads the layer below the first steered one, and layer 0 has none below")
        return int(self.clas.layers[0]) - 1

    def _reader(self, languages: Sequence[str], held: PromptStrengths, deal: "Dealing") -> "ReadDistance":
        assert self.centroids is not None
        unknown = [code for code in languages if code not in self.languages]
        if unknown:
            raise SteeringError(f"no centroid of {unknown[0]!r}; available: {', '.join(self.languages)}")
        centroids = dict(zip(self.languages, self.centroids.double(), strict=True))
        start = centroids[self.anchor]
        lines = {code: centroids[code] - start for code in dict.fromkeys(languages)}
        scaled = {code: line / line.square().sum().clamp(min=1e-30) for code, line in lines.items()}
        starts = LanguageTable.of(dict.fromkeys(languages, start), languages)
        return ReadDistance(starts, LanguageTable.of(scaled, languages), held, deal)

    def _dealing(self, languages: Sequence[str]) -> "Dealing":
        """From strengths to those that take their places: themselves, but for a null."""
        if self.ordered is None or self.dealt is None:
            return lambda strengths, rows: strengths
        unknown = [code for code in languages if code not in (*self.targets, self.anchor)]
        if unknown:
            raise SteeringError(f"nothing was shuffled in {unknown[0]!r}; available: {', '.join(self.targets)}")
        ordered, dealt, targets = self.ordered, self.dealt, self.targets

        def deal(strengths: Tensor, rows: Sequence[int]) -> Tensor:
            new = strengths.clone()
            for place, row in enumerate(rows):
                if languages[row] in targets:
                    of = targets.index(languages[row])
                    nearest = (ordered[of] - strengths[place].cpu()).abs().argmin()
                    new[place] = dealt[of, nearest]
            return new

        return deal


FURTHEST = 2.0  # the largest strength by distance: as far behind the language's centroid as that is from the anchor's


@runtime_checkable
class Dealing(Protocol):
    """Which strengths take the places of these, of rows whose languages are at `rows`."""

    def __call__(self, strengths: Float[Tensor, "row"], rows: Sequence[int]) -> Float[Tensor, "row"]: ...


def unsureness(logits: Float[Tensor, "row d_vocab"]) -> Float[Tensor, "row"]:
    """1 - (p1 - p2) of the two likeliest tokens: 0 where the model is sure of one, 1 where two are as likely."""
    top = logits.float().softmax(-1).topk(2, dim=-1).values
    return 1 - (top[:, 0] - top[:, 1])


class ReadDistance:
    """Holds each row's place between two centroids at the end of its prompt, and hands the activation on as it is.

    Args:
        starts: the anchor's centroid, where the strength is 0.
        lines: from there to each language's, where it is 1, divided by the squared length of that.
    """

    observes = True  # also in passes that the intervention passes over

    def __init__(self, starts: LanguageTable, lines: LanguageTable, strengths: PromptStrengths, deal: Dealing) -> None:
        self._starts, self._lines, self.strengths, self._deal = starts, lines, strengths, deal

    def __call__(self, activation: Float[Tensor, "batch pos d_model"], rows: Sequence[int]) -> Tensor:
        if not self.strengths.continues:
            last = activation[:, -1:]
            along = ((last - self._starts.rows(last, rows)) * self._lines.rows(last, rows)).sum(-1)[:, 0]
            self.strengths.hold(self._deal(along.clamp(0, FURTHEST).float(), rows))
        return activation
