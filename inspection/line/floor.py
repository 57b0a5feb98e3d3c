"""The parts in flight and the workers that judge them: the tracker, carried out by threads under one lock."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import cast

from inspection.control import Alarm
from inspection.errors import InspectionError
from inspection.line.clock import Clock, HandClock
from inspection.line.crew import Crew, JudgingFailed
from inspection.line.plan import Closed, Job, Whole
from inspection.line.setup import Setup
from inspection.line.tracker import Tracker
from inspection.parts import Frame, Trigger, ViewResult
from inspection.results import Inspection, Verdict

MOST_MISSED = 100  # parts that one gap in a camera's count can open


class TellingFailed(InspectionError):
    """A verdict could not be kept or handed to the outputs."""

    code = "telling-failed"
    exit_code = 9


class Floor:
    """Judges what it is given before it is due, and tells each part once.

    Args:
        tell: told of every part that is over, in their order, on one thread of its own.
        after: called on the same thread after parts were told.
        broken: told that a verdict could not be told: no more parts may come, for nobody would hear of them.

    Attributes:
        lock: held over everything that reads or changes what is in flight; nothing slow is done with it.
        batch: regions of one model that one network run may take.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        tell: Callable[[Closed], None],
        after: Callable[[], None],
        alarm: Alarm,
        broken: Callable[[InspectionError], None],
    ) -> None:
        self.clock = clock
        self.lock = threading.RLock()
        self.batch = 1
        self._hang = math.inf
        self.tracker = Tracker()
        self._work = threading.Condition(self.lock)  # something to judge
        self._over = threading.Condition(self.lock)  # something may be over
        self._quiet = threading.Condition(self.lock)  # something was judged, or is over
        self._tell, self._after, self._alarm, self._broken = tell, after, alarm, broken
        self._ended = False
        self._telling: list[int] = []  # parts that are over, and whose verdicts are being told
        self._crew: Crew | None = None
        self._closer = threading.Thread(target=self._close_parts, name="closer", daemon=True)

    def use(self, setup: Setup) -> None:
        """New parts are judged by this recipe: its views, and its bounds on work."""
        with self.lock:
            self.tracker.add(list(setup.regions))
            self.tracker.waiting = setup.loaded.recipe.work.waiting
            self.batch, self._hang = setup.batch, setup.hang
            if self._crew is not None:
                self._crew.hang = setup.hang

    def start(self, workers: int) -> None:
        """Starts the workers."""
        self._crew = Crew(workers, take=self._take, judge=self._judge, done=self._done, hang=self._hang)
        self._crew.start()
        self._closer.start()

    def open(self, trigger: Trigger, setup: Setup, key: str | None) -> None:
        """A part comes by; see `Tracker.open`."""
        with self.lock:
            self.tracker.open(trigger, setup, key=key)
            self._work.notify_all()  # frames that came early
            self._over.notify()

    def frame(self, view: str, frame: Frame, setup: Setup) -> None:
        """A frame is here; see `Tracker.frame`."""
        with self.lock:
            self.tracker.frame(view, frame, setup)
            self._work.notify_all()
            self._over.notify()

    def lost(self, view: str, reason: str) -> None:
        """A camera went or came back; see `Tracker.lost`."""
        with self.lock:
            self.tracker.lost(view, reason)
            self._over.notify()

    def missed(self, view: str, frame: Frame) -> list[float]:
        """When the exposures before this one were that did not arrive, as if evenly spread since the last that did: so
        no later frame of another view lies in their windows."""
        missed = min(self.tracker.missed(view, frame), MOST_MISSED)
        last = self.tracker.last_received(view)
        if last is None:
            return [frame.received] * missed
        return [last + (frame.received - last) * (index + 1) / (missed + 1) for index in range(missed)]

    def advance(self, clock: HandClock, to: float) -> None:
        """Moves the clock by hand, once all that is due until then has been judged: nothing is late because this
        machine is slow, and no more waits for a worker than may. Returns when all that is over has been told."""
        with self.lock:
            most = max(self.tracker.waiting // 2, 1)
            while self.tracker.busy(to) or self.tracker.queued >= most:
                self._quiet.wait()
            clock.move(to)
            self._over.notify()
            while self.tracker.ripe(to):
                self._quiet.wait()

    def check(self) -> int:
        """Gives up network runs that hang; how many."""
        return 0 if self._crew is None else len(self._crew.check())

    def end(self, drain: float, code: str, reason: str) -> None:
        """Waits for what is in flight, at most `drain` seconds; what is left then is ERROR. Then all threads end."""
        until = time.monotonic() + drain
        while self.in_flight and time.monotonic() < until:
            time.sleep(0.01)
        with self.lock:
            for number in self.tracker.in_flight:
                self.tracker.drop(number, code, reason)
            self._ended = True
            self._work.notify_all()
            self._over.notify_all()
        if self._crew is not None:
            self._crew.join(5.0)
        if self._closer.ident is not None:
            self._closer.join(10.0)

    @property
    def in_flight(self) -> list[int]:
        """Numbers of the parts whose verdict is not told yet."""
        with self.lock:
            return [*self._telling, *self.tracker.in_flight]

    def counters(self) -> dict[str, dict[str, int]]:
        """Of the line, of each view and of the workers."""
        with self.lock:
            tracked = self.tracker.counters()
        hung, broke = (0, 0) if self._crew is None else (self._crew.hung, self._crew.broke)
        return {**tracked, "judging": {"hung": hung, "broke": broke}}

    def _take(self) -> list[Job] | None:
        with self.lock:
            while not (jobs := self.tracker.take(self.clock.now(), self.batch)):
                if self._ended:
                    return None
                self._work.wait()
            return jobs

    def _judge(self, jobs: Sequence[Job]) -> list[Inspection]:
        return cast(Setup, jobs[0].plan).judge(jobs)

    def _done(self, job: Job, inspection: Inspection) -> None:
        with self.lock:
            whole = self.tracker.judged(job, inspection)
        if whole is None:
            return
        result = _conclude(whole)  # without the lock: it looks for defects in maps
        with self.lock:
            self.tracker.conclude(whole, result, self.clock.now())
            self._over.notify()
            self._quiet.notify_all()

    def _close_parts(self) -> None:
        while True:
            with self.lock:
                while not (closed := list(self.tracker.finished(self.clock.now()))):
                    if self._ended and not self.tracker.in_flight:
                        return
                    self._over.wait(self._until_due())
                self._telling = [one.trigger.number for one in closed]
                unbalanced = self.tracker.check()
                self._quiet.notify_all()
            for one in closed:
                try:
                    self._tell(one)
                except Exception as error:  # noqa: BLE001 - the parts after it must get their verdicts all the same
                    self._broken(TellingFailed(f"the verdict on part {one.trigger.part} could not be told: {error!r}."))
            with self.lock:
                self._telling = []
            if unbalanced is not None:
                self._alarm("accounts", f"the accounts do not balance: {unbalanced}")
            self._after()

    def _until_due(self) -> float | None:
        wake = self.tracker.wake()
        if wake is None or not self.clock.real:
            return None
        return max(0.0, wake - self.clock.now())


def _conclude(whole: Whole) -> ViewResult:
    try:
        return cast(Setup, whole.plan).conclude(whole)
    except InspectionError as error:  # the frame does not fit the recipe's masks, say
        return ViewResult(view=whole.view, verdict=Verdict.ERROR, reason=error.what, code=error.code)
    except Exception as error:  # noqa: BLE001 - whatever it is: the worker must go on, and this view is ERROR
        what = f"{type(error).__name__}: {error}"
        return ViewResult(view=whole.view, verdict=Verdict.ERROR, reason=what, code=JudgingFailed.code)
