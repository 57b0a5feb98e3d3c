"""What was seen once, seen again: recordings at their own takt, faster, or as fast as it goes, and folders of images.

`events` plays a whole recording to a line: triggers and what all cameras did, in their recorded order. `ReplayCamera`
stands in for one camera.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from inspection.cameras.camera import CameraEnded, CameraLost
from inspection.cameras.folder import pixel_format
from inspection.cameras.options import ReplayOptions
from inspection.cameras.recording import (
    FrameEvent,
    LostEvent,
    Recording,
    ResultEvent,
    TriggerEvent,
    check_memory,
    is_recording,
)
from inspection.errors import ConfigInvalid, InspectionError
from inspection.files import find_images
from inspection.parts import Frame
from inspection.pixels import read_image

Clock = Callable[[], float]


class ReplayClock:
    """Brings a recording's offsets back onto a clock.

    Order goes before time: what comes after another event in a recording is never due before it, also where its offset
    is lower (threads stamp their events before they agree on an order).
    """

    def __init__(self, speed: float | None = 1.0, clock: Clock = time.monotonic) -> None:
        """Args: speed: 1 its own takt, 2 twice as fast, None: everything is due at once. It starts now."""
        self._speed = speed
        self._clock = clock
        self._latest = 0.0
        self._origin = self._paused = clock()

    def due(self, offset: float) -> float:
        """When, on the clock, the next event comes by; `offset` is its seconds after the recording's start."""
        if self._speed is None:
            return self._clock()
        self._latest = max(self._latest, offset)
        return self._origin + self._latest / self._speed

    def pause(self) -> None:
        """Time stands still until `resume`."""
        self._paused = self._clock()

    def resume(self) -> None:
        """Goes on from where it was paused."""
        self._origin += self._clock() - self._paused


def events(
    recording: Recording,
    speed: float | None = 1.0,
    *,
    clock: Clock = time.monotonic,
    sleep: Callable[[float], object] = time.sleep,
) -> Iterator[TriggerEvent | FrameEvent | LostEvent]:
    """A recording's triggers, frames and lost cameras, in exactly their recorded order, each when it is due.

    `Trigger.at` and `Frame.received` are the moments on `clock` at which they were due; all else, `offset` too, is as
    it was recorded, to the bit. A consumer that is slower than `speed` gets the rest without pauses.

    Args:
        speed: 1 its own takt, 2 twice as fast, None as fast as they are taken.
        sleep: waits so many seconds; give `Event.wait` to be woken early.
    """
    pace = ReplayClock(speed, clock)
    for event in recording.events():
        if isinstance(event, ResultEvent):
            continue
        due = pace.due(event.offset)
        while (left := due - clock()) > 0:
            sleep(left)
        if isinstance(event, TriggerEvent):
            yield dataclasses.replace(event, trigger=dataclasses.replace(event.trigger, at=due))
        elif isinstance(event, FrameEvent):
            yield dataclasses.replace(event, frame=dataclasses.replace(event.frame, received=due))
        else:
            yield event


class ReplayCamera:
    """A folder of images or one view of a recording, as a camera.

    Images: each `trigger` exposes the next one, in the order of their paths. A recording: frames come by themselves,
    at their own takt times `speed`; what is due while the camera is stopped comes after the next start. Both number
    their frames on when they `loop`, and raise CameraEnded at the end when they do not. Preloaded pixels are handed out
    without a copy; nobody can write to them.
    """

    triggered: bool

    def __init__(self, options: ReplayOptions, view: str) -> None:
        """Finds the frames, and with `preload` decodes all of them.

        Raises:
            ConfigInvalid: nothing there, no such view, or more than fits into memory.
            DataInvalid: a folder without images, or a recording that cannot be read.
        """
        if not options.path.exists():
            raise ConfigInvalid(
                "there is nothing to replay.", where=f"view {view}, {options.path}", hint="Name a folder that is there."
            )
        self._options = options
        self._view = view
        self._source: _Source
        self.triggered = not is_recording(options.path)
        if self.triggered:
            self._source = _Images(options.path, options.preload)
        else:
            self._source = _Recorded(options.path, options.view or view, options.preload)
        self._clock: ReplayClock | None = None
        self._changed = threading.Condition()
        self._running = False
        self._asked = 0
        self._unanswered = 0
        self._handed_out = 0

    def start(self) -> None:
        """Begins, or goes on where it was stopped."""
        with self._changed:
            if self._clock is None:
                self._clock = ReplayClock(self._options.speed)
            elif not self._running:
                self._clock.resume()
            self._running = True

    def frame(self, timeout: float) -> Frame | None:
        """The next frame; None when none was due within `timeout` seconds. Raises CameraEnded."""
        end = time.monotonic() + timeout
        with self._changed:
            while self._running:
                due = self._due()
                now = time.monotonic()
                if due <= now:
                    break
                if now >= end:
                    return None
                self._changed.wait(min(due, end) - now)
            if not self._running:
                return None
            count = self._handed_out
            self._handed_out += 1
            self._asked -= self.triggered
        turn, index = divmod(count, self._source.length)
        frame = self._source.load(index, turn)  # decodes: not under the lock, so that `trigger` returns at once
        return dataclasses.replace(frame, received=time.monotonic())

    def trigger(self) -> None:
        """Exposes the next image. Raises CameraLost when it is stopped."""
        with self._changed:
            if not self._running:
                raise CameraLost("the replay is stopped.", where=f"view {self._view}", hint="Start it first.")
            if self.triggered:
                self._asked += 1
                self._changed.notify()

    def stop(self) -> None:
        """Wakes `frame`. Triggers without their image yet are counted as `unanswered`."""
        with self._changed:
            if self._running and self._clock is not None:
                self._clock.pause()
            self._running = False
            self._unanswered += self._asked
            self._asked = 0
            self._changed.notify_all()

    def facts(self) -> dict[str, str | int | float | bool | None]:
        """`frames` of one turn, `handed_out`, and the bytes that preloaded ones take in memory."""
        with self._changed:
            return {
                "path": str(self._options.path),
                "source": "images" if self.triggered else "recording",
                "frames": self._source.length,
                "preloaded_bytes": self._source.preloaded,
                "handed_out": self._handed_out,
                "unanswered": self._unanswered,
            }

    def _due(self) -> float:
        """When the next frame comes, on the monotonic clock. Raises CameraEnded."""
        turn, index = divmod(self._handed_out, self._source.length)
        if turn and not self._options.loop:
            raise CameraEnded(
                f"all {self._source.length} frames were replayed.",
                where=f"view {self._view}, {self._options.path}",
                hint="Set `loop: true` to go on from the start.",
            )
        if self.triggered:
            return 0.0 if self._asked else float("inf")
        assert self._clock is not None
        return self._clock.due(self._source.offset(index, turn))


class _Source(Protocol):
    """Frames that can be had again and again. `turn` counts how often all of them were."""

    length: int
    preloaded: int  # bytes

    def load(self, index: int, turn: int) -> Frame: ...

    def offset(self, index: int, turn: int) -> float: ...


class _Images:
    """The images of a folder; one that cannot be read is a frame with `damage`."""

    def __init__(self, path: Path, preload: bool) -> None:
        self._files = list(find_images([path]))
        self._root = path if path.is_dir() else path.parent
        self.length = len(self._files)
        self.preloaded = 0
        self._kept: list[Frame] = []
        if preload:
            for count, file in enumerate(self._files, start=1):
                frame = self._decode(file)
                self.preloaded += 0 if frame.pixels is None else frame.pixels.nbytes
                self._kept.append(frame)
                # What is to come, if it is like what came: images of one camera have one size.
                check_memory(self.preloaded // count * (self.length - count), where=str(path))

    def load(self, index: int, turn: int) -> Frame:
        frame = self._kept[index] if self._kept else self._decode(self._files[index])
        return dataclasses.replace(frame, number=turn * self.length + index + 1)

    def offset(self, index: int, turn: int) -> float:  # noqa: ARG002 - they come when they are triggered
        return 0.0

    def _decode(self, file: Path) -> Frame:
        name = file.relative_to(self._root).as_posix()
        try:
            pixels = read_image(file)
        except InspectionError as error:
            return Frame(pixels=None, number=0, received=0.0, damage=error.what, name=name)
        pixels.flags.writeable = False
        return Frame(pixels=pixels, number=0, received=0.0, pixel_format=pixel_format(pixels), name=name)


class _Recorded:
    """One view of a recording."""

    def __init__(self, path: Path, view: str, preload: bool) -> None:
        self._recording = Recording(path)
        if view not in self._recording.views:
            raise ConfigInvalid(
                f"the recording has no view {view!r}.",
                where=str(path),
                hint=f"Set `view` to one of: {', '.join(self._recording.views) or 'none has frames'}.",
            )
        self.preloaded = self._recording.preload([view]) if preload else 0
        found = {
            place: event.frame.number
            for place, event in enumerate(self._recording.index)
            if isinstance(event, FrameEvent) and event.view == view
        }
        self._places, numbers = list(found), found.values()
        self.length = len(found)
        self._exposures = max(numbers) - min(numbers) + 1  # of one turn, lost ones included

    def load(self, index: int, turn: int) -> Frame:
        frame = self._recording.frame(self._places[index])
        return dataclasses.replace(frame, number=frame.number + turn * self._exposures)

    def offset(self, index: int, turn: int) -> float:
        return self._recording.index[self._places[index]].offset + turn * self._recording.seconds
