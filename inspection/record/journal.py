"""The journal: what happened, appended line by line, before anything else knows of it.

A line is with the kernel when `append` returns, so SIGKILL loses nothing. Should the disk not answer, it returns after
`PATIENCE` all the same, for a part's deadline does not wait for a disk, and `stuck` says so. `sync` (a background
thread, about once a second, and before the database gets a row) brings lines to the disk, for power cuts. They lie in
numbered segments. Each begins with a header that states all that is known up to there (last number, end of the chain,
triggers without verdict), so a start reads one segment only, and the ones before it may go as soon as the database has
them.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from inspection.record.chain import GENESIS, Entry, RecordInvalid, read_entry

FORMAT = 1
SEGMENT = 8_000_000  # bytes; `python -m benchmarks.record` says how many a verdict takes
MEMORY = 256_000_000  # bytes of lines that may wait in memory for room on the disk: days of verdicts at one a second
PATIENCE = 0.05  # seconds that `append` waits for the kernel to take a line, which takes some microseconds
CHUNK = 1 << 20
KEEP_SIZE = 1  # FALLOC_FL_KEEP_SIZE of fallocate(2)
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(slots=True)
class State:
    """What the lines up to some point come to.

    Attributes:
        number: of the last trigger. sequence, head: of the last verdict.
        open: the triggers without a verdict, as JSON text by number.
    """

    number: int = 0
    sequence: int = 0
    head: str = GENESIS
    open: dict[int, str] = field(default_factory=dict)

    def apply(self, entry: Entry) -> None:
        """Takes one more line into account."""
        if entry.trigger is not None:
            self.number = max(self.number, entry.number)
            self.open[entry.number] = entry.trigger
        else:
            self.sequence, self.head = entry.sequence, entry.hash
            self.number = max(self.number, entry.number)
            self.open.pop(entry.number, None)

    def header(self) -> bytes:
        """As the first line of a segment."""
        values = {"journal": FORMAT, "last": self.number, "sequence": self.sequence, "head": self.head}
        values["open"] = {str(number): json.loads(text) for number, text in self.open.items()}
        return json.dumps(values).encode("ascii") + b"\n"


class Segment:
    """One file of the journal, read from the front; `read` goes on where the last one ended.

    It stays readable after it was deleted, which is how a reader follows a line that is running.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.index = int(path.stem)
        self.damaged = 0
        self.header: State | None = None
        self._file = os.open(path, os.O_RDONLY)
        self._offset = 0

    def read(self) -> Iterator[Entry]:
        """The whole lines that are there and were not read yet; a torn one at the end is left for the next time."""
        rest = b""
        while chunk := os.pread(self._file, CHUNK, self._offset + len(rest)):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                first = self._offset == 0
                self._offset += len(line) + 1
                if first:
                    self.header = _read_header(line, self.path)
                    self.damaged += self.header is None
                elif entry := read_entry(line):
                    yield entry
                else:
                    self.damaged += 1

    def close(self) -> None:
        """Lets go of the file."""
        os.close(self._file)


class Journal:
    """Writes the journal in `folder`. Thread-safe.

    Attributes:
        stuck: the kernel has not taken a line for longer than `PATIENCE`; lines wait in memory.
        state: what stands in the files. waiting: lines that wait in memory. lost: lines for which there was no room
            in memory either. damaged: lines that could not be read at start.
        failure: why lines wait; None: they do not. unsynced: why the last `sync` failed.
    """

    def __init__(self, folder: Path, *, segment: int = SEGMENT, memory: int = MEMORY) -> None:
        """Reads what is there. Call `begin` before anything is appended. Raises RecordInvalid, OSError."""
        self.folder = folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self._segment, self._memory = segment, memory
        self._lock = threading.Lock()  # over the lines that wait; nothing slow is done with it
        self._news = threading.Condition(self._lock)
        self._taken = threading.Condition(self._lock)
        self._writing = threading.Lock()  # over the file and the state
        self._rotating = threading.Lock()
        self._pen = threading.Thread(target=self._write_on, name="record-pen", daemon=True)
        self._closed = False
        self._appended = self._written = 0
        self.stuck = False
        self._lines: deque[tuple[bytes, Entry]] = deque()
        self._bytes = 0
        self._file = self._offset = -1
        self.index = 0
        self.synced = 0  # the segment whose header is known to be on the disk
        self.lost = 0
        self.failure: OSError | None = None
        self.unsynced: OSError | None = None
        self.state, self.fresh, self.damaged = self._recover()
        self._number = os.open(folder / "number", os.O_RDWR | os.O_CREAT, 0o666)
        noted = os.pread(self._number, 20, 0)
        # Numbers that were given while no line could be written: nothing else is known of them.
        self.unwritten = range(self.state.number + 1, (int(noted) if noted.isdigit() else 0) + 1)
        if not noted:
            os.pwrite(self._number, b"%020d" % 0, 0)

    @property
    def waiting(self) -> int:
        return len(self._lines)

    def begin(self, state: State) -> None:
        """Opens a new segment that goes on from `state`; on a full disk lines wait in memory. Raises OSError."""
        self.state = state
        try:
            self._rotate()
        except OSError as error:
            if error.errno not in FULL:
                raise
            self.failure = error
        self._pen.start()

    def append(self, entry: Entry) -> None:
        """Hands one line to the kernel. Never raises, never waits for long: what cannot be written now waits in memory,
        up to a bound."""
        line = entry.line()
        with self._lock:
            if self._bytes + len(line) > self._memory:
                self.lost += 1
                return
            self._lines.append((line, entry))
            self._bytes += len(line)
            self._appended += 1
            own = self._appended
            if self.failure is None and not self.stuck:
                self._news.notify()
                over = self._taken.wait_for(lambda: self._written >= own or self.failure is not None, PATIENCE)
                self.stuck = not over
            if self.failure is not None and self._written < own and entry.trigger is not None:
                # In place: a full disk takes it, and the number is not given twice after a kill.
                with contextlib.suppress(OSError):
                    os.pwrite(self._number, b"%020d" % entry.number, 0)

    def tend(self) -> None:
        """What a background thread does now and then: lines that wait, the next segment, the disk."""
        if self.stuck:
            return
        if self._lines and not self._flush():
            with contextlib.suppress(OSError):  # this file takes no more, perhaps another one does
                self._rotate()
                self._flush()
        elif self._offset > self._segment:
            with contextlib.suppress(OSError):
                self._rotate()
        self.sync()

    def sync(self) -> None:
        """Returns when all that `append` has written is on the disk, or with `unsynced` set."""
        with self._rotating:
            self._sync(self._file, self.index)

    def held(self) -> list[Entry]:
        """The lines that wait in memory."""
        with self._lock:
            return [entry for _, entry in self._lines]

    def drop(self, segment: Segment) -> None:
        """Deletes a segment that nobody needs any more; one with damaged lines is kept under another name."""
        if segment.damaged:
            segment.path.replace(segment.path.with_suffix(".damaged"))
        else:
            segment.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Writes what waits, if there is room, and lets go."""
        if self._lines:
            self.tend()
        with self._lock:
            self._closed = True
            self._news.notify()
        self._pen.join(10.0)
        self.sync()
        with self._rotating, self._writing:
            if self._file >= 0:
                os.close(self._file)
            os.close(self._number)
            self._file = -1

    def _write(self, line: bytes, entry: Entry) -> bool:
        # At an own offset instead of O_APPEND: what a write left half done is overwritten by the next one.
        try:
            whole = os.pwrite(self._file, line, self._offset) == len(line)
        except OSError as error:
            self.failure, whole = error, False
        if whole:
            self._offset += len(line)
            self.state.apply(entry)
            self.failure = None
        elif self.failure is None:
            self.failure = OSError("only a part of the line was written")
        return whole

    def _write_on(self) -> None:
        """The pen: writes lines as they come. After a failure `tend` tries again, not it."""
        while True:
            with self._lock:
                self._news.wait_for(lambda: self._closed or (bool(self._lines) and self.failure is None))
                if self._closed:
                    return
            self._flush()

    def _flush(self) -> bool:
        """Writes lines that wait, in order; whether none is left."""
        with self._writing:
            while True:
                with self._lock:
                    if not self._lines:
                        return True
                    line, entry = self._lines[0]
                whole = self._write(line, entry)
                with self._lock:
                    if whole:
                        self._lines.popleft()
                        self._bytes -= len(line)
                        self._written += 1
                        self.stuck = False
                    self._taken.notify_all()
                if not whole:
                    return False

    def _rotate(self) -> None:
        with self._rotating:
            index = self.index + 1
            path = self.folder / f"{index:08d}.jsonl"
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
            # Room for the whole segment is taken now: a disk that others fill does not stop it in the middle.
            _libc.fallocate(file, KEEP_SIZE, ctypes.c_long(0), ctypes.c_long(self._segment))
            with self._writing:
                header = self.state.header()
                try:
                    if os.pwrite(file, header, 0) != len(header):
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                except OSError:
                    os.close(file)
                    path.unlink()
                    raise
                old, self._file, self._offset, self.index = self._file, file, len(header), index
            if old >= 0:
                self._sync(old, index - 1)
                os.close(old)
            folder = os.open(self.folder, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
            self._sync(file, index)

    def _sync(self, file: int, index: int) -> None:
        if file < 0:
            return
        try:
            os.fdatasync(file)
            self.synced, self.unsynced = index, None
        except OSError as error:
            self.unsynced = error

    def _recover(self) -> tuple[State, bool, int]:
        """The state at the end, from the newest header that can be read; whether there is none; damaged lines."""
        paths = segments(self.folder)
        self.index = int(paths[-1].stem) if paths else 0
        newer: list[Entry] = []  # of segments whose header is damaged
        damaged = 0
        for path in reversed(paths):
            segment = Segment(path)
            try:
                newer = [*segment.read(), *newer]
            finally:
                segment.close()
            damaged += segment.damaged
            if segment.header is not None:
                for entry in newer:
                    segment.header.apply(entry)
                return segment.header, False, damaged
        state = State()
        for entry in newer:
            state.apply(entry)
        return state, not newer, damaged


def segments(folder: Path) -> list[Path]:
    """The files of a journal, oldest first."""
    return sorted(folder.glob("[0-9]*.jsonl"))


def _read_header(line: bytes, path: Path) -> State | None:
    try:
        values = json.loads(line)
        if values["journal"] > FORMAT:
            raise RecordInvalid(
                f"the journal is of version {values['journal']}, and this program reads up to {FORMAT}.",
                where=str(path),
                hint="Use the newer version of the program that wrote it.",
            )
        opened = {int(number): json.dumps(trigger) for number, trigger in values["open"].items()}
        return State(values["last"], values["sequence"], values["head"], opened)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


_libc = ctypes.CDLL(None, use_errno=True)
