"""A function of the user's: what it takes, and as text what it does, by which kept rows know the rule they are of."""

import builtins
import dis
import inspect
from collections.abc import Callable, Iterable, Iterator
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any

from clas_lens.given import named
from clas_lens.steering.intervention import SteeringError, strength

HOW = "a rule is a function of (h, language), and of alpha and layer where it wants them"


PLAIN = (bool, int, float, complex, str, bytes, type(None))


def function_text(function: Callable[..., Any], version: str | None) -> str:
    """The version that the user gave, or the source text of the function, of its helpers, and the plain values they use.

    Raises:
        SteeringError: no version, and something that the source text does not say: a lambda, a tensor from outside, no source.
    """
    if version is not None:
        return f"version {version}"
    try:
        return "\n".join(_parts(function, set()))
    except _UntoldError as error:
        raise SteeringError(
            f"{getattr(function, '__name__', 'this rule')} has no identity: {error}. Rows and searches cannot be kept for it: "
            "give version=, and change it whenever the rule changes, or do without out="
        ) from None


class _UntoldError(Exception):
    """Something that a function does and its text does not say."""


def _parts(function: Any, seen: set[Any]) -> Iterator[str]:
    """The function's own text, then what it uses."""
    if not isinstance(function, FunctionType):
        raise _UntoldError(f"it is {named(function)}, not a plain function")
    if function.__name__ == "<lambda>":
        raise _UntoldError("a lambda has no source text of its own")
    seen.add(function)
    try:
        yield inspect.getsource(function)
    except (OSError, TypeError):
        raise _UntoldError(f"the source text of {function.__name__} is not at hand") from None
    for name, value in _used(function):
        yield from _value_parts(function, name, value, seen)


def _used(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """Names from outside and what they stand for: defaults, closures, globals."""
    yield from ((f"default {place}", value) for place, value in enumerate(function.__defaults__ or ()))
    yield from (function.__kwdefaults__ or {}).items()
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        yield name, cell.cell_contents
    for name in sorted(set(_global_names(function.__code__))):
        if name in function.__globals__:
            yield name, function.__globals__[name]
        elif not hasattr(builtins, name):
            raise _UntoldError(f"it uses {name!r}, which is not there")


def _global_names(code: CodeType) -> Iterator[str]:
    for step in dis.get_instructions(code):
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            yield str(step.argval)
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _global_names(inner)


def _value_parts(function: FunctionType, name: str, value: Any, seen: set[Any]) -> Iterator[str]:
    if isinstance(value, ModuleType | BuiltinFunctionType):
        return  # named in the text; versions of libraries are in every manifest
    if isinstance(value, FunctionType):
        if value in seen:
            return
        if value.__module__ == function.__module__:
            yield from _parts(value, seen)
        return
    if isinstance(value, type) and value.__module__ != function.__module__:
        return
    if not _is_plain(value):
        raise _UntoldError(f"it uses {name!r} from outside, {named(value)}, which its source text does not tell")
    yield f"{name} = {value!r}"


def _is_plain(value: Any) -> bool:
    match value:
        case list() | tuple() | set() | frozenset():
            return all(_is_plain(one) for one in value)
        case dict():
            return all(_is_plain(one) for pair in value.items() for one in pair)
        case _:
            return isinstance(value, PLAIN)


def given_options(function: Callable[..., Any]) -> tuple[str, ...]:
    """Which of alpha and layer a function takes."""
    there = inspect.signature(function).parameters
    return tuple(name for name in ("alpha", "layer") if name in there)


def alpha_default(function: Any) -> float:
    """The alpha that a function starts at: its own default, or 1.

    Raises:
        SteeringError: no function, or one of other arguments.
    """
    if not callable(function) or isinstance(function, type):
        raise SteeringError(f"{HOW}; got {function!r}")
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        raise SteeringError(f"{HOW}; what {function!r} takes cannot be told") from None
    first, rest = parameters[:2], parameters[2:]
    if len(first) < 2 or any(one.kind not in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD) for one in first):
        raise SteeringError(f"{HOW}; {_shown(function)} takes ({_listed(parameters)})")
    strange = [
        one
        for one in rest
        if one.kind is one.POSITIONAL_ONLY or (one.default is one.empty and one.name not in ("alpha", "layer"))
    ]
    if strange or {"alpha", "layer"} & {one.name for one in first}:
        raise SteeringError(f"{HOW}; {_shown(function)} takes ({_listed(parameters)})")
    own: Any = next((one.default for one in rest if one.name == "alpha"), inspect.Parameter.empty)
    return 1.0 if own is inspect.Parameter.empty else strength("alpha", own)


def _listed(parameters: Iterable[inspect.Parameter]) -> str:
    return ", ".join(one.name for one in parameters)


def _shown(function: Any) -> str:
    return str(getattr(function, "__name__", type(function).__name__))
