"""Every kind of intervention that can be saved, and a loader that tells them apart."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from clas_lens.artifacts import ArtifactError, read_header
from clas_lens.baselines.adaptive import Adaptive
from clas_lens.baselines.amplify import Amplify
from clas_lens.baselines.arithmetic import LanguageArithmetics
from clas_lens.baselines.masks import RescaleMasks
from clas_lens.baselines.noise import MatchedNoise
from clas_lens.baselines.overwrite import Overwrite
from clas_lens.baselines.recover import Recover
from clas_lens.baselines.released_incline import ReleasedIncline
from clas_lens.baselines.unit_vectors import UnitDiffMean
from clas_lens.baselines.vectors import AddVector, Incline
from clas_lens.given import given_path
from clas_lens.steering.clas import Clas
from clas_lens.steering.intervention import FILE_NAME, Intervention


class Loadable(Protocol):
    """A class of interventions that reads back what its instances save."""

    def from_pretrained(self, folder: str | Path) -> Intervention:
        """Read what `save_pretrained` wrote into `folder`."""
        ...


BY_KIND: Mapping[str, Loadable] = {
    Clas.kind: Clas,
    RescaleMasks.kind: RescaleMasks,
    Overwrite.kind: Overwrite,
    AddVector.kind: AddVector,
    Incline.kind: Incline,
    MatchedNoise.kind: MatchedNoise,
    Adaptive.kind: Adaptive,
    ReleasedIncline.kind: ReleasedIncline,
    Amplify.kind: Amplify,
    LanguageArithmetics.kind: LanguageArithmetics,
    Recover.kind: Recover,
    UnitDiffMean.kind: UnitDiffMean,
}


def load_intervention(folder: str | Path) -> Intervention:
    """The intervention that `save_pretrained` wrote into `folder`, of whichever kind.

    Raises:
        ArtifactError: none there, a damaged file, or one that holds something else.
    """
    path = given_path("folder", folder) / FILE_NAME
    if not path.is_file():
        raise ArtifactError(f"no intervention in {folder}: it has no {FILE_NAME}, which save_pretrained writes")
    kind = read_header(path)["kind"]
    if kind not in BY_KIND:
        raise ArtifactError(f"{path} holds {kind}, which is none of the interventions: {', '.join(BY_KIND)}")
    return BY_KIND[kind].from_pretrained(folder)
