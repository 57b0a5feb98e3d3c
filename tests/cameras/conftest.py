"""A GenICam camera that is opened, and the simulated ones that it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from inspection.cameras.camera import Camera
from inspection.cameras.open import open_camera
from inspection.cameras.options import GenICamOptions
from tests.support.cameras import ADDRESS
from tests.support.gige_fixtures import aravis, gvcp, own_images

__all__ = ["aravis", "gvcp", "opened", "own_images"]


@pytest.fixture
def opened() -> Iterator[Callable[..., Camera]]:
    """Opens and starts the camera at the fake's address, and stops it at the end."""
    with ExitStack() as stack:

        def start(**options: Any) -> Camera:
            # Finding the largest packet takes a quarter of a second; one test does it.
            given = {"address": ADDRESS, "packet_size": 8000, **options}
            camera = open_camera(GenICamOptions(kind="genicam", **given), view="top")
            stack.callback(camera.stop)
            camera.start()
            return camera

        yield start
