"""What tasks over parallel examples share: the examples, their languages, keys and settings."""

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from numbers import Integral
from typing import Any, ClassVar, get_args

from clas_lens.corpus.bundled import BUNDLED_TEXT_FIELDS, bundled_items
from clas_lens.corpus.content import CONTENT_PREFIX, text_hash
from clas_lens.corpus.tokens import require_tokenizer
from clas_lens.given import given, given_flag, given_whole, given_word, named
from clas_lens.models.sites import LensModel
from clas_lens.tasks.base import Example, TaskError, prompt_style
from clas_lens.tasks.chat import frame_settings
from clas_lens.vocabulary import Instruction, OnBad, PromptStyle, check_languages


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
            kept = sorted(random.Random(int(seed)).sample(kept, int(limit)))
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
        if (style := getattr(self, "style", None)) is not None:
            given_word("style", style, get_args(PromptStyle), error=TaskError)
        given_word("instruction", getattr(self, "instruction", "native"), get_args(Instruction), error=TaskError)
        given_word("on_bad", getattr(self, "on_bad", "raise"), get_args(OnBad), error=TaskError)
        for name in ("label_mass", "stop_at_newline"):
            given_flag(f"{self.name}: {name}", getattr(self, name, False), error=TaskError)
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
        if not isinstance(language, str) or language not in self.chosen:
            raise TaskError(f"{self.name}: no language {language!r}; available: {', '.join(self.languages)}")
        return self.chosen[language]

    def key(self, example: Example) -> str:
        """The name under which an example is known across corpora and tasks."""
        given(example, Example, "key needs an Example", "task.examples(language) has them")
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
