"""What an image file's header says, and what is refused by it before anything is decoded.

OpenCV decodes more than has a meaning for inspection, and says nothing of much that is wrong. What each of these
refusals is for was found by feeding both libraries such files (tests/inspection/test_pixels.py has them all).
"""

from __future__ import annotations

import io
import struct
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image

from inspection.errors import ImageTooLarge, ImageUnreadable

FORMATS = ("PNG", "JPEG", "TIFF", "BMP")
TIFF_STARTS = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
TIFF_BITS, TIFF_COMPRESSION, TIFF_PHOTOMETRIC, TIFF_ORIENTATION, TIFF_SAMPLES = 258, 259, 262, 274, 277
UNCOMPRESSED, WHITE_IS_ZERO, UPRIGHT = 1, 0, 1
JPEG_SCAN, JPEG_END = b"\xff\xda", b"\xff\xd9"

# Pillow warns of large images and of odd tags; the limit and the refusals here are ours. Once for the process, because
# `catch_warnings` is not safe where several threads decode.
warnings.filterwarnings("ignore", module=r"PIL\.")

# All that Pillow was seen to raise on damaged headers.
DAMAGED = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, OverflowError, struct.error)


@dataclass(frozen=True, kw_only=True, slots=True)
class Stored:
    """How the pixels are stored, as far as the decoder does not say."""

    image: Image.Image  # opened; decoded only where it has a palette
    grey_palette: bool
    transparent_level: bool  # a mono PNG names one grey level as transparent
    compressed_tiff: bool

    @property
    def mode(self) -> str:
        """Pillow's mode: 1, L, LA, P, RGB, RGBA, I;16 ..."""
        return str(self.image.mode)


def read_header(data: bytes | memoryview, name: str, max_pixels: int) -> Stored:
    """Reads the header.

    Raises:
        ImageUnreadable: no image of the four formats, cut short, or nothing that has one meaning as pixels.
        ImageTooLarge: more than `max_pixels`.
    """
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        frames = int(getattr(image, "n_frames", 1))
    except Image.DecompressionBombError as error:
        raise ImageTooLarge(f"the image has more pixels than the limit of {max_pixels:,}.", where=name) from error
    except DAMAGED as error:
        raise _no_image(data, name) from error
    width, height = image.size
    if width * height > max_pixels:
        raise ImageTooLarge(
            f"{width} x {height} is {width * height:,} pixels, and the limit is {max_pixels:,}.", where=name
        )
    if frames > 1:
        raise ImageUnreadable(
            f"the file holds {frames} images, and one is expected.",
            where=name,
            hint="Save each page as a file of its own.",
        )
    if image.mode == "F" or image.mode.startswith("I;32"):
        raise ImageUnreadable(
            "floating point or 32-bit pixels have no stated range.",
            where=name,
            hint="Save as 8-bit or 16-bit integers.",
        )
    if image.mode in ("CMYK", "YCCK", "LAB"):
        raise ImageUnreadable(
            f"{image.mode} is a print colour space, not what a camera saw.", where=name, hint="Save as RGB or mono."
        )
    if image.format == "TIFF":
        _check_tiff(image, name)
    _check_end(bytes(data), image.format, name)
    return Stored(
        image=image,
        grey_palette=image.mode == "P" and _has_grey_palette(image, name),
        transparent_level="transparency" in image.info and image.mode in ("1", "L", "I", "I;16"),
        compressed_tiff=image.format == "TIFF" and _tag(image, TIFF_COMPRESSION, UNCOMPRESSED) != UNCOMPRESSED,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageHeader:
    """What the header alone says of the pixels that `inspection.pixels.read_image` would give."""

    width: int
    height: int
    channels: Literal[1, 3]
    bit_depth: Literal[8, 16]


def image_header(path: Path) -> ImageHeader:
    """Reads the header and not the pixels: what a survey of thousands of files needs. Raises ImageUnreadable."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            deep = image.mode.startswith("I") or _bits(path, image) == 16
            grey = image.mode == "P" and _has_grey_palette(image, str(path))
            mono = grey or image.mode in ("1", "L", "LA") or image.mode.startswith("I")
            width, height = image.size
    except (*DAMAGED, Image.DecompressionBombError) as error:
        reason = getattr(error, "strerror", None) or "this is no PNG, JPEG, TIFF or BMP image, or its header is damaged"
        raise ImageUnreadable(f"{reason}.", where=str(path)) from error
    return ImageHeader(width=width, height=height, channels=1 if mono else 3, bit_depth=16 if deep else 8)


def _bits(path: Path, image: Image.Image) -> int:
    """Bits of one channel: Pillow calls RGB of 16 bits `RGB` as well."""
    if image.format == "PNG":
        with path.open("rb") as file:
            return file.read(25)[24]  # IHDR: signature, length, name, width, height, then the bit depth
    return _tag(image, TIFF_BITS, 8) if image.format == "TIFF" else 8


def _check_tiff(image: Image.Image, name: str) -> None:
    samples = _tag(image, TIFF_SAMPLES, 1)
    if samples not in (1, 3, 4):  # OpenCV drops the second of two without a word
        raise ImageUnreadable(
            f"the image has {samples} channels, and only mono and RGB have one meaning.",
            where=name,
            hint="Save it as mono or RGB, without alpha.",
        )
    if _tag(image, TIFF_ORIENTATION, UPRIGHT) != UPRIGHT:  # both decoders turn it: masks and boxes would not fit
        raise ImageUnreadable(
            "the TIFF asks to be turned by its orientation tag.", where=name, hint="Save it as it should be seen."
        )
    if _tag(image, TIFF_PHOTOMETRIC, 1) == WHITE_IS_ZERO and _tag(image, TIFF_BITS, 1) > 8:  # inverted at 8 bit only
        raise ImageUnreadable(
            "the TIFF stores white as zero in more than 8 bit.", where=name, hint="Save it with black as zero."
        )


def _check_end(data: bytes, kind: str | None, name: str) -> None:
    """OpenCV fills the missing rest of a JPEG with grey and says nothing: a part that nobody saw would be judged."""
    # Inside a scan both marks are escaped, and a thumbnail's lie before the scan. Bytes after the end harm nobody.
    whole = data.rfind(JPEG_END) > data.rfind(JPEG_SCAN) if kind == "JPEG" else kind != "PNG" or b"IEND" in data
    if not whole:
        raise ImageUnreadable(
            f"the {kind} is cut short: its end is missing.",
            where=name,
            hint="Copy the file again; take files only when they are whole.",
        )


def _no_image(data: bytes | memoryview, name: str) -> ImageUnreadable:
    if bytes(data[:4]) in TIFF_STARTS:
        return ImageUnreadable(
            "the TIFF is damaged or cut short, or its pixels are of a kind that has no stated range (floating point).",
            where=name,
            hint="Copy the file again, or save it as 8-bit or 16-bit integers.",
        )
    return ImageUnreadable(
        "this is no PNG, JPEG, TIFF or BMP image, or its header is damaged.",
        where=name,
        hint="Look at the file itself: its name says nothing about what is in it.",
    )


def _tag(image: Image.Image, number: int, default: int) -> int:
    value = getattr(image, "tag_v2", {}).get(number, default)
    return int(value[0] if isinstance(value, tuple) else value)


def _has_grey_palette(image: Image.Image, name: str) -> bool:
    try:
        palette = image.getpalette("RGB") or []  # decodes the image too
    except DAMAGED as error:
        raise ImageUnreadable(
            "the pixels cannot be decoded: the file is damaged or cut short.", where=name, hint="Copy the file again."
        ) from error
    return palette[0::3] == palette[1::3] == palette[2::3]
