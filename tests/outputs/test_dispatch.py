"""When an output is handed which message, in simulated time: order, deadlines, a full disk, an outage."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from inspection.outputs.dispatch import Dispatch
from inspection.outputs.options import Hold, OutputOptions
from inspection.outputs.sink import DeliveryFailed, Message
from tests.outputs.conftest import Disk, accounted, message, result

TIMEOUT = 2.0


def reporting(folder: Path, **changes: Any) -> tuple[Dispatch, Disk]:
    options = OutputOptions(timeout=TIMEOUT, **changes)
    disk = Disk(folder, options.spool)
    dispatch = Dispatch(options, name="out", spool=disk)
    assert dispatch.step(0.0) is not None
    dispatch.done(None, 0.0)
    return dispatch, disk


def deliver_all(dispatch: Dispatch, now: float) -> list[int]:
    """Sequences in the order in which a sink that takes everything gets them."""
    numbers: list[int] = []
    while (call := dispatch.step(now)) is not None:
        assert call.message is not None
        numbers.append(call.message.sequence)
        dispatch.done(None, now)
    return numbers


def test_a_report_is_on_disk_before_it_is_tried(tmp_path: Path) -> None:
    dispatch, _ = reporting(tmp_path)
    dispatch.put(message(1))
    call = dispatch.step(1.0)
    assert call is not None
    assert call.stored
    assert dispatch.counters()["spooled"] == 1


def test_a_message_that_failed_while_the_disk_was_full_stays_the_first_when_the_disk_has_room(tmp_path: Path) -> None:
    dispatch, disk = reporting(tmp_path)
    disk.full = True
    dispatch.put(message(1))
    call = dispatch.step(1.0)
    assert call is not None
    assert call.from_memory
    disk.full = False
    for number in (2, 3):
        dispatch.put(message(number))
        assert dispatch.step(5.0) is None
    dispatch.done(DeliveryFailed("no"), 5.0)
    assert deliver_all(dispatch, 100.0) == [1, 2, 3]
    assert [code for code, _ in dispatch.alarms()] == ["output-disk", "output-disk-back"]


def test_a_full_disk_is_alarmed_once_and_the_newest_go_on_through_memory(tmp_path: Path) -> None:
    dispatch, disk = reporting(tmp_path, queue=4)
    disk.full = True
    for number in range(20):
        dispatch.put(message(number))
        assert deliver_all(dispatch, number * 3.0) == [number]
    dispatch.put(message(20))
    call = dispatch.step(60.0)
    assert call is not None
    dispatch.done(DeliveryFailed("no"), 60.0)
    for number in range(21, 30):
        dispatch.put(message(number))
    assert deliver_all(dispatch, 100.0) == [26, 27, 28, 29]
    assert dispatch.counters()["dropped"] == 6
    assert [code for code, _ in dispatch.alarms()] == ["output-disk", "output-dropped"]


def test_a_message_that_is_pushed_out_of_the_spool_while_it_is_tried_is_not_put_behind_the_newer_ones(
    tmp_path: Path,
) -> None:
    dispatch, _ = reporting(tmp_path, spool=2000)
    dispatch.put(message(1))
    assert dispatch.step(1.0) is not None
    for number in range(2, 60):
        dispatch.put(message(number))
    dispatch.step(1.0)
    assert dispatch.counters()["dropped"] > 0
    before = dispatch.counters()["dropped"]
    dispatch.done(DeliveryFailed("no"), 1.0)
    assert dispatch.counters()["dropped"] == before + 1
    numbers = deliver_all(dispatch, 50.0)
    assert numbers == list(range(60 - len(numbers), 60))
    assert accounted(dispatch.counters())


def test_a_disk_that_cannot_be_read_is_alarmed_once_and_what_it_holds_goes_first_when_it_can(tmp_path: Path) -> None:
    dispatch, disk = reporting(tmp_path)
    disk.unread = True
    for number in range(100):
        dispatch.put(message(number))
    for now in (1.0, 1.5, 2.5, 9.0):
        assert dispatch.step(now) is None
        assert now < dispatch.wake(now) <= now + 1.0
        disk.full = True
        dispatch.put(message(100 + int(now)))
    assert [code for code, _ in dispatch.alarms()] == ["output-disk", "output-disk"]  # reading, writing
    assert dispatch.counters()["dropped"] == 0
    disk.full = disk.unread = False
    assert deliver_all(dispatch, 50.0) == [*range(100), 101, 101, 102, 109]
    assert [code for code, _ in dispatch.alarms()] == ["output-disk-back", "output-disk-back"]


def test_a_spool_that_makes_room_and_then_cannot_write_has_counted_what_went(tmp_path: Path) -> None:
    class Room(Disk):
        def _write(self, *args: Any) -> None:
            if self.unread:
                raise OSError(errno.EIO, "Input/output error")
            super()._write(*args)

    options = OutputOptions(timeout=TIMEOUT, spool=2000)
    disk = Room(tmp_path, options.spool)
    dispatch = Dispatch(options, name="out", spool=disk)
    assert dispatch.step(0.0) is not None
    dispatch.done(DeliveryFailed("away"), 0.0)
    taken = record = 0
    while not record or disk.size + record <= options.spool:  # until the next one wants room
        dispatch.put(message(taken))
        dispatch.step(0.0, free=False)
        record = record or disk.size
        taken += 1
    disk.unread = True
    for _ in range(40):
        dispatch.put(message(taken))
        taken += 1
        dispatch.step(taken * 10.0, free=False)
        assert accounted(dispatch.counters())
        assert dispatch.counters()["spooled"] == len(disk)
    assert dispatch.counters()["dropped"] > 0
    disk.unread = False
    assert dispatch.step(5000.0) is not None
    dispatch.done(None, 5000.0)
    numbers = deliver_all(dispatch, 5000.0)
    assert numbers == list(range(taken - len(numbers), taken))
    assert dispatch.counters()["dropped"] == taken - len(numbers)


def test_a_verdict_that_arrives_after_its_deadline_is_late_even_if_the_sink_was_content() -> None:
    dispatch = Dispatch(OutputOptions(gate=True), name="gate", spool=None)
    dispatch.step(0.0)
    dispatch.done(None, 0.0)
    dispatch.put(result(1, deadline=1.0))
    assert dispatch.step(0.5) is not None
    dispatch.done(None, 1.1)
    dispatch.step(1.1)
    assert (dispatch.counters()["late"], dispatch.counters()["delivered"]) == (1, 0)
    assert [code for code, _ in dispatch.alarms()] == ["output-late"]


def test_the_breaker_alarms_once_when_it_opens_and_once_when_it_closes() -> None:
    options = OutputOptions(breaker=4, retry_after=1.0, retry_at_most=60.0)
    dispatch = Dispatch(options, name="mes", spool=None)
    dispatch.put(message(1))
    now, waits = 0.0, []
    for _ in range(12):
        assert dispatch.step(now) is not None
        dispatch.done(DeliveryFailed("away"), now)
        waits.append(dispatch.wake(now) - now)
        now += waits[-1]
    for wait, longest in zip(waits, [1, 2, 4, *[60] * 9], strict=True):
        assert longest / 2 <= wait <= longest
    assert dispatch.state == "away"
    for _ in range(2):
        dispatch.step(now)
        dispatch.done(None, now)
    assert dispatch.state == "connected"
    assert [code for code, _ in dispatch.alarms()] == ["output-away", "output-back"]


def test_the_time_that_the_other_side_asks_for_is_kept() -> None:
    dispatch = Dispatch(OutputOptions(retry_after=0.1), name="mes", spool=None)
    dispatch.step(0.0)
    dispatch.done(DeliveryFailed("busy", retry_after=17.0), 0.0)
    assert dispatch.step(16.9) is None
    assert dispatch.step(17.0) is not None


def test_a_body_that_is_no_json_is_refused_and_holds_up_nothing(tmp_path: Path) -> None:
    dispatch, _ = reporting(tmp_path)
    dispatch.put(Message(kind="state", sequence=1, wall=0.0, body={"score": float("nan")}))
    dispatch.put(message(2))
    assert deliver_all(dispatch, 1.0) == [2]
    assert dispatch.counters()["refused"] == 1


def test_alarms_about_lost_verdicts_say_how_many_and_come_at_most_once_a_second() -> None:
    dispatch = Dispatch(OutputOptions(gate=True), name="gate", spool=None)
    for number in range(100):
        dispatch.put(result(number, deadline=0.01 * (number + 1)))
    seen: list[str] = []
    for tick in range(30):
        dispatch.step(tick * 0.1, free=False)
        seen += [text for _, text in dispatch.alarms()]
    assert [int(text.split()[1]) for text in seen] == [10, 90]
    assert "part P99" in seen[-1]


def test_alarms_about_lost_alarms_are_not_raised() -> None:
    dispatch = Dispatch(OutputOptions(queue=1), name="mes", spool=None)
    for number in range(5):
        dispatch.put(message(number, "alarm"))
    dispatch.step(0.0, free=False)
    assert dispatch.alarms() == []
    assert dispatch.counters()["dropped"] == 4


@pytest.mark.parametrize(
    ("encoder", "trigger", "gone"),
    [(149, 100, False), (150, 100, True), (2**31 + 20, 2**31 - 40, True), (20, 2**32 - 30, True), (5, 100, False)],
)
def test_the_gate_is_reached_also_when_a_count_of_32_bits_wraps(encoder: int, trigger: int, gone: bool) -> None:
    options = OutputOptions(gate=True, hold=Hold(encoder=50))
    dispatch = Dispatch(options, name="gate", spool=None)
    dispatch.step(0.0)
    dispatch.done(None, 0.0)
    dispatch.put(result(1, deadline=1.0, encoder=trigger))
    assert dispatch.step(0.0) is None  # nobody has said where the belt stands
    dispatch.turn(encoder)
    assert (dispatch.step(0.0) is not None) == gone


def test_a_part_whose_encoder_count_never_comes_is_late_and_an_alarm_passes_it() -> None:
    options = OutputOptions(gate=True, hold=Hold(encoder=50))
    dispatch = Dispatch(options, name="gate", spool=None)
    dispatch.step(0.0)
    dispatch.done(None, 0.0)
    dispatch.put(result(1, deadline=1.0, encoder=0))
    dispatch.put(message(2, "alarm"))
    assert deliver_all(dispatch, 0.5) == [2]
    assert dispatch.wake(0.5) == 1.0
    dispatch.turn(1000)
    dispatch.step(1.0)
    assert dispatch.counters()["late"] == 1
    assert dispatch.counters()["delivered"] == 1


def connected_gate(**options: Any) -> Dispatch:
    dispatch = Dispatch(OutputOptions(gate=True, **options), name="gate", spool=None)
    dispatch.step(0.0)
    dispatch.done(None, 0.0)
    return dispatch


def test_after_an_outage_the_gate_gets_its_verdicts_before_what_was_told_meanwhile() -> None:
    dispatch = connected_gate(retry_after=0.5, retry_at_most=0.5)
    dispatch.put(message(1))
    assert dispatch.step(0.0) is not None
    dispatch.done(DeliveryFailed("away"), 0.0)
    for number in range(2, 6):
        dispatch.put(message(number, "alarm"))
    for number in range(6, 9):
        dispatch.put(result(number, deadline=2.0))
    assert deliver_all(dispatch, 1.0) == [6, 7, 8, 1, 2, 3, 4, 5]
    counters = dispatch.counters()
    assert (counters["late"], counters["dropped"], counters["retried"], counters["failed"]) == (0, 0, 1, 1)


def test_alarms_that_fill_the_gates_queue_are_dropped_for_verdicts_and_counted() -> None:
    dispatch = connected_gate(queue=4)
    for number in range(1, 7):
        dispatch.put(message(number, "alarm"))
    for number in range(7, 10):
        dispatch.put(result(number, deadline=2.0))
    assert dispatch.counters()["dropped"] == 5
    assert deliver_all(dispatch, 1.0) == [7, 8, 9, 4]


def test_a_gates_queue_full_of_verdicts_keeps_those_that_are_wanted_first() -> None:
    dispatch = connected_gate(queue=3)
    for number in range(1, 6):
        dispatch.put(result(number, deadline=2.0))
    dispatch.put(message(6, "state"))
    assert dispatch.counters()["dropped"] == 3
    assert deliver_all(dispatch, 1.0) == [1, 2, 3]


@given(
    sent=st.lists(
        st.tuples(st.sampled_from(["result", "alarm", "state"]), st.sampled_from([0.05, 100.0])), max_size=40
    ),
    queue=st.integers(1, 8),
)
def test_of_mixed_kinds_the_gate_gets_after_an_outage_what_a_plain_list_says(
    sent: list[tuple[str, float]], queue: int
) -> None:
    """The other side cannot be reached while all are put, one each 10 ms."""
    dispatch = Dispatch(OutputOptions(gate=True, queue=queue), name="gate", spool=None)
    verdicts: list[tuple[int, float]] = []
    others: list[int] = []
    late = dropped = 0
    for number, (kind, within) in enumerate(sent):
        now = number * 0.01
        if dispatch.step(now) is not None:
            dispatch.done(DeliveryFailed("away"), now)
        late += sum(deadline <= now for _, deadline in verdicts)
        verdicts = [(one, deadline) for one, deadline in verdicts if deadline > now]
        if len(verdicts) + len(others) == queue and others and kind == "result":
            del others[0]
            dropped += 1
        full = len(verdicts) + len(others) == queue
        dropped += full
        if kind == "result":
            dispatch.put(result(number, deadline=now + within))
            verdicts += [] if full else [(number, now + within)]
        else:
            dispatch.put(message(number, kind))
            others += [] if full else [number]
        assert accounted(dispatch.counters())
    assert dispatch.step(50.0) is not None
    dispatch.done(None, 50.0)
    late += sum(deadline <= 50.0 for _, deadline in verdicts)
    expected = [number for number, deadline in verdicts if deadline > 50.0] + others
    assert deliver_all(dispatch, 50.0) == expected
    counters = dispatch.counters()
    assert accounted(counters)
    assert (counters["late"], counters["dropped"], counters["delivered"]) == (late, dropped, len(expected))


def test_what_is_held_for_a_time_goes_at_that_time_after_the_trigger_in_order() -> None:
    options = OutputOptions(gate=True, hold=Hold(after=0.8))
    dispatch = Dispatch(options, name="gate", spool=None)
    dispatch.step(10.0)
    dispatch.done(None, 10.0)
    dispatch.put(result(1, at=10.0, deadline=12.0))
    dispatch.put(result(2, at=10.2, deadline=12.0))
    assert dispatch.step(10.5) is None
    assert dispatch.wake(10.5) == 10.8
    assert deliver_all(dispatch, 10.8) == [1]
    assert dispatch.wake(10.8) == 11.0
    assert deliver_all(dispatch, 11.0) == [2]
