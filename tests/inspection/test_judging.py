"""From scores to verdicts, and from maps to defects in pixels of the original image."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inspection.judging import find_defects, verdict_of
from inspection.modelfile import InputSpec, OperatingPoint
from inspection.pixels import prepare
from inspection.results import Defect, Inspection, ScoreMap, Verdict

POINT = OperatingPoint(ok_below=1.0, ng_above=2.0)


@pytest.mark.parametrize(
    ("score", "point", "verdict"),
    [
        (0.99, POINT, Verdict.OK),
        (1.0, POINT, Verdict.REVIEW),
        (1.99, POINT, Verdict.REVIEW),
        (2.0, POINT, Verdict.NG),
        (-1e30, POINT, Verdict.OK),
        (1e30, POINT, Verdict.NG),
        (math.nan, POINT, Verdict.ERROR),
        (math.inf, POINT, Verdict.ERROR),
        (-math.inf, POINT, Verdict.ERROR),
        (math.nan, None, Verdict.ERROR),
        (-5.0, None, Verdict.REVIEW),
        (1.0, OperatingPoint(ok_below=1.0, ng_above=1.0), Verdict.NG),
        (0.9, OperatingPoint(ok_below=1.0, ng_above=1.0), Verdict.OK),
        (1.5, OperatingPoint(ok_below=2.0, ng_above=1.0), Verdict.NG),  # crossed: nothing from ng_above on gets through
        (0.5, OperatingPoint(ok_below=2.0, ng_above=1.0), Verdict.OK),
        (0.0, OperatingPoint(ok_below=-math.inf, ng_above=math.inf), Verdict.REVIEW),
    ],
)
def test_verdicts_at_and_around_the_thresholds(score: float, point: OperatingPoint | None, verdict: Verdict) -> None:
    given_verdict, reason = verdict_of(score, point)
    assert given_verdict is verdict
    assert (reason is None) == (verdict in (Verdict.OK, Verdict.NG))


def score_map(values: Any, region: tuple[float, ...], size: tuple[int, int]) -> ScoreMap:
    return ScoreMap(values=np.asarray(values, np.float32), region=region, size=size)  # type: ignore[arg-type]


def regions_by_flood(values: Any, above: float) -> list[set[tuple[int, int]]]:
    """Connected cells (8 neighbours), found one by one."""
    left = {(int(i), int(j)) for i, j in zip(*np.nonzero(values >= above), strict=True)}
    found = []
    while left:
        region, edge = set(), [left.pop()]
        while edge:
            i, j = edge.pop()
            region.add((i, j))
            near = {(i + a, j + b) for a in (-1, 0, 1) for b in (-1, 0, 1)} & left
            left -= near
            edge += near
        found.append(region)
    return found


@settings(max_examples=80, deadline=None)
@given(
    cells=st.integers(0, 2**36 - 1),
    scale=st.sampled_from([1, 3, 8]),
)
def test_defects_are_the_connected_regions_of_the_map(cells: int, scale: int) -> None:
    bits = np.array([cells >> bit & 1 for bit in range(36)]).reshape(6, 6)
    values = np.where(bits, 1.0 + np.arange(36).reshape(6, 6) / 36, 0.0)
    found = find_defects(score_map(values, (0, 0, 6 * scale, 6 * scale), (6 * scale, 6 * scale)), 1.0, "scratch")
    wanted = []
    for region in regions_by_flood(values, 1.0):
        rows, columns = [i for i, _ in region], [j for _, j in region]
        box = (min(columns), min(rows), max(columns) - min(columns) + 1, max(rows) - min(rows) + 1)
        score = float(np.float32(max(values[cell] for cell in region)))
        wanted.append(
            Defect(kind="scratch", score=score, box=tuple(n * scale for n in box), area=len(region) * scale**2)  # type: ignore[arg-type]
        )
    assert list(found) == sorted(wanted, key=lambda defect: -defect.score)


@settings(max_examples=80, deadline=None)
@given(
    width=st.integers(16, 400),
    height=st.integers(16, 400),
    rule=st.sampled_from(["stretch", "letterbox"]),
    where=st.tuples(st.floats(0, 0.85), st.floats(0, 0.85)),
    extent=st.tuples(st.floats(0.05, 1), st.floats(0.05, 1)),
    cell=st.sampled_from([1, 4, 8]),
)
def test_a_drawn_defect_is_boxed_where_it_was_drawn(
    width: int,
    height: int,
    rule: str,
    where: tuple[float, float],
    extent: tuple[float, float],
    cell: int,
) -> None:
    """Draw a bright rectangle, prepare the image, take its brightness by cells as the map, and find it again."""
    x0, y0 = int(where[0] * width), int(where[1] * height)
    x1, y1 = min(width, x0 + max(1, int(extent[0] * width))), min(height, y0 + max(1, int(extent[1] * height)))
    image = np.zeros((height, width), np.uint8)
    image[y0:y1, x0:x1] = 255
    spec = InputSpec(height=64, width=96, channels=1, resize=rule)
    ready, place = prepare(image, spec)
    values = ready[..., 0].reshape(64 // cell, cell, 96 // cell, cell).mean(axis=(1, 3))
    found = find_defects(score_map(values, place.region(64, 96), (width, height)), 1e-6, "defect")
    assert len(found) == 1
    x, y, w, h = found[0].box
    # It is found to a cell, and to a pixel of the input that resizing may have smeared it by, in original pixels.
    slack_x, slack_y = (cell + 1) / place.scale_x + 1, (cell + 1) / place.scale_y + 1
    assert x0 - slack_x <= x <= x0 + 1
    assert y0 - slack_y <= y <= y0 + 1
    assert x1 - 1 <= x + w <= x1 + slack_x
    assert y1 - 1 <= y + h <= y1 + slack_y
    assert x >= 0
    assert y >= 0
    assert x + w <= width
    assert y + h <= height
    assert 0 < found[0].area <= width * height


def test_cells_on_the_bars_of_a_letterbox_are_no_defect() -> None:
    values = np.zeros((8, 8))
    values[0, 3] = 9.0  # the bar above
    values[4, 4] = 5.0
    found = find_defects(score_map(values, (0, -40, 160, 160), (160, 80)), 1.0, "defect")
    assert [(defect.score, defect.box, defect.area) for defect in found] == [(5.0, (80, 40, 20, 20), 400)]


def test_a_cell_that_is_half_on_the_image_counts_half() -> None:
    found = find_defects(score_map(np.ones((1, 1)), (-5, 0, 10, 10), (10, 10)), 1.0, "defect")
    assert found[0].box == (0, 0, 5, 10)
    assert found[0].area == 50


def test_a_defect_smaller_than_a_pixel_still_has_a_box() -> None:
    values = np.zeros((64, 64))
    values[33, 33] = 1
    found = find_defects(score_map(values, (0, 0, 16, 16), (16, 16)), 1.0, "defect")
    assert found[0].box == (8, 8, 1, 1)
    assert found[0].area == 1


def test_no_more_than_the_worst_thousand_are_named() -> None:
    values = np.zeros((100, 100))
    values[::2, ::2] = 1 + np.arange(2500).reshape(50, 50)
    found = find_defects(score_map(values, (0, 0, 100, 100), (100, 100)), 1.0, "defect")
    assert len(found) == 1000
    assert found[0].score == 2500
    assert found[-1].score == 1501


# --- the full map -------------------------------------------------------------------------------------------------


def full_by_definition(scores: ScoreMap) -> Any:
    """Every original pixel's centre, looked up between the centres of cells, in float64."""
    rows, columns = scores.values.shape
    x, y, w, h = scores.region
    u = np.clip((np.arange(scores.size[0]) + 0.5 - x) * columns / w - 0.5, 0, columns - 1)
    v = np.clip((np.arange(scores.size[1]) + 0.5 - y) * rows / h - 0.5, 0, rows - 1)
    i, j = np.floor(v).astype(int), np.floor(u).astype(int)
    i1, j1 = np.minimum(i + 1, rows - 1), np.minimum(j + 1, columns - 1)
    a, b = (v - i)[:, None], (u - j)[None, :]
    m = scores.values.astype(np.float64)
    return (m[i][:, j] * (1 - b) + m[i][:, j1] * b) * (1 - a) + (m[i1][:, j] * (1 - b) + m[i1][:, j1] * b) * a


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 12),
    columns=st.integers(1, 12),
    width=st.integers(1, 90),
    height=st.integers(1, 90),
    region=st.none() | st.tuples(st.floats(-40, 5), st.floats(-40, 5), st.floats(20, 200), st.floats(20, 200)),
    seed=st.integers(0, 100),
)
def test_the_full_map_is_the_coarse_one_between_cell_centres(
    rows: int, columns: int, width: int, height: int, region: Any, seed: int
) -> None:
    values = np.random.default_rng(seed).normal(size=(rows, columns))
    scores = score_map(values, region or (0, 0, width, height), (width, height))
    full = scores.full()
    assert full.shape == (height, width)
    assert full.dtype == np.float32
    # OpenCV 4's warpAffine steps by 1/32 of a cell.
    assert np.abs(full - full_by_definition(scores)).max() <= np.ptp(values) / 32 + 1e-5


def test_plain_values_are_json_and_hide_no_number_that_json_lacks() -> None:
    result = Inspection(name="a", verdict=Verdict.ERROR, score=math.nan, size=(3, 2), reason="why", code="x")
    assert result.to_dict()["score"] is None
    assert result.to_dict()["verdict"] == "ERROR"
    assert result.to_dict()["size"] == {"width": 3, "height": 2}
