"""From the journal into the database, in a thread of its own: one that is away, locked or slow holds up nobody."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

from inspection.control import Alarm
from inspection.record.chain import Entry, RecordInvalid, RecordUnavailable
from inspection.record.database import Database, End
from inspection.record.journal import Journal, Segment, segments

POLL = 0.1  # seconds between two looks at the journal
BATCH = 500  # verdicts in one transaction
RETRY_AT_MOST = 5.0  # seconds
FORGET_EVERY = 60.0  # seconds


class Storer:
    """Moves verdicts from the journal into the database, in order, each once; deletes segments that it has moved.

    Attributes:
        stored: sequence of the last verdict that the database has. failures: tries that failed.
        deleted: verdicts that were deleted because of their age. problem: why it is behind; None: it is not.
    """

    def __init__(
        self,
        journal: Journal,
        database: Database,
        *,
        line: str,
        alarm: Alarm,
        age: float | None,
        wall: Callable[[], float],
    ) -> None:
        self._journal, self._database, self._line, self._alarm = journal, database, line, alarm
        self._age, self._wall = age, wall
        self._segment: Segment | None = None
        self._known: End | None = None  # what the database said after it was reached
        self._gap = self._conflict = False
        self._batch: list[Entry] = []
        self._stop = threading.Event()
        self.stored = self.failures = self.deleted = 0
        self.problem: str | None = None
        self._thread = threading.Thread(target=self._run, name="record-storer", daemon=True)

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def close(self, timeout: float) -> None:
        """Stores what is left, for at most `timeout` seconds; the rest stays in the journal for the next start."""
        self._deadline = time.monotonic() + timeout
        self._stop.set()
        self._thread.join(timeout + 35)  # PostgreSQL may hold one statement for 30 s
        if self._segment is not None and not self._thread.is_alive():
            self._segment.close()
            self._database.close()

    def _run(self) -> None:
        pause = POLL
        forgotten = -FORGET_EVERY
        while True:
            last = self._stop.is_set()
            try:
                while self._step() and not (last and time.monotonic() > self._deadline):
                    pass
                if self._age is not None and time.monotonic() - forgotten > FORGET_EVERY:
                    forgotten = time.monotonic()
                    self._forget(self._age)
                pause, self.problem = POLL, None
            except (RecordUnavailable, RecordInvalid, OSError) as error:
                self.failures += 1
                self._known = None
                if self.problem is None:
                    self._alarm("record-database", f"Verdicts wait in the journal: {error}")
                self.problem = str(error)
                if last and time.monotonic() > self._deadline:
                    return
                pause = min(RETRY_AT_MOST, pause * 2)
            else:
                if last:
                    return
            if not last:
                self._stop.wait(pause)
            else:
                time.sleep(POLL)

    def _step(self) -> bool:
        """Moves one batch; whether there may be more."""
        if self._known is None:
            self._known = self._database.end(self._line)
            self.stored = self._known.sequence
            self._check(self._known)
        if not self._batch:
            self._batch = self._read()
        if not self._batch:
            return False
        new = [entry for entry in self._batch if entry.sequence > self.stored]
        if new:
            # The database is never ahead of the journal's disk: after a power cut the chain goes on from the journal.
            self._journal.sync()
            if new[0].sequence > self.stored + 1 and not self._gap:
                self._gap = True
                missing = f"{self.stored + 1} to {new[0].sequence - 1}"
                self._alarm(
                    "record-gap", f"Verdicts {missing} of the chain are neither in the database nor the journal."
                )
            self._database.store(self._line, new, [json.loads(entry.body) for entry in new])
            self.stored = new[-1].sequence
        self._batch = []
        return True

    def _read(self) -> list[Entry]:
        """The next verdicts of the journal, and then those that wait in memory for room on its disk."""
        batch: list[Entry] = []
        while True:
            newest = self._journal.index
            if self._segment is None:
                paths = segments(self._journal.folder)
                if not paths:
                    break
                self._segment = Segment(paths[0])
            for entry in self._segment.read():
                if entry.trigger is None:
                    batch.append(entry)
                    if len(batch) >= BATCH:
                        return batch
            if self._segment.index >= newest or self._journal.synced < newest:
                break
            if batch:
                return batch  # the segment goes only when these are in the database
            if self._segment.damaged:
                self._alarm("record-damaged", f"{self._segment.damaged} lines of {self._segment.path} are damaged.")
            self._journal.drop(self._segment)
            self._segment.close()
            self._segment = None
        if not batch:
            held = [entry for entry in self._journal.held() if entry.trigger is None and entry.sequence > self.stored]
            if held and held[0].sequence == self.stored + 1:  # otherwise some have just gone to the file
                batch = held[:BATCH]
        return batch

    def _check(self, end: End) -> None:
        """Alarms when the database holds other verdicts than this record: two records of one name, or an old copy."""
        state = self._journal.state
        if self._journal.waiting:  # the database may have what the file has not
            return
        other = end.sequence > state.sequence or (end.sequence == state.sequence and end.hash != state.head)
        if other and not self._conflict:
            self._conflict = True
            self._alarm(
                "record-conflict",
                f"The database holds verdict {end.sequence} of line `{self._line}`, and the journal ends otherwise at "
                f"{state.sequence}: another record writes under this name, or a folder was replaced.",
            )

    def _forget(self, age: float) -> None:
        before = datetime.fromtimestamp(max(0.0, self._wall() - age), UTC)
        while count := self._database.forget(self._line, before):
            self.deleted += count
