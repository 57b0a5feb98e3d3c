"""From samples to what a network is fed: prepared pixels and the mask in the same place."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from datasets.sample import Box, Dataset, Sample
from inspection.errors import DataInvalid, ImageUnreadable, InputMismatch
from inspection.header import image_header
from inspection.modelfile import InputSpec, Resize
from inspection.pixels import Pixels, Placement, prepare, read_image, read_mask
from inspection.progress import track

Mask = NDArray[np.bool_]

FITTING_PIXELS = 160_000  # 400 x 400: what two cores train on in minutes
LEAST_PIXELS = 65_536
STEP = 32  # sides are multiples of the coarsest stride of the backbones
ASPECTS_DIFFER = 1.05


@dataclass(frozen=True, kw_only=True, slots=True)
class Loaded:
    """One sample as a network is fed with it. The arrays are read-only, because they may lie in the cache.

    Attributes:
        pixels: `spec.height x spec.width x spec.channels`, `spec.dtype`.
        mask: `spec.height x spec.width`, true where a defect is, all false for a good image; None: not known.
        coarse: the mask is made of boxes: it holds the defects, and good surface around them.
        placement: where the original image lies in `pixels`.
    """

    sample: Sample
    pixels: Pixels
    mask: Mask | None
    coarse: bool
    placement: Placement


class Loader:
    """Loads samples for one input, and keeps what it prepared in memory.

    Args:
        spec: what the network takes.
        budget: bytes that the kept pixels and masks may take. What comes after the budget is used up is prepared anew
            each time: an epoch asks for every image once, so throwing out old ones for new ones would never hit.

    Safe to use from several threads.
    """

    def __init__(self, spec: InputSpec, *, budget: int = 1 << 30) -> None:
        self.spec = spec
        self.budget = budget
        self.used = 0
        self._kept: dict[Sample, Loaded] = {}
        self._nothing: Mask = np.zeros((spec.height, spec.width), dtype=np.bool_)
        self._nothing.setflags(write=False)
        self._lock = threading.Lock()

    def load(self, sample: Sample) -> Loaded:
        """Reads one sample.

        Raises:
            ImageUnreadable, ImageTooLarge: the image or its mask.
            InputMismatch: channels or bit depth are not `spec`'s.
            DataInvalid: the mask has another size than the image.
        """
        kept = self._kept.get(sample)
        if kept is not None:
            return kept
        loaded = self._read(sample)
        own_mask = loaded.mask is not None and loaded.mask is not self._nothing
        size = loaded.pixels.nbytes + (self._nothing.nbytes if own_mask else 0)
        with self._lock:
            if sample not in self._kept and self.used + size <= self.budget:
                self._kept[sample] = loaded
                self.used += size
        return loaded

    def _read(self, sample: Sample) -> Loaded:
        try:
            pixels, placement = prepare(read_image(sample.path), self.spec)
        except InputMismatch as error:
            raise InputMismatch(error.what, where=str(sample.path), hint=error.hint) from error
        pixels.setflags(write=False)
        coarse = sample.mask is None and is_coarse(sample)
        return Loaded(
            sample=sample, pixels=pixels, mask=self._mask(sample, placement), coarse=coarse, placement=placement
        )

    def _mask(self, sample: Sample, placement: Placement) -> Mask | None:
        mask = defect_mask(sample, placement.size)
        if mask is None:
            return None
        if not mask.any():
            return self._nothing  # one for all good images: they are most, and would take half of the budget
        placed = place_mask(mask, placement, self.spec)
        placed.setflags(write=False)
        return placed


def is_coarse(sample: Sample) -> bool:
    """Whether the boxes only surround the defects."""
    return any(not box.outline for box in sample.boxes or ())


def defect_mask(sample: Sample, size: tuple[int, int]) -> Mask | None:
    """Where the defects are in the original image of `size` (width, height): from the mask, else from the boxes.

    Raises:
        DataInvalid: the mask has another size. ImageUnreadable, ImageTooLarge: the mask.
    """
    width, height = size
    if sample.mask is not None:
        mask = read_mask(sample.mask)
        if mask.shape != (height, width):
            raise DataInvalid(
                f"the mask is {mask.shape[1]} x {mask.shape[0]}, and its image {width} x {height}.",
                where=str(sample.mask),
                hint="Draw the mask on the image as it is stored.",
            )
        return mask
    if sample.boxes is None:
        return np.zeros((height, width), dtype=np.bool_) if sample.label == "good" else None
    drawn = np.zeros((height, width), dtype=np.uint8)
    for box in sample.boxes:
        if box.outline:
            # Outlines count from pixel corners and OpenCV from pixel centres; 4 binary digits of a pixel are kept.
            polygons = [np.round((np.array(p).reshape(-1, 2) - 0.5) * 16).astype(np.int32) for p in box.outline]
            one = np.zeros_like(drawn)
            cv2.fillPoly(one, polygons, 1, shift=4)  # even-odd, so that a polygon within another one is a hole
            drawn |= one
        else:
            left, top, right, bottom = corners(box)
            drawn[max(0, top) : max(0, bottom), max(0, left) : max(0, right)] = 1
    return drawn.astype(np.bool_)


def corners(box: Box) -> tuple[int, int, int, int]:
    """left, top, right, bottom of the whole pixels that the box touches; at least one pixel."""
    left, top = int(np.floor(box.x)), int(np.floor(box.y))
    right, bottom = int(np.ceil(box.x + box.width)), int(np.ceil(box.y + box.height))
    return left, top, max(right, left + 1), max(bottom, top + 1)


def place_mask(mask: Mask, placement: Placement, spec: InputSpec) -> Mask:
    """Brings a mask of the original size to where `inspection.pixels.prepare` brought the pixels.

    An input pixel is true where any part of the defect falls into it: by majority, a thin scratch would vanish.
    """
    width, height = placement.size
    inner_w, inner_h = round(width * placement.scale_x), round(height * placement.scale_y)
    left, top = round(placement.offset_x), round(placement.offset_y)
    # Shrink by area and grow by repeating, each axis by itself: OpenCV's area mode interpolates where it grows.
    small = cv2.resize(
        mask.astype(np.float32), (min(width, inner_w), min(height, inner_h)), interpolation=cv2.INTER_AREA
    )
    inner = cv2.resize(small, (inner_w, inner_h), interpolation=cv2.INTER_NEAREST)
    canvas = np.zeros((spec.height, spec.width), dtype=np.bool_)
    canvas[top : top + inner_h, left : left + inner_w] = inner > 0
    return canvas


@dataclass(frozen=True, kw_only=True, slots=True)
class Survey:
    """What a data set's images have in common: what an `InputSpec` is chosen from."""

    channels: Literal[1, 3]
    bit_depth: Literal[8, 16]  # of the files; 10 and 12 bit lie in files of 16, and only the user knows
    sizes: Counter[tuple[int, int]]  # (width, height) -> images

    @property
    def median_size(self) -> tuple[int, int]:
        """Width and height, each the median over all images."""
        widths, heights = (np.repeat([s[axis] for s in self.sizes], list(self.sizes.values())) for axis in (0, 1))
        return round(float(np.median(widths))), round(float(np.median(heights)))

    @property
    def aspect(self) -> float:
        """Median of width / height."""
        return float(np.median(np.repeat([w / h for w, h in self.sizes], list(self.sizes.values()))))

    def fitting(self, most: int = FITTING_PIXELS) -> InputSpec:
        """The input that fits the images: their own size up to `most` pixels, their proportions, multiples of 32.

        Images of less than 256 x 256 pixels are enlarged to about that: their defects would vanish in the strides of a
        network. Letterbox where proportions differ so much that stretching would distort.
        """
        width, height = self.median_size
        target = min(max(width * height, LEAST_PIXELS), most)
        sides = ((target * self.aspect) ** 0.5, (target / self.aspect) ** 0.5)
        across, down = (max(2 * STEP, round(side / STEP) * STEP) for side in sides)
        aspects = [w / h for w, h in self.sizes]
        distort = max(aspects) / min(aspects) > ASPECTS_DIFFER
        return InputSpec(
            width=across,
            height=down,
            channels=self.channels,
            bit_depth=self.bit_depth,
            resize=Resize.LETTERBOX if distort else Resize.STRETCH,
        )


def survey(dataset: Dataset) -> Survey:
    """Reads all headers.

    Raises:
        DataInvalid: mono and RGB, or 8 and 16 bit, are mixed.
        ImageUnreadable: an image is not there or has no header.
    """
    headers = {s.path: image_header(s.path) for s in track(dataset, "reading headers", len(dataset))}
    sizes = Counter((header.width, header.height) for header in headers.values())
    by_channels = {count: [p for p, h in headers.items() if h.channels == count] for count in (1, 3)}
    if by_channels[1] and by_channels[3]:
        raise _mixed_channels(dataset, by_channels[1], by_channels[3])
    by_depth = {bits: [p for p, h in headers.items() if h.bit_depth == bits] for bits in (8, 16)}
    if by_depth[8] and by_depth[16]:
        raise DataInvalid(
            f"{len(by_depth[8])} images have 8 bit and {len(by_depth[16])} have 16 bit ({by_depth[16][0].name}).",
            where=str(dataset.root),
            hint="Train on one of the two: a camera at the line gives one bit depth.",
        )
    return Survey(channels=3 if by_channels[3] else 1, bit_depth=16 if by_depth[16] else 8, sizes=sizes)


def _mixed_channels(dataset: Dataset, mono: list[Path], colour: list[Path]) -> DataInvalid:
    looked = colour[:: max(1, len(colour) // 50)]
    if all(_is_grey(path) for path in looked):
        seen = "all RGB ones" if len(looked) == len(colour) else f"{len(looked)} of the RGB ones that were looked at"
        hint = f"In {seen} the three channels are equal: save these as mono."
    else:
        hint = "Train on one of the two: a camera at the line gives mono or RGB."
    return DataInvalid(
        f"{len(mono)} images are mono ({mono[0].name}) and {len(colour)} are RGB ({colour[0].name}).",
        where=str(dataset.root),
        hint=hint,
    )


def _is_grey(path: Path) -> bool:
    try:
        pixels = read_image(path)
    except ImageUnreadable:
        return False
    return pixels.ndim == 2 or bool((pixels == pixels[..., :1]).all())
