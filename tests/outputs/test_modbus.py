"""The PLC's handshake, over real sockets, with two clients that know nothing of this project.

Addresses and types come from docs/modbus.md, as an integrator would take them from there; values are decoded by
pymodbus.
"""

from __future__ import annotations

import itertools
import math
import random
import re
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from inspection.control import LineState
from inspection.errors import InferenceFailed
from inspection.line.line import Line
from inspection.outputs import modbus_map
from inspection.outputs.modbus import ModbusSink
from inspection.outputs.modbus_map import Command, Refusal, Status
from inspection.outputs.modbus_tcp import answer
from inspection.outputs.options import ModbusOptions
from inspection.outputs.sink import DeliveryFailed, Message
from inspection.parts import PartResult, Trigger, ViewResult
from inspection.results import Defect, Inspection, Verdict
from tests.line import plant
from tests.outputs.scripted_line import ScriptedLine

pytestmark = pytest.mark.line

ModbusTcpClient = pytest.importorskip("pymodbus.client").ModbusTcpClient
ModbusClient = pytest.importorskip("pyModbusTCP.client").ModbusClient

DOCS = Path(__file__).parents[2] / "docs" / "modbus.md"
INTEGRATOR = DOCS.with_name("integrator.md")
WAIT = 20.0  # seconds; nothing takes so long unless it is broken
VERDICTS = {1: "OK", 2: "NG", 3: "REVIEW", 4: "ERROR"}


def documented() -> dict[str, tuple[int, int, str]]:
    """First register, how many, and type of every value, as the page says."""
    found = re.findall(r"^\| (\d+)(?:-(\d+))? \| `(\w+)` \| (u16|i16|u32|i32|f32|text)", DOCS.read_text(), re.M)
    return {name: (int(first), int(last or first) - int(first) + 1, kind) for first, last, name, kind in found}


MAP = documented()
RESULT_START, RESULT_COUNT = MAP["sequence"][0], MAP["sequence_again"][0] - MAP["sequence"][0] + 1
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


# The page.


def test_the_page_prints_the_map_that_is_served() -> None:
    page = DOCS.read_text()
    printed = page.partition("<!-- map -->\n")[2].partition("<!-- end of map -->")[0]
    assert printed == modbus_map.tables(), "print it anew: python -m inspection.outputs.modbus_map"
    assert f"Version {modbus_map.VERSION}," in page


def test_no_two_values_share_a_register_and_status_and_result_fit_one_request() -> None:
    used = [start + index for start, count, _ in MAP.values() for index in range(count)]
    assert len(used) == len(set(used))
    assert max(one.end for one in modbus_map.RESULT) <= 125
    assert min(MAP.values())[0] == MAP["version"][0] == 0
    assert len(set(modbus_map.CODES.values())) == len(modbus_map.CODES)
    assert all(0 < number < modbus_map.OTHER_CODE for number in modbus_map.CODES.values())


def test_every_error_and_alarm_of_the_line_has_a_number() -> None:
    source = "\n".join(file.read_text() for file in (DOCS.parents[1] / "inspection").rglob("*.py"))
    used = re.findall(r'^    code(?:: [^=]+)? = "([a-z-]+)"$|alarm\(\s*"([a-z-]+)"', source, re.M)
    codes = {one or other for one, other in used} - {"error"}  # the base class's, which nobody raises
    assert len(codes) > 30
    assert codes <= modbus_map.CODES.keys(), "give them numbers in inspection/outputs/modbus_map.py"


def test_the_integrators_page_names_numbers_of_this_map() -> None:
    named = re.findall(r"(\d+) \(`([a-z-]+)`\)", INTEGRATOR.read_text())
    assert len(named) >= 2
    assert {code: int(number) for number, code in named}.items() <= modbus_map.CODES.items()


# The handshake.


def test_the_timing_diagram_of_the_integrators_page_is_what_happens() -> None:
    diagram = INTEGRATOR.read_text().partition("<!-- timing -->")[2].partition("<!-- end of timing -->")[0]
    lines = dict(re.findall(r"^(?:PLC|line) +(\w+) +([_/\\‾]+)$", diagram, re.M))
    drawn = sorted(
        (column, name, mark == "/") for name, wave in lines.items() for column, mark in enumerate(wave) if mark in "/\\"
    )
    assert [sum(name == one for _, name, _ in drawn) for one in lines] == [2] * 5
    seen: list[tuple[str, bool]] = []
    now = dict.fromkeys(lines, False)

    with ScriptedLine(running=True) as line, serving(line, acknowledge=4.0) as (_, plc):

        def look() -> None:
            got = plc.read("version", "sequence")
            status, echo = Status(value("status", got)), Command(value("echo", got))
            new = {"echo": Command.TRIGGER in echo, "BUSY": Status.BUSY in status}
            for name, standing in (new | {"RESULTS_READY": Status.RESULTS_READY in status}).items():
                note(name, standing)

        def note(name: str, standing: bool) -> None:
            if now[name] is not standing:
                now[name] = standing
                seen.append((name, standing))

        def write(bit: Command, standing: bool) -> None:
            note(str(bit.name), standing)
            plc.put("command", bit if standing else 0)
            look()

        line.open_gate.clear()
        write(Command.TRIGGER, True)
        write(Command.TRIGGER, False)
        line.open_gate.set()
        until(lambda: look() or now["RESULTS_READY"], "no result")  # type: ignore[func-returns-value]
        write(Command.ACKNOWLEDGE, True)
        write(Command.ACKNOWLEDGE, False)
    assert sorted(seen) == sorted((name, rises) for _, name, rises in drawn)
    order = {edge: index for index, edge in enumerate(seen)}
    for (first, name, rises), (second, other, falls) in itertools.combinations(drawn, 2):
        assert first == second or order[name, rises] < order[other, falls], f"{other} before {name}: {seen}"


@pytest.mark.slow
def test_the_handshake_brings_200_verdicts_in_order_and_each_is_read_right() -> None:
    chance = random.Random(5)
    wanted = [chance.choice(list(VERDICTS.values())) for _ in range(200)]
    with (
        ScriptedLine(judging=0.0, running=True) as line,
        serving(line, acknowledge=4.0, classes=["dent", "scratch"]) as (
            _,
            plc,
        ),
    ):
        for index, verdict in enumerate(wanted, start=1):
            plc.until(Status.TRIGGER_READY)
            plc.put("serial_in", f"P{index}-{verdict}")
            plc.put("lot_in", f"lot {index % 7}")
            plc.put("command", Command.TRIGGER)
            assert plc.get("accepted") == index
            got = plc.take()
            assert (got["number"], got["sequence"], got["sequence_again"]) == (index, index, index)
            assert (VERDICTS[got["verdict"]], got["serial"]) == (verdict, f"P{index}-{verdict}")
            assert got["lot"] == f"lot {index % 7}"
            bits = plc.status() & (Status.OK | Status.NG | Status.REVIEW | Status.ERROR)
            assert (
                bits
                == {
                    "OK": Status.OK,
                    "NG": Status.NG,
                    "REVIEW": Status.REVIEW,
                    "ERROR": Status.ERROR | Status.NG,
                }[verdict]
            )
            assert got["class"] == (1 if verdict == "NG" else -1)
            assert got["code"] == (10 if verdict == "ERROR" else 0)
            expected = {"OK": 0.25, "NG": 0.875, "REVIEW": 0.5}.get(verdict)
            assert math.isnan(got["score"]) if expected is None else got["score"] == expected
        counts = {name: plc.get(name) for name in ("triggers", "ok", "ng", "review", "error", "in_flight")}
        assert counts == {
            "triggers": 200,
            "in_flight": 0,
            **{name.lower(): wanted.count(name) for name in VERDICTS.values()},
        }
        assert plc.get("unacknowledged") == 0
        assert plc.get("refused") == 0


def test_two_triggers_before_the_first_result_become_two_parts_in_order() -> None:
    with ScriptedLine(running=True) as line, serving(line, acknowledge=4.0) as (_, plc):
        line.open_gate.clear()
        for serial in ("first-NG", "second"):
            plc.put("serial_in", serial)
            plc.command(Command.TRIGGER)
        assert Status.BUSY in plc.status()
        assert plc.get("in_flight") == 2
        line.open_gate.set()
        assert [plc.take()["serial"] for _ in range(2)] == ["first-NG", "second"]
        plc.until(Status.BUSY, False)


def test_everything_in_one_request_is_taken_before_the_trigger_that_it_carries() -> None:
    with ScriptedLine(running=True) as line, serving(line) as (_, plc):
        block = [int(Command.TRIGGER), 0, 0, 0, *registers("encoder_in", 70_000), *registers("serial_in", "A1-NG")]
        assert plc.client.write_multiple_registers(200, [*block, *registers("lot_in", "monday")])
        plc.until(Status.RESULTS_READY)
        got = plc.result()
        assert (got["serial"], got["lot"], got["encoder"], got["verdict"]) == ("A1-NG", "monday", 70_000, 2)
        assert line.encoder == 70_000


def test_a_trigger_that_is_written_in_every_cycle_makes_one_part_until_it_was_lowered() -> None:
    with ScriptedLine(running=True) as line, serving(line) as (_, plc):
        for _ in range(5):
            plc.put("command", Command.TRIGGER)
            assert plc.get("echo") == Command.TRIGGER
        assert plc.get("triggers") == 1
        plc.put("command", 0)
        plc.put("command", Command.TRIGGER)
        assert plc.get("triggers") == 2


def test_requests_sent_without_waiting_are_all_carried_out_in_order() -> None:
    requests = [struct.pack(">HHHBBHH", index, 0, 6, 1, 6, 200, index % 2) for index in range(1, 101)]
    with ScriptedLine(running=True) as line, serving(line) as (sink, plc):
        with socket.create_connection(("127.0.0.1", sink.port), timeout=WAIT) as plain:
            plain.sendall(b"".join(requests))
            answers = plain.makefile("rb").read(12 * len(requests))
        assert answers == b"".join(requests)  # a write of one register is answered by itself
        assert plc.get("accepted") == 50


def test_triggers_while_stopped_are_refused_where_the_plc_sees_it() -> None:
    with ScriptedLine() as line, serving(line) as (_, plc):
        assert plc.get("state") == 1
        assert Status.TRIGGER_READY not in plc.status()
        for count in (1, 2):
            plc.command(Command.TRIGGER)
            assert Status.REFUSED in plc.status()
            assert plc.get("refusal") == Refusal.NOT_READY
            assert plc.get("refused") == count
        assert plc.get("triggers") == plc.get("accepted") == 0
        plc.command(Command.START)
        assert Status.REFUSED not in plc.status()
        assert plc.get("refusal") == Refusal.NONE
        plc.until(Status.TRIGGER_READY)
        plc.command(Command.TRIGGER)
        assert plc.get("accepted") == 1


def test_commands_in_one_request_are_carried_out_in_the_order_that_the_page_names() -> None:
    with ScriptedLine() as line, serving(line) as (_, plc):
        plc.put("command", Command.TRIGGER | Command.START)
        assert (plc.get("state"), plc.get("accepted"), plc.get("refused")) == (2, 1, 0)
        plc.until(Status.RESULTS_READY)
        plc.put("command", 0)
        plc.command(Command.TRIGGER | Command.STOP | Command.ACKNOWLEDGE)
        assert Status.RESULTS_READY not in plc.status()
        assert (plc.get("state"), plc.get("accepted"), plc.get("refusal")) == (1, 1, Refusal.NOT_READY)
        named = re.search(r"in the order\s+([A-Z, ]+),", DOCS.read_text())
        assert named is not None
        assert named[1].split(", ") == [command.name for command in modbus_map.ORDER]


def test_start_stop_and_reset_lead_through_the_states() -> None:
    with ScriptedLine() as line, serving(line) as (_, plc):
        plc.command(Command.START)
        until(lambda: plc.get("state") == 2, "it never ran")
        line.open_gate.clear()
        plc.command(Command.TRIGGER)
        plc.command(Command.STOP)
        until(lambda: plc.get("state") == 3, "it never drained")
        line.open_gate.set()
        until(lambda: plc.get("state") == 1, "it never stopped")
        assert plc.result()["verdict"] == 1
        line.fail(InferenceFailed("the device is lost."))
        assert plc.get("state") == 4
        assert Status.FAULT in plc.status()
        assert plc.get("problem") == modbus_map.CODES["inference-failed"]
        plc.until(Status.ALARM)
        assert plc.get("alarm") == modbus_map.CODES["inference-failed"]
        assert plc.get("alarms") == 1
        plc.command(Command.START)
        assert plc.get("refusal") == Refusal.NOT_READY
        plc.command(Command.RESET)
        line.until(LineState.STOPPED)
        assert not plc.status() & (Status.FAULT | Status.ALARM | Status.REFUSED)
        assert (plc.get("problem"), plc.get("alarm")) == (0, 0)


def test_recipes_are_changed_by_index_and_what_cannot_be_changed_is_refused() -> None:
    with ScriptedLine(running=True, warming=0.05, broken=["washer"]) as line, serving(line) as (_, plc):
        assert plc.get("recipe") == 0
        plc.put("recipe_in", 1)
        plc.command(Command.CHANGE)
        assert plc.get("refusal") == Refusal.NONE
        until(lambda: plc.get("recipe") == 1, "the recipe never took over")
        assert (plc.get("changing_to"), Status.CHANGING in plc.status()) == (-1, False)
        plc.command(Command.TRIGGER)
        plc.until(Status.RESULTS_READY)
        assert plc.get("judged_by") == 1
        for index, reason in ((7, Refusal.NO_SUCH_RECIPE), (2, Refusal.RECIPE_INVALID)):
            plc.put("recipe_in", index)
            plc.command(Command.CHANGE)
            assert plc.get("refusal") == reason
        assert plc.get("recipe") == 1
        assert line.alarms[-1][0] == "config-invalid"


def test_a_recipe_that_is_being_loaded_is_shown_until_it_takes_over() -> None:
    with ScriptedLine(running=True, warming=1.0) as line, serving(line) as (_, plc):
        plc.put("recipe_in", 1)
        plc.command(Command.CHANGE)
        assert (plc.get("changing_to"), Status.CHANGING in plc.status()) == (1, True)
        until(lambda: plc.get("changing_to") == -1, "it is loading for ever")
        assert plc.get("recipe") == 1


def test_the_encoder_turns_the_line_and_may_wrap() -> None:
    with ScriptedLine(running=True) as line, serving(line) as (_, plc):
        counts = [2**32 - 100, 2**32 - 1, 50, 40, 2**31, 2**32 - 1, 7]
        seen = []
        for count in counts:
            plc.put("encoder_in", count)
            seen.append(line.encoder)
        assert [one % 2**32 for one in seen if one is not None] == counts
        steps = [after - before for before, after in itertools.pairwise(one for one in seen if one is not None)]
        assert steps == [99, 51, -10, 2**31 - 40, 2**31 - 1, 8]
        plc.command(Command.TRIGGER)
        plc.until(Status.RESULTS_READY)
        assert plc.get("encoder") == 7


# Acknowledgement.


def test_a_result_that_is_not_acknowledged_in_time_is_not_delivered_and_stands_there_until_the_next() -> None:
    alarms: list[tuple[str, str]] = []
    with ScriptedLine(running=True) as line:
        options = ModbusOptions(kind="modbus", port=0, acknowledge=0.05)
        sink = ModbusSink(options, line, "line", lambda code, text: alarms.append((code, text)))
        sink.open()
        plc = Plc(sink.port)
        try:
            for _ in range(2):  # the courier tries again: the same result, not a new one
                with pytest.raises(DeliveryFailed, match=r"part 7: the PLC has not acknowledged it within 0\.05 s"):
                    sink.deliver(message(part(7), 70))
                assert (plc.get("sequence"), plc.get("number")) == (1, 7)
                assert Status.RESULTS_READY in plc.status()
            with pytest.raises(DeliveryFailed, match="part 8"):
                sink.deliver(message(part(8), 80))
            assert (plc.get("sequence"), plc.get("number"), plc.get("unacknowledged")) == (2, 8, 1)
            assert alarms == [("result-unacknowledged", "The PLC never acknowledged the result of part 7.")]
            plc.command(Command.ACKNOWLEDGE)
            sink.deliver(message(part(8), 80))  # acknowledged between two tries
            assert (plc.get("sequence"), plc.get("unacknowledged")) == (2, 1)
        finally:
            plc.client.close()
            sink.close()


def test_a_result_of_this_run_is_shown_after_one_of_the_run_before_with_the_same_sequence() -> None:
    with ScriptedLine(running=True) as line, serving(line) as (sink, plc):
        sink.deliver(replace(message(part(7), 3), wall=1.7e9))  # from the spool
        assert (plc.get("sequence"), plc.get("number"), plc.get("verdict")) == (1, 7, 1)
        later = replace(message(part(8, verdict=Verdict.NG), 3), wall=1.8e9)
        sink.deliver(later)
        assert (plc.get("sequence"), plc.get("number"), plc.get("verdict")) == (2, 8, 2)
        sink.deliver(later)  # tried again
        assert plc.get("sequence") == 2


def test_the_next_result_waits_until_the_plc_has_lowered_its_acknowledgement() -> None:
    with ScriptedLine(running=True) as line, serving(line, acknowledge=4.0) as (_, plc):
        plc.command(Command.TRIGGER)
        plc.command(Command.TRIGGER)
        plc.until(Status.RESULTS_READY)
        plc.put("command", Command.ACKNOWLEDGE)
        until(lambda: line.counters()["line"]["in_flight"] == 0, "the second part has no verdict")
        for _ in range(20):
            assert (plc.get("number"), Status.RESULTS_READY in plc.status()) == (1, False)
        plc.put("command", 0)
        plc.until(Status.RESULTS_READY)
        assert plc.take()["number"] == 2


def test_a_plc_that_holds_its_acknowledgement_is_named_as_the_reason() -> None:
    with ScriptedLine(running=True) as line, serving(line, acknowledge=0.05) as (sink, plc):
        plc.put("command", Command.ACKNOWLEDGE)
        assert plc.get("refusal") == Refusal.NOTHING_TO_ACKNOWLEDGE
        with pytest.raises(DeliveryFailed, match="never lowers ACKNOWLEDGE"):
            sink.deliver(message(part(1), 10))
        assert plc.get("sequence") == 0


def test_without_acknowledgement_the_next_result_replaces_the_last_and_is_counted() -> None:
    with ScriptedLine(running=True) as line, serving(line) as (_, plc):
        for number in (1, 2, 3):
            plc.command(Command.TRIGGER)
            until(lambda number=number: plc.get("sequence") == number, "no result")  # type: ignore[misc]
        assert plc.get("unacknowledged") == 2
        assert line.alarms == []
        plc.put("acknowledge", 2)  # of the one before: it came too late
        plc.command(Command.ACKNOWLEDGE)
        assert plc.get("refusal") == Refusal.OTHER_RESULT
        assert Status.RESULTS_READY in plc.status()
        assert plc.take()["number"] == 3


def test_the_gate_waits_for_an_acknowledgement_no_longer_than_the_deadline() -> None:
    with ScriptedLine(running=True) as line, serving(line, acknowledge=4.0, gate=True) as (sink, _):
        began = time.monotonic()
        with pytest.raises(DeliveryFailed):
            sink.deliver(replace(message(part(1), 10), deadline=began + 0.05))
        assert time.monotonic() - began < 4.0


def test_closing_ends_a_delivery_that_waits() -> None:
    failed: list[DeliveryFailed] = []
    with ScriptedLine(running=True) as line:
        sink = ModbusSink(
            ModbusOptions(kind="modbus", port=0, timeout=99.0, acknowledge=90.0), line, "line", line.alarm
        )
        sink.open()
        plc = Plc(sink.port)

        def deliver() -> None:
            try:
                sink.deliver(message(part(1), 10))
            except DeliveryFailed as error:
                failed.append(error)

        thread = threading.Thread(target=deliver, daemon=True)
        thread.start()
        plc.until(Status.RESULTS_READY)
        sink.close()
        sink.close()
        thread.join(WAIT)
        assert not thread.is_alive()
        assert len(failed) == 1
        assert not [one for one in threading.enumerate() if one.name.startswith("modbus")]
        plc.client.close()


def test_an_acknowledgement_longer_than_a_try_is_refused_with_the_recipe() -> None:
    with pytest.raises(ValidationError, match="acknowledge"):
        ModbusOptions(kind="modbus", acknowledge=5.0)


# The line itself.


@pytest.mark.slow
def test_the_real_line_takes_triggers_and_gives_the_verdicts_of_its_images(tmp_path: Path) -> None:
    bad = {"top": [False, True, False, False], "side": [False, False, False, True]}
    for name, images in bad.items():
        plant.images(tmp_path / name, images)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    output = {"kind": "modbus", "port": port, "gate": True, "acknowledge": 4.0, "classes": ["defect"]}
    file = plant.recipe(tmp_path, outputs=[output])
    plant.recipe(tmp_path, name="tablet", outputs=[output])
    with Line(file) as line:
        plant.until(lambda: line.outlets.couriers["modbus"].state == "connected", what="it listens")
        plc = Plc(port)
        plc.command(Command.TRIGGER)
        assert (plc.get("refusal"), plc.get("state")) == (Refusal.NOT_READY, 1)
        plant.until(lambda: all(one["state"] == "streaming" for one in line.cameras.facts().values()), what="cameras")
        plc.command(Command.START)
        for index in range(8):
            plc.put("serial_in", f"S{index}")
            plc.put("command", Command.TRIGGER)
            plc.put("command", 0)
            got = plc.take()
            views = [bad[name][index % 4] for name in ("side", "top")]  # in the order of the recipe's file
            assert (got["number"], got["serial"], got["judged_by"]) == (index + 1, f"S{index}", 0)
            assert (got["verdict"], got["defects"]) == (2 if any(views) else 1, sum(views)), got
            assert got["views_ng"] == views[0] << 0 | views[1] << 1
            assert got["worst_view"] == (views.index(True) if any(views) else -1)
            if any(views):
                assert (got["worst_x"], got["worst_y"]) == (16, 16)
        assert [plc.get(name) for name in ("triggers", "ok", "ng", "in_flight")] == [8, 4, 4, 0]
        plc.put("recipe_in", 1)
        plc.command(Command.CHANGE)
        until(lambda: plc.get("recipe") == 1, "the recipe never took over")
        plc.command(Command.TRIGGER)
        assert plc.take()["judged_by"] == 1
        plc.command(Command.STOP)
        until(lambda: plc.get("state") == 1, "it never stopped")
        assert line.counters()["output modbus"]["late"] == 0
        plc.client.close()


# What is read.


def test_the_result_says_which_views_and_where_the_worst_defect_is() -> None:
    small = Defect(kind="dent", score=1.5, box=(1, 2, 3, 4), area=9)
    large = Defect(kind="scratch", score=1e39, box=(70_000, 20, 300, 5), area=900)
    result = part(
        2**32 + 5,
        view("a", Verdict.OK, 0.1),
        view("b", Verdict.NG, 1.5, small),
        view("c", Verdict.REVIEW, -3.25),
        ViewResult(view="d", verdict=Verdict.ERROR, code="frame-lost", reason="lost."),
        view("e", Verdict.NG, 2.5, small, large),
        verdict=Verdict.NG,
        kind="crack",
        lot="Ä" + "x" * 40,
        seconds={"last_frame": 0.0304, "decided": 0.0446},
    )
    with ScriptedLine(running=True) as line, serving(line, classes=["dent"]) as (sink, plc):
        before = plc.result()
        assert (before["sequence"], before["verdict"], before["class"], before["worst_view"]) == (0, 0, -1, -1)
        assert math.isnan(before["score"])
        sink.deliver(message(result, 1))
        got = plc.result()
    assert got["number"] == 5
    assert (got["views"], got["views_ok"], got["views_ng"]) == (5, 0b00001, 0b10010)
    assert (got["views_review"], got["views_error"]) == (0b00100, 0b01000)
    assert (got["defects"], got["worst_view"], got["worst_score"]) == (3, 4, math.inf)
    assert [got[f"worst_{name}"] for name in ("x", "y", "width", "height")] == [65535, 20, 300, 5]
    assert (got["score"], got["class"]) == (2.5, 32767)
    assert (got["last_frame_ms"], got["decided_ms"]) == (30, 45)
    assert (got["serial"], got["lot"]) == (f"serial {2**32 + 5}", "?" + "x" * 31)


@pytest.fixture
def restless() -> Iterator[None]:
    """Threads are interrupted a thousand times more often than usual."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(5e-6)
    yield
    sys.setswitchinterval(usual)


@pytest.mark.slow
@pytest.mark.usefixtures("restless")
def test_a_client_that_polls_as_fast_as_it_can_never_sees_a_mixed_result() -> None:
    def consistent(got: dict[str, Any]) -> bool:
        number = got["number"]
        return bool(
            got["sequence"] == got["sequence_again"] == (number - 1) % 65535 + 1
            and got["serial"] == f"serial {number}"
            and got["score"] == number
            and got["lot"] == str(number)
            and got["decided_ms"] == number
        )

    enough = threading.Event()
    with ScriptedLine(running=True) as line, serving(line) as (sink, plc):

        def deliver() -> None:
            for number in itertools.count(1):
                judged = view("a", Verdict.OK, float(number))
                sink.deliver(message(part(number, judged, lot=str(number), seconds={"decided": number / 1000}), number))
                if enough.is_set():
                    return

        writer = threading.Thread(target=deliver, daemon=True)
        writer.start()
        until(lambda: plc.get("sequence") > 0, "no result")
        whole, split = set(), 0
        for _ in range(800):
            got = plc.result()
            assert consistent(got), got
            whole.add(got["number"])
            halves = plc.read("sequence", "worst_score") + plc.read("serial", "sequence_again")
            got = {name: value(name, halves, 32) for name, (start, _, _) in MAP.items() if 32 <= start < 200}
            if got["sequence"] == got["sequence_again"]:
                assert consistent(got), got
                split += 1
        enough.set()
        writer.join(WAIT)
        assert not writer.is_alive()
        assert len(whole) > 20
        assert consistent(plc.result())


def test_after_65535_the_sequence_is_1_because_0_says_that_there_was_no_result() -> None:
    with ScriptedLine(running=True) as line, serving(line) as (sink, plc):
        sink._put("sequence", 65534)  # 65534 results later
        for number, sequence in ((1, 65535), (2, 1), (3, 2)):
            sink.deliver(message(part(number), number))
            got = plc.result()
            assert (got["number"], got["sequence"], got["sequence_again"]) == (number, sequence, sequence)


def test_the_heartbeat_counts_while_the_line_answers_and_stops_while_it_does_not() -> None:
    def broken() -> dict[str, dict[str, int]]:
        asked.append(1)
        raise RuntimeError("no counters")

    asked: list[int] = []
    with ScriptedLine(running=True) as line, serving(line) as (_, plc):
        first = plc.get("heartbeat")
        until(lambda: plc.get("heartbeat") != first, "no heartbeat")
        line.counters = broken  # type: ignore[method-assign]
        until(lambda: len(asked) > 3, "it was not asked again")
        assert plc.client.read_holding_registers(MAP["heartbeat"][0], 1) is None  # closed: nothing old is told as new
        told = [text for code, text in line.alarms if code == "modbus-failed"]
        assert len(told) == 1
        assert "RuntimeError: no counters" in told[0]
        del line.counters
        last = plc.get("heartbeat")
        until(lambda: plc.get("heartbeat") != last, "it did not come back")


def test_the_plc_is_missed_when_its_own_heartbeat_stands_still() -> None:
    with ScriptedLine(running=True) as line, serving(line, watchdog=0.1) as (sink, plc):
        plc.until(Status.PLC_LOST)
        assert [code for code, _ in line.alarms] == ["plc-lost"]
        with pytest.raises(DeliveryFailed, match="heartbeat stands still"):
            sink.deliver(message(part(1), 10))
        beats = itertools.count(1)

        def back() -> bool:
            plc.put("plc_heartbeat", next(beats))
            return Status.PLC_LOST not in plc.status()

        until(back, "it is still missed")
        plc.put("plc_heartbeat", next(beats))
        sink.deliver(message(part(1), 10))
        same = next(beats)

        def still() -> bool:
            plc.put("plc_heartbeat", same)
            return Status.PLC_LOST in plc.status()

        until(still, "the same value, written again and again, counts as life")


def test_the_line_goes_on_when_the_plc_leaves_and_its_state_is_right_when_it_comes_back() -> None:
    with ScriptedLine(running=True) as line, serving(line, acknowledge=4.0) as (_, plc):
        line.open_gate.clear()
        plc.put("serial_in", "left-NG")
        plc.put("command", Command.TRIGGER)
        plc.client.close()
        line.open_gate.set()
        until(lambda: line.counters()["line"]["in_flight"] == 0, "no verdict")
        plc.put("command", Command.TRIGGER)  # still raised: it did not see the answer, and sends it again
        assert plc.get("triggers") == 1
        got = plc.take()
        assert (got["serial"], got["verdict"]) == ("left-NG", 2)
        assert plc.get("heartbeat") > 0


def test_what_stands_in_the_registers_outlives_a_new_opening() -> None:
    with ScriptedLine(running=True) as line, serving(line) as (sink, plc):
        plc.command(Command.TRIGGER)
        plc.until(Status.RESULTS_READY)
        plc.client.close()
        port = sink.port
        sink.close()
        assert sink.port == 0
        sink.open()
        plc = Plc(sink.port)
        assert (plc.get("sequence"), Status.RESULTS_READY in plc.status()) == (1, True)
        plc.client.close()
        assert port != 0


def test_one_connection_more_than_allowed_closes_the_one_that_was_silent_for_longest() -> None:
    with ScriptedLine(running=True) as line, serving(line, connections=2) as (sink, plc):
        silent = Plc(sink.port)
        assert silent.get("version") == modbus_map.VERSION
        assert plc.get("version") == modbus_map.VERSION
        third = Plc(sink.port)
        assert third.get("version") == modbus_map.VERSION
        assert silent.client.read_holding_registers(0, 1) is None
        assert plc.client.read_holding_registers(0, 1) == [modbus_map.VERSION]
        silent.client.close()
        third.client.close()


# The other client, coils, and what is wrong.


def test_coils_are_the_commands_and_discrete_inputs_the_status() -> None:
    with (
        ScriptedLine(running=True) as line,
        serving(line) as (sink, plc),
        ModbusTcpClient("127.0.0.1", port=sink.port, timeout=WAIT) as client,
    ):
        assert client.read_discrete_inputs(0, count=3).bits[:3] == [True, False, False]
        assert not client.write_coil(0, True).isError()
        assert client.read_coils(0, count=6).bits[:6] == [True] + [False] * 5
        assert plc.get("triggers") == 1
        plc.until(Status.RESULTS_READY)
        assert client.read_discrete_inputs(2, count=2).bits[:2] == [True, True]
        assert not client.write_coils(0, [False, True]).isError()
        assert Status.RESULTS_READY not in plc.status()
        assert not client.write_coils(0, [False, False, False, True]).isError()
        until(lambda: plc.get("state") == 1, "it never stopped")
        both = client.read_input_registers(0, count=105).registers
        assert value("state", both) == 1
        assert value("serial", both) == "1"


def test_masked_writes_and_combined_requests_reach_the_same_registers() -> None:
    with (
        ScriptedLine(running=True) as line,
        serving(line) as (sink, plc),
        ModbusTcpClient("127.0.0.1", port=sink.port, timeout=WAIT) as client,
    ):
        assert not client.mask_write_register(address=200, and_mask=0xFFFE, or_mask=0x0001).isError()
        assert plc.get("accepted") == 1
        assert not client.mask_write_register(address=200, and_mask=0xFFFE, or_mask=0).isError()
        combined = client.readwrite_registers(
            read_address=MAP["accepted"][0], read_count=2, write_address=200, values=[1]
        )
        assert combined.registers == [0, 2]  # the write came first


def test_requests_that_cannot_be_carried_out_get_the_exception_that_the_specification_names() -> None:
    def ask(*fields: int, form: str) -> tuple[int, ...] | None:
        """The exception code; None: the request was carried out."""
        pdu = struct.pack(form, *fields)
        plain.sendall(struct.pack(">HHHB", 9, 0, len(pdu) + 1, 1) + pdu)
        head = stream.read(7)
        transaction, protocol, follows, unit = struct.unpack(">HHHB", head)
        assert (transaction, protocol, unit) == (9, 0, 1)
        body = stream.read(follows - 1)
        return (body[0] - 0x80, body[1]) if body[0] & 0x80 else None

    with (
        ScriptedLine(running=True) as line,
        serving(line) as (sink, plc),
        socket.create_connection(("127.0.0.1", sink.port), timeout=WAIT) as plain,
        plain.makefile("rb") as stream,
    ):
        assert ask(3, 0, 105, form=">BHH") is None
        assert ask(3, 0, 0, form=">BHH") == (3, 3)
        assert ask(3, 0, 126, form=">BHH") == (3, 3)
        assert ask(4, 104, 2, form=">BHH") == (4, 2)
        assert ask(3, 65535, 2, form=">BHH") == (3, 2)
        assert ask(3, 0, form=">BH") == (3, 3)
        assert ask(7, form=">B") == (7, 1)
        assert ask(43, 14, 1, 0, form=">BBBB") == (43, 1)
        assert ask(6, 3, 1, form=">BHH") == (6, 2)  # read only
        assert ask(16, 104, 97, 194, *[0] * 97, form=">BHHB97H") == (16, 2)  # from one area into the other
        assert ask(6, 200, 64, form=">BHH") == (6, 3)  # a bit without a meaning
        assert ask(6, 204, 1, form=">BHH") == (6, 3)  # half of the encoder
        assert ask(16, 203, 2, 4, 9, 9, form=">BHHBHH") == (16, 3)  # likewise, and the heartbeat stays as it was
        assert ask(16, 200, 1, 4, 1, form=">BHHBH") == (16, 3)  # the byte count lies
        assert ask(16, 200, 0, 0, form=">BHHB") == (16, 3)
        assert ask(6, 206, 0x0741, form=">BHH") == (6, 3)  # a control character
        assert ask(5, 0, 0x1234, form=">BHH") == (5, 3)
        assert ask(5, 6, 0xFF00, form=">BHH") == (5, 2)
        assert ask(1, 0, 7, form=">BHH") == (1, 2)
        assert ask(2, 0, 13, form=">BHH") == (2, 2)
        assert ask(15, 0, 2, 2, 3, 0, form=">BHHBBB") == (15, 3)
        assert ask(23, 500, 1, 200, 1, 2, 1, form=">BHHHHBH") == (23, 2)  # cannot be read: nothing is written
        assert ask(22, 204, 0, 1, form=">BHHH") == (22, 3)
        assert plc.read("command", "lot_in") == [0] * 46
        assert (plc.get("triggers"), line.encoder) == (0, None)
        plain.sendall(struct.pack(">HHHBB", 1, 7, 2, 1, 3))  # another protocol: nothing can be read any more
        assert stream.read(1) == b""


def test_only_the_units_of_this_machine_are_answered() -> None:
    with ScriptedLine(running=True) as line, serving(line, unit=17) as (sink, _):
        for unit, error in ((17, 0), (255, 0), (0, 0), (1, 11), (18, 11)):
            plc = Plc(sink.port, unit=unit)
            assert (plc.client.read_holding_registers(0, 1) is None) == (error != 0)
            assert plc.client.last_except == error
            plc.client.close()


def test_a_shorter_text_leaves_nothing_of_the_longer_one_before() -> None:
    with ScriptedLine(running=True) as line, serving(line) as (_, plc):
        plc.put("serial_in", "a long serial number-NG")
        assert plc.client.write_multiple_registers(206, [0x4231])
        plc.command(Command.TRIGGER)
        plc.until(Status.RESULTS_READY)
        assert (plc.get("serial"), plc.get("verdict")) == ("B1", 1)


def test_a_port_that_is_taken_or_not_allowed_says_so() -> None:
    with ScriptedLine() as line, socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        sink = ModbusSink(ModbusOptions(kind="modbus", port=port), line, "line", line.alarm)
        with pytest.raises(DeliveryFailed, match=rf"127\.0\.0\.1:{port}: cannot listen"):
            sink.open()
        taken.close()
        sink.open()
        assert sink.port == port
        sink.close()


# Properties.


@given(st.binary(min_size=1, max_size=253))
def test_whatever_is_asked_has_an_answer_of_its_function_and_does_nothing_when_it_is_refused(request: bytes) -> None:
    class Nothing:
        written: list[Any] = []  # noqa: RUF012

        def read(self, address: int, count: int) -> list[int]:
            return [0] * count

        def write(self, address: int, values: Sequence[int]) -> None:
            self.written.append(values)

        def read_coils(self, address: int, count: int) -> list[bool]:
            return [False] * count

        read_inputs = read_coils

        def write_coils(self, address: int, values: Sequence[bool]) -> None:
            self.written.append(values)

    memory = Nothing()
    memory.written = []
    got = answer(memory, request)
    assert got[0] | 0x80 == request[0] | 0x80
    assert len(got) <= 253
    if got[0] & 0x80:
        assert len(got) == 2
        assert memory.written == []


@given(st.text(max_size=60))
def test_text_comes_back_as_far_as_it_can_be_held(text: str) -> None:
    field = modbus_map.REGISTERS["serial"]
    encoded = field.encode(text)
    assert len(encoded) == MAP["serial"][1]
    shown = value("serial", encoded, MAP["serial"][0])
    assert len(shown) == min(len(text), 48)
    assert all(mine == theirs or mine == "?" for mine, theirs in zip(shown, text, strict=False))
    assert all(mine == theirs for mine, theirs in zip(shown, text, strict=False) if " " <= theirs <= "~")
    assert field.decode(encoded) == shown.rstrip(" ")


@given(st.data())
def test_numbers_are_encoded_as_another_library_decodes_them(data: st.DataObject) -> None:
    bounds = {"u16": (0, 2**16 - 1), "i16": (-(2**15), 2**15 - 1), "u32": (0, 2**32 - 1), "i32": (-(2**31), 2**31 - 1)}
    for name, register in modbus_map.REGISTERS.items():
        if register.kind == "text":
            continue
        given_ = data.draw(st.floats(width=32) if register.kind == "f32" else st.integers(*bounds[register.kind]))
        encoded = register.encode(given_)
        for seen in (value(name, encoded, MAP[name][0]), register.decode(encoded)):
            assert seen == given_ or (seen != seen and given_ != given_)  # NaN


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_scores_beyond_single_precision_are_infinite_and_all_others_rounded(score: float) -> None:
    values = modbus_map.result_values(part(1, view("a", Verdict.OK, score)).to_dict(), ())
    seen: float = value("score", modbus_map.REGISTERS["score"].encode(values["score"]), MAP["score"][0])
    with np.errstate(over="ignore"):
        assert seen == float(np.float32(score)) or (math.isinf(seen) and abs(score) >= 3.4e38)
