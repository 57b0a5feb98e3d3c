"""A plant in simulated time: parts come by, cameras and workers do what real ones do wrong, and the truth is known.

Every frame carries in its name the part that it really shows, so that a verdict can be held against what was seen: the
one thing that must never happen is an OK for a part by another part's frame.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np

from inspection.line.plan import Closed, Job, Plan
from inspection.line.tracker import Tracker
from inspection.parts import Frame, Trigger, ViewResult
from inspection.results import Inspection, Verdict

PIXELS = np.zeros((1, 1), np.uint8)


@dataclass(frozen=True, kw_only=True)
class Faults:
    """How often each goes wrong, as a share of frames (of triggers for `restart`)."""

    lost: float = 0.0  # exposed and counted by the camera, but it never arrives
    missed: float = 0.0  # never exposed
    strange: float = 0.0  # exposed without a trigger
    doubled: float = 0.0  # arrives twice
    swapped: float = 0.0  # arrives after the next one
    damaged: float = 0.0
    restart: float = 0.0  # the camera is off for some takts, and counts from 1 again
    slow: float = 0.0  # a network run takes fifty times as long
    failed: float = 0.0  # a network run fails


@dataclass(frozen=True, kw_only=True)
class Verdicts:
    """A plain rule: the worst view decides."""

    verdict: Verdict
    views: tuple[ViewResult, ...]
    kind: str | None = None
    reason: str | None = None
    code: str | None = None


def worst(views: Sequence[ViewResult]) -> Verdicts:
    """NG before ERROR before OK."""
    order = (Verdict.NG, Verdict.ERROR, Verdict.REVIEW, Verdict.OK)
    return Verdicts(verdict=min((view.verdict for view in views), key=order.index), views=tuple(views))


@dataclass
class World:
    """Runs `triggers` parts through a tracker.

    Args:
        by: how frames find their part. takt, deadline, latency, service: seconds; `service` is that of a network run.
        bad: share of bad parts. workers: network runs at once. regions: of each view.
        stamped: cameras have clocks. quiet: so many parts at first without a fault.
    """

    triggers: int
    views: tuple[str, ...] = ("top", "side")
    by: str = "order"
    takt: float = 1.0
    deadline: float = 1.5
    latency: float = 0.05
    early: float = 0.0
    bad: float = 0.1
    service: float = 0.1
    workers: int = 2
    regions: int = 1
    waiting: int = 64
    stamped: bool = False
    quiet: int = 0
    faults: Faults = field(default_factory=Faults)
    seed: int = 0
    on_closed: Callable[[Closed], None] | None = None
    check_every: int = 1

    def run(self) -> Counter[str]:
        """Counts verdicts, frames by fate, and what went wrong. Raises AssertionError where accounts do not balance."""
        chance = random.Random(self.seed)
        plan = Plan(
            regions=dict.fromkeys(self.views, self.regions),
            models=dict.fromkeys(self.views, "model"),
            deadline=self.deadline,
            lead=0.0,
            window=0.75 * self.takt - self.early if self.by == "order" else self.deadline,
            early=self.early,
            by=self.by,  # type: ignore[arg-type]
            join=worst,
        )
        tracker = Tracker(self.views, waiting=self.waiting)
        events: list[tuple[float, int, str, object]] = []
        count = itertools.count()

        def fault(name: str, part: int) -> bool:
            return part > self.quiet and chance.random() < getattr(self.faults, name)

        def at(when: float, what: str, about: object = None) -> None:
            heapq.heappush(events, (when, next(count), what, about))

        numbers = dict.fromkeys(self.views, 0)
        off_until = dict.fromkeys(self.views, -1.0)
        is_bad: dict[int, bool] = {}
        told: Counter[str] = Counter()
        idle = self.workers
        steps = 0

        def expose(view: str, part: int, when: float) -> None:
            """A camera exposes, and its frame is on its way."""
            numbers[view] += 1
            damaged = fault("damaged", part)
            arrives = when + self.latency * chance.uniform(0.8, 1.2)
            if fault("swapped", part):
                arrives += 1.1 * self.takt
            frame = Frame(
                pixels=None if damaged else PIXELS,
                number=numbers[view],
                received=arrives,
                trigger=part,
                part=f"S{part}",
                device_ns=int((when + 1000) * 1e9) if self.stamped else None,
                damage="cut" if damaged else None,
                name=str(part),
            )
            if not fault("lost", part):
                at(arrives, "frame", (view, frame))
                if fault("doubled", part):
                    at(arrives + 0.001, "frame", (view, frame))

        def work(now: float) -> None:
            nonlocal idle
            while idle and (jobs := tracker.take(now)):
                idle -= 1
                slow = 50 if chance.random() < self.faults.slow else 1
                at(now + self.service * chance.uniform(0.8, 1.2) * slow, "judged", jobs[0])

        at(self.takt, "trigger", 1)
        while events:
            now, _, what, about = heapq.heappop(events)
            steps += 1
            if what == "trigger":
                number = int(about)  # type: ignore[call-overload]
                is_bad[number] = chance.random() < self.bad
                trigger = Trigger(number=number, part=f"S{number}", product="p", at=now, wall=now)
                key = {"trigger": str(number), "part": f"S{number}"}.get(self.by)
                tracker.open(trigger, plan, key=key)
                for view in self.views:
                    if fault("restart", number):
                        off_until[view] = now + 2.5 * self.takt
                        tracker.lost(view, "off")
                        at(off_until[view], "back", view)
                    if now >= off_until[view] and not fault("missed", number):
                        expose(view, number, now)
                    if fault("strange", number) and now >= off_until[view]:
                        expose(view, 0, now + 0.5 * self.takt)
                at(now + self.deadline, "due")
                if number < self.triggers:
                    at(now + self.takt, "trigger", number + 1)
            elif what == "back":
                view = str(about)
                numbers[view] = 0
                tracker.lost(view, "back")
            elif what == "frame":
                view, frame = cast(tuple[str, Frame], about)
                if now >= off_until[view]:  # what was on its way when the camera went is gone
                    tracker.frame(view, frame, plan)
            elif what == "judged":
                idle += 1
                assert isinstance(about, Job)
                whole = tracker.judged(about, self._judge(about, is_bad, chance))
                if whole is not None:
                    verdict = max((one.verdict for one in whole.inspections), key=("OK", "NG", "ERROR").index)
                    result = ViewResult(view=whole.view, verdict=verdict, inspections=whole.inspections)
                    tracker.conclude(whole, result, now)
            work(now)
            for closed in tracker.finished(now):
                told[closed.joined.verdict.value] += 1
                told["late"] += now > closed.due + 1e-9
                truth = is_bad.pop(closed.trigger.number)
                strange = any(
                    frame.name != str(closed.trigger.number)
                    for name, frame in closed.frames.items()
                    if next(v for v in closed.joined.views if v.view == name).verdict is not Verdict.ERROR
                )
                told["mixed up"] += strange
                told["escaped"] += truth and closed.joined.verdict is Verdict.OK
                if self.on_closed is not None:
                    self.on_closed(closed)
            if steps % self.check_every == 0:
                problem = tracker.check()
                assert problem is None, problem
        assert tracker.check() is None
        assert not tracker.in_flight
        told["triggers"] = tracker.totals["triggers"]
        for name, account in tracker.counters().items():
            for fate, value in account.items():
                if name != "line":
                    told[f"frames {fate}"] += value
        return told

    def _judge(self, job: Job, is_bad: dict[int, bool], chance: random.Random) -> Inspection:
        if chance.random() < self.faults.failed:
            return Inspection(name="", verdict=Verdict.ERROR, score=float("nan"), size=(1, 1), reason="x", code="x")
        bad = is_bad.get(int(job.frame.name or 0), False)
        return Inspection(name="", verdict=Verdict.NG if bad else Verdict.OK, score=float(bad), size=(1, 1))
