"""Runs a line with its door until it is told to stop, and then so that every part has its verdict."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import uvicorn

from inspection.control import LineState
from inspection.line.line import Line
from inspection.progress import LOG_EVERY, console
from inspection.results import Verdict
from serve.line import accounts, create_line_app
from serve.server import settings

CAMERAS = 10.0  # seconds in which cameras should stream; the line starts without those that do not


def run(
    line: Line,
    listener: socket.socket,
    stop: threading.Event,
    *,
    stopped: bool = False,
    seconds: float | None = None,
    parts: int | None = None,
) -> dict[str, int]:
    """Opens the line, serves it, and closes it at `stop`, after `seconds` or `parts`; returns its account, which is
    empty where it was stopped before it was opened.

    Parts in flight get their verdicts and outputs theirs.

    Args:
        stop: as `told_to_stop` gives it.
        stopped: it is not started: a PLC or `POST /v1/line/start` does.

    Raises:
        InspectionError: what the line could not be opened for.
    """
    if stop.is_set():
        return {}
    with door(line, listener):
        # On a thread of its own: a signal is not heard before a call returns, and to load a model is one long call.
        with ThreadPoolExecutor(1, "opener") as opener:
            opener.submit(line.open).result()
        try:
            _await_cameras(line, stop)
            if not stopped and not stop.is_set():
                line.start()
            console.print(f"{line.name} is {line.state}.", soft_wrap=True)
            _watch(line, stop, seconds, parts)
            console.print("stopping: parts in flight get their verdicts.")
        finally:
            line.close()
        return accounts(line)["line"]


@contextmanager
def told_to_stop() -> Iterator[threading.Event]:
    """Set at the first SIGTERM or SIGINT; the next one ends the process at once, whatever it is doing."""
    stop = threading.Event()

    def handle(*_: object) -> None:
        for number in before:
            signal.signal(number, signal.SIG_DFL)
        stop.set()

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    for number in before:
        signal.signal(number, handle)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def door(line: Line, listener: socket.socket) -> Iterator[None]:
    """Serves the line over HTTP, on a thread of its own."""
    server = uvicorn.Server(settings(create_line_app(line)))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="door", daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(10.0)


def status(line: Line) -> str:
    """One line for a person."""
    counts = accounts(line)["line"]
    verdicts = " ".join(f"{verdict.value} {counts[verdict.value]}" for verdict in Verdict)
    times = line.times.summary().get("verdict")
    slow = "" if times is None else f", p99 from last frame to verdict {times['p99'] * 1000:.1f} ms"
    return f"{line.state}: {counts['triggers']} parts, {verdicts}{slow}, {line.outlets.alarms} alarms"


def _await_cameras(line: Line, stop: threading.Event) -> None:
    end = time.monotonic() + CAMERAS
    while away := [view for view, facts in line.cameras.facts().items() if facts["state"] != "streaming"]:
        if time.monotonic() > end:
            names = ", ".join(away)
            console.print(f"after {CAMERAS:g} s these cameras do not stream, and are tried on: {names}", soft_wrap=True)
            return
        if stop.wait(0.02):
            return


def _watch(line: Line, stop: threading.Event, seconds: float | None, parts: int | None) -> None:
    began = printed = time.monotonic()
    live = console.status(status(line)) if console.is_terminal else None
    if live is not None:
        live.start()
    try:
        while not stop.wait(0.05) and line.state is not LineState.CLOSED:
            now = time.monotonic()
            if seconds is not None and now - began >= seconds:
                return
            if parts is not None and accounts(line)["line"]["triggers"] >= parts:
                return
            if now - printed >= (0.5 if live is not None else LOG_EVERY):
                printed = now
                if live is not None:
                    live.update(status(line))
                else:
                    console.print(status(line), soft_wrap=True)
    finally:
        if live is not None:
            live.stop()
