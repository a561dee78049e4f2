"""A data set in a local folder, in the Hub's layout, read as it is now.

`datasets` keeps what it once read of a folder under the folder's base name: a file edited since, or another folder of that
name, is not seen. So local files are read here, line by line, which also lets an error name the line.
"""

import gzip
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clas_lens.corpus.checks import CorpusError

SUFFIXES = (".jsonl", ".json", ".parquet", ".csv", ".tsv")


@dataclass(frozen=True)
class Row:
    """One row of a file: its values by column, and where it stands."""

    values: Mapping[str, Any]
    where: str


class DatasetFolder:
    """The configurations of a folder: those that its README.md lists, else those that its file names tell.

    Without a list, `<configuration>/<split>*` and `<configuration>.<suffix>` (any split) are data files.

    Raises:
        CorpusError: no configuration, or a README whose list cannot be read.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder = name, folder
        listed = _listed(name, folder)
        self._listed = {str(entry["config_name"]): entry for entry in listed}
        if len(self._listed) < len(listed):
            names = [str(entry["config_name"]) for entry in listed]
            twice = next(one for one in names if names.count(one) > 1)
            raise CorpusError(f"{name}: {folder / 'README.md'} lists the configuration {twice!r} twice")
        self.configs = tuple(self._listed or _named_by_files(folder))
        if not self.configs:
            raise CorpusError(
                f"{name}: {folder} is no data set: its README.md lists no configs, and it has no data files such as "
                f"<language>/<split>.jsonl (of {', '.join(SUFFIXES)}, or .gz of them)"
            )

    def rows(self, config: str, split: str) -> Iterator[Row]:
        """The rows of a split, file by file in the order of their names."""
        for file in self._files(config, split):
            yield from read_rows(self.name, file)

    def _files(self, config: str, split: str) -> list[Path]:
        if config in self._listed:
            try:
                patterns = _patterns(self._listed[config], split)
            except (KeyError, TypeError, AttributeError) as error:
                raise CorpusError(
                    f"{self.name}: {self.folder / 'README.md'}: data_files of {config!r} are neither paths nor entries with a "
                    "split and a path"
                ) from error
        else:
            patterns = [f"{config}/{split}*"] + [
                f"{config}{suffix}{zipped}" for suffix in SUFFIXES for zipped in ("", ".gz")
            ]
        files = []
        for pattern in patterns:
            if Path(pattern).is_absolute() or ".." in Path(pattern).parts:
                raise CorpusError(
                    f"{self.name}: {self.folder / 'README.md'} names {pattern}, which is not in the folder"
                )
            found = sorted(file for file in self.folder.glob(pattern) if file.is_file() and _suffix(file) in SUFFIXES)
            if not found and config in self._listed:
                raise CorpusError(f"{self.name}: {config!r}, split {split!r}: no such file: {self.folder / pattern}")
            _check_parts(self.name, found, any_names=config in self._listed)
            files += [file for file in found if file not in files]
        if not files:
            raise CorpusError(f"{self.name}: no split {split!r} of {config!r} in {self.folder}")
        return files


PART = re.compile(r".*\d+-of-0*(?P<parts>\d+)")


def _check_parts(name: str, files: Sequence[Path], *, any_names: bool) -> None:
    """Raise unless several files are the parts of one, "test-00000-of-00002.parquet" and so on, and all of them.

    Args:
        any_names: other files than parts may be several: the README lists them.

    Raises:
        CorpusError: a part that is not there, or a second file, such as a copy, whose rows would count twice.
    """
    stems = [file.name.removesuffix(".gz").removesuffix(_suffix(file)) for file in files]
    parts = [match for match in map(PART.fullmatch, stems) if match]
    named = ", ".join(file.name for file in files)
    if len(files) > 1 and len(parts) < len(files) and not any_names:
        raise CorpusError(
            f"{name}: {files[0].parent} has several files for one split, {named}: keep one, or parts named -00000-of-00002"
        )
    if parts and {int(match["parts"]) for match in parts} != {len(parts)}:
        raise CorpusError(
            f"{name}: {files[0].parent} has {len(parts)} of {parts[0]['parts']} parts, {named}: copy the others, too"
        )


def _listed(name: str, folder: Path) -> list[dict[str, Any]]:
    readme = folder / "README.md"
    if not readme.is_file():
        return []
    from huggingface_hub import metadata_load

    try:
        configs = (metadata_load(readme) or {}).get("configs") or []
    except Exception as error:  # YAML's errors, decoding errors, and ValueErrors of the Hub's client
        raise CorpusError(f"{name}: the head of {readme} cannot be read: {error}") from error
    good = isinstance(configs, list) and all(isinstance(entry, dict) and "config_name" in entry for entry in configs)
    if not good:
        raise CorpusError(f"{name}: {readme}: configs must be a list of entries with a config_name")
    return configs


def _patterns(entry: Mapping[str, Any], split: str) -> list[str]:
    files = entry.get("data_files", f"{entry.get('data_dir', entry['config_name'])}/{split}*")
    if isinstance(files, list) and all(isinstance(file, dict) for file in files):
        files = [file["path"] for file in files if file.get("split") == split]
    elif isinstance(files, dict):
        files = files.get(split, [])
    paths = [files] if isinstance(files, str) else files
    found = [path for part in paths for path in ([part] if isinstance(part, str) else part)]
    if not all(isinstance(path, str) for path in found):
        raise TypeError("a path is a text")
    return found


def _named_by_files(folder: Path) -> list[str]:
    files = [file for file in folder.iterdir() if file.is_file() and _suffix(file) in SUFFIXES]
    folders = [
        inner for inner in folder.iterdir() if inner.is_dir() and any(_suffix(f) in SUFFIXES for f in inner.iterdir())
    ]
    return sorted(
        {file.name.removesuffix(".gz").removesuffix(_suffix(file)) for file in files} | {f.name for f in folders}
    )


def _suffix(file: Path) -> str:
    return Path(file.name.removesuffix(".gz")).suffix


# --- files ---


def read_rows(name: str, file: Path) -> Iterator[Row]:
    """The rows of one data file."""
    match _suffix(file):
        case ".jsonl":
            yield from _json_lines(name, file)
        case ".json":
            yield from _json_list(name, file) if read_bytes(file).lstrip()[:1] == b"[" else _json_lines(name, file)
        case suffix:
            yield from _table(name, file, suffix)


def read_bytes(file: Path) -> bytes:
    """A file's content, unzipped, without a byte-order mark."""
    try:
        raw = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    except (OSError, EOFError) as error:
        raise CorpusError(f"{file} cannot be read: {error}") from error
    return raw.removeprefix(b"\xef\xbb\xbf")


def text_lines(where: str, file: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines, cut at newlines only: `str.splitlines` also cuts at U+2028 and other characters that texts hold."""
    for number, line in enumerate(read_bytes(file).removesuffix(b"\n").split(b"\n"), start=1):
        try:
            yield number, line.removesuffix(b"\r").decode("utf-8")
        except UnicodeDecodeError as error:
            raise CorpusError(
                f"{where}: {file}, line {number} is not UTF-8 ({error.reason} at byte {error.start}). "
                "Convert the file, e.g. with iconv -t utf-8."
            ) from error


def json_object(where: str, text: str) -> dict[str, Any]:
    """The object that a line holds."""
    try:
        row = json.loads(text, object_pairs_hook=_no_column_twice)
    except (ValueError, RecursionError) as error:
        raise CorpusError(f"{where} is not JSON ({getattr(error, 'msg', error)})") from error
    if not isinstance(row, dict):
        raise CorpusError(f"{where} is not a JSON object but a {type(row).__name__}")
    return row


def _no_column_twice(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [column for column, _ in pairs]
        raise ValueError(f"field {next(one for one in names if names.count(one) > 1)!r} is there twice")
    return row


def _json_lines(name: str, file: Path) -> Iterator[Row]:
    for number, line in text_lines(name, file):
        if line.strip():
            yield Row(json_object(f"{name}: {file}, line {number}", line), f"{file}, line {number}")


def _json_list(name: str, file: Path) -> Iterator[Row]:
    try:
        rows = json.loads(read_bytes(file), object_pairs_hook=_no_column_twice)
    except (ValueError, RecursionError) as error:
        raise CorpusError(f"{name}: {file} is not JSON ({error})") from error
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise CorpusError(f"{name}: {file}, entry {number} is not an object but a {type(row).__name__}")
        yield Row(row, f"{file}, entry {number}")


def _table(name: str, file: Path, suffix: str) -> Iterator[Row]:
    import io

    from pyarrow import csv, parquet

    try:
        content = io.BytesIO(read_bytes(file))
        if suffix == ".parquet":
            table = parquet.read_table(content)
        else:
            table = csv.read_csv(content, parse_options=csv.ParseOptions(delimiter="\t" if suffix == ".tsv" else ","))
        if len(set(table.column_names)) < len(table.column_names):
            raise ValueError(f"a column is there twice in {', '.join(table.column_names)}")
        rows = table.to_pylist()
    except (OSError, ValueError, NotImplementedError) as error:  # pyarrow's own errors are some of these
        raise CorpusError(f"{name}: {file} cannot be read as {suffix[1:]}: {error}") from error
    for number, row in enumerate(rows, start=1):
        yield Row(row, f"{file}, row {number}")
