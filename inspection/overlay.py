"""Images for people: what was judged, where, and how."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin

from inspection.pixels import Pixels, resize
from inspection.results import Inspection, ScoreMap, Verdict

Rgb = NDArray[np.uint8]

# Readable for people who do not tell red from green, and always with the word beside it (Okabe and Ito's palette).
COLOURS = {
    Verdict.OK: (0, 158, 115),
    Verdict.NG: (213, 94, 0),
    Verdict.REVIEW: (230, 159, 0),
    Verdict.ERROR: (120, 60, 140),
}
BOX = (86, 180, 233)
HEAT = 0.55  # opacity of the heat map where a defect is
MAP_TOP = np.iinfo(np.uint16).max


def to_rgb(image: Pixels, white: int | None = None) -> Rgb:
    """The image as `HxWx3` uint8 RGB for a screen.

    Args:
        image: `HxW`, `HxWx1` or `HxWx3`, uint8 or uint16.
        white: the highest value of its bit depth; None: 10, 12 or 16 bit, whichever the brightest pixel needs. A guess
            that is good enough to look at, and made nowhere else.
    """
    if image.dtype == np.uint16:
        if white is None:
            brightest = int(image.max())
            white = next(top for top in (1023, 4095, 65535) if brightest <= top)
        image = np.asarray(cv2.convertScaleAbs(image, alpha=255 / white), dtype=np.uint8)
    if image.ndim == 3 and image.shape[2] == 3:
        return np.array(image, dtype=np.uint8)
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_GRAY2RGB), dtype=np.uint8)


def draw(image: Pixels, inspection: Inspection, pixel_above: float | None = None, *, white: int | None = None) -> Rgb:
    """The image with its heat map, the boxes of its defects and the verdict on a banner.

    Args:
        image: as judged: `HxW` or `HxWx3` RGB, uint8 or uint16.
        inspection: its judgement.
        pixel_above: the map value from which on a cell belongs to a defect. With it the heat shows how near a place is
            to being a defect, alike in all images; without it, only where this image is at its worst.
        white: as in `to_rgb`.

    Returns:
        uint8 RGB of the image's own height and width.
    """
    canvas = to_rgb(image, white)
    if inspection.map is not None:
        canvas = _heat(canvas, inspection.map, pixel_above)
    line = max(1, round(min(canvas.shape[:2]) / 160))
    for defect in inspection.defects:
        x, y, w, h = defect.box
        cv2.rectangle(canvas, (x, y), (x + w - 1, y + h - 1), BOX, line)
    colour = COLOURS[inspection.verdict]
    cv2.rectangle(canvas, (0, 0), (canvas.shape[1] - 1, canvas.shape[0] - 1), colour, 2 * line)
    return _banner(canvas, inspection, colour)


def contact_sheet(tiles: Sequence[tuple[str, Rgb]], columns: int, cell: int) -> Rgb:
    """Images in rows with a caption under each.

    Args:
        tiles: (caption, uint8 RGB image of any size).
        columns: images in a row.
        cell: width and height of the square, in pixels, that each image is fitted into.

    Returns:
        uint8 RGB.
    """
    gap, caption_height = max(4, cell // 32), max(16, cell // 10)
    columns = max(1, min(columns, len(tiles)))
    rows = -(-len(tiles) // columns)
    step_x, step_y = cell + gap, cell + caption_height + gap
    sheet = Image.new("RGB", (gap + columns * step_x, gap + max(1, rows) * step_y), (255, 255, 255))
    pen = ImageDraw.Draw(sheet)
    font = _font(max(9, round(caption_height * 0.62)))
    for index, (caption, rgb) in enumerate(tiles):
        left, top = gap + index % columns * step_x, gap + index // columns * step_y
        factor = cell / max(rgb.shape[:2])
        width, height = max(1, round(rgb.shape[1] * factor)), max(1, round(rgb.shape[0] * factor))
        picture = Image.fromarray(np.asarray(resize(rgb, width, height), dtype=np.uint8))
        sheet.paste(picture, (left + (cell - width) // 2, top + (cell - height) // 2))
        pen.text((left, top + cell + 1), _shortened(caption, font, cell), fill=(20, 20, 20), font=font)
    return np.asarray(sheet, dtype=np.uint8)


def map_png(inspection: Inspection) -> bytes:
    """The map in original pixels as a 16-bit mono PNG.

    The text chunks `low` and `high` of the PNG hold the raw scores of pixel values 0 and 65535; between them the scale
    is linear: score = low + pixel / 65535 * (high - low).

    Raises:
        ValueError: the inspection has no map.
    """
    if inspection.map is None:
        raise ValueError(f"{inspection.name} has no map: its network gives none, or it could not be judged.")
    full = inspection.map.full()
    low, high = map_scale(inspection.map)
    span = high - low or 1.0
    values = np.clip(np.rint((full - low) * (MAP_TOP / span)), 0, MAP_TOP).astype(np.uint16)
    notes = PngImagePlugin.PngInfo()
    notes.add_text("low", repr(low))
    notes.add_text("high", repr(high))
    file = io.BytesIO()
    Image.fromarray(values).save(file, "PNG", pnginfo=notes, compress_level=1)
    return file.getvalue()


def map_scale(scores: ScoreMap) -> tuple[float, float]:
    """The raw scores of the lowest and the highest pixel value in `map_png`."""
    return float(scores.values.min()), float(scores.values.max())


def _heat(canvas: Rgb, scores: ScoreMap, pixel_above: float | None) -> Rgb:
    low, high = map_scale(scores)
    top = high if pixel_above is None or pixel_above <= low else pixel_above
    if top <= low:
        return canvas
    if (
        pixel_above is not None
    ):  # only what is nearer to a defect than to the image's best place: a good part stays clear
        low = (low + top) / 2
    level = np.clip((scores.full() - low) / (top - low), 0, 1)
    # Weak values stay clear, so that the part can be seen; a place at the threshold has the full colour.
    opacity = cv2.merge([HEAT * level**2] * 3)
    # From yellow to red: both show on dark parts and on shiny ones.
    colours = cv2.applyColorMap(np.rint((1 - level) * 255).astype(np.uint8), cv2.COLORMAP_AUTUMN)[..., ::-1]
    return (
        np.asarray(canvas + opacity * (colours.astype(np.float32) - canvas), dtype=np.float32).round().astype(np.uint8)
    )


def _banner(canvas: Rgb, inspection: Inspection, colour: tuple[int, int, int]) -> Rgb:
    size = max(9, min(canvas.shape[0] // 12, 64))
    font = _font(size)
    words = [inspection.verdict.value]
    if np.isfinite(inspection.score):
        words.append(f"{inspection.score:.3g}")
    if inspection.kind is not None and inspection.verdict is not Verdict.OK:
        words.append(inspection.kind)
    pad = max(2, size // 4)
    while len(words) > 1 and font.getlength("  ".join(words)) + 2 * pad > canvas.shape[1]:
        words.pop()
    text = "  ".join(words)
    picture = Image.fromarray(canvas)
    pen = ImageDraw.Draw(picture)
    right, bottom = pen.textbbox((pad, pad), text, font=font)[2:]
    pen.rectangle((0, 0, right + pad, bottom + pad), fill=colour)
    pen.text((pad, pad), text, fill=(255, 255, 255), font=font)
    return np.asarray(picture, dtype=np.uint8)


@lru_cache(maxsize=16)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _shortened(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """`text`, with its middle left out where it is longer than `width`: both ends of a file name tell files apart."""
    if font.getlength(text) <= width:
        return text
    for keep in range(len(text) - 1, 1, -1):
        short = f"{text[: keep // 2]}..{text[-(keep - keep // 2) :]}"
        if font.getlength(short) <= width:
            return short
    return text[:1]
