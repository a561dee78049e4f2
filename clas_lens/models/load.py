"""The door to models: one call for presets, Hub ids, folders, GGUF files and objects that you already have."""

import copy
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from transformer_lens import HookedTransformer
from transformer_lens.model_bridge import TransformerBridge
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from clas_lens.models.checkpoints import find_checkpoint
from clas_lens.models.hooked import retype, to_hooked_transformer
from clas_lens.models.loading import ModelLoadError, quiet_transformers
from clas_lens.models.own_tools import keep_own_tools, taken_as_it_is
from clas_lens.models.sites import LensModel, check_mlp_hooks
from clas_lens.vocabulary import Backend


def load_model(
    name: Any,
    *,
    backend: Backend = "hooked",
    dtype: torch.dtype | None = None,
    device: str | torch.device | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> LensModel:
    """Load a model for steering: no weight processing, eval mode, no gradients, left padding.

    `blocks.{l}.mlp.hook_post` equals the input of Hugging Face's down projection, and logits equal Hugging Face's, within
    float error. Weights share storage with the Hugging Face model, so loading peaks near the size of the weights.

    Args:
        name: a preset (`clas_lens.presets.PRESETS`), a Hub id, a folder in Hugging Face layout, a `.gguf` file (converted to
            float32 once and cached), or a model object. A `HookedTransformer` or `TransformerBridge` is handed back as it
            is, only moved if you say so. A Hugging Face model shares its weights with the result, or is copied if `dtype`
            or `device` ask for others; with `backend="bridge"` TransformerLens rewires that object in place.
        backend: "hooked" for a `HookedTransformer`, "bridge" for a `TransformerBridge`.
        dtype: default bfloat16 on a GPU and float32 elsewhere; for a model object, what it has.
        device: default the GPU if there is one; for a model object, where it is.
        tokenizer: for a Hugging Face model object, which carries none.

    Raises:
        ModelLoadError: unknown name (with the nearest names), missing, truncated or gated files, no network, or an
            architecture without MLP hook points.
    """
    if device is not None:
        _check_device(torch.device(device))
    if isinstance(name, HookedTransformer | TransformerBridge):
        if tokenizer is not None or (backend == "bridge" and isinstance(name, HookedTransformer)):
            raise ModelLoadError(
                "a HookedTransformer or TransformerBridge is handed back as it is: set its tokenizer with "
                "model.set_tokenizer(...), and give the Hugging Face model for another backend"
            )
        model = _moved(name, dtype, device)
    elif isinstance(name, PreTrainedModel):
        model = _wrap_object(_converted(name, dtype, device), tokenizer, backend)
    elif isinstance(name, str | Path):
        if tokenizer is not None:
            raise ModelLoadError(f"{name} comes with its tokenizer; tokenizer= is for a Hugging Face model object")
        model = _load_from_disk(str(name), backend, dtype, torch.device(device or default_device()))
    else:
        raise ModelLoadError(
            f"expected a name, a path, a Hugging Face model, a HookedTransformer or a TransformerBridge, got a "
            f"{type(name).__name__}. Unwrap it first (peft: model.merge_and_unload(); torch.compile: model._orig_mod)."
        )
    check_mlp_hooks(model)
    return model


def _check_device(device: torch.device) -> None:
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ModelLoadError(f"device {str(device)!r}: this PyTorch finds no CUDA device here; use device='cpu'")


def default_device() -> str:
    """The device that `load_model` picks when none is given."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def _load_from_disk(name: str, backend: Backend, dtype: torch.dtype | None, device: torch.device) -> LensModel:
    checkpoint = find_checkpoint(name)
    dtype = dtype or (torch.bfloat16 if device.type == "cuda" else torch.float32)
    with quiet_transformers():
        try:
            hf_model = AutoModelForCausalLM.from_pretrained(
                checkpoint.folder, dtype=dtype, attn_implementation="eager", trust_remote_code=False
            )
            tokenizer = AutoTokenizer.from_pretrained(checkpoint.folder, trust_remote_code=False)
        except (
            Exception
        ) as error:  # transformers raises OSError, ValueError, KeyError, RuntimeError, SafetensorError ...
            raise ModelLoadError(f"{checkpoint.folder} could not be loaded: {type(error).__name__}: {error}") from error
    hf_model.eval().requires_grad_(False).to(device)
    return _wrap(hf_model, tokenizer, backend, name=checkpoint.name, folder=checkpoint.folder)


def _wrap_object(hf_model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, backend: Backend) -> LensModel:
    source = hf_model.config.name_or_path or type(hf_model).__name__
    if tokenizer is None and Path(source).is_dir():
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    with tempfile.TemporaryDirectory() as folder:
        if tokenizer is not None and "name_or_path" not in tokenizer.init_kwargs:
            # TransformerLens reloads a tokenizer from where it came; give one that was built in memory a place.
            tokenizer.save_pretrained(folder)
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        return _wrap(hf_model, tokenizer, backend, name=source, folder=None)


def _wrap(
    hf_model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    backend: Backend,
    *,
    name: str,
    folder: Path | None,
) -> LensModel:
    with warnings.catch_warnings(), taken_as_it_is(tokenizer):
        warnings.filterwarnings("ignore", message="HookedTransformer is deprecated", category=DeprecationWarning)
        match backend:
            case "hooked":
                model: LensModel = to_hooked_transformer(hf_model, tokenizer, name=name, folder=folder)
            case "bridge":
                model = _to_bridge(hf_model, tokenizer, name)
            case _:
                raise ModelLoadError(f"unknown backend {backend!r}; available: 'hooked', 'bridge'")
    keep_own_tools(model, hf_model, tokenizer)
    return model


def _to_bridge(hf_model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, name: str) -> TransformerBridge:
    if tokenizer is None:
        raise ModelLoadError(
            "backend='bridge' needs a tokenizer with a Hugging Face model object: load_model(hf_model, tokenizer=...)"
        )
    hf_model.config.architectures = [type(hf_model).__name__]  # absent after a GGUF load or from a bare config class
    tokenizer.padding_side = "left"
    bridge = TransformerBridge.boot_transformers(
        name,
        hf_model=hf_model,
        tokenizer=tokenizer,
        device=str(next(hf_model.parameters()).device),
        dtype=hf_model.dtype,
    )
    bridge.eval()
    bridge.requires_grad_(False)
    return bridge


def _converted(
    hf_model: PreTrainedModel, dtype: torch.dtype | None, device: str | torch.device | None
) -> PreTrainedModel:
    """The model itself, or a copy in another dtype or place: the user's object stays as it is."""
    here = next(hf_model.parameters()).device
    wanted = (dtype or hf_model.dtype, torch.device(device) if device is not None else here)
    if wanted == (hf_model.dtype, here):
        return hf_model
    duplicate: Any = copy.deepcopy(hf_model)
    return duplicate.to(dtype=wanted[0], device=wanted[1])


def _moved(model: LensModel, dtype: torch.dtype | None, device: str | torch.device | None) -> LensModel:
    if dtype is not None and dtype != model.cfg.dtype:
        model = retype(model, dtype) if isinstance(model, HookedTransformer) else model.to(dtype)
    if device is not None and torch.device(device) != torch.device(model.cfg.device):
        model = model.to(torch.device(device))
    return model
