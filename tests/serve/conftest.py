"""A real service in a process of its own, and small models with known arithmetic."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support import graphs

INSPECTION = [sys.executable, "-c", "from inspection.cli import main; main()"]
COLOURS = ("red", "green", "blue")


class Running:
    """`inspection serve` as a user starts it."""

    def __init__(self, model: Path, *options: str) -> None:
        self.process = subprocess.Popen(
            [*INSPECTION, "serve", str(model), "--port", "0", "--threads", "1", *options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"COLUMNS": "200"},
        )
        self.said: list[str] = []
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        self.url = self._wait_for(r"listening on (http://\S+),")
        self._wait_for(r"^ready: ")
        self.client = httpx.Client(base_url=self.url, timeout=30)

    def _listen(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said.append(line)

    def _wait_for(self, pattern: str) -> str:
        end = time.monotonic() + 30
        while time.monotonic() < end:
            for line in list(self.said):
                if found := re.search(pattern, line):
                    return found[found.lastindex or 0]
            if self.process.poll() is not None:
                break
            time.sleep(0.02)
        raise AssertionError(f"the service never said {pattern!r}: {''.join(self.said)}")

    def inspect(self, body: bytes, **kwargs: object) -> httpx.Response:
        """POST of raw bytes."""
        return self.client.post("/v1/inspect", content=body, **kwargs)  # type: ignore[arg-type]

    def counts(self) -> dict[str, float]:
        """The metrics by name; labels other than the model's name after a slash."""
        found: dict[str, float] = {}
        for family in text_string_to_metric_families(self.client.get("/metrics").text):
            for sample in family.samples:
                labels = [value for key, value in sorted(sample.labels.items()) if key != "model"]
                found["/".join([sample.name, *labels])] = sample.value
        return found

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        self.client.close()
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout=30)
        self._listener.join(timeout=5)
        assert self.process.stderr is not None
        self.process.stderr.close()
        return code


Start = Callable[..., Running]


@pytest.fixture(scope="module")
def start() -> Iterator[Start]:
    """Starts services; those that still run at the end are stopped, and must end well."""
    started: list[Running] = []

    def begin(model: Path, *options: str) -> Running:
        started.append(Running(model, *options))
        return started[-1]

    yield begin
    codes = [service.stop() for service in started if service.process.poll() is None]
    assert codes == [0] * len(codes)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """colour.onnx (RGB, classes are the channels' means), deep.onnx (mono, 16 bit), slow.onnx (about half a second)."""
    folder = tmp_path_factory.mktemp("models")
    graphs.model_file(folder / "colour.onnx", classes=COLOURS)
    graphs.model_file(folder / "deep.onnx", graphs.spec(channels=1, bit_depth=16))
    graphs.model_file(folder / "slow.onnx", graphs.spec(height=256, width=256), layers=80)
    graphs.model_file(folder / "poisoned.onnx", poison="nan")
    graphs.model_file(folder / "plain.onnx", maps=False)
    return folder
