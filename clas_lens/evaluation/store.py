"""Where rows are kept: a file a language and intervention, and chunks beside it until they are all there."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from clas_lens.artifacts import load_table, remembered_table, save_table
from clas_lens.evaluation.plan import EvaluationPlan, WorkItem
from clas_lens.provenance import each_once

KIND = "evaluation rows"


@dataclass(frozen=True)
class RowStore:
    """The rows of one task's evaluations in `folder`, or nowhere (None): then nothing is there and nothing is kept."""

    folder: Path | None

    def resumed(self, plan: EvaluationPlan, item: WorkItem, name: str) -> pd.DataFrame | None:
        """The rows of an item under one intervention, if they are there and follow from the same inputs."""
        if self.folder is None:
            return None
        found = remembered_table(self._path(item, name), KIND, plan.key(item, name))
        if found is not None:
            self._sweep(item, name)  # a run that was killed as it kept them may have left their chunks
        return found

    def save(
        self,
        plan: EvaluationPlan,
        item: WorkItem,
        name: str,
        table: pd.DataFrame,
        *,
        halved: Sequence[int] = (),
        made: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """Keep them; a whole language takes the place of its chunks.

        Args:
            halved: of how many prompts the batches were that the device had no memory for, for the header.
            made: with what earlier runs have made chunks among them, for the header.
        """
        if self.folder is None:
            return
        path = self._path(item, name)
        noted = {"halved": list(halved), "made": each_once(made)}
        header = {**plan.header(item, name), **{what: of for what, of in noted.items() if of}}
        save_table(path, KIND, table, header)
        self._sweep(item, name)

    def _sweep(self, item: WorkItem, name: str) -> None:
        """Delete the chunks of a whole language."""
        if item.number is None:
            shutil.rmtree(self._path(item, name).with_suffix(".parts"), ignore_errors=True)

    def made(self, language: str, name: str, number: int | None = None) -> list[dict[str, Any]]:
        """With which versions the rows of a language, or of one of its chunks, were answered; none that are not kept."""
        path = None if self.folder is None else self._place(language, name, number)
        if path is None or not path.is_file():
            return []
        header = load_table(path, KIND)[1]
        return each_once([*header.get("made", ()), header["provenance"]])

    def _path(self, item: WorkItem, name: str) -> Path:
        return self._place(item.language, name, item.number)

    def _place(self, language: str, name: str, number: int | None) -> Path:
        assert self.folder is not None
        stem = self.folder / language / name
        return Path(f"{stem}.parquet") if number is None else Path(f"{stem}.parts") / f"{number:05d}.parquet"
