"""What OPC UA costs: from the call of StartSingleJob to its answer and to its ResultReadyEvent, beside a bare method
and a bare event of a plain asyncua server; all in one run, in turn, so that the ratios hold on any machine.

The client is asyncua's in a process of its own. The line behind gives its verdict at once, so that what is measured is
the door alone.

python -m benchmarks.opcua [--jobs 100] [--json FILE]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from asyncua import Server, ua

from inspection.outputs.opcua import OpcUaSink
from inspection.outputs.options import OpcUaOptions
from tests.outputs.opcua_client import Peer, start_arguments
from tests.outputs.scripted_line import ScriptedLine

START = "VisionStateMachine.AutomaticModeStateMachine.StartSingleJob"


@dataclass(frozen=True, kw_only=True, slots=True)
class Times:
    """From the call to one of its effects, in milliseconds."""

    what: str
    p50_ms: float
    p95_ms: float


def times(what: str, seconds: list[float]) -> Times:
    """The quantiles of what was measured."""
    p50, p95 = np.quantile(np.array(seconds) * 1000, [0.5, 0.95])
    return Times(what=what, p50_ms=round(float(p50), 2), p95_ms=round(float(p95), 2))


async def bare(jobs: int) -> tuple[list[float], list[float]]:
    """A method that does nothing but send an event of the base type: call -> answer, call -> event."""
    url: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    loop, stop = asyncio.get_running_loop(), threading.Event()

    async def serve() -> None:
        server = Server()
        await server.init()
        server.set_endpoint("opc.tcp://127.0.0.1:0/bare")
        server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
        generator = await server.get_event_generator(ua.ObjectIds.BaseEventType, server.nodes.server.nodeid)

        async def called(_parent: ua.NodeId) -> list[ua.Variant]:
            await generator.trigger(message="done")
            return [ua.Variant(0, ua.VariantType.Int32)]

        await server.nodes.objects.add_method(ua.NodeId("bare", 1), "1:bare", called, [], [ua.VariantType.Int32])
        async with server:
            assert server.bserver is not None
            loop.call_soon_threadsafe(url.set_result, f"opc.tcp://127.0.0.1:{server.bserver.port}/bare")
            await asyncio.to_thread(stop.wait)

    thread = threading.Thread(target=lambda: asyncio.run(serve()), name="bare", daemon=True)
    thread.start()
    try:
        return await asyncio.to_thread(in_process, client_of_bare, await url, jobs)
    finally:
        stop.set()
        await asyncio.to_thread(thread.join)


async def client_of_bare(url: str, jobs: int) -> tuple[list[float], list[float]]:
    """The client's side of `bare`."""
    from asyncua import Client

    answered, told = [], []
    arrived = asyncio.Event()

    class Listener:
        def event_notification(self, _event: Any) -> None:
            arrived.set()

    async with Client(url) as client:
        subscription = await client.create_subscription(10, Listener())
        await subscription.subscribe_events()
        for _ in range(jobs):
            arrived.clear()
            began = time.perf_counter()
            await client.nodes.objects.call_method(ua.NodeId("bare", 1))
            answered.append(time.perf_counter() - began)
            await arrived.wait()
            told.append(time.perf_counter() - began)
    return answered, told


async def client_of_line(url: str, jobs: int) -> tuple[list[float], list[float]]:
    """Single jobs, one after another, each when the line is Ready again."""
    answered, told = [], []
    async with Peer(url) as peer:
        await peer.client.load_data_type_definitions()
        await peer.listen(1024)
        await peer.call("VisionStateMachine.SelectModeAutomatic")
        for index in range(jobs):
            began = time.perf_counter()
            await peer.call(START, *start_arguments(f"part{index}"))
            answered.append(time.perf_counter() - began)
            await peer.result_of(f"part{index}")
            told.append(time.perf_counter() - began)
            peer.events.clear()
            await peer.until_state("Ready")
    return answered, told


def _child(connection: Any, client: Any, url: str, jobs: int) -> None:
    connection.send(asyncio.run(client(url, jobs)))


def in_process(client: Any, url: str, jobs: int) -> tuple[list[float], list[float]]:
    """Runs a client in a process of its own."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(there, client, url, jobs))
    process.start()
    there.close()
    try:
        answered, told = here.recv()
    finally:
        process.join(30)
    return answered, told


def main() -> None:
    """Measures and prints the table."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--jobs", type=int, default=100)
    arguments.add_argument("--json", type=Path, default=None)
    given = arguments.parse_args()
    with ScriptedLine(judging=0.0) as line, tempfile.TemporaryDirectory() as store:
        sink = OpcUaSink(OpcUaOptions(kind="opcua", port=0, store=Path(store)), line, "line", line.alarm)
        line.attach(sink)
        answered, told = in_process(client_of_line, sink.url, given.jobs)
    bare_answered, bare_told = asyncio.run(bare(given.jobs))
    rows = [
        times("StartSingleJob -> answer", answered),
        times("StartSingleJob -> ResultReadyEvent", told),
        times("bare asyncua method -> answer", bare_answered),
        times("bare asyncua method -> event", bare_told),
    ]
    print(f"{given.jobs} jobs, subscription at 10 ms\n\n| | p50 ms | p95 ms |\n|---|---|---|")
    for row in rows:
        print(f"| {row.what} | {row.p50_ms:.2f} | {row.p95_ms:.2f} |")
    if given.json is not None:
        given.json.write_text(json.dumps([asdict(row) for row in rows], indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
