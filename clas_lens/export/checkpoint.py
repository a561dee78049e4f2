"""A steered checkpoint: a Hugging Face folder that `transformers`, vLLM and converters read like any other."""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from clas_lens.export.cards import write_card
from clas_lens.export.factors import ExportError, factors, site_of_factors
from clas_lens.export.output import new_folder
from clas_lens.export.parity import Parity, Reference, WeightParity, plain_logits, plain_model
from clas_lens.export.quantised import largest_weight_error, quantised_up
from clas_lens.export.sources import Source, opened
from clas_lens.export.weights import Fold, Stored, apply_fold, check_dtypes, find_folds, fold_error, stored_tensors
from clas_lens.steering.intervention import Intervention
from clas_lens.vocabulary import UnitSite

ALONG = ("*.json", "*.model", "*.txt", "*.jinja", "LICENSE*", "NOTICE*")
NOT_ALONG = ("parity.json", "steering.json")


def checkpoint(
    intervention: Intervention,
    *,
    language: str,
    source: Source | None = None,
    out: str | Path,
    texts: Sequence[str] | None = None,
) -> Path:
    """Write a model that is steered for `language` whatever it is asked, the anchor language too.

    The factors are folded into the rows of the up projections, or into the columns of the down projections of an MLP
    without a gate, or of attention's output projections. Types stay as they are; tokenizer, chat template and generation
    config come along. Files are copied and then changed in place, a tensor at a time; shards without steered layers are
    hard links where the disk allows it. Then the folder is loaded by `transformers` alone and compared with `steer`.

    Of a quantised source (compressed-tensors, FP8 and FBGEMM with a scale a row; GPTQ; AWQ) the up projections' scales take
    the factors. It may not load here, so only its dequantised weights are compared, and that it is a quantisation of the
    model that the intervention was measured on is not checked.

    Args:
        source: a folder with safetensors, a Hub id, a preset or a model; default the one that was measured on, by its name.
        out: folder to make.
        texts: probes for the comparison, in `language`; default bundled sentences.

    Returns:
        `out`, with `parity.json`, `steering.json` and a model card in it.

    Raises:
        ExportError: no factor a neuron (see `factors`), an unknown MLP, attention or quantisation, or beyond tolerance.
        ModelLoadError: the source was not found.
        SteeringError: measured on another model.
    """
    scale = factors(intervention, language)
    with opened(source, intervention) as found, new_folder(out) as folder:
        site = site_of_factors(intervention)
        folds = plan_folds(found.folder, scale, site)
        quantised = quantisation(found.folder) is not None
        reference = None if quantised else Reference.measure(found.folder, intervention, language, texts)
        write_weights(found.folder, folder, folds)
        copy_along(found.folder, folder)
        parity: Parity | WeightParity
        if reference is None:
            parity = weight_parity(found.folder, folder, scale, language, site)
        else:
            logits = plain_logits(plain_model(folder), reference.probes)
            parity = Parity.of("checkpoint", check_dtypes(folds), reference, logits)
        parity.record(folder)
        write_card(folder, intervention, [language], found.name, "checkpoint", [parity])
    return Path(out)


def plan_folds(
    source: Path, scale: Mapping[int, Float[Tensor, "neuron"]], site: UnitSite = "mlp"
) -> dict[Fold, Float[Tensor, "neuron"]]:
    """Which tensors of a folder take which factors.

    Raises:
        ExportError: quantised in a layout that is not sure, no safetensors, or an MLP that is not known.
    """
    stored, config = folder_tensors(source), folder_config(source)
    quantised = quantisation(source) is not None
    folds: dict[Fold, Tensor] = {}
    for layer, factor in scale.items():
        up = quantised_up(stored, layer, len(factor), config, site) if quantised else None
        found = find_folds(stored, layer, len(factor), model_type_of(config), site) if up is None else up[1]
        folds |= dict.fromkeys(found, factor)
    check_dtypes(folds)
    return folds


def folder_config(source: Path) -> dict[str, Any]:
    """A folder's `config.json`."""
    config: dict[str, Any] = json.loads((source / "config.json").read_text(encoding="utf-8"))
    return config


def model_type_of(config: Mapping[str, Any]) -> str:
    """The architecture of the text model that a configuration is of."""
    return str(config.get("text_config", config).get("model_type", config.get("model_type", "unknown")))


def folder_tensors(source: Path) -> dict[str, Stored]:
    """Every tensor of a folder.

    Raises:
        ExportError: no safetensors.
    """
    files = sorted(source.glob("*.safetensors"))
    if not files:
        raise ExportError(
            f"{source} has no *.safetensors. Load it with transformers and save_pretrained it, then export that"
        )
    return {name: one for file in files for name, one in stored_tensors(file).items()}


def quantisation(source: Path) -> str | None:
    """How a folder is quantised, if it is."""
    method = (folder_config(source).get("quantization_config") or {}).get("quant_method")
    return None if method is None else str(method)


def weight_parity(
    source: Path, folder: Path, scale: Mapping[int, Float[Tensor, "neuron"]], language: str, site: UnitSite
) -> WeightParity:
    """The changed up projections beside the old ones times their factors, dequantised here where they are quantised."""
    config, errors, n_quantised = folder_config(source), [], 0
    before, after = folder_tensors(source), folder_tensors(folder)
    for layer, factor in scale.items():
        old, new = (quantised_up(stored, layer, len(factor), config, site) for stored in (before, after))
        if old is not None and new is not None:
            n_quantised += 1
            errors.append(largest_weight_error(old[0], new[0], factor, old[1][0].first))
        else:
            folds = find_folds(before, layer, len(factor), model_type_of(config), site)
            errors += [fold_error(fold, after[fold.stored.name], factor) for fold in folds]
    return WeightParity("checkpoint", language, str(quantisation(source)), n_quantised, max(errors))


def write_weights(source: Path, folder: Path, folds: Mapping[Fold, Float[Tensor, "neuron"]]) -> None:
    """Copy every safetensors file, or link those that stay as they are, and fold the factors in."""
    touched = {fold.stored.file for fold in folds}
    for file in sorted(source.glob("*.safetensors")):
        target = folder / file.name
        if file in touched or not _linked(file, target):
            shutil.copyfile(file, target)
    for fold, factor in folds.items():
        apply_fold(folder / fold.stored.file.name, fold, factor)


def _linked(file: Path, target: Path) -> bool:
    """A hard link to what a Hub cache only points at; not across disks."""
    try:
        os.link(file.resolve(), target)
    except OSError:
        return False
    return True


def copy_along(source: Path, folder: Path) -> None:
    """Configuration, tokenizer, chat template, licence."""
    for file in sorted(source.iterdir()):
        wanted = any(fnmatch(file.name, pattern) for pattern in ALONG) and file.name not in NOT_ALONG
        if file.is_file() and wanted:
            shutil.copyfile(file, folder / file.name)
