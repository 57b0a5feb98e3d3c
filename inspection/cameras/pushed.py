"""Frames that somebody sends to the line, as a camera."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections import deque

from inspection.cameras.options import PushedOptions
from inspection.control import NotReady
from inspection.parts import Frame


class QueueFull(NotReady):
    """More frames arrive than the line takes; the sender may try again."""

    code = "queue-full"
    status = 503


class PushedCamera:
    """A bounded queue between the door and the line.

    Frames keep the number that their sender gave them; where it gave none (0) they are counted on from the last one.
    A refused frame is not counted on: a sender that does not send it again must number its frames, or name their part
    or trigger, so that none goes to the wrong part.
    """

    triggered = False

    def __init__(self, options: PushedOptions, view: str) -> None:
        self._options = options
        self._view = view
        self._waiting: deque[Frame] = deque()
        self._changed = threading.Condition()
        self._running = False
        self._number = 0
        self._accepted = 0
        self._refused = 0
        self._discarded = 0

    def start(self) -> None:
        """Accepts frames from now on."""
        with self._changed:
            self._running = True

    def push(self, frame: Frame) -> None:
        """Hands over one frame; called by any thread, returns at once.

        Raises:
            QueueFull: the line does not keep up; counted as `refused`. NotReady: the camera is stopped; likewise.
        """
        with self._changed:
            if not self._running:
                self._refused += 1
                raise NotReady(
                    "the view takes no frames now.", where=f"view {self._view}", hint="Send it when the line runs."
                )
            if len(self._waiting) >= self._options.queue:
                self._refused += 1
                raise QueueFull(
                    f"{self._options.queue} frames wait already.",
                    where=f"view {self._view}",
                    hint="Send it again, send fewer, or raise the camera's `queue`.",
                )
            if frame.number < 1:
                frame = dataclasses.replace(frame, number=self._number + 1)
            self._number = frame.number
            self._accepted += 1
            self._waiting.append(frame)
            self._changed.notify()

    def frame(self, timeout: float) -> Frame | None:
        """The frame that waits longest; None when none came within `timeout` seconds."""
        end = time.monotonic() + timeout
        with self._changed:
            while self._running and not self._waiting:
                left = end - time.monotonic()
                if left <= 0:
                    return None
                self._changed.wait(left)
            return self._waiting.popleft() if self._running else None

    def trigger(self) -> None:
        """Nothing: whoever sends the frames decides."""

    def stop(self) -> None:
        """Refuses frames from now on. Those that wait belong to parts that are given up: counted as `discarded`."""
        with self._changed:
            self._running = False
            self._discarded += len(self._waiting)
            self._waiting.clear()
            self._changed.notify_all()

    def facts(self) -> dict[str, str | int | float | bool | None]:
        """`accepted` = handed out + `waiting` + `discarded`; `refused` were never here."""
        with self._changed:
            return {
                "accepted": self._accepted,
                "refused": self._refused,
                "discarded": self._discarded,
                "waiting": len(self._waiting),
            }
