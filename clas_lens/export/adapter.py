"""One PEFT adapter (IA3) a language: exact, small, switched per request, and off for the anchor."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from clas_lens.export.cards import write_card
from clas_lens.export.factors import ExportError, factors, site_of_factors
from clas_lens.export.output import new_folder
from clas_lens.export.parity import Parity, Reference, plain_logits, plain_model
from clas_lens.export.sources import Found, Source, opened
from clas_lens.export.weights import ATTENTION_OUT, OTHER_TOWERS, PART_OF_LAYER, PLAIN_DOWN
from clas_lens.given import given
from clas_lens.steering.intervention import Intervention
from clas_lens.vocabulary import UnitSite


def adapter(
    intervention: Intervention,
    *,
    languages: Sequence[str],
    source: Source | None = None,
    out: str | Path,
    texts: Mapping[str, Sequence[str]] | None = None,
) -> Path:
    """Write `out/<language>`, an IA3 adapter on the projections behind the steered units (down projections, or attention's
    output projections): h becomes s * h, exactly what `steer` does.

    In use `set_adapter("de")`, and `disable_adapter()` for the anchor. Needs the extra `peft`.

    Args:
        source: the unsteered model; default the one that was measured on, by its name.
        texts: probes for the comparison by language; default bundled sentences.

    Returns:
        `out`; each language's folder has `parity.json`, `steering.json` and a model card.

    Raises:
        ExportError: no factor a neuron (see `factors`), no such projections, or beyond the tolerance.
        ModelLoadError, SteeringError: see `checkpoint`.
    """
    if isinstance(languages, str) or not languages:
        raise ExportError(f"languages must be a list of at least one code, got {languages!r}")
    scales = {code: factors(intervention, code) for code in languages}
    peft = import_peft()
    with opened(source, intervention) as found, new_folder(out) as folder:
        probes = {} if texts is None else given(texts, Mapping, "texts must map languages to texts", '{"de": [...]}')
        references = [Reference.measure(found.folder, intervention, code, probes.get(code)) for code in scales]
        base = plain_model(found.folder)
        for reference in references:
            code = reference.language
            places = output_projections(base, scales[code], site_of_factors(intervention))
            config = peft.IA3Config(
                task_type="CAUSAL_LM",
                target_modules=list(places.values()),
                feedforward_modules=list(places.values()),
                fan_in_fan_out=is_conv1d(base, next(iter(places.values()))),
                base_model_name_or_path=found.name,
                inference_mode=True,
            )
            tensors = {
                f"base_model.model.{places[layer]}.ia3_l": factor.float()[None]
                for layer, factor in scales[code].items()
            }
            write_adapter(folder / code, config, tensors)
            parity = adapter_parity(peft, base, folder / code, "adapter", "F32", reference)
            parity.record(folder / code)
            write_card(folder / code, intervention, [code], found.name, "adapter", [parity])
    return Path(out)


def import_peft() -> Any:
    """The package, or what to install."""
    try:
        import peft
    except ImportError as error:
        raise ExportError("PEFT adapters need peft: pip install 'clas-lens[peft]'") from error
    return peft


def output_projections(
    model: nn.Module, scale: Mapping[int, Float[Tensor, "neuron"]], site: UnitSite
) -> dict[int, str]:
    """The full name of each steered layer's down projection, or output projection of attention. Full, because PEFT matches
    endings: "1.mlp.down_proj" is in 11 too.

    Raises:
        ExportError: a layer without one that is known, or of another width.
    """
    found: dict[int, str] = {}
    known, what, parts = {
        "mlp": (PLAIN_DOWN, "down projection", "mlp|fc|feed"),
        "attn": (ATTENTION_OUT, "output projection of attention", "att|self"),
    }[site]
    for name, module in model.named_modules():
        match = PART_OF_LAYER.match(name)
        if match and match["rest"] in known and not any(tower in match["before"] for tower in OTHER_TOWERS):
            layer = int(match["layer"])
            width = module.nx if isinstance(module, Conv1D) else getattr(module, "in_features", None)
            if layer in scale and width == len(scale[layer]):
                found[layer] = name
    if missing := sorted(set(scale) - set(found)):
        some = [name for name, _ in model.named_modules() if re.search(rf"\.{missing[0]}\.({parts})", name)]
        raise ExportError(
            f"no {what} that is known, with an input for each neuron, in layers {missing}; layer {missing[0]} has "
            f"{', '.join(some) or 'nothing like it'}. Known: {', '.join(known)}"
        )
    return dict(sorted(found.items()))


def is_conv1d(model: nn.Module, name: str) -> bool:
    """Whether a module is one of GPT-2's, whose weight is [input, output]."""
    return isinstance(model.get_submodule(name), Conv1D)


def write_adapter(folder: Path, config: Any, tensors: Mapping[str, Tensor]) -> None:
    """PEFT's two files."""
    folder.mkdir()
    config.save_pretrained(folder)
    save_file(
        {name: tensor.contiguous() for name, tensor in tensors.items()},
        folder / "adapter_model.safetensors",
        {"format": "pt"},
    )


def adapter_parity(
    peft: Any, base: Any, folder: Path, format: str, precision: str, reference: Reference, **details: Any
) -> Parity:
    """Load an adapter as its users do, ask, and take it off again."""
    model = peft.PeftModel.from_pretrained(base, folder)
    logits = plain_logits(model.eval(), reference.probes)
    model.unload()
    return Parity.of(format, precision, reference, logits, details)


def adapter_reference(
    found: Found, intervention: Intervention, language: str, texts: Sequence[str] | None
) -> tuple[Reference, Any]:
    """What `steer` answers, and then the plain model, never both in memory."""
    reference = Reference.measure(found.folder, intervention, language, texts)
    return reference, plain_model(found.folder)


def output_weight(model: nn.Module, name: str) -> Float[Tensor, "d_model neuron"]:
    """A projection's weight as [output, input], whichever way its module keeps it."""
    module: Any = model.get_submodule(name)
    weight = module.weight.detach().to("cpu", torch.float64)
    return weight.T if isinstance(module, Conv1D) else weight
