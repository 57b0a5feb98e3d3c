"""`inspection run` is told to end, at whatever moment."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from tests.line.plant import image, recipe, until
from tests.line.test_run_command import INSPECTION, start, triggers
from tests.support.images import save

pytestmark = pytest.mark.slow

# The command, whose models take a minute to load.
LOADS_LONG = """
import sys, time
from inspection.engine import Engine
made = Engine.__init__
def long(self, *given, **more):
    print("loading", file=sys.stderr, flush=True)
    time.sleep(60)
    made(self, *given, **more)
Engine.__init__ = long
from inspection.cli import main
main()
"""


@pytest.mark.parametrize("signals", [(signal.SIGTERM, signal.SIGTERM), (signal.SIGINT, signal.SIGTERM)])
def test_a_second_signal_ends_it_at_once_also_while_models_are_loaded(
    tmp_path: Path, signals: tuple[signal.Signals, signal.Signals]
) -> None:
    log = tmp_path / "log"
    command = [sys.executable, "-c", LOADS_LONG, "run", str(recipe(tmp_path)), "--simulate", "--port", "0"]
    with log.open("wb") as err:
        process = subprocess.Popen(command, stderr=err)
    until(lambda: "loading" in log.read_text(), seconds=60.0, what="loading")
    began = time.monotonic()
    process.send_signal(signals[0])
    time.sleep(0.5)
    assert process.poll() is None  # it would end tidily, when the model is loaded
    process.send_signal(signals[1])
    assert process.wait(30) == -signals[1]
    assert time.monotonic() - began < 30


def test_sigterm_while_cameras_are_awaited_ends_it_tidily(tmp_path: Path) -> None:
    camera = {"kind": "stream", "url": "rtsp://127.0.0.1:9/none"}
    file = recipe(tmp_path, views={"top": {"camera": camera, "model": "model.onnx"}})
    log = tmp_path / "log"
    with log.open("wb") as err:
        process = subprocess.Popen([*INSPECTION, "run", str(file), "--port", "0"], stderr=err)
    until(lambda: "camera-lost" in log.read_text(), seconds=60.0, what="camera")
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0, log.read_text()
    assert "stopped: 0 triggers" in log.read_text()
    assert "Traceback" not in log.read_text()
    shown = [*INSPECTION, "history", "verify", str(tmp_path / "record")]
    assert subprocess.run(shown, capture_output=True, timeout=60).returncode == 0


def test_a_second_signal_ends_it_though_parts_are_in_flight_and_they_are_errors_afterwards(tmp_path: Path) -> None:
    views = {"top": {"camera": {"kind": "pushed"}, "model": "model.onnx"}}
    file = recipe(tmp_path, views=views, match={"by": "trigger"}, deadline=600.0)
    process, url = start(file, tmp_path / "log")
    numbers = [httpx.post(f"{url}/v1/triggers", json={}, timeout=30).json()["number"] for _ in range(2)]
    assert triggers(url) == 2
    process.send_signal(signal.SIGTERM)
    until(lambda: "stopping" in (tmp_path / "log").read_text(), what="stopping")
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == -signal.SIGTERM
    again = [*INSPECTION, "run", str(file), "--port", "0", "--stopped", "--for", "1s"]
    subprocess.run(again, check=True, timeout=60, capture_output=True)
    shown = [*INSPECTION, "history", "show", str(tmp_path / "record"), "--json"]
    lines = subprocess.run(shown, check=True, timeout=60, capture_output=True, text=True).stdout.splitlines()
    assert {body["number"]: body["code"] for body in map(json.loads, lines)} == dict.fromkeys(numbers, "interrupted")


def test_it_simulates_with_images_of_a_folder(tmp_path: Path) -> None:
    save(tmp_path / "bad" / "1.png", image(bad=True))
    command = [*INSPECTION, "run", str(recipe(tmp_path)), "--port", "0", "--simulate", "--parts", "3"]
    command += ["--images", str(tmp_path / "bad"), "--takt", "50ms"]
    done = subprocess.run(command, timeout=120, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (told,) = [line for line in done.stderr.splitlines() if line.startswith("stopped:")]
    assert "0 OK" in told
    assert "0 NG" not in told
