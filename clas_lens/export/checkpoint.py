"""A steered checkpoint: a Hugging Face folder that `transformers`, vLLM and converters read like any other."""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from clas_lens.export.cards import write_card
from clas_lens.export.factors import ExportError, factors, site_of_factors
from clas_lens.export.output import new_folder
from clas_lens.export.parity import Parity, Reference, plain_logits, plain_model
from clas_lens.export.sources import Source, opened
from clas_lens.export.weights import Fold, Stored, apply_fold, check_dtypes, find_folds, stored_tensors
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

    Args:
        source: a folder with safetensors, a Hub id, a preset or a model; default the one that was measured on, by its name.
        out: folder to make.
        texts: probes for the comparison, in `language`; default bundled sentences.

    Returns:
        `out`, with `parity.json`, `steering.json` and a model card in it.

    Raises:
        ExportError: no factor a neuron (see `factors`), an unknown MLP or attention, quantised weights, or beyond tolerance.
        ModelLoadError: the source was not found.
        SteeringError: measured on another model.
    """
    scale = factors(intervention, language)
    with opened(source, intervention) as found, new_folder(out) as folder:
        folds = plan_folds(found.folder, scale, site_of_factors(intervention))
        reference = Reference.measure(found.folder, intervention, language, texts)
        write_weights(found.folder, folder, folds)
        copy_along(found.folder, folder)
        parity = Parity.of(
            "checkpoint", check_dtypes(folds), reference, plain_logits(plain_model(folder), reference.probes)
        )
        parity.record(folder)
        write_card(folder, intervention, [language], found.name, "checkpoint", [parity])
    return Path(out)


def plan_folds(
    source: Path, scale: Mapping[int, Float[Tensor, "neuron"]], site: UnitSite = "mlp"
) -> dict[Fold, Float[Tensor, "neuron"]]:
    """Which tensors of a folder take which factors.

    Raises:
        ExportError: quantised, no safetensors, or an MLP that is not known.
    """
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    if method := (config.get("quantization_config") or {}).get("quant_method"):
        raise ExportError(
            f"{source} is quantised ({method}), and other programs keep its scales in layouts of their own. "
            "Export from the unquantised "
            "checkpoint and quantise the result; or export an adapter, a LoRA or a GGUF"
        )
    files = sorted(source.glob("*.safetensors"))
    if not files:
        raise ExportError(
            f"{source} has no *.safetensors. Load it with transformers and save_pretrained it, then export that"
        )
    stored: dict[str, Stored] = {}
    for file in files:
        stored |= stored_tensors(file)
    model_type = config.get("text_config", config).get("model_type", config.get("model_type", "unknown"))
    folds = {
        fold: factor
        for layer, factor in scale.items()
        for fold in find_folds(stored, layer, len(factor), model_type, site)
    }
    check_dtypes(folds)
    return folds


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
