"""A text as a user message in the tokenizer's chat template: the same on every day, without thinking, and really in it."""

import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from transformers import PreTrainedTokenizerBase

from clas_lens.corpus.tokens import bos_prefix
from clas_lens.vocabulary import PromptStyle

# Templates write today's date into the prompt (Llama 3.2, SmolLM3, Mistral Small): the same run would differ tomorrow. This is
# the date that Llama 3.1's template falls back to. Thinking models answer after their thoughts, where no digit is looked for.
DEFAULTS: Mapping[str, Any] = {"date_string": "26 Jul 2024", "enable_thinking": False, "thinking": False}


# What a template that asks for today's date is told.
TODAY = "{%- macro strftime_now(form) -%}{{ date_string }}{%- endmacro -%}"


PROBE = "Message 4711: tea, rice."


def template_kwargs(given: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a chat template is given beside the message: `DEFAULTS`, overridden by what the user gives."""
    return {**DEFAULTS, **(given or {})}


def frame_settings(
    tokenizer: PreTrainedTokenizerBase, style: PromptStyle, given: Mapping[str, Any] | None
) -> dict[str, Any]:
    """What is put around a prompt, for settings and keys: the BOS, and for a chat the template and what it is given."""
    bos = tokenizer.convert_ids_to_tokens(bos_prefix(tokenizer))
    if style != "chat":
        return {"bos": bos}
    template = hashlib.sha256(str(tokenizer.chat_template).encode()).hexdigest()[:16]
    return {"bos": bos, "chat_template": template, "chat_template_kwargs": template_kwargs(given)}


def chat_ids(tokenizer: PreTrainedTokenizerBase, text: str, given: Mapping[str, Any] | None) -> list[int]:
    """Token ids of one user message, up to where the assistant's answer starts, with the BOS that the tokenizer adds.

    Raises:
        ValueError: no chat template, or one that fails, that leaves the message out, or that starts to think.
    """
    if not tokenizer.chat_template:
        raise ValueError("this tokenizer has no chat template: use style='plain'")
    _check_template(tokenizer, str(tokenizer.chat_template), json.dumps(template_kwargs(given), sort_keys=True))
    ids: Any = _applied(tokenizer, text, template_kwargs(given), tokenize=True)
    prefix = bos_prefix(tokenizer)
    # A template without the BOS would read otherwise than the texts that statistics are of.
    return list(ids) if list(ids[: len(prefix)]) == prefix else [*prefix, *ids]


@lru_cache(maxsize=8)
def _check_template(tokenizer: PreTrainedTokenizerBase, template: str, kwargs: str) -> None:
    rendered: str = _applied(tokenizer, PROBE, json.loads(kwargs), tokenize=False)
    if PROBE not in rendered:
        raise ValueError(
            f"the chat template of this tokenizer leaves the user's message out (it makes {rendered[:80]!r} of {PROBE!r}): "
            "mend tokenizer.chat_template, or use style='plain'"
        )
    if "<think>" in rendered.rsplit(PROBE, 1)[1] and not rendered.rstrip().endswith("</think>"):
        raise ValueError(
            "the chat template of this tokenizer starts to think (<think>) before it answers, and an answer is looked for at "
            "once: give chat_template_kwargs with the template's own switch, or use style='plain'"
        )


def _applied(tokenizer: PreTrainedTokenizerBase, text: str, kwargs: Mapping[str, Any], *, tokenize: bool) -> Any:
    template: Any = tokenizer.chat_template
    if isinstance(template, str) and "strftime_now" in template:
        template = TODAY + template
    try:
        return tokenizer.apply_chat_template(
            [{"role": "user", "content": text.rstrip()}],
            add_generation_prompt=True,
            tokenize=tokenize,
            return_dict=False,
            sanitize_control_tokens=tokenize,
            chat_template=template if isinstance(template, str) else None,
            **kwargs,
        )
    except (
        Exception
    ) as error:  # whatever a template raises: jinja2's errors, raise_exception, OverflowError, KeyError ...
        raise ValueError(
            f"the chat template of this tokenizer fails: {type(error).__name__}: {error}. Mend tokenizer.chat_template, or use "
            "style='plain'"
        ) from error
