"""The one way from bytes to pixels, and from pixels to a network's input.

Training, command line, HTTP, cameras and batches all call `read_image` / `decode_image` and `prepare`: what the network
sees at the line is what it saw in training, to the bit.

An image is numpy, `HxW` (mono) or `HxWx3` RGB, `uint8` or `uint16`, C-contiguous. Pixels come as they are stored:
orientation tags are ignored (cameras do not set them), so boxes and maps fit the stored pixels.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as Header

from inspection.errors import ImageTooLarge, ImageUnreadable, InputMismatch
from inspection.modelfile import InputSpec, Resize

Pixels = NDArray[np.uint8] | NDArray[np.uint16]

MAX_PIXELS = 200_000_000  # above any line-scan frame we know, and 600 MB as RGB: a stop for decompression bombs
FORMATS = ("PNG", "JPEG", "TIFF", "BMP")
ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")


def read_image(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> Pixels:
    """Reads one image file (PNG, JPEG, TIFF or BMP; 8 or 16 bit; mono or RGB).

    Returns:
        `HxW` or `HxWx3` RGB, uint8 or uint16.

    Raises:
        ImageUnreadable: not there, no image, cut short, or of a kind that has no single meaning as pixels (CMYK,
            floating point, used transparency, several pages).
        ImageTooLarge: more than `max_pixels`; found in the header, before anything is decoded.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ImageUnreadable(f"cannot be read: {error.strerror or error}.", where=str(path)) from error
    return decode_image(data, name=str(path), max_pixels=max_pixels)


def decode_image(data: bytes | memoryview, *, name: str = "image", max_pixels: int = MAX_PIXELS) -> Pixels:
    """Decodes the bytes of one image file; see `read_image` for what it returns and raises. `name` goes into errors."""
    if len(data) == 0:
        raise ImageUnreadable("the file is empty.", where=name)
    _check_header(data, name, max_pixels)
    try:
        pixels = cv2.imdecode(
            np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED
        )  # as stored: depth, order, orientation
    except cv2.error as error:
        raise ImageUnreadable("the pixels cannot be decoded: the file is damaged or cut short.", where=name) from error
    if pixels is None:
        raise ImageUnreadable("the pixels cannot be decoded: the file is damaged or cut short.", where=name)
    return _as_mono_or_rgb(pixels, name)


def read_mask(path: str | Path) -> NDArray[np.bool_]:
    """Reads a mask image: `HxW` bool, true where any channel is not zero. Transparency does not count.

    Raises:
        ImageUnreadable, ImageTooLarge: as `read_image`.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ImageUnreadable(f"cannot be read: {error.strerror or error}.", where=str(path)) from error
    if len(data) == 0:
        raise ImageUnreadable("the file is empty.", where=str(path))
    _check_header(data, str(path), MAX_PIXELS)
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise ImageUnreadable("the mask cannot be decoded: the file is damaged or cut short.", where=str(path))
    colours = pixels if pixels.ndim == 2 else pixels[..., :3].max(axis=2)
    return np.asarray(colours != 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Placement:
    """Where an image's pixels lie in the network's input: input = scale * original + offset, at pixel corners."""

    scale_x: float
    scale_y: float
    offset_x: float  # input pixels
    offset_y: float
    size: tuple[int, int]  # width, height of the original image

    def region(self, height: int, width: int) -> tuple[float, float, float, float]:
        """The rectangle (x, y, width, height, original pixels) that an input of `height` x `width` covers."""
        return (
            -self.offset_x / self.scale_x,
            -self.offset_y / self.scale_y,
            width / self.scale_x,
            height / self.scale_y,
        )


def prepare(image: Pixels, spec: InputSpec) -> tuple[Pixels, Placement]:
    """Brings an image to the network's input; the only preprocessing outside the exported graph.

    Args:
        image: `HxW` or `HxWx3`, uint8 or uint16.
        spec: what the model takes.

    Returns:
        The input, `height x width x channels` of `spec.dtype`, and where the original lies in it.

    Raises:
        InputMismatch: channels or bit depth are not what the model was made for.
    """
    check_fits(image, spec)
    height, width = image.shape[:2]
    if spec.resize is Resize.STRETCH:
        placement = Placement(
            scale_x=spec.width / width, scale_y=spec.height / height, offset_x=0.0, offset_y=0.0, size=(width, height)
        )
        return _with_channels(resize(image, spec.width, spec.height)), placement
    # Letterbox: as large as fits, in the middle, the rest black. Whole pixels, so that the scale is what was drawn.
    factor = min(spec.width / width, spec.height / height)
    inner_w, inner_h = max(1, round(width * factor)), max(1, round(height * factor))
    left, top = (spec.width - inner_w) // 2, (spec.height - inner_h) // 2
    canvas = np.zeros((spec.height, spec.width, spec.channels), dtype=image.dtype)
    canvas[top : top + inner_h, left : left + inner_w] = _with_channels(resize(image, inner_w, inner_h))
    placement = Placement(
        scale_x=inner_w / width, scale_y=inner_h / height, offset_x=left, offset_y=top, size=(width, height)
    )
    return canvas, placement


def resize(image: Pixels, width: int, height: int) -> Pixels:
    """Resizes by area where the image shrinks and bilinearly where it grows; the same array when nothing changes."""
    if image.shape[1] == width and image.shape[0] == height:
        return image
    shrinks = image.shape[1] >= width and image.shape[0] >= height
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)  # type: ignore[return-value]


def check_fits(image: Pixels, spec: InputSpec) -> None:
    """Refuses what is not `spec`'s channels, type and bit depth. Raises InputMismatch with the mend."""
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (1, 3)):
        raise InputMismatch(f"an image of shape {image.shape} is neither HxW nor HxWx3.")
    if 0 in image.shape:
        raise InputMismatch(f"an image of shape {image.shape} has no pixels.")
    channels = 1 if image.ndim == 2 else image.shape[2]
    if channels != spec.channels:
        has, wants = (f"{'mono' if count == 1 else 'RGB'}" for count in (channels, spec.channels))
        raise InputMismatch(
            f"the image is {has} and the model takes {wants}.",
            hint=f"Set the camera to {wants}, or train a model on {has} images.",
        )
    if image.dtype != spec.dtype:
        raise InputMismatch(
            f"the image is {image.dtype} and the model takes {np.dtype(spec.dtype)} ({spec.bit_depth} bit).",
            hint=f"Record with {spec.bit_depth} bit, or train a model on images of this depth.",
        )
    if spec.bit_depth not in (8, 16):
        highest = int(image.max())
        if highest >= 1 << spec.bit_depth:
            raise InputMismatch(
                f"a pixel has the value {highest}, and {spec.bit_depth} bit end at {(1 << spec.bit_depth) - 1}.",
                hint="The camera packs its bits to the left, or the stated bit depth is wrong.",
            )


def _with_channels(image: Pixels) -> Pixels:
    return image[:, :, None] if image.ndim == 2 else image


def _check_header(data: bytes | memoryview, name: str, max_pixels: int) -> None:
    """Reads only the header, and refuses what would be decoded to something else than it means."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of large images; the limit below is ours
            header = Header.open(io.BytesIO(data), formats=FORMATS)
    except Header.DecompressionBombError as error:
        raise ImageTooLarge(f"the image has more than {max_pixels:,} pixels.", where=name) from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise ImageUnreadable(
            "this is no PNG, JPEG, TIFF or BMP image, or its header is damaged.",
            where=name,
            hint="Look at the file itself: its name says nothing about what is in it.",
        ) from error
    width, height = header.size
    if width * height > max_pixels:
        raise ImageTooLarge(
            f"{width} x {height} is {width * height:,} pixels, and the limit is {max_pixels:,}.", where=name
        )
    if header.mode == "F" or header.mode.startswith("I;32"):
        raise ImageUnreadable(
            "floating point or 32-bit pixels have no stated range.",
            where=name,
            hint="Save as 8-bit or 16-bit integers.",
        )
    if header.mode in ("CMYK", "YCCK", "LAB"):
        raise ImageUnreadable(
            f"{header.mode} is a print colour space, not what a camera saw.", where=name, hint="Save as RGB or mono."
        )
    if getattr(header, "n_frames", 1) > 1:
        raise ImageUnreadable(
            f"the file holds {getattr(header, 'n_frames', 1)} images, and one is expected.",
            where=name,
            hint="Save each page as a file of its own.",
        )
    tail = bytes(data[-4096:])
    # OpenCV fills the missing rest of a JPEG or PNG with grey and says nothing: a part that nobody saw would be judged.
    if (header.format == "JPEG" and b"\xff\xd9" not in tail) or (header.format == "PNG" and b"IEND" not in tail):
        raise ImageUnreadable(
            f"the {header.format} is cut short: its end is missing.",
            where=name,
            hint="Copy the file again; take files only when they are whole.",
        )


def _as_mono_or_rgb(pixels: NDArray[np.generic], name: str) -> Pixels:
    if pixels.dtype not in (np.uint8, np.uint16):
        raise ImageUnreadable(
            f"pixels of type {pixels.dtype} have no stated range.", where=name, hint="Save as 8-bit or 16-bit integers."
        )
    if pixels.ndim == 3 and pixels.shape[2] == 4:
        alpha = pixels[..., 3]
        if int(alpha.min()) != np.iinfo(pixels.dtype).max:  # type: ignore[type-var]
            raise ImageUnreadable(
                "the image has transparent pixels, and a camera sees none.",
                where=name,
                hint="Save it without an alpha channel.",
            )
        pixels = pixels[..., :3]
    if pixels.ndim == 3:
        pixels = cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_BGR2RGB)
    return np.ascontiguousarray(pixels)
