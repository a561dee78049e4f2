"""What a task is to the evaluation loop, and what a study says of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

from clas_lens.corpus.tokens import require_tokenizer
from clas_lens.models.decoding import Answering
from clas_lens.models.sites import LensModel
from clas_lens.tasks.prompts import EncodedPrompt, uses_chat_template
from clas_lens.vocabulary import Instruction, PromptStyle, Use


class TaskError(ValueError):
    """A task that cannot be set up as asked."""


@dataclass(frozen=True)
class Example:
    """One example in one language.

    Attributes:
        id: the same in every language, and the id that `ParallelCorpus` gives the same example.
        unit: what must not be on both sides of a split: the article (XQuAD), the premise (XNLI), the passage (bundled).
        group: what is resampled together: the paragraph (XQuAD), the premise (XNLI).
        gold: the label, or the answer text.
        fields: the texts, and what else scoring needs.
        content: a hash of the premise or paragraph, by which the example is known again under any name; "" if it is known
            by its id.
    """

    id: str
    unit: str
    group: str
    gold: int | str
    fields: Mapping[str, Any]
    content: str = ""


@runtime_checkable
class Task(Protocol):
    """Examples -> prompts -> answers -> rows. `XNLI` and `XQuAD` are two; your own needs only this."""

    @property
    def name(self) -> str:
        """Short name, used in rows and file names."""
        ...

    @property
    def title(self) -> str:
        """Its name in tables and figures."""
        ...

    @property
    def metric(self) -> str:
        """The column of its rows that counts, in [0, 1]."""
        ...

    @property
    def metric_title(self) -> str:
        """What that column is called in tables and figures, such as "accuracy"."""
        ...

    @property
    def row_columns(self) -> tuple[str, ...]:
        """The columns that `row` fills."""
        ...

    @property
    def version(self) -> int:
        """Of answering and scoring; saved rows of another version are answered again."""
        ...

    @property
    def paper_alphas(self) -> tuple[float, ...]:
        """The strengths that a search takes unless told others; empty if it must be told."""
        ...

    @property
    def new_tokens(self) -> int:
        """How many tokens an answer has at most; 0 if the prompt's own logits are the answer."""
        ...

    @property
    def generates(self) -> bool:
        """Whether answering feeds generated tokens back to the model."""
        ...

    @property
    def languages(self) -> tuple[str, ...]: ...

    @property
    def units(self) -> Mapping[str, str]:
        """The unit of every example of the whole data set by its key, also of those not evaluated.

        It may also hold the units of texts, by `text/<hash>` (`clas_lens.corpus.content`).
        """
        ...

    def key(self, example: Example) -> str:
        """The name under which an example is known: `<data set>/<id>`, or `text/<hash>/<id>` where its text tells it."""
        ...

    def example_keys(self) -> frozenset[str]:
        """The keys of the examples that are evaluated."""
        ...

    def settings(self, model: LensModel) -> dict[str, Any]:
        """Everything that its rows depend on beside the model and the texts, JSON-able; for manifests and file headers."""
        ...

    def examples(self, language: str) -> Sequence[Example]:
        """The examples in one language; the same ids in the same order in each."""
        ...

    def prompts(self, model: LensModel, language: str) -> list[EncodedPrompt]:
        """The prompt of each example, as token ids.

        Raises:
            TaskError: a prompt that leaves no room in the model's context.
        """
        ...

    def columns(self, model: LensModel) -> tuple[int, ...] | None:
        """The token ids whose logits are needed after the prompt, if not all."""
        ...

    def answer(self, model: LensModel, answering: Answering) -> list[Any]:
        """One answer a row of a batch that the model has just read."""
        ...

    def row(self, language: str, example: Example, prompt: EncodedPrompt, answer: Any) -> dict[str, Any]:
        """Score one answer."""
        ...


@runtime_checkable
class TaskOptions(Protocol):
    """What a study says of a task; each task takes from it what it knows."""

    @property
    def data(self) -> str | None: ...
    @property
    def languages(self) -> tuple[str, ...] | None: ...
    @property
    def tuning_limit(self) -> int | None: ...
    @property
    def limit(self) -> int | None: ...
    @property
    def seed(self) -> int: ...
    @property
    def whole(self) -> bool: ...
    @property
    def instruction(self) -> Instruction: ...
    @property
    def style(self) -> PromptStyle | None: ...
    @property
    def max_tokens(self) -> int | None: ...
    @property
    def max_new_tokens(self) -> int: ...
    @property
    def stop_at_newline(self) -> bool: ...


@dataclass(frozen=True)
class Expected:
    """What a task will take, known without its data: languages, examples in each, tokens a prompt, new tokens at most.

    Tokens are averages over the languages with Llama 3.1's tokenizer, instruction included.
    """

    languages: int
    examples: int
    tokens: int
    new_tokens: int = 0

    def under(self, options: TaskOptions, use: Use) -> "Expected":
        """Of these the languages and examples that are asked for, in prompts no longer than asked for."""
        limit = limit_of(options, use)
        return replace(
            self,
            languages=len(options.languages) if options.languages else self.languages,
            examples=min(self.examples, limit) if limit else self.examples,
            tokens=min(self.tokens, options.max_tokens or self.tokens),
        )


def limit_of(options: TaskOptions, use: Use) -> int | None:
    """How many examples a language are asked for."""
    return options.tuning_limit if use == "tuning" else options.limit


def prompt_style(model: LensModel, style: PromptStyle | None) -> PromptStyle:
    """As asked, else chat for instruct models and plain for base models."""
    if style is not None:
        return style
    return "chat" if uses_chat_template(require_tokenizer(model), model.cfg.model_name) else "plain"


def room(model: LensModel, max_tokens: int | None, new_tokens: int) -> int:
    """How many tokens a prompt may have: as asked, and no more than the model's context leaves."""
    context = model.cfg.n_ctx - new_tokens
    if max_tokens is None:
        return context
    if max_tokens > context:
        raise TaskError(
            f"max_tokens={max_tokens} and {new_tokens} new tokens do not fit {model.cfg.model_name!r}, whose context is "
            f"{model.cfg.n_ctx}: give at most {context}"
        )
    return max_tokens
