"""Which images a batch is about, in an order that is the same every time."""

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from inspection.errors import DataInvalid
from inspection.pixels import ENDINGS

LISTS = (".csv", ".parquet")


def find(given: Iterable[Path], *, leave_out: Iterable[Path] = ()) -> list[Path]:
    """The images behind what was given, each once.

    A file is taken as it is, whatever its name; a folder is searched through for the usual endings (hidden files and
    folders are not, nor are links to folders), sorted by path; a `.csv` or `.parquet` list gives its column `path`,
    relative to the list, in its own order, whether the files are there or not.

    Args:
        given: what the user named, in that order.
        leave_out: folders that are not searched, because the batch itself writes into them.

    Raises:
        DataInvalid: something is not there, a list has no column `path`, or there is no image at all.
    """
    given = list(given)
    without = {os.path.abspath(path) for path in leave_out}
    found: dict[str, Path] = {}
    for path in given:
        if path.is_dir():
            some: Iterable[Path] = sorted(_walk(path, without))
        elif not path.exists():
            raise DataInvalid("there is no such file or folder.", where=str(path))
        elif path.suffix.lower() in LISTS:
            some = _listed(path)
        else:
            some = [path]
        for image in some:
            found.setdefault(os.path.abspath(image), image)
    if not found:
        raise DataInvalid(
            "there is no image.",
            where=", ".join(str(path) for path in given),
            hint=f"Folders are searched for {', '.join(ENDINGS)}.",
        )
    return list(found.values())


def fingerprint(images: Iterable[Path]) -> str:
    """SHA-256 over names, sizes and times of change: tells whether it is still the same batch, without reading it."""
    digest = hashlib.sha256()
    for image in images:
        try:
            status = image.stat()
            state = f"{status.st_size} {status.st_mtime_ns}"
        except OSError:
            state = "not there"
        digest.update(os.fsencode(image) + b"\0" + state.encode() + b"\n")
    return digest.hexdigest()


def shown(path: Path) -> str:
    """The path as text that any table can hold: bytes that are no UTF-8 are replaced."""
    return os.fsencode(path).decode("utf-8", "replace")


def _walk(folder: Path, without: set[str]) -> Iterator[Path]:
    for here, folders, files in os.walk(folder):
        folders[:] = [
            name
            for name in folders
            if not name.startswith(".") and os.path.abspath(os.path.join(here, name)) not in without
        ]
        for name in files:
            if name.lower().endswith(ENDINGS) and not name.startswith("."):
                yield Path(here, name)


def _listed(path: Path) -> list[Path]:
    try:
        values = _column_of_csv(path) if path.suffix.lower() == ".csv" else _column_of_parquet(path)
    except (OSError, ValueError, csv.Error) as error:  # pyarrow's errors are ValueErrors or OSErrors
        raise DataInvalid(f"the list cannot be read: {error}.", where=str(path)) from error
    if values is None:
        raise DataInvalid(
            "the list has no column `path`.", where=str(path), hint="Give it one; other columns do not matter."
        )
    for row, value in enumerate(values):
        if not value:
            raise DataInvalid("the path is empty.", where=f"{path}, row {row + 1}")
    return [path.parent / value for value in values]


def _column_of_csv(path: Path) -> list[str] | None:
    with path.open(newline="", encoding="utf-8-sig") as file:  # spreadsheets write a byte order mark
        rows = csv.DictReader(file)
        if rows.fieldnames is None or "path" not in rows.fieldnames:
            return None
        return [(row["path"] or "").strip() for row in rows]


def _column_of_parquet(path: Path) -> list[str] | None:
    import pyarrow.parquet

    file = pyarrow.parquet.ParquetFile(path)
    if "path" not in file.schema_arrow.names:
        return None
    return [str(value or "") for value in file.read(columns=["path"]).column("path").to_pylist()]
