"""Messages that wait on disk until the other side has them.

A folder with numbered segments that are only ever appended to, and `position`: which record is the next to deliver. A
record is `length, CRC-32, JSON`. What is written is the kernel's at once and so survives SIGKILL; a record that was
half written then is dropped. A message leaves the spool after it was delivered, so that a kill in between repeats that
one and no other. Used by one thread at a time and by one process at a time (`flock`).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import struct
import zlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from inspection.errors import ConfigInvalid
from inspection.files import unwritable, write_all
from inspection.outputs.sink import Message

_HEAD = struct.Struct("<II")  # length and CRC-32 of the JSON behind it
_POSITION = struct.Struct("<QQI")  # segment and offset of the next record, CRC-32 of both
_LARGEST_SEGMENT = 1_000_000  # bytes; what was delivered leaves the disk in such pieces
_PIECES = 8  # a small spool has smaller segments: reaching its bound drops an eighth of it at most


class _Record(NamedTuple):
    segment: int
    offset: int
    length: int  # of the JSON


@dataclass(slots=True)
class _Segment:
    name: str
    size: int  # bytes of whole records


class Spool:
    """A bounded first-in-first-out queue of messages in a folder.

    Args:
        bound: bytes on disk, delivered records of segments that are not finished included.

    Attributes:
        damaged: records that could not be read, those that were torn or whose file was deleted included, since this
            object was made.

    Raises:
        OutputUnwritable: the folder cannot be made or read. ConfigInvalid: another process uses it.
    """

    def __init__(self, folder: str | Path, bound: int) -> None:
        self._folder = Path(folder)
        self._bound = bound
        self._segment_size = min(_LARGEST_SEGMENT, bound // _PIECES)
        self._segments: dict[int, _Segment] = {}  # in their order
        self._records: deque[_Record] = deque()
        self._number = 0  # of the newest segment
        self._writer = -1
        self._reader: tuple[int, int] | None = None  # segment, file
        self._unsynced = False
        self._home = -1  # the folder itself, wherever it is moved to or whatever is mounted over it; locked
        self.damaged = 0
        try:
            self._enter()
            self._recover()
        except BlockingIOError as error:
            self.close()
            raise ConfigInvalid(
                "another process delivers from this spool.",
                where=str(self._folder),
                hint="Stop it, or give this line another folder.",
            ) from error
        except OSError as error:
            self.close()
            raise unwritable(self._folder, error) from error

    def __len__(self) -> int:
        """How many messages wait."""
        return len(self._records)

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(segment.size for segment in self._segments.values())

    def append(self, message: Message) -> int:
        """Stores a message as the newest; returns how many had to go for it, the oldest first.

        One that alone is larger than the bound is dropped itself, with all before it.

        Raises:
            OSError: the disk is full or broken; nothing was stored. ValueError, TypeError: the body is not JSON.
        """
        payload = _encode(message)
        record = _HEAD.pack(len(payload), zlib.crc32(payload)) + payload
        before = len(self._records)
        while self._segments and self.size + len(record) > self._bound:
            self._drop_segment(next(iter(self._segments)))
        dropped = before - len(self._records)
        if len(record) > self._bound:
            return dropped + 1
        if self._writer >= 0 and self._segments[self._number].size + len(record) > self._segment_size:
            self._end_segment()
        if self._writer >= 0 and os.fstat(self._writer).st_nlink == 0:
            self._end_segment()  # somebody has deleted the file: what is written to it, a kill would undo
        if self._writer < 0:
            self._begin_segment()
        segment = self._segments[self._number]
        self._write(record, segment)
        self._records.append(_Record(self._number, segment.size, len(payload)))
        segment.size += len(record)
        self._unsynced = True
        return dropped

    def peek(self) -> Message | None:
        """The oldest message; None: nothing waits. Records that are damaged, and all of a segment whose file was
        deleted, are passed over and counted.

        Raises:
            OSError: the disk does not give it (no free file, an error of the medium); it stays the oldest.
        """
        while self._records:
            try:
                return _decode(self._read(self._records[0]))
            except FileNotFoundError:
                before = len(self._records)
                self._drop_segment(self._records[0].segment)
                self.damaged += before - len(self._records)
                continue
            except (ValueError, KeyError, TypeError, AttributeError):
                self.damaged += 1
            with contextlib.suppress(OSError):  # it is passed over again after a restart
                self.pop()
        return None

    def pop(self) -> None:
        """The oldest message has been delivered, or never will be.

        Raises:
            OSError: this could not be written down, and would be delivered again after a restart.
        """
        self._records.popleft()
        self._forget_finished()
        if self._records:
            segment, offset, _length = self._records[0]
        else:
            segment = self._number
            offset = self._segments[segment].size if segment in self._segments else 0
        numbers = _POSITION.pack(segment, offset, 0)[:-4]
        position = self._open("position", os.O_WRONLY | os.O_CREAT)
        try:
            os.pwrite(position, numbers + struct.pack("<I", zlib.crc32(numbers)), 0)
        finally:
            os.close(position)

    def sync(self) -> None:
        """Brings what was appended to the disk itself, against a power cut. Raises OSError."""
        if self._unsynced and self._writer >= 0:
            os.fdatasync(self._writer)
        self._unsynced = False

    def close(self) -> None:
        """Lets go of the folder; what waits stays there. May be called twice."""
        self._end_segment()
        self._stop_reading()
        if self._home >= 0:
            os.close(self._home)
        self._home = -1

    def _enter(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        home = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(home, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(home)
            raise
        before, self._home = self._home, home
        if before >= 0:
            os.close(before)

    def _open(self, name: str, flags: int) -> int:
        return os.open(name, flags | os.O_CLOEXEC, 0o644, dir_fd=self._home)

    def _recover(self) -> None:
        start = self._read_position()
        for path in sorted(self._folder.glob("*.spool")):
            if not path.stem.isdecimal():
                continue
            number, data = int(path.stem), path.read_bytes()
            self._segments[number] = _Segment(path.name, len(data))
            for offset, length in self._scan(data):
                if (number, offset) >= start:
                    self._records.append(_Record(number, offset, length))
        # A new segment: nothing is ever appended behind a torn record.
        self._number = max([start[0], *self._segments])
        self._forget_finished()

    def _scan(self, data: bytes) -> Iterator[tuple[int, int]]:
        """Offset and length of each sound record of a segment."""
        offset = 0
        while offset < len(data):
            head = data[offset : offset + _HEAD.size]
            length, crc = _HEAD.unpack(head) if len(head) == _HEAD.size else (len(data), 0)
            end = offset + _HEAD.size + length
            if end > len(data):
                self.damaged += 1
                return
            if zlib.crc32(memoryview(data)[offset + _HEAD.size : end]) == crc:
                yield offset, length
            else:
                self.damaged += 1
            offset = end

    def _read_position(self) -> tuple[int, int]:
        """Segment and offset; the very beginning where none can be read: better delivered twice than not at all."""
        try:
            written = (self._folder / "position").read_bytes()
        except FileNotFoundError:
            return 0, 0
        if len(written) != _POSITION.size:
            return 0, 0
        segment, offset, crc = _POSITION.unpack(written)
        return (segment, offset) if crc == zlib.crc32(written[:-4]) else (0, 0)

    def _read(self, record: _Record) -> bytes:
        if self._reader is None or self._reader[0] != record.segment:
            self._stop_reading()
            self._reader = (record.segment, self._open(self._segments[record.segment].name, os.O_RDONLY))
        data = os.pread(self._reader[1], _HEAD.size + record.length, record.offset)
        payload = data[_HEAD.size :]
        if data[: _HEAD.size] != _HEAD.pack(record.length, zlib.crc32(payload)):
            raise ValueError("the record was overwritten")
        return payload

    def _begin_segment(self) -> None:
        number = self._number + 1
        name = f"{number:020d}.spool"
        try:
            self._writer = self._open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        except FileNotFoundError:  # the folder itself was deleted
            self._enter()
            self._writer = self._open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        self._number = number
        self._segments[number] = _Segment(name, 0)

    def _end_segment(self) -> None:
        if self._writer >= 0:
            os.close(self._writer)
        self._writer = -1

    def _write(self, record: bytes, segment: _Segment) -> None:
        try:
            write_all(self._writer, record)
        except OSError:
            try:
                os.ftruncate(self._writer, segment.size)
                os.lseek(self._writer, segment.size, os.SEEK_SET)
            except OSError:
                self._end_segment()  # its torn end is dropped at the next start
            raise

    def _drop_segment(self, number: int) -> None:
        """Lets go of the oldest segment, with what waits in it."""
        while self._records and self._records[0].segment == number:
            self._records.popleft()
        if number == self._number:
            self._end_segment()
        self._forget(number)

    def _forget_finished(self) -> None:
        """Deletes segments whose every record was delivered, except the one that is being written."""
        first = self._records[0].segment if self._records else self._number + 1
        for number in [n for n in self._segments if n < first and not (n == self._number and self._writer >= 0)]:
            self._forget(number)

    def _forget(self, number: int) -> None:
        if self._reader is not None and self._reader[0] == number:
            self._stop_reading()
        with contextlib.suppress(OSError):  # what cannot be deleted is found, and delivered again, at the next start
            os.unlink(self._segments.pop(number).name, dir_fd=self._home)

    def _stop_reading(self) -> None:
        if self._reader is not None:
            os.close(self._reader[1])
        self._reader = None


def _encode(message: Message) -> bytes:
    plain = {"kind": message.kind, "sequence": message.sequence, "wall": message.wall, "body": message.body}
    return json.dumps(plain, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _decode(payload: bytes) -> Message:
    plain = json.loads(payload)
    return Message(kind=plain["kind"], sequence=plain["sequence"], wall=plain["wall"], body=plain["body"])
