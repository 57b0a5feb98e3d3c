"""Parts in time: which frame belongs to which part, what is judged next, and when a part must have its verdict.

No thread, no clock, no camera: every method is told what happened and when (`now`, seconds of one monotonic clock), so
a million parts can be tried in simulated time and any order of events is a test. The line calls it under one lock.

Accounts that always balance (`Tracker.check`): of the line and of every view, triggers = OK + NG + REVIEW + ERROR + in
flight; of every view, frames received = the sum of their fates (`inspection.line.state.FATES`) + waiting.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

from inspection.line.plan import Closed, Job, Plan, Whole
from inspection.line.state import (
    REMEMBERED,
    PartState,
    Stream,
    ViewState,
    account,
    exposed_late,
    in_window,
    pending,
    unbalanced,
)
from inspection.parts import Frame, Trigger, ViewResult
from inspection.results import Inspection, Verdict

STALE = 2  # so many frames in a row may be old, or not agree with the clocks; more say that the camera began anew
LATE = 10  # so many in a row may be late


class Tracker:
    """All parts in flight.

    Args:
        views: names of all views that may send frames; `add` knows of more.
        waiting: regions that may wait for a worker. Beyond it the part that is due last is given up (`overload`).
    """

    def __init__(self, views: Sequence[str] = (), *, waiting: int = 64) -> None:
        self.waiting = waiting
        self.totals: Counter[str] = Counter()
        self._streams = {view: Stream() for view in views}
        self._parts: dict[int, PartState] = {}  # in flight, in the order of triggers
        self._keys: dict[str, PartState] = {}
        self._past: dict[str, float] = {}  # keys of parts that are gone; until when a frame for one of them is late
        self._jobs: list[tuple[float, int, int, Job]] = []
        self._count = itertools.count()

    def add(self, views: Sequence[str]) -> None:
        """Further views may send frames from now on (another recipe has them)."""
        for view in views:
            self._streams.setdefault(view, Stream())

    # -- what happens ------------------------------------------------------------------------------------------------

    def open(self, trigger: Trigger, plan: Plan, *, key: str | None = None) -> None:
        """A part comes by. `key` is what frames name it by, where they do (`Plan.by`)."""
        due = trigger.at + plan.deadline - plan.lead
        views = {view: ViewState() for view in plan.regions}
        part = PartState(trigger=trigger, plan=plan, key=key, due=due, views=views)
        self._parts[trigger.number] = part
        self.totals["triggers"] += 1
        if key is not None:
            self._keys[key] = part
            self._past.pop(key, None)
        for view in views:
            stream = self._streams[view]
            stream.parts["triggers"] += 1
            stream.waiting.append(part)
            self._take_early(view, stream, part)

    def frame(self, view: str, frame: Frame, plan: Plan) -> None:
        """A frame is here. `plan` is what new parts are judged by; it says how frames find their part."""
        stream = self._streams[view]
        stream.frames["received"] += 1
        stream.received = frame.received
        if plan.by == "order":
            self._by_order(view, stream, frame, plan)
        else:
            self._by_key(view, stream, frame, plan)

    def missed(self, view: str, frame: Frame) -> int:
        """How many frames the camera's count says were lost just before this one."""
        last = self._streams[view].last
        return 0 if last is None else max(0, frame.number - last - 1)

    def last_received(self, view: str) -> float | None:
        """When the last frame of this view was here."""
        return self._streams[view].received

    def awaited(self, view: str, frame: Frame, plan: Plan) -> bool:
        """Whether a part in flight, or one that is just gone, would take this frame: then it opens no new one."""
        stream = self._streams[view]
        if plan.by != "order":
            key = plan.key(frame)
            return key is None or key in self._keys or self._past.get(key, frame.received) > frame.received
        old = stream.last is not None and frame.number <= stream.last
        return old or any(in_window(part, frame.received) for part in stream.waiting)

    def lost(self, view: str, reason: str) -> None:
        """The camera went or came back: frames of the triggers so far will not come, and its count begins anew.

        Without this, the first frame after it would be taken for the oldest part that still waits, and every later one
        would be judged as its predecessor. Frames that name their part need no such care.
        """
        stream = self._streams[view]
        for part in (*stream.waiting, *stream.skipped.values()):
            if part.plan.by == "order":
                self._fail(view, part, "camera-lost", reason)
        stream.skipped.clear()
        stream.seen.clear()
        stream.last = stream.latest = stream.clock = None

    def forget_early(self, view: str) -> None:
        """Frames that came before their trigger find none: a part that comes by now is another camera's."""
        stream = self._streams[view]
        while stream.early:
            self._unmatched(view, stream, stream.early.popleft()[1])

    def take(self, now: float, most: int = 1) -> list[Job]:
        """Jobs of the parts that are due first; several only of one recipe and model. Each must come back."""
        jobs: list[Job] = []
        while self._jobs and len(jobs) < most:
            job = self._jobs[0][-1]
            view = self._open_view(job.part, job.view)
            if view is not None and jobs and not _together(job, jobs[0]):
                break
            heapq.heappop(self._jobs)
            if view is not None:
                view.started = now if view.started is None else view.started
                jobs.append(job)
        return jobs

    def judged(self, job: Job, inspection: Inspection) -> Whole | None:
        """One region has been judged, or could not be (`Verdict.ERROR`); the whole view, if it was the last one."""
        view = self._open_view(job.part, job.view)
        if view is None or view.frame is not job.frame:
            return None  # its part is gone, and the frame was counted then
        view.found[job.region] = inspection
        found = tuple(one for one in view.found if one is not None)
        if len(found) < len(view.found):
            return None
        return Whole(part=job.part, view=job.view, frame=job.frame, plan=job.plan, inspections=found)

    def conclude(self, whole: Whole, result: ViewResult, now: float) -> None:
        """The result of a view. Separate from `judged`, because it takes time that no lock should be held for."""
        view = self._open_view(whole.part, whole.view)
        if view is None or now >= self._parts[whole.part].due:
            return  # too late: `finished` closes it, however late that may be called
        failed = any(one.verdict is Verdict.ERROR for one in whole.inspections)
        self._streams[whole.view].frames["failed" if failed else "judged"] += 1
        part = self._parts[whole.part]
        start = part.trigger.at
        times = {"received": whole.frame.received - start, "judged": now - start}
        if view.started is not None:
            times["started"] = view.started - start
        self._settle(part, result, times)

    def drop(self, number: int, code: str, reason: str) -> None:
        """Gives a part up: views that have no result are ERROR with this code."""
        part = self._parts.get(number)
        if part is not None and not part.closed:
            self._close(part, code, reason, "dropped")

    def finished(self, now: float) -> Iterator[Closed]:
        """Parts that are over, each once: all views are in, or its time is up. In the order of triggers, except that
        a part whose own time is up does not wait for one before it."""
        for name, stream in self._streams.items():
            while stream.early and now >= stream.early[0][0]:
                self._unmatched(name, stream, stream.early.popleft()[1])
        first = True  # every part before this one has been handed out
        for part in list(self._parts.values()):
            over = now >= part.due
            if not part.closed and (over or all(view.result is not None for view in part.views.values())):
                self._close(part, "deadline-missed", "it was not judged before its time was up.", "late")
            if part.closed and (first or over):
                yield self._hand_out(part)
            else:
                first = False

    # -- what is asked -----------------------------------------------------------------------------------------------

    def wake(self) -> float | None:
        """The next moment at which something ends by itself: a part is due, or an early frame finds no trigger."""
        moments = [part.due for part in self._parts.values()]
        moments += [stream.early[0][0] for stream in self._streams.values() if stream.early]
        return min(moments, default=None)

    @property
    def in_flight(self) -> list[int]:
        """Numbers of the parts without a verdict."""
        return list(self._parts)

    @property
    def queued(self) -> int:
        """Regions that wait for a worker."""
        return len(self._jobs)

    def ripe(self, now: float) -> bool:
        """Whether `finished` would give something."""
        parts = list(self._parts.values())
        whole = bool(parts) and all(view.result is not None for view in parts[0].views.values())
        return whole or any(part.due <= now for part in parts)

    def busy(self, by: float) -> bool:
        """Whether something is still to be judged for a part that is due at `by` or before."""
        return any(pending(view) for part in self._parts.values() if part.due <= by for view in part.views.values())

    def counters(self) -> dict[str, dict[str, int]]:
        """See `inspection.line.state.account`."""
        return account(self.totals, self._streams, list(self._parts.values()))

    def check(self) -> str | None:
        """What does not balance, in one sentence; None: everything does."""
        return unbalanced(self.counters())

    # -- frames find their part --------------------------------------------------------------------------------------

    def _by_order(self, view: str, stream: Stream, frame: Frame, plan: Plan) -> None:
        if stream.last is not None and frame.number <= stream.last:
            if self._give_skipped(view, stream, frame):
                stream.stale = 0
                return
            stream.stale += 1
            if stream.stale <= STALE and frame.number >= stream.last - REMEMBERED:
                stream.frames["duplicate" if frame.number in stream.seen else "late"] += 1
                return
            self.lost(view, "the camera began to count anew.")  # it was switched off and on unnoticed
        stream.stale = 0
        gap = self.missed(view, frame)
        lost = range(frame.number - min(gap, len(stream.waiting)), frame.number)
        stream.last = frame.number
        for number in lost:  # they were those of the parts that have waited longest
            missed = stream.waiting.popleft()
            missed.views[view].number = number
            stream.skipped[number] = missed  # perhaps it only comes out of order
        while len(stream.skipped) > REMEMBERED:
            stream.skipped.pop(next(iter(stream.skipped)))
        part = self._next(view, stream, frame.received)
        if part is not None and self._mistimed(view, stream, part, frame):
            stream.frames["late"] += 1
        elif part is not None:
            self._give(view, stream, part, frame)
        elif plan.early > 0:
            stream.early.append((frame.received + plan.early, frame))
        else:
            self._unmatched(view, stream, frame)

    def _by_key(self, view: str, stream: Stream, frame: Frame, plan: Plan) -> None:
        key = plan.key(frame)
        part = None if key is None else self._keys.get(key)
        if part is not None and view in part.views:
            if part.views[view].frame is not None:
                stream.frames["duplicate"] += 1
            elif not self._give(view, stream, part, frame):
                stream.frames["late"] += 1
        elif key is not None and self._past.get(key, frame.received) > frame.received:
            stream.frames["late"] += 1
        elif key is not None and part is None and plan.early > 0:
            stream.early.append((frame.received + plan.early, frame))
        else:
            stream.frames["unmatched"] += 1

    def _take_early(self, view: str, stream: Stream, part: PartState) -> None:
        for entry in list(stream.early):
            frame = entry[1]
            mine = part.plan.by == "order" or part.plan.key(frame) == part.key
            if mine and in_window(part, frame.received):
                stream.early.remove(entry)
                self._give(view, stream, part, frame)
                return

    def _give_skipped(self, view: str, stream: Stream, frame: Frame) -> bool:
        """Whether the frame was only out of order, and its part still takes it."""
        part = stream.skipped.pop(frame.number, None)
        if part is None or frame.number in stream.seen or not in_window(part, frame.received):
            return False
        return not self._mistimed(view, stream, part, frame) and self._give(view, stream, part, frame)

    def _mistimed(self, view: str, stream: Stream, part: PartState, frame: Frame) -> bool:
        """Whether the frame was exposed for another trigger than this part's, and only now came through."""
        later = exposed_late(stream, part, frame)
        if abs(later) <= part.plan.window / 4:
            stream.mistimed = 0
            return False
        stream.mistimed += 1
        # A few late frames in a row are no reason to doubt the clocks.
        if stream.mistimed > (LATE if -part.plan.deadline < later < 0 else STALE):
            self.lost(view, "the camera's clock and the triggers' do not agree.")
            stream.mistimed = 0
        return True

    def _next(self, view: str, stream: Stream, received: float) -> PartState | None:
        """The oldest part that a frame of this moment can belong to; those whose window is over have none."""
        while stream.waiting:
            part = stream.waiting[0]
            if received <= part.trigger.at + part.plan.window:
                return part if in_window(part, received) else None
            self._fail(view, part, "frame-missing", "no frame came within its window.")
        return None

    def _give(self, view: str, stream: Stream, part: PartState, frame: Frame) -> bool:
        """The part gets the frame; False where it has its verdict, or its result for this view, already."""
        mine = part.views[view]
        if part.closed or mine.result is not None:
            return False
        if part in stream.waiting:
            stream.waiting.remove(part)
        stream.latest = part
        stream.seen.append(frame.number)
        if frame.device_ns:
            stream.clock = (frame.device_ns, part.trigger.at)
        mine.frame, mine.number = frame, frame.number
        if frame.damage is not None or frame.pixels is None:
            stream.frames["incomplete"] += 1
            self._error(part, view, "frame-incomplete", frame.damage or "the frame has no pixels.")
            return True
        mine.found = [None] * part.plan.regions[view]
        for region in range(len(mine.found)):
            job = Job(part=part.trigger.number, view=view, region=region, frame=frame, plan=part.plan, due=part.due)
            heapq.heappush(self._jobs, (part.due, part.trigger.number, next(self._count), job))
        while len(self._jobs) > self.waiting:
            self._shed()
        return True

    def _unmatched(self, view: str, stream: Stream, frame: Frame) -> None:
        """A frame without a trigger. Where frames come in order, it may be that the one before it was the strange one:
        nobody can tell, so the part that has that one is ERROR."""
        stream.frames["unmatched"] += 1
        part = stream.latest
        if part is None or part.closed or part.plan.by != "order" or not in_window(part, frame.received):
            return
        mine = part.views[view]
        if pending(mine):
            stream.frames["dropped"] += 1
        self._error(part, view, "frame-doubled", "two frames came for one trigger, and one is of another part.")

    # -- parts end ---------------------------------------------------------------------------------------------------

    def _shed(self) -> None:
        """More waits than may: the part that is due last is given up, so that the others are in time."""
        last = max(self._jobs, key=lambda entry: entry[:2])[-1]
        self.drop(last.part, "overload", "the part was given up: more waits to be judged than this machine can do.")
        self._jobs = [entry for entry in self._jobs if self._open_view(entry[-1].part, entry[-1].view) is not None]
        heapq.heapify(self._jobs)

    def _open_view(self, number: int, view: str) -> ViewState | None:
        """The view of a part if it still waits for its result."""
        part = self._parts.get(number)
        if part is None or part.closed or part.views[view].result is not None:
            return None
        return part.views[view]

    def _fail(self, view: str, part: PartState, code: str, reason: str) -> None:
        """This part will get no frame from this view."""
        stream = self._streams[view]
        if part in stream.waiting:
            stream.waiting.remove(part)
        if not part.closed and part.views[view].frame is None and part.views[view].result is None:
            self._error(part, view, code, reason)

    def _close(self, part: PartState, code: str, reason: str, fate: str) -> None:
        """Nothing more is waited for: a view without a result is ERROR, and its frame is counted."""
        for name, mine in part.views.items():
            stream = self._streams[name]
            if part in stream.waiting:
                stream.waiting.remove(part)
            if mine.result is not None:
                continue
            if mine.frame is not None:
                stream.frames[fate] += 1
                self._error(part, name, code, reason)
            elif mine.number is not None:
                self._error(part, name, "frame-lost", f"the camera's count says that frame {mine.number} was lost.")
            elif code == "deadline-missed":
                self._error(part, name, "frame-missing", "no frame came before its time was up.")
            else:
                self._error(part, name, code, reason)
        part.closed = True
        if part.key is not None:
            if self._keys.get(part.key) is part:
                del self._keys[part.key]
            self._past[part.key] = part.due + part.plan.deadline
            while len(self._past) > REMEMBERED:
                del self._past[next(iter(self._past))]

    def _hand_out(self, part: PartState) -> Closed:
        del self._parts[part.trigger.number]
        joined = part.plan.join([mine.result for mine in part.views.values() if mine.result is not None])
        self.totals[joined.verdict.value] += 1
        for result in joined.views:
            self._streams[result.view].parts[result.verdict.value] += 1
        frames = {name: mine.frame for name, mine in part.views.items() if mine.frame is not None}
        for mine in part.views.values():  # a view may keep the part in mind for long, but not its pixels and maps
            mine.frame, mine.result = None, None
            mine.found.clear()
        return Closed(
            trigger=part.trigger,
            plan=part.plan,
            joined=joined,
            frames=frames,
            due=part.due,
            last_frame=max((frame.received for frame in frames.values()), default=None),
        )

    def _error(self, part: PartState, view: str, code: str, reason: str) -> None:
        frame = part.views[view].frame
        times = {} if frame is None else {"received": frame.received - part.trigger.at}
        self._settle(part, ViewResult(view=view, verdict=Verdict.ERROR, reason=reason, code=code), times)

    def _settle(self, part: PartState, result: ViewResult, times: dict[str, float]) -> None:
        mine = part.views[result.view]
        seconds = {name: round(value, 6) for name, value in times.items()}
        mine.result = replace(result, frame=mine.number, seconds=seconds)


def _together(one: Job, other: Job) -> bool:
    """Whether one network run may judge both: two recipes with one model may cut different regions."""
    return one.plan is other.plan and one.plan.models[one.view] == other.plan.models[other.view]
