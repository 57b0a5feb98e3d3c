"""A PLC commands the line and triggers it by Modbus, over real sockets."""

from __future__ import annotations

import itertools
import math
import random
import re
import socket
import struct
from pathlib import Path

import pytest

from inspection.control import LineState
from inspection.errors import InferenceFailed
from inspection.line.line import Line
from inspection.outputs import modbus_map
from inspection.outputs.modbus_map import Command, Refusal, Status
from tests.line import plant
from tests.outputs.plc import DOCS, INTEGRATOR, WAIT, Plc, registers, serving, until, value
from tests.outputs.scripted_line import ScriptedLine

pytestmark = pytest.mark.line

VERDICTS = {1: "OK", 2: "NG", 3: "REVIEW", 4: "ERROR"}


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
