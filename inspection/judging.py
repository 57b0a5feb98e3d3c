"""From raw scores to a verdict and its defects."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from inspection.modelfile import OperatingPoint
from inspection.results import Defect, ScoreMap, Verdict

MAX_DEFECTS = 1000  # the worst ones: a part with more is as bad, and its record would not end


def verdict_of(score: float, point: OperatingPoint | None) -> tuple[Verdict, str | None]:
    """The verdict on a raw score and, unless it is OK or NG, the reason."""
    if not math.isfinite(score):
        return Verdict.ERROR, f"the network gave the score {score}, which says nothing."
    if point is None:
        return Verdict.REVIEW, "the model has no operating point, so nobody said which score is OK."
    if score >= point.ng_above:  # asked first: with crossed thresholds nothing above ng_above gets through
        return Verdict.NG, None
    if score < point.ok_below:
        return Verdict.OK, None
    return Verdict.REVIEW, f"the score lies between the thresholds {point.ok_below:.6g} and {point.ng_above:.6g}."


def find_defects(scores: ScoreMap, pixel_above: float, kind: str) -> tuple[Defect, ...]:
    """The connected regions (8 neighbours) of the map's cells with values >= `pixel_above`, highest score first.

    Boxes and areas are those of the cells in original pixels, cut at the image's border; cells that lie wholly outside
    (on a letterbox's bars) are no part of anything.
    """
    values = scores.values
    x, y, w, h = scores.region
    edges_x = np.clip(x + w / values.shape[1] * np.arange(values.shape[1] + 1), 0, scores.size[0])
    edges_y = np.clip(y + h / values.shape[0] * np.arange(values.shape[0] + 1), 0, scores.size[1])
    pixels = np.outer(np.diff(edges_y), np.diff(edges_x))  # of the original, in each cell
    above = (values >= pixel_above) & (pixels > 0)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(above.astype(np.uint8), connectivity=8)
    owner = labels.ravel().astype(np.intp)
    areas = np.bincount(owner, weights=pixels.ravel(), minlength=count)
    peaks = np.full(count, -np.inf, dtype=np.float32)
    np.maximum.at(peaks, owner, values.ravel())
    worst = 1 + np.argsort(-peaks[1:], kind="stable")[:MAX_DEFECTS]  # 0 is what lies between the regions
    return tuple(
        Defect(
            kind=kind,
            score=float(peaks[label]),
            box=_box(edges_x, edges_y, stats[label]),
            area=max(1, round(float(areas[label]))),
        )
        for label in worst
    )


def _box(
    edges_x: NDArray[np.float64], edges_y: NDArray[np.float64], cells: NDArray[np.int32]
) -> tuple[int, int, int, int]:
    """x, y, width, height of the whole pixels that a box of cells touches."""
    left, top, width, height = (int(value) for value in cells[:4])
    # A border that falls on a whole pixel but for float noise must not take the next pixel in.
    x0, y0 = (math.floor(edge + 1e-6) for edge in (edges_x[left], edges_y[top]))
    x1, y1 = (math.ceil(edge - 1e-6) for edge in (edges_x[left + width], edges_y[top + height]))
    return x0, y0, max(1, x1 - x0), max(1, y1 - y0)
