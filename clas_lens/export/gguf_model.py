"""A steered GGUF for llama.cpp, Ollama and LM Studio: a copy whose block scales are changed in place, nothing quantised
again.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, assert_never

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from clas_lens.export.block_scales import PLAIN, check_type, dequantised, scaled_columns, scaled_rows
from clas_lens.export.cards import write_card
from clas_lens.export.factors import ExportError, factors, site_of_factors
from clas_lens.export.gguf_file import GGUFFile, stored_rows
from clas_lens.export.llama_cpp import compared_with_llama_cpp, is_installed
from clas_lens.export.output import new_file
from clas_lens.export.parity import Parity, Reference, plain_logits, plain_model
from clas_lens.export.sources import opened_gguf
from clas_lens.export.weights import Stored, find_folds
from clas_lens.models.checkpoints import find_checkpoint
from clas_lens.models.gguf import gguf_folder
from clas_lens.models.presets import EMBEDDED_MODEL
from clas_lens.steering.intervention import Intervention
from clas_lens.vocabulary import UnitSite

MARK = "clas_lens.steering"


def gguf(
    intervention: Intervention,
    *,
    language: str,
    source: str | Path,
    out: str | Path,
    texts: Sequence[str] | None = None,
) -> Path:
    """Write a GGUF model that is steered for `language` whatever it is asked, the anchor language too.

    Rows of `blk.N.ffn_up.weight` (and its bias) are multiplied by their factors through the scales of their blocks; a
    model without a gate has its factors on columns of `ffn_down`, and attention on columns of `attn_output`, in plain types
    only. The metadata `clas_lens.*` say that it is steered, how, and for which language. Compared with `steer` through the
    dequantised weights, and in llama.cpp itself where xllamacpp is installed.

    Args:
        source: a `.gguf` file, or "gemma-3-270m".
        out: the file (`*.gguf`), or a folder to make.
        texts: probes for the comparison; default bundled sentences.

    Raises:
        ExportError: no factor a neuron (see `factors`); a file that is steered already, split or cut; weights fused with
        others or of
            a type that is not known; or beyond the tolerance.
        ModelLoadError, SteeringError: see `checkpoint`.
    """
    scale, site = factors(intervention, language), site_of_factors(intervention)
    with opened_gguf(source) as path:
        original = GGUFFile.read(path)
        targets = {layer: fold_targets(original, layer, len(factor), site) for layer, factor in scale.items()}
        folder = find_checkpoint(EMBEDDED_MODEL).folder if str(source) == EMBEDDED_MODEL else gguf_folder(path)
        with new_file(out, ".gguf", f"{path.stem}-clas-{language}") as (scratch, target):
            reference = Reference.measure(folder, intervention, language, texts)
            copied = original.copy(target, metadata(intervention, language))
            for layer, factor in scale.items():
                for name, axis in targets[layer]:
                    rescale_tensor(copied, name, axis, factor.numpy())
            parity = gguf_parity(original, copied, folder, scale, targets, reference, site)
            parity.record(scratch)
            write_card(scratch, intervention, [language], str(source), "gguf", [parity])
    return Path(out)


def metadata(intervention: Intervention, language: str) -> dict[str, str | float | list[str]]:
    """What a steered file says of itself."""
    settings = {key: value for key, value in intervention.settings().items() if key != "source"}
    return {
        MARK: type(intervention).__name__,
        "clas_lens.language": language,
        "clas_lens.anchor": intervention.anchor,
        "clas_lens.alpha": float(intervention.alpha),
        "clas_lens.settings": json.dumps(settings, default=str),
        "clas_lens.fingerprint": intervention.fingerprint(),
        "clas_lens.note": f"steered on every input; send only inputs in {language} to it",
    }


def gguf_projection(layer: int, site: UnitSite) -> str:
    """What a GGUF calls the projection behind a site."""
    match site:
        case "mlp":
            return f"blk.{layer}.ffn_down.weight"
        case "attn":
            return f"blk.{layer}.attn_output.weight"
        case _:
            assert_never(site)


def fold_targets(file: GGUFFile, layer: int, width: int, site: UnitSite = "mlp") -> list[tuple[str, int]]:
    """Names and axes (0 rows, 1 columns) of the tensors that take a layer's factors.

    Raises:
        ExportError: steered already, no such layer, fused, of another width or of an unknown type.
    """
    if MARK in file.fields:
        raise ExportError(
            f"{file.path} is steered already ({file.fields[MARK]} for "
            f"{file.fields.get('clas_lens.language')!r}); start from the original"
        )
    match site:
        case "mlp":
            return _mlp_targets(file, layer, width)
        case "attn":
            return [(_plain_columns(file, gguf_projection(layer, site), width), 1)]
        case _:
            assert_never(site)


def _mlp_targets(file: GGUFFile, layer: int, width: int) -> list[tuple[str, int]]:
    """Rows of the up projection, its bias too; without a gate, columns of the down projection."""
    prefix = f"blk.{layer}."
    up, down, gate = (file.tensors.get(f"{prefix}ffn_{part}.weight") for part in ("up", "down", "gate"))
    if up is None or down is None:
        found = [name for name in file.tensors if name.startswith(f"{prefix}ffn")]
        raise ExportError(
            f"{file.path} has no {prefix}ffn_up.weight and ffn_down.weight; it has {', '.join(found) or 'no such layer'}"
        )
    if down.columns == width and up.rows == 2 * width:
        raise ExportError(
            f"{up.name} holds gate and up projection in one ({file.fields.get('general.architecture')}), in an "
            "order that is not recorded. "
            "Use a LoRA (--to gguf-lora), or export a checkpoint and convert that"
        )
    if up.rows != width or down.columns != width:
        raise ExportError(
            f"{up.name} has {up.rows} rows and {down.name} {down.columns} columns; the factors are of {width} neurons"
        )
    chosen = up if gate is not None else down
    check_type(chosen.name, chosen.kind)
    if gate is None:
        return [(_plain_columns(file, down.name, width), 1)]
    bias = f"{prefix}ffn_up.bias"
    return [(up.name, 0), *([(bias, 1)] if bias in file.tensors else [])]


def _plain_columns(file: GGUFFile, name: str, width: int) -> str:
    """The name again, of a tensor whose columns can take factors.

    Raises:
        ExportError: no such tensor, one of another width, or of a type whose blocks share their scales along a row.
    """
    tensor = file.tensors.get(name)
    if tensor is None or tensor.columns != width:
        found = "is not there" if tensor is None else f"has {tensor.columns} columns"
        raise ExportError(f"{file.path}: {name} {found}; the factors are of {width} units")
    check_type(name, tensor.kind)
    if tensor.kind not in PLAIN:
        scaled_columns(np.zeros((0, 0), np.uint8), tensor.kind, np.ones(0))  # says why not
    return name


def rescale_tensor(file: GGUFFile, name: str, axis: int, factor: Any) -> None:
    """Multiply rows or columns of one tensor, in the file. (A bias is one row.)"""
    tensor = file.tensors[name]
    for part, rows in stored_rows(file.path, tensor, write=True):
        if axis == 0:
            rows[:] = scaled_rows(rows, tensor.kind, factor[part])
        else:
            rows[:] = scaled_columns(rows, tensor.kind, factor)


def gguf_parity(
    original: GGUFFile,
    copied: GGUFFile,
    folder: Path,
    scale: Mapping[int, Float[Tensor, "neuron"]],
    targets: Mapping[int, list[tuple[str, int]]],
    reference: Reference,
    site: UnitSite,
) -> Parity:
    """Put the copy's dequantised weights into the plain model and ask that; and llama.cpp, where it is installed."""
    model = plain_model(folder)
    parameters = dict(model.named_parameters())
    shapes = {name: Stored(folder, name, "F32", tuple(one.shape), 0, 0) for name, one in parameters.items()}
    worst, kinds = 0.0, set()
    for layer, factor in scale.items():
        folds = find_folds(shapes, layer, len(factor), model.config.model_type, site)
        for (name, axis), fold in zip(targets[layer], folds, strict=True):
            new, old = whole_tensor(copied, name), whole_tensor(original, name)
            wanted = old * (factor[:, None] if axis == 0 else factor)
            worst = max(worst, float((new - wanted).abs().max() / wanted.abs().max()))
            kinds.add(copied.tensors[name].kind)
            parameter = parameters[fold.stored.name]
            with torch.no_grad():
                # GPT-2's modules keep [neuron, d_model], GGUF keeps every matrix as [output, input].
                parameter.copy_(new.T if axis != fold.axis and parameter.ndim == 2 else new.reshape(parameter.shape))
    exact = kinds <= {"F32"}
    precision = "F32" if exact else "BF16" if "BF16" in kinds else "quantised"
    details: dict[str, Any] = {"types": ", ".join(sorted(kinds)), "largest_weight_error": float(f"{worst:.2g}")}
    if is_installed():
        details |= compared_with_llama_cpp(original.path, copied.path, reference)
    return Parity.of("gguf", precision, reference, plain_logits(model, reference.probes), details)


def whole_tensor(file: GGUFFile, name: str) -> Float[Tensor, "row column"]:
    """A tensor's values, as gguf dequantises them, in float64."""
    tensor = file.tensors[name]
    parts = [dequantised(rows, tensor.kind) for _, rows in stored_rows(file.path, tensor)]
    return torch.from_numpy(np.concatenate(parts)).double()
