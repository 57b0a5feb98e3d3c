"""`inspection run` as a user starts it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import httpx
import pytest

from inspection.pixels import Pixels
from tests.line.plant import image, recipe, until

INSPECTION = [sys.executable, "-c", "from inspection.cli import main; main()"]


def start(file: Path, log: Path, *options: str) -> tuple[subprocess.Popen[bytes], str]:
    with log.open("wb") as err:
        command = [*INSPECTION, "run", str(file), "--port", "0", *options]
        process = subprocess.Popen(command, stderr=err, stdout=subprocess.DEVNULL)
    until(lambda: " is running" in log.read_text() or process.poll() is not None, what="running")
    found = re.search(r"listening on (http://\S+),", log.read_text())
    assert found is not None, log.read_text()
    return process, found[1]


def png(pixels: Pixels) -> bytes:
    done, data = cv2.imencode(".png", pixels)
    assert done
    return data.tobytes()


def triggers(url: str) -> int:
    return int(httpx.get(f"{url}/v1/line", timeout=30).json()["counters"]["line"]["triggers"])


def test_sigterm_gives_every_part_its_verdict(tmp_path: Path) -> None:
    log = tmp_path / "log"
    process, url = start(recipe(tmp_path), log, "--simulate")
    until(lambda: triggers(url) > 5)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0, log.read_text()
    found = re.search(r"(\d+) triggers = (\d+) OK \+ (\d+) NG \+ (\d+) REVIEW \+ (\d+) ERROR", log.read_text())
    assert found is not None, log.read_text()
    total, *verdicts = map(int, found.groups())
    assert total == sum(verdicts) > 5


def test_after_a_kill_every_part_has_its_verdict_and_the_record_is_whole(tmp_path: Path) -> None:
    views = {"top": {"camera": {"kind": "pushed"}, "model": "model.onnx"}}
    file = recipe(tmp_path, views=views, match={"by": "trigger"}, deadline=600.0)
    process, url = start(file, tmp_path / "log")
    numbers = [httpx.post(f"{url}/v1/triggers", json={}, timeout=30).json()["number"] for _ in range(5)]
    sent = httpx.post(f"{url}/v1/views/top/frames?trigger={numbers[2]}", content=png(image()), timeout=30)
    assert sent.status_code == 202, sent.text
    # The third is judged, but waits for its turn behind the first: all five are in flight when the process is killed.
    until(lambda: httpx.get(f"{url}/v1/line", timeout=30).json()["counters"]["view top"]["judged"] == 1)
    process.kill()
    process.wait(30)
    again = [*INSPECTION, "run", str(file), "--port", "0", "--stopped", "--for", "1s"]
    told = subprocess.run(again, check=True, timeout=60, capture_output=True, text=True).stderr
    assert "5 parts were in flight when the line was killed" in told
    shown = [*INSPECTION, "history", "show", str(tmp_path / "record"), "--json"]
    lines = subprocess.run(shown, check=True, timeout=60, capture_output=True, text=True).stdout.splitlines()
    found = {body["number"]: (body["verdict"], body["code"]) for body in map(json.loads, lines)}
    assert found == dict.fromkeys(numbers, ("ERROR", "interrupted"))
    record = str(tmp_path / "record")
    verified = subprocess.run([*INSPECTION, "history", "verify", record], timeout=60, capture_output=True, text=True)
    assert verified.returncode == 0, verified.stdout + verified.stderr


@pytest.mark.parametrize(
    "options", [("--replay", "x", "--simulate"), ("--replay", "x", "--parts", "3"), ("--outputs",)]
)
def test_options_that_would_do_nothing_are_refused(tmp_path: Path, options: tuple[str, ...]) -> None:
    done = subprocess.run(
        [*INSPECTION, "run", str(recipe(tmp_path)), *options], timeout=60, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr.count("error")) == (2, 1), done.stderr
    assert options[0] in done.stderr


def test_a_broken_recipe_is_one_clear_error(tmp_path: Path) -> None:
    file = recipe(tmp_path, takt="fast")
    run = subprocess.run([*INSPECTION, "run", str(file)], timeout=60, capture_output=True, text=True)
    assert (run.returncode, run.stderr.count("error")) == (2, 1), run.stderr
    assert "takt" in run.stderr
    assert "Traceback" not in run.stderr
