"""Writes a recording (see `inspection.cameras.recording`) beside a running line.

Frames are stored raw, because that costs least where cores are needed for judging; `python -m benchmarks.recording`
prints it against PNG and NumPy's own format.
"""

from __future__ import annotations

import dataclasses
import json
import queue
import threading
import time
import zlib
from collections.abc import Callable
from enum import StrEnum
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from inspection.cameras.recording import (
    ABOUT,
    DTYPES,
    EVENTS,
    FORMAT,
    FRAME_FIELDS,
    PIXELS,
    TRIGGER_FIELDS,
    VIEW_NAME,
    Event,
    FrameEvent,
    LostEvent,
    ResultEvent,
    TriggerEvent,
    plain,
)
from inspection.control import Alarm
from inspection.errors import ConfigInvalid, OutputUnwritable
from inspection.files import unwritable, write_all, write_text
from inspection.parts import Frame, PartResult, Trigger
from inspection.pixels import Pixels

LINES = 100_000  # events without pixels that may wait for the disk: hours of them
END = 300  # bytes that are kept free for the last line
COUNTERS = {"trigger": "triggers", "frame": "frames", "lost": "losses", "result": "results"}  # by event


class RecorderState(StrEnum):
    """What became of a recording."""

    RECORDING = "recording"
    CLOSED = "closed"  # ended by who started it
    FULL = "full"  # its limit of bytes is reached
    BEHIND = "behind"  # the disk is so slow that not even triggers and verdicts could be kept
    FAILED = "failed"  # the disk took no more, say: `problem` says why


WHY = {
    RecorderState.FULL: "it has reached its limit, and what the line sees from now on is not kept.",
    RecorderState.BEHIND: "the disk was too slow, and what the line sees from now on is not kept.",
}


class Recorder:
    """Writes what a line sees, and never holds it up.

    `trigger`, `frame`, `lost` and `result` may be called by any thread; the order of the calls is the order of the
    recording. They put a reference into a queue and return, so frames must not be changed afterwards. However it ends,
    the end is one cut: all that was taken before it is there, in order, and nothing that came after it.

    Attributes:
        state: what became of it. problem: set where it is `FAILED`.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        limit: int,
        waiting: int = 64,
        about: dict[str, Any] | None = None,
        clock: Callable[[], float] = time.monotonic,
        alarm: Alarm = lambda _code, _what: None,
    ) -> None:
        """Starts recording.

        Args:
            folder: made here; must not hold a recording.
            limit: bytes that it may take on disk; before it would take more, it ends as `FULL`.
            waiting: frames that may wait for the disk. A further one is recorded without its pixels, as a frame with
                `damage`, and counted as `not_recorded`: a replay then says ERROR and shifts no frame to another part.
            about: plain values that say what was recorded: line, recipe and its hash, software version.
            clock: of `Trigger.at`, `Frame.received` and `PartResult.decided`.
            alarm: told once, on the thread that writes, where it ends as anything but `CLOSED`.

        Raises:
            ConfigInvalid: the folder holds a recording. OutputUnwritable.
        """
        self.folder = Path(folder)
        self.state = RecorderState.RECORDING
        self.problem: OutputUnwritable | None = None
        if (self.folder / EVENTS).exists() or (self.folder / ABOUT).exists():
            raise ConfigInvalid(
                "the folder holds a recording already.",
                where=str(folder),
                hint="Name a new folder, or delete this one.",
            )
        head = {"format": FORMAT, "started": time.time(), "about": about or {}}
        write_text(self.folder / ABOUT, json.dumps(head, indent=2, default=plain) + "\n")
        self._files: dict[str, FileIO] = {}
        try:
            self._bytes = (self.folder / ABOUT).stat().st_size
            self._open(EVENTS)
        except OSError as error:
            raise unwritable(self.folder / EVENTS, error) from error
        self._limit = limit
        self._alarm, self._said = alarm, False
        self._frames_may_wait = waiting
        self._origin = clock()
        self._queue: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._frames_waiting = 0
        self._counts = dict.fromkeys((*COUNTERS.values(), "not_recorded"), 0)
        self._lock = threading.Lock()  # over the order of the queue, the counters and the state
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    def trigger(self, trigger: Trigger) -> None:
        """A part came by."""
        self._put(TriggerEvent(offset=trigger.at - self._origin, trigger=trigger))

    def frame(self, view: str, frame: Frame) -> None:
        """A frame arrived; damaged ones too. Raises ConfigInvalid where the view's name cannot be a file's."""
        _check(view)
        self._put(FrameEvent(offset=frame.received - self._origin, view=view, frame=frame))

    def lost(self, view: str, reason: str, at: float) -> None:
        """A camera went or came back: frames of the triggers so far will not come. Raises ConfigInvalid as `frame`."""
        _check(view)
        self._put(LostEvent(offset=at - self._origin, view=view, reason=reason))

    def result(self, result: PartResult) -> None:
        """A part has its verdict."""
        self._put(ResultEvent(offset=result.decided - self._origin, body=result.to_dict()))

    def close(self) -> None:
        """Writes what waits, and ends the recording. May be called twice."""
        self._queue.put(None)
        self._thread.join()

    def counters(self) -> dict[str, int]:
        """`triggers`, `frames`, `losses`, `results` that were written; frames `not_recorded`; `waiting`; `bytes` on
        disk."""
        with self._lock:
            return {**self._counts, "waiting": self._queue.qsize(), "bytes": self._bytes}

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _put(self, event: Event) -> None:
        with self._lock:
            if self.state is not RecorderState.RECORDING:
                return
            if self._queue.qsize() >= LINES:
                self.state = RecorderState.BEHIND
                return
            if isinstance(event, FrameEvent) and event.frame.pixels is not None:
                if self._frames_waiting < self._frames_may_wait:
                    self._frames_waiting += 1
                else:
                    self._counts["not_recorded"] += 1
                    damage = "not recorded: the disk was slower than the cameras."
                    event = dataclasses.replace(
                        event, frame=dataclasses.replace(event.frame, pixels=None, damage=damage)
                    )
            self._queue.put(event)

    # The thread that writes

    def _run(self) -> None:
        try:
            while (event := self._queue.get()) is not None:
                # BEHIND: the cut lies at the end of the queue, and what is in it is still written.
                if self.state in (RecorderState.RECORDING, RecorderState.BEHIND):
                    self._write(event)
                self._say_end()
            with self._lock:
                if self.state is RecorderState.RECORDING:
                    self.state = RecorderState.CLOSED
                end = {"event": "end", "state": self.state, **self._counts}
            self._append(EVENTS, _line(end))
        except OSError as error:
            self.problem = unwritable(self.folder, error)
        except Exception as error:  # noqa: BLE001 - whatever it is: the line goes on, and is told
            self.problem = OutputUnwritable(f"an event cannot be written: {error!r}.", where=str(self.folder))
        finally:
            with self._lock:
                if self.problem or self.state is RecorderState.RECORDING:
                    self.state = RecorderState.FAILED
            self._say_end()
            for file in self._files.values():
                file.close()

    def _say_end(self) -> None:
        """Tells a person, once, that the recording has ended before its time."""
        if self._said or self.state in (RecorderState.RECORDING, RecorderState.CLOSED):
            return
        self._said = True
        self._alarm("recording-ended", f"{self.folder} is {self.state}: {self.problem or WHY[self.state]}")

    def _write(self, event: Event) -> None:
        line, raw, name = _fields(event), None, ""
        if isinstance(event, FrameEvent) and (pixels := event.frame.pixels) is not None:
            raw, name = _raw(pixels), f"{event.view}{PIXELS}"
            line["pixels"] = {
                "at": self._open(name).tell(),
                "shape": pixels.shape,
                "dtype": pixels.dtype.name,
                "crc32": zlib.crc32(raw),
            }
        text = _line(line)
        size = len(text) + (0 if raw is None else raw.nbytes)
        if self._bytes + size + END > self._limit:
            with self._lock:
                self.state = RecorderState.FULL
            return
        if raw is not None:
            self._append(name, raw)
        self._append(EVENTS, text)
        with self._lock:
            self._frames_waiting -= raw is not None
            self._counts[COUNTERS[line["event"]]] += 1

    def _open(self, name: str) -> FileIO:
        if name not in self._files:
            self._files[name] = FileIO(self.folder / name, "xb")
        return self._files[name]

    def _append(self, name: str, data: bytes | memoryview) -> None:
        self._bytes += write_all(self._files[name].fileno(), data)


def _fields(event: Event) -> dict[str, Any]:
    match event:
        case TriggerEvent(offset=offset, trigger=trigger):
            kind, values = "trigger", {name: getattr(trigger, name) for name in TRIGGER_FIELDS}
        case FrameEvent(offset=offset, frame=frame):
            kind, values = "frame", {name: getattr(frame, name) for name in FRAME_FIELDS}
            values |= {"view": event.view, "pixels": None}
        case LostEvent(offset=offset, view=view, reason=reason):
            kind, values = "lost", {"view": view, "reason": reason}
        case ResultEvent(offset=offset, body=body):
            kind, values = "result", {"result": body}
    return {"event": kind, "offset": offset, **values}


def _check(view: str) -> None:
    if not VIEW_NAME.fullmatch(view):
        raise ConfigInvalid(f"{view!r} is no view's name.", hint="Use letters, digits, `_`, `.` and `-`.")


def _line(values: dict[str, Any]) -> bytes:
    return json.dumps(values, separators=(",", ":"), default=plain).encode() + b"\n"


def _raw(pixels: Pixels) -> memoryview:
    """The bytes as they are stored: row by row, low byte first. No copy where they lie so already."""
    return np.ascontiguousarray(pixels, dtype=DTYPES[pixels.dtype.name]).reshape(-1).view(np.uint8).data
