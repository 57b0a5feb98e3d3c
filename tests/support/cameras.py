"""Real cameras for tests: Aravis' fake GigE Vision camera as a process of its own, and what one does with a camera."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import closing

import pytest

from inspection.cameras.camera import Camera
from inspection.errors import InspectionError
from inspection.parts import Frame

ARAVIS = "arv-fake-gv-camera-0.8"
ADDRESS = "127.0.0.1"
GVCP = 3956  # the port of GigE Vision: one camera at an address


def program(name: str) -> str:
    """The path of a program; without it the test is skipped, but fails where everything has to be there."""
    path = shutil.which(name)
    if path is None:
        say = pytest.fail if os.environ.get("CI") else pytest.skip
        say(f"{name} is not installed: .ci/run installs it")
    assert path is not None
    return path


def wait_for(what: Callable[[], bool], seconds: float = 30.0) -> None:
    """Waits until it is so."""
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.02)


def is_taken() -> bool:
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as probe:
        try:
            probe.bind((ADDRESS, GVCP))
        except OSError:
            return True
    return False


class Aravis:
    """Aravis' fake camera, which can be switched off and on."""

    def __init__(self, *arguments: str) -> None:
        self._command = [program(ARAVIS), "-i", ADDRESS, "-s", "GV01", *arguments]
        self._process: subprocess.Popen[bytes] | None = None
        self.on()

    def on(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(is_taken)

    def off(self) -> None:
        """As when its power is cut: without a word."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """As when its firmware hangs: the network is there, nothing answers."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)


def take(camera: Camera, count: int) -> list[Frame]:
    """The next frames; each has long enough to come."""
    frames = []
    for _ in range(count):
        frame = camera.frame(20.0)
        assert frame is not None, "no frame came"
        frames.append(frame)
    return frames


def error_of(camera: Camera, seconds: float = 30.0) -> InspectionError:
    """What ends the camera's frames."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            camera.frame(0.2)
        except InspectionError as error:
            return error
    raise AssertionError("the camera did not notice")
