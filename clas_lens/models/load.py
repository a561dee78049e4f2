"""The door to models: one call for presets, Hub ids, folders, GGUF files and objects that you already have."""

import copy
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from textwrap import shorten
from typing import Any
from unittest.mock import patch

import torch
from torch import nn
from transformer_lens.model_bridge import TransformerBridge
from transformers import AutoModelForCausalLM, AutoProcessor, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from clas_lens.given import given, given_flag
from clas_lens.models.backends import HookedTransformer, LensModel, check_backend
from clas_lens.models.checkpoints import find_checkpoint
from clas_lens.models.loading import ModelLoadError, quiet_transformers
from clas_lens.models.origin import mark_origin
from clas_lens.models.own_tools import keep_own_tools, taken_as_it_is
from clas_lens.models.placement import default_device, parse_device, parse_dtype
from clas_lens.models.probe import check_parity, take_reference
from clas_lens.models.sites import check_mlp_hooks
from clas_lens.models.soundness import check_folder, check_loading_info, check_plain, check_tokenizer
from clas_lens.models.spread import is_spread, spread_options
from clas_lens.vocabulary import Backend


def load_model(
    name: Any,
    *,
    backend: Backend | None = None,
    dtype: torch.dtype | str | None = None,
    device: str | torch.device | None = None,
    device_map: Any = None,
    max_memory: Any = None,
    n_devices: Any = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    check: bool = True,
) -> LensModel:
    """Load a model for steering: no weight processing, eval mode, no gradients, left padding.

    `blocks.{l}.mlp.hook_post` equals the input of Hugging Face's down projection, and logits equal Hugging Face's, within
    float error: a short batch through both shows it before the model is handed over (see `clas_lens.models.probe`). Weights
    share storage with the Hugging Face model, so loading peaks near the size of the weights.

    Args:
        name: a preset (`clas_lens.presets.PRESETS`), a Hub id, a folder in Hugging Face layout, a `.gguf` file (converted to
            float32 once and cached), or a model object. A `HookedTransformer` or `TransformerBridge` is handed back as it
            is, unchecked, only moved if you say so. A Hugging Face model stays as it is and shares its weights with the
            result, or is copied if `dtype` or `device` ask for others.
        backend: "hooked" for a `HookedTransformer`, "bridge" for a `TransformerBridge`; default "hooked" where the installed
            TransformerLens has it (up to 3.9).
        dtype: a torch dtype or its name; default bfloat16 on a GPU and float32 elsewhere; for a model object, what it has.
        device: default the GPU if there is one; for a model object, where it is.
        device_map, max_memory: for a model larger than one device, as Transformers takes them ("auto", "balanced" ...; memory
            by device); by name or folder, and on the bridge, which is the default then.
        n_devices: the same over so many GPUs, evenly.
        tokenizer: for a Hugging Face model object, which carries none.
        check: False skips the comparison with Transformers; `describe_model` and so every artefact record it.

    Raises:
        ModelLoadError: unknown name (with the nearest names), missing, truncated or gated files, no network, missing or
            unexpected tensors, adapters, quantised or offloaded weights, an architecture without MLP hook points, or one
            that TransformerLens computes otherwise than Transformers.
    """
    spread = spread_options(
        device_map=device_map, max_memory=max_memory, n_devices=n_devices, device=device, backend=backend
    )
    if spread and not isinstance(name, str | Path):
        raise ModelLoadError(
            "device_map, max_memory and n_devices place a model as it is loaded: give its name or folder"
        )
    given_flag("check", check, error=ModelLoadError)
    backend = "bridge" if spread else _backend_of(name, backend)
    wanted_dtype, wanted_device = parse_dtype(dtype), parse_device(device)
    if isinstance(name, HookedTransformer | TransformerBridge):
        if tokenizer is not None or (backend == "bridge" and isinstance(name, HookedTransformer)):
            raise ModelLoadError(
                "a HookedTransformer or TransformerBridge is handed back as it is: set its tokenizer with "
                "model.set_tokenizer(...), and give the Hugging Face model for another backend"
            )
        check_mlp_hooks(name)
        return _moved(name, wanted_dtype, wanted_device)
    if isinstance(name, PreTrainedModel):
        check_plain(name)
        hf_model = _converted(name, wanted_dtype, wanted_device)
        return _wrap_object(hf_model, tokenizer, backend, check=check)
    if isinstance(name, str | Path) and str(name).strip():
        if tokenizer is not None:
            raise ModelLoadError(f"{name} comes with its tokenizer; tokenizer= is for a Hugging Face model object")
        place = wanted_device or torch.device(default_device())
        return _load_from_disk(str(name), backend, wanted_dtype, place, spread, check=check)
    raise ModelLoadError(_what_is_wanted(name))


def _backend_of(name: Any, backend: Backend | None) -> Backend:
    """What is asked for; a model that is handed back needs none."""
    if backend is None and isinstance(name, TransformerBridge):
        return "bridge"
    return check_backend(backend)


def _what_is_wanted(name: Any) -> str:
    wanted = "expected a name, a path, a Hugging Face model, a HookedTransformer or a TransformerBridge, got "
    if isinstance(name, str | Path):
        return f"{wanted}an empty name"
    if isinstance(name, type):
        return f"{wanted}the class {name.__name__}: give a model of it"
    kind = type(name).__name__
    if isinstance(name, nn.Module):
        return f"{wanted}a {kind}. Unwrap it first (peft: model.merge_and_unload(); torch.compile: model._orig_mod)."
    if kind.endswith("Config"):
        return f"{wanted}a {kind}: a configuration has no weights; give the folder or the model"
    return f"{wanted}{name!r} of type {kind}" if isinstance(name, int | float | None) else f"{wanted}a {kind}"


def _load_from_disk(
    name: str,
    backend: Backend,
    dtype: torch.dtype | None,
    device: torch.device,
    spread: Mapping[str, Any],
    *,
    check: bool,
) -> LensModel:
    checkpoint = find_checkpoint(name)
    check_folder(checkpoint.folder)
    dtype = dtype or (torch.bfloat16 if device.type == "cuda" else torch.float32)
    auto: Any = AutoModelForCausalLM
    with quiet_transformers():
        try:
            hf_model, info = auto.from_pretrained(
                checkpoint.folder,
                dtype=dtype,
                attn_implementation="eager",
                trust_remote_code=False,
                output_loading_info=True,
                **spread,
            )
            tokenizer = AutoTokenizer.from_pretrained(checkpoint.folder, trust_remote_code=False)
        except (
            Exception
        ) as error:  # transformers raises OSError, ValueError, KeyError, RuntimeError, SafetensorError ...
            raise ModelLoadError(f"{checkpoint.folder} could not be loaded: {type(error).__name__}: {error}") from error
    check_loading_info(info, checkpoint.folder)
    check_plain(hf_model)
    hf_model.eval().requires_grad_(False)
    if not is_spread(hf_model):
        hf_model.to(device)
    model = _wrap(hf_model, tokenizer, backend, name=checkpoint.name, folder=checkpoint.folder, check=check)
    mark_origin(model, name, backend)
    return model


def _wrap_object(
    hf_model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, backend: Backend, *, check: bool
) -> LensModel:
    source = hf_model.config.name_or_path or type(hf_model).__name__
    if tokenizer is not None:
        how = "AutoTokenizer.from_pretrained(...) loads one"
        given(tokenizer, PreTrainedTokenizerBase, "load_model needs a tokenizer", how, error=ModelLoadError)
    if backend == "bridge":
        hf_model = _with_own_modules(hf_model)
    if tokenizer is None and Path(source).is_dir():
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    with tempfile.TemporaryDirectory() as folder:
        if tokenizer is not None and "name_or_path" not in tokenizer.init_kwargs:
            # TransformerLens reloads a tokenizer from where it came; give one that was built in memory a place.
            tokenizer.save_pretrained(folder)
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        return _wrap(hf_model, tokenizer, backend, name=source, folder=None, check=check)


def _with_own_modules(hf_model: PreTrainedModel) -> PreTrainedModel:
    """The same weights in modules of their own: the bridge rewires what it wraps, and the user's model shall stay whole."""
    shared: dict[int, Any] = {id(p): nn.Parameter(p.detach(), requires_grad=False) for p in hf_model.parameters()}
    return copy.deepcopy(hf_model, shared)


def _wrap(
    hf_model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    backend: Backend,
    *,
    name: str,
    folder: Path | None,
    check: bool,
) -> LensModel:
    if tokenizer is not None:
        embedding: Any = hf_model.get_input_embeddings()
        check_tokenizer(tokenizer, embedding.weight.shape[0], name)
    reference = take_reference(hf_model) if check else None  # before a bridge rewires the model
    with warnings.catch_warnings(), taken_as_it_is(tokenizer):
        warnings.filterwarnings("ignore", message="HookedTransformer is deprecated", category=DeprecationWarning)
        if backend == "hooked":
            from clas_lens.models.hooked import to_hooked_transformer

            _refuse_own_hooks(hf_model)
            model = to_hooked_transformer(hf_model, tokenizer, name=name, folder=folder)
        else:
            model = _to_bridge(hf_model, tokenizer, name)
    check_mlp_hooks(model)
    if reference is not None:
        check_parity(model, reference)
    keep_own_tools(model, hf_model, tokenizer)
    return model


def _refuse_own_hooks(hf_model: PreTrainedModel) -> None:
    """A HookedTransformer has modules of its own, on which the user's hooks are not; a bridge keeps them.

    Transformers leaves hooks of its own, once hidden states have been asked for.
    """
    for name, module in hf_model.named_modules():
        hooks = [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
        if any(not str(getattr(hook, "__module__", None)).startswith("transformers.") for hook in hooks):
            raise ModelLoadError(
                f"this {type(hf_model).__name__} has hooks of yours ({name or 'on itself'}), which a HookedTransformer would "
                "not have: remove them and put them on the hook points instead, or use backend='bridge'"
            )


def _to_bridge(hf_model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, name: str) -> TransformerBridge:
    if tokenizer is None:
        raise ModelLoadError(
            "backend='bridge' needs a tokenizer with a Hugging Face model object: load_model(hf_model, tokenizer=...)"
        )
    hf_model.config.architectures = [type(hf_model).__name__]  # absent after a GGUF load or from a bare config class
    tokenizer.padding_side = "left"
    try:
        # Of image-text models TransformerLens wants the processor, too; where it finds none it runs `pip install torchvision`,
        # which may replace the torch that is running. Text needs none.
        with patch.object(AutoProcessor, "from_pretrained", return_value=None):
            bridge = TransformerBridge.boot_transformers(
                name,
                hf_model=hf_model,
                tokenizer=tokenizer,
                device=None if is_spread(hf_model) else str(next(hf_model.parameters()).device),
                dtype=hf_model.dtype,
            )
    except Exception as error:  # whatever an architecture's adapter stumbles over
        raise ModelLoadError(
            f"TransformerLens cannot bridge this {type(hf_model).__name__}: {shorten(str(error), 160, placeholder=' ...')}"
        ) from error
    bridge.eval()
    bridge.requires_grad_(False)
    return bridge


def _converted(hf_model: PreTrainedModel, dtype: torch.dtype | None, device: torch.device | None) -> PreTrainedModel:
    """The model itself, or a copy in another dtype or place: the user's object stays as it is."""
    here = next(hf_model.parameters()).device
    wanted = (dtype or hf_model.dtype, device if device is not None else here)
    if wanted == (hf_model.dtype, here):
        return hf_model
    duplicate: Any = copy.deepcopy(hf_model)
    return duplicate.to(dtype=wanted[0], device=wanted[1])


def _moved(model: LensModel, dtype: torch.dtype | None, device: torch.device | None) -> LensModel:
    if dtype is not None and dtype != model.cfg.dtype:
        if isinstance(model, HookedTransformer):
            from clas_lens.models.hooked import retype

            model = retype(model, dtype)
        else:
            model = model.to(dtype)
    if device is not None and is_spread(model):
        raise ModelLoadError(
            f"this model is spread over devices; load it again with device={str(device)!r} to have it on one"
        )
    if device is not None and device != torch.device(model.cfg.device):
        model = model.to(device)
    return model
