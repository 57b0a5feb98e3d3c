"""What a finished run says at its end."""

from __future__ import annotations

from collections.abc import Iterator

from inspection.modelfile import Bound
from training.run import Run
from training.selection import spoken


def summary(run: Run) -> Iterator[str]:
    """Lines for a person: what was trained, what it does on the calibration split, and what to do next."""
    record = run.record
    yield f"trained      {record.sentence}"
    if record.best is not None:
        length = f"{record.schedule.steps} steps, " if record.schedule else ""
        yield f"kept         {length}weights of step {record.best.step} ({record.best.criterion})"
    yield f"time         {record.wall_seconds:.0f} s, CPU {record.cpu_seconds:.0f} s"
    if record.calibration:
        yield f"calibration  {spoken(record.calibration)}"
    calibrated = run.calibrated()
    if calibrated is not None:
        point = calibrated.operating_point
        yield f"thresholds   OK below {point.ok_below:.4g}, NG from {point.ng_above:.4g}"
        for bound in calibrated.calibration.bounds:
            yield f"{bound.kind:<12} {spoken_bound(bound)}"
    elif record.task == "defect":
        yield "thresholds   none: the calibration split has no judged image, so every verdict will be REVIEW"
    yield f"next         inspection export {run.path} --out model.onnx"


def spoken_bound(bound: Bound) -> str:
    """`1 of 120 bad parts; at most 3.90% with 95% confidence; 2.00% asked: not proven, ...`."""
    kind = "bad" if bound.kind == "escape" else "good"
    if bound.total == 0:
        return f"unknown: the calibration split has no {kind} part"
    proven = f"at most {bound.upper:.2%} with {bound.confidence:.0%} confidence"
    text = f"{bound.errors} of {bound.total} {kind} parts; {proven}"
    if bound.asked is None:
        return text
    if bound.held:
        return f"{text}; {bound.asked:.2%} asked: proven"
    return (
        f"{text}; {bound.asked:.2%} asked: not proven, {bound.needed} more {kind} parts without an error would prove it"
    )
