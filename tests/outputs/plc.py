"""A PLC for tests of the Modbus output, on two clients that know nothing of this project.

Addresses and types come from docs/modbus.md, as an integrator would take them from there; values are decoded by
pymodbus.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from inspection.outputs.modbus import ModbusSink
from inspection.outputs.modbus_map import Command, Status
from inspection.outputs.options import ModbusOptions
from inspection.outputs.sink import Message
from inspection.parts import PartResult, Trigger, ViewResult
from inspection.results import Defect, Inspection, Verdict
from tests.outputs.scripted_line import ScriptedLine

ModbusTcpClient = pytest.importorskip("pymodbus.client").ModbusTcpClient
ModbusClient = pytest.importorskip("pyModbusTCP.client").ModbusClient

DOCS = Path(__file__).parents[2] / "docs" / "modbus.md"
INTEGRATOR = DOCS.with_name("integrator.md")
WAIT = 20.0  # seconds; nothing takes so long unless it is broken


def documented() -> dict[str, tuple[int, int, str]]:
    """First register, how many, and type of every value, as the page says."""
    found = re.findall(r"^\| (\d+)(?:-(\d+))? \| `(\w+)` \| (u16|i16|u32|i32|f32|text)", DOCS.read_text(), re.M)
    return {name: (int(first), int(last or first) - int(first) + 1, kind) for first, last, name, kind in found}


MAP = documented()
RESULT_START = MAP["sequence"][0]
TYPES = ModbusTcpClient.DATATYPE
KINDS = {"u16": TYPES.UINT16, "i16": TYPES.INT16, "u32": TYPES.UINT32, "i32": TYPES.INT32, "f32": TYPES.FLOAT32}


def value(name: str, registers: Sequence[int], start: int = 0) -> Any:
    """One value out of registers that were read from `start` on."""
    address, count, kind = MAP[name]
    mine = list(registers[address - start : address - start + count])
    if kind == "text":
        return b"".join(register.to_bytes(2, "big") for register in mine).rstrip(b"\0").decode("ascii")
    return ModbusTcpClient.convert_from_registers(mine, KINDS[kind], word_order="big")


def registers(name: str, content: int | float | str) -> list[int]:
    """A value as the PLC writes it."""
    _, count, kind = MAP[name]
    if isinstance(content, str):
        padded = content.encode("ascii").ljust(2 * count, b"\0")
        return [int.from_bytes(padded[index : index + 2], "big") for index in range(0, 2 * count, 2)]
    return list(ModbusTcpClient.convert_to_registers(content, KINDS[kind], word_order="big"))


def until(done: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + WAIT
    while not done():
        assert time.monotonic() < end, what
        time.sleep(0.001)


class Plc:
    """A PLC's program, on pyModbusTCP."""

    def __init__(self, port: int, *, unit: int = 1) -> None:
        self.client = ModbusClient(host="127.0.0.1", port=port, unit_id=unit, timeout=WAIT)

    def read(self, first: str, last: str | None = None) -> list[int]:
        start = MAP[first][0]
        end, count, _ = MAP[last or first]
        got = self.client.read_holding_registers(start, end + count - start)
        assert got is not None, self.client.last_error_as_txt + self.client.last_except_as_txt
        return list(got)

    def get(self, name: str) -> Any:
        return value(name, self.read(name), MAP[name][0])

    def result(self) -> dict[str, Any]:
        """The result, in one request."""
        got = self.read("sequence", "sequence_again")
        return {name: value(name, got, RESULT_START) for name, (start, _, _) in MAP.items() if 32 <= start < 200}

    def status(self) -> Status:
        return Status(self.get("status"))

    def put(self, name: str, content: int | str) -> None:
        assert self.client.write_multiple_registers(MAP[name][0], registers(name, content)), self.client.last_except

    def command(self, bits: Command) -> None:
        """Raises bits and lowers them again."""
        self.put("command", int(bits))
        self.put("command", 0)

    def until(self, bit: Status, standing: bool = True) -> None:
        until(lambda: (bit in self.status()) is standing, f"{bit!r} never became {standing}")

    def take(self) -> dict[str, Any]:
        """Waits for the next result, reads it and acknowledges it, in four steps."""
        self.until(Status.RESULTS_READY)
        got = self.result()
        self.put("acknowledge", got["sequence"])
        self.put("command", Command.ACKNOWLEDGE)
        self.until(Status.RESULTS_READY, False)
        self.put("command", 0)
        return got


@contextmanager
def serving(line: ScriptedLine, **options: Any) -> Iterator[tuple[ModbusSink, Plc]]:
    """The line's Modbus output, and a PLC that is wired to it."""
    made = ModbusOptions.model_validate({"kind": "modbus", "port": 0, "heartbeat": 0.02} | options)
    sink = ModbusSink(made, line, line.name, line.alarm)
    line.attach(sink)
    plc = Plc(sink.port)
    try:
        yield sink, plc
    finally:
        plc.client.close()
        line.detach(sink)


def message(result: PartResult, sequence: int) -> Message:
    return Message(kind="result", sequence=sequence, wall=0.0, body=result.to_dict(), result=result)


def part(number: int, *views: ViewResult, verdict: Verdict = Verdict.OK, **more: Any) -> PartResult:
    trigger = Trigger(
        number=number, part=f"serial {number}", product="bolt", at=0.0, wall=0.0, lot=more.pop("lot", None)
    )
    given: dict[str, Any] = {"verdict": verdict, "decided": 0.1, "deadline": 1.0, "recipe": "bolt", "recipe_hash": "b0"}
    return PartResult(trigger=trigger, views=views, **(given | more))


def view(name: str, verdict: Verdict, score: float = 0.5, *defects: Defect) -> ViewResult:
    judged = Inspection(name=name, verdict=verdict, score=score, size=(64, 48), defects=defects)
    return ViewResult(view=name, verdict=verdict, inspections=(judged,), defects=defects)
