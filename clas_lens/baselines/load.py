"""Any intervention that was saved, read back as its own kind."""

from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

from clas_lens.artifacts import ArtifactError, read_header
from clas_lens.given import given_path
from clas_lens.steering.intervention import FILE_NAME, Intervention, SavedIntervention, given_intervention


def load_intervention(folder: str | Path) -> Intervention:
    """The intervention that `save_pretrained` wrote into `folder`, of whichever kind.

    Raises:
        ArtifactError: none there, a damaged file, or one that holds something else.
    """
    path = given_path("folder", folder) / FILE_NAME
    if not path.is_file():
        raise ArtifactError(f"no intervention in {folder}: it has no {FILE_NAME}, which save_pretrained writes")
    kind, known = read_header(path)["kind"], kinds()
    if kind not in known:
        raise ArtifactError(f"{path} holds {kind}, which is none of the interventions: {', '.join(sorted(known))}")
    return given_intervention(known[kind].from_pretrained(folder))


def kinds() -> dict[str, type[SavedIntervention]]:
    """Every class of saved interventions by its kind: CLAS, the baselines of this folder, and subclasses of the user's own."""
    import_module("clas_lens.steering.clas")
    for module in iter_modules([str(Path(__file__).parent)]):
        import_module(f"clas_lens.baselines.{module.name}")
    made, found = list(SavedIntervention.__subclasses__()), {}
    while made:
        cls = made.pop(0)
        made += cls.__subclasses__()
        if "kind" in vars(cls):
            found[cls.kind] = cls
    return found
