"""The record of a line: every verdict, whatever happens, and the images that the policy names."""

from __future__ import annotations

import fcntl
import importlib.metadata
import json
import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from inspection.control import Alarm
from inspection.errors import OutputUnwritable
from inspection.parts import Frame, PartResult, Trigger
from inspection.record.chain import Entry, RecordInUse, RecordInvalid, RecordUnavailable, canonical, link
from inspection.record.database import Database, End, locate
from inspection.record.folder import Sign, read_sign, write_sign
from inspection.record.images import ImageKeeper
from inspection.record.journal import Journal, State
from inspection.record.options import RecordOptions
from inspection.record.storing import Storer
from inspection.results import Verdict

SYNC_EVERY = 1.0  # seconds of verdicts that a power cut may take; SIGKILL takes none
RETRY_EVERY = 0.2  # seconds between two tries to write what found no room
PACKAGES = ("lightsout-inspection", "onnxruntime", "numpy", "opencv-python-headless")


class Record:
    """Keeps the record of one line. Thread-safe; only the constructor and `close` wait for a disk or a database.

    Attributes:
        interrupted: the parts that were in flight when the line was killed, as `PartResult.to_dict` with their `hash`.
            Each has its verdict now, `ERROR` with the code `interrupted`, for the line to report.
    """

    def __init__(
        self, options: RecordOptions, *, line: str, alarm: Alarm, wall: Callable[[], float] = time.time
    ) -> None:
        """Opens the record, or makes it, and ends what a kill has left open.

        Args:
            line: its name; several lines may share a PostgreSQL database. alarm: called from threads of the record.
            wall: seconds since 1970, for the age of what is kept.

        Raises:
            RecordInUse: another process writes it. RecordInvalid: it is of a newer version, or another line's.
            RecordUnavailable: the folder is new, and the database, which may know earlier verdicts, does not answer.
            OutputUnwritable: the folder cannot be written. ConfigInvalid, MissingExtra: the database's URL.
        """
        self.folder = options.folder.absolute()
        self._line, self._alarm = line, alarm
        self._lock = threading.Lock()
        self._versions = _versions()
        database = Database(locate(self.folder, database=options.database), write=True)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._guard = _claim(self.folder)
            try:
                _sign(self.folder, line, options.database)
                self._journal = Journal(self.folder / "journal")
                state = self._state(database)
                self._journal.begin(state)
            except BaseException:
                os.close(self._guard)
                raise
        except OSError as error:
            raise OutputUnwritable(
                f"the record cannot be written: {error.strerror or error}.",
                where=str(self.folder),
                hint="Choose a folder that can be written and has room.",
            ) from error
        self._number, self._sequence, self._head = state.number, state.sequence, state.head
        self._open = set(state.open)
        self._triggered = self._decided = 0
        self._closed = self._stuck = False
        self._images = ImageKeeper(self.folder / "images", options.images, alarm=alarm, wall=wall)
        self._storer = Storer(self._journal, database, line=line, alarm=alarm, age=options.age, wall=wall)
        self.interrupted = self._interrupt(state)
        self._stop = threading.Event()
        self._tender = threading.Thread(target=self._tend, name="record-journal", daemon=True)
        self._tender.start()
        self._images.start()
        self._storer.start()

    @property
    def next_number(self) -> int:
        """The number of the next trigger: one more than any that this record has seen."""
        return self._number + 1

    @property
    def head(self) -> str:
        """The hash of the last verdict; who keeps it elsewhere can prove later that nothing was cut off after it."""
        return self._head

    def triggered(self, trigger: Trigger) -> None:
        """Notes that a part has come by, before anything else is done with it. Raises RecordInvalid."""
        text = canonical(
            {
                "part": trigger.part,
                "lot": trigger.lot,
                "product": trigger.product,
                "encoder": trigger.encoder,
                "triggered": trigger.wall,
            }
        )
        with self._lock:
            if trigger.number <= self._number or self._closed:
                raise RecordInvalid(
                    f"trigger {trigger.number} cannot be noted: "
                    + ("the record is closed." if self._closed else f"{self._number} was given already."),
                    where=str(self.folder),
                )
            self._number = trigger.number
            self._open.add(trigger.number)
            self._triggered += 1
            self._journal.append(Entry(number=trigger.number, trigger=text))
            self._say_stuck()

    def decided(self, result: PartResult, frames: Mapping[str, Frame]) -> str:
        """Keeps the verdict, and the images where the policy says so; returns the verdict's hash.

        When it returns, the verdict survives SIGKILL, unless the disk takes nothing (`buffered` in the counters). The
        frames' arrays must not change afterwards.

        Raises:
            RecordInvalid: there is no such trigger, or it has its verdict already.
        """
        images = self._images.reserve(result, frames)
        try:
            hash_ = self._keep(result.to_dict() | {"images": images})
        except BaseException:
            if images is not None:
                self._images.release()
            raise
        if images is not None:
            self._images.put(images, result, frames, hash_)
        return hash_

    def counters(self) -> dict[str, int]:
        """What was done since the start, and what waits.

        `waiting` verdicts are in the journal and not yet in the database; `buffered` lines are in memory only, because
        the disk takes none; `lost` lines found no room there either.
        """
        with self._lock:
            sequence, counts = self._sequence, {"triggered": self._triggered, "decided": self._decided}
        images = self._images
        return counts | {
            "interrupted": len(self.interrupted),
            "stored": self._storer.stored,
            "waiting": max(0, sequence - self._storer.stored),
            "buffered": self._journal.waiting,
            "lost": self._journal.lost,
            "damaged": self._journal.damaged,
            "database_failures": self._storer.failures,
            "deleted": self._storer.deleted,
            "images_parts": images.parts,
            "images_files": images.files,
            "images_bytes": images.bytes,
            "images_waiting": images.waiting,
            "images_skipped": images.skipped,
            "images_failed": images.failed,
            "images_deleted": images.shelf.deleted,
            "images_on_disk": images.shelf.bytes,
        }

    def close(self, timeout: float = 10.0) -> None:
        """Writes what waits, for about `timeout` seconds at most; what the database lacks stays in the journal."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._images.close(timeout)
        self._stop.set()
        self._tender.join()
        self._storer.close(timeout)
        self._journal.close()
        os.close(self._guard)

    def _keep(self, body: dict[str, Any]) -> str:
        number = body["number"]
        text = canonical(body | {"line": self._line, "versions": self._versions})
        with self._lock:
            if number not in self._open:
                raise RecordInvalid(
                    f"verdict {number} cannot be kept: the trigger is unknown, or has its verdict already.",
                    where=str(self.folder),
                )
            self._open.remove(number)
            previous, self._head = self._head, link(self._head, text)
            self._sequence += 1
            self._decided += 1
            self._journal.append(
                Entry(number=number, body=text, sequence=self._sequence, previous=previous, hash=self._head)
            )
            self._say_stuck()
            return self._head

    def _say_stuck(self) -> None:
        """Alarms once that the disk does not answer; here, because the thread that tends the journal waits for it."""
        if self._journal.stuck and not self._stuck:
            self._alarm(
                "record-journal",
                f"The disk of {self.folder} does not answer; verdicts wait in memory, and a kill now would lose them.",
            )
        self._stuck = self._journal.stuck

    def _state(self, database: Database) -> State:
        """Where to go on: the journal's end, or the database's where that is further (a journal that was cut)."""
        state = self._journal.state
        for number in self._journal.unwritten:
            state.number = number
            state.open[number] = canonical({"part": str(number), "product": "", "triggered": 0.0})
        try:
            end = database.end(self._line)
            judged = database.judged(self._line, list(state.open))
        except RecordUnavailable:
            if self._journal.fresh:
                raise
            end, judged = End(), set()
        if end.sequence > state.sequence:
            state.sequence, state.head = end.sequence, end.hash
            state.number = max(state.number, end.number)
        state.open = {number: text for number, text in state.open.items() if number not in judged}
        return state

    def _interrupt(self, state: State) -> list[dict[str, Any]]:
        """Gives an ERROR to every part that has no verdict."""
        bodies = []
        for number, text in sorted(state.open.items()):
            known = json.loads(text)
            body = {
                "number": number,
                "part": known["part"],
                "lot": known.get("lot"),
                "product": known["product"],
                "encoder": known.get("encoder"),
                "verdict": Verdict.ERROR.value,
                "kind": None,
                "reason": "The line was killed before this part's verdict was kept.",
                "code": "interrupted",
                "triggered": known["triggered"],
                "seconds": {},
                "recipe": "",
                "recipe_hash": "",
                "models": {},
                "views": [],
            }
            bodies.append(body | {"hash": self._keep(body | {"images": None})})
        self._decided = 0
        return bodies

    def _tend(self) -> None:
        """Brings the journal to the disk, and says when it cannot be written."""
        alarmed = False
        lost = 0
        while not self._stop.wait(RETRY_EVERY if self._journal.waiting else SYNC_EVERY):
            self._journal.tend()
            failure = self._journal.failure if self._journal.waiting else self._journal.unsynced
            if failure is not None and not alarmed:
                self._alarm(
                    "record-journal",
                    f"The journal in {self.folder} cannot be written, verdicts wait in memory: "
                    f"{failure.strerror or failure}.",
                )
            alarmed = failure is not None
            if self._journal.lost > lost:
                lost = self._journal.lost
                self._alarm("record-lost", f"{lost} lines of the record found no room on the disk nor in memory.")


def _claim(folder: os.PathLike[str]) -> int:
    """Locks the folder for this process; the kernel lets go when it ends, however it ends."""
    guard = os.open(os.path.join(folder, "lock"), os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.pread(guard, 20, 0).decode("ascii", "replace").strip()
        os.close(guard)
        raise RecordInUse(
            f"another process (pid {holder}) writes this record.",
            where=str(folder),
            hint="Stop it, or give this line a folder of its own.",
        ) from error
    os.pwrite(guard, f"{os.getpid():<20}".encode(), 0)
    return guard


def _sign(folder: os.PathLike[str], line: str, database: str | None) -> None:
    """Notes whose record this is and where its database is, for the commands that read it."""
    known = read_sign(folder)
    if known is not None and known.line != line:
        raise RecordInvalid(
            f"this is the record of the line `{known.line}`, not of `{line}`.",
            where=str(folder),
            hint="Give each line a folder of its own.",
        )
    write_sign(folder, Sign(line=line, database=database))


def _versions() -> dict[str, str]:
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue  # onnxruntime has other names for other devices
    return versions
