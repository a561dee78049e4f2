"""The wording of prompts, one TOML file a language, checked when it is read."""

import tomllib
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict

from clas_lens.vocabulary import check_language


def _trimmed(text: str) -> str:
    if not text or text != text.strip():
        raise ValueError(f"{text!r} is empty or has white space at an end")
    return text


def _holding(slot: str) -> AfterValidator:
    def check(line: str) -> str:
        if line.count("{") != 1 or line.count("{" + slot + "}") != 1:
            raise ValueError(f"{line!r} must hold {{{slot}}} once, and no other brace")
        return line

    return AfterValidator(check)


Text = Annotated[str, AfterValidator(_trimmed)]


class _Wording(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class XnliWording(_Wording):
    """How one language asks for the label of a premise and a hypothesis."""

    instruction: Text
    premise: Annotated[Text, _holding("premise")]
    hypothesis: Annotated[Text, _holding("hypothesis")]


class XquadWording(_Wording):
    """How one language asks for a short answer out of a context."""

    instruction: Text
    question: Annotated[Text, _holding("question")]


class Wording(_Wording):
    """All prompts of one language; the answer cue serves every task."""

    answer: Text
    xnli: XnliWording
    xquad: XquadWording


def prompt_languages() -> tuple[str, ...]:
    """The languages that have prompts of their own."""
    return tuple(sorted(file.name[:-5] for file in _wording_folder().iterdir() if file.name.endswith(".toml")))


def load_wording(language: str) -> Wording:
    """The prompts of one language, checked.

    Raises:
        ValueError: no prompts in this language, or a file with a missing, unknown or malformed entry.
    """
    if language not in prompt_languages():
        raise ValueError(
            f"no prompts in {check_language(language)!r}; available: {', '.join(prompt_languages())}. "
            "instruction='en' asks in English about texts of any language."
        )
    return _read(language)


@cache
def _read(language: str) -> Wording:
    file = _wording_folder() / f"{language}.toml"
    return read_wording(file.name, file.read_text(encoding="utf-8"))


def read_wording(name: str, text: str) -> Wording:
    """The prompts in the text of one TOML file; errors name the file and the entry."""
    try:
        return Wording.model_validate(tomllib.loads(text))
    except ValueError as error:  # TOMLDecodeError and pydantic's ValidationError are both ValueErrors
        raise ValueError(f"prompts in {name}: {error}") from error


def _wording_folder() -> Traversable:
    return files("clas_lens") / "data" / "prompts"
