"""Fixtures: one fake GigE Vision camera at a time, for whoever imports them into a conftest. All of them answer at
127.0.0.1:3956, also those of other test runs."""

from __future__ import annotations

import fcntl
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.cameras import Aravis, OwnImages, is_taken, wait_for


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
