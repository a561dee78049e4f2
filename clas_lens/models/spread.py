"""A model over several devices: what a caller asks for, understood or refused before anything is loaded.

Layers are placed by Transformers and Accelerate (`device_map`), and run where they are; tokens go to the embedding's device,
logits come from the head's. Only the bridge keeps the model as it was placed. Weights that are offloaded to disk, or to the CPU
beside a GPU, are no tensors that masks and fingerprints could read, and TransformerLens's bridge computes some modules past
Accelerate's hooks: such models are refused.
"""

from collections.abc import Mapping
from typing import Any

import torch

from clas_lens.models.loading import ModelLoadError

MAPS = ("auto", "balanced", "balanced_low_0", "sequential")


def spread_options(
    *, device_map: Any = None, max_memory: Any = None, n_devices: Any = None, device: Any = None, backend: Any = None
) -> dict[str, Any]:
    """What `from_pretrained` is given to spread a model; nothing where nothing was asked for.

    Raises:
        ModelLoadError: arguments that do not go together, an unknown map, or more GPUs than there are.
    """
    if device_map is None and max_memory is None and n_devices is None:
        return {}
    if device is not None:
        raise ModelLoadError(f"device={str(device)!r} puts all of a model on one device; leave it out with device_map=")
    if backend == "hooked":
        raise ModelLoadError("backend='hooked' is on one device; device_map=, max_memory= and n_devices= need 'bridge'")
    if n_devices is not None:
        if device_map is not None or max_memory is not None:
            raise ModelLoadError(
                "n_devices= spreads over so many GPUs by itself; leave out device_map= and max_memory="
            )
        return {"device_map": "balanced", "max_memory": _gpus(n_devices)}
    chosen = "auto" if device_map is None else device_map
    if not (isinstance(chosen, str) and chosen in MAPS) and not (isinstance(chosen, Mapping) and chosen):
        raise ModelLoadError(
            f"device_map {device_map!r}: expected one of {', '.join(MAPS)}, or modules with their devices such as "
            '{"model.embed_tokens": 0, "model.layers.0": 0, ...}'
        )
    if max_memory is not None and not (isinstance(max_memory, Mapping) and max_memory):
        raise ModelLoadError(
            f'max_memory {max_memory!r}: expected memory by device, such as {{0: "20GiB", 1: "40GiB"}}'
        )
    return {"device_map": chosen, **({} if max_memory is None else {"max_memory": dict(max_memory)})}


def _gpus(n_devices: Any) -> dict[int, int]:
    """What is free on the first GPUs."""
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if isinstance(n_devices, bool) or not isinstance(n_devices, int) or not 1 <= n_devices <= found:
        raise ModelLoadError(
            f"n_devices must be a whole number of GPUs, at least 1; got {n_devices!r}, and {found} are here"
        )
    return {index: torch.cuda.mem_get_info(index)[0] for index in range(n_devices)}


def is_spread(model: Any) -> bool:
    """Whether Accelerate has placed the parts of this Hugging Face model or bridge: then it must not be moved."""
    hf_model = getattr(model, "original_model", model)
    return getattr(hf_model, "hf_device_map", None) is not None
