"""From a model's name to a Hugging Face folder on this disk, with an error that helps at every way it can fail."""

import difflib
import json
from dataclasses import dataclass
from pathlib import Path

from clas_lens.given import given, given_path
from clas_lens.models.backends import official_hub_id
from clas_lens.models.gguf import embedded_folder, gguf_folder
from clas_lens.models.loading import ModelLoadError
from clas_lens.models.presets import EMBEDDED_MODEL, PRESETS

HUB_TIMEOUT_S = 5


DOWNLOAD_PATTERNS = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]


@dataclass(frozen=True)
class Checkpoint:
    """A folder in Hugging Face layout and the name that the model goes by."""

    folder: Path
    name: str

    @property
    def n_layers(self) -> int:
        """How many layers the model has."""
        from transformers import AutoConfig

        return int(AutoConfig.from_pretrained(self.folder).get_text_config().num_hidden_layers)


def find_checkpoint(name: str) -> Checkpoint:
    """Resolve a preset, a local folder, a `.gguf` file or a Hub id.

    Nothing but a Hub id that is not whole in the local Hub cache needs a network; a cached copy is not looked for again.

    Raises:
        ModelLoadError: unknown name (with the nearest ones), missing or truncated file, wrong checksum of the embedded
            model, gated model without access, no network.
    """
    given(name, str, "a model's name is needed", "a preset, a Hub id, a folder or a .gguf file", error=ModelLoadError)
    path = given_path("a model's name", name, error=ModelLoadError).expanduser()
    if name == EMBEDDED_MODEL:
        return Checkpoint(embedded_folder(), PRESETS[name].hub_id)
    if name in PRESETS:
        return Checkpoint(_hub_folder(PRESETS[name].hub_id), PRESETS[name].hub_id)
    if path.suffix == ".gguf":
        return Checkpoint(gguf_folder(path), path.stem)
    if path.is_dir():
        return Checkpoint(_checked_folder(path), path.resolve().name)
    if name.count("/") == 1 and not name.startswith((".", "/", "~")):
        return Checkpoint(_hub_folder(name), name)
    official = official_hub_id(name)
    if official is None:
        raise ModelLoadError(
            f"unknown model {name!r}: not a preset, a Hub id, a folder or a .gguf file on this disk. {_nearest(name)}"
        )
    return Checkpoint(_hub_folder(official), official)


def _checked_folder(folder: Path) -> Path:
    """Fail early on a folder that is not a whole checkpoint."""
    if not (folder / "config.json").is_file():
        found = ", ".join(sorted(entry.name for entry in folder.iterdir())[:8]) or "nothing"
        raise ModelLoadError(f"{folder} is not a Hugging Face model folder: no config.json in it (found: {found}).")
    weights = [*folder.glob("*.safetensors"), *folder.glob("*.bin")]
    if not weights:
        raise ModelLoadError(f"{folder} has a config.json but no weights (*.safetensors or *.bin).")
    for file in weights:
        if file.suffix == ".safetensors":
            _check_safetensors(file)
    return folder


def _check_safetensors(file: Path) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt"):
            pass
    except (SafetensorError, OSError) as error:
        raise ModelLoadError(f"{file} is truncated or damaged ({error}). Copy or download it again.") from error


# --- the Hub ---------------------------------------------------------------------------------------------------------


def _hub_folder(repo_id: str) -> Path:
    """The repository's folder in the local Hub cache, downloaded if it is not all there."""
    from huggingface_hub import snapshot_download

    cached = _cached_snapshot(repo_id)
    if cached is not None and _is_whole(cached):
        return cached
    if not reach_hub(repo_id, "config.json"):
        found = (
            "is not in the local Hub cache" if cached is None else f"is only partly in the local Hub cache ({cached})"
        )
        raise ModelLoadError(
            f"no network: {repo_id!r} {found} and the Hub cannot be reached. Give a local folder or .gguf file, or use "
            f"the embedded {EMBEDDED_MODEL!r}. {_nearest(repo_id)}"
        )
    folder = Path(snapshot_download(repo_id, allow_patterns=DOWNLOAD_PATTERNS, ignore_patterns=["original/*"]))
    if not any(folder.glob("*.safetensors")):
        snapshot_download(repo_id, allow_patterns=["*.bin"])
    return folder


def _cached_snapshot(repo_id: str) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repo_id, allow_patterns=DOWNLOAD_PATTERNS, local_files_only=True))
    except LocalEntryNotFoundError:
        return None


def _is_whole(folder: Path) -> bool:
    """Whether a snapshot has its configuration, its tokenizer and every shard of its weights."""
    index = [json.loads(file.read_text(encoding="utf-8")) for file in folder.glob("*.index.json")]
    shards = {shard for content in index for shard in content["weight_map"].values()}
    has_weights = shards or any(folder.glob("*.safetensors")) or any(folder.glob("*.bin"))
    has_tokenizer = any(folder.glob("tokenizer*")) or any(folder.glob("vocab*"))
    return bool(
        (folder / "config.json").is_file()
        and has_tokenizer
        and has_weights
        and all((folder / shard).is_file() for shard in shards)
    )


def reach_hub(repo_id: str, file: str, repo_type: str = "model") -> bool:
    """Ask the Hub for one file's headers: False when there is no network, at once rather than after many retries.

    Raises:
        ModelLoadError: the repository is gated and this account has no access, or it does not exist.
    """
    from huggingface_hub import get_hf_file_metadata, get_token, hf_hub_url
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    try:
        get_hf_file_metadata(hf_hub_url(repo_id, file, repo_type=repo_type), timeout=HUB_TIMEOUT_S, token=get_token())
    except GatedRepoError as error:
        raise ModelLoadError(
            f"{repo_id!r} is gated. Accept its licence at https://huggingface.co/{repo_id}, then log in with "
            "`hf auth login` or set HF_TOKEN."
        ) from error
    except RepositoryNotFoundError as error:
        raise ModelLoadError(
            f"the Hub has no {repo_type} {repo_id!r} (or it is private). {_nearest(repo_id)}"
        ) from error
    except EntryNotFoundError as error:
        raise ModelLoadError(f"the Hub's {repo_id!r} has no {file}") from error
    except OfflineModeIsEnabled:
        return False
    except HfHubHTTPError as error:
        raise ModelLoadError(f"the Hub answered with an error for {repo_id!r}: {error}") from error
    except Exception as error:  # the HTTP client's transport errors share no public base class
        if not _is_transport_error(error):
            raise
        return False
    return True


def _is_transport_error(error: Exception) -> bool:
    return isinstance(error, OSError) or any(base.__name__ == "TransportError" for base in type(error).__mro__)


def _nearest(name: str) -> str:
    from transformer_lens.supported_models import MODEL_ALIASES, OFFICIAL_MODEL_NAMES

    known = [*PRESETS, *OFFICIAL_MODEL_NAMES, *(alias for many in MODEL_ALIASES.values() for alias in many)]
    by_lower = {candidate.lower(): candidate for candidate in known}
    close = difflib.get_close_matches(name.lower(), by_lower, n=4, cutoff=0.5)
    nearest = f"Nearest known names: {', '.join(by_lower[c] for c in close)}. " if close else ""
    return f"{nearest}Presets: {', '.join(PRESETS)}."
