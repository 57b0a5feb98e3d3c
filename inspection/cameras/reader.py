"""A source that blocks, read by a thread of its own: whoever wants its frames never waits longer than they like."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator

from inspection.cameras.camera import CameraLost
from inspection.errors import InspectionError
from inspection.parts import Frame

WAITING = 4  # frames


class Reader:
    """Reads frames into a short queue.

    Args:
        frames: yields frames until an error ends it, and soon after the event is set; it may block in between.
        name: of the thread.
        live: a source that does not wait: the oldest frame gives way to the newest when nobody takes them, and is
            counted in `dropped`. Otherwise the source waits.

    Every frame that the source gives is handed out, or counted in `dropped`, or in `discarded`: those that wait at the
    stop, or come after it.
    """

    def __init__(self, frames: Callable[[threading.Event], Iterator[Frame]], name: str, *, live: bool) -> None:
        self.dropped = 0
        self.discarded = 0
        self._name = name
        self._frames = frames
        self._live = live
        self._queue: queue.Queue[Frame | None] = queue.Queue(WAITING)
        self._error: InspectionError | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def get(self, timeout: float) -> Frame | None:
        """The next frame, or None. Raises what ended the source, after the last frame was taken.

        Raises:
            CameraLost: also where the source failed in a way that nobody foresaw, or ended without a reason.
        """
        try:
            frame = self._queue.get(timeout=max(0.0, timeout))
        except queue.Empty:
            return None
        if frame is None:
            self._put(None)  # for whoever asks again
            if not self._stopping.is_set():
                raise self._error or CameraLost("the source has ended without a reason.", where=self._name)
        return frame

    def stop(self, wait: float) -> None:
        """Ends the thread; one that blocks for longer than `wait` seconds ends when its call returns."""
        self._stopping.set()
        self._discard()
        self._put(None)
        self._thread.join(wait)
        self._discard()  # one that was put while the first were taken out
        self._put(None)

    def _run(self) -> None:
        try:
            for frame in self._frames(self._stopping):
                if self._live and self._queue.full():
                    self.dropped += self._take_out()
                if self._stopping.is_set() or not self._put(frame):
                    self.discarded += 1
                    return
        except InspectionError as error:
            self._error = error
        except Exception as error:  # noqa: BLE001 - of whatever library: the camera is lost, and the line restarts it
            self._error = CameraLost(f"the source failed: {type(error).__name__}: {error}.", where=self._name)
            self._error.__cause__ = error
        finally:
            self._put(None)

    def _put(self, frame: Frame | None) -> bool:
        while True:
            try:
                self._queue.put(frame, timeout=0.1)
            except queue.Full:
                if self._stopping.is_set():
                    return False
            else:
                return True

    def _discard(self) -> None:
        while not self._queue.empty():
            self.discarded += self._take_out()

    def _take_out(self) -> bool:
        """Takes out what waits longest; whether that was a frame."""
        try:
            return self._queue.get_nowait() is not None
        except queue.Empty:
            return False


def sleep_until(due: float, stopping: threading.Event) -> None:
    """Waits for a moment of the monotonic clock, or for the end."""
    stopping.wait(max(0.0, due - time.monotonic()))
