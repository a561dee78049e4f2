"""What must hold of a checkpoint and of a model before it is wrapped: every weight its own, plain and here."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from clas_lens.models.installed import transformer_lens_version
from clas_lens.models.loading import ModelLoadError

# Tokens that stand for an image, sound or video: text models keep them without a row in the embedding (Gemma 3 1B).
PLACEHOLDER = re.compile(r"image|audio|video|vision|img", re.IGNORECASE)
EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "num_moe_experts", "moe_num_experts")


def check_folder(folder: Path) -> None:
    """Refuse what `from_pretrained` would read otherwise than the folder means: adapters, quantised and impossible configs."""
    if (folder / "adapter_config.json").is_file():
        raise ModelLoadError(
            f"{folder} holds a PEFT adapter (adapter_config.json), which would be left out or put in depending on what is "
            f"installed. Merge it first: peft.PeftModel.from_pretrained(base_model, {str(folder)!r}).merge_and_unload()"
            ".save_pretrained(NEW_FOLDER); or take adapter_config.json away to load the plain weights beside it."
        )
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelLoadError(f"{folder / 'config.json'} is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise ModelLoadError(f"{folder / 'config.json'} is not a model's configuration: a JSON {type(config).__name__}")
    method = config.get("quantization_config") or config.get("compression_config")
    if method:
        kind = method.get("quant_method", "unknown") if isinstance(method, dict) else method
        raise ModelLoadError(
            f"{folder} is quantised ({kind!r}); its weights are not plain numbers that can be hooked and read. Use the "
            "model's unquantised checkpoint, or a .gguf file, which load_model dequantises."
        )
    for part in (config, config.get("text_config")):
        for name in ("num_hidden_layers", "n_layer", "n_layers"):
            layers = part.get(name) if isinstance(part, dict) else None
            if layers is not None and (not isinstance(layers, int) or layers < 1):
                raise ModelLoadError(
                    f"{folder / 'config.json'} says {name} = {layers!r}; a model has at least one layer"
                )
    _check_generation_config(folder / "generation_config.json")
    for file, name, kind in _kinds_of_tensors(folder):
        # Old GPT-2 checkpoints keep their causal masks, which are no weights, as bytes.
        if kind not in PLAIN and not name.endswith(("position_ids", ".bias", "masked_bias")):
            raise ModelLoadError(
                f"{file} keeps {name} as {kind}: quantised weights whose scales nobody would apply. Use the model's "
                "unquantised checkpoint, or a .gguf file, which load_model dequantises."
            )


def _check_generation_config(file: Path) -> None:
    """Refuse what `from_pretrained` would leave out without a word, and with it the tokens that end an answer."""
    if not file.is_file():
        return
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelLoadError(f"{file} is not JSON: {error}. Mend it or take it away.") from error
    if not isinstance(settings, dict):
        raise ModelLoadError(f"{file} is not a generation config: a JSON {type(settings).__name__}")
    ends = settings.get("eos_token_id")
    listed = ends if isinstance(ends, list) else [ends]
    if ends is not None and any(isinstance(one, bool) or not isinstance(one, int) for one in listed):
        raise ModelLoadError(f"{file} says eos_token_id = {ends!r}; expected a token's id, or a list of ids")


PLAIN = ("F16", "F32", "F64", "BF16", "float16", "float32", "float64", "bfloat16")


def _kinds_of_tensors(folder: Path) -> Iterator[tuple[Path, str, str]]:
    """The dtype of every tensor in the files that `from_pretrained` reads, without reading the tensors."""
    from safetensors import safe_open

    files = sorted(folder.glob("*.safetensors"))
    for file in files:
        with safe_open(file, framework="pt") as tensors:
            for name in list(tensors.keys()):
                yield file, name, tensors.get_slice(name).get_dtype()
    for file in () if files else sorted(folder.glob("pytorch_model*.bin")):
        try:
            held = torch.load(file, map_location="meta", weights_only=True)
        except Exception as error:  # pickle's, zip's and torch's own errors
            raise ModelLoadError(f"{file} is truncated, damaged or no file of weights: {error}") from error
        for name, tensor in held.items() if isinstance(held, dict) else ():
            if isinstance(tensor, torch.Tensor):
                yield file, str(name), str(tensor.dtype).removeprefix("torch.")


def check_loading_info(info: dict[str, Any], source: object) -> None:
    """Refuse a model of which `from_pretrained` filled a tensor with random values, or left one of the file's out."""
    found = {
        what: sorted(map(_tensor_name, info.get(f"{what}_keys") or ()))
        for what in ("missing", "unexpected", "mismatched")
    }
    said = [
        f"{len(names)} {what} ({', '.join(names[:2])}{', ...' if len(names) > 2 else ''})"
        for what, names in found.items()
        if names
    ]
    said += [str(error) for error in (info.get("error_msgs") or ())][:1]
    if said:
        raise ModelLoadError(
            f"the tensors in {source} are not those of the model that its configuration describes: {'; '.join(said)}. "
            "Missing ones would be random numbers. A lost shard, renamed tensors or another config.json are the usual causes."
        )


def _tensor_name(key: Any) -> str:
    if isinstance(key, str):
        return key
    name, *shapes = key  # a mismatch comes with the shape in the file and the shape in the model
    return f"{name}: {' in the file, '.join(str(tuple(shape)) for shape in shapes)} in the model"


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, rows: int, source: object) -> None:
    """Refuse a tokenizer that gives ids for which the embedding has no row."""
    added = tokenizer.added_tokens_decoder  # made anew at each call
    beyond = sorted(
        (index, token)
        for token, index in tokenizer.get_vocab().items()
        if index >= rows and not _is_unused(tokenizer, token, added.get(index))
    )
    if beyond:
        index, token = beyond[0]
        raise ModelLoadError(
            f"the tokenizer of {source} has {len(tokenizer)} tokens, the model's embedding {rows} rows: {token!r} is token "
            f"{index} ({len(beyond)} beyond the end). Use the model's own tokenizer, or resize_token_embeddings first."
        )


def _is_unused(tokenizer: PreTrainedTokenizerBase, token: str, added: Any) -> bool:
    """Whether no text is ever made into this token: one for images, or one that the tokenizer's class, or the conversion from
    GGUF, has brought along and that neither stands at an end nor in the chat template."""
    is_special = token == tokenizer.unk_token or (added is not None and added.special)
    asked_for = token in (tokenizer.bos_token, tokenizer.eos_token) or token in str(tokenizer.chat_template or "")
    return bool(PLACEHOLDER.search(token)) or (is_special and not asked_for)


def check_plain(hf_model: PreTrainedModel) -> None:
    """Refuse a model object whose weights are adapters, quantised, on `meta` or offloaded, or a mixture of experts."""
    for name, module in hf_model.named_modules():
        if type(module).__module__.startswith("peft."):
            raise ModelLoadError(
                f"this {type(hf_model).__name__} has a PEFT adapter inside ({name}: {type(module).__name__}). Merge it first: "
                "peft.PeftModel.from_pretrained(base_model, ADAPTER).merge_and_unload(), and give that model."
            )
    away = [name for name, weight in (*hf_model.named_parameters(), *hf_model.named_buffers()) if weight.is_meta]
    if away:
        raise ModelLoadError(
            f"{len(away)} weights of this {type(hf_model).__name__} are not here but on 'meta', or offloaded "
            f"({', '.join(away[:2])}): hooks and masks need them. Load it whole, in a smaller dtype or on more devices."
        )
    if getattr(hf_model, "is_quantized", False) or getattr(hf_model.config, "quantization_config", None):
        raise ModelLoadError(
            f"this {type(hf_model).__name__} is quantised. Load it unquantised, or call hf_model.dequantize() first and "
            "give that model."
        )
    odd = [name for name, weight in hf_model.named_parameters() if weight.dtype not in _FLOATS]
    if odd:
        raise ModelLoadError(
            f"{odd[0]} is {hf_model.get_parameter(odd[0]).dtype}; load_model takes unquantised weights"
        )
    head = hf_model.get_output_embeddings()
    if head is not None and not isinstance(getattr(head, "weight", None), torch.Tensor):
        raise ModelLoadError(
            f"the output embedding of this {type(hf_model).__name__} is a {type(head).__name__} without a matrix "
            "of weights: give the model with its own"
        )
    refuse_experts(hf_model)


_FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def refuse_experts(hf_model: PreTrainedModel) -> None:
    """One message for mixtures of experts, whatever the backend: what the hooks of the installed TransformerLens lack."""
    config: Any = hf_model.config.get_text_config()
    count = next((n for name in EXPERTS if isinstance(n := getattr(config, name, None), int) and n > 1), None)
    if count is not None:
        raise ModelLoadError(
            f"{type(hf_model).__name__} is a mixture of {count} experts a layer, whose neurons cannot be measured or steered "
            f"on either backend: transformer-lens {transformer_lens_version()} hooks what goes into and comes out of all "
            "experts together (mlp.hook_in, mlp.hook_out) and the router (mlp.gate), but not what lies between an expert's "
            "gate_up_proj and its down_proj, which Transformers computes in one module for all experts. Needed is a hook "
            "point there that gives a layer's [token, expert, neuron]. Dense models of the same family work."
        )
