"""One fake GigE Vision camera at a time: all of them answer at 127.0.0.1:3956, also those of other test runs."""

from __future__ import annotations

import fcntl
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from inspection.cameras.camera import Camera
from inspection.cameras.open import open_camera
from inspection.cameras.options import GenICamOptions
from tests.support.cameras import ADDRESS, Aravis, OwnImages, is_taken, wait_for


@pytest.fixture
def gvcp() -> Iterator[None]:
    """The port of GigE Vision on loopback, for this test alone."""
    with (Path(tempfile.gettempdir()) / "gvcp-3956.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        wait_for(lambda: not is_taken(), 120)
        yield


@pytest.fixture
def aravis(gvcp: None) -> Iterator[Callable[..., Aravis]]:
    """Starts the fake camera with arguments of its own."""
    started: list[Aravis] = []

    def start(*arguments: str) -> Aravis:
        started.append(Aravis(*arguments))
        return started[-1]

    yield start
    for camera in started:
        camera.off()


@pytest.fixture
def own_images(gvcp: None, tmp_path: Path) -> Iterator[Callable[[list[bytes]], OwnImages]]:
    """Starts the fake camera with frames of the test's own."""
    started: list[OwnImages] = []

    def start(frames: list[bytes]) -> OwnImages:
        started.append(OwnImages(tmp_path, frames))
        return started[-1]

    yield start
    for camera in started:
        camera.off()


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
