"""Messages, a disk that fails, one OPC UA server, and helpers to wait, that the tests of the outputs share."""

from __future__ import annotations

import asyncio
import errno
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from inspection.control import LineState
from inspection.outputs.options import OpcUaOptions
from inspection.outputs.sink import Message
from inspection.outputs.spool import Spool
from inspection.parts import PartResult, Trigger, ViewResult
from inspection.results import Verdict
from tests.outputs.scripted_line import ScriptedLine


def message(number: int, kind: Any = "state", *, deadline: float | None = None) -> Message:
    """A message without a part."""
    return Message(kind=kind, sequence=number, wall=1.7e9 + number, body={"number": number}, deadline=deadline)


def result(
    number: int,
    *,
    at: float = 0.0,
    deadline: float | None = None,
    encoder: int | None = None,
    verdict: Verdict = Verdict.OK,
) -> Message:
    """The verdict on a part with two views."""
    part = PartResult(
        trigger=Trigger(
            number=number, part=f"P{number}", product="bolt", lot="L7", at=at, wall=1.7e9 + number, encoder=encoder
        ),
        verdict=verdict,
        views=(
            ViewResult(view="top", verdict=verdict, frame=number, seconds={"judged": 0.2}),
            ViewResult(view="side", verdict=Verdict.OK, frame=number, seconds={"judged": 0.25}),
        ),
        decided=at + 0.3,
        deadline=deadline if deadline is not None else at + 1.0,
        recipe="bolt",
        recipe_hash="ab" * 32,
        kind="scratch" if verdict is Verdict.NG else None,
        seconds={"last_frame": 0.1, "decided": 0.3},
    )
    return Message(
        kind="result",
        sequence=number,
        wall=1.7e9 + number,
        body={**part.to_dict(), "score": 0.5},
        result=part,
        deadline=deadline,
    )


def wait_for(condition: Callable[[], object], timeout: float = 30.0) -> None:
    """Returns when `condition` holds; fails when it does not within `timeout` seconds."""
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, "the condition never held"
        time.sleep(0.002)


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def accounted(counters: dict[str, int]) -> bool:
    """Whether every message that was taken is in exactly one place."""
    gone = sum(counters[place] for place in ("delivered", "refused", "late", "dropped"))
    return counters["taken"] + counters["recovered"] == gone + counters["waiting"]


class Disk(Spool):
    """A spool whose disk can be filled up, and can be one that cannot be read."""

    full = False
    unread = False  # it gives nothing back

    def append(self, message: Message) -> int:
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().append(message)

    def _read(self, record: Any) -> bytes:
        if self.unread:
            raise OSError(errno.EIO, "Input/output error")
        return super()._read(record)


# One OPC UA server for all tests that ask no more than what every line does: a start takes seconds.


@pytest.fixture(scope="package")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ScriptedLine, Any]]:
    """A line and the `OpcUaSink` that shows it."""
    from inspection.outputs.opcua import OpcUaSink

    with ScriptedLine(broken=["washer"]) as line:
        options = OpcUaOptions(kind="opcua", port=0, store=tmp_path_factory.mktemp("opcua"))
        sink = OpcUaSink(options, line, line.name, line.alarm)
        line.attach(sink)
        yield line, sink


@pytest.fixture
def line(served: tuple[ScriptedLine, Any]) -> ScriptedLine:
    """The line of `served`, STOPPED with the recipe `bolt` and every part judged, whatever the test before did."""
    from tests.outputs.opcua_client import home

    line, sink = served
    line.open_gate.set()
    line.warming = 0.01
    line.reset()
    line.stop()
    line.until(LineState.STOPPED)
    line.change_over("bolt", wait=True)
    asyncio.run(home(sink.url))
    return line


@pytest.fixture
def url(served: tuple[ScriptedLine, Any]) -> str:
    """Where the server of `served` listens."""
    return str(served[1].url)
