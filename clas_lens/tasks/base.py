"""What a task is to the evaluation loop, and what the tasks share."""

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any, ClassVar, Protocol, get_args, runtime_checkable

from clas_lens.corpus.bundled import BUNDLED_TEXT_FIELDS, bundled_items
from clas_lens.corpus.content import CONTENT_PREFIX, text_hash
from clas_lens.corpus.tokens import require_tokenizer
from clas_lens.given import given_whole, given_word, named
from clas_lens.models.decoding import Answering
from clas_lens.models.sites import LensModel
from clas_lens.tasks.chat import frame_settings
from clas_lens.tasks.prompts import EncodedPrompt, uses_chat_template
from clas_lens.vocabulary import Instruction, PromptStyle, Use, check_languages


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


class ParallelTask:
    """What tasks over parallel examples share: which examples there are, in which languages, under which keys.

    Attributes:
        dataset: where the examples come from; `<dataset>/<id>` is the key of an example that is known by its id.
        chosen: language to the examples that are evaluated.
        units: the unit of every example of the whole data set, by key, and of its texts in every language, by
            `text/<hash>`.
        data: a hash of what was read: ids, premises or paragraphs, and the first language's texts and answers.
        dropped: how many rows were left out because something in them was bad (`on_bad="drop"`).
    """

    name: ClassVar[str]
    title: ClassVar[str]
    metric: ClassVar[str]
    metric_title: ClassVar[str]
    row_columns: ClassVar[tuple[str, ...]]
    version: ClassVar[int]
    paper_alphas: ClassVar[tuple[float, ...]] = ()
    languages: tuple[str, ...]
    dataset: str
    chosen: Mapping[str, tuple[Example, ...]]
    units: Mapping[str, str]
    data: str
    dropped: int

    def _hold(
        self,
        loaded: Mapping[str, Sequence[Example]],
        available: Sequence[int],
        texts: Iterable[tuple[str, str]],
        *,
        data: str,
        dropped: int = 0,
    ) -> None:
        """Keep some rows, or a sample of them, of what was loaded; for the constructors of frozen dataclasses.

        Args:
            available: the rows of the part that was asked for.
            texts: every text by which a unit is known, with the unit.
        """
        self._check_options()
        limit, seed = (getattr(self, option) for option in ("limit", "seed"))
        rows = next(iter(loaded.values()))
        kept = list(available)
        if limit is not None:
            if isinstance(limit, bool) or not isinstance(limit, Integral) or not 1 <= int(limit) <= len(kept):
                raise TaskError(f"{self.name}: asked for {limit} examples of {len(kept)}")
            kept = sorted(random.Random(seed).sample(kept, int(limit)))
        if not kept:
            raise TaskError(f"{self.name}: none of the {len(rows)} examples is of the part that was asked for")
        object.__setattr__(self, "dataset", "bundled" if getattr(self, "source", "") == "bundled" else self.name)
        values = {
            "languages": tuple(loaded),
            "chosen": {code: tuple(of[row] for row in kept) for code, of in loaded.items()},
            "units": {f"{CONTENT_PREFIX}{text_hash(text)}": unit for text, unit in texts}
            | {self.key(row): row.unit for row in rows}
            | (dict(_bundled_units()) if self.dataset == "bundled" else {}),
            "data": data,
            "dropped": dropped,
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def _check_options(self) -> None:
        """Raise for an option that would be understood only hours on, or otherwise than it was meant."""
        for name in ("seed", "split_seed"):
            given_whole(f"{self.name}: {name}", getattr(self, name, 0))
        if (most := getattr(self, "max_tokens", None)) is not None:
            given_whole(f"{self.name}: max_tokens", most, least=1)
        given_word("style", getattr(self, "style", None) or "plain", get_args(PromptStyle), error=TaskError)
        given_word("instruction", getattr(self, "instruction", "native"), get_args(Instruction), error=TaskError)
        kwargs = getattr(self, "chat_template_kwargs", None)
        if kwargs is not None and not (isinstance(kwargs, Mapping) and all(isinstance(name, str) for name in kwargs)):
            raise TaskError(
                f"{self.name}: chat_template_kwargs must be a mapping of names to values, got {named(kwargs)}"
            )

    def __len__(self) -> int:
        """The number of examples (the same in every language)."""
        return len(self.chosen[self.languages[0]])

    def examples(self, language: str) -> tuple[Example, ...]:
        """The examples in one language; the same ids in the same order in each.

        Raises:
            TaskError: a language that the task was not loaded with.
        """
        if language not in self.chosen:
            raise TaskError(f"{self.name}: no language {language!r}; available: {', '.join(self.languages)}")
        return self.chosen[language]

    def key(self, example: Example) -> str:
        """The name under which an example is known across corpora and tasks."""
        return f"{CONTENT_PREFIX}{example.content}/{example.id}" if example.content else f"{self.dataset}/{example.id}"

    def example_keys(self) -> frozenset[str]:
        """The keys of the examples that are evaluated."""
        return frozenset(self.key(example) for example in self.chosen[self.languages[0]])


def _bundled_units() -> Iterator[tuple[str, str]]:
    """Every text of the bundled corpus by key: the passage of a question is the premise of three hypotheses."""
    for item in bundled_items("en"):
        yield f"{CONTENT_PREFIX}{text_hash(item.passage)}", item.id
        for text in BUNDLED_TEXT_FIELDS:
            yield f"bundled/{item.id}/{text}", item.id


def checked_languages(task: str, languages: Any) -> tuple[str, ...]:
    """The languages asked for, each once; none for all that there are."""
    if isinstance(languages, Sized) and not isinstance(languages, str) and not len(languages):
        return ()
    return check_languages(languages, task)


def prompt_settings(task: ParallelTask, version: str, model: LensModel, names: Sequence[str]) -> dict[str, Any]:
    """What a task's rows depend on: the prompt's version and style, the tokens around it, the data, the named options."""
    style = prompt_style(model, getattr(task, "style", None))
    tokenizer = require_tokenizer(model)
    return {
        "task": task.name,
        "prompt": version,
        "style": style,
        **frame_settings(tokenizer, style, getattr(task, "chat_template_kwargs", None)),
        "data": task.data,
        "dropped": task.dropped,
        **{name: getattr(task, name) for name in names},
    }
