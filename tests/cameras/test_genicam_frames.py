"""Frames of GenICam cameras over their real protocol: every pixel in its place, every id and every loss counted."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("viva_genicam")

from inspection.cameras.genicam import FrameCount
from inspection.errors import ConfigInvalid
from tests.cameras.genicam import FAST, SMALL, Start, StartAravis, values, viva_fake
from tests.support.cameras import OwnImages, take
from tests.support.images import surface

pytestmark = pytest.mark.line


@pytest.mark.parametrize(("pixel_format", "dtype"), [("Mono8", np.uint8), ("Mono16", np.uint16)])
def test_mono_frames_arrive_as_the_camera_made_them(
    aravis: StartAravis, opened: Start, pixel_format: str, dtype: type
) -> None:
    aravis()
    camera = opened(trigger="free", pixel_format=pixel_format, features=FAST, **SMALL)
    first, second = take(camera, 2)
    assert first.pixels is not None
    assert (first.pixels.shape, first.pixels.dtype) == ((64, 256), dtype)
    assert (first.pixel_format, first.damage) == (pixel_format, None)
    # The fake draws a ramp along the diagonal that moves by one with each frame: 0..254, in 16 bit 256 times as
    # steep and 0..65534.
    steps = {1, -254} if dtype is np.uint8 else {256, 256 - 65535}
    assert set(np.unique(np.diff(values(first), axis=1))) <= steps
    moved = second.number - first.number
    np.testing.assert_array_equal(values(second)[:, :-moved], values(first)[:, moved:])


def test_rgb_frames_arrive_with_red_first(aravis: StartAravis, opened: Start) -> None:
    aravis()
    (frame,) = take(opened(trigger="free", pixel_format="RGB8", width=255, height=8), 1)
    assert frame.pixel_format == "RGB8"
    # The fake's colours run through the usual scale from dark blue (its lowest value) to dark red.
    row = values(frame)[0]
    darkest_blue = int(np.argmax((row[:, 0] == 0) & (row[:, 1] == 0) & (row[:, 2] == 132)))
    scale = np.roll(row, -darkest_blue, axis=0)
    assert (np.diff(scale[32:220, 0]) >= 0).all()
    assert (np.diff(scale[32:220, 2]) <= 0).all()


def test_every_pixel_of_an_own_image_arrives_in_its_place_and_in_order(
    own_images: Callable[[list[bytes]], OwnImages], opened: Start
) -> None:
    images = [surface(seed, 240, 320) for seed in range(4)]
    own_images([image.tobytes() for image in images])
    camera = opened(trigger="software", pixel_format="Mono8", width=320, height=240)
    for index in range(6):
        camera.trigger()
        (frame,) = take(camera, 1)
        np.testing.assert_array_equal(frame.pixels, images[index % 4])


@pytest.mark.parametrize("pattern", ["RG", "GR", "GB", "BG"])
def test_a_red_part_is_red_through_a_camera_with_colour_filters(
    own_images: Callable[[list[bytes]], OwnImages], opened: Start, pattern: str
) -> None:
    red = np.zeros((48, 64), np.uint8)  # what the sensor sees: light behind the red filters alone
    y, x = divmod({"RG": 0, "GR": 1, "GB": 2, "BG": 3}[pattern], 2)
    red[y::2, x::2] = 201
    own_images([red.tobytes()])
    (frame,) = take(opened(trigger="free", pixel_format=f"Bayer{pattern}8", width=64, height=48), 1)
    np.testing.assert_array_equal(frame.pixels, np.broadcast_to(np.array([201, 0, 0]), (48, 64, 3)))


def test_each_bayer_mosaic_gives_the_same_colours(aravis: StartAravis, opened: Start) -> None:
    aravis()
    seen = {}
    for mosaic in ("RG", "GR", "GB", "BG"):
        camera = opened(trigger="free", pixel_format=f"Bayer{mosaic}8", width=512, height=16)
        (frame,) = take(camera, 1)
        assert (values(frame).shape, frame.pixel_format) == ((16, 512, 3), f"Bayer{mosaic}8")
        # The camera's own ramp jumps once in 255 pixels; there the neighbours that are averaged have nothing in common.
        inner = values(frame)[8, 4:-4]
        smooth = np.abs(np.diff(values(frame)[8, 2:-1], axis=0)).max(axis=1)
        seen[mosaic] = inner[np.maximum(smooth[1:-2][: len(inner)], smooth[2:-1][: len(inner)]) <= 8]
        camera.stop()
    for mosaic, colours in seen.items():
        assert len(colours) > 300
        distance = np.abs(colours[:, None] - seen["RG"][None]).max(axis=2).min(axis=1)
        assert distance.max() <= 8, mosaic


@pytest.mark.parametrize(
    ("name", "highest"), [("Mono10p", 1023), ("Mono12p", 4095), ("Mono12Packed", 4095), ("Mono10Packed", 1023)]
)
def test_ten_and_twelve_bit_keep_their_depth(gvcp: None, opened: Start, name: str, highest: int) -> None:
    with viva_fake(pixel_format=name):
        (frame,) = take(opened(trigger="free"), 1)
    assert frame.pixels is not None
    assert (frame.pixels.dtype, frame.pixels.shape, frame.pixel_format) == (np.uint16, (240, 320), name)
    # The fake's bytes rise by 7 without end, so the pixels take every value: none is lost, none is stretched.
    assert 0.95 * highest < frame.pixels.max() <= highest
    assert frame.pixels.min() < 0.05 * highest


@pytest.mark.parametrize("name", ["BayerRG12p", "BayerGB10p", "BayerBG16"])
def test_deep_bayer_frames_become_deep_rgb(gvcp: None, opened: Start, name: str) -> None:
    with viva_fake(pixel_format=name):
        (frame,) = take(opened(trigger="free"), 1)
    assert frame.pixels is not None
    assert (frame.pixels.dtype, frame.pixels.shape) == (np.uint16, (240, 320, 3))


def test_a_format_that_is_no_image_is_refused(gvcp: None, opened: Start) -> None:
    with viva_fake(pixel_format="Coord3D_C16"):
        camera = opened(trigger="free")
        with pytest.raises(ConfigInvalid, match="Coord3D_C16, which is not read here"):
            camera.frame(20)


# ---------------------------------------------------------------- ids and losses


@given(start=st.integers(1, 65535), steps=st.lists(st.integers(1, 30_000), max_size=30))
def test_ids_of_16_bit_that_skip_zero_become_one_count(start: int, steps: list[int]) -> None:
    count = FrameCount(wraps=True)
    position = start
    assert count.number((position - 1) % 65535 + 1) == 1
    expected = 1
    for step in steps:
        position += step
        expected += step
        assert count.number((position - 1) % 65535 + 1) == expected


def test_after_65535_comes_1_and_that_is_no_gap() -> None:
    count = FrameCount(wraps=True)
    assert [count.number(i) for i in (65534, 65535, 1, 2, 4)] == [1, 2, 3, 4, 6]
    assert count.number(3) == 5  # one that was overtaken
    count.restart()
    assert count.number(40_000) == 6


def test_ids_of_64_bit_do_not_wrap() -> None:
    count = FrameCount(wraps=False)
    assert [count.number(i) for i in (0, 1, 65535, 65536, 65537)] == [1, 2, 65536, 65537, 65538]
    extended = FrameCount(wraps=True)  # GigE Vision's extended ids
    assert [extended.number(i) for i in (65535, 65536, 65537)] == [1, 2, 3]


def test_frames_are_counted_across_the_wrap_of_a_real_camera(aravis: StartAravis, opened: Start) -> None:
    aravis()  # its ids begin near 65400
    frames = take(opened(trigger="free", features={"AcquisitionFrameRate": 200.0}, **SMALL), 200)
    first = frames[0]
    assert [frame.number for frame in frames] == list(range(1, 201))
    # The content proves it: the ramp moves by one with each frame.
    for frame in frames[::20]:
        assert (values(frame)[0, 0] - values(first)[0, 0] - (frame.number - first.number)) % 255 == 0


def test_packets_that_are_sent_again_leave_no_trace_but_a_counter(gvcp: None, opened: Start) -> None:
    with viva_fake(drop_packets=[(3, 5), (5, 7), (5, 8), (7, 1)]):
        camera = opened(trigger="free", packet_size=1500)
        frames = take(camera, 10)
        facts = camera.facts()
    assert [frame.number for frame in frames] == list(range(1, 11))
    assert all(frame.damage is None and frame.pixels is not None for frame in frames)
    assert (facts["resend_requested"], facts["resend_recovered"], facts["incomplete"]) == (4, 4, 0)


def test_a_frame_with_missing_packets_is_handed_out_as_damaged_and_without_pixels(gvcp: None, opened: Start) -> None:
    with viva_fake(packet_resend=False, drop_packets=[(3, 5), (5, 7), (5, 8), (7, 1)]):
        camera = opened(trigger="free", packet_size=1500)
        frames = take(camera, 10)
        facts = camera.facts()
    assert [frame.number for frame in frames] == list(range(1, 11))
    damage = {frame.number: frame.damage for frame in frames if frame.damage}
    # 320 x 240 bytes in packets of 1500, of which 36 are headers: 53, one leader, one trailer.
    assert damage == {
        3: "1 of 55 packets is missing.",
        5: "2 of 55 packets are missing.",
        7: "1 of 55 packets is missing.",
    }
    assert all((frame.pixels is None) == (frame.damage is not None) for frame in frames)
    assert (facts["incomplete"], facts["packets_missing"], facts["resend_recovered"]) == (3, 4, 0)


def test_on_a_lossy_wire_every_frame_is_accounted_for(aravis: StartAravis, opened: Start) -> None:
    aravis("-r", "20")  # loses 2 % of its packets, and does not send them again
    camera = opened(trigger="free", packet_size=1400, features=FAST, **SMALL)
    frames = take(camera, 100)
    numbers = [frame.number for frame in frames]
    facts = camera.facts()
    damaged = sum(frame.damage is not None for frame in frames)
    assert damaged > 0
    assert numbers == sorted(set(numbers))
    gaps = numbers[-1] - numbers[0] + 1 - len(numbers)
    assert isinstance(facts["missed"], int)
    assert isinstance(facts["incomplete"], int)
    assert facts["missed"] >= gaps
    assert facts["incomplete"] >= damaged
