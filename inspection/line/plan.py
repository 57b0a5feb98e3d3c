"""What the tracker must know of a recipe, and what it hands out: jobs, whole views, closed parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from inspection.parts import Frame, Trigger, ViewResult
from inspection.results import Inspection, Verdict


class Joined(Protocol):
    """The verdict on a part, from its views (`inspection.recipe.joining`)."""

    @property
    def verdict(self) -> Verdict: ...
    @property
    def kind(self) -> str | None: ...
    @property
    def reason(self) -> str | None: ...
    @property
    def code(self) -> str | None: ...
    @property
    def views(self) -> tuple[ViewResult, ...]: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """One recipe, as the tracker sees it.

    Attributes:
        regions: how many regions each view has.
        models: what each view is judged with; regions of equal ones may share a network run.
        deadline: seconds after the trigger. lead: so much before it the verdict must be there.
        window: a frame that comes so long after a trigger is not its frame. early: nor one that comes longer before it.
        join: from the results of all views to the verdict.
    """

    regions: Mapping[str, int]
    models: Mapping[str, str]
    deadline: float
    lead: float
    window: float
    early: float = 0.0
    by: Literal["order", "trigger", "part"] = "order"
    join: Callable[[Sequence[ViewResult]], Joined]

    def key(self, frame: Frame) -> str | None:
        """What the frame names its part by; None: it does not say."""
        if self.by == "trigger":
            return None if frame.trigger is None else str(frame.trigger)
        return frame.part


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One region of one view of one part, to be judged before `due`."""

    part: int
    view: str
    region: int
    frame: Frame
    plan: Plan
    due: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Whole:
    """A view all of whose regions are judged: `Tracker.conclude` wants its result next."""

    part: int
    view: str
    frame: Frame
    plan: Plan
    inspections: tuple[Inspection, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Closed:
    """A part with its verdict. `frames` are those of its views that came."""

    trigger: Trigger
    plan: Plan
    joined: Joined
    frames: dict[str, Frame]
    due: float
    last_frame: float | None  # when the last of them was here
