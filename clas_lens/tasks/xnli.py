"""XNLI: does the premise entail the hypothesis? One forward pass, the logits of three digits."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from clas_lens.corpus.bundled import bundled_items, bundled_languages
from clas_lens.corpus.checks import fields_fault
from clas_lens.corpus.content import text_hash
from clas_lens.corpus.sources import Columns, load_columns
from clas_lens.corpus.splits import split_units
from clas_lens.corpus.tokens import require_tokenizer, starts_longer_than
from clas_lens.models.decoding import Answering
from clas_lens.models.sites import LensModel
from clas_lens.tasks.base import Example, Expected, TaskError, TaskOptions, limit_of, prompt_style, room
from clas_lens.tasks.parallel import ParallelTask, checked_languages, prompt_settings
from clas_lens.tasks.prompts import XNLI_PROMPT_VERSION, EncodedPrompt, encode_prompt, resolve_label_ids, xnli_prompt
from clas_lens.vocabulary import Instruction, OnBad, Part, PromptStyle, Split, Use

LABELS = ("entailment", "neutral", "contradiction")


@dataclass(frozen=True)
class XNLI(ParallelTask):
    """Natural language inference in 15 languages, scored on the digits 0 (entailment), 1 (neutral), 2 (contradiction).

    The digits' logits are compared at the last real position of the prompt, right after the assistant header for a chat
    model; of equal logits the smaller digit wins. Rows carry the probabilities among the three and the mass of the three in
    the whole distribution: low mass means that the model was not about to answer with a digit at all. `near_tie` says that the
    two largest of the three are within one rounding step of the model's dtype, so that rounding may have chosen: common in
    bfloat16, whose steps are 1/8 between logits of 16 and 32.

    Args:
        source: a Hub id, a local folder in the Hub's layout, or "bundled" (16 languages, 72 examples).
        languages: default all that the source has.
        split: tune on "validation", report on "test". Of the bundled corpus these are its tuning and test passages.
        limit, seed: a sample of the examples, the same ones in every language.
        instruction: in the example's language ("native") or in English ("en").
        style: "chat" or "plain"; default chat for instruct models and plain for base models.
        max_tokens: a longer prompt raises; nothing of a premise or a hypothesis can be cut without changing the label.
        label_mass: False unembeds the three digits only and leaves `label_mass` empty.
        chat_template_kwargs: for the chat template, over `clas_lens.tasks.chat.DEFAULTS` (a fixed date, no thinking).
        on_bad: "raise" at a row with an unknown label or a text that cannot be read, or "drop" such rows, counted in
            `dropped`.

    Raises:
        CorpusError: a source that is not there or has no such language, or a bad row, by file and line.
        TaskError: more examples asked for than there are.
    """

    source: str = "facebook/xnli"
    languages: tuple[str, ...] = ()
    split: Split = "validation"
    limit: int | None = None
    seed: int = 0
    instruction: Instruction = "native"
    style: PromptStyle | None = None
    max_tokens: int | None = None
    label_mass: bool = True
    chat_template_kwargs: Mapping[str, Any] | None = field(default=None, hash=False)
    on_bad: OnBad = "raise"
    dataset: str = field(init=False, repr=False)
    chosen: Mapping[str, tuple[Example, ...]] = field(init=False, repr=False, compare=False)
    units: Mapping[str, str] = field(init=False, repr=False, compare=False)
    data: str = field(init=False, repr=False)
    dropped: int = field(init=False, repr=False)

    name: ClassVar[str] = "xnli"
    title: ClassVar[str] = "XNLI"
    metric: ClassVar[str] = "correct"
    metric_title: ClassVar[str] = "accuracy"
    row_columns: ClassVar[tuple[str, ...]] = (
        *("id", "group", "gold", "prediction", "correct", *(f"p_{label}" for label in LABELS)),
        *("label_mass", "near_tie", "n_prompt_tokens", "truncated"),
    )
    version: ClassVar[int] = 2
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
        if self.split not in get_args(Split):
            raise TaskError(f"xnli: no split {self.split!r}; available: {', '.join(get_args(Split))}")
        languages = checked_languages(self.name, self.languages)
        if self.source == "bundled":
            loaded = _bundled(languages)
            rows = next(iter(loaded.values()))
            part: Part = "tuning" if self.split == "validation" else "test"
            self._hold(loaded, split_units([row.unit for row in rows], 0)[part], _texts(loaded), data="bundled")
            return
        columns = load_columns(
            self.name,
            str(self.source),
            languages or None,
            config="{}",
            split=self.split,
            fields=("premise", "hypothesis", "label"),
            fault=row_fault,
            on_bad=self.on_bad,
        )
        loaded = _examples(columns, str(self.source))
        kept = range(len(columns.ids))
        self._hold(loaded, kept, _texts(loaded), data=columns.fingerprint, dropped=columns.dropped)

    def settings(self, model: LensModel) -> dict[str, Any]:
        options = ("instruction", "max_tokens", "label_mass", "on_bad")
        return prompt_settings(self, XNLI_PROMPT_VERSION, model, options)

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
            if starts_longer_than(tokenizer, text, limit):  # one so long is not read whole to be counted
                raise self._too_long(example, language, "many", limit)
            prompt = encode_prompt(tokenizer, text, style=style, chat_template_kwargs=self.chat_template_kwargs)
            if len(prompt.ids) > limit:
                raise self._too_long(example, language, len(prompt.ids), limit)
            encoded.append(prompt)
        return encoded

    def _too_long(self, example: Example, language: str, counted: object, limit: int) -> TaskError:
        return TaskError(
            f"xnli: example {example.id!r} in {language!r} has {counted} tokens, more than {limit}; a premise cannot be cut "
            "without changing the label. Raise max_tokens, or load the model with a longer context."
        )

    def columns(self, model: LensModel) -> tuple[int, ...] | None:
        return None if self.label_mass else resolve_label_ids(require_tokenizer(model))

    def answer(self, model: LensModel, answering: Answering) -> list[tuple[list[float], float | None, bool]]:
        """Log-probabilities among the three digits, the mass of the three, and whether rounding may have chosen."""
        _, logits = answering
        digits = logits
        mass: Sequence[float | None] = [None] * len(logits)
        if self.label_mass:
            digits = logits[:, list(resolve_label_ids(require_tokenizer(model)))]
            mass = (digits.double().logsumexp(-1) - logits.double().logsumexp(-1)).exp().tolist()
        scores = torch.log_softmax(digits.double(), dim=-1).tolist()
        return list(zip(scores, mass, near_ties(digits, model.cfg.dtype).tolist(), strict=True))

    def row(self, language: str, example: Example, prompt: EncodedPrompt, answer: Any) -> dict[str, Any]:
        scores, mass, near_tie = answer
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
            "near_tie": near_tie,
            "n_prompt_tokens": len(prompt.ids),
            "truncated": prompt.truncated,
        }


def near_ties(logits: Float[Tensor, "row label"], dtype: torch.dtype) -> Bool[Tensor, "row"]:
    """Whether a row's two largest logits are no more than one step of `dtype` apart, at the larger one's size."""
    first, second = logits.double().topk(2, dim=-1).values.unbind(-1)
    step = torch.finfo(dtype).eps * 2.0 ** torch.frexp(first).exponent.sub(1)
    return first - second <= step


def row_fault(row: Mapping[str, Any]) -> str | None:
    """What keeps a row from being an example of XNLI, or None."""
    label = row.get("label")
    if isinstance(label, bool) or not isinstance(label, int) or not 0 <= label < len(LABELS):
        hidden = ", as where a test set hides its labels" if label == -1 else ""
        return f"'label' is {label!r}{hidden}, not 0 (entailment), 1 (neutral) or 2 (contradiction)"
    return fields_fault(("premise", "hypothesis"), row)


def _examples(columns: Columns, source: str) -> dict[str, list[Example]]:
    gold = columns.first("label")
    for language, values in columns.values.items():
        if values["label"] != gold:
            raise TaskError(f"xnli: the labels of {language!r} in {source} differ from the first language's")
    first_rows = _first_rows(gold, columns.reference)
    contents = [text_hash(premise) for premise in columns.reference]
    return {
        language: [
            Example(
                columns.ids[row],
                contents[first],
                columns.ids[first],
                gold[row],
                {"premise": values["premise"][row], "hypothesis": values["hypothesis"][row]},
                contents[row],
            )
            for row, first in enumerate(first_rows)
        ]
        for language, values in columns.values.items()
    }


def _first_rows(gold: Sequence[int], premises: Sequence[str]) -> list[int]:
    """The first row with the premise of each row.

    XNLI is triples of one premise with a hypothesis a label, the same in every language. Translations of one premise can
    differ within a triple, so only rows that do not come in such triples are told by the premise's text.
    """
    triples = [sorted(gold[row : row + 3]) for row in range(0, len(gold), 3)]
    if all(labels == [0, 1, 2] for labels in triples):
        return [row - row % 3 for row in range(len(gold))]
    first_with: dict[str, int] = {}
    return [first_with.setdefault(text_hash(premise), row) for row, premise in enumerate(premises)]


def _texts(loaded: Mapping[str, Sequence[Example]]) -> Iterator[tuple[str, str]]:
    """The texts by which a premise is known: itself, a hypothesis, and both together, in every language."""
    for examples in loaded.values():
        for example in examples:
            premise, hypothesis = example.fields["premise"], example.fields["hypothesis"]
            for text in (hypothesis, premise, f"{premise}\n{hypothesis}"):
                yield text, example.unit


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
