"""The protocol of a source of frames. The line runs each camera in a thread of its own, restarts it when it is lost or
silent, and counts every frame; a camera itself neither retries nor hides anything."""

from __future__ import annotations

from typing import Protocol

from inspection.errors import InspectionError
from inspection.parts import Frame


class CameraLost(InspectionError):
    """The camera cannot be reached, refuses, or has gone; it may come back."""

    code = "camera-lost"
    exit_code = 9
    status = 503


class CameraEnded(InspectionError):
    """The source has no more frames and never will: the end of a recording or of a folder."""

    code = "camera-ended"
    exit_code = 9
    status = 410


class Camera(Protocol):
    """One source of frames.

    `start`, `frame` and `stop` are called by one thread; `trigger` and `stop` may come from another one. After `stop`
    it may be started again: that is how the line reconnects.
    """

    triggered: bool
    """Whether it exposes only when `trigger` is called (software trigger)."""

    def start(self) -> None:
        """Connects, writes every setting (also those that a client before us may have left behind), streams.

        Raises:
            CameraLost: cannot be reached. ConfigInvalid: it has no such setting. MissingExtra: a package is missing.
        """

    def frame(self, timeout: float) -> Frame | None:
        """The next frame, in the order of arrival; None when none came within `timeout` seconds.

        A damaged frame is returned with its `damage`, not dropped. Returns within about `timeout`, whatever happens.

        Raises:
            CameraLost: the connection is gone. CameraEnded: there will be no more.
        """

    def trigger(self) -> None:
        """One exposure, by software. Returns at once. Raises CameraLost."""

    def stop(self) -> None:
        """Lets go of the camera; wakes a `frame` that waits. Never raises; may be called twice."""

    def facts(self) -> dict[str, str | int | float | bool | None]:
        """What is known of it (maker, model, serial, address) and its own counters (packets lost, resent, ...)."""
