"""XNLI: does the premise entail the hypothesis? One forward pass, the logits of three digits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch

from clas_lens.corpus.bundled import bundled_items, bundled_languages
from clas_lens.corpus.tokens import require_tokenizer
from clas_lens.models.decoding import Answering
from clas_lens.models.sites import LensModel
from clas_lens.tasks.base import (
    Example,
    Expected,
    ParallelTask,
    TaskError,
    TaskOptions,
    limit_of,
    prompt_settings,
    prompt_style,
    room,
)
from clas_lens.tasks.prompts import XNLI_PROMPT_VERSION, EncodedPrompt, encode_prompt, resolve_label_ids, xnli_prompt
from clas_lens.vocabulary import Instruction, PromptStyle, Use

LABELS = ("entailment", "neutral", "contradiction")


@dataclass(frozen=True)
class XNLI(ParallelTask):
    """Natural language inference in 15 languages, scored on the digits 0 (entailment), 1 (neutral), 2 (contradiction).

    The digits' logits are compared at the last real position of the prompt, right after the assistant header for a chat
    model; of equal logits the smaller digit wins. Rows carry the probabilities among the three and the mass of the three in
    the whole distribution: low mass means that the model was not about to answer with a digit at all.

    Args:
        source: a Hub id, a local folder in the Hub's layout, or "bundled" (16 languages, 72 examples).
        languages: default all that the source has.
        split: tune on "validation", report on "test". Of the bundled corpus these are its tuning and test passages.
        limit, seed: a sample of the examples, the same ones in every language.
        instruction: in the example's language ("native") or in English ("en").
        style: "chat" or "plain"; default chat for instruct models and plain for base models.
        max_tokens: a longer prompt raises; nothing of a premise or a hypothesis can be cut without changing the label.
        label_mass: False unembeds the three digits only and leaves `label_mass` empty.

    Raises:
        CorpusError: a source that is not there or has no such language.
        TaskError: more examples asked for than there are.
    """

    source: str = "facebook/xnli"
    languages: tuple[str, ...] = ()
    split: Literal["validation", "test"] = "validation"
    limit: int | None = None
    seed: int = 0
    instruction: Instruction = "native"
    style: PromptStyle | None = None
    max_tokens: int | None = None
    label_mass: bool = True
    dataset: str = field(init=False, repr=False)
    chosen: Mapping[str, tuple[Example, ...]] = field(init=False, repr=False, compare=False)
    units: Mapping[str, str] = field(init=False, repr=False, compare=False)

    name: ClassVar[str] = "xnli"
    title: ClassVar[str] = "XNLI"
    metric: ClassVar[str] = "correct"
    metric_title: ClassVar[str] = "accuracy"
    row_columns: ClassVar[tuple[str, ...]] = (
        *("id", "group", "gold", "prediction", "correct", *(f"p_{label}" for label in LABELS)),
        *("label_mass", "n_prompt_tokens", "truncated"),
    )
    version: ClassVar[int] = 1
    paper_alphas: ClassVar[tuple[float, ...]] = tuple(float(alpha) for alpha in range(-8, 3))  # of its Figure 5
    new_tokens: ClassVar[int] = 0
    generates: ClassVar[bool] = False

    @classmethod
    def from_config(cls, config: TaskOptions, use: Use) -> "XNLI":
        """The examples of a study to tune on, or to report on."""
        return cls(
            config.data or "facebook/xnli",
            config.languages or (),
            split="validation" if use == "tuning" else "test",
            limit=limit_of(config, use),
            seed=config.seed,
            instruction=config.instruction,
            style=config.style,
            max_tokens=config.max_tokens,
        )

    @classmethod
    def expected(cls, config: TaskOptions, use: Use) -> Expected:
        """How much `from_config` will bring."""
        if config.data == "bundled":
            return Expected(16, {"tuning": 12, "test": 30}[use], tokens=170).under(config, use)
        return Expected(15, {"tuning": 2490, "test": 5010}[use], tokens=150).under(config, use)

    def __post_init__(self) -> None:
        if self.split not in ("validation", "test"):
            raise TaskError(f"xnli: no split {self.split!r}; available: validation, test")
        if self.source == "bundled":
            self._hold(_bundled(self.languages), "tuning" if self.split == "validation" else "test", 0)
        else:
            self._hold(_load(self), None, 0)

    def settings(self, model: LensModel) -> dict[str, Any]:
        style = prompt_style(model, self.style)
        return prompt_settings(self, XNLI_PROMPT_VERSION, style, ("instruction", "max_tokens", "label_mass"))

    def prompts(self, model: LensModel, language: str) -> list[EncodedPrompt]:
        tokenizer = require_tokenizer(model)
        style, limit = prompt_style(model, self.style), room(model, self.max_tokens, 0)
        encoded = []
        for example in self.examples(language):
            text = xnli_prompt(
                language,
                premise=example.fields["premise"],
                hypothesis=example.fields["hypothesis"],
                instruction=self.instruction,
            )
            prompt = encode_prompt(tokenizer, text, style=style)
            if len(prompt.ids) > limit:
                raise TaskError(
                    f"xnli: example {example.id!r} in {language!r} has {len(prompt.ids)} tokens, more than {limit}; a premise "
                    "cannot be cut without changing the label. Raise max_tokens, or load the model with a longer context."
                )
            encoded.append(prompt)
        return encoded

    def columns(self, model: LensModel) -> tuple[int, ...] | None:
        return None if self.label_mass else resolve_label_ids(require_tokenizer(model))

    def answer(self, model: LensModel, answering: Answering) -> list[tuple[list[float], float | None]]:
        """Log-probabilities among the three digits, and the mass of the three."""
        _, logits = answering
        digits = logits
        mass: Sequence[float | None] = [None] * len(logits)
        if self.label_mass:
            digits = logits[:, list(resolve_label_ids(require_tokenizer(model)))]
            mass = (digits.double().logsumexp(-1) - logits.double().logsumexp(-1)).exp().tolist()
        scores = torch.log_softmax(digits.double(), dim=-1).tolist()
        return list(zip(scores, mass, strict=True))

    def row(self, language: str, example: Example, prompt: EncodedPrompt, answer: Any) -> dict[str, Any]:
        scores, mass = answer
        prediction = max(range(len(LABELS)), key=lambda label: (scores[label], -label))
        probabilities = torch.tensor(scores, dtype=torch.float64).exp().tolist()
        return {
            "id": example.id,
            "group": example.group,
            "gold": example.gold,
            "prediction": prediction,
            "correct": prediction == example.gold,
            **{f"p_{label}": probabilities[place] for place, label in enumerate(LABELS)},
            "label_mass": float("nan") if mass is None else mass,
            "n_prompt_tokens": len(prompt.ids),
            "truncated": prompt.truncated,
        }


def _load(task: XNLI) -> dict[str, list[Example]]:
    from clas_lens.corpus.sources import load_columns

    columns = load_columns(
        "xnli",
        task.source,
        task.languages or None,
        config="{}",
        split=task.split,
        fields=("premise", "hypothesis", "label"),
    )
    gold = columns.first("label")
    units = _premises(columns.ids, gold, columns.first("premise"))
    for language, values in columns.values.items():
        if values["label"] != gold:
            raise TaskError(f"xnli: the labels of {language!r} in {task.source} differ from the first language's")
    return {
        language: [
            Example(name, unit, unit, label, {"premise": premise, "hypothesis": hypothesis})
            for name, unit, label, premise, hypothesis in zip(
                columns.ids, units, gold, values["premise"], values["hypothesis"], strict=True
            )
        ]
        for language, values in columns.values.items()
    }


def _premises(ids: Sequence[str], gold: Sequence[int], premises: Sequence[str]) -> list[str]:
    """Which premise each row has, by the id of its first row.

    XNLI is triples of one premise with a hypothesis a label, the same in every language. Translations of one premise can
    differ within a triple, so only rows that do not come in such triples are told by the premise's text.
    """
    triples = [sorted(gold[row : row + 3]) for row in range(0, len(gold), 3)]
    if all(labels == [0, 1, 2] for labels in triples):
        return [ids[row - row % 3] for row in range(len(ids))]
    first_with: dict[str, str] = {}
    return [first_with.setdefault(premise, row) for row, premise in zip(ids, premises, strict=True)]


def _bundled(languages: Sequence[str]) -> dict[str, list[Example]]:
    return {
        language: [
            Example(
                f"{item.id}/{label}",
                item.id,
                item.id,
                place,
                {"premise": item.passage, "hypothesis": getattr(item, label)},
            )
            for item in bundled_items(language)
            for place, label in enumerate(LABELS)
        ]
        for language in (languages or bundled_languages())
    }
