"""The one way from bytes to pixels, and from pixels to a network's input.

Training, command line, HTTP, cameras and batches all call `read_image` / `decode_image` and `prepare`: what the network
sees at the line is what it saw in training, to the bit.

An image is numpy, `HxW` (mono) or `HxWx3` RGB, `uint8` or `uint16`, C-contiguous. Pixels come as they are stored:
orientation tags of JPEG and PNG are ignored (cameras do not set them), so boxes and maps fit the stored pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from inspection.errors import ImageUnreadable, InputMismatch
from inspection.header import DAMAGED, Stored, read_header
from inspection.header import FORMATS as FORMATS
from inspection.modelfile import InputSpec, Resize

Pixels = NDArray[np.uint8] | NDArray[np.uint16]

# A stop for decompression bombs: 525 MB as 8-bit RGB, a line-scan frame of 16,384 x 10,681. Larger frames can be passed
# as arrays; Pillow, which reads the headers, has its own stop just above.
MAX_PIXELS = 175_000_000
MAX_ENLARGEMENT = 16  # enlarged to the network's size, a 1 x 1 image would be judged, and be OK
ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")


def read_image(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> Pixels:
    """Reads one image file (PNG, JPEG, TIFF or BMP; 8 or 16 bit; mono or RGB).

    Returns:
        `HxW` or `HxWx3` RGB, uint8 or uint16.

    Raises:
        ImageUnreadable: not there, no image, cut short, or of a kind that has no single meaning as pixels (CMYK,
            floating point, used transparency, several pages, a TIFF that asks to be turned).
        ImageTooLarge: more than `max_pixels`; found in the header, before anything is decoded.
    """
    return decode_image(_read(path), name=str(path), max_pixels=max_pixels)


def decode_image(data: bytes | memoryview, *, name: str = "image", max_pixels: int = MAX_PIXELS) -> Pixels:
    """Decodes the bytes of one image file; see `read_image` for what it returns and raises. `name` goes into errors."""
    pixels, stored = _decode(data, name, max_pixels)
    return _as_mono_or_rgb(pixels, stored, name)


def read_mask(path: str | Path) -> NDArray[np.bool_]:
    """Reads a mask image: `HxW` bool, true where any channel is not zero. Transparency does not count.

    Raises:
        ImageUnreadable, ImageTooLarge: as `read_image`.
    """
    pixels, _ = _decode(_read(path), str(path), MAX_PIXELS)
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

    def region(self, height: float, width: float) -> tuple[float, float, float, float]:
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
    height, width = image.shape[:2]
    if spec.height > MAX_ENLARGEMENT * height or spec.width > MAX_ENLARGEMENT * width:
        raise InputMismatch(
            f"the image is {width} x {height}, and the model looks at {spec.width} x {spec.height}.",
            hint=f"An image may be enlarged {MAX_ENLARGEMENT} times at most; this one is a thumbnail or a fragment.",
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


def _read(path: str | Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ImageUnreadable(f"cannot be read: {error.strerror or error}.", where=str(path)) from error


def _decode(data: bytes | memoryview, name: str, max_pixels: int) -> tuple[NDArray[np.generic], Stored]:
    if len(data) == 0:
        raise ImageUnreadable("the file is empty.", where=name)
    stored = read_header(data, name, max_pixels)
    undecodable = ImageUnreadable(
        "the pixels cannot be decoded: the file is damaged, cut short, or compressed in a way that is not read.",
        where=name,
        hint="Copy the file again, or save it as PNG.",
    )
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)  # as stored: depth and orientation
        if stored.compressed_tiff and stored.mode not in ("I;16", "I;16B"):
            # OpenCV goes on after a damaged strip of 8 bit and leaves it black; Pillow stops.
            stored.image.load()
    except (cv2.error, *DAMAGED) as error:
        raise undecodable from error
    if pixels is None:
        raise undecodable
    return pixels, stored


def _as_mono_or_rgb(pixels: NDArray[np.generic], stored: Stored, name: str) -> Pixels:
    if pixels.dtype not in (np.uint8, np.uint16):
        raise ImageUnreadable(
            f"pixels of type {pixels.dtype} have no stated range.", where=name, hint="Save as 8-bit or 16-bit integers."
        )
    alpha = pixels[..., 3] if pixels.ndim == 3 and pixels.shape[2] == 4 else None
    if stored.transparent_level or (alpha is not None and int(alpha.min()) != np.iinfo(pixels.dtype).max):  # type: ignore[type-var]
        raise ImageUnreadable(
            "the image has transparent pixels, and a camera sees none.",
            where=name,
            hint="Save it without an alpha channel.",
        )
    if pixels.ndim == 3 and (stored.grey_palette or stored.mode == "LA"):
        pixels = pixels[..., 0]  # OpenCV makes three equal channels of what was stored as mono
    if pixels.ndim == 3:
        pixels = cv2.cvtColor(np.ascontiguousarray(pixels[..., :3]), cv2.COLOR_BGR2RGB)
    return np.ascontiguousarray(pixels)
