"""What the tracker keeps in mind of a part, of a view of a part, and of a view over all parts."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field

from inspection.line.plan import Plan
from inspection.parts import Frame, Trigger, ViewResult
from inspection.results import Inspection, Verdict

REMEMBERED = 512  # frames and skipped numbers of a view that are kept in mind, to tell a late frame from a strange one

# What becomes of a frame; every one ends in exactly one of these.
FATES = ("judged", "failed", "incomplete", "late", "dropped", "duplicate", "unmatched")


@dataclass(kw_only=True, slots=True, eq=False)
class ViewState:
    """One view of an open part."""

    frame: Frame | None = None
    number: int | None = None  # of its frame; also of one that the camera's count says was lost
    started: float | None = None  # when a worker took the first region
    found: list[Inspection | None] = field(default_factory=list)
    result: ViewResult | None = None


@dataclass(kw_only=True, slots=True, eq=False)
class PartState:
    trigger: Trigger
    plan: Plan
    key: str | None
    due: float
    views: dict[str, ViewState]
    closed: bool = False


class Stream:
    """One view over all parts: which of them wait for a frame, and where the camera's count stands."""

    def __init__(self) -> None:
        self.waiting: deque[PartState] = deque()  # in the order of triggers
        self.early: deque[tuple[float, Frame]] = deque()  # came before their trigger; until when they may wait for it
        self.last: int | None = None
        self.skipped: dict[int, PartState] = {}  # numbers that did not come, and whose frames they would have been
        self.seen: deque[int] = deque(maxlen=REMEMBERED)
        self.latest: PartState | None = None  # the part that got the last frame
        self.clock: tuple[int, float] | None = None  # the camera's clock (ns) at the last frame, and its trigger's time
        self.mistimed = 0  # frames in a row that the two clocks disagree about
        self.frames: Counter[str] = Counter()  # by fate, and `received`
        self.parts: Counter[str] = Counter()  # by verdict, and `triggers`


def in_window(part: PartState, received: float) -> bool:
    return part.trigger.at - part.plan.early <= received <= part.trigger.at + part.plan.window


def exposed_late(stream: Stream, part: PartState, frame: Frame) -> float:
    """By how many seconds the frame was exposed later than the part's trigger asks for, going by the camera's own clock
    since its last frame; 0 where it has none. Clocks drift by some 50 ppm: nothing between two parts."""
    if not frame.device_ns or stream.clock is None:
        return 0.0
    device_ns, trigger = stream.clock
    return (frame.device_ns - device_ns) / 1e9 - (part.trigger.at - trigger)


def pending(view: ViewState) -> bool:
    """Whether it has a frame whose fate is open."""
    return view.frame is not None and view.result is None


def account(counts: Counter[str], in_flight: int) -> dict[str, int]:
    verdicts = {verdict.value: counts[verdict.value] for verdict in Verdict}
    return {"triggers": counts["triggers"], **verdicts, "in_flight": in_flight}
