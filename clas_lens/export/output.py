"""Where an export goes: whole, checked and in its place, or not there at all."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clas_lens.artifacts import make_folder
from clas_lens.export.factors import ExportError
from clas_lens.given import given_path


@contextmanager
def new_folder(out: str | Path) -> Iterator[Path]:
    """A scratch folder that becomes `out` if the block ends well and vanishes if it does not.

    Raises:
        ExportError: there is something at `out`.
    """
    target = given_path("out", out, error=ExportError).expanduser()
    check_free(target)
    make_folder(target.parent)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name[:40]}-") as scratch:
        folder = Path(scratch) / "export"
        folder.mkdir()  # with the umask's rights, which a temporary folder lacks
        yield folder
        check_free(target)
        if target.is_dir():
            target.rmdir()
        folder.rename(target)


@contextmanager
def new_file(out: str | Path, suffix: str, default_name: str) -> Iterator[tuple[Path, Path]]:
    """A scratch folder and the file to write in it. `out` is the file, if it ends in `suffix`, or a folder to be made.

    What is written beside the file goes beside it, under its name: `model.gguf`, `model.parity.json`, `model.md`.

    Raises:
        ExportError: there is something at `out`.
    """
    target = given_path("out", out, error=ExportError).expanduser()
    if target.suffix != suffix:
        with new_folder(target) as folder:
            yield folder, folder / f"{default_name}{suffix}"
        return
    check_free(target)
    make_folder(target.parent)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.stem[:40]}-") as scratch:
        folder = Path(scratch)
        yield folder, folder / target.name
        check_free(target)
        for beside, ending in (
            ("parity.json", ".parity.json"),
            ("README.md", ".md"),
            ("steering.json", ".steering.json"),
        ):
            if (folder / beside).is_file():
                shutil.move(folder / beside, target.with_suffix(ending))
        shutil.move(folder / target.name, target)


def check_free(target: Path) -> None:
    """Raise `ExportError` if there is a file, or a folder with something in it."""
    if target.is_file() or (target.is_dir() and any(target.iterdir())):
        raise ExportError(f"{target} exists already; delete it or choose another place")
