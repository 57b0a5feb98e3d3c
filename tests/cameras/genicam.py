"""What the tests of GenICam cameras share: a second fake camera, of another make than Aravis', and small settings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

viva = pytest.importorskip("viva_genicam")

from viva_genicam.testing import FakeGigeCamera  # noqa: E402

from inspection.cameras.camera import Camera  # noqa: E402
from inspection.parts import Frame  # noqa: E402
from tests.support.cameras import ADDRESS, Aravis  # noqa: E402

Start = Callable[..., Camera]
StartAravis = Callable[..., Aravis]
SMALL = {"width": 256, "height": 64}
FAST = {"AcquisitionFrameRate": 100.0}


@contextmanager
def viva_fake(**options: Any) -> Iterator[Any]:
    """A camera on loopback that loses what it is told to; `REGISTERS` and `peek` show what reached it."""
    fake = FakeGigeCamera(**{"width": 320, "height": 240, "fps": 50, "bind_ip": ADDRESS, **options})
    with fake:
        yield fake


def values(frame: Frame) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The pixels, wide enough for differences."""
    assert frame.pixels is not None, frame.damage
    return frame.pixels.astype(np.int64)
