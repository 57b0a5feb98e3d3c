"""Images for people."""

from __future__ import annotations

import io
import math
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from inspection import overlay
from inspection.results import Defect, Inspection, ScoreMap, Verdict

WARM = np.array([255, 0, 0])


def result(size: tuple[int, int], peak: tuple[int, int] | None = (4, 4), **changes: Any) -> Inspection:
    values = np.zeros((8, 8), np.float32)
    if peak:
        values[peak] = 1.0
    width, height = size
    fields: dict[str, Any] = {
        "name": "a",
        "verdict": Verdict.NG,
        "score": 1.0,
        "size": size,
        "map": ScoreMap(values=values, region=(0, 0, width, height), size=size),
    }
    return Inspection(**(fields | changes))


@pytest.mark.parametrize(
    "image",
    [
        np.full((200, 240), 128, np.uint8),
        np.full((200, 240, 3), 128, np.uint8),
        np.full((200, 240), 512, np.uint16),
        np.full((200, 240, 3), 40000, np.uint16),
        np.full((16, 20), 9, np.uint8),
        np.full((1, 1), 9, np.uint8),
        np.full((5, 600), 9, np.uint8),
    ],
)
def test_a_drawing_has_the_images_own_size_whatever_the_image(image: Any) -> None:
    before = image.copy()
    drawn = overlay.draw(image, result((image.shape[1], image.shape[0])), 0.5)
    assert drawn.shape == (*image.shape[:2], 3)
    assert drawn.dtype == np.uint8
    np.testing.assert_array_equal(image, before)


def test_the_heat_is_where_the_map_is_high_and_nowhere_else() -> None:
    image = np.full((400, 400), 128, np.uint8)
    drawn = overlay.draw(image, result((400, 400), peak=(4, 6)), 0.5).astype(int)
    redness = drawn[..., 0] - drawn[..., 2]
    assert redness[225, 325] > 80  # row 4, column 6 of 8 x 8
    assert np.abs(redness[300:390, 10:200]).max() <= 1
    assert (drawn[300:390, 10:200] == 128).all()


def test_the_heat_of_a_good_image_is_weak() -> None:
    """With the threshold known, an image far below it does not glow at its own maximum."""
    image = np.full((400, 400), 128, np.uint8)
    good = result((400, 400), peak=(4, 6), verdict=Verdict.OK)
    drawn = overlay.draw(image, good, 10.0).astype(int)
    assert np.abs(drawn[225, 325] - 128).max() <= 3


def test_boxes_and_the_colour_of_the_verdict_are_drawn() -> None:
    defect = Defect(kind="scratch", score=1.0, box=(100, 200, 50, 30), area=10)
    image = np.full((400, 400, 3), 50, np.uint8)
    for verdict, colour in overlay.COLOURS.items():
        drawn = overlay.draw(image, result((400, 400), peak=None, verdict=verdict, defects=(defect,)))
        np.testing.assert_array_equal(drawn[-1, 200], colour)
        np.testing.assert_array_equal(drawn[200, 125], overlay.BOX)
        np.testing.assert_array_equal(drawn[215, 100], overlay.BOX)
        np.testing.assert_array_equal(drawn[215, 125], [50, 50, 50])


def test_an_error_without_a_map_or_a_score_can_be_drawn() -> None:
    image = np.zeros((64, 64), np.uint8)
    drawn = overlay.draw(image, result((64, 64), map=None, verdict=Verdict.ERROR, score=math.nan))
    np.testing.assert_array_equal(drawn[0, 0], overlay.COLOURS[Verdict.ERROR])


def test_a_red_image_is_drawn_red() -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    image[..., 0] = 200
    np.testing.assert_array_equal(overlay.to_rgb(image)[30, 30], [200, 0, 0])


@pytest.mark.parametrize(("value", "white", "shown"), [(1023, 1023, 255), (2048, 4095, 128), (65535, None, 255)])
def test_more_than_8_bit_are_shown_by_their_white(value: int, white: int | None, shown: int) -> None:
    image = np.full((8, 8), value, np.uint16)
    assert abs(int(overlay.to_rgb(image, white)[0, 0, 0]) - shown) <= 1


def test_a_contact_sheet_holds_every_image_with_its_caption() -> None:
    colours = [(200, 0, 0), (0, 200, 0), (0, 0, 200), (200, 200, 0), (0, 200, 200)]
    tiles = [(f"part {index}", np.full((30 + 50 * index, 90, 3), c, np.uint8)) for index, c in enumerate(colours)]
    sheet = overlay.contact_sheet(tiles, columns=2, cell=128)
    for index, colour in enumerate(colours):
        y, x = 4 + index // 2 * (128 + 16 + 4) + 64, 4 + index % 2 * (128 + 4) + 64
        np.testing.assert_array_equal(sheet[y, x], colour)
        caption = sheet[y + 66 : y + 66 + 14, x - 64 : x + 64]
        assert caption.min() < 100, "no caption"
    assert sheet.shape[2] == 3


@pytest.mark.parametrize("count", [0, 1])
def test_a_contact_sheet_of_few_images_is_no_error(count: int) -> None:
    tile = np.zeros((10, 10, 3), np.uint8)
    assert overlay.contact_sheet([("a", tile)] * count, columns=4, cell=64).ndim == 3


def test_a_long_caption_keeps_both_its_ends() -> None:
    font = overlay._font(12)
    short = overlay._shortened("line-3/shift-2/part_000123_left.png", font, 120)
    assert font.getlength(short) <= 120
    assert short.startswith("line")
    assert short.endswith("left.png")


def test_a_map_as_png_gives_its_scores_back() -> None:
    rng = np.random.default_rng(0)
    scores = ScoreMap(values=rng.normal(size=(6, 5)).astype(np.float32), region=(-3, 2, 70, 40), size=(61, 47))
    data = overlay.map_png(result((61, 47), map=scores))
    stored = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert stored.dtype == np.uint16
    assert stored.shape == (47, 61)
    notes = Image.open(io.BytesIO(data)).info
    low, high = float(notes["low"]), float(notes["high"])
    np.testing.assert_allclose(low + stored / 65535 * (high - low), scores.full(), atol=(high - low) / 65535)


def test_a_map_of_one_value_is_no_error() -> None:
    flat = ScoreMap(values=np.full((2, 2), 3.5, np.float32), region=(0, 0, 8, 8), size=(8, 8))
    data = overlay.map_png(result((8, 8), map=flat))
    assert float(Image.open(io.BytesIO(data)).info["low"]) == 3.5


def test_no_map_no_png() -> None:
    with pytest.raises(ValueError, match="no map"):
        overlay.map_png(result((8, 8), map=None))
