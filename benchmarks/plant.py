"""A small plant around a line, of real parts that can be made to fail: camera, PLC, broker, receiver, disk, clock.

The line is `inspection run` in a process of its own, as a service would start it. Its two views look at the same part:
`top` through a GigE Vision camera (Aravis' fake one) that the line triggers, `side` by images that are sent to its HTTP
door. A PLC triggers the parts over Modbus TCP and acknowledges their verdicts; an MQTT broker and a webhook are told.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml

from inspection.outputs.modbus_map import Command, Status
from inspection.pixels import Pixels
from tests.outputs.brokers import Mosquitto, Subscriber
from tests.outputs.conftest import free_port
from tests.outputs.plc import Plc
from tests.outputs.receiver import Receiver
from tests.support.cameras import ADDRESS, OwnImages
from tests.support.graphs import model_file, spec

WIDTH, HEIGHT = 640, 480
DISK = 64  # MB, of the record's disk
DEADLINE, LEAD = 0.8, 0.1  # of the takt, and seconds before it at which the gate's output gets the verdict
PATIENCE = 60.0  # seconds for anything to become as it should be
LINE = "plant"


@dataclass
class Part:
    """One part that came by, and what the PLC was told of it (None: nothing in time)."""

    number: int
    bad: bool
    told: str | None = None


def surface(*, bad: bool = False) -> Pixels:
    """What a camera sees: grey, with a white spot where the part is bad."""
    pixels = np.full((HEIGHT, WIDTH), 40, np.uint8)
    if bad:
        pixels[160:320, 200:360] = 255
    return pixels


def encoded(pixels: Pixels, kind: str = ".png") -> bytes:
    """As a file's bytes."""
    done, data = cv2.imencode(kind, pixels)
    assert done
    return data.tobytes()


class Plant:
    """Everything around the line, and the line; use `plant`, which makes and removes it.

    Attributes:
        camera, broker, subscriber, receiver: the peers. disk: the folder of the small disk, record: the record's on it.
        parts: all that came by.
    """

    def __init__(self, folder: Path, disk: Path, *, takt: float) -> None:
        self.takt = takt
        self.disk, self.record = disk, disk / "record"
        self.parts: list[Part] = []
        self.camera = OwnImages(folder, [surface().tobytes(), surface(bad=True).tobytes()], scene=True)
        self.broker = Mosquitto(folder)
        self.subscriber = Subscriber(self.broker.port)
        self.receiver = Receiver()
        self._folder = folder
        self._clock = folder / "clock"
        self._door, self._modbus = free_port(), free_port()
        self._recipe = self._write_recipe()
        self._line: subprocess.Popen[bytes] | None = None
        self._due = 0.0
        self.set_clock(0)

    # -- the line ----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Starts the line, and waits until it runs and its camera streams."""
        command = [str(Path(sys.executable).with_name("inspection")), "run", str(self._recipe)]
        command += ["--name", LINE, "--port", str(self._door)]
        with (self._folder / "line.log").open("ab") as log:
            self._line = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | self._wrong_clock())
        self.until(lambda: self._ended() or self.ask("/health/ready")["state"] == "running", "line")
        if self._ended():
            raise ChildProcessError(f"the line has ended: see {self._folder / 'line.log'}")
        self.plc = Plc(self._modbus)
        self.plc.put("command", 0)

    def _ended(self) -> bool:
        return self._line is not None and self._line.poll() is not None

    def end(self, by: signal.Signals) -> int:
        """Sends the signal; returns the exit code."""
        assert self._line is not None
        self._line.send_signal(by)
        code = self._line.wait(PATIENCE)
        self._line = None
        return code

    def ask(self, path: str, body: bytes | None = None) -> dict[str, Any]:
        """GET, or POST of `body`, at the line's door; what it answers, also with an error's status."""
        request = urllib.request.Request(f"http://127.0.0.1:{self._door}{path}", data=body)
        if body is not None:
            request.add_header("Content-Type", "application/octet-stream")
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                return dict(json.load(answer))
        except urllib.error.HTTPError as refused:
            return {"refused": refused.code, **json.load(refused)}

    def streams(self) -> bool:
        """Whether the GigE Vision camera does."""
        return bool(self.ask("/v1/line")["cameras"]["top"]["state"] == "streaming")

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Waits until it is so. Raises TimeoutError."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            with contextlib.suppress(OSError, KeyError):
                if condition():
                    return
            time.sleep(0.05)
        raise TimeoutError(f"{what}: not within {PATIENCE:g} s, see {self._folder / 'line.log'}")

    # -- parts -------------------------------------------------------------------------------------------------------

    def trigger(self, *, bad: bool, side: bytes | None = None, expose: bool = True) -> Part:
        """A part comes by at its time; bad ones are bad in one of the two views. `side` is sent instead of what the
        second one sees; without `expose` it sees nothing."""
        time.sleep(max(0.0, self._due - time.monotonic()))
        self._due = max(self._due, time.monotonic() - self.takt) + self.takt
        number = len(self.parts) + 1
        in_top = bad and number % 2 == 0
        self.camera.show(int(in_top), lost=self.lost)
        self.plc.put("serial_in", f"SN{number:06}")
        before = self.plc.get("accepted")
        self.plc.put("command", Command.TRIGGER)
        self.until(lambda: self.plc.get("accepted") != before, "trigger")
        part = Part(self.plc.get("accepted"), bad)
        self.plc.put("command", 0)
        self.parts.append(part)
        if expose:
            self.send(side if side is not None else encoded(surface(bad=bad and not in_top)))
        return part

    def send(self, image: bytes) -> dict[str, Any]:
        """An image of the second view."""
        return self.ask("/v1/views/side/frames", image)

    def inspect(self, *, acknowledge: bool = True, **how: Any) -> Part:
        """A part comes by, and the PLC takes its verdict."""
        part = self.trigger(**how)
        end = time.monotonic() + self.takt
        while time.monotonic() < end:
            if Status.RESULTS_READY in self.plc.status():
                got = self.plc.result()
                if acknowledge:
                    self.plc.put("acknowledge", got["sequence"])
                    self.plc.command(Command.ACKNOWLEDGE)
                if got["number"] == part.number:
                    part.told = {1: "OK", 2: "NG", 3: "REVIEW", 4: "ERROR"}[got["verdict"]]
                    break
            time.sleep(0.002)
        return part

    # -- what fails --------------------------------------------------------------------------------------------------

    lost = 0  # of a thousand packets of the camera

    def set_clock(self, seconds: int) -> None:
        """The line's wall clock is wrong by so many seconds; its monotonic one nobody can set."""
        with self._clock.open("r+b" if self._clock.exists() else "wb", buffering=0) as file:
            file.write(struct.pack("q", seconds))

    @contextmanager
    def full_disk(self) -> Iterator[None]:
        """No byte more goes to the record's disk."""
        ballast = self.disk / "ballast"
        with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
        try:
            yield
        finally:
            ballast.unlink()

    def _wrong_clock(self) -> dict[str, str]:
        """The environment in which the wall clock is the one that `set_clock` sets."""
        library = self._folder / "wrong_clock.so"
        if not library.exists():
            source = Path(__file__).with_name("wrong_clock.c")
            subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
        return {"LD_PRELOAD": str(library), "WRONG_CLOCK": str(self._clock)}

    def _write_recipe(self) -> Path:
        model = model_file(self._folder / "model.onnx", spec(channels=1), poison="raise")
        size = {"width": WIDTH, "height": HEIGHT, "pixel_format": "Mono8"}
        top = {"kind": "genicam", "address": ADDRESS, "packet_size": 1500, **size}
        values = {
            "product": "panel",
            "takt": self.takt,
            "deadline": DEADLINE * self.takt,
            "trigger": {"kind": "signal"},
            "views": {
                "top": {"camera": top, "model": str(model)},
                "side": {"camera": {"kind": "pushed"}, "model": str(model)},
            },
            "outputs": [
                {"kind": "modbus", "port": self._modbus, "gate": True, "lead": LEAD, "acknowledge": self.takt},
                {"kind": "mqtt", "host": "127.0.0.1", "port": self.broker.port, "retry_at_most": 1.0},
                {"kind": "webhook", "url": self.receiver.url, "timeout": 2.0, "retry_at_most": 1.0},
            ],
            "record": {"folder": str(self.record), "images": {"free": 1_000_000}},
        }
        path = self._folder / "panel.yaml"
        path.write_text(yaml.safe_dump(values))
        return path

    def close(self) -> None:
        """Ends all that runs."""
        if self._line is not None:
            self.end(signal.SIGKILL)
        self.subscriber.close()
        self.broker.kill()
        self.receiver.close()
        self.camera.off()


@contextmanager
def plant(folder: Path, *, takt: float) -> Iterator[Plant]:
    """A plant in `folder`, with a small disk of its own for the record, which wants the right to mount one."""
    disk = folder / "disk"
    disk.mkdir(parents=True)
    with ExitStack() as stack:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}m", "tmpfs", str(disk)], check=True)
        stack.callback(subprocess.run, ["umount", "-l", str(disk)], check=True)
        made = Plant(folder, disk, takt=takt)
        stack.callback(made.close)
        made.start()
        yield made
