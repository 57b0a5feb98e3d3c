"""A source that blocks, read by a thread of its own: whoever wants its frames never waits longer than they like."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator

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
    """

    def __init__(self, frames: Callable[[threading.Event], Iterator[Frame]], name: str, *, live: bool) -> None:
        self.dropped = 0
        self._frames = frames
        self._live = live
        self._queue: queue.Queue[Frame | None] = queue.Queue(WAITING)
        self._error: InspectionError | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def get(self, timeout: float) -> Frame | None:
        """The next frame, or None. Raises what ended the source, after the last frame was taken."""
        try:
            frame = self._queue.get(timeout=max(0.0, timeout))
        except queue.Empty:
            return None
        if frame is None:
            self._put(None)  # for whoever asks again
            if self._error is not None and not self._stopping.is_set():
                raise self._error
        return frame

    def stop(self, wait: float) -> None:
        """Ends the thread; one that blocks for longer than `wait` seconds ends when its call returns."""
        self._stopping.set()
        self._make_room()
        self._put(None)
        self._thread.join(wait)

    def _run(self) -> None:
        try:
            for frame in self._frames(self._stopping):
                if self._live and self._queue.full() and self._make_room():
                    self.dropped += 1
                self._put(frame)
                if self._stopping.is_set():
                    return
        except InspectionError as error:
            self._error = error
        finally:
            self._put(None)

    def _put(self, frame: Frame | None) -> None:
        while True:
            try:
                self._queue.put(frame, timeout=0.1)
            except queue.Full:
                if self._stopping.is_set():
                    return
            else:
                return

    def _make_room(self) -> bool:
        try:
            self._queue.get_nowait()
        except queue.Empty:
            return False
        return True


def sleep_until(due: float, stopping: threading.Event) -> None:
    """Waits for a moment of the monotonic clock, or for the end."""
    stopping.wait(max(0.0, due - time.monotonic()))
