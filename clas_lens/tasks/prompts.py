"""Prompts per task and language, and their token ids. The wording is data; a change of it is a new version.

Texts of data sets are never templates: braces in a context stay what they are, and so do the names of special tokens. Only
the context of a prompt is ever cut, never its question or its answer cue.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from clas_lens.corpus.tokens import CHARS_A_TOKEN, TOKENS_THAT_JOIN, bos_prefix, starts_longer_than
from clas_lens.given import given, given_each, given_whole
from clas_lens.models.presets import PRESETS
from clas_lens.tasks.chat import chat_ids
from clas_lens.tasks.wording import Wording, load_wording
from clas_lens.vocabulary import Instruction, PromptStyle, check_language

XNLI_PROMPT_VERSION = "xnli-v1"


XQUAD_PROMPT_VERSION = "xquad-v1"


# The label digit starts a line. "Answer:" alone would put the mass on a space (Llama 3.1 and Qwen 2.5 have no token " 0");
# after a newline the next token is the bare digit, as it is after the assistant header of a chat, which ends in one too.
LABEL_BREAK = "\n"


def _asked_in(language: str, instruction: Instruction) -> Wording:
    match instruction:
        case "native":
            return load_wording(language)
        case "en":
            check_language(language)
            return load_wording("en")
        case _:
            raise ValueError(f"unknown instruction {instruction!r}; available: 'native', 'en'")


def _filled(line: str, slot: str, value: str) -> str:
    before, after = line.split("{" + slot + "}")
    return before + given(value, str, f"a {slot} is a text", "a data set's row has one") + after


# --- prompts as text ---


@dataclass(frozen=True)
class PromptParts:
    """A prompt in three pieces, of which `encode_prompt` cuts only the context."""

    before: str
    context: str
    after: str

    @property
    def text(self) -> str:
        return self.before + self.context + self.after


def xnli_prompt(language: str, *, premise: str, hypothesis: str, instruction: Instruction = "native") -> str:
    """Ask for 0 (entailment), 1 (neutral) or 2 (contradiction); the digit comes right where the text ends.

    Args:
        language: of the example; with "native" also of the instruction and the cues.
        instruction: "native", or "en" for English instruction and cues around the example, whatever its language.
    """
    words = _asked_in(language, instruction)
    premise_line = _filled(words.xnli.premise, "premise", premise)
    hypothesis_line = _filled(words.xnli.hypothesis, "hypothesis", hypothesis)
    return f"{words.xnli.instruction}\n\n{premise_line}\n{hypothesis_line}\n{words.answer}{LABEL_BREAK}"


def xquad_prompt(language: str, *, context: str, question: str, instruction: Instruction = "native") -> PromptParts:
    """Ask for a short answer copied from the context; ends in the answer cue. Options as in `xnli_prompt`."""
    words = _asked_in(language, instruction)
    given(context, str, "a context is a text", "give the passage that the question is about")
    question_line = _filled(words.xquad.question, "question", question)
    return PromptParts(f"{words.xquad.instruction}\n\n", context, f"\n\n{question_line}\n{words.answer}")


def uses_chat_template(tokenizer: PreTrainedTokenizerBase, model_name: str) -> bool:
    """Whether to prompt this model as a chat: as its preset says, otherwise if its tokenizer has a template."""
    for name, preset in PRESETS.items():
        if model_name in (name, preset.hub_id, preset.hub_id.split("/")[-1]):
            return preset.prompt_style == "chat"
    return bool(tokenizer.chat_template)


# --- prompts as token ids ---


@dataclass(frozen=True)
class EncodedPrompt:
    """Token ids of one prompt.

    Attributes:
        ids: with one BOS in front, where the tokenizer or its chat template has one.
        truncated: whether the context was cut.
        kept_chars: how many characters of the context are left: a span of it that ends beyond them is lost. 0 for a
            prompt without a context.
    """

    ids: tuple[int, ...]
    truncated: bool
    kept_chars: int


def encode_prompt(
    tokenizer: PreTrainedTokenizerBase,
    prompt: str | PromptParts,
    *,
    style: PromptStyle,
    max_tokens: int | None = None,
    chat_template_kwargs: Mapping[str, Any] | None = None,
) -> EncodedPrompt:
    """Token ids of a prompt, with the end of its context cut off where the whole would exceed `max_tokens`.

    Names of special tokens within the prompt ("<|eot_id|>") become ordinary text. What is left of the context is a prefix
    of the original characters (no normalisation), cut at a token's end, and the ids are those of the shortened text.

    Args:
        style: "plain" puts the tokenizer's BOS before the text. "chat" makes the text a user message, without white space
            at its end, in the tokenizer's chat template; the tokenizer's BOS comes first there too, once, and ids end with
            the assistant header.
        max_tokens: everything included. A text without a context is never cut.
        chat_template_kwargs: for the template, over `clas_lens.tasks.chat.DEFAULTS`.

    Raises:
        ValueError: what may not be cut exceeds `max_tokens`, or "chat" with a tokenizer that has no chat template, or one
            that fails, leaves the message out or starts to think.
    """
    parts = PromptParts("", "", prompt) if isinstance(prompt, str) else prompt
    given(parts, PromptParts, "encode_prompt needs a text or PromptParts", "xnli_prompt and xquad_prompt make them")

    def ids_with(context: str) -> tuple[int, ...]:
        return _token_ids(tokenizer, parts.before + context + parts.after, style, chat_template_kwargs)

    if max_tokens is None:
        return EncodedPrompt(ids_with(parts.context), truncated=False, kept_chars=len(parts.context))
    max_tokens = given_whole("max_tokens", max_tokens, least=1)
    for part in (parts.before, parts.after):
        if starts_longer_than(tokenizer, part, max_tokens):
            raise ValueError(
                f"the prompt has more than {max_tokens} tokens without its context, which alone may be cut: raise max_tokens"
            )
    context, ends = _beginning(tokenizer, parts.context, max_tokens)
    whole = ids_with(context)
    if len(whole) <= max_tokens and context == parts.context:
        return EncodedPrompt(whole, truncated=False, kept_chars=len(context))
    bare = ids_with("")
    if len(bare) > max_tokens:
        raise ValueError(
            f"the prompt has {len(bare)} tokens without its context, which alone may be cut, and max_tokens is "
            f"{max_tokens}: raise max_tokens"
        )
    # Where the context meets the rest tokens join or part, so the count is known only once the shortened text is encoded.
    room = max_tokens - min(len(bare), len(whole) - len(ends))
    for end in dict.fromkeys(reversed(ends[: room + TOKENS_THAT_JOIN])):
        ids = ids_with(context[:end])
        if len(ids) <= max_tokens:
            return EncodedPrompt(ids, truncated=True, kept_chars=end)
    return EncodedPrompt(bare, truncated=True, kept_chars=0)


def _beginning(tokenizer: PreTrainedTokenizerBase, context: str, max_tokens: int) -> tuple[str, list[int]]:
    """So much of a context that it has over `max_tokens` tokens, or all of it; and where each of its tokens ends."""
    chars = max_tokens * CHARS_A_TOKEN
    while True:
        part = context[:chars]
        encoding: Any = tokenizer(
            part, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True
        )
        ends = [end for _, end in encoding["offset_mapping"]]
        if len(part) == len(context) or len(ends) > max_tokens + TOKENS_THAT_JOIN:
            return part, ends
        chars *= 2


def resolve_label_ids(
    tokenizer: PreTrainedTokenizerBase, labels: tuple[str, str, str] = ("0", "1", "2")
) -> tuple[int, int, int]:
    """The token of each label where `xnli_prompt` ends, which is also where an assistant's answer starts.

    Raises:
        ValueError: a label that is not one token there, or two labels with the same token.
    """
    ending = load_wording("en").answer + LABEL_BREAK
    before = _token_ids(tokenizer, ending, "plain")
    found = []
    for label in given_each(labels, str, "labels must be a list of three texts", 'such as ("0", "1", "2")'):
        ids = _token_ids(tokenizer, ending + label, "plain")
        if ids[:-1] != before:
            raise ValueError(
                f"label {label!r} is not a single token after {ending!r}: this tokenizer makes "
                f"{tokenizer.convert_ids_to_tokens(list(ids))} of the two, and "
                f"{tokenizer.convert_ids_to_tokens(list(before))} of {ending!r} alone"
            )
        found.append(ids[-1])
    if len(set(found)) != len(found):
        raise ValueError(f"labels {labels} have the token ids {found} in this tokenizer: they must differ")
    entailment, neutral, contradiction = found
    return entailment, neutral, contradiction


def _token_ids(
    tokenizer: PreTrainedTokenizerBase,
    text: str,
    style: PromptStyle,
    chat_template_kwargs: Mapping[str, Any] | None = None,
) -> tuple[int, ...]:
    match style:
        case "plain":
            prefix = bos_prefix(tokenizer)
            content: Any = tokenizer(text, add_special_tokens=False, split_special_tokens=True)
            ids = [*prefix, *content["input_ids"]]
        case "chat":
            ids = chat_ids(tokenizer, text, chat_template_kwargs)
        case _:
            raise ValueError(f"unknown prompt style {style!r}; available: 'plain', 'chat'")
    return tuple(int(token) for token in ids)
