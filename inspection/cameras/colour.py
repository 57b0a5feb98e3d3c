"""From what a camera sends to pixels: the one place where mosaics, packed bits, YUV and BGR become mono or RGB.

Names are those of the GenICam Pixel Format Naming Convention (PFNC), and the older GigE Vision names (`Mono12Packed`,
`RGB8Packed`). Depth is kept: 10 and 12 bit arrive as uint16 with values 0..1023 and 0..4095, never stretched.
"""

from __future__ import annotations

import re
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from inspection.pixels import Pixels

# PFNC names a mosaic by its first row; OpenCV's classic names (COLOR_BayerBG2RGB) start at the second pixel of the
# second row, so its BG is PFNC's RG. The four-letter names say both rows and cannot be confused.
_MOSAICS = {
    "RG": cv2.COLOR_BayerRGGB2RGB,
    "GR": cv2.COLOR_BayerGRBG2RGB,
    "GB": cv2.COLOR_BayerGBRG2RGB,
    "BG": cv2.COLOR_BayerBGGR2RGB,
}
_PLAIN = re.compile(r"(?:Mono|Bayer(RG|GR|GB|BG))(8|10|12|14|16|10p|12p|10Packed|12Packed)")
_CHANNELS = {
    "RGB8": (3, None),
    "BGR8": (3, cv2.COLOR_BGR2RGB),
    "RGBa8": (4, cv2.COLOR_RGBA2RGB),
    "BGRa8": (4, cv2.COLOR_BGRA2RGB),
}
# Where Y, Cb and Cr of the first of two pixels stand; full range, ITU-R BT.601.
_YUV422 = {"YUV422_8": (0, 1, 3), "YUV422_8_UYVY": (1, 0, 2), "YCbCr422_8": (0, 1, 3), "YCbCr422_8_CbYCrY": (1, 0, 2)}
_OLD_NAMES = {
    "RGB8Packed": "RGB8",
    "BGR8Packed": "BGR8",
    "RGBA8Packed": "RGBa8",
    "BGRA8Packed": "BGRa8",
    "YUV422Packed": "YUV422_8_UYVY",
    "YUV422_YUYV_Packed": "YUV422_8",
}


class WrongSize(ValueError):
    """The bytes are not as many as an image of that size and format has."""


def pfnc(name: str) -> str:
    """The PFNC name of a pixel format that a camera calls by its older one."""
    return _OLD_NAMES.get(name, name)


def is_readable(pixel_format: str) -> bool:
    """Whether `to_pixels` knows the format."""
    name = pfnc(pixel_format)
    return name in _CHANNELS or name in _YUV422 or _PLAIN.fullmatch(name) is not None


def to_pixels(data: bytes, pixel_format: str, width: int, height: int, *, padding: int = 0) -> Pixels:
    """Reads the bytes of one frame.

    Args:
        data: the lines one after another; may be longer than the image.
        pixel_format: see `is_readable`.
        padding: bytes after each line that are no pixels.

    Returns:
        `HxW` of a Mono format, else `HxWx3` RGB; uint8, or uint16 for more than 8 bit. A view of `data` (read only)
        where nothing has to be changed, which costs nothing.

    Raises:
        WrongSize: `data` is too short. KeyError: a format that is not readable.
    """
    name = pfnc(pixel_format)
    if plain := _PLAIN.fullmatch(name):
        mosaic, layout = plain.groups()
        values = _values(data, layout, width, height, padding)
        # Bilinear, at the depth that came.
        return _pixels(cv2.cvtColor(values, _MOSAICS[mosaic])) if mosaic else values
    if name in _CHANNELS:
        channels, code = _CHANNELS[name]
        image = _lines(data, channels * width, height, padding).reshape(height, width, channels)
        return _pixels(image if code is None else cv2.cvtColor(image, code))
    y, cb, cr = _YUV422[name]
    pairs = _lines(data, 2 * width, height, padding).reshape(height, width // 2, 4)
    ycrcb = np.empty((height, width, 3), np.uint8)
    ycrcb[:, 0::2, 0], ycrcb[:, 1::2, 0] = pairs[:, :, y], pairs[:, :, y + 2]
    for channel, place in ((1, cr), (2, cb)):
        ycrcb[:, 0::2, channel] = ycrcb[:, 1::2, channel] = pairs[:, :, place]
    return _pixels(cv2.cvtColor(ycrcb, cv2.COLOR_YCrCb2RGB))


def from_bgr(image: Any, *, mono: bool) -> Pixels:
    """What OpenCV's captures hand out (BGR, or mono) as RGB, or as its luminance (ITU-R BT.601)."""
    if image.ndim == 2:
        return _pixels(image)
    return _pixels(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY if mono else cv2.COLOR_BGR2RGB))


def _values(data: bytes, layout: str, width: int, height: int, padding: int) -> Pixels:
    """One value for each pixel, `HxW`."""
    if layout == "8":
        return _lines(data, width, height, padding)
    if not layout.endswith(("p", "Packed")):
        return _lines(data, 2 * width, height, padding).view("<u2")
    if not padding:  # packed pixels run on across the ends of lines
        return _unpacked(np.frombuffer(data, np.uint8), layout, width * height).reshape(height, width)
    lines = _lines(data, -(-width * _bits(layout) // 8), height, padding)
    return np.stack([_unpacked(line, layout, width) for line in lines])


def _bits(layout: str) -> int:
    """What a packed pixel takes; GigE Vision's old 10-bit packing wastes two."""
    return 10 if layout == "10p" else 12


def _unpacked(packed: NDArray[np.uint8], layout: str, count: int) -> NDArray[np.uint16]:
    """`count` pixels from packed bytes, group by group: 4 pixels in 5 bytes (10p) or 2 in 3 (all others)."""
    bits = _bits(layout)
    needed = -(-count * bits // 8)
    if packed.size < needed:
        raise WrongSize(f"it holds {packed.size} bytes where {needed} belong.")
    group = 4 if layout == "10p" else 2
    size = group * bits // 8
    groups = -(-count // group)
    whole = packed if packed.size > groups * size else np.append(packed, np.zeros(size + 1, np.uint8))
    out = np.empty((groups, group), np.uint16)
    if layout.endswith("p"):
        # The first pixel in the lowest bits: pixel i of a group lies within the two bytes from i * bits // 8 on.
        for index in range(group):
            first, shift = divmod(index * bits, 8)
            pair = np.ndarray((groups,), "<u2", whole, first, (size,))
            np.bitwise_and(pair >> shift, (1 << bits) - 1, out=out[:, index])
    else:
        # GigE Vision's own: the high 8 bits of either pixel in the outer bytes, their low bits share the middle one.
        low = int(layout.removesuffix("Packed")) - 8
        triples = np.ndarray((groups, 3), np.uint8, whole)
        for index in range(group):
            high = triples[:, 2 * index].astype(np.uint16) << low
            np.bitwise_or(high, triples[:, 1] >> (4 * index) & ((1 << low) - 1), out=out[:, index])
    return out.reshape(-1)[:count]


def _lines(data: bytes, line: int, height: int, padding: int) -> NDArray[np.uint8]:
    """`height` lines of `line` bytes, without what pads them."""
    stride = line + padding
    needed = stride * height - padding
    if len(data) < needed:
        raise WrongSize(f"it holds {len(data)} bytes where {needed} belong.")
    if not padding:
        return np.frombuffer(data, np.uint8, needed).reshape(height, line)
    return np.ascontiguousarray(np.ndarray((height, line), np.uint8, data, 0, (stride, 1)))


def _pixels(image: Any) -> Pixels:
    return image  # type: ignore[no-any-return]  # cv2's stubs name neither element type nor shape
