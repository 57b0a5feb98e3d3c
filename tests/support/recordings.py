"""Small recordings for tests: parts, frames and verdicts as a line would give them."""

from __future__ import annotations

from pathlib import Path

from inspection.cameras.recorder import Recorder
from inspection.control import Alarm
from inspection.parts import Frame, PartResult, Trigger, ViewResult
from inspection.results import Defect, Inspection, Verdict
from tests.support.images import Array


def trigger(number: int, at: float = 0.0, **about: object) -> Trigger:
    """A part that came by."""
    values = {"part": f"SN{number}", "product": "cover", "wall": 1.7e9 + at, **about}
    return Trigger(number=number, at=at, **values)  # type: ignore[arg-type]


def frame(number: int, pixels: Array | None, at: float = 0.0, **about: object) -> Frame:
    """A frame that arrived."""
    return Frame(pixels=pixels, number=number, received=at, **about)  # type: ignore[arg-type]


def result(of: Trigger, score: float, *, took: float = 0.1) -> PartResult:
    """The verdict on a part; NG, with one defect."""
    inspection = Inspection(
        name="top", verdict=Verdict.NG, score=score, size=(10, 8), seconds={"network": took}, kind="scratch"
    )
    defect = Defect(kind="scratch", score=score, box=(1, 2, 3, 4), area=5)
    view = ViewResult(
        view="top",
        verdict=Verdict.NG,
        inspections=(inspection,),
        defects=(defect,),
        frame=of.number,
        seconds={"judged": took},
    )
    return PartResult(
        trigger=of,
        verdict=Verdict.NG,
        views=(view,),
        decided=of.at + took,
        deadline=of.at + 1,
        recipe="cover",
        recipe_hash="ab" * 32,
        seconds={"decided": took},
    )


def recorder(
    folder: Path, *, limit: int = 10**9, waiting: int = 10_000, alarm: Alarm = lambda _code, _what: None
) -> Recorder:
    """A recorder whose start is at 0 on the clock, so that offsets are the times that were given, to the bit."""
    return Recorder(folder, limit=limit, waiting=waiting, clock=lambda: 0.0, alarm=alarm)
