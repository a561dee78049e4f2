"""Artefacts on the Hugging Face Hub: pushed with a card, read back by name."""

import tempfile
from pathlib import Path
from typing import Any

from clas_lens.artifacts import ArtifactError
from clas_lens.baselines.load import load_intervention
from clas_lens.export.cards import write_card
from clas_lens.export.factors import ExportError
from clas_lens.export.sources import described_model
from clas_lens.given import given_flag, given_path
from clas_lens.steering.intervention import Intervention, given_intervention


def push_to_hub(
    artefact: Intervention | str | Path,
    repo_id: str,
    *,
    private: bool = True,
    token: str | None = None,
    api: Any = None,
) -> str:
    """Upload an intervention, or a folder that an export or `save_pretrained` made, with its card; returns the commit's
    address.

    Args:
        repo_id: "user/repo", made if it is not there; private unless you say otherwise.
        api: a `huggingface_hub.HfApi`, for another endpoint.

    Raises:
        ExportError: no folder, or one without a card.
    """
    if not isinstance(repo_id, str) or repo_id.count("/") != 1:
        raise ExportError(f"repo_id must be 'user/repo', got {repo_id!r}")
    given_flag("private", private, error=ExportError)
    if api is None:
        from huggingface_hub import HfApi

        api = HfApi(token=token)
    with tempfile.TemporaryDirectory() as scratch:
        if isinstance(artefact, str | Path):
            folder = Path(artefact)
            if not (folder / "README.md").is_file():
                raise ExportError(
                    f"{folder} has no README.md: push a folder that an export made, or the intervention itself"
                )
        else:
            folder = given_intervention(artefact).save_pretrained(scratch)
            write_intervention_card(folder, artefact)
        api.create_repo(repo_id, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo_id,
            folder_path=str(folder),
            commit_message=f"Upload {folder.name if isinstance(artefact, str | Path) else type(artefact).__name__}",
        )
    return str(commit)


def write_intervention_card(folder: Path, intervention: Intervention) -> None:
    """A card beside what `save_pretrained` wrote."""
    categories = getattr(intervention, "categories", None)
    measured: Any = intervention.source.get("languages") or getattr(categories, "languages", ())
    languages = [code for code in measured if code != intervention.anchor]
    base_model = str(described_model(intervention).get("name") or "unknown")
    write_card(folder, intervention, languages, base_model, "intervention")


def from_pretrained(name: str | Path, *, revision: str | None = None, token: str | None = None) -> Intervention:
    """The intervention in a folder, or in a Hub repository "user/repo", of whichever kind.

    Raises:
        ArtifactError: none there, or the Hub cannot be reached.
    """
    here = given_path("the name of an intervention", name, error=ArtifactError).expanduser()
    if here.is_dir():
        return load_intervention(here)
    if str(name).count("/") != 1 or str(name).startswith((".", "/", "~")):
        raise ArtifactError(f"{name} is neither a folder here nor a Hub repository 'user/repo'")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        folder = snapshot_download(
            str(name), revision=revision, token=token, allow_patterns=["*.safetensors", "*.json"]
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise ArtifactError(f"{name} is no folder here, and the Hub did not give it: {error}") from error
    return load_intervention(folder)
