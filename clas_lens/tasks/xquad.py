"""XQuAD: read a paragraph, answer a question with words from it. Greedy, at most 32 new tokens."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from clas_lens.corpus.bundled import bundled_items, bundled_languages
from clas_lens.corpus.splits import SHARES, xquad_articles
from clas_lens.corpus.tokens import require_tokenizer
from clas_lens.models.decoding import Answering
from clas_lens.models.sites import LensModel
from clas_lens.steering.generate import first_line, greedy
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
from clas_lens.tasks.prompts import XQUAD_PROMPT_VERSION, EncodedPrompt, encode_prompt, xquad_prompt
from clas_lens.tasks.scores import f1_segmented, squad_em, squad_f1
from clas_lens.vocabulary import Instruction, Part, PromptStyle, Use


@dataclass(frozen=True)
class XQuAD(ParallelTask):
    """Generative reading comprehension in 12 languages, scored with SQuAD v1.1 token F1 and two more.

    Args:
        source: a Hub id, a local folder in the Hub's layout, or "bundled" (16 languages, 24 examples).
        languages: default all that the source has.
        part: XQuAD has one split; these parts of it share no article (of the bundled corpus: no passage). None: all of it.
        split_seed: which articles go to which part.
        limit, seed: a sample of the examples, the same ones in every language.
        instruction: in the example's language ("native") or in English ("en").
        style: "chat" or "plain"; default chat for instruct models and plain for base models.
        max_tokens: of the prompt; only the context is cut, at its end. Rows say whether (`truncated`) and whether a part of
            the gold answer went with it (`gold_lost`).
        max_new_tokens: of the answer.
        stop_at_newline: end an answer at its first line.

    Raises:
        CorpusError: a source that is not there or has no such language.
        TaskError: more examples asked for than there are.
    """

    source: str = "google/xquad"
    languages: tuple[str, ...] = ()
    part: Part | None = None
    split_seed: int = 0
    limit: int | None = None
    seed: int = 0
    instruction: Instruction = "native"
    style: PromptStyle | None = None
    max_tokens: int | None = None
    max_new_tokens: int = 32
    stop_at_newline: bool = False
    dataset: str = field(init=False, repr=False)
    chosen: Mapping[str, tuple[Example, ...]] = field(init=False, repr=False, compare=False)
    units: Mapping[str, str] = field(init=False, repr=False, compare=False)

    name: ClassVar[str] = "xquad"
    title: ClassVar[str] = "XQuAD"
    metric: ClassVar[str] = "f1"
    metric_title: ClassVar[str] = "token F1"
    row_columns: ClassVar[tuple[str, ...]] = (
        *("id", "group", "gold", "prediction", "f1", "em", "f1_segmented"),
        *("n_prompt_tokens", "n_new_tokens", "stopped", "truncated", "gold_lost"),
    )
    version: ClassVar[int] = 1
    paper_alphas: ClassVar[tuple[float, ...]] = tuple(float(alpha) for alpha in range(-4, 5))  # of its Figure 5

    @classmethod
    def from_config(cls, config: TaskOptions, use: Use) -> "XQuAD":
        """The examples of a study to tune on, or to report on."""
        return cls(
            config.data or "google/xquad",
            config.languages or (),
            part=None if config.whole else use,
            limit=limit_of(config, use),
            seed=config.seed,
            instruction=config.instruction,
            style=config.style,
            max_tokens=config.max_tokens,
            max_new_tokens=config.max_new_tokens,
            stop_at_newline=config.stop_at_newline,
        )

    @classmethod
    def expected(cls, config: TaskOptions, use: Use) -> Expected:
        """How much `from_config` will bring; XQuAD's parts are those of split seed 0."""
        part = "whole" if config.whole else use
        if config.data == "bundled":
            found = Expected(16, {"tuning": 4, "test": 10, "whole": 24}[part], 130, config.max_new_tokens)
        else:
            found = Expected(12, {"tuning": 210, "test": 434, "whole": 1190}[part], 350, config.max_new_tokens)
        return found.under(config, use)

    @property
    def new_tokens(self) -> int:
        return self.max_new_tokens

    @property
    def generates(self) -> bool:
        return self.max_new_tokens > 1

    def __post_init__(self) -> None:
        if self.part not in (None, *SHARES):
            raise TaskError(f"xquad: no part {self.part!r}; available: {', '.join(SHARES)}, or None for all")
        loaded = _bundled(self.languages) if self.source == "bundled" else _load(self)
        self._hold(loaded, self.part, self.split_seed)

    def settings(self, model: LensModel) -> dict[str, Any]:
        style = prompt_style(model, self.style)
        options = ("instruction", "max_tokens", "max_new_tokens", "stop_at_newline")
        return prompt_settings(self, XQUAD_PROMPT_VERSION, style, options)

    def prompts(self, model: LensModel, language: str) -> list[EncodedPrompt]:
        tokenizer = require_tokenizer(model)
        style, limit = prompt_style(model, self.style), room(model, self.max_tokens, self.max_new_tokens)
        return [
            encode_prompt(
                tokenizer,
                xquad_prompt(
                    language,
                    context=example.fields["context"],
                    question=example.fields["question"],
                    instruction=self.instruction,
                ),
                style=style,
                max_tokens=limit,
            )
            for example in self.examples(language)
        ]

    def columns(self, model: LensModel) -> None:
        return None

    def answer(self, model: LensModel, answering: Answering) -> list[tuple[str, int, bool]]:
        """The text, how many tokens it took, and whether it ended by itself."""
        decoder, logits = answering
        produced, ended = greedy(
            model, decoder, logits, max_new_tokens=self.max_new_tokens, stop_at_newline=self.stop_at_newline
        )
        tokenizer = require_tokenizer(model)
        texts = [str(tokenizer.decode(tokens, skip_special_tokens=True)) for tokens in produced]
        if self.stop_at_newline:
            texts = [first_line(text) for text in texts]
        return [(text, len(tokens), stop) for text, tokens, stop in zip(texts, produced, ended, strict=True)]

    def row(self, language: str, example: Example, prompt: EncodedPrompt, answer: Any) -> dict[str, Any]:
        text, n_new_tokens, stopped = answer
        gold = str(example.gold)
        return {
            "id": example.id,
            "group": example.group,
            "gold": gold,
            "prediction": text,
            "f1": float(squad_f1(text, [gold])),
            "em": float(squad_em(text, [gold])),
            "f1_segmented": float(f1_segmented(text, [gold], language)),
            "n_prompt_tokens": len(prompt.ids),
            "n_new_tokens": n_new_tokens,
            "stopped": stopped,
            "truncated": prompt.truncated,
            "gold_lost": example.fields["answer_start"] + len(gold) > prompt.kept_chars,
        }


def _load(task: XQuAD) -> dict[str, list[Example]]:
    from clas_lens.corpus.sources import load_columns

    columns = load_columns(
        "xquad",
        task.source,
        task.languages or None,
        config="xquad.{}",
        split="validation",
        fields=("context", "question", "answers"),
    )
    contexts = columns.first("context")
    names = {context: f"paragraph-{place}" for place, context in enumerate(dict.fromkeys(contexts))}
    articles = xquad_articles(contexts)
    return {
        language: [
            Example(
                name,
                article,
                names[first],
                answers["text"][0],
                {"context": context, "question": question, "answer_start": answers["answer_start"][0]},
            )
            for name, article, first, context, question, answers in zip(
                columns.ids, articles, contexts, values["context"], values["question"], values["answers"], strict=True
            )
        ]
        for language, values in columns.values.items()
    }


def _bundled(languages: Sequence[str]) -> dict[str, list[Example]]:
    return {
        language: [
            Example(
                f"{item.id}/question",
                item.id,
                item.id,
                item.answer,
                {
                    "context": item.passage,
                    "question": item.question,
                    "answer_start": item.passage.index(item.answer),
                },
            )
            for item in bundled_items(language)
        ]
        for language in (languages or bundled_languages())
    }
