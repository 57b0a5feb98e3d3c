"""Places of a frame: polygons as pixels, the cells of a map as pixels, and what moves from a region into its frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from inspection.recipe.rules import Zone
from inspection.results import Defect, Inspection, ScoreMap

Mask = NDArray[np.bool_]
Box = tuple[int, int, int, int]  # x, y, width, height, in pixels


def inside(points: Sequence[tuple[float, float]], size: tuple[int, int]) -> Mask:
    """Which pixels of an image of `size` (width, height) have their centre inside a polygon: `HxW` bool.

    Corners are in pixels from the image's upper left corner. Even-odd rule: where a polygon crosses itself, what it
    holds twice is outside. Not `cv2.fillPoly`, which takes the border's pixels in: up to one too many on each side.
    """
    width, height = size
    toggles = np.zeros((height, width + 1), dtype=np.uint8)
    for (x0, y0), (x1, y1) in zip(points, [*points[1:], points[0]], strict=True):
        low, high = sorted((y0, y1))
        # Rows whose centre the edge crosses; half open, so that a corner between two edges counts once.
        rows = np.arange(max(0, int(np.ceil(low - 0.5))), min(height, int(np.ceil(high - 0.5))))
        if rows.size:
            crossings = x0 + (rows + 0.5 - y0) * ((x1 - x0) / (y1 - y0))
            first = np.clip(np.ceil(crossings - 0.5), 0, width).astype(np.intp)  # pixels from here on change sides
            toggles[rows, first] ^= 1  # each row once for each edge
    return np.bitwise_xor.accumulate(toggles, axis=1)[:, :width].astype(np.bool_)


def zone_points(zone: Zone) -> Sequence[tuple[float, float]]:
    """A zone's corners, be it a rectangle or a polygon."""
    if zone.rectangle is None:
        return zone.polygon or ()
    x, y, width, height = zone.rectangle
    return ((x, y), (x + width, y), (x + width, y + height), (x, y + height))


def cells_within(mask: Mask, scores: ScoreMap, corner: tuple[int, int] = (0, 0)) -> Mask:
    """Which cells of a map lie wholly in a mask, `h x w` bool like the map; a cell without any pixel does too.

    Args:
        mask: of the frame, `HxW`.
        scores: of a region of the frame, in the region's own pixels.
        corner: x, y of the region in the frame.
    """
    rows, columns = scores.values.shape
    x, y, width, height = scores.region
    left, top = corner
    x0, x1 = _touched(x, width / columns, columns, scores.size[0])
    y0, y1 = _touched(y, height / rows, rows, scores.size[1])
    window = mask[top : top + scores.size[1], left : left + scores.size[0]]
    outside = cv2.integral((~window).astype(np.uint8))
    inside_of = outside[np.ix_(y1, x1)] - outside[np.ix_(y0, x1)] - outside[np.ix_(y1, x0)] + outside[np.ix_(y0, x0)]
    return np.asarray(inside_of == 0)


def _touched(begin: float, step: float, count: int, length: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """First and last (exclusive) pixel that each of `count` cells along an axis touches, cut at the image's border."""
    edges = np.clip(begin + step * np.arange(count + 1), 0, length)
    # A border that falls on a whole pixel but for float noise must not take the next pixel in.
    first = np.floor(edges[:-1] + 1e-6).astype(np.intp)
    last = np.ceil(edges[1:] - 1e-6).astype(np.intp)
    return first, np.maximum(first, last)


def shift(inspection: Inspection, corner: tuple[int, int], size: tuple[int, int]) -> Inspection:
    """An inspection of a region, in pixels of the whole frame of `size` (width, height).

    The map's values stay as they are; its `region` says where in the frame they lie.
    """
    left, top = corner
    scores = inspection.map
    if scores is not None:
        x, y, width, height = scores.region
        scores = ScoreMap(values=scores.values, region=(x + left, y + top, width, height), size=size)
    return replace(
        inspection, map=scores, size=size, defects=tuple(shift_defect(defect, corner) for defect in inspection.defects)
    )


def shift_defect(defect: Defect, corner: tuple[int, int]) -> Defect:
    """A defect of a region, in pixels of the frame."""
    x, y, width, height = defect.box
    return replace(defect, box=(x + corner[0], y + corner[1], width, height))


def zone_of(box: Box, zones: dict[str, Mask]) -> str | None:
    """The zone that holds most of a box; None where more of it lies outside all zones than in any single one.

    Of zones that hold the same share the first counts.
    """
    x, y, width, height = box
    windows = {name: mask[y : y + height, x : x + width] for name, mask in zones.items()}
    if not windows:
        return None
    counts = {name: int(np.count_nonzero(window)) for name, window in windows.items()}
    best = max(counts, key=counts.__getitem__)
    free = width * height - int(np.count_nonzero(np.logical_or.reduce(list(windows.values()))))
    return best if counts[best] and counts[best] >= free else None
