"""Control vectors, to and from: llama.cpp's GGUF as repeng writes it, and what repeng and steering-vectors hold in memory.

`direction.N` there is added to the output of block N, counted from 0, which is `AddVector`'s layer N. Block 0 cannot have one.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from clas_lens.baselines.vectors import AddVector
from clas_lens.export.block_scales import dequantised
from clas_lens.export.cards import write_card
from clas_lens.export.factors import ExportError
from clas_lens.export.gguf_file import GGUFFile, stored_rows
from clas_lens.export.gguf_lora import ARCHITECTURES, finish_writer, new_writer
from clas_lens.export.gguf_model import metadata
from clas_lens.export.output import new_file
from clas_lens.export.sources import described_model
from clas_lens.steering.intervention import Intervention
from clas_lens.vocabulary import check_language

ARCHITECTURE = "controlvector"
PREFIX = "direction."


def control_vector(
    intervention: Intervention, *, language: str, out: str | Path, model_hint: str | None = None
) -> Path:
    """Write alpha times a language's vector for `llama-cli --control-vector FILE` (or `--control-vector-scaled FILE 0.5`).

    It acts on every input and at all positions; run the model without it for the anchor. Read back, it is the same to
    the bit in float32, which is this format's check.

    Args:
        out: the file (`*.gguf`), or a folder to make.
        model_hint: llama.cpp's name of the architecture, which only repeng looks at; default the model's recorded name.

    Raises:
        ExportError: no `AddVector`, positions other than "all", layer 0, the anchor, or nothing at this strength.
        SteeringError: no vector for this language.
    """
    check_language(language)
    if not isinstance(intervention, AddVector):
        raise ExportError(
            f"a control vector is what AddVector (DiffMean) adds; {type(intervention).__name__} adds none. A factor a neuron "
            "goes to checkpoint, peft, gguf, lora or gguf-lora"
        )
    if intervention.positions != "all":
        raise ExportError(f"a control vector acts at all positions, this one at positions={intervention.positions!r}")
    if intervention.layer == 0:
        raise ExportError(
            "llama.cpp adds control vectors from its second block (layer 1) on, and this one is for layer 0"
        )
    if language == intervention.anchor or intervention.alpha == 0:
        raise ExportError(f"nothing to export for {language!r}: it is the anchor, or alpha is 0")
    vector = (intervention.alpha * intervention.of(language).double()).float()
    hint = model_hint or str(described_model(intervention).get("name") or "unknown")
    with new_file(out, ".gguf", f"clas-{language}-control-vector") as (scratch, target):
        writer = new_writer(target, ARCHITECTURE)
        writer.add_string(f"{ARCHITECTURE}.model_hint", ARCHITECTURES.get(hint, hint))
        writer.add_uint32(f"{ARCHITECTURE}.layer_count", 1)
        for name, value in metadata(intervention, language).items():
            writer.add_string(name, value) if isinstance(value, str) else writer.add_float32(name, value)
        finish_writer(writer, {f"{PREFIX}{intervention.layer}": vector})
        if not torch.equal(read_directions(target)[intervention.layer], vector):
            raise ExportError(f"{target} does not read back as it was written")
        write_card(scratch, intervention, [language], hint, "control-vector")
    return Path(out)


def read_control_vector(
    source: Any,
    *,
    language: str,
    layer: int | None = None,
    alpha: float = 1.0,
    anchor: str = "en",
) -> AddVector:
    """An `AddVector` from another program's control vector.

    Args:
        source: a `.gguf` file of repeng or llama.cpp; a `.pt` or `.safetensors` file with tensors by layer; or an
        object: repeng's
            `ControlVector` (`.directions`), steering-vectors' `SteeringVector` (`.layer_activations`), a mapping by layer.
        language: of the inputs that it is for.
        layer: 0-based; needed where there are several, as `AddVector` has one.

    Raises:
        ExportError: no directions, none in this layer, or several and no layer named.
    """
    directions = read_directions(Path(source)) if isinstance(source, str | Path) else _held_directions(source)
    if not directions:
        raise ExportError(f"no directions in {source!r}")
    if layer is None and len(directions) == 1:
        (layer,) = directions
    if layer is None or layer not in directions:
        asked = "name one with layer=" if layer is None else f"none is for layer {layer}"
        raise ExportError(
            f"AddVector adds in one layer; there are directions for layers {_listed(directions)}: {asked}"
        )
    origin = str(source) if isinstance(source, str | Path) else type(source).__name__
    values = directions[layer].float()[None]
    return AddVector(values, (language,), layer, alpha, anchor, source={"method": "control vector", "from": origin})


def read_directions(path: Path) -> dict[int, Float[Tensor, "d_model"]]:
    """Every direction of a file by 0-based layer.

    Raises:
        ExportError: no such file, or of another kind. Pickled objects are not read: they run code.
    """
    if not path.is_file():
        raise ExportError(f"no such file: {path}")
    match path.suffix:
        case ".gguf":
            file = GGUFFile.read(path)
            if file.fields.get("general.architecture") != ARCHITECTURE:
                kind = file.fields.get("general.architecture")
                raise ExportError(f"{path} is a {kind!r} file, no {ARCHITECTURE!r}")
            return {
                int(name.removeprefix(PREFIX)): torch.from_numpy(
                    dequantised(next(stored_rows(path, tensor))[1], tensor.kind).copy()
                ).flatten()
                for name, tensor in file.tensors.items()
                if name.startswith(PREFIX)
            }
        case ".safetensors":
            from safetensors.torch import load_file

            return _by_layer(load_file(path))
        case _:
            try:
                content = torch.load(path, weights_only=True, map_location="cpu")
            except Exception as error:  # pickle raises whatever it likes
                raise ExportError(
                    f"{path} holds objects, which would run code when read ({type(error).__name__}). Load it "
                    "where you trust it and "
                    "give the object, or save its tensors: torch.save(dict(vector.layer_activations), path)"
                ) from error
            return _by_layer(content)


def _held_directions(source: Any) -> dict[int, Float[Tensor, "d_model"]]:
    for name in ("directions", "layer_activations"):
        if isinstance(getattr(source, name, None), Mapping):
            return _by_layer(getattr(source, name))
    if isinstance(source, Mapping):
        return _by_layer(source)
    raise ExportError(
        f"a {type(source).__name__} has no .directions (repeng), no .layer_activations (steering-vectors)"
    )


def _by_layer(content: Any) -> dict[int, Float[Tensor, "d_model"]]:
    if isinstance(content, Mapping) and isinstance(content.get("layer_activations"), Mapping):
        content = content["layer_activations"]
    try:
        found = {int(str(key).removeprefix(PREFIX)): torch.as_tensor(value).flatten() for key, value in content.items()}
    except (AttributeError, ValueError, TypeError) as error:
        raise ExportError(f"expected tensors by layer number, got {type(content).__name__}: {error}") from error
    return dict(sorted(found.items()))


def _listed(layers: Sequence[int] | Mapping[int, Any]) -> str:
    return ", ".join(map(str, layers))
