"""A run folder: where everything of a run lies, and the manifest of what its stages did."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from clas_lens.artifacts import ArtifactError, provenance, write_text
from clas_lens.study.config import CollectConfig, StageConfig


@dataclass(frozen=True)
class RunFolder:
    """Where everything of a run lies."""

    root: Path

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
    def manifest(self) -> Path:
        return self.root / "manifest.json"

    def comparisons(self, task: str) -> Path:
        """What `compare_stage` made of a task's rows."""
        return self.tables / f"{task}_comparison.parquet"

    @contextmanager
    def alone(self) -> Iterator[None]:
        """This process alone writes into the folder, while the block runs.

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
        write_text(self.manifest, json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")

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
            return json.loads(self.manifest.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise ArtifactError(f"{self.manifest} is damaged ({error}); delete it and collect again") from error
