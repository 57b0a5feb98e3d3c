"""From a frame to its regions and back: boxes, maps and masks are in pixels of the whole frame."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inspection import Inspector
from inspection.errors import InputMismatch, InspectionError
from inspection.modelfile import OperatingPoint, Resize
from inspection.parts import Frame, ViewResult
from inspection.recipe.geometry import inside, zone_of
from inspection.recipe.recipe import View
from inspection.recipe.views import ViewJudge, depth_of, is_mono
from inspection.results import Verdict
from tests.support import graphs
from tests.support.images import save

OK, NG, REVIEW, ERROR = Verdict.OK, Verdict.NG, Verdict.REVIEW, Verdict.ERROR
MONO = graphs.spec(channels=1)  # 64 x 64, a map of 8 x 8 cells of 8 x 8 pixels; the score is the lightest cell
BOXED = graphs.spec(channels=1, resize=Resize.LETTERBOX)


@pytest.fixture(scope="module")
def inspector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inspector]:
    path = graphs.model_file(tmp_path_factory.mktemp("model") / "mono.onnx", MONO)
    with Inspector(path, provider="cpu", threads=1) as made:
        yield made


@pytest.fixture(scope="module")
def boxed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inspector]:
    path = graphs.model_file(tmp_path_factory.mktemp("model") / "boxed.onnx", BOXED)
    with Inspector(path, provider="cpu", threads=1) as made:
        yield made


def view(**settings: Any) -> View:
    return View.model_validate({"camera": {"kind": "pushed"}, "model": "m.onnx", **settings})


def frame(pixels: Any, **changes: Any) -> Frame:
    return Frame(**{"pixels": pixels, "number": 7, "received": 0.0, **changes})


def dark(width: int = 64, height: int = 64, *spots: tuple[int, int, int, int], light: int = 255) -> Any:
    """A black image with light rectangles (x, y, width, height)."""
    image = np.zeros((height, width), dtype=np.uint8)
    for x, y, w, h in spots:
        image[y : y + h, x : x + w] = light
    return image


def judge(inspector: Inspector, pixels: Any, name: str = "top", **settings: Any) -> ViewResult:
    """A frame through cut, the real network and conclude."""
    of = ViewJudge(name, view(**settings), point=inspector.operating_point, spec=inspector.card.input)
    inspector = inspector.sharing(operating_point=of.point)
    taken = frame(pixels)
    return of.conclude(taken, [inspector.inspect(cut, name=region) for region, cut in of.cut(taken)])


def square(x: float, y: float, width: float, height: float) -> list[tuple[float, float]]:
    return [(x, y), (x + width, y), (x + width, y + height), (x, y + height)]


# Cutting


def test_without_regions_the_whole_frame_is_one_and_is_not_copied() -> None:
    pixels = dark(200, 100)
    assert ViewJudge("top", view(), point=None, spec=MONO).cut(frame(pixels))[0][1] is pixels


def test_regions_are_cut_in_their_order_without_a_copy() -> None:
    regions = [{"x": 3, "y": 5, "width": 40, "height": 20}, {"x": 0, "y": 0, "width": 200, "height": 100}]
    pixels = np.arange(20000, dtype=np.uint16).reshape(100, 200)
    of = ViewJudge("top", view(regions=regions), point=None, spec=graphs.spec(bit_depth=16))
    (first, a), (second, b) = of.cut(frame(pixels))
    assert (first, second) == ("top.0", "top.1") == of.names
    assert (a == pixels[5:25, 3:43]).all()
    assert np.shares_memory(a, pixels)
    assert (b == pixels).all()


@pytest.mark.parametrize(
    ("x", "y", "width", "height"), [(0, 0, 201, 10), (0, 0, 10, 101), (195, 0, 6, 5), (300, 0, 1, 1)]
)
def test_a_region_outside_the_frame_is_refused_with_the_mend(x: int, y: int, width: int, height: int) -> None:
    of = ViewJudge("top", view(regions=[{"x": x, "y": y, "width": width, "height": height}]), point=None, spec=MONO)
    with pytest.raises(InputMismatch) as caught:
        of.cut(frame(dark(200, 100)))
    assert "200 x 100" in caught.value.what
    assert "regions.0" in str(caught.value.where)
    assert caught.value.hint


def test_a_frame_that_is_not_whole_is_never_cut() -> None:
    of = ViewJudge("top", view(), point=None, spec=MONO)
    with pytest.raises(InputMismatch, match="3 packets are missing"):
        of.cut(frame(None, damage="3 packets are missing"))
    with pytest.raises(InputMismatch, match="3 packets are missing"):
        of.cut(frame(dark(), damage="3 packets are missing"))
    with pytest.raises(InputMismatch, match="no pixels"):
        of.cut(frame(None))


@pytest.mark.parametrize(
    ("stated", "pixel_format", "model", "fits"),
    [
        (None, "Mono12", 12, True),
        (None, "Mono12p", 16, False),  # a 12-bit image is dark in 16 bit, and would get another score
        (None, "Mono10", 12, False),
        (12, "Mono16", 12, True),
        (12, "Mono16", 16, False),
        (None, "", 16, True),
        (None, "YUV422_8", 8, True),
        (None, "RGB565p", 8, True),
    ],
)
def test_a_frame_of_another_bit_depth_is_refused(stated: int | None, pixel_format: str, model: int, fits: bool) -> None:
    of = ViewJudge("top", view(bit_depth=stated), point=None, spec=graphs.spec(channels=1, bit_depth=model))
    pixels = dark().astype(np.uint8 if model == 8 else np.uint16)
    if fits:
        assert of.cut(frame(pixels, pixel_format=pixel_format))
    else:
        with pytest.raises(InputMismatch, match=f"{model} bit"):
            of.cut(frame(pixels, pixel_format=pixel_format))


def test_formats_say_their_depth_and_colour_by_their_name() -> None:
    assert [depth_of(name) for name in ("Mono8", "BayerRG10p", "RGB8", "BGRa8", "Mono12Packed", "Coord3D_C16")] == [
        8, 10, 8, 8, 12, None,
    ]  # fmt: skip
    assert [is_mono(name) for name in ("Mono8", "BayerRG10p", "RGB8", "YUV422_8")] == [True, False, False, None]


# Concluding


def test_the_network_sees_the_region_to_the_pixel(inspector: Inspector) -> None:
    """A region of the network's own size goes in as a view of the frame, rows far apart in memory."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (150, 300), dtype=np.uint8)
    result = judge(inspector, pixels, regions=[{"x": 31, "y": 17, "width": 64, "height": 64}])
    score, cells, _ = graphs.expected(pixels[17:81, 31:95], MONO)
    assert result.score == pytest.approx(score, abs=1e-6)
    scores = result.inspections[0].map
    assert scores is not None
    assert scores.values == pytest.approx(cells, abs=1e-6)
    assert (scores.region, scores.size) == ((31, 17, 64, 64), (300, 150))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_defect_in_a_region_is_found_where_it_lies_in_the_frame(
    data: st.DataObject, inspector: Inspector, boxed: Inspector
) -> None:
    """Whatever the region's place, size and way of resizing: the box is that of the spot, to a cell's size."""
    judged_by = data.draw(st.sampled_from([inspector, boxed]))
    x, y = data.draw(st.integers(0, 100)), data.draw(st.integers(0, 100))
    width, height = data.draw(st.integers(64, 240)), data.draw(st.integers(64, 240))
    pixels = dark(x + width + 30, y + height + 20)
    side = 2 + max(width, height) // 4  # holds a whole cell, wherever it lies
    spot_x = data.draw(st.integers(x, x + width - side))
    spot_y = data.draw(st.integers(y, y + height - side))
    pixels[spot_y : spot_y + side, spot_x : spot_x + side] = 255
    result = judge(judged_by, pixels, regions=[{"x": x, "y": y, "width": width, "height": height}])
    assert result.verdict is NG
    (found,) = result.defects
    left, top, wide, high = found.box
    assert x <= left
    assert left + wide <= x + width
    assert y <= top
    assert top + high <= y + height
    cell = max(width, height) / 8 + 1  # of the map, in pixels of the frame; letterboxed ones are square
    assert abs(left - spot_x) <= cell
    assert abs(left + wide - (spot_x + side)) <= cell
    assert abs(top - spot_y) <= cell
    assert abs(top + high - (spot_y + side)) <= cell


def test_the_view_is_as_bad_as_its_worst_region(inspector: Inspector) -> None:
    regions = [{"x": 64 * index, "y": 0, "width": 64, "height": 64} for index in range(3)]
    middling = dark(192, 64, (64, 0, 64, 64), light=128)
    assert judge(inspector, dark(192, 64), regions=regions).verdict is OK
    result = judge(inspector, middling, regions=regions)
    assert (result.verdict, [one.verdict for one in result.inspections]) == (REVIEW, [OK, REVIEW, OK])
    assert result.reason == result.inspections[1].reason
    middling[:, 128:] = 255
    result = judge(inspector, middling, regions=regions)
    assert (result.verdict, result.reason, result.code) == (NG, None, None)
    assert [defect.box for defect in result.defects] == [(128, 0, 64, 64)]


def test_a_region_without_an_answer_is_an_error_unless_another_is_ng(inspector: Inspector) -> None:
    regions = [{"x": 64 * index, "y": 0, "width": 64, "height": 64} for index in range(2)]
    of = ViewJudge("top", view(regions=regions), point=inspector.operating_point, spec=MONO)
    for light, verdict in ((0, ERROR), (128, ERROR), (255, NG)):
        taken = frame(dark(128, 64, (0, 0, 64, 64), light=light))
        result = of.conclude(taken, [inspector.inspect(of.cut(taken)[0][1])])
        assert (result.verdict, len(result.inspections)) == (verdict, 2)
        assert (result.code is None) == (verdict is NG)
    assert of.conclude(taken, []).verdict is ERROR


def test_a_view_that_failed_says_why() -> None:
    of = ViewJudge("top", view(), point=None, spec=MONO)
    result = of.failed(InspectionError("it broke.", hint="Mend it."), frame(dark()))
    assert (result.verdict, result.reason, result.code, result.frame) == (ERROR, "it broke. Mend it.", "error", 7)


def test_views_that_share_a_network_have_thresholds_of_their_own(inspector: Inspector) -> None:
    light = dark(64, 64, (8, 8, 8, 8), light=128)  # score 0.5
    assert judge(inspector, light).verdict is REVIEW
    assert judge(inspector, light, operating_point={"ok_below": 0.6, "ng_above": 0.7}).verdict is OK
    result = judge(inspector, light, operating_point={"ok_below": 0.2, "ng_above": 0.3, "pixel_above": 0.3})
    assert (result.verdict, result.reason) == (NG, None)
    assert [defect.box for defect in result.defects] == [(8, 8, 8, 8)]


# Places to ignore


SPOT = (16, 24, 16, 8)  # x, y, width, height: two cells


def test_a_defect_in_a_place_to_ignore_does_not_count_and_the_view_says_so(inspector: Inspector) -> None:
    assert judge(inspector, dark(64, 64, SPOT)).verdict is NG
    result = judge(inspector, dark(64, 64, SPOT), ignore=[square(*SPOT)])
    assert (result.verdict, result.defects) == (OK, ())
    assert "ignored" in str(result.reason)
    assert result.score == pytest.approx(1.0)  # what the network said stays


def test_a_mask_image_ignores_like_a_polygon(inspector: Inspector, tmp_path: Path) -> None:
    mask = save(tmp_path / "mask.png", dark(64, 64, SPOT, light=1))
    assert judge(inspector, dark(64, 64, SPOT), ignore_mask=str(mask)).verdict is OK
    assert judge(inspector, dark(64, 64, (0, 0, 8, 8)), ignore_mask=str(mask)).verdict is NG


def test_a_mask_of_another_size_than_the_frame_is_refused(tmp_path: Path) -> None:
    mask = save(tmp_path / "mask.png", dark(64, 32))
    of = ViewJudge("top", view(ignore_mask=str(mask)), point=None, spec=MONO)
    with pytest.raises(InputMismatch, match="64 x 32"):
        of.cut(frame(dark(64, 64)))


def test_what_lies_outside_the_ignored_place_still_counts(inspector: Inspector) -> None:
    result = judge(inspector, dark(64, 64, SPOT, (0, 56, 8, 8)), ignore=[square(*SPOT)])
    assert (result.verdict, [defect.box for defect in result.defects]) == (NG, [(0, 56, 8, 8)])


def test_a_cell_that_is_only_partly_in_an_ignored_place_counts(inspector: Inspector) -> None:
    x, y, width, height = SPOT
    result = judge(inspector, dark(64, 64, SPOT), ignore=[square(x, y, width - 1, height)])
    assert (result.verdict, [defect.box for defect in result.defects]) == (NG, [(24, 24, 8, 8)])


def test_what_is_left_has_a_score_of_its_own_where_the_score_is_the_highest_cell(inspector: Inspector) -> None:
    """A bright spot that is ignored must not hide another place that alone would not be OK."""
    point = {"ok_below": 0.4, "ng_above": 0.6, "pixel_above": 0.9}
    pixels = dark(64, 64, SPOT)
    for level, verdict in ((64, OK), (128, REVIEW), (192, NG)):
        pixels[48:56, 48:56] = level
        alone = judge(inspector, dark(64, 64, (48, 48, 8, 8), light=level), operating_point=point)
        both = judge(inspector, pixels, operating_point=point, ignore=[square(*SPOT)])
        assert alone.verdict is both.verdict is verdict


def test_a_score_without_a_place_is_excused_by_no_place(inspector: Inspector) -> None:
    """No cell reaches `pixel_above`: nobody knows where the score comes from."""
    point = {"ok_below": 0.1, "ng_above": 0.2, "pixel_above": 5.0}
    assert judge(inspector, dark(64, 64, SPOT), operating_point=point, ignore=[square(0, 0, 64, 64)]).verdict is NG
    point = {"ok_below": 0.1, "ng_above": 0.2}
    assert judge(inspector, dark(64, 64, SPOT), operating_point=point, ignore=[square(0, 0, 64, 64)]).verdict is NG


def test_an_error_is_never_ignored_away(inspector: Inspector) -> None:
    of = ViewJudge("top", view(ignore=[square(0, 0, 64, 64)]), point=inspector.operating_point, spec=MONO)
    taken = frame(dark())
    (failed,) = inspector.inspect_many([dark(64, 64).astype(np.uint16)])
    assert of.conclude(taken, [failed]).verdict is ERROR


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_ignoring_hides_exactly_the_cells_that_lie_wholly_in_it(data: st.DataObject, inspector: Inspector) -> None:
    """Against a count pixel by pixel, for a region anywhere in the frame."""
    x, y = data.draw(st.integers(0, 40)), data.draw(st.integers(0, 40))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    lit = rng.random((8, 8)) < 0.2
    pixels = dark(150, 140)
    pixels[y : y + 64, x : x + 64] = np.kron(lit, np.full((8, 8), 255)).astype(np.uint8)
    ignored = [data.draw(st.integers(0, 100)) for _ in range(2)], [data.draw(st.integers(1, 60)) for _ in range(2)]
    (left, top), (wide, high) = ignored
    hidden = np.zeros((140, 150), dtype=bool)
    hidden[top : top + high, left : left + wide] = True
    inner = hidden[y : y + 64, x : x + 64].reshape(8, 8, 8, 8).all(axis=(1, 3))
    left_over = lit & ~inner
    result = judge(
        inspector, pixels, regions=[{"x": x, "y": y, "width": 64, "height": 64}], ignore=[square(left, top, wide, high)]
    )
    assert (result.verdict is NG) == bool(left_over.any())
    assert sum(defect.area for defect in result.defects) == 64 * int(left_over.sum())


# Polygons and zones


def winding(points: list[tuple[float, float]], x: float, y: float) -> bool:
    """Even-odd rule for one point, edge by edge."""
    odd = False
    for (x0, y0), (x1, y1) in zip(points, points[1:] + points[:1], strict=True):
        if (y0 <= y) != (y1 <= y) and x0 + (y - y0) * (x1 - x0) / (y1 - y0) <= x:
            odd = not odd
    return odd


CORNER = st.tuples(st.floats(-10, 30, width=16), st.floats(-10, 30, width=16))


@given(st.lists(CORNER, min_size=3, max_size=7))
def test_a_polygon_holds_the_pixels_whose_centre_it_holds(points: list[tuple[float, float]]) -> None:
    mask = inside(points, (17, 13))
    assert mask.shape == (13, 17)
    for row in range(13):
        for column in range(17):
            assert mask[row, column] == winding(points, column + 0.5, row + 0.5)


@given(st.integers(0, 20), st.integers(0, 20), st.integers(1, 9), st.integers(1, 9))
def test_a_rectangle_of_whole_pixels_holds_just_these(x: int, y: int, width: int, height: int) -> None:
    mask = inside(square(x, y, width, height), (30, 30))
    assert mask[y : y + height, x : x + width].all()
    assert mask.sum() == width * height


def test_a_defect_lies_in_the_zone_that_holds_most_of_its_box() -> None:
    zones = {"left": inside(square(0, 0, 10, 20), (40, 20)), "right": inside(square(10, 0, 10, 20), (40, 20))}
    assert zone_of((2, 2, 4, 4), zones) == "left"
    assert zone_of((8, 2, 6, 4), zones) == "right"
    assert zone_of((8, 2, 4, 4), zones) == "left"  # as much of the one as of the other: the first
    assert zone_of((17, 2, 9, 4), zones) is None  # most of it lies in no zone
    assert zone_of((30, 2, 4, 4), zones) is None
    assert zone_of((30, 2, 4, 4), {}) is None


def test_a_defects_zone_is_known_in_the_whole_frame(inspector: Inspector) -> None:
    zones = {"rim": {"rectangle": [100, 0, 64, 64]}, "hub": {"polygon": square(0, 0, 64, 64)}}
    pixels = dark(164, 64, (0, 8, 25, 8), (132, 40, 8, 8), (75, 0, 25, 8))
    regions = [{"x": 100, "y": 0, "width": 64, "height": 64}, {"x": 0, "y": 0, "width": 100, "height": 64}]
    result = judge(inspector, pixels, regions=regions, zones=zones)
    assert {defect.zone for defect in result.defects if defect.box[0] >= 100} == {"rim"}
    assert {defect.zone for defect in result.defects if defect.box[0] < 30} == {"hub"}
    assert {defect.zone for defect in result.defects if 64 <= defect.box[0] < 100} == {None}
    assert result.to_dict()["defects"][0]["zone"] == "rim"


def test_the_point_of_the_view_is_in_force_before_the_models() -> None:
    own, card = OperatingPoint(ok_below=1, ng_above=2), OperatingPoint(ok_below=3, ng_above=4)
    assert ViewJudge("a", view(), point=card, spec=MONO).point == card
    assert ViewJudge("a", view(operating_point=own.model_dump()), point=card, spec=MONO).point == own
