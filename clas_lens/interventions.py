"""Every kind of intervention that can be saved, and a loader that tells them apart."""

from pathlib import Path
from typing import Protocol

from clas_lens import clas, controls, noise, overwrite
from clas_lens.artifacts import ArtifactError
from clas_lens.steering import Intervention
from clas_lens.tuned import Tuned, tuned_on
from clas_lens.vectors import AddVector, Incline


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
    controls.FILE_NAME: controls.RescaleMasks,
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
