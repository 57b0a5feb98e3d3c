"""`inspection run` as a user starts it."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx

from tests.line.plant import recipe, until

INSPECTION = [sys.executable, "-c", "from inspection.cli import main; main()"]


def start(file: Path, log: Path, *options: str) -> tuple[subprocess.Popen[bytes], str]:
    with log.open("wb") as err:
        command = [*INSPECTION, "run", str(file), "--port", "0", *options]
        process = subprocess.Popen(command, stderr=err, stdout=subprocess.DEVNULL)
    until(lambda: " is running" in log.read_text() or process.poll() is not None, what="running")
    found = re.search(r"listening on (http://\S+),", log.read_text())
    assert found is not None, log.read_text()
    return process, found[1]


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
    file = recipe(tmp_path)
    process, url = start(file, tmp_path / "log", "--simulate", "--takt", "10ms")
    until(lambda: triggers(url) > 5)
    process.kill()
    process.wait(30)
    again = [*INSPECTION, "run", str(file), "--port", "0", "--simulate", "--parts", "3"]
    subprocess.run(again, check=True, timeout=60, capture_output=True)
    record = str(tmp_path / "record-simulated")
    verified = subprocess.run([*INSPECTION, "history", "verify", record], timeout=60, capture_output=True, text=True)
    assert verified.returncode == 0, verified.stdout + verified.stderr


def test_a_broken_recipe_is_one_clear_error(tmp_path: Path) -> None:
    file = recipe(tmp_path, takt="fast")
    run = subprocess.run([*INSPECTION, "run", str(file)], timeout=60, capture_output=True, text=True)
    assert (run.returncode, run.stderr.count("error")) == (2, 1), run.stderr
    assert "takt" in run.stderr
    assert "Traceback" not in run.stderr
