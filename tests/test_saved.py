"""One base for saved things: what goes in comes out, and nothing else is taken for it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

import clas_lens as cl
from clas_lens.artifacts import ArtifactError, load_tensors, save_tensors
from clas_lens.saved import SAVED_ONLY, Saved


@dataclass(frozen=True, eq=False)
class Inner(Saved):
    kind: ClassVar[str] = "inner"
    values: Float[Tensor, "n"]
    words: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Outer(Saved):
    kind: ClassVar[str] = "outer"
    inner: Inner
    values: Float[Tensor, "n"]
    places: tuple[int, ...] | None
    keys: frozenset[str] = frozenset()
    source: Mapping[str, Any] = field(default_factory=dict, metadata=SAVED_ONLY)


@pytest.fixture
def outer():
    inner = Inner(torch.tensor([1.0, 2.0]).bfloat16(), ("a", "ü"))
    return Outer(inner, torch.tensor([3.0]), (1, 2), frozenset({"x", "y"}), {"made": {"of": [1, None]}})


def test_nested_ones_come_back_whole(outer, tmp_path):
    loaded = Outer.load(outer.save(tmp_path / "outer.safetensors"))
    assert sorted(load_tensors(tmp_path / "outer.safetensors", "outer")[0]) == ["inner.values", "values"]
    assert (loaded.places, loaded.keys, loaded.source) == (outer.places, outer.keys, outer.source)
    assert loaded.inner.words == ("a", "ü")
    assert torch.equal(loaded.inner.values, outer.inner.values)
    assert loaded.inner.values.dtype == torch.bfloat16
    assert loaded.fingerprint() == outer.fingerprint()
    empty = replace(outer, places=None, keys=frozenset())
    assert Outer.load(empty.save(tmp_path / "empty")).places is None
    assert outer.settings() == {"places": [1, 2], "keys": ["x", "y"]}


def test_fingerprints_change_with_every_field(outer):
    others = [
        outer,
        replace(outer, inner=replace(outer.inner, words=("a", "u"))),
        replace(outer, inner=replace(outer.inner, values=outer.inner.values + 1)),
        replace(outer, values=outer.values.double()),
        replace(outer, places=None),
        replace(outer, keys=frozenset({"x"})),
        replace(outer, source={}),
    ]
    assert len({one.fingerprint() for one in others}) == len(others)


def test_other_fields_and_kinds_are_refused(outer, tmp_path):
    path = tmp_path / "inner"
    header = {"words": ["a"]}
    for tensors, given, message in (
        ({"values": torch.ones(1)}, header | {"more": 1}, "missing fields: none; unknown fields: more"),
        ({"values": torch.ones(1)}, {}, "missing fields: words; unknown fields: none"),
        ({}, header, "missing fields: values; unknown fields: none"),
        ({"values": torch.ones(1), "other": torch.ones(1)}, header, "unknown fields: other"),
    ):
        save_tensors(path, "inner", tensors, given)
        with pytest.raises(ArtifactError, match=message):
            Inner.load(path)
    with pytest.raises(ArtifactError, match="holds inner, not outer"):
        Outer.load(path)
    wrong = {"kind": "other", "words": ["a"]}
    tensors = {"values": torch.ones(1), "inner.values": torch.ones(1)}
    save_tensors(path, "outer", tensors, {"inner": wrong, "places": None, "keys": [], "source": {}})
    with pytest.raises(ArtifactError, match="'other' in place of 'inner'"):
        Outer.load(path)


def test_values_that_the_class_refuses_are_the_files_fault(small_cats, tmp_path):
    clas = cl.Clas(small_cats, layers=(1,))
    tensors, header = load_tensors(clas.save_pretrained(tmp_path) / "intervention.safetensors", "clas")
    save_tensors(tmp_path / "intervention.safetensors", "clas", tensors, header | {"layers": [99]})
    with pytest.raises(ArtifactError, match=r"does not make a Clas: layers must be different ones .* got \[99\]"):
        cl.Clas.from_pretrained(tmp_path)
