"""Frames that nobody photographed, to try a line without hardware."""

from __future__ import annotations

import threading
import time

import numpy as np

from inspection.cameras.camera import CameraLost
from inspection.parts import Frame
from inspection.pixels import Pixels

KINDS = 8  # different frames, so that no cache of any kind serves them
GRAIN = 8  # pixels of one patch of the texture


class SyntheticCamera:
    """Triggered by software; gives textured noise of a stated size, from memory and without a copy.

    Args:
        size: width, height. channels: 1 or 3. white: the highest pixel value; above 255 frames are uint16.
    """

    triggered = True

    def __init__(self, view: str, *, size: tuple[int, int], channels: int, white: int, seed: int = 0) -> None:
        self._view = view
        self._frames = [_texture(size, channels, white, seed + kind) for kind in range(KINDS)]
        self._changed = threading.Condition()
        self._running = False
        self._asked = 0
        self._number = 0

    def start(self) -> None:
        """Begins."""
        with self._changed:
            self._running = True

    def frame(self, timeout: float) -> Frame | None:
        """The next frame, one for each trigger."""
        end = time.monotonic() + timeout
        with self._changed:
            while self._running and not self._asked:
                left = end - time.monotonic()
                if left <= 0:
                    return None
                self._changed.wait(left)
            if not self._running:
                return None
            self._asked -= 1
            self._number += 1
            pixels = self._frames[self._number % KINDS]
            name = "Mono" if pixels.ndim == 2 else "RGB"
            bits = 8 if pixels.dtype == np.uint8 else 16
            return Frame(pixels=pixels, number=self._number, received=time.monotonic(), pixel_format=f"{name}{bits}")

    def trigger(self) -> None:
        """One exposure. Raises CameraLost when it is stopped."""
        with self._changed:
            if not self._running:
                raise CameraLost("the synthetic camera is stopped.", where=f"view {self._view}")
            self._asked += 1
            self._changed.notify()

    def stop(self) -> None:
        """Wakes `frame`."""
        with self._changed:
            self._running = False
            self._asked = 0
            self._changed.notify_all()

    def facts(self) -> dict[str, str | int | float | bool | None]:
        """Its size, and how many frames it gave."""
        height, width = self._frames[0].shape[:2]
        return {"source": "synthetic", "width": width, "height": height, "handed_out": self._number}


def _texture(size: tuple[int, int], channels: int, white: int, seed: int) -> Pixels:
    chance = np.random.default_rng(seed)
    width, height = size
    coarse = chance.integers(0, white + 1, (-(-height // GRAIN), -(-width // GRAIN), channels))
    fine = coarse.repeat(GRAIN, axis=0).repeat(GRAIN, axis=1)[:height, :width]
    pixels = fine.astype(np.uint8 if white < 256 else np.uint16)
    pixels.flags.writeable = False
    return np.ascontiguousarray(pixels if channels == 3 else pixels[..., 0])
