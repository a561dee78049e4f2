"""The package `analysis` under a name that nothing of yours can hide: `from clas_lens.analysis import layer_distribution`.

Where `import analysis` finds ours, the two names are one package, and each of its classes exists once. Where a file or package
of yours comes first, as one beside a notebook does, ours is loaded from its place beside clas_lens, under this name alone.
"""

import sys
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, module_from_spec, spec_from_file_location, spec_from_loader
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from analysis import *  # noqa: F403

OURS = Path(__file__).parents[1] / "analysis" / "__init__.py"
ALIAS = __name__


class _SameModules(MetaPathFinder, Loader):
    """`clas_lens.analysis.figures` is the module `analysis.figures`, not a second copy of it."""

    def find_spec(self, fullname: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        return spec_from_loader(fullname, self) if fullname.startswith(f"{ALIAS}.") else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = import_module(spec.name.removeprefix("clas_lens."))
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        module.__spec__ = module.__spec__.loader_state  # the import system has written this alias over it


def _is_ours(file: str | None) -> bool:
    return file is not None and Path(file).exists() and OURS.samefile(file)


def _found() -> str | None:
    """The file that `import analysis` gives here, without running it."""
    if "analysis" in sys.modules:
        return getattr(sys.modules["analysis"], "__file__", None)
    spec = find_spec("analysis")
    return None if spec is None else spec.origin


def _load() -> ModuleType:
    if not OURS.with_suffix(".pyi").is_file():
        raise ImportError(f"the package analysis of clas_lens is not at {OURS.parent}: install clas-lens anew")
    if _is_ours(_found()):
        sys.meta_path.insert(0, _SameModules())
        return import_module("analysis")
    spec = spec_from_file_location(ALIAS, OURS, submodule_search_locations=[str(OURS.parent)])
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[ALIAS] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


sys.modules[__name__] = _load()
