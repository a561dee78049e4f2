"""Where rows are kept: a file a language and intervention, and chunks beside it until they are all there."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from clas_lens.artifacts import remembered_table, save_table
from clas_lens.evaluation.plan import EvaluationPlan, WorkItem

KIND = "evaluation rows"


@dataclass(frozen=True)
class RowStore:
    """The rows of one task's evaluations in `folder`, or nowhere (None): then nothing is there and nothing is kept."""

    folder: Path | None

    def resumed(self, plan: EvaluationPlan, item: WorkItem, name: str) -> pd.DataFrame | None:
        """The rows of an item under one intervention, if they are there and follow from the same inputs."""
        return None if self.folder is None else remembered_table(self._path(item, name), KIND, plan.key(item, name))

    def save(
        self, plan: EvaluationPlan, item: WorkItem, name: str, table: pd.DataFrame, *, halved: Sequence[int] = ()
    ) -> None:
        """Keep them; a whole language takes the place of its chunks.

        Args:
            halved: of how many prompts the batches were that the device had no memory for, for the header.
        """
        if self.folder is None:
            return
        path = self._path(item, name)
        save_table(path, KIND, table, {**plan.header(item, name), **({"halved": list(halved)} if halved else {})})
        if item.number is None:
            shutil.rmtree(path.with_suffix(".parts"), ignore_errors=True)

    def _path(self, item: WorkItem, name: str) -> Path:
        assert self.folder is not None
        stem = self.folder / item.language / name
        return Path(f"{stem}.parquet") if item.number is None else Path(f"{stem}.parts") / f"{item.number:05d}.parquet"
