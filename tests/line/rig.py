"""A camera of the tests that does, exposure by exposure, what real ones do wrong, and a scene that it looks at."""

from __future__ import annotations

import queue
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from inspection.cameras.camera import Camera, CameraLost
from inspection.cameras.options import AnyCamera
from inspection.line.line import Line
from inspection.parts import Frame, PartResult
from tests.line.plant import image, ready, recipe, until


class Scene:
    """What lies before the camera, and what the camera will do wrong at which exposure (from 1)."""

    def __init__(self, faults: dict[int, str] | None = None) -> None:
        self.bad = False
        self.faults = faults or {}
        self.exposures = 0
        self.opened = 0
        self.held: list[Frame] = []
        self.rig: Rig | None = None

    def camera(self, _options: AnyCamera, _view: str) -> Camera:
        """For `Line(camera=...)`: every call makes another camera that looks at this scene."""
        self.opened += 1
        self.rig = Rig(self)
        return self.rig

    def expose(self) -> None:
        """An exposure that nobody asked for."""
        assert self.rig is not None
        self.rig.trigger()


class Rig:
    """Exposes when it is triggered; its count begins anew whenever it is started."""

    triggered = True

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._frames: queue.SimpleQueue[Frame | Exception | threading.Event | None] = queue.SimpleQueue()
        self._number = 0
        self._silent = False
        self._stopped = threading.Event()

    def start(self) -> None:
        self._frames = queue.SimpleQueue()
        self._number, self._silent = 0, False
        self._stopped.clear()

    def frame(self, timeout: float) -> Frame | None:
        try:
            got = self._frames.get(timeout=timeout)
        except queue.Empty:
            return None
        if isinstance(got, threading.Event):
            got.wait()
            raise CameraLost("it was stopped while it hung.")
        if isinstance(got, Exception):
            raise got
        return got

    def trigger(self) -> None:
        scene = self._scene
        fault = scene.faults.get(scene.exposures + 1)
        self._number += 1
        if fault == "skipped":
            self._number += 1
        if fault == "restarted":
            self._number = 1
        frame = Frame(pixels=image(bad=scene.bad), number=self._number, received=time.monotonic())
        if fault == "silent":
            self._silent = True
        if fault == "lost":
            self._frames.put(CameraLost("the cable is out."))
        elif fault == "broken":
            self._frames.put(OSError("the driver broke off."))
        elif fault == "hung":
            self._frames.put(self._stopped)
        elif fault == "late":
            scene.held.append(frame)
        elif fault == "damaged":
            self._frames.put(Frame(pixels=None, number=frame.number, received=frame.received, damage="2 packets lost."))
        elif fault != "dropped" and not self._silent:
            self._frames.put(frame)
            if fault == "doubled":
                self._frames.put(frame)
        scene.exposures += 1

    def release(self) -> None:
        """What was held back comes now."""
        for frame in self._scene.held:
            self._frames.put(Frame(pixels=frame.pixels, number=frame.number, received=time.monotonic()))
        self._scene.held.clear()

    def stop(self) -> None:
        self._stopped.set()

    def facts(self) -> dict[str, str | int | float | bool | None]:
        return {}


def one_view(folder: Path, **changes: Any) -> Path:
    """A recipe with the view `top` alone. Its takt is long: a busy machine must not make a frame late."""
    (folder / "top").mkdir(exist_ok=True)
    camera = {"kind": "replay", "path": "top", "loop": True, **changes.pop("camera", {})}
    values: dict[str, Any] = {"takt": 10.0, "deadline": 20.0, "work": {"provider": "cpu", "workers": 1, "threads": 1}}
    return recipe(folder, views={"top": {"camera": camera, "model": "model.onnx"}}, **(values | changes))


def streaming(line: Line, view: str = "top") -> bool:
    return line.cameras.facts()[view]["state"] == "streaming"


def inspect(line: Line, scene: Scene, *, bad: bool) -> PartResult:
    """One part, before a camera that streams; returns its verdict."""
    until(lambda: streaming(line), what="camera")
    scene.bad = bad
    before = scene.exposures
    number = line.trigger()
    until(lambda: scene.exposures > before, what="exposure")
    result = line.wait(number, 30.0)
    assert result is not None, "no verdict"
    return result


def opened(line: Line) -> Line:
    """Started, with its camera streaming."""
    return ready(line)


def codes(line: Line) -> Counter[str]:
    """How often each alarm was given."""
    return Counter(one["code"] for one in line.outlets.last_alarms)


def balanced(line: Line) -> dict[str, dict[str, int]]:
    """All accounts, after they were held against each other."""
    counters = line.counters()
    assert line.floor.tracker.check() is None
    for name, account in counters.items():
        if "triggers" in account:
            ended = sum(account[verdict] for verdict in ("OK", "NG", "REVIEW", "ERROR"))
            assert account["triggers"] == ended + account["in_flight"], name
        if "received" in account:
            fates = ("judged", "failed", "incomplete", "late", "dropped", "duplicate", "unmatched")
            assert account["received"] == sum(account[fate] for fate in fates) + account["waiting"], name
    return counters
