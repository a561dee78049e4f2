"""XQuAD: read a paragraph, answer a question with words from it. Greedy, at most 32 new tokens."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from clas_lens.corpus.bundled import bundled_items, bundled_languages
from clas_lens.corpus.checks import fields_fault, text_fault
from clas_lens.corpus.content import text_hash
from clas_lens.corpus.sources import Columns, load_columns
from clas_lens.corpus.splits import PART_SHARES, split_articles, split_units, xquad_articles
from clas_lens.corpus.tokens import require_tokenizer
from clas_lens.display import shortened
from clas_lens.given import given_whole
from clas_lens.models.decoding import Answering
from clas_lens.models.sites import LensModel
from clas_lens.steering.generate import first_line, greedy
from clas_lens.tasks.base import Example, Expected, TaskError, TaskOptions, limit_of, prompt_style, room
from clas_lens.tasks.parallel import ParallelTask, checked_languages, prompt_settings
from clas_lens.tasks.prompts import XQUAD_PROMPT_VERSION, EncodedPrompt, encode_prompt, xquad_prompt
from clas_lens.tasks.scores import f1_segmented, squad_em, squad_f1
from clas_lens.vocabulary import Instruction, OnBad, Part, PromptStyle, Use


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
        stop_at_newline: end an answer at its first line. Without, rows also have the score of the first line alone
            (`f1_first_line`).
        chat_template_kwargs: for the chat template, over `clas_lens.tasks.chat.DEFAULTS` (a fixed date, no thinking).
        on_bad: "raise" at a row whose answer is not where it should be or whose texts cannot be read, or "drop" such rows,
            counted in `dropped`.

    Raises:
        CorpusError: a source that is not there or has no such language, a bad row, by file and line, or a part of other
            paragraphs than XQuAD's.
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
    chat_template_kwargs: Mapping[str, Any] | None = field(default=None, hash=False)
    on_bad: OnBad = "raise"
    dataset: str = field(init=False, repr=False)
    chosen: Mapping[str, tuple[Example, ...]] = field(init=False, repr=False, compare=False)
    units: Mapping[str, str] = field(init=False, repr=False, compare=False)
    data: str = field(init=False, repr=False)
    dropped: int = field(init=False, repr=False)

    name: ClassVar[str] = "xquad"
    title: ClassVar[str] = "XQuAD"
    metric: ClassVar[str] = "f1"
    metric_title: ClassVar[str] = "token F1"
    row_columns: ClassVar[tuple[str, ...]] = (
        *("id", "group", "gold", "prediction", "f1", "em", "f1_segmented", "f1_first_line"),
        *("n_prompt_tokens", "n_new_tokens", "stopped", "truncated", "gold_lost"),
    )
    version: ClassVar[int] = 2
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
        if self.part not in (None, *PART_SHARES):
            raise TaskError(f"xquad: no part {self.part!r}; available: {', '.join(PART_SHARES)}, or None for all")
        given_whole("xquad: max_new_tokens", self.max_new_tokens, least=1)
        languages = checked_languages(self.name, self.languages)
        if self.source == "bundled":
            loaded = _bundled(languages)
            units = [row.unit for row in next(iter(loaded.values()))]
            kept = range(len(units)) if self.part is None else split_units(units, self.split_seed)[self.part]
            self._hold(loaded, kept, _texts(loaded), data="bundled")
            return
        columns = load_columns(
            self.name,
            str(self.source),
            languages or None,
            config="xquad.{}",
            split="validation",
            fields=("context", "question", "answers"),
            fault=row_fault,
            on_bad=self.on_bad,
        )
        loaded, contexts = _examples(columns), columns.reference
        kept = range(len(contexts)) if self.part is None else split_articles(contexts, self.split_seed)[self.part]
        self._hold(loaded, kept, _texts(loaded), data=columns.fingerprint, dropped=columns.dropped)

    def settings(self, model: LensModel) -> dict[str, Any]:
        options = ("instruction", "max_tokens", "max_new_tokens", "stop_at_newline", "on_bad")
        return prompt_settings(self, XQUAD_PROMPT_VERSION, model, options)

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
                chat_template_kwargs=self.chat_template_kwargs,
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
            "f1_first_line": float(squad_f1(first_line(text), [gold])),
            "n_prompt_tokens": len(prompt.ids),
            "n_new_tokens": n_new_tokens,
            "stopped": stopped,
            "truncated": prompt.truncated,
            "gold_lost": example.fields["answer_start"] + len(gold) > prompt.kept_chars,
        }


def row_fault(row: Mapping[str, Any]) -> str | None:
    """What keeps a row from being an example of XQuAD, or None."""
    wrong = fields_fault(("context", "question"), row)
    if wrong:
        return wrong
    answers = row.get("answers")
    if not isinstance(answers, Mapping) or not {"text", "answer_start"} <= set(answers):
        return f"'answers' is {shortened(repr(answers))}, not {{'text': [...], 'answer_start': [...]}}"
    texts, starts = answers["text"], answers["answer_start"]
    if not (isinstance(texts, list) and isinstance(starts, list) and texts and len(texts) == len(starts)):
        return f"'answers' has the texts {shortened(repr(texts))} at {shortened(repr(starts))}: two lists of one length"
    for text, start in zip(texts, starts, strict=True):
        wrong = text_fault(text)
        if wrong:
            return f"an answer's 'text' {wrong}"
        if isinstance(start, bool) or not isinstance(start, int) or start < 0:
            return f"'answer_start' is {start!r}, not a place in the context"
        found = row["context"][start : start + len(text)]
        if found != text:
            return f"the answer {shortened(text)!r} is not at {start} of the context, where {shortened(found)!r} stands"
    return None


def _examples(columns: Columns) -> dict[str, list[Example]]:
    contents = [text_hash(context) for context in columns.reference]
    names = {content: f"paragraph-{place}" for place, content in enumerate(dict.fromkeys(contents))}
    units = xquad_articles(columns.reference) or contents
    return {
        language: [
            Example(
                name,
                unit,
                names[content],
                answers["text"][0],
                {"context": context, "question": question, "answer_start": answers["answer_start"][0]},
                content,
            )
            for name, unit, content, context, question, answers in zip(
                columns.ids, units, contents, values["context"], values["question"], values["answers"], strict=True
            )
        ]
        for language, values in columns.values.items()
    }


def _texts(loaded: Mapping[str, Sequence[Example]]) -> Iterator[tuple[str, str]]:
    """The texts by which a paragraph is known: itself, a question, and both together, in every language."""
    for examples in loaded.values():
        for example in examples:
            context, question = example.fields["context"], example.fields["question"]
            for text in (question, context, f"{context}\n{question}"):
                yield text, example.unit


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
