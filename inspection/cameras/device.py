"""Cameras of this machine, and whatever else OpenCV opens."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from typing import Any

import cv2

from inspection.cameras import colour
from inspection.cameras.camera import CameraEnded, CameraLost
from inspection.cameras.options import DeviceOptions
from inspection.cameras.reader import Reader
from inspection.cameras.url import without_password
from inspection.errors import ConfigInvalid
from inspection.parts import Frame

# OpenCV gives up a V4L2 camera that sends nothing only after 10 s; who waits for frames does not wait with it.
LET_GO = 2.0  # seconds that a stop waits for a read


class DeviceCamera:
    """A camera by cv2.VideoCapture. `number` counts what was read, over all starts; OpenCV does not tell of losses."""

    triggered = False

    def __init__(self, options: DeviceOptions, view: str) -> None:
        self._options = options
        self._name = without_password(str(options.device))
        self._where = f"{view} ({self._name})"
        self._sequence = isinstance(options.device, str) and _is_sequence(options.device)
        self._file = self._sequence or (isinstance(options.device, str) and os.path.isfile(options.device))
        self._number = 0
        self._damaged = 0
        self._dropped = 0
        self._discarded = 0
        self._reader: Reader | None = None
        self._known: dict[str, str | int | float | bool | None] = {}

    def start(self) -> None:
        """Opens the device and writes its settings. Raises CameraLost, or ConfigInvalid for what it does not give."""
        self.stop()
        capture = cv2.VideoCapture(self._options.device)
        try:
            if not capture.isOpened():
                raise CameraLost(
                    "the device cannot be opened.",
                    where=self._where,
                    hint="It is not there, in use, or this user may not read it (group `video`).",
                )
            self._write(capture)
        except BaseException:
            capture.release()
            raise
        self._reader = Reader(
            lambda stopping: self._frames(capture, stopping), f"device {self._where}", live=not self._file
        )

    def frame(self, timeout: float) -> Frame | None:
        """The next frame; see `Camera.frame`."""
        reader = self._reader
        if reader is None:
            raise CameraLost("the device is not started.", where=self._where)
        return reader.get(timeout)

    def trigger(self) -> None:
        """OpenCV knows no trigger: raises ConfigInvalid."""
        raise ConfigInvalid("a device of OpenCV cannot be triggered.", where=self._where)

    def stop(self) -> None:
        """Lets go of the device. Never raises."""
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.stop(LET_GO)
            self._dropped += reader.dropped
            self._discarded += reader.discarded

    def facts(self) -> dict[str, str | int | float | bool | None]:
        """Backend, size and rate, and counters over all starts.

        `read`, of which `damaged`; `dropped`: nobody took them in time; `discarded`: they waited at a stop.
        """
        reader = self._reader
        return {
            **self._known,
            "read": self._number,
            "damaged": self._damaged,
            "dropped": self._dropped + (reader.dropped if reader else 0),
            "discarded": self._discarded,
        }

    def _write(self, capture: cv2.VideoCapture) -> None:
        asked = {
            "width": (cv2.CAP_PROP_FRAME_WIDTH, self._options.width),
            "height": (cv2.CAP_PROP_FRAME_HEIGHT, self._options.height),
            "rate": (cv2.CAP_PROP_FPS, self._options.rate),
        }
        for key, value in asked.values():
            if value is not None:
                capture.set(key, value)
        given = {name: capture.get(key) for name, (key, _) in asked.items()}
        for name, (_, value) in asked.items():
            if value is not None and abs(given[name] - value) > 0.01 * value:
                raise ConfigInvalid(
                    f"the device gives {name} {given[name]:g}, and {value:g} is asked for.",
                    where=self._where,
                    hint="Ask for what it has (`v4l2-ctl --list-formats-ext` shows it), or leave the key out.",
                )
        self._known = {
            "device": self._name,
            "backend": capture.getBackendName(),
            "width": int(given["width"]),
            "height": int(given["height"]),
            "rate": given["rate"],
        }

    def _frames(self, capture: cv2.VideoCapture, stopping: threading.Event) -> Iterator[Frame]:
        # Of a sequence OpenCV knows how many images it has; how many frames a video has is a guess.
        remaining = round(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if self._sequence else 0
        try:
            while not stopping.is_set():
                there, image = capture.read()
                received = time.monotonic()
                if stopping.is_set():
                    return
                remaining -= 1
                if there and image is not None:
                    self._number += 1
                    yield self._frame(capture, image, received)
                elif remaining >= 0:
                    self._number += 1
                    self._damaged += 1
                    damage = "The image of the sequence cannot be read: it is damaged, or follows one that is empty."
                    yield Frame(pixels=None, number=self._number, received=received, damage=damage)
                elif self._file:
                    raise CameraEnded("there are no more frames.", where=self._where)
                else:
                    raise CameraLost("the device sends no frames any more.", where=self._where)
        finally:
            capture.release()

    def _frame(self, capture: cv2.VideoCapture, image: Any, received: float) -> Frame:
        pixels = colour.from_bgr(image, mono=self._options.mono)
        stamp = capture.get(cv2.CAP_PROP_POS_MSEC)  # V4L2: when the driver took it; a file: its own time
        return Frame(
            pixels=pixels,
            number=self._number,
            received=received,
            device_ns=round(stamp * 1e6) if stamp > 0 else None,
            pixel_format="RGB8" if pixels.ndim == 3 else "Mono8",
        )


def _is_sequence(device: str) -> bool:
    """Whether it is the pattern of a numbered sequence of images, in which frames wait as in a file."""
    return "%" in device and "://" not in device and not os.path.isfile(device)
