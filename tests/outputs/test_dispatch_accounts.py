"""Every message is accounted for, in simulated time, whatever the other side and the disk do."""

from __future__ import annotations

import random
import shutil
import tempfile
from pathlib import Path

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from inspection.outputs.attempt import Try
from inspection.outputs.dispatch import Dispatch
from inspection.outputs.options import Hold, OutputOptions
from inspection.outputs.sink import DeliveryFailed, DeliveryRefused, Message
from tests.outputs.conftest import Disk, accounted, message, result

TIMEOUT = 2.0


class Line(RuleBasedStateMachine):
    """What both sorts of output have in common: time passes, messages come, the sink answers one way or another."""

    options: OutputOptions

    @initialize(seed=st.integers(0, 1000))
    def begin(self, seed: int) -> None:
        self.now = 100.0
        self.number = 0
        self.encoder = 0
        self.chance = random.Random(seed)
        self.call: Try | None = None
        self.busy_until = 0.0  # the sink is in a call that was given up
        self.confirmed: list[Message] = []  # what the other side has taken and confirmed before it was given up
        self.taken: list[Message] = []
        self.alarms: list[str] = []
        self.start()

    def start(self) -> None:
        self.dispatch = Dispatch(self.options, name="out", spool=None, chance=self.chance)

    def run(self) -> None:
        """What the courier's thread does after each event."""
        if self.call is not None and self.now >= self.call.ends:
            self.dispatch.done(DeliveryFailed("hangs"), self.now, lost=True)
            self.call = None
        self.call = self.dispatch.step(self.now, free=self.now >= self.busy_until) or self.call
        self.alarms += [code for code, _ in self.dispatch.alarms()]

    def answer(self, error: Exception | None, *, lost: bool = False) -> None:
        call, self.call = self.call, None
        if call is None:
            return
        late = self.options.gate and call.message and call.message.deadline and call.message.deadline <= self.now
        if call.message is not None and error is None and not late:
            self.confirmed.append(call.message)
        self.dispatch.done(error, self.now, lost=lost)
        self.run()

    @rule(seconds=st.sampled_from([0.0, 0.01, 0.3, 1.0, 5.0, 40.0]))
    def wait(self, seconds: float) -> None:
        self.run()
        end = self.now + seconds
        while self.now < end:
            wake = self.dispatch.wake(self.now, free=self.now >= self.busy_until)
            if self.now < self.busy_until:
                wake = min(wake, self.busy_until)
            assert wake > self.now  # nothing to do is never a reason to spin
            self.now = min(end, max(wake, self.now + 1e-3))
            self.run()

    @rule()
    def the_sink_takes_it(self) -> None:
        self.answer(None)

    @rule(times=st.integers(1, 10))
    def the_sink_takes_many(self, times: int) -> None:
        for _ in range(times):
            self.run()
            self.answer(None)

    @rule(asks=st.sampled_from([None, 3.0]))
    def the_sink_fails(self, asks: float | None) -> None:
        self.answer(DeliveryFailed("no", retry_after=asks))

    @rule()
    def the_sink_takes_it_a_moment_later(self) -> None:
        self.now += 0.2  # and nobody looked at the clock meanwhile
        self.answer(None)

    @rule()
    def the_sink_breaks(self) -> None:
        self.answer(ZeroDivisionError(), lost=True)

    @rule()
    def the_sink_refuses(self) -> None:
        if self.call is not None and self.call.message is not None:
            self.answer(DeliveryRefused("never"))

    @rule(stays=st.sampled_from([0.1, 5.0]))
    def the_sink_hangs(self, stays: float) -> None:
        if self.call is not None:
            self.busy_until = self.call.ends + stays
            self.wait(self.call.ends - self.now)

    @invariant()
    def every_message_is_in_one_place(self) -> None:
        counters = self.dispatch.counters()
        assert accounted(counters), counters
        assert all(count >= 0 for count in counters.values()), counters

    def let_all_go(self) -> None:
        """The other side is well again, and time passes."""
        for _ in range(2000):
            self.run()
            if self.dispatch.idle():
                return
            if self.call is not None:
                self.answer(None)
            else:
                self.wait(0.3)
        raise AssertionError(f"still waiting: {self.dispatch.counters()}")


class Gate(Line):
    """An output for the gate, which holds results until the part is there."""

    options = OutputOptions(gate=True, queue=6, timeout=TIMEOUT, hold=Hold(encoder=100), breaker=3)

    @rule(count=st.integers(1, 8), within=st.sampled_from([0.05, 0.5, 3.0]))
    def parts(self, count: int, within: float) -> None:
        for _ in range(count):
            self.number += 1
            part = result(self.number, at=self.now, deadline=self.now + within, encoder=self.encoder)
            self.taken.append(part)
            self.dispatch.put(part)
        self.run()

    @rule()
    def state(self) -> None:
        self.number += 1
        self.taken.append(message(self.number))
        self.dispatch.put(self.taken[-1])
        self.run()

    @rule(counts=st.integers(0, 150))
    def belt(self, counts: int) -> None:
        self.encoder += counts
        self.dispatch.turn(self.encoder)
        self.run()

    @invariant()
    def nothing_is_handed_out_early_late_or_out_of_order(self) -> None:
        if self.call is not None and self.call.message is not None and self.call.message.result is not None:
            trigger = self.call.message.result.trigger
            assert trigger.encoder is not None
            assert self.encoder >= trigger.encoder + 100
        for kind in ("result", "state"):
            numbers = [m.sequence for m in self.confirmed if m.kind == kind]
            assert numbers == sorted(set(numbers))

    @invariant()
    def the_counters_are_the_other_sides(self) -> None:
        counters = self.dispatch.counters()
        assert counters["delivered"] == len(self.confirmed)
        assert counters["taken"] == len(self.taken)

    def teardown(self) -> None:
        if hasattr(self, "dispatch"):
            self.dispatch.turn(self.encoder + 100)
            self.let_all_go()
            counters = self.dispatch.counters()
            assert counters["late"] == 0 or "output-late" in self.alarms
            assert counters["dropped"] == 0 or "output-dropped" in self.alarms


class MixedGate(Gate):
    """The same while alarms and states come in swarms, as they do when something breaks."""

    @rule(count=st.integers(1, 8), kind=st.sampled_from(["alarm", "state"]))
    def told(self, count: int, kind: str) -> None:
        for _ in range(count):
            self.number += 1
            self.taken.append(message(self.number, kind))
            self.dispatch.put(self.taken[-1])
        self.run()

    @invariant()
    def nothing_is_handed_out_early_late_or_out_of_order(self) -> None:
        super().nothing_is_handed_out_early_late_or_out_of_order()
        others = [m.sequence for m in self.confirmed if m.deadline is None]
        assert others == sorted(set(others))

    def teardown(self) -> None:
        if hasattr(self, "dispatch"):
            self.dispatch.turn(self.encoder + 100)
            self.let_all_go()
            counters = self.dispatch.counters()
            assert counters["late"] == 0 or "output-late" in self.alarms
            if counters["dropped"] > sum(m.kind == "alarm" for m in self.taken):
                assert "output-dropped" in self.alarms


class Report(Line):
    """A reporting output with a spool that is never full, restarted and killed now and then."""

    options = OutputOptions(queue=5000, timeout=TIMEOUT, breaker=3)

    def start(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.disk = Disk(self.folder, self.options.spool)
        self.resume()

    def resume(self) -> None:
        self.dispatch = Dispatch(self.options, name="out", spool=self.disk, chance=self.chance)
        self.call = None
        self.confirmed_before = len(self.confirmed)

    @rule(count=st.integers(1, 8), kind=st.sampled_from(["result", "alarm", "state"]))
    def messages(self, count: int, kind: str) -> None:
        for _ in range(count):
            self.number += 1
            self.taken.append(result(self.number) if kind == "result" else message(self.number, kind))
            self.dispatch.put(self.taken[-1])
        self.run()

    @rule(full=st.booleans(), unread=st.booleans())
    def the_disk(self, full: bool, unread: bool) -> None:
        self.disk.full, self.disk.unread = full, unread

    @rule(count=st.just(70))
    def a_swarm_of_messages(self, count: int) -> None:
        """More than are kept in memory beside the disk."""
        self.messages(count, "state")

    @rule()
    def closed_and_started_again(self) -> None:
        self.disk.full = False
        self.dispatch.abandon(self.now)
        assert self.dispatch.counters()["dropped"] == 0
        self.disk = Disk(self.folder, self.options.spool)
        self.resume()

    @rule()
    def killed_and_started_again(self) -> None:
        if self.dispatch.counters()["waiting"] > self.dispatch.counters()["spooled"]:
            return  # the disk was full: what is in memory would be lost
        self.disk.close()  # only gives the lock back, as the kernel does
        self.disk = Disk(self.folder, self.options.spool)
        self.resume()

    @invariant()
    def the_order_is_kept(self) -> None:
        numbers = [m.sequence for m in self.confirmed[self.confirmed_before :]]
        assert numbers == sorted(set(numbers))

    def the_sink_refuses(self) -> None:
        """Not here: so that everything must arrive."""

    def teardown(self) -> None:
        if hasattr(self, "dispatch"):
            self.disk.full = self.disk.unread = False
            self.let_all_go()
            first = list(dict.fromkeys(m.sequence for m in self.confirmed))
            assert first == [m.sequence for m in self.taken]
            self.dispatch.abandon(self.now)
            shutil.rmtree(self.folder)


class SmallReport(Report):
    """The same with a spool and a memory that are far too small."""

    options = OutputOptions(queue=3, timeout=TIMEOUT, spool=9000, breaker=3)

    def closed_and_started_again(self) -> None:
        """Not here: counters are one run's."""

    def killed_and_started_again(self) -> None:
        """Not here: counters are one run's."""

    @rule()
    def the_sink_refuses(self) -> None:
        if self.call is not None and self.call.message is not None:
            self.answer(DeliveryRefused("never"))

    @invariant()
    def the_disk_is_never_above_its_bound(self) -> None:
        on_disk = sum(path.stat().st_size for path in self.folder.glob("*.spool"))
        assert on_disk == self.disk.size <= self.options.spool

    @invariant()
    def the_counters_are_the_other_sides(self) -> None:
        assert self.dispatch.counters()["delivered"] == len(self.confirmed)
        assert self.dispatch.counters()["taken"] == len(self.taken)

    def teardown(self) -> None:
        if hasattr(self, "dispatch"):
            self.disk.full = self.disk.unread = False
            self.let_all_go()
            counters = self.dispatch.counters()
            if counters["dropped"] > sum(m.kind == "alarm" for m in self.taken):
                assert "output-dropped" in self.alarms
            self.dispatch.abandon(self.now)
            shutil.rmtree(self.folder)


for machine in (Gate, MixedGate, Report, SmallReport):
    machine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)

TestGate = Gate.TestCase
TestMixedGate = MixedGate.TestCase
TestReport = Report.TestCase
TestSmallReport = SmallReport.TestCase
