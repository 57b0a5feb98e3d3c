"""Real cameras for tests: Aravis' fake GigE Vision camera as a process of its own, and what one does with a camera."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

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


SYSTEM_PYTHON = "/usr/bin/python3"
OWN_IMAGES = Path(__file__).with_name("gige_camera.py")


def system_python(namespace: str, package: str) -> str:
    """The system's Python, which reaches GObject libraries; without the library the test is skipped, or fails in CI."""
    version = {"Aravis": "0.8"}.get(namespace, "1.0")
    check = f"import gi; gi.require_version('{namespace}', '{version}'); from gi.repository import {namespace}"
    if not Path(SYSTEM_PYTHON).exists() or subprocess.run([SYSTEM_PYTHON, "-c", check], capture_output=True).returncode:
        say = pytest.fail if os.environ.get("CI") else pytest.skip
        say(f"{package} is not installed: .ci/run installs it")
    return SYSTEM_PYTHON


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


class OwnImages:
    """Aravis' fake camera, sending frames of one's own: `frames` are the bytes of each, all of the same length.

    They come one after the other; with `scene`, it is the one that was shown last. It can be switched off and on.
    """

    def __init__(
        self,
        folder: Path,
        frames: list[bytes],
        *,
        scene: bool = False,
        interface: str = ADDRESS,
        serial: str = "GV01",
        prefix: Sequence[str] = (),
    ) -> None:
        python = system_python("Aravis", "gir1.2-aravis-0.8")
        file = folder / "frames.raw"
        file.write_bytes(b"".join(frames))
        self._scene = folder / "scene" if scene else None
        self._command = [*prefix, python, str(OWN_IMAGES), interface, serial, str(file), str(len(frames[0]))]
        if self._scene is not None:
            self.show(0)
            self._command.append(str(self._scene))
        self._process: subprocess.Popen[str] | None = None
        self.on()

    def show(self, index: int, *, lost: int = 0) -> None:
        """Frame `index` lies before the camera; of its packets `lost` in a thousand do not arrive."""
        assert self._scene is not None
        beside = self._scene.with_suffix(".new")
        beside.write_bytes(bytes((index, lost)))
        beside.replace(self._scene)  # the camera never sees half of it

    def on(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def off(self) -> None:
        """As when its power is cut: without a word."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None


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
