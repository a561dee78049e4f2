"""Lazy doors: a folder's public names are those that its `__init__.pyi` imports, each loaded when it is first asked for.

So importing the package costs nothing, the names are written once, and type checkers and editors read the same list.
"""

import ast
import sys
from importlib import import_module
from importlib.util import resolve_name
from pathlib import Path
from types import ModuleType
from typing import Any


class Door(ModuleType):
    """A package whose names are loaded on first use and win over files of the same name (`steering.steer` is the function).

    Python binds a file to its folder under the file's name whenever something imports from it; that alone is refused here.
    """

    _homes: dict[str, str]
    _extra: str | None

    def __getattr__(self, name: str) -> Any:
        if name not in self._homes:
            available = ", ".join(self.__all__)
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}; available: {available}")
        home = self._homes[name]
        try:
            value = import_module(f"{self.__name__}.{name}") if not home else getattr(import_module(home), name)
        except ModuleNotFoundError as error:
            if self._extra is None or not error.name or error.name.split(".")[0] == self.__name__.split(".")[0]:
                raise
            raise ImportError(f"{name} needs {error.name}: pip install 'clas-lens[{self._extra}]'") from error
        super().__setattr__(name, value)
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        if not (isinstance(value, ModuleType) and self._homes.get(name)):
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted(self.__all__)


def open_door(package: str, *, extra: str | None = None) -> None:
    """Make the package `package` a `Door` to the names in its `__init__.pyi`.

    Args:
        extra: of the installation, which brings what the names need beyond the rest.
    """
    module = sys.modules[package]
    assert module.__file__ is not None
    stub = ast.parse(Path(module.__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
    # A name's home is the module that it is imported from; a folder or file offered as such has none.
    homes: dict[str, str] = {}
    for node in stub.body:
        if isinstance(node, ast.ImportFrom):
            home = resolve_name("." * node.level + (node.module or ""), package)
            homes |= {alias.name: "" if home == package else home for alias in node.names}
    vars(module).update(_homes=homes, _extra=extra, __all__=sorted(homes))
    module.__class__ = Door
