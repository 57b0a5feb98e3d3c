"""What a batch has judged so far, on disk, so that a kill at any moment loses next to nothing.

Lines of JSON: first what the batch is (model, thresholds, images, ...), then one line for each row, in the order of the
images. Appended only; a last line that a kill tore is dropped. Written to the system at once, and forced to the disk
every `SYNC_SECONDS`: a killed process loses no row that it had written, a power cut at most those of that time.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from inspection.errors import ConfigInvalid, OutputUnwritable

FORMAT = 1
SYNC_SECONDS = 1.0

Row = dict[str, Any]


class Journal:
    """The journal of one batch; a context manager that holds it against other processes.

    Args:
        path: where it lies.
        about: what decides the rows; a journal that says otherwise is refused.
        paths: the column `path` of all rows to come, in order.
        step: rows are taken up in whole steps. The network sees `step` images at once, and the same images together
            give the same scores to the bit: an interrupted batch ends with the rows of an uninterrupted one.
        restart: begin anew, whatever is there.

    Attributes:
        done: rows that it holds.

    Raises:
        ConfigInvalid: it belongs to another batch (named: model, images, ...), or another process is writing it.
        OutputUnwritable: it cannot be made or read.
    """

    def __init__(
        self, path: Path, about: dict[str, Any], paths: Sequence[str], *, step: int = 1, restart: bool = False
    ) -> None:
        self.path = path
        self.done = 0
        self._synced = time.monotonic()
        head = {"format": FORMAT, **about, "batch": step}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise self._unwritable(error) from error
        try:
            self._hold()
            if restart:
                os.ftruncate(self._file, 0)
            self._take_up(head, paths, step)
        except OSError as error:
            os.close(self._file)
            raise self._unwritable(error) from error
        except ConfigInvalid:
            os.close(self._file)
            raise

    def append(self, rows: Sequence[Row]) -> None:
        """Adds rows. Raises OutputUnwritable; what was added before stays."""
        data = b"".join(_line(row) for row in rows)
        try:
            self._write(data)
            if time.monotonic() - self._synced > SYNC_SECONDS:
                os.fsync(self._file)
                self._synced = time.monotonic()
        except OSError as error:
            raise self._unwritable(error) from error
        self.done += len(rows)

    def rows(self) -> Iterator[Row]:
        """All rows, from the file."""
        with self.path.open("rb") as file:
            next(file)
            for line in file:
                yield json.loads(line)

    def remove(self) -> None:
        """The batch is whole and written elsewhere."""
        self.path.unlink()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)  # what was written is the system's already

    def _hold(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigInvalid(
                "another process is working on this batch.",
                where=str(self.path),
                hint="Wait for it, or choose another --out.",
            ) from error

    def _take_up(self, head: dict[str, Any], paths: Sequence[str], step: int) -> None:
        """Finds where the rows end that can be trusted, and cuts off the rest."""
        with open(self.path, "rb") as file:
            first = file.readline()
            if not first.endswith(b"\n"):  # new, or killed before anything was judged
                os.ftruncate(self._file, 0)
                self._write(_line(head))
                os.fsync(self._file)
                _sync_folder(self.path.parent)
                return
            self._check(first, head)
            keep = file.tell()
            for number, path in enumerate(paths):
                line = file.readline()
                row = _parsed(line)
                if row is None or row.get("path") != path:
                    break
                if (number + 1) % step == 0 or number + 1 == len(paths):
                    self.done, keep = number + 1, file.tell()
        os.ftruncate(self._file, keep)
        os.lseek(self._file, 0, os.SEEK_END)

    def _check(self, first: bytes, head: dict[str, Any]) -> None:
        known = _parsed(first)
        if known is None:
            raise ConfigInvalid(
                "this is no journal of a batch.", where=str(self.path), hint="Move it away, or use --restart."
            )
        other = [key for key in head if known.get(key) != json.loads(json.dumps(head[key]))]
        if other:
            raise ConfigInvalid(
                f"this is the journal of an interrupted run that differs in: {', '.join(other).replace('_', ' ')}. "
                "Its rows and these do not mix.",
                where=str(self.path),
                hint="Give what that run was given to go on with it, or --restart to forget it.",
            )

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._file, view) :]

    def _unwritable(self, error: OSError) -> OutputUnwritable:
        return OutputUnwritable(
            f"cannot write: {error.strerror or error}.",
            where=str(self.path),
            hint=f"Make room or choose another folder for --out. {self.done} judged images are kept: the same command "
            "goes on after them."
            if self.done
            else "Make room or choose another folder for --out.",
        )


def _line(values: dict[str, Any]) -> bytes:
    return json.dumps(values, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def _parsed(line: bytes) -> dict[str, Any] | None:
    """A line's values; None for a torn or foreign one."""
    if not line.endswith(b"\n"):
        return None
    try:
        values = json.loads(line)
    except ValueError:
        return None
    return values if isinstance(values, dict) else None


def _sync_folder(folder: Path) -> None:
    """Makes a new name in a folder outlast a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
