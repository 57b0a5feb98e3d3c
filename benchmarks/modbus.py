"""What the PLC's handshake costs: from the write of TRIGGER to the acknowledged result, beside single requests, and
beside pymodbus's own server with the same requests; all in one run, in turn, so that the ratios hold on any machine.

The PLC is pyModbusTCP in a process of its own. The line behind the door gives its verdict at once, so that what is
measured is the door alone.

python -m benchmarks.modbus [--cycles 500] [--rounds 3] [--json FILE]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from inspection.outputs.modbus import ModbusSink
from inspection.outputs.modbus_map import REGISTERS, RESULT, Command, Status
from inspection.outputs.options import ModbusOptions
from tests.outputs.scripted_line import ScriptedLine

STATUS_AND_RESULT = RESULT[-1].end


@dataclass(frozen=True, kw_only=True, slots=True)
class Times:
    """One kind of round trip; medians over the rounds, in milliseconds."""

    what: str
    p50_ms: float
    p99_ms: float
    requests: float  # of each round trip


def repeat(cycle: Callable[[], int], count: int) -> list[tuple[float, int]]:
    """Seconds and requests of each."""
    took = []
    for _ in range(count):
        began = time.perf_counter()
        requests = cycle()
        took.append((time.perf_counter() - began, requests))
    return took


def client(port: int, cycles: int, *, bare: bool) -> dict[str, list[tuple[float, int]]]:
    """The PLC: each kind of round trip, `cycles` times."""
    from pyModbusTCP.client import ModbusClient  # type: ignore[import-untyped]

    plc = ModbusClient(host="127.0.0.1", port=port, timeout=30.0)
    command = REGISTERS["command"].address

    def write() -> int:
        if not plc.write_multiple_registers(REGISTERS["recipe_in"].address, [0]):
            raise SystemExit(plc.last_error_as_txt)
        return 1

    def read() -> list[int]:
        got = plc.read_holding_registers(0, STATUS_AND_RESULT)
        if got is None:
            raise SystemExit(plc.last_error_as_txt)
        return list(got)

    def poll(ready: bool) -> int:
        for requests in range(1, 100_000):
            if bool(read()[REGISTERS["status"].address] & Status.RESULTS_READY) is ready:
                return requests
        raise SystemExit("there is no result")

    def result() -> int:
        plc.write_single_register(command, Command.TRIGGER)
        return 1 + poll(True)

    def handshake() -> int:
        requests = result()
        plc.write_single_register(command, Command.ACKNOWLEDGE)
        requests += 1 + poll(False)
        plc.write_single_register(command, 0)
        return requests + 1

    def until_result() -> int:
        """The handshake too, but only the way to the result is timed."""
        began = time.perf_counter()
        requests = result()
        way.append((time.perf_counter() - began, requests))
        plc.write_single_register(command, Command.ACKNOWLEDGE)
        poll(False)
        plc.write_single_register(command, 0)
        return requests

    way: list[tuple[float, int]] = []
    repeat(write, 20)
    times = {
        "write of one register": repeat(write, cycles),
        f"read of {STATUS_AND_RESULT} registers": repeat(lambda: len(read()) // STATUS_AND_RESULT, cycles),
    }
    if not bare:
        repeat(until_result, cycles)
        times["TRIGGER to the result that the PLC has read"] = way
        times["the whole handshake, acknowledged and lowered"] = repeat(handshake, cycles)
    plc.close()
    return times


@contextmanager
def pymodbus_server() -> Iterator[int]:
    """pymodbus's own server with as many registers, on a thread of its own."""
    started: list[ModbusTcpServer] = []
    ready = threading.Event()

    async def serve() -> None:
        memory = SimDevice(1, [SimData(0, count=300, datatype=DataType.REGISTERS)])
        server = ModbusTcpServer(memory, address=("127.0.0.1", 0))
        await server.serve_forever(background=True)
        started.append(server)
        ready.set()
        await server.serving

    thread = threading.Thread(target=asyncio.run, args=(serve(),), daemon=True)
    thread.start()
    ready.wait(30)
    server = started[0]
    yield server.transport.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
    asyncio.run_coroutine_threadsafe(server.shutdown(), server.loop).result(30)  # type: ignore[no-untyped-call]
    thread.join(30)


def as_plc(port: int, cycles: int, *, bare: bool) -> dict[str, list[tuple[float, int]]]:
    """Runs `client` in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.modbus", "--client", str(port), "--cycles", str(cycles)]
    done = subprocess.run(command + ["--bare"] * bare, capture_output=True, text=True, check=True)
    times: dict[str, list[tuple[float, int]]] = json.loads(done.stdout)
    return times


def measure(cycles: int, rounds: int) -> list[Times]:
    """Both servers in turn, `rounds` times."""
    options = ModbusOptions(kind="modbus", port=0, acknowledge=4.0)
    runs: dict[str, list[list[tuple[float, int]]]] = {}
    with ScriptedLine(judging=0.0, running=True) as line, pymodbus_server() as other:
        sink = ModbusSink(options, line, line.name, line.alarm)
        line.attach(sink)
        for _ in range(rounds):
            for what, times in as_plc(other, cycles, bare=True).items():
                runs.setdefault(f"pymodbus's server: {what}", []).append(times)
            for what, times in as_plc(sink.port, cycles, bare=False).items():
                runs.setdefault(what, []).append(times)
    return [
        Times(
            what=what,
            p50_ms=float(np.median([np.percentile([took for took, _ in some], 50) for some in all_of_it])) * 1e3,
            p99_ms=float(np.median([np.percentile([took for took, _ in some], 99) for some in all_of_it])) * 1e3,
            requests=float(np.mean([requests for some in all_of_it for _, requests in some])),
        )
        for what, all_of_it in runs.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.modbus", description=__doc__)
    parser.add_argument("--cycles", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--client", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--bare", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.client is not None:
        print(json.dumps(client(given.client, given.cycles, bare=given.bare)))
        return
    times = measure(given.cycles, given.rounds)
    for one in times:
        print(f"{one.what:60} p50 {one.p50_ms:7.2f} ms  p99 {one.p99_ms:7.2f} ms  {one.requests:4.1f} requests")
    if given.json:
        given.json.write_text(json.dumps([asdict(one) for one in times], indent=2) + "\n")


if __name__ == "__main__":
    main()
