"""A run folder: where everything of a run lies, and the manifest of what its stages did."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock, Timeout

from clas_lens.artifacts import ArtifactError, load_table, provenance, sweep, write_text
from clas_lens.given import given_path
from clas_lens.study.config import CollectConfig, StageConfig

SEAL = "sha256"  # the manifest's entry that is no stage

# Kinds of tables that are a run's own; those of rows, searches, windows and comparisons are named where these are made.
LAYER_SHARES = "layer shares"
HEAD_SHARES = "head shares"
REPORT_DATA = "report data"


@dataclass(frozen=True)
class RunFolder:
    """Where everything of a run lies."""

    root: Path

    def __post_init__(self) -> None:
        given_path("a run folder", self.root, error=ArtifactError)

    @property
    def study(self) -> Path:
        """All settings of the study, or of the demo, that made the run; stages called one by one leave none."""
        return self.root / "study.toml"

    @property
    def statistics(self) -> Path:
        return self.root / "statistics"

    @property
    def categories(self) -> Path:
        return self.root / "categories.safetensors"

    @property
    def clas(self) -> Path:
        return self.root / "clas"

    @property
    def figures(self) -> Path:
        return self.root / "figures"

    @property
    def tables(self) -> Path:
        return self.root / "tables"

    @property
    def rows(self) -> Path:
        return self.root / "rows"

    @property
    def search(self) -> Path:
        return self.root / "search"

    @property
    def methods(self) -> Path:
        return self.root / "methods"

    @property
    def representations(self) -> Path:
        return self.root / "representations"

    @property
    def effects(self) -> Path:
        return self.root / "effects"

    @property
    def more_statistics(self) -> Path:
        """Those that methods need beside `statistics`: of other texts, or pooled in another way."""
        return self.root / "more_statistics"

    @property
    def manifest(self) -> Path:
        return self.root / "manifest.json"

    def table(self, name: str, kind: str) -> pd.DataFrame | None:
        """`tables/<name>.parquet`; None where no stage has written it yet.

        Raises:
            ArtifactError: it is damaged, or of another kind.
        """
        path = self.tables / f"{name}.parquet"
        return load_table(path, kind)[0] if path.is_file() else None

    def searched(self, task: str, method: str) -> Path:
        """What the search over a method found on a task."""
        return self.search / task / f"{method}.parquet"

    def answers(self, task: str) -> Path:
        """A task's rows, of all interventions and languages in one table."""
        return self.tables / f"{task}_rows.parquet"

    def comparisons(self, task: str) -> Path:
        """What `compare_stage` made of a task's rows."""
        return self.tables / f"{task}_comparison.parquet"

    def windows(self, task: str) -> Path:
        """The search at every window of layers, where a search was asked for it."""
        return self.tables / f"{task}_windows.parquet"

    @contextmanager
    def alone(self) -> Iterator[None]:
        """This process alone writes into the folder, while the block runs. What killed runs left half written is swept first.

        Raises:
            ArtifactError: another process is writing into it, or it cannot be written to.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.root / ".lock", timeout=0)
            lock.acquire()
        except Timeout as error:
            raise ArtifactError(
                f"another process is writing into {self.root}. Wait until it has ended, or give another folder."
            ) from error
        except OSError as error:
            raise ArtifactError(
                f"the run folder {self.root} cannot be written to ({error.strerror}). Give another folder."
            ) from error
        try:
            sweep(self.root)
            yield
        finally:
            lock.release()

    def collected(self) -> CollectConfig:
        """How the run was collected, by whichever command.

        Raises:
            ArtifactError: it was not, or this is no run folder.
        """
        entry = self.read_manifest().get("collect")
        if entry is None:
            raise ArtifactError(f"{self.root} has no statistics yet: clas-lens collect --out {self.root}")
        return CollectConfig(**{name: entry["config"][name] for name in CollectConfig.model_fields})

    def update_manifest(self, stage: str, config: StageConfig, **facts: object) -> None:
        """Record what a stage did: its configuration, its facts and its provenance. Other stages' entries stay."""
        manifest = self.read_manifest() if self.manifest.exists() else {}
        manifest[stage] = {"config": config.model_dump(mode="json"), **facts, "provenance": provenance()}
        self.write_manifest(manifest)

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        """Write all entries, and a hash of them by which damage and edits are noticed."""
        sealed = {**manifest, SEAL: _hash_of(manifest)}
        write_text(self.manifest, json.dumps(sealed, indent=2, ensure_ascii=False) + "\n")

    def read_manifest(self) -> dict[str, dict]:
        """What the stages recorded.

        Raises:
            ArtifactError: not a run folder, or a damaged manifest.
        """
        if not self.manifest.is_file():
            raise ArtifactError(
                f"{self.root} is not a run folder: no manifest.json. Make one: clas-lens collect --out {self.root}"
            )
        try:
            found = json.loads(self.manifest.read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ArtifactError(f"{self.manifest} is damaged ({error}); delete it and collect again") from error
        if not isinstance(found, dict) or found.pop(SEAL, None) != _hash_of(found):
            raise ArtifactError(
                f"{self.manifest} was edited or damaged: its content does not give the hash that it carries, or it carries "
                "none, as before clas-lens 0.2; delete it and collect again"
            )
        return found


def _hash_of(manifest: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
