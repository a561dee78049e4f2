"""INCLINE as its authors released it, beside ours (`Incline`): every layer, MLP outputs, token means, the prompt's end alone.

From intervention.py (BLOOMZ) and intervention_llama.py of github.com/weixuan-wang123/INCLINE (b1feff1); arXiv:2410.12462.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from clas_lens.baselines.vectors import measured_on
from clas_lens.corpus.arguments import given_corpus, given_model
from clas_lens.corpus.parallel import ParallelCorpus
from clas_lens.given import given_text
from clas_lens.models.sites import LensModel, Site
from clas_lens.representations.sentences import Representations, given_representations
from clas_lens.saved import SAVED_ONLY
from clas_lens.steering.intervention import Edit, SavedIntervention, SteeringError, Strength, check_weights
from clas_lens.vocabulary import Positions, check_language


@dataclass(frozen=True, eq=False)
class ReleasedIncline(SavedIntervention):
    """x' = x + alpha W x at the MLP output of every layer, at the prompt's last position, W a language's map to the anchor.

    Sure, from the code: the site, all layers, W by least squares without ridge on token means, half of the source texts joined
    with English (`released_texts`), and one position. BLOOMZ adds, Llama subtracts; both search alpha on both sides of 0
    (-1 to 1 in tenths; "-0.3-0.2" is a slip for two of them), so that the sign is a matter of the search.

    Not the same here: theirs computes x + alpha W x for all layers in an unsteered pass and writes it into a second one; here
    it is one pass, in which layers above the first see what those below have changed. Theirs averages over all tokens, BOS
    among them; here over content tokens. Not sure: which alphas their tables are at, and whether the tables come from this
    code (the paper speaks of hidden states; the BLOOMZ script unpacks 5 of 7 values and does not run as it stands).

    W has at most the rank of the examples, and is kept as two factors: W x = goals' (sources x).

    Args:
        sources: a language's pseudo-inverse of its example states.
        goals: the anchor's example states.
        languages: the names of the `lang` axis; the anchor is not among them.
        alpha: strength; 0 is bit-identical to no steering.
        anchor: the language that stays untouched.
        positions: see `Clas`.
        model: see `describe_model`.
        source: what the maps were fitted on, for manifests.

    Raises:
        SteeringError: factors that do not fit each other or the languages, or are not finite.
    """

    kind: ClassVar[str] = "released incline"

    sources: Float[Tensor, "lang layer example d_model"] = field(repr=False)
    goals: Float[Tensor, "layer example d_model"] = field(repr=False)
    languages: tuple[str, ...]
    alpha: Strength = 1.0
    anchor: str = "en"
    positions: Positions = "prompt_last"
    model: Mapping[str, Any] = field(default_factory=dict, repr=False, metadata=SAVED_ONLY)
    source: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sources.shape[1:] != self.goals.shape or len(self.languages) != len(self.sources) or not self.languages:
            raise SteeringError(
                f"{len(self.languages)} languages, sources {tuple(self.sources.shape)} and goals {tuple(self.goals.shape)} "
                "do not fit each other"
            )
        if self.anchor in self.languages:
            raise SteeringError(f"the anchor {self.anchor!r} stays untouched and has no map to itself")
        if not (self.sources.isfinite().all() and self.goals.isfinite().all()):
            raise SteeringError("maps must be finite; some of the states that they were fitted on are not")

    @classmethod
    def fit(cls, states: Representations, *, anchor: str = "en", alpha: float = 1.0) -> "ReleasedIncline":
        """Fit a map a language and layer.

        Args:
            states: of the unsteered model on `released_texts(corpus, anchor)`, at all layers, with site="mlp_out".

        Raises:
            ValueError: states that are steered, of another site or pooling, or without the anchor or another language.
        """
        given_representations(states)
        found = (states.site, states.pool, states.intervention)
        if found != ("mlp_out", "mean", None):
            raise ValueError(
                f"INCLINE's released form maps token means of unsteered MLP outputs, got site={found[0]!r}, pool={found[1]!r}, "
                f"intervention={found[2]!r}: collect_representations(..., site='mlp_out')"
            )
        others = tuple(code for code in states.languages if code != anchor)
        if not others:
            raise ValueError(f"nothing to map: no language besides the anchor {anchor!r}")
        goals = states.of(anchor).transpose(0, 1).contiguous()
        # One language at a time: in float64 all together would be twice what is kept.
        inverses = [torch.linalg.pinv(states.of(code).transpose(0, 1).double()).mT.float() for code in others]
        source = {"method": "INCLINE, as released", **measured_on(states)}
        return cls(torch.stack(inverses), goals, others, alpha, anchor, model=states.model, source=source)

    def check(self, model: LensModel) -> None:
        """Raise `SteeringError` unless this was fitted on this model."""
        given_model(model)
        shape, expected = (self.goals.shape[0], self.goals.shape[2]), (model.cfg.n_layers, model.cfg.d_model)
        if shape != expected:
            raise SteeringError(
                f"these maps are of {self.model.get('name')!r}, {shape[0]} layers {shape[1]} wide; "
                f"{model.cfg.model_name!r} has {expected[0]}, {expected[1]} wide"
            )
        check_weights(model, self.model)

    def edits(self, model: LensModel, languages: Sequence[str]) -> dict[Site, Edit]:
        """One linear map a layer, at its MLP's output."""
        for code in dict.fromkeys(languages):
            check_language(code)
            if code not in (*self.languages, self.anchor):
                raise SteeringError(f"no map was fitted for {code!r}; available: {', '.join(self.languages)}")
        rows = [None if code == self.anchor else self.languages.index(code) for code in languages]
        return {
            Site("mlp_out", layer): AddMapped(self.sources[:, layer], self.goals[layer], self.alpha, rows)
            for layer in range(len(self.goals))
        }


class AddMapped:
    """x + alpha * goals' (sources x), in float32 or better, in x's own dtype; x itself, to the bit, where nothing is added.

    Args:
        rows: which map each place in the list of languages uses; None for none.
    """

    def __init__(
        self,
        sources: Float[Tensor, "lang example d_model"],
        goals: Float[Tensor, "example d_model"],
        alpha: float,
        rows: Sequence[int | None],
    ) -> None:
        self._sources, self._goals, self._alpha, self._rows = sources, goals, alpha, tuple(rows)

    def __call__(self, activation: Float[Tensor, "batch pos d_model"], rows: Sequence[int]) -> Tensor:
        used = [self._rows[row] for row in rows]
        if self._alpha == 0 or set(used) == {None}:
            return activation
        self._move(activation)
        result = activation.clone()
        for language in {one for one in used if one is not None}:
            of_language = [place for place, one in enumerate(used) if one == language]
            x = activation[of_language].to(self._goals.dtype)
            mapped = (x @ self._sources[language].T) @ self._goals
            result[of_language] = (x + self._alpha * mapped).to(activation.dtype)
        return result

    def _move(self, like: Tensor) -> None:
        """Factors on the activation's device, in float32 or better, moved at their first use."""
        work = torch.promote_types(like.dtype, torch.float32)
        if (self._goals.device, self._goals.dtype) != (like.device, work):
            with torch.inference_mode(False):  # so that they also serve a later pass with gradients
                self._sources, self._goals = (t.to(like.device, work) for t in (self._sources, self._goals))


def released_texts(corpus: ParallelCorpus, anchor: str = "en", *, joint: str = "\n") -> ParallelCorpus:
    """What the released code fits on: every second text (2nd, 4th, ...) has the anchor's before it, the anchor's own too.

    Args:
        joint: between the two; a line break for Llama, where BLOOMZ's code has the anchor's text after it and a space.
    """
    corpus = given_corpus(corpus)
    given_text("joint", joint)
    english = corpus[anchor]
    texts = {
        code: tuple(text if row % 2 == 0 else f"{english[row]}{joint}{text}" for row, text in enumerate(corpus[code]))
        for code in corpus.languages
    }
    return replace(corpus, texts=texts)  # under its name, so that its examples are still known for what they are
