"""The folder of images: one folder for each part, below its day and hour, with an account of what they take.

    2026-11-25/14/000000123-NG/part.json  top.png  top.0.map.npz  top.0.map.png

A part's folder appears and goes in one step, so no kill at any moment leaves half of one. Order is by trigger number: a
clock that was set back does not make the newest images the oldest ones.
"""

from __future__ import annotations

import heapq
import os
import re
import secrets
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from inspection.record.database import moment
from inspection.results import Verdict

BLOCK = 4096  # a file takes whole blocks of the disk
HIDDEN = ".part-"
_PART = re.compile(r"(\d+)-(OK|NG|REVIEW|ERROR)")


def place(number: int, verdict: Verdict, wall: float) -> str:
    """The part's folder, relative to the folder of images."""
    return f"{moment(wall):%Y-%m-%d/%H}/{number:09d}-{verdict.value}"


class Shelf:
    """Keeps the account of the folder and deletes what is too much or too old. Thread-safe.

    Attributes:
        bytes: what the images take. parts: how many parts have some. deleted: how many parts' images were deleted.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bytes = self.parts = self.deleted = 0
        self._lock = threading.Lock()
        # One heap for what goes first and one for the rest: (number, folder, bytes).
        self._ok: list[tuple[int, str, int]] = []
        self._others: list[tuple[int, str, int]] = []
        # What a kill has left; listed now, before anybody writes: later there are such folders that are in work.
        try:
            names = os.listdir(folder)
        except OSError:  # not there yet, or no folder: whoever writes will say so
            names = []
        self._leftovers = [name for name in names if name.startswith(HIDDEN)]
        self._counted: set[str] | None = set()  # until the sweep is over: it meets what is written meanwhile

    def sweep(self) -> None:
        """Takes what an earlier run has left into account, and deletes what it left half done.

        Takes seconds where there are many; others may add meanwhile. Raises OSError; then call it again.
        """
        for name in self._leftovers:
            shutil.rmtree(self.folder / name, ignore_errors=True)
        for day in _folders(self.folder):
            for hour in _folders(Path(day.path)) if not day.name.startswith(HIDDEN) else ():
                for part in _folders(Path(hour.path)):
                    if _PART.fullmatch(part.name):
                        self._add(f"{day.name}/{hour.name}/{part.name}", _size(part.path))
        self._counted = None

    @contextmanager
    def adding(self, name: str) -> Iterator[Path]:
        """Gives a folder to write a part's files into; it becomes `name` when the block ends well. Raises OSError."""
        temporary = self.folder / f"{HIDDEN}{secrets.token_hex(8)}"
        temporary.mkdir(parents=True)
        try:
            yield temporary
            size = _size(temporary)
            final = self.folder / name
            with self._lock:  # otherwise `_remove` might take the hour's folder away, because it is empty
                final.parent.mkdir(parents=True, exist_ok=True)
                temporary.rename(final)
            self._add(name, size)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise

    def shrink(self, quota: int) -> None:
        """Deletes images until they take at most `quota` bytes: the oldest OK first, then the oldest of all."""
        while self.bytes > quota and self._drop(self._ok or self._others):
            pass

    def expire(self, before: float) -> None:
        """Deletes images of parts that were triggered before that moment (seconds since 1970), by the hour."""
        for heap in (self._ok, self._others):
            while heap and _hour(heap[0][1]) + 3600 <= before and self._drop(heap):
                pass

    def _add(self, name: str, size: int) -> None:
        found = _PART.fullmatch(name.rpartition("/")[2])
        assert found is not None
        with self._lock:
            if self._counted is not None:
                if name in self._counted:
                    return
                self._counted.add(name)
            heapq.heappush(self._ok if found[2] == "OK" else self._others, (int(found[1]), name, size))
            self.bytes += size
            self.parts += 1

    def _drop(self, heap: list[tuple[int, str, int]]) -> bool:
        with self._lock:
            if not heap:
                return False
            _, name, size = heapq.heappop(heap)
            self.bytes -= size
            self.parts -= 1
            self.deleted += 1
            gone = self.folder / f"{HIDDEN}{secrets.token_hex(8)}"
            part = self.folder / name
            try:
                part.rename(gone)
            except FileNotFoundError:
                return True  # somebody has deleted it
            for parent in (part.parent, part.parent.parent):
                try:
                    parent.rmdir()
                except OSError:
                    break  # not empty
        shutil.rmtree(gone, ignore_errors=True)
        return True


def _folders(folder: Path) -> list[os.DirEntry[str]]:
    try:
        return [entry for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []


def _size(folder: str | Path) -> int:
    """Bytes that the files of a part take on the disk; 0 where they have just been deleted."""
    try:
        return sum(-(-file.stat().st_size // BLOCK) * BLOCK for file in os.scandir(folder))
    except FileNotFoundError:
        return 0


def _hour(name: str) -> float:
    try:
        return datetime.strptime(name.rpartition("/")[0], "%Y-%m-%d/%H").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return float("inf")  # not made by us
