"""What the line says of a part: the value types that cameras, scheduler, outputs and record share.

Two clocks: `at`, `decided` and all deadlines are seconds of this machine's monotonic clock, which nobody can set back;
`wall` is seconds since 1970 (UTC), for people and records only, and no decision is taken by it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from inspection.pixels import Pixels
from inspection.results import Defect, Inspection, Verdict


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """One exposure of one camera, as it arrived.

    Attributes:
        pixels: `HxW` or `HxWx3` RGB, uint8 or uint16; None where the frame is not whole, and then never judged.
        number: the camera's count of exposures: it rises by one for each, so a gap says how many frames were lost. A
            camera whose own ids wrap (GigE Vision: 16 bit, without 0) unwraps them.
        received: when the last of it was here, monotonic seconds.
        trigger: the trigger it belongs to, where the source says so.
        part: serial or barcode, where the source says so. lot: likewise.
        device_ns: the camera's own timestamp, nanoseconds of its own clock; None where it has none.
        pixel_format: as it came, by its name in the GenICam PFNC where it has one: `Mono8`, `BayerRG8`, `RGB8`.
        damage: what is missing or wrong, in one sentence; None: it is whole.
        name: a file's name, for a person.
    """

    pixels: Pixels | None
    number: int
    received: float
    trigger: int | None = None
    part: str | None = None
    lot: str | None = None
    device_ns: int | None = None
    pixel_format: str = ""
    damage: str | None = None
    name: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Trigger:
    """A part has come by.

    Attributes:
        number: the line's own count, from 1, never used twice in one record, also after a restart.
        part: serial or barcode; the number as text where nobody gave one.
        at: monotonic seconds. wall: seconds since 1970, UTC.
        encoder: count of the belt's encoder, where one was given.
    """

    number: int
    part: str
    product: str
    at: float
    wall: float
    lot: str | None = None
    encoder: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ViewResult:
    """What became of one view of one part.

    Attributes:
        verdict: after the recipe's tolerances. `ERROR` where the frame is missing, damaged or late, or judging failed.
        inspections: one for each region of the view, in the recipe's order, in pixels of the whole frame.
        tolerated: defects that the recipe lets pass; not in `defects`.
        frame: the number of the frame; None: there was none.
        reason, code: set for `ERROR` and `REVIEW`; the code is one of `inspection.errors` or `line` codes.
        seconds: after the trigger: `received`, `started`, `judged`.
    """

    view: str
    verdict: Verdict
    inspections: tuple[Inspection, ...] = ()
    defects: tuple[Defect, ...] = ()
    tolerated: tuple[Defect, ...] = ()
    frame: int | None = None
    reason: str | None = None
    code: str | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def score(self) -> float:
        """The highest raw score of its regions; NaN where none was judged."""
        scores = [one.score for one in self.inspections if np.isfinite(one.score)]
        return max(scores, default=float("nan"))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "view": self.view,
            "verdict": self.verdict.value,
            "score": self.score if np.isfinite(self.score) else None,
            "scores": [one.score if np.isfinite(one.score) else None for one in self.inspections],
            "kind": next((one.kind for one in self.inspections if one.kind), None),
            "defects": [defect.to_dict() for defect in self.defects],
            "tolerated": [defect.to_dict() for defect in self.tolerated],
            "frame": self.frame,
            "reason": self.reason,
            "code": self.code,
            "seconds": self.seconds,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class PartResult:
    """The verdict on a part: there is exactly one for every trigger, and it never changes.

    Attributes:
        decided: monotonic seconds. deadline: likewise, the latest moment at which the verdict is of use.
        recipe, recipe_hash: what it was judged by. models: SHA-256 of each view's model file.
        kind: the class of the worst defect, where one is known.
        seconds: after the trigger: `last_frame`, `decided`.
    """

    trigger: Trigger
    verdict: Verdict
    views: tuple[ViewResult, ...]
    decided: float
    deadline: float
    recipe: str
    recipe_hash: str
    models: dict[str, str] = field(default_factory=dict)
    kind: str | None = None
    reason: str | None = None
    code: str | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    def without_maps(self) -> PartResult:
        """The same without score maps: what is kept in memory for longer than it takes to write them."""
        views = tuple(
            replace(view, inspections=tuple(replace(one, map=None) for one in view.inspections)) for view in self.views
        )
        return replace(self, views=views)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: what outputs send and the record keeps."""
        return {
            "number": self.trigger.number,
            "part": self.trigger.part,
            "lot": self.trigger.lot,
            "product": self.trigger.product,
            "encoder": self.trigger.encoder,
            "verdict": self.verdict.value,
            "kind": self.kind,
            "reason": self.reason,
            "code": self.code,
            "triggered": self.trigger.wall,
            "seconds": self.seconds,
            "recipe": self.recipe,
            "recipe_hash": self.recipe_hash,
            "models": self.models,
            "views": [view.to_dict() for view in self.views],
        }
