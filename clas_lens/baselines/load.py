"""Every kind of intervention that can be saved, and a loader that tells them apart."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from clas_lens.artifacts import ArtifactError, content_key, write_text
from clas_lens.baselines import masks, noise, overwrite
from clas_lens.baselines.vectors import AddVector, Incline
from clas_lens.models.sites import LensModel
from clas_lens.steering import clas
from clas_lens.steering.intervention import Edit, Intervention
from clas_lens.vocabulary import Positions


class Loadable(Protocol):
    """A class of interventions that reads back what its instances save."""

    def from_pretrained(self, folder: str | Path) -> Intervention:
        """Read what `save_pretrained` wrote into `folder`."""
        ...


BY_FILE: dict[str, Loadable] = {
    clas.FILE_NAME: clas.Clas,
    overwrite.FILE_NAME: overwrite.Overwrite,
    AddVector.FILE_NAME: AddVector,
    Incline.FILE_NAME: Incline,
    masks.FILE_NAME: masks.RescaleMasks,
    noise.FILE_NAME: noise.MatchedNoise,
}


def load_intervention(folder: str | Path) -> Intervention:
    """The intervention that `save_pretrained` wrote into `folder`, of whichever kind; a tuned one is `Tuned` again.

    Raises:
        ArtifactError: none there or several, or a damaged file.
    """
    found = [name for name in BY_FILE if (Path(folder) / name).is_file()]
    if len(found) != 1:
        raise ArtifactError(
            f"{folder} must hold one intervention, found {', '.join(found) or 'none'}; possible: {', '.join(BY_FILE)}"
        )
    intervention = BY_FILE[found[0]].from_pretrained(folder)
    examples = tuned_on(folder)
    return Tuned(intervention, examples) if examples else intervention


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
