"""An intervention that remembers the examples that it was tuned on."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clas_lens.artifacts import content_key, write_text
from clas_lens.sites import LensModel
from clas_lens.steering import Edit, Intervention, Positions

TUNED_ON = "tuned_on.json"


@dataclass(frozen=True, eq=False)
class Tuned:
    """An intervention whose strength was chosen on some examples; it remembers them, and does what the inner one does.

    Attributes:
        inner: the intervention.
        tuned_on: keys `<data set>/<id>` of the examples that it was tuned on.
    """

    inner: Intervention
    tuned_on: frozenset[str] = field(repr=False)

    @property
    def positions(self) -> Positions:
        return self.inner.positions

    @property
    def anchor(self) -> str:
        return self.inner.anchor

    @property
    def alpha(self) -> float:
        return self.inner.alpha

    @property
    def source(self) -> Mapping[str, Any]:
        return self.inner.source

    def check(self, model: LensModel) -> None:
        """As the inner one."""
        self.inner.check(model)

    def edits(self, languages: Sequence[str]) -> Mapping[str, Edit]:
        """As the inner one."""
        return self.inner.edits(languages)

    def settings(self) -> dict[str, Any]:
        """As the inner one."""
        return self.inner.settings()

    def fingerprint(self) -> str:
        """The inner one's, and the examples."""
        return content_key(self.inner.fingerprint(), sorted(self.tuned_on))

    def save_pretrained(self, folder: str | Path) -> Path:
        """The inner one's file, and the examples beside it; `load_intervention` reads both."""
        write_text(Path(folder) / TUNED_ON, json.dumps(sorted(self.tuned_on), indent=0) + "\n")
        return self.inner.save_pretrained(folder)


def tuned_on(folder: str | Path) -> frozenset[str]:
    """The examples that `Tuned.save_pretrained` wrote into a folder; none where an untuned intervention was saved."""
    path = Path(folder) / TUNED_ON
    return frozenset(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else frozenset()
