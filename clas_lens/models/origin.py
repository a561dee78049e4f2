"""By which name a model was loaded, so that another process can load the same."""

import weakref
from dataclasses import dataclass
from pathlib import Path

from clas_lens.models.backends import LensModel
from clas_lens.models.presets import PRESETS
from clas_lens.vocabulary import Backend


@dataclass(frozen=True)
class Origin:
    """What to give to `load_model` again: a name (a local one as an absolute path) and a backend."""

    name: str
    backend: Backend


_origins: "weakref.WeakKeyDictionary[LensModel, Origin]" = weakref.WeakKeyDictionary()


def mark_origin(model: LensModel, name: str, backend: Backend) -> None:
    """Remember by which name a model was loaded."""
    path = Path(name).expanduser()
    local = name not in PRESETS and path.exists()  # as `find_checkpoint` looks
    _origins[model] = Origin(str(path.resolve()) if local else name, backend)


def origin_of(model: LensModel) -> Origin | None:
    """By which name `load_model` loaded this model; None for a model that was made or changed in another way."""
    return _origins.get(model)
