"""One base for everything that is saved as one file: settings, fingerprint, save and load."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from types import UnionType
from typing import Any, ClassVar, TypeVar, Union, get_args, get_origin, get_type_hints

from torch import Tensor

from clas_lens.artifacts import ArtifactError, content_key, load_tensors, save_tensors, tensor_fingerprint
from clas_lens.given import given_path, named

AnySaved = TypeVar("AnySaved", bound="Saved")  # typing.Self is nothing that runtime checks can check


def check_fields(value: Any, *, error: type[ValueError] = ValueError) -> None:
    """Raise unless a dataclass's fields are what their annotations name: tensors with their data, texts, lists of texts or of
    whole numbers, mappings, or `Saved` objects.

    Single numbers and choices of words are left to whoever knows which there are.

    Raises:
        ValueError: (or `error`) a field that is something else.
    """
    for name, hint in get_type_hints(type(value)).items():
        if get_origin(hint) is ClassVar:
            continue
        held = getattr(value, name)
        wanted = _unmet(hint, held)
        if wanted:
            raise error(f"{type(value).__name__} needs {wanted} as {name}, got {_found(held)}")


def _unmet(hint: Any, held: Any) -> str | None:
    """What an annotation asks for, in words, where the value is none of that; None where it is, or where this cannot tell."""
    if get_origin(hint) in (Union, UnionType):
        asked = [_unmet(one, held) for one in get_args(hint) if one is not type(None)]
        return None if held is None or None in asked else f"{' or '.join(map(str, asked))} or None"
    if get_origin(hint) is tuple:
        each = get_args(hint)[0]
        fits = isinstance(held, tuple | list) and all(_unmet(each, one) is None for one in held)
        return None if fits else f"a list of {_NAMES.get(each, 'values')}s"
    if get_origin(hint) is Mapping:
        return None if isinstance(held, Mapping) else "a mapping"
    if getattr(hint, "array_type", None) is Tensor:  # jaxtyping's
        return None if _is_tensor_of(hint.dtypes, held) else f"a tensor of {_kind(hint.dtypes)}"
    if hint in _NAMES:
        return None if isinstance(held, hint) and not isinstance(held, bool) else f"a {_NAMES[hint]}"
    if isinstance(hint, type) and issubclass(hint, Saved):
        return None if isinstance(held, hint) else f"a {hint.__name__}"
    return None


_NAMES: dict[Any, str] = {str: "text", int: "whole number"}


def _is_tensor_of(dtypes: Sequence[str], held: Any) -> bool:
    return isinstance(held, Tensor) and not held.is_meta and str(held.dtype).removeprefix("torch.") in dtypes


def _kind(dtypes: Sequence[str]) -> str:
    return "truth values" if "bool" in dtypes else "floating-point numbers"


def _found(held: Any) -> str:
    if isinstance(held, Tensor):
        return f"a tensor of {held.dtype}" + (" without data (on the device 'meta')" if held.is_meta else "")
    return named(held)


SAVED_ONLY = {"saved only": True}
"""Metadata of a field that tells where something comes from: saved and in the fingerprint, but no setting."""


@dataclass(frozen=True, eq=False)
class Saved:
    """A frozen dataclass in one file: its tensors as tensors, other fields in the header, a `Saved` among them likewise.

    A subclass names its `kind` and its fields. Tuples and frozen sets are lists in the header and come back as what the
    field's annotation says; what else JSON can hold comes back as it is.
    """

    kind: ClassVar[str]
    error: ClassVar[type[ValueError]] = ValueError

    def __post_init__(self) -> None:
        check_fields(self, error=self.error)

    def settings(self) -> dict[str, Any]:
        """What was chosen, JSON-able, for manifests: neither tensors, nor what is `Saved` itself, nor `SAVED_ONLY` fields."""
        hidden = {f.name for f in fields(self) if f.metadata == SAVED_ONLY}
        return {
            name: value
            for name, value in self._header().items()
            if name not in {"kind", *hidden} and not isinstance(getattr(self, name), Saved)
        }

    def fingerprint(self) -> str:
        """A hash of everything that is saved."""
        tensors = self._tensors()
        shapes = {name: (tuple(one.shape), str(one.dtype), tensor_fingerprint(one)) for name, one in tensors.items()}
        return content_key(self._header(), shapes)

    def save(self, path: str | Path) -> Path:
        """Write one safetensors file."""
        file = given_path("path", path)
        save_tensors(file, self.kind, self._tensors(), self._header())
        return file

    @classmethod
    def load(cls: type[AnySaved], path: str | Path) -> AnySaved:
        """Read what `save` wrote.

        Raises:
            ArtifactError: missing, damaged or another kind of file, or not exactly the fields that this class has.
        """
        tensors, header = load_tensors(given_path("path", path), cls.kind)
        header.pop("provenance")
        try:
            return cls._from_parts(tensors, header)
        except ValueError as error:
            raise ArtifactError(f"{path} does not make a {cls.__name__}: {error}") from error

    def _values(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def _tensors(self) -> dict[str, Tensor]:
        """Tensors by name, those of nested ones by dotted names."""
        values = self._values()
        tensors = {name: value for name, value in values.items() if isinstance(value, Tensor)}
        nested = {name: value._tensors() for name, value in values.items() if isinstance(value, Saved)}
        return tensors | {f"{name}.{inner}": one for name, of in nested.items() for inner, one in of.items()}

    def _header(self) -> dict[str, Any]:
        plain = {name: value for name, value in self._values().items() if not isinstance(value, Tensor)}
        return {"kind": self.kind, **{name: _plain(value) for name, value in plain.items()}}

    @classmethod
    def _from_parts(cls: type[AnySaved], tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> AnySaved:
        if header.get("kind") != cls.kind:
            raise ArtifactError(f"{header.get('kind')!r} in place of {cls.kind!r}")
        found = {name.split(".")[0] for name in tensors} | (header.keys() - {"kind"})
        expected = {f.name for f in fields(cls)}
        if found != expected:
            missing, unknown = (", ".join(sorted(names)) or "none" for names in (expected - found, found - expected))
            raise ArtifactError(f"missing fields: {missing}; unknown fields: {unknown}")
        hints = get_type_hints(cls)
        values: dict[str, Any] = {name: tensor for name, tensor in tensors.items() if name in expected}
        for name in header.keys() - {"kind"}:
            inner = {key.removeprefix(f"{name}."): one for key, one in tensors.items() if key.startswith(f"{name}.")}
            values[name] = _from_plain(hints[name], header[name], inner)
        return cls(**values)


def _plain(value: Any) -> Any:
    """A field's value as JSON holds it."""
    match value:
        case Saved():
            return value._header()
        case frozenset():
            return sorted(value)
        case tuple():
            return list(value)
        case Mapping():
            return dict(value)
        case _:
            return value


def _from_plain(hint: Any, value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """A field's value again, by its annotation."""
    if get_origin(hint) is UnionType:
        hint = None if value is None else next(one for one in get_args(hint) if one is not type(None))
    if isinstance(hint, type) and issubclass(hint, Saved):
        return hint._from_parts(tensors, value)
    kind = get_origin(hint)
    return kind(value) if kind in (tuple, frozenset) else value
