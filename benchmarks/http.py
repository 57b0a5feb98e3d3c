"""What the HTTP door costs: POST of a 1-megapixel JPEG to the real endpoint, to a bare FastAPI that only reads the
body, and the same work in Python without a door; all in one run, so that the ratios hold on any machine.

python -m benchmarks.http [--model model.onnx] [--seconds 3] [--rounds 3] [--json FILE]
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import uvicorn
from fastapi import FastAPI, Request

from inspection import Inspector
from inspection.allocator import keep_buffers
from inspection.modelfile import read_card
from inspection.pixels import decode_image

CLIENTS = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Speed:
    """One way of getting images judged; medians over the rounds."""

    what: str
    per_second: float
    p50_ms: float
    p99_ms: float
    cpu_ms: float  # of the judging process, for one image: hardly changed by what else the machine does


def jpeg(channels: int, side: int = 1000) -> bytes:
    """A 1-megapixel JPEG with the grain of a brushed surface."""
    rng = np.random.default_rng(0)
    shape = (side, side) if channels == 1 else (side, side, channels)
    grain = cv2.GaussianBlur(rng.standard_normal(shape).astype(np.float32), (0, 0), 1.5)
    done, data = cv2.imencode(".jpg", np.clip(128 + 150 * grain, 0, 255).astype(np.uint8))
    assert done
    return data.tobytes()


def repeat(call: Callable[[], None], seconds: float) -> list[float]:
    """Seconds of each call, made one after the other for `seconds`."""
    took: list[float] = []
    end = time.perf_counter() + seconds
    while (started := time.perf_counter()) < end:
        call()
        took.append(time.perf_counter() - started)
    return took


def together(
    make: Callable[[], Callable[[], None]], seconds: float, clients: int = CLIENTS
) -> tuple[float, list[float]]:
    """Calls per second and their times, by `clients` threads at once."""

    def work(_: int) -> list[float]:
        call = make()
        for _ in range(3):
            call()
        return repeat(call, seconds)

    with ThreadPoolExecutor(clients) as pool:
        each = list(pool.map(work, range(clients)))
    return sum(len(took) / sum(took) for took in each), [one for took in each for one in took]


def poster(port: int, body: bytes) -> Callable[[], Callable[[], None]]:
    """Makes clients that POST `body` over one kept connection."""

    def make() -> Callable[[], None]:
        connection = http.client.HTTPConnection("127.0.0.1", port)

        def call() -> None:
            connection.request("POST", "/v1/inspect", body, {"Content-Type": "image/jpeg"})
            response = connection.getresponse()
            text = response.read()
            if response.status != 200:
                raise SystemExit(f"HTTP {response.status}: {text.decode()}")

        return call

    return make


@contextmanager
def server(*command: str, plain_allocator: bool = False) -> Iterator[tuple[int, int]]:
    """A server in a process of its own; gives its port and process id."""
    # Any GLIBC_TUNABLES makes the service leave the allocator alone; this one changes nothing.
    env = os.environ | ({"GLIBC_TUNABLES": "glibc.malloc.check=0"} if plain_allocator else {})
    process = subprocess.Popen([sys.executable, *command], stderr=subprocess.PIPE, text=True, env=env)
    assert process.stderr is not None
    try:
        port = 0
        for line in process.stderr:
            if found := re.search(r"listening on http://127\.0\.0\.1:(\d+)", line):
                port = int(found[1])
            if "ready" in line:
                break
        threading.Thread(target=process.stderr.read, daemon=True).start()
        yield port, process.pid
    finally:
        process.terminate()
        process.wait(timeout=30)


def cpu_seconds(process: int) -> float:
    """Processor time that a process has taken so far."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def bare() -> None:
    """A FastAPI application that reads the body and says how long it was; serves until it is stopped."""
    keep_buffers()
    app = FastAPI()

    @app.post("/v1/inspect")
    async def read(request: Request) -> dict[str, int]:
        return {"bytes": len(await request.body())}

    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    print(f"listening on http://127.0.0.1:{listener.getsockname()[1]}, ready", file=sys.stderr, flush=True)
    uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False)).run(sockets=[listener])


def measure(model: Path, *, seconds: float, rounds: int) -> list[Speed]:
    """All ways in turn, `rounds` times, so that a slow minute of the machine meets each of them."""
    keep_buffers()
    body = jpeg(read_card(model).input.channels)
    serve = (
        "-c",
        "from inspection.cli import main; main()",
        "serve",
        str(model),
        "--port",
        "0",
        "--threads",
        "1",
        "--concurrency",
        str(CLIENTS),
    )
    with (
        Inspector(model, threads=1) as inspector,
        server(*serve) as (port, served),
        server(*serve, plain_allocator=True) as (plain_port, plain),
        server("-m", "benchmarks.http", "--bare") as (bare_port, bare_served),
    ):

        def alone() -> Callable[[], None]:
            def call() -> None:
                inspector.inspect(decode_image(body))

            return call

        ways = {
            f"Inspector alone, {CLIENTS} threads": (alone, os.getpid()),
            f"inspection serve, {CLIENTS} clients": (poster(port, body), served),
            "the same without keeping freed memory": (poster(plain_port, body), plain),
            "bare FastAPI that only reads the body": (poster(bare_port, body), bare_served),
        }
        runs: dict[str, list[tuple[float, list[float], float]]] = {what: [] for what in ways}
        for _ in range(rounds):
            for what, (make, process) in ways.items():
                before = cpu_seconds(process)
                rate, took = together(make, seconds)
                runs[what].append((rate, took, (cpu_seconds(process) - before) / len(took)))
    return [
        Speed(
            what=what,
            per_second=float(np.median([rate for rate, _, _ in some])),
            p50_ms=float(np.median([np.percentile(took, 50) for _, took, _ in some])) * 1e3,
            p99_ms=float(np.median([np.percentile(took, 99) for _, took, _ in some])) * 1e3,
            cpu_ms=float(np.median([cpu for _, _, cpu in some])) * 1e3,
        )
        for what, some in runs.items()
    ]


def main() -> None:
    """Measures and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", type=Path, help="a model file; by default a small made-up one, so that the door shows"
    )
    parser.add_argument("--seconds", type=float, default=3.0, help="for each way and round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--bare", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.bare:
        bare()
        return
    with tempfile.TemporaryDirectory() as folder:
        model = given.model
        if model is None:
            from tests.support import graphs

            of = graphs.spec(height=256, width=256, channels=1)
            model = graphs.model_file(Path(folder) / "small.onnx", of)
        speeds = measure(model, seconds=given.seconds, rounds=given.rounds)
    base = speeds[0].per_second
    print("| | images/s | of the Inspector's | p50 ms | p99 ms | CPU ms |\n|---|---|---|---|---|---|")
    for speed in speeds:
        share = f"{speed.per_second / base:.0%}"
        times = f"{speed.p50_ms:.1f} | {speed.p99_ms:.1f} | {speed.cpu_ms:.2f}"
        print(f"| {speed.what} | {speed.per_second:.0f} | {share} | {times} |")
    if given.json:
        given.json.write_text(json.dumps([asdict(speed) for speed in speeds], indent=1))


if __name__ == "__main__":
    main()
