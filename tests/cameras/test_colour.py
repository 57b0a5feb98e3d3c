"""What a camera sends becomes the right pixels: each mosaic, each packing, each order of channels."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from inspection.cameras import colour

RED, GREEN, BLUE = 0, 1, 2
ROWS = {"RG": "RGGB", "GR": "GRBG", "GB": "GBRG", "BG": "BGGR"}  # the PFNC's name is the mosaic's first row


def mosaic(image: NDArray[np.generic], pattern: str) -> NDArray[np.generic]:
    """What a sensor behind the colour filters of `pattern` sees of an RGB image."""
    seen = np.empty(image.shape[:2], image.dtype)
    for index, letter in enumerate(ROWS[pattern]):
        y, x = divmod(index, 2)
        seen[y::2, x::2] = image[y::2, x::2, "RGB".index(letter)]
    return seen


def packed_bits(values: list[int], bits: int) -> bytes:
    """The PFNC's `p` packing, bit by bit: each pixel's lowest bit first, pixels one after another."""
    whole = sum(value << (index * bits) for index, value in enumerate(values))
    return whole.to_bytes(-(-len(values) * bits // 8), "little")


@pytest.mark.parametrize("pattern", ROWS)
@pytest.mark.parametrize("channel", [RED, GREEN, BLUE])
@pytest.mark.parametrize(("layout", "full"), [("8", 255), ("10", 1023), ("12", 4095), ("16", 65535)])
def test_a_red_scene_arrives_red_behind_every_mosaic_and_at_every_depth(
    pattern: str, channel: int, layout: str, full: int
) -> None:
    scene = np.zeros((16, 24, 3), np.uint8 if full == 255 else np.uint16)
    scene[..., channel] = full
    pixels = colour.to_pixels(mosaic(scene, pattern).tobytes(), f"Bayer{pattern}{layout}", 24, 16)
    assert pixels.dtype == scene.dtype
    np.testing.assert_array_equal(pixels, scene)


@pytest.mark.parametrize("pattern", ROWS)
def test_a_packed_mosaic_keeps_its_twelve_bits(pattern: str) -> None:
    scene = np.zeros((8, 12, 3), np.uint16)
    scene[..., RED], scene[..., BLUE] = 4095, 17
    data = packed_bits([int(value) for value in mosaic(scene, pattern).ravel()], 12)
    np.testing.assert_array_equal(colour.to_pixels(data, f"Bayer{pattern}12p", 12, 8), scene)


@given(
    bits=st.sampled_from([10, 12]), width=st.integers(1, 9), height=st.integers(1, 5), seed=st.integers(0, 2**32 - 1)
)
def test_packed_pixels_are_what_was_packed(bits: int, width: int, height: int, seed: int) -> None:
    values = np.random.default_rng(seed).integers(0, 1 << bits, (height, width), dtype=np.uint16)
    data = packed_bits([int(value) for value in values.ravel()], bits)
    np.testing.assert_array_equal(colour.to_pixels(data, f"Mono{bits}p", width, height), values)
    # The same where every line is filled up to whole bytes and three more.
    line = -(-width * bits // 8)
    padded = b"\xff\xff\xff".join(packed_bits([int(value) for value in row], bits) for row in values)
    pixels = colour.to_pixels(padded, f"Mono{bits}p", width, height, padding=3)
    assert len(padded) == height * line + 3 * (height - 1)
    np.testing.assert_array_equal(pixels, values)


@given(bits=st.sampled_from([10, 12]), pairs=st.integers(1, 12), seed=st.integers(0, 10**9))
def test_pixels_in_the_old_packing_of_gige_vision_are_what_was_packed(bits: int, pairs: int, seed: int) -> None:
    values = np.random.default_rng(seed).integers(0, 1 << bits, 2 * pairs, dtype=np.uint16)
    low = bits - 8
    data = bytearray()
    for first, second in values.reshape(-1, 2).tolist():
        data += bytes([first >> low, first % (1 << low) | (second % (1 << low)) << 4, second >> low])
    pixels = colour.to_pixels(bytes(data), f"Mono{bits}Packed", 2 * pairs, 1)
    np.testing.assert_array_equal(pixels[0], values)


MONO = ["Mono8", "Mono10", "Mono12", "Mono14", "Mono16", "Mono10p", "Mono12p", "Mono10Packed", "Mono12Packed"]
RGB = ["RGB8", "BGR8", "RGBa8", "BGRa8", "YUV422_8", "YUV422_8_UYVY", "YCbCr422_8", "YCbCr422_8_CbYCrY"]


@pytest.mark.line
@pytest.mark.parametrize("name", [*MONO, *RGB])
def test_every_format_gives_what_another_implementation_makes_of_it(name: str) -> None:
    viva = pytest.importorskip("viva_genicam")
    width, height = 66, 20
    data = np.random.default_rng(7).integers(0, 256, 4 * width * height, dtype=np.uint8).tobytes()
    theirs = viva.Frame.from_bytes(data, width, height, name).to_numpy()
    ours = colour.to_pixels(data, name, width, height)
    assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
    # YUV is rounded, all others are exact.
    assert np.abs(ours.astype(int) - theirs.astype(int)).max() <= (1 if name.startswith("Y") else 0)


@pytest.mark.parametrize(
    ("name", "pixel"),
    [
        ("RGB8", (200, 30, 10)),
        ("RGB8Packed", (200, 30, 10)),
        ("BGR8", (10, 30, 200)),
        ("RGBa8", (200, 30, 10, 0)),
        ("BGRa8", (10, 30, 200, 0)),
    ],
)
def test_red_is_red_in_every_order_of_channels(name: str, pixel: tuple[int, ...]) -> None:
    pixels = colour.to_pixels(bytes(pixel * 6), name, 3, 2)
    np.testing.assert_array_equal(pixels, np.full((2, 3, 3), (200, 30, 10)))


@pytest.mark.parametrize(
    ("name", "order"),
    [("YUV422_8", "yuyv"), ("YUV422_8_UYVY", "uyvy"), ("YCbCr422_8", "yuyv"), ("YUV422Packed", "uyvy")],
)
def test_red_in_yuv_is_red(name: str, order: str) -> None:
    # ITU-R BT.601, full range: Y = 0.299 R, Cb = 128 - 0.168736 R, Cr = 128 + 0.5 R.
    of = {"y": round(0.299 * 254), "u": round(128 - 0.168736 * 254), "v": round(128 + 0.5 * 254)}
    cb, cr = of["u"], of["v"]
    pair = [of["y"], cb, of["y"], cr] if order == "yuyv" else [cb, of["y"], cr, of["y"]]
    pixels = colour.to_pixels(bytes(pair * 4), name, 4, 2)
    assert np.abs(pixels.astype(int) - (254, 0, 0)).max() <= 2


def test_what_pads_a_line_is_no_pixel() -> None:
    image = np.arange(12, dtype=np.uint8).reshape(3, 4)
    data = np.pad(image, ((0, 0), (0, 5)), constant_values=99).tobytes()
    pixels = colour.to_pixels(data, "Mono8", 4, 3, padding=5)
    np.testing.assert_array_equal(pixels, image)
    assert pixels.flags.c_contiguous


def test_mono_8_is_not_copied() -> None:
    data = bytes(range(200)) * 5
    pixels = colour.to_pixels(data, "Mono8", 40, 25)
    assert np.shares_memory(pixels, np.frombuffer(data, np.uint8))


@pytest.mark.parametrize("name", ["Mono8", "Mono12", "Mono12p", "Mono10Packed", "RGB8", "YUV422_8", "BayerRG8"])
def test_a_frame_with_too_few_bytes_is_refused(name: str) -> None:
    with pytest.raises(colour.WrongSize, match="bytes where"):
        colour.to_pixels(bytes(100), name, 64, 48)


def test_formats_that_are_no_images_are_known_to_be_unreadable() -> None:
    assert not any(map(colour.is_readable, ("Coord3D_C16", "Mono1p", "Confidence8", "RGB10p", "")))
    assert all(map(colour.is_readable, ("Mono8", "BayerGB10p", "RGB8Packed", "YUV422Packed")))


def test_what_opencv_captures_is_turned_from_bgr() -> None:
    bgr = np.zeros((4, 6, 3), np.uint8)
    bgr[..., 2] = 250
    np.testing.assert_array_equal(colour.from_bgr(bgr, mono=False)[0, 0], (250, 0, 0))
    assert colour.from_bgr(bgr, mono=True)[0, 0] == round(0.299 * 250)
    grey = cv2.cvtColor(np.full((4, 6), 131, np.uint8), cv2.COLOR_GRAY2BGR)
    np.testing.assert_array_equal(colour.from_bgr(grey, mono=True), np.full((4, 6), 131))
