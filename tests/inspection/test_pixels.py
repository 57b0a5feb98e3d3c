"""Bytes to pixels, and pixels to a network's input."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from inspection.errors import ImageTooLarge, ImageUnreadable, InputMismatch, InspectionError
from inspection.modelfile import InputSpec
from inspection.pixels import decode_image, prepare, read_image, read_mask, resize

# Pillow warns of the damage that these tests make.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

RNG = np.random.default_rng(0)
RED = (250, 10, 20)
RGB = np.full((40, 52, 3), RED, np.uint8)
RGB[:, 26:] = RNG.integers(0, 255, (40, 26, 3))
GREY = RGB[..., 1].copy()
GREY16 = RNG.integers(0, 65535, (40, 52)).astype(np.uint16)
P = Image.fromarray(RGB)


def pil(image: Any, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, kind, **options)
    return file.getvalue()


def tif(values: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, values, **options)
    return file.getvalue()


def png16(values: Any) -> bytes:
    return bytes(cv2.imencode(".png", values)[1])


def png_of_size(width: int, height: int) -> bytes:
    """A PNG whose header claims this size."""
    data = bytearray(pil(GREY, "PNG"))
    header = data[12:29]
    header[4:12] = struct.pack(">II", width, height)
    return bytes(data[:12] + header + struct.pack(">I", zlib.crc32(bytes(header))) + data[33:])


def bmp_of_size(width: int, height: int) -> bytes:
    data = bytearray(pil(GREY, "BMP"))
    data[18:26] = struct.pack("<ii", width, height)
    return bytes(data)


def jpeg_of_size(width: int, height: int) -> bytes:
    data = bytearray(pil(GREY, "JPEG"))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def changed(data: bytes, at: int) -> bytes:
    wrong = bytearray(data)
    wrong[at] ^= 0x55
    return bytes(wrong)


def with_alpha(alpha: int) -> Image.Image:
    image = P.convert("RGBA")
    image.putalpha(alpha)
    return image


EXIF = Image.Exif()
EXIF[0x112] = 6
GREY_ALPHA = Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(GREY // 2)])
RGB_PNG, RGB_TIFF, DEFLATED = pil(RGB, "PNG"), pil(RGB, "TIFF"), tif(RGB, compression="deflate", photometric="rgb")
RGB_JPEG = pil(RGB, "JPEG")

# name -> bytes, what is expected exactly
SOUND: dict[str, tuple[bytes, Any]] = {
    "rgb png": (RGB_PNG, RGB),
    "rgb tiff": (RGB_TIFF, RGB),
    "rgb bmp": (pil(RGB, "BMP"), RGB),
    "rgb png with unused alpha": (pil(with_alpha(255), "PNG"), RGB),
    "rgb tiff with unused alpha": (pil(with_alpha(255), "TIFF"), RGB),
    "rgb bmp of 32 bit": (pil(with_alpha(255), "BMP"), RGB),
    "grey png": (pil(GREY, "PNG"), GREY),
    "grey tiff": (pil(GREY, "TIFF"), GREY),
    "grey bmp": (pil(GREY, "BMP"), GREY),
    "grey png with unused alpha stays mono": (pil(Image.fromarray(GREY).convert("LA"), "PNG"), GREY),
    "grey palette png stays mono": (pil(Image.fromarray(GREY).convert("P"), "PNG"), GREY),
    "colour palette png": (pil(P.convert("P"), "PNG"), np.asarray(P.convert("P").convert("RGB"))),
    "colour palette bmp": (pil(P.convert("P"), "BMP"), np.asarray(P.convert("P").convert("RGB"))),
    "colour palette tiff": (pil(P.convert("P"), "TIFF"), np.asarray(P.convert("P").convert("RGB"))),
    "1-bit png": (pil(Image.fromarray(GREY > 100), "PNG"), np.where(GREY > 100, 255, 0).astype(np.uint8)),
    "1-bit bmp": (pil(Image.fromarray(GREY > 100), "BMP"), np.where(GREY > 100, 255, 0).astype(np.uint8)),
    "1-bit fax tiff": (
        pil(Image.fromarray(GREY > 100), "TIFF", compression="group4"),
        np.where(GREY > 100, 255, 0).astype(np.uint8),
    ),
    "16-bit png": (png16(GREY16), GREY16),
    "16-bit tiff": (tif(GREY16), GREY16),
    "16-bit tiff, high byte first": (tif(GREY16, byteorder=">"), GREY16),
    "16-bit tiff, deflated": (tif(GREY16, compression="deflate"), GREY16),
    "16-bit rgb tiff": (
        tif(np.dstack([GREY16, GREY16 // 2, GREY16 // 4]), photometric="rgb"),
        np.dstack([GREY16, GREY16 // 2, GREY16 // 4]),
    ),
    "16-bit rgb png": (
        png16(np.dstack([GREY16 // 4, GREY16 // 2, GREY16])),  # OpenCV writes BGR
        np.dstack([GREY16, GREY16 // 2, GREY16 // 4]),
    ),
    "10 bits in 16": (png16(GREY16 >> 6), GREY16 >> 6),
    "big tiff": (tif(GREY, bigtiff=True), GREY),
    "planar tiff": (tif(RGB.transpose(2, 0, 1).copy(), photometric="rgb", planarconfig="separate"), RGB),
    "lzw tiff": (pil(RGB, "TIFF", compression="tiff_lzw"), RGB),
    "deflated tiff": (DEFLATED, RGB),
    "packbits tiff": (pil(RGB, "TIFF", compression="packbits"), RGB),
    "white-is-zero tiff of 8 bit": (tif(GREY, photometric="miniswhite"), 255 - GREY),
    "png with an orientation tag, as stored": (pil(P, "PNG", exif=EXIF), RGB),
    "png with bytes after its end": (RGB_PNG + bytes(9000), RGB),
    "1 x 1 png": (pil(RGB[:1, :1], "PNG"), RGB[:1, :1]),
}


@pytest.mark.parametrize("case", SOUND)
def test_a_sound_file_gives_exactly_its_pixels(case: str) -> None:
    data, wanted = SOUND[case]
    pixels = decode_image(data)
    assert pixels.dtype == wanted.dtype
    assert pixels.flags.c_contiguous
    np.testing.assert_array_equal(pixels, wanted)


@pytest.mark.parametrize(
    "data",
    [
        RGB_JPEG,
        pil(P, "JPEG", progressive=True),
        pil(P, "JPEG", exif=EXIF),
        RGB_JPEG + bytes(9000),
        pil(RGB, "TIFF", compression="jpeg"),
        pil(P.convert("YCbCr"), "TIFF"),
    ],
    ids=["jpeg", "progressive", "orientation tag", "bytes after its end", "in a tiff", "ycbcr tiff"],
)
def test_a_red_image_arrives_red_from_what_is_not_lossless(data: bytes) -> None:
    pixels = decode_image(data)
    assert pixels.shape == RGB.shape  # not turned either
    assert np.abs(pixels[2:30, 2:14].astype(int) - RED).max() <= 12


# name -> bytes, a word that the message must have
REFUSED: dict[str, tuple[bytes, str]] = {
    "empty file": (b"", "empty"),
    "text named png": (b"this is no image" * 20, "no PNG"),
    "gif": (pil(P, "GIF"), "no PNG"),
    "cmyk jpeg": (pil(P.convert("CMYK"), "JPEG"), "CMYK"),
    "cmyk tiff": (pil(P.convert("CMYK"), "TIFF"), "CMYK"),
    "lab tiff": (pil(P.convert("LAB"), "TIFF"), "LAB"),
    "transparent png": (pil(with_alpha(128), "PNG"), "transparent"),
    "transparent tiff": (pil(with_alpha(128), "TIFF"), "transparent"),
    "transparent grey png": (pil(GREY_ALPHA, "PNG"), "transparent"),
    "transparent palette": (pil(P.convert("P"), "PNG", transparency=int(np.asarray(P.convert("P"))[0, 0])), "transpar"),
    "transparent colour": (pil(P, "PNG", transparency=RED), "transparent"),
    "transparent grey level": (pil(GREY, "PNG", transparency=10), "transparent"),
    "grey tiff with alpha": (pil(GREY_ALPHA, "TIFF"), "2 channels"),
    "5 channels": (tif(np.dstack([RGB, GREY, GREY]), photometric="rgb", planarconfig="contig"), "5 channels"),
    "float tiff": (tif(GREY.astype(np.float32) / 255), "floating point"),
    "nan tiff": (tif(np.full((40, 50), np.nan, np.float32)), "floating point"),
    "double tiff": (tif(GREY.astype(np.float64)), "floating point"),
    "half float tiff": (tif(GREY.astype(np.float16)), "floating point"),
    "float rgb tiff": (tif(RGB.astype(np.float32), photometric="rgb"), "floating point"),
    "32-bit tiff": (tif(GREY.astype(np.uint32)), "no stated range"),
    "signed 16-bit tiff": (tif(GREY.astype(np.int16)), "no stated range"),
    "signed 8-bit tiff": (tif(GREY.astype(np.int8)), "no stated range"),
    "white-is-zero tiff of 16 bit": (tif(GREY16, photometric="miniswhite"), "white as zero"),
    "tiff with an orientation tag": (tif(RGB, photometric="rgb", extratags=[(274, 3, 1, 6, True)]), "turned"),
    "two pages": (tif(np.stack([GREY, GREY]), photometric="minisblack"), "2 images"),
    "animated png": (pil(P, "PNG", save_all=True, append_images=[P.rotate(90)]), "2 images"),
    "png, changed in the middle": (changed(RGB_PNG, len(RGB_PNG) // 2), "damaged"),
    "png, checksum changed": (changed(RGB_PNG, len(RGB_PNG) - 14), "damaged"),
    "png without its middle": (RGB_PNG[:2000] + RGB_PNG[-500:], "damaged"),
    "deflated tiff, changed": (changed(DEFLATED, len(DEFLATED) // 2), "damaged"),
    "tiff of a compression nobody reads": (pil(RGB, "TIFF", compression="zstd"), "compressed"),
    "jpeg whose end is in its thumbnail only": (
        RGB_JPEG[:2] + b"\xff\xe1\x00\x08thu\xff\xd9\x00"[:10] + RGB_JPEG[2:-40],
        "cut short",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_has_no_one_meaning_is_refused_with_the_reason(case: str) -> None:
    data, word = REFUSED[case]
    with pytest.raises(ImageUnreadable, match=word) as caught:
        decode_image(data, name="part-17")
    assert caught.value.where == "part-17"
    assert caught.value.code == "image-unreadable"


@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
@pytest.mark.parametrize(
    "case",
    ["rgb png", "rgb tiff", "rgb bmp", "grey bmp", "16-bit png", "16-bit tiff", "lzw tiff", "deflated tiff", "jpeg"],
)
def test_a_cut_off_file_is_refused_and_named(case: str, share: float) -> None:
    data = RGB_JPEG if case == "jpeg" else SOUND[case][0]
    with pytest.raises(ImageUnreadable) as caught:
        decode_image(data[: int(len(data) * share)], name="cut.img")
    assert "cut.img" in str(caught.value)


@pytest.mark.parametrize("bomb", [png_of_size, bmp_of_size, jpeg_of_size])
@pytest.mark.parametrize(("width", "height"), [(30_000, 30_000), (14_000, 14_000)])
def test_an_image_of_too_many_pixels_is_refused_by_its_header(bomb: Any, width: int, height: int) -> None:
    with pytest.raises(ImageTooLarge, match="175,000,000") as caught:
        decode_image(bomb(width, height))
    assert caught.value.status == 413


def test_the_limit_of_pixels_can_be_lowered() -> None:
    assert decode_image(RGB_PNG, max_pixels=40 * 52).shape == (40, 52, 3)
    with pytest.raises(ImageTooLarge, match="2,079"):
        decode_image(RGB_PNG, max_pixels=40 * 52 - 1)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    which=st.sampled_from([RGB_PNG, RGB_TIFF, RGB_JPEG, DEFLATED, pil(RGB, "BMP"), pil(P.convert("P"), "PNG")]),
    flips=st.lists(st.tuples(st.floats(0, 1), st.integers(1, 255)), min_size=1, max_size=6),
    keep=st.floats(0.2, 1),
)
def test_no_damage_raises_anything_but_our_error(which: bytes, flips: list[tuple[float, int]], keep: float) -> None:
    data = bytearray(which[: max(1, int(len(which) * keep))])
    for place, bits in flips:
        data[min(len(data) - 1, int(place * min(len(data), 400)))] ^= bits  # headers are where it hurts
    try:
        pixels = decode_image(bytes(data), max_pixels=1_000_000)
    except InspectionError:
        return
    assert pixels.dtype in (np.uint8, np.uint16)
    assert pixels.ndim == 2 or pixels.shape[2] == 3


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing.png", tmp_path):
        with pytest.raises(ImageUnreadable) as caught:
            read_image(path)
        assert caught.value.where == str(path)


def test_a_mask_is_true_where_any_channel_is_not_zero(tmp_path: Path) -> None:
    wanted = np.zeros((40, 52), bool)
    wanted[3:9, 4:30] = True
    for name, values in {
        "grey.png": np.where(wanted, 1, 0).astype(np.uint8),
        "bool.png": wanted,
        "rgb.png": np.dstack([np.zeros_like(GREY), np.zeros_like(GREY), np.where(wanted, 7, 0).astype(np.uint8)]),
        "alpha.png": np.dstack([np.where(wanted, 9, 0)] * 3 + [np.full_like(GREY, 128)]).astype(np.uint8),
        "grey.tiff": np.where(wanted, 255, 0).astype(np.uint8),
    }.items():
        Image.fromarray(values).save(tmp_path / name)
        np.testing.assert_array_equal(read_mask(tmp_path / name), wanted, err_msg=name)
    (tmp_path / "cut.png").write_bytes((tmp_path / "rgb.png").read_bytes()[:60])
    with pytest.raises(ImageUnreadable):
        read_mask(tmp_path / "cut.png")


# --- prepare ------------------------------------------------------------------------------------------------------


def bilinear(image: Any, width: int, height: int) -> Any:
    """Bilinear at pixel centres, written down once more, in float64."""
    rows = np.clip((np.arange(height) + 0.5) * image.shape[0] / height - 0.5, 0, image.shape[0] - 1)
    columns = np.clip((np.arange(width) + 0.5) * image.shape[1] / width - 0.5, 0, image.shape[1] - 1)
    y0, x0 = np.floor(rows).astype(int), np.floor(columns).astype(int)
    y1, x1 = np.minimum(y0 + 1, image.shape[0] - 1), np.minimum(x0 + 1, image.shape[1] - 1)
    fy, fx = (rows - y0)[:, None], (columns - x0)[None, :]
    image = image.astype(np.float64)
    top = image[y0][:, x0] * (1 - fx) + image[y0][:, x1] * fx
    return top * (1 - fy) + (image[y1][:, x0] * (1 - fx) + image[y1][:, x1] * fx) * fy


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_shrinking_by_whole_factors_is_the_mean_of_each_block(dtype: Any) -> None:
    image = RNG.integers(0, np.iinfo(dtype).max, (64, 96)).astype(dtype)
    small = prepare(image, InputSpec(height=32, width=32, channels=1, bit_depth=8 if dtype == np.uint8 else 16))[0]
    exact = image.reshape(32, 2, 32, 3).mean(axis=(1, 3))
    assert small.shape == (32, 32, 1)
    assert small.dtype == dtype
    assert np.abs(small[..., 0] - exact).max() <= 0.5 + 1e-6


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_growing_is_bilinear(dtype: Any) -> None:
    image = RNG.integers(0, np.iinfo(dtype).max, (11, 17)).astype(dtype)
    large = resize(image, 40, 37)
    # OpenCV rounds its weights at 8 bit to 1/2048.
    assert np.abs(large - bilinear(image, 40, 37)).max() <= (1.0 if dtype == np.uint8 else 40.0)


def test_golden_vector_of_the_area_mean() -> None:
    image = np.array([[0, 10, 20, 30], [40, 50, 60, 70], [80, 90, 100, 110], [120, 130, 140, 150]], np.uint8)
    np.testing.assert_array_equal(resize(image, 2, 2), [[25, 45], [105, 125]])


def test_nothing_is_touched_when_the_size_is_right() -> None:
    image = RNG.integers(0, 255, (32, 48, 3)).astype(np.uint8)
    ready, placement = prepare(image, InputSpec(height=32, width=48, channels=3))
    assert ready is image
    assert placement.region(32, 48) == (0, 0, 48, 32)


def test_a_letterbox_keeps_proportions_and_is_black_around() -> None:
    image = np.full((20, 80), 200, np.uint8)
    ready, placement = prepare(image, InputSpec(height=64, width=64, channels=1, resize="letterbox"))
    np.testing.assert_array_equal(ready[24:40, :, 0], 200)
    assert not ready[:24].any()
    assert not ready[40:].any()
    assert placement.region(64, 64) == (0, -30, 80, 80)


@given(
    width=st.integers(6, 300),
    height=st.integers(6, 300),
    rule=st.sampled_from(["stretch", "letterbox"]),
    x=st.floats(0, 1),
    y=st.floats(0, 1),
)
@settings(max_examples=60, deadline=None)
def test_a_place_in_the_input_is_found_again_in_the_original(
    width: int, height: int, rule: str, x: float, y: float
) -> None:
    spec = InputSpec(height=64, width=96, channels=1, resize=rule)
    ready, placement = prepare(np.zeros((height, width), np.uint8), spec)
    assert ready.shape == (64, 96, 1)
    left, top, w, h = placement.region(64, 96)
    at_x, at_y = x * width * placement.scale_x + placement.offset_x, y * height * placement.scale_y + placement.offset_y
    assert left + at_x / 96 * w == pytest.approx(x * width, abs=1e-6)
    assert top + at_y / 64 * h == pytest.approx(y * height, abs=1e-6)
    assert -1e-9 <= at_x <= 96 + 1e-9
    assert -1e-9 <= at_y <= 64 + 1e-9


@pytest.mark.parametrize(
    ("shape", "dtype", "fields", "word"),
    [
        ((40, 40), np.uint8, {"channels": 3}, "mono"),
        ((40, 40, 3), np.uint8, {"channels": 1}, "RGB"),
        ((40, 40), np.uint16, {"channels": 1}, "uint16"),
        ((40, 40), np.uint8, {"channels": 1, "bit_depth": 12}, "12 bit"),
        ((40, 40), np.float32, {"channels": 1}, "float32"),
        ((40, 40, 4), np.uint8, {"channels": 3}, "neither"),
        ((40,), np.uint8, {"channels": 1}, "neither"),
        ((0, 40), np.uint8, {"channels": 1}, "no pixels"),
    ],
)
def test_what_the_model_was_not_made_for_is_refused(
    shape: tuple[int, ...], dtype: Any, fields: dict[str, int], word: str
) -> None:
    with pytest.raises(InputMismatch, match=word):
        prepare(np.zeros(shape, dtype), InputSpec(height=32, width=32, **fields))  # type: ignore[arg-type]


def test_a_pixel_above_the_stated_bit_depth_is_refused() -> None:
    spec = InputSpec(height=32, width=32, channels=1, bit_depth=10)
    prepare(np.full((32, 32), 1023, np.uint16), spec)
    with pytest.raises(InputMismatch, match="1024"):
        prepare(np.full((32, 32), 1024, np.uint16), spec)


def test_an_image_of_one_pixel_is_refused_and_not_called_good() -> None:
    with pytest.raises(InputMismatch, match="1 x 1"):
        prepare(np.zeros((1, 1), np.uint8), InputSpec(height=64, width=64, channels=1))
