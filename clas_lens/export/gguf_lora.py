"""A llama.cpp LoRA: one server with the unsteered model, and steering as strong as each request asks for."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clas_lens.export.adapter import adapter_reference, is_conv1d, output_projections, output_weight
from clas_lens.export.cards import write_card
from clas_lens.export.factors import ExportError, factors, site_of_factors
from clas_lens.export.gguf_file import GGUFFile
from clas_lens.export.gguf_model import gguf_projection, metadata
from clas_lens.export.low_rank import low_rank
from clas_lens.export.output import new_file
from clas_lens.export.parity import Parity, plain_logits
from clas_lens.export.sources import Found, Source, opened
from clas_lens.models.presets import EMBEDDED_MODEL
from clas_lens.steering.intervention import Intervention

# llama.cpp's names of architectures, by model_type; it refuses an adapter of another architecture than the model's.
ARCHITECTURES = {
    "llama": "llama",
    "mistral": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "gemma": "gemma",
    "gemma2": "gemma2",
    "gemma3": "gemma3",
    "gemma3_text": "gemma3",
    "phi3": "phi3",
    "gpt2": "gpt2",
    "gpt_neox": "gptneox",
    "olmo2": "olmo2",
}


def gguf_lora(
    intervention: Intervention,
    *,
    language: str,
    source: Source | None = None,
    out: str | Path,
    texts: Sequence[str] | None = None,
) -> Path:
    """Write W_down diag(s - 1), or W_O diag(s - 1), as a GGUF adapter, exact up to float16, for any quantisation of the model.

    `llama-server -m model.gguf --lora adapter.gguf`, then `"lora": [{"id": 0, "scale": 1.0}]` in a request; 0.0 for the anchor.

    Args:
        out: the file (`*.gguf`), or a folder to make.

    Raises:
        ExportError: see `adapter`; or an architecture whose name in llama.cpp is not known here.
    """
    scale, site = factors(intervention, language), site_of_factors(intervention)
    name = f"clas-{language}-lora"
    with opened(source, intervention) as found, new_file(out, ".gguf", name) as (scratch, target):
        reference, base = adapter_reference(found, intervention, language, texts)
        architecture = architecture_of(found, base.config.model_type)
        places = output_projections(base, scale, site)
        pairs = {layer: low_rank(output_weight(base, places[layer]), factor) for layer, factor in scale.items()}
        tensors: dict[str, Tensor] = {}
        for layer, pair in pairs.items():
            tensors[f"{gguf_projection(layer, site)}.lora_a"] = pair.a.half()
            tensors[f"{gguf_projection(layer, site)}.lora_b"] = pair.b.half()
        if not all(tensor.isfinite().all() for tensor in tensors.values()):
            raise ExportError("the change of the projections overflows float16 under these factors")
        # llama.cpp multiplies by alpha / rank, a tensor's own rank; at alpha 0 by the request's scale alone.
        write_adapter_file(target, architecture, tensors, 0.0, metadata(intervention, language))
        with torch.no_grad():
            for layer, module in places.items():
                a, b = (tensors[f"{gguf_projection(layer, site)}.lora_{part}"].double() for part in "ab")
                weight: Any = base.get_submodule(module).weight
                changed = output_weight(base, module) + b @ a
                weight.copy_(changed.T if is_conv1d(base, module) else changed)
        details = {"largest_rank": max(len(pair.a) for pair in pairs.values())}
        parity = Parity.of("gguf-lora", "F16", reference, plain_logits(base, reference.probes), details)
        parity.record(scratch)
        write_card(scratch, intervention, [language], found.name, "gguf-lora", [parity])
    return Path(out)


def architecture_of(found: Found, model_type: str) -> str:
    """llama.cpp's name for it: the GGUF file's own, or by model_type.

    Raises:
        ExportError: not known.
    """
    if found.gguf is not None and found.name != EMBEDDED_MODEL:
        return str(GGUFFile.read(found.gguf).fields["general.architecture"])
    if model_type not in ARCHITECTURES:
        raise ExportError(
            f"llama.cpp's name for a {model_type!r} model is not known here; known: {', '.join(ARCHITECTURES)}. "
            "Give its .gguf file as source="
        )
    return ARCHITECTURES[model_type]


def write_adapter_file(
    path: Path, architecture: str, tensors: dict[str, Tensor], alpha: float, more: dict[str, Any]
) -> None:
    """A GGUF file of `general.type` adapter."""
    writer = new_writer(path, architecture)
    writer.add_string("general.type", "adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", alpha)
    for name, value in more.items():
        writer.add_string(name, value) if isinstance(value, str) else writer.add_float32(name, value)
    finish_writer(writer, tensors)


def new_writer(path: Path, architecture: str) -> Any:
    """gguf's writer, or what to install."""
    try:
        from gguf import GGUFWriter
    except ImportError as error:
        raise ExportError("GGUF files need gguf: pip install 'clas-lens[gguf]'") from error
    return GGUFWriter(path, architecture)


def finish_writer(writer: Any, tensors: dict[str, Tensor]) -> None:
    """Add the tensors and write everything."""
    for name, tensor in tensors.items():
        writer.add_tensor(name, np.ascontiguousarray(tensor.numpy()))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
