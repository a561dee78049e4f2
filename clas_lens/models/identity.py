"""Which model and which neurons these are: what artefacts record, and refuse to be used without."""

import hashlib
import json
import weakref
from typing import Any

import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from clas_lens.models.backends import LensModel, given_lens_model
from clas_lens.models.hooking import hooked_modules
from clas_lens.models.probe import was_checked
from clas_lens.models.units import describe_units, n_units, output_projection
from clas_lens.vocabulary import UnitSite


def describe_model(model: LensModel, site: UnitSite = "mlp") -> dict[str, Any]:
    """What an artefact records of the model that it was made with, and of the site whose units it is of.

    Of PyTorch's hooks on its modules, which may change what is measured, it records where they are: what was measured with
    them is not taken for what is measured without.

    Raises:
        ModelLoadError: no model of TransformerLens.
        ValueError: a site without units.
    """
    given_lens_model(model)
    hooked_at = hooked_modules(model)
    return {
        "name": model.cfg.model_name,
        "n_layers": model.cfg.n_layers,
        **describe_units(model, site),
        "d_vocab": model.cfg.d_vocab,
        "dtype": str(next(iter(model.parameters())).dtype).removeprefix("torch."),
        "neurons": neuron_fingerprint(model, site),
        "weights": model_fingerprint(model),
        "parameters": parameter_fingerprint(model),
        "attention": attention_fingerprint(model),
        "checked": was_checked(model),
        **({"hooked_modules": hooked_at} if hooked_at else {}),
    }


# Fields of a model's configuration that say where it is or how it started, not what it computes.
PLACE_NOT_FUNCTION = ("device", "n_devices", "seed", "init_weights", "init_mode", "tokenizer_name", "model_name")


def model_fingerprint(model: LensModel) -> str:
    """A hash over the configuration and every weight, the memory layout aside.

    Wrapping integer sums of the weights' bit patterns take one pass at memory speed and change with any single weight; a
    strided sample of single values catches most permutations, which sums do not.
    """
    given_lens_model(model)
    settings = {name: str(value) for name, value in vars(model.cfg).items() if name not in PLACE_NOT_FUNCTION}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for name, weight in sorted(model.named_parameters(), key=lambda item: item[0]):
        bits = weight.detach().view(
            {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[weight.element_size()]
        )
        total = bits.sum(dtype=bits.dtype).item()
        digest.update(f"{name} {tuple(weight.shape)} {weight.dtype} {total}".encode())
        digest.update(_strided_values(bits, 64))
    return digest.hexdigest()[:16]


_sampled: "weakref.WeakKeyDictionary[LensModel, tuple[tuple[Any, ...], str]]" = weakref.WeakKeyDictionary()


def parameter_fingerprint(model: LensModel) -> str:
    """Backend, dtype and a hash of a sample of every weight, by which `steer` tells a fine-tune of attention alone.

    Comparable where the first two parts are equal. It is asked for at every `steer`, so it is kept until PyTorch says that a
    weight has changed (which it does not of changes through `.data`).
    """
    weights = sorted(model.named_parameters(), key=lambda item: item[0])
    state = tuple((one.data_ptr(), 0 if one.is_inference() else one._version) for _, one in weights)
    kept = _sampled.get(model)
    if kept is None or kept[0] != state:
        digest = hashlib.sha256()
        for name, weight in weights:
            digest.update(f"{name} {tuple(weight.shape)}".encode())
            digest.update(_strided_values(weight.detach(), 64))
        backend = "bridge" if isinstance(model, TransformerBridge) else "hooked"
        kept = state, f"{backend} {weights[0][1].dtype} {digest.hexdigest()[:16]}"
        _sampled[model] = kept
    return kept[1]


def neuron_fingerprint(model: LensModel, site: UnitSite = "mlp") -> str:
    """A hash of which neurons these are: the same for both backends, in float32 and bfloat16, of one checkpoint.

    It samples the projection that they write through, rounded to bfloat16, in every layer; so a mask measured in float32 on a
    `HookedTransformer` is accepted on the same model as a bfloat16 `TransformerBridge`.
    """
    given_lens_model(model)
    digest = hashlib.sha256(f"{model.cfg.n_layers} {n_units(model, site)}".encode())
    for layer in range(model.cfg.n_layers):
        digest.update(_strided_values(output_projection(model, site, layer), 256))
    return digest.hexdigest()[:16]


def attention_fingerprint(model: LensModel) -> str | None:
    """A hash of a sample of every attention matrix, by which `steer` tells a fine-tune of attention on another backend.

    The same for both backends, in float32 and bfloat16, of one checkpoint; None where a bridge knows no such matrices.
    """
    digest = hashlib.sha256()
    for block in model.blocks:
        attention: Any = block.attn
        try:
            # Of grouped keys and values a HookedTransformer holds each once under the name with the underscore.
            for names in (("W_Q",), ("_W_K", "W_K"), ("_W_V", "W_V"), ("W_O",)):
                held = next(name for name in names if hasattr(attention, name))
                digest.update(_strided_values(getattr(attention, held).detach(), 64))
        except (AttributeError, NotImplementedError, RuntimeError, StopIteration):  # as in `units`
            return None
    return digest.hexdigest()[:16]


def _strided_values(tensor: Tensor, count: int) -> bytes:
    """About `count` values by logical position, whatever the memory layout; floats rounded to bfloat16."""
    if tensor.is_meta:
        return b"meta"
    index = torch.linspace(0, tensor.numel() - 1, min(count, tensor.numel()), dtype=torch.float64).long()
    places = torch.unravel_index(index, tensor.shape)
    sample = tensor[tuple(place.to(tensor.device) for place in places)].cpu()
    if sample.is_floating_point():
        sample = sample.to(torch.bfloat16).view(torch.int16)
    return sample.contiguous().numpy().tobytes()
