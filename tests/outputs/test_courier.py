"""A courier on its threads, against sinks that refuse, hang, break and come back."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from pydantic import ValidationError

from inspection.outputs.courier import Courier
from inspection.outputs.options import Hold, OutputOptions
from inspection.outputs.sink import DeliveryFailed, DeliveryRefused, Message
from tests.outputs.conftest import accounted, message, result, wait_for


class Sink:
    """Keeps what it takes; `act` is what happens at a delivery before it takes it."""

    def __init__(self, act: Callable[[Message], object] = lambda _: None) -> None:
        self.act = act
        self.got: list[Message] = []
        self.opened = 0
        self.threads: set[str] = set()
        self.together = 0
        self.closed = threading.Event()

    def open(self) -> None:
        self.opened += 1
        self.closed.clear()

    def deliver(self, message: Message) -> None:
        self.threads.add(threading.current_thread().name)
        self.together += 1
        try:
            assert self.together == 1, "two deliveries at a time"
            self.act(message)
            self.got.append(message)
        finally:
            self.together -= 1

    def close(self) -> None:
        self.closed.set()

    @property
    def numbers(self) -> list[int]:
        return [message.sequence for message in self.got]


class Desk:
    """Makes couriers and ends them."""

    def __init__(self) -> None:
        self.alarms: list[str] = []
        self.couriers: list[Courier] = []

    def __call__(self, sink: Any, *, spool: Path | None = None, start: bool = True, **options: Any) -> Courier:
        fast = {"timeout": 20.0, "retry_after": 0.001, "retry_at_most": 0.01, **options}
        one = Courier(
            OutputOptions(**fast), sink, name="out", spool=spool, alarm=lambda code, _: self.alarms.append(code)
        )
        self.couriers.append(one)
        if start:
            one.start()
        return one


@pytest.fixture
def desk() -> Iterator[Desk]:
    one = Desk()
    yield one
    for courier in one.couriers:
        courier.close(0.0)


def output_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("output-")]


def test_everything_arrives_in_order_on_the_couriers_own_thread(desk: Desk, tmp_path: Path) -> None:
    sink = Sink()
    courier = desk(sink, spool=tmp_path)
    for number in range(500):
        courier.put(message(number))
    wait_for(lambda: courier.counters()["delivered"] == 500)
    assert sink.numbers == list(range(500))
    assert sink.threads == {"output-out-sink"}
    assert courier.state == "connected"
    courier.close(1.0)
    assert output_threads() == []
    assert sink.closed.is_set()


def test_a_sink_that_hangs_never_holds_up_who_puts(desk: Desk, tmp_path: Path) -> None:
    release = threading.Event()
    courier = desk(Sink(lambda _: release.wait(60)), spool=tmp_path, queue=10)
    done = threading.Event()

    def put_many() -> None:
        for number in range(2000):
            courier.put(message(number))
        done.set()

    threading.Thread(target=put_many, daemon=True).start()
    assert done.wait(30)
    assert accounted(courier.counters())
    assert courier.counters()["delivered"] == 0
    release.set()


def test_a_delivery_that_hangs_is_ended_by_closing_the_sink_and_tried_again(desk: Desk) -> None:
    sink = Sink()
    hung: list[int] = []

    def hang_once(one: Message) -> None:
        if one.sequence == 2 and not hung:
            hung.append(2)
            assert sink.closed.wait(60)
            raise DeliveryFailed("closed")

    sink.act = hang_once
    courier = desk(sink, timeout=0.1)
    for number in range(1, 4):
        courier.put(message(number))
    wait_for(lambda: courier.counters()["delivered"] == 3)
    assert sink.numbers == [1, 2, 3]
    assert sink.opened == 2
    assert (courier.counters()["failed"], courier.counters()["retried"]) == (1, 1)


def test_a_sink_that_cannot_be_ended_costs_two_threads_and_no_more_and_the_rest_goes_to_disk(
    desk: Desk, tmp_path: Path
) -> None:
    release = threading.Event()

    class Dead(Sink):
        def close(self) -> None:
            release.wait(60)

    sink = Dead(lambda _: release.wait(60))
    courier = desk(sink, spool=tmp_path, timeout=0.05)
    courier.put(message(0))
    wait_for(lambda: courier.counters()["failed"] == 1)
    for number in range(1, 100):
        courier.put(message(number))
    wait_for(lambda: courier.counters()["spooled"] == 100)
    assert len(output_threads()) <= 3
    release.set()
    wait_for(lambda: courier.counters()["delivered"] == 100)
    assert list(dict.fromkeys(sink.numbers)) == list(range(100))
    wait_for(lambda: len(output_threads()) == 2)


def test_a_fault_in_a_sinks_own_code_is_a_failed_try_and_opens_it_again(desk: Desk) -> None:
    sink = Sink()
    faults = iter([ZeroDivisionError("bug"), None, OSError("gone")])

    def break_down(_: Message) -> None:
        if (fault := next(faults, None)) is not None:
            raise fault

    sink.act = break_down
    courier = desk(sink)
    for number in range(5):
        courier.put(message(number))
    wait_for(lambda: courier.counters()["delivered"] == 5)
    assert (courier.counters()["failed"], sink.opened) == (2, 3)


def test_a_message_that_is_refused_is_not_tried_again_and_holds_up_nothing(desk: Desk) -> None:
    def refuse(one: Message) -> None:
        if one.sequence == 1:
            raise DeliveryRefused("too large")

    sink = Sink(refuse)
    courier = desk(sink)
    for number in range(3):
        courier.put(message(number))
    wait_for(lambda: courier.counters()["waiting"] == 0)
    assert sink.numbers == [0, 2]
    assert courier.counters()["refused"] == 1
    wait_for(lambda: desk.alarms == ["output-refused"])


def test_an_outage_is_alarmed_once_and_its_end_once_and_nothing_is_lost(desk: Desk, tmp_path: Path) -> None:
    away = threading.Event()

    def fail(_: Message) -> None:
        if away.is_set():
            raise DeliveryFailed("away")

    sink = Sink(fail)
    courier = desk(sink, spool=tmp_path)
    away.set()
    for number in range(100):
        courier.put(message(number))
    wait_for(lambda: courier.state == "away")
    wait_for(lambda: courier.counters()["failed"] > 20)
    away.clear()
    wait_for(lambda: courier.counters()["waiting"] == 0)
    wait_for(lambda: len(desk.alarms) >= 2)
    assert sink.numbers == list(range(100))
    assert desk.alarms == ["output-away", "output-back"]


def test_a_verdict_that_is_late_for_the_gate_is_alarmed_at_once_and_never_sent(desk: Desk) -> None:
    release = threading.Event()
    sink = Sink(lambda one: one.sequence == 0 and release.wait(60))
    courier = desk(sink, gate=True)
    now = time.monotonic()
    courier.put(result(0, at=now, deadline=now + 60))
    wait_for(lambda: sink.threads)  # it hangs there before the others come
    for number in (1, 2):
        courier.put(result(number, at=now, deadline=now + 0.05))
    courier.put(message(3))
    wait_for(lambda: courier.counters()["late"] == 2)  # although the sink still hangs
    wait_for(lambda: desk.alarms == ["output-late"])
    release.set()
    wait_for(lambda: courier.counters()["delivered"] == 2)
    assert sink.numbers == [0, 3]


def test_an_alarm_that_hangs_is_given_up_for_a_verdict_that_waits_and_is_sent_after_it(desk: Desk) -> None:
    def hang_at_first(_: Message) -> None:
        if sink.opened == 1:
            sink.closed.wait(60)
            raise DeliveryFailed("closed")

    sink = Sink(hang_at_first)
    courier = desk(sink, gate=True, timeout=50.0)
    courier.put(message(0))
    wait_for(lambda: sink.threads)
    now = time.monotonic()
    courier.put(result(1, at=now, deadline=now + 10))
    wait_for(lambda: courier.counters()["delivered"] == 2)
    assert (courier.counters()["late"], courier.counters()["failed"]) == (0, 1)
    assert sink.numbers == [1, 0]


def test_the_full_queue_of_a_gate_drops_the_newest(desk: Desk) -> None:
    courier = desk(sink := Sink(), gate=True, queue=3, start=False)
    for number in range(5):
        courier.put(message(number))
    assert courier.counters()["dropped"] == 2
    courier.start()
    wait_for(lambda: courier.counters()["delivered"] == 3)
    assert sink.numbers == [0, 1, 2]
    wait_for(lambda: desk.alarms == ["output-dropped"])


def test_a_verdict_goes_when_the_encoder_says_that_the_part_is_at_the_gate(desk: Desk) -> None:
    courier = desk(sink := Sink(), gate=True, hold=Hold(encoder=1000))
    now = time.monotonic()
    for number in (1, 2):
        courier.put(result(number, at=now, deadline=now + 60, encoder=number * 500))
    courier.put(message(3))
    courier.turn(1499)
    wait_for(lambda: sink.numbers == [3])  # a state waits for no part
    courier.turn(1500)
    wait_for(lambda: sink.numbers == [3, 1])
    courier.turn(2100)
    wait_for(lambda: sink.numbers == [3, 1, 2])


def test_a_verdict_goes_a_time_after_its_trigger(desk: Desk) -> None:
    times: list[float] = []
    courier = desk(Sink(lambda _: times.append(time.monotonic())), gate=True, hold=Hold(after=0.3))
    at = time.monotonic()
    courier.put(result(1, at=at, deadline=at + 60))
    wait_for(lambda: times)
    assert times[0] >= at + 0.3


def test_kinds_that_an_output_does_not_send_are_not_taken(desk: Desk) -> None:
    courier = desk(sink := Sink(), sends=("result",))
    for kind in ("state", "alarm", "result"):
        courier.put(message(1, kind))
    wait_for(lambda: courier.counters()["delivered"] == 1)
    assert (courier.counters()["taken"], sink.got[0].kind) == (1, "result")


def test_closing_delivers_what_it_can_and_keeps_the_rest_for_the_next_start(desk: Desk, tmp_path: Path) -> None:
    def only_some(one: Message) -> None:
        if one.sequence >= 5:
            raise DeliveryFailed("away")

    courier = desk(Sink(only_some), spool=tmp_path)
    for number in range(10):
        courier.put(message(number))
    courier.close(0.2)
    assert accounted(courier.counters())
    assert (courier.counters()["delivered"], courier.counters()["spooled"]) == (5, 5)
    courier.put(message(99))
    assert courier.counters()["dropped"] == 1
    again = desk(sink := Sink(), spool=tmp_path)
    assert again.counters()["recovered"] == 5
    again.put(message(10))
    wait_for(lambda: again.counters()["delivered"] == 6)
    assert sink.numbers == [5, 6, 7, 8, 9, 10]
    assert accounted(again.counters())


def test_closing_does_not_wait_for_a_sink_that_hangs(desk: Desk, tmp_path: Path) -> None:
    release = threading.Event()
    courier = desk(Sink(lambda _: release.wait(60)), spool=tmp_path)
    courier.put(message(1))
    wait_for(lambda: courier.counters()["spooled"] == 1)
    done = threading.Event()
    threading.Thread(target=lambda: (courier.close(0.1), done.set()), daemon=True).start()
    assert done.wait(30)
    assert accounted(courier.counters())
    assert courier.counters()["waiting"] == 1
    release.set()


def test_after_sigkill_every_message_arrives_and_at_most_one_twice(desk: Desk, tmp_path: Path) -> None:
    program = """
import sys, time
from pathlib import Path
from inspection.outputs.courier import Courier
from inspection.outputs.options import OutputOptions
from inspection.outputs.sink import DeliveryFailed
from tests.outputs.conftest import message
class Sink:
    def open(self): pass
    def close(self): pass
    def deliver(self, one):
        if one.sequence > 300: raise DeliveryFailed("away")
        print("delivered", one.sequence, flush=True)
options = OutputOptions(retry_after=0.001, retry_at_most=0.01, queue=1000000)
courier = Courier(options, Sink(), name="out", spool=Path(sys.argv[1]), alarm=lambda *_: None)
courier.start()
for number in range(600):
    courier.put(message(number))
while courier.counters()["failed"] < 3 or courier.counters()["spooled"] < 299: time.sleep(0.001)
print("stored", flush=True)
time.sleep(600)
"""
    child = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    before = []
    for line in child.stdout:
        if line.startswith("stored"):
            child.send_signal(signal.SIGKILL)
        else:
            before.append(int(line.split()[1]))
    child.wait()
    child.stdout.close()
    courier = desk(sink := Sink(), spool=tmp_path)
    wait_for(lambda: courier.counters()["waiting"] == 0)
    assert before == list(range(301))
    assert sink.numbers[0] in (300, 301)
    assert sink.numbers == list(range(sink.numbers[0], 600))


def test_a_process_that_has_no_file_left_for_a_moment_loses_no_stored_message(desk: Desk, tmp_path: Path) -> None:
    """A real limit of the kernel: nothing can be opened until it is lifted."""
    program = """
import os, resource, sys, threading
from pathlib import Path
from inspection.outputs.courier import Courier
from inspection.outputs.options import OutputOptions
from inspection.outputs.spool import Spool
from tests.outputs.conftest import accounted, message, wait_for
spool = Spool(sys.argv[1], 100_000_000)
for number in range(200):
    spool.append(message(number))
spool.close()
class Sink:
    got = []
    def open(self): pass
    def close(self): pass
    def deliver(self, one): self.got.append(one.sequence)
alarms = []
alarm = lambda code, _: alarms.append(code)
courier = Courier(OutputOptions(), Sink(), name="out", spool=Path(sys.argv[1]), alarm=alarm)
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
free = os.dup(1)
os.close(free)
resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
courier.start()
wait_for(lambda: alarms or courier.counters()["waiting"] == 0)
during = courier.counters()
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
wait_for(lambda: courier.counters()["waiting"] == 0)
courier.close(1.0)
print(alarms, Sink.got == list(range(200)), during["spooled"], during["dropped"], accounted(courier.counters()))
print(courier.counters()["delivered"], courier.counters()["dropped"])
"""
    ran = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines() == ["['output-disk', 'output-disk-back'] True 200 0 True", "200 0"]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), gate=st.booleans())
def test_the_account_balances_at_every_moment_whatever_a_sink_does(seed: int, gate: bool) -> None:
    chance = random.Random(seed)
    sink = Sink()

    def misbehave(_: Message) -> None:
        draw = chance.random()
        if draw < 0.1:
            raise DeliveryFailed("no")
        if draw < 0.15:
            raise DeliveryRefused("never")
        if draw < 0.2:
            raise ValueError("bug")
        if draw < 0.25:
            sink.closed.wait(0.05)  # hangs
        elif draw < 0.5:
            time.sleep(0.001)

    sink.act = misbehave
    options = OutputOptions(gate=gate, queue=20, timeout=0.02, retry_after=0.001, retry_at_most=0.005, breaker=2)
    courier = Courier(options, sink, name="any", spool=None, alarm=lambda *_: None)
    courier.start()
    for number in range(100):
        deadline = time.monotonic() + 0.02 if gate and number % 2 else None
        courier.put(message(number, "result", deadline=deadline))
        assert accounted(courier.counters())
        if number % 10 == 0:
            time.sleep(0.002)
    courier.close(0.05)
    counters = courier.counters()
    assert accounted(counters)
    assert (counters["taken"], counters["waiting"]) == (100, 0)
    assert counters["delivered"] <= len(sink.got)


def test_a_hold_that_cannot_be_carried_out_is_refused() -> None:
    with pytest.raises(ValidationError, match="gate: true"):
        OutputOptions(hold=Hold(after=1.0))
    with pytest.raises(ValidationError, match="either"):
        Hold(after=1.0, encoder=3)
    with pytest.raises(ValidationError, match="either"):
        Hold()
