"""Where a checkpoint keeps what a factor a neuron can be folded into, and safetensors files changed in place."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import assert_never

import torch
from jaxtyping import Float
from safetensors import safe_open
from torch import Tensor

from clas_lens.export.factors import ExportError
from clas_lens.vocabulary import UnitSite

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
PART_OF_LAYER = re.compile(r"^(?P<before>.*?)(?:layers|h|blocks)\.(?P<layer>\d+)\.(?P<rest>.+)$")
OTHER_TOWERS = ("vision", "visual", "audio", "image", "encoder", "speech")
# Down projections of MLPs without a gate. Those of `CONV1D` models keep their weight as [neuron, d_model].
PLAIN_DOWN = ("mlp.c_proj", "mlp.dense_4h_to_h", "mlp.fc2", "fc2", "mlp.down_proj")
CONV1D = ("gpt2", "openai-gpt")
ATTENTION_OUT = (
    *("self_attn.o_proj", "self_attn.out_proj", "self_attn.dense", "self_attn.c_proj", "self_attention.dense"),
    *("attn.c_proj", "attn.out_proj", "attention.dense", "attention.o_proj"),
)
FUSED_UP_SECOND = ("phi3", "glm", "glm4")  # gate_up_proj = [gate; up], as transformers chunks it for these


@dataclass(frozen=True)
class Stored:
    """One tensor in a safetensors file: its bytes are `start` to `end` of the file."""

    file: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True)
class Fold:
    """Multiply `stored` along `axis`, from index `first` on, by a layer's factors."""

    stored: Stored
    axis: int
    first: int = 0


def stored_tensors(file: Path) -> dict[str, Stored]:
    """Every tensor of a safetensors file by name, from its header alone."""
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(length))
    return {
        name: Stored(
            file, name, entry["dtype"], tuple(entry["shape"]), *(8 + length + at for at in entry["data_offsets"])
        )
        for name, entry in header.items()
        if name != "__metadata__"
    }


def find_folds(
    stored: Mapping[str, Stored], layer: int, width: int, model_type: str, site: UnitSite = "mlp"
) -> list[Fold]:
    """Where this layer's factors go: rows of the up projection (its bias too); without a gate, columns of the down projection;
    of attention, columns of its output projection.

    Raises:
        ExportError: no MLP or attention that is known, or one of another width.
    """
    parts = layer_parts(stored, layer)
    match site:
        case "mlp":
            (folds, expected), units = _mlp_folds(parts, layer, width, model_type), "neurons"
        case "attn":
            folds, expected, units = [_attention_fold(parts, layer, model_type)], width, "units"
        case _:
            assert_never(site)
    one = folds[0]
    if one.stored.shape[one.axis] != expected:
        raise ExportError(f"{one.stored.name} is {one.stored.shape}, but the factors are of {width} {units} a layer")
    return folds


def _mlp_folds(parts: Mapping[str, Stored], layer: int, width: int, model_type: str) -> tuple[list[Fold], int]:
    """Rows of the up projection, or columns of the down projection, and how many that matrix should have."""
    up = "mlp.up_proj.weight"
    if up in parts and "mlp.gate_proj.weight" in parts:
        return [Fold(parts[up], 0), *biases(parts, "mlp.up_proj.bias", 0)], width
    if "mlp.gate_up_proj.weight" in parts and model_type in FUSED_UP_SECOND:
        fused = Fold(parts["mlp.gate_up_proj.weight"], 0, width)
        return [fused, *biases(parts, "mlp.gate_up_proj.bias", width)], 2 * width
    gated = [name for name in parts if "gate" in name and name.startswith("mlp.")]
    found = [name for name in PLAIN_DOWN if f"{name}.weight" in parts]
    if gated or len(found) != 1:
        mlp = [name for name in parts if not re.search("attn|attention|norm|ln_", name)]
        raise ExportError(
            f"no MLP that is known in layer {layer} of this {model_type!r} model: it has {', '.join(mlp) or 'no weights'}. "
            f"Known: up_proj beside gate_proj; gate_up_proj of {', '.join(FUSED_UP_SECOND)}; {', '.join(PLAIN_DOWN)} alone"
        )
    return [Fold(parts[f"{found[0]}.weight"], 0 if model_type in CONV1D else 1)], width


def _attention_fold(parts: Mapping[str, Stored], layer: int, model_type: str) -> Fold:
    """The columns of a layer's output projection of attention."""
    found = [name for name in ATTENTION_OUT if f"{name}.weight" in parts]
    if len(found) != 1:
        there = [name for name in parts if "att" in name]
        raise ExportError(
            f"no output projection of attention that is known in layer {layer} of this {model_type!r} model: it has "
            f"{', '.join(there) or 'no attention'}. Known: {', '.join(ATTENTION_OUT)}"
        )
    return Fold(parts[f"{found[0]}.weight"], 0 if model_type in CONV1D else 1)


def layer_parts(stored: Mapping[str, Stored], layer: int) -> dict[str, Stored]:
    """A decoder layer's tensors by the end of their names."""
    parts = {}
    for name, tensor in stored.items():
        match = PART_OF_LAYER.match(name)
        if match and int(match["layer"]) == layer and not any(tower in match["before"] for tower in OTHER_TOWERS):
            parts[match["rest"]] = tensor
    return parts


def biases(parts: Mapping[str, Stored], name: str, first: int) -> list[Fold]:
    """Where factors go in a bias, if there is one."""
    return [Fold(parts[name], 0, first)] if name in parts else []


def check_dtypes(folds: Iterable[Fold]) -> str:
    """The coarsest type among these, a key of `TOLERANCES`.

    Raises:
        ExportError: quantised.
    """
    kinds = {fold.stored.dtype for fold in folds}
    if unknown := kinds - set(DTYPES):
        raise ExportError(
            f"weights of type {', '.join(sorted(unknown))} cannot be rescaled: export from the unquantised "
            f"checkpoint ({', '.join(DTYPES)}) "
            "and quantise the result; or export a LoRA or a GGUF"
        )
    return next(kind for kind in ("BF16", "F16", "F32", "F64") if kind in kinds).replace("F64", "F32")


def apply_fold(file: Path, fold: Fold, factor: Float[Tensor, "neuron"]) -> None:
    """Change one tensor of `file`, a copy of `fold.stored.file`, in place. Memory: that tensor, and its float64 slice."""
    stored = fold.stored
    with file.open("r+b") as stream:
        stream.seek(stored.start)
        raw = bytearray(stream.read(stored.end - stored.start))
        tensor = torch.frombuffer(raw, dtype=DTYPES[stored.dtype]).reshape(stored.shape)
        part = tensor.narrow(fold.axis, fold.first, len(factor))
        shape = [1] * tensor.ndim
        shape[fold.axis] = len(factor)
        changed = part.double() * factor.reshape(shape)
        part.copy_(changed)
        if not part.isfinite().all():
            raise ExportError(f"{stored.name} overflows {stored.dtype} under these factors")
        stream.seek(stored.start)
        stream.write(raw)


def fold_error(fold: Fold, after: Stored, factor: Float[Tensor, "neuron"]) -> float:
    """How far a changed tensor is from the old one times the factors, as a share of its largest value."""
    wanted, found = (read_tensor(stored).double() for stored in (fold.stored, after))
    part = wanted.narrow(fold.axis, fold.first, len(factor))
    part *= factor.double().reshape([-1 if axis == fold.axis else 1 for axis in range(part.ndim)])
    return float((found - wanted).abs().max() / wanted.abs().max())


def read_tensor(stored: Stored) -> Tensor:
    """Its values."""
    with safe_open(stored.file, "pt") as file:
        tensor: Tensor = file.get_tensor(stored.name)
    return tensor
