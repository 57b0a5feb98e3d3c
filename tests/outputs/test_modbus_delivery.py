"""Results that a PLC acknowledges by Modbus, or does not, and a PLC that goes away and comes back."""

from __future__ import annotations

import itertools
import threading
import time
from dataclasses import replace

import pytest
from pydantic import ValidationError

from inspection.outputs.modbus import ModbusSink
from inspection.outputs.modbus_map import Command, Refusal, Status
from inspection.outputs.options import ModbusOptions
from inspection.outputs.sink import DeliveryFailed
from inspection.results import Verdict
from tests.outputs.plc import MAP, WAIT, Plc, message, part, serving, until
from tests.outputs.scripted_line import ScriptedLine

pytestmark = pytest.mark.line


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
