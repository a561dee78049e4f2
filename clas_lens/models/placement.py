"""The dtype and the device that a caller names, understood or refused in one line before anything is loaded."""

from typing import Any

import torch

from clas_lens.models.loading import ModelLoadError

DTYPES = {
    "float32": torch.float32,
    "fp32": torch.float32,
    "float": torch.float32,
    "float16": torch.float16,
    "fp16": torch.float16,
    "half": torch.float16,
    "bfloat16": torch.bfloat16,
    "bf16": torch.bfloat16,
    "float64": torch.float64,
}


def parse_dtype(dtype: Any) -> torch.dtype | None:
    """A floating dtype by itself or by name ("bfloat16", "bf16", "torch.bfloat16"); None stays None."""
    if dtype is None:
        return None
    found = DTYPES.get(dtype.removeprefix("torch.").lower()) if isinstance(dtype, str) else dtype
    if not isinstance(found, torch.dtype) or found not in DTYPES.values():
        raise ModelLoadError(
            f"dtype {dtype!r}: expected torch.float32, torch.bfloat16, torch.float16, torch.float64 or one of their names; "
            "None is bfloat16 on a GPU and float32 elsewhere"
        )
    return found


def parse_device(device: Any) -> torch.device | None:
    """A device that this machine has; None stays None."""
    if device is None:
        return None
    accepted = f"available here: {', '.join(available_devices())}, or None for the first of them"
    if not isinstance(device, str | torch.device):
        raise ModelLoadError(f"device {device!r}: expected a name or a torch.device; {accepted}")
    try:
        found = torch.device(device)
    except RuntimeError as error:
        hint = f" (over several: device_map={device!r})" if device in ("auto", "balanced", "sequential") else ""
        raise ModelLoadError(f"device {device!r} is none{hint}; {accepted}") from error
    if found.type == "cuda" and not torch.cuda.is_available():
        raise ModelLoadError(f"device {str(device)!r}: this PyTorch finds no CUDA device here; use device='cpu'")
    if found.type not in {name.split(":")[0] for name in available_devices()} or (
        found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count()
    ):
        raise ModelLoadError(f"device {str(device)!r} cannot hold a model here; {accepted}")
    return found


def available_devices() -> list[str]:
    """The devices of this machine, best first."""
    gpus = [f"cuda:{index}" for index in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    return [*gpus, *(["mps"] if torch.backends.mps.is_available() else []), "cpu"]


def default_device() -> str:
    """The device that `load_model` picks when none is given."""
    return "cuda" if torch.cuda.is_available() else "cpu"
