"""What a function of the user's does, as text: by it kept rows know whether they are still of the same rule."""

import builtins
import dis
import inspect
from collections.abc import Callable, Iterator
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any

from clas_lens.given import named
from clas_lens.steering.intervention import SteeringError

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
