"""What the tracker keeps in mind of a part, of a view of a part, and of a view over all parts."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from inspection.line.plan import Plan
from inspection.parts import Frame, Trigger, ViewResult
from inspection.results import Inspection, Verdict

REMEMBERED = 512  # frames and skipped numbers of a view that are kept in mind, to tell a late frame from a strange one
DRIFT = 2e-4  # of two clocks against each other; quartzes have some 5e-5 each

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
        self.stale = 0  # frames in a row with old numbers that nobody wants
        self.received: float | None = None  # when the last frame was here
        self.latest: PartState | None = None  # the part that got the last frame
        self.clock: tuple[int, float] | None = None  # the camera's clock (ns) at the last frame, and its trigger's time
        self.mistimed = 0  # frames in a row that the two clocks disagree about
        self.frames: Counter[str] = Counter()  # by fate, and `received`
        self.parts: Counter[str] = Counter()  # by verdict, and `triggers`


def in_window(part: PartState, received: float) -> bool:
    return part.trigger.at - part.plan.early <= received <= part.trigger.at + part.plan.window


def exposed_late(stream: Stream, part: PartState, frame: Frame) -> float:
    """By how many seconds the frame was exposed later than the part's trigger asks for, going by the camera's own clock
    since its last frame; 0 where it has none, or where the two clocks may have drifted apart by as much."""
    if not frame.device_ns or stream.clock is None:
        return 0.0
    device_ns, trigger = stream.clock
    passed = part.trigger.at - trigger
    later = (frame.device_ns - device_ns) / 1e9 - passed
    return later if abs(later) > DRIFT * abs(passed) else 0.0


def pending(view: ViewState) -> bool:
    """Whether it has a frame whose fate is open."""
    return view.frame is not None and view.result is None


def account(
    totals: Counter[str], streams: Mapping[str, Stream], parts: Sequence[PartState]
) -> dict[str, dict[str, int]]:
    """Of the line and of each view: parts by verdict; of each view also frames by fate. `parts`: those in flight."""
    accounts = {"line": _parts(totals, len(parts))}
    for name, stream in streams.items():
        inside = [part.views[name] for part in parts if name in part.views]
        accounts[f"view {name}"] = {
            **_parts(stream.parts, len(inside)),
            **{fate: stream.frames[fate] for fate in ("received", *FATES)},
            "waiting": len(stream.early) + sum(pending(view) for view in inside),
        }
    return accounts


def unbalanced(accounts: Mapping[str, Mapping[str, int]]) -> str | None:
    """What does not balance, in one sentence; None: everything does."""
    for name, counts in accounts.items():
        ended = sum(counts[verdict.value] for verdict in Verdict)
        if counts["triggers"] != ended + counts["in_flight"]:
            return f"{name}: {counts['triggers']} triggers, {ended} verdicts and {counts['in_flight']} in flight."
        if "received" not in counts:
            continue
        ended = sum(counts[fate] for fate in FATES)
        if counts["received"] != ended + counts["waiting"]:
            return f"{name}: {counts['received']} frames, {ended} of them ended and {counts['waiting']} waiting."
    return None


def _parts(counts: Counter[str], in_flight: int) -> dict[str, int]:
    verdicts = {verdict.value: counts[verdict.value] for verdict in Verdict}
    return {"triggers": counts["triggers"], **verdicts, "in_flight": in_flight}
