"""A folder that somebody else writes images into, as a camera.

The folder is listed again and again instead of being watched by inotify: network shares, which is where cameras and
microscopes put their files, send no such events, and one way serves both. The pause between two listings is at least
nine times as long as one took, so that never more than a tenth of a core goes into it, however many files lie there.
"""

from __future__ import annotations

import fnmatch
import os
import re
import shutil
import stat
import threading
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from inspection.cameras.camera import CameraLost
from inspection.cameras.options import FolderOptions
from inspection.errors import ConfigInvalid, InspectionError
from inspection.parts import Frame
from inspection.pixels import Pixels, read_image

HIDDEN = ("Thumbs.db", "desktop.ini")  # what Windows leaves behind
UNFINISHED = ("~", ".tmp", ".temp", ".part", ".partial", ".filepart", ".crdownload")  # of copying programs
SHORTEST_PAUSE = 0.01  # between two listings, seconds
REMEMBERED = 10_000  # files that went away; one that comes back unchanged, as after a lost share, is not taken again

State = tuple[int, int]  # mtime in nanoseconds, size in bytes: a file with another state is another image


@dataclass(frozen=True, slots=True, order=True)
class _Found:
    state: State
    name: str


class FolderCamera:
    """Each image file that appears in the folder is a frame: by time of its last change, then by name, each once.

    A file that is written anew under the same name is a new frame. A file that is no sound image is a frame with
    `damage`. Frames count from 1, also across `stop` and `start`; `received` is the moment at which it was decoded.
    """

    triggered = False

    def __init__(self, options: FolderOptions, view: str) -> None:
        """Raises ConfigInvalid where `done` is the watched folder itself."""
        if options.done is not None and options.done.resolve() == options.path.resolve():
            raise ConfigInvalid(
                "`done` is the folder that is watched.",
                where=f"view {view}",
                hint="Name another folder, such as done/.",
            )
        self._options = options
        self._view = view
        self._expression = re.compile(options.part) if options.part else None
        self._groups = options.groups
        self._taken: dict[str, State] = {}
        self._changing: dict[str, tuple[State, float]] = {}  # not known to be whole: as last seen, and since when
        self._whole: deque[_Found] = deque()
        self._handed: _Found | None = None  # handed out, and still to be moved
        self._moving = threading.Lock()
        self._stopped = threading.Event()
        self._folder: tuple[int, int] | None = None  # device and inode: an unmounted share leaves another folder
        self._skip_existing = not options.existing
        self._next_listing = 0.0
        self._pause = SHORTEST_PAUSE
        self._number = 0
        self._damaged = 0
        self._unnamed = 0
        self._not_moved = 0
        self._not_moved_why: str | None = None

    def start(self) -> None:
        """Finds the folder, and makes `done`. Raises CameraLost."""
        self._stopped.clear()
        self._folder = self._identity()
        if self._options.done is not None:
            try:
                self._options.done.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise self._lost(f"the folder for judged files cannot be made: {error.strerror}") from error
        self._next_listing = 0.0
        if self._skip_existing:
            self._taken.update(self._listing())
            self._skip_existing = False

    def frame(self, timeout: float) -> Frame | None:
        """The next whole file, decoded; None when there is none within `timeout` seconds. Raises CameraLost."""
        end = time.monotonic() + timeout
        self._put_away()
        while not self._stopped.is_set():
            while self._whole:
                found = self._whole.popleft()
                # One that was written to since is found by the next listing. One that is gone was whole before: reading
                # it says so, in a frame with `damage`.
                if self._state(found.name) in (found.state, None):
                    return self._take(found)
            now = time.monotonic()
            if now >= self._next_listing:
                self._look()
                continue
            if now >= end:
                break
            self._stopped.wait(min(end, self._next_listing) - now)
        return None

    def trigger(self) -> None:
        """Nothing: whoever writes the files decides."""

    def stop(self) -> None:
        """Wakes `frame`; what was handed out is moved."""
        self._stopped.set()
        self._put_away()

    def facts(self) -> dict[str, str | int | float | bool | None]:
        """`taken`, `damaged`; `unnamed`: without a serial in the name; `not_moved` into `done`, and why the last."""
        return {
            "path": str(self._options.path),
            "taken": self._number,
            "damaged": self._damaged,
            "unnamed": self._unnamed,
            "not_moved": self._not_moved,
            "not_moved_why": self._not_moved_why,
        }

    # What lies there

    def _look(self) -> None:
        """Notes which files are whole by now."""
        started = time.monotonic()
        if self._identity() != self._folder:
            raise self._lost("it is another folder than at the start; a share was unmounted or mounted")
        here = self._listing()
        changing: dict[str, tuple[State, float]] = {}
        whole: list[_Found] = []
        for name, state in here.items():
            if self._taken.get(name) == state:
                continue
            before, since = self._changing.get(name, (state, started))
            if before != state:
                since = started
            if started - since >= self._options.settled:
                whole.append(_Found(state, name))
            else:
                changing[name] = (state, since)
        self._changing = changing
        self._whole.extend(sorted(whole))
        if len(self._taken) > len(here) + REMEMBERED:
            self._taken = {name: state for name, state in self._taken.items() if name in here}
        done = time.monotonic()
        self._pause = max(SHORTEST_PAUSE, self._options.settled / 4, 9 * (done - started))
        self._next_listing = done + self._pause

    def _listing(self) -> dict[str, State]:
        here: dict[str, State] = {}
        try:
            with os.scandir(self._options.path) as entries:
                for entry in entries:
                    if not self._wanted(entry.name):
                        continue
                    try:
                        status = entry.stat()
                    except FileNotFoundError:
                        continue  # renamed or removed while we looked: the next listing says
                    if stat.S_ISREG(status.st_mode):
                        here[entry.name] = (status.st_mtime_ns, status.st_size)
        except OSError as error:
            raise self._lost(f"the folder cannot be listed: {error.strerror}") from error
        return here

    def _wanted(self, name: str) -> bool:
        hidden = name.startswith(".") or name in HIDDEN or name.lower().endswith(UNFINISHED)
        return not hidden and fnmatch.fnmatchcase(name, self._options.pattern)

    def _identity(self) -> tuple[int, int]:
        try:
            status = self._options.path.stat()
        except OSError as error:
            raise self._lost(f"the folder cannot be reached: {error.strerror}") from error
        return status.st_dev, status.st_ino

    def _state(self, name: str) -> State | None:
        try:
            status = (self._options.path / name).stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size

    def _lost(self, why: str) -> CameraLost:
        return CameraLost(
            f"{why}.",
            where=f"view {self._view}, {self._options.path}",
            hint="Check that the folder is there, mounted, and may be read and written.",
        )

    # One file

    def _take(self, found: _Found) -> Frame:
        path = self._options.path / found.name
        pixels, damage = None, None
        try:
            pixels = read_image(path)
        except InspectionError as error:
            damage = error.what
            self._damaged += 1
        self._taken[found.name] = found.state
        self._number += 1
        self._handed = found
        serials = self._serials(path.stem)
        trigger = serials.get("trigger")
        if trigger is not None and not trigger.isdecimal():
            damage = damage or f"the name's group `trigger` is {trigger!r}, which is no number."
            trigger = None
        return Frame(
            pixels=pixels,
            number=self._number,
            received=time.monotonic(),
            trigger=int(trigger) if trigger else None,
            part=serials.get("part") or None,
            lot=serials.get("lot"),
            pixel_format=pixel_format(pixels),
            damage=damage,
            name=found.name,
        )

    def _serials(self, stem: str) -> dict[str, str]:
        if self._expression is None:
            return {}
        match = self._expression.search(stem)
        if match is None:
            self._unnamed += 1
            return {}
        said = {name: match[group] for name, group in self._groups.items() if match[group] is not None}
        if "part" in self._groups and not said.get("part"):
            self._unnamed += 1
        return said

    def _put_away(self) -> None:
        """Moves what was handed out. After the frame was given, so that a kill in between shows it twice, not never."""
        with self._moving:
            found, self._handed = self._handed, None
            if found is None or self._options.done is None:
                return
            source = self._options.path / found.name
            try:
                if self._state(found.name) == found.state:  # otherwise it is gone, or another image by now
                    move(source, self._options.done)
                    self._taken.pop(found.name, None)
            except OSError as error:  # judging goes on; the file stays, is not taken again, and is counted
                self._not_moved += 1
                self._not_moved_why = f"{found.name}: {error.strerror or error}"


def pixel_format(pixels: Pixels | None) -> str:
    """The PFNC name of decoded pixels: `Mono8`, `Mono16`, `RGB8`, `RGB16`; empty where there are none."""
    if pixels is None:
        return ""
    return f"{'Mono' if pixels.ndim == 2 else 'RGB'}{8 * pixels.dtype.itemsize}"


def move(source: Path, folder: Path) -> Path:
    """Moves a file into a folder under a name that nobody has there (`x.png`, `x-2.png`, ...). Raises OSError."""
    count = 1
    while True:
        target = folder / (source.name if count == 1 else f"{source.stem}-{count}{source.suffix}")
        try:
            os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY))  # ours now; nobody's file is replaced
            break
        except FileExistsError:
            count += 1
    try:
        os.replace(source, target)
    except OSError:
        try:
            shutil.copy2(source, target)  # `done` lies on another file system
        except OSError:
            target.unlink(missing_ok=True)
            raise
        source.unlink()
    return target
