"""Images for people: what is known of them drawn in, and the sheet of what a network will be fed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import cv2
import numpy as np

from datasets.augment import Augmentation, AugmentOptions
from datasets.load import Loader, Mask, corners, defect_mask
from datasets.sample import Dataset, Sample
from datasets.split import stratum
from inspection.modelfile import InputSpec
from inspection.overlay import Rgb, contact_sheet, to_rgb
from inspection.pixels import Placement, read_image
from inspection.progress import track

MASK, BOX = (230, 159, 0), (86, 180, 233)  # Okabe and Ito's palette, as in inspection.overlay


def drawn(sample: Sample) -> Rgb:
    """The original image in RGB with its defects outlined and boxed. Raises ImageUnreadable."""
    picture = to_rgb(read_image(sample.path))
    height, width = picture.shape[:2]
    outlined = sample.mask is not None or any(box.outline for box in sample.boxes or ())
    mask = defect_mask(sample, (width, height)) if outlined else None
    whole = Placement(scale_x=1, scale_y=1, offset_x=0, offset_y=0, size=(width, height))
    return _boxed(_outlined(picture, mask), sample, whole)


def sheet(
    dataset: Dataset,
    spec: InputSpec,
    options: AugmentOptions | None,
    *,
    images: int,
    versions: int,
    seed: int,
    cell: int = 192,
) -> Rgb:
    """What a network will be fed: a row for each image, as it is prepared and then in augmented versions.

    Args:
        dataset: good images and all kinds of defects take turns until there are `images`.
        spec: what the network takes.
        options: augmentation; None: none, and each image once.
        images: how many. versions: augmented ones of each. cell: pixels of one tile on the sheet.

    Returns:
        uint8 RGB. Masks are outlined, moved with the pixels; boxes are drawn on the prepared image.
    """
    loader = Loader(spec)
    augmentation = Augmentation(options, spec.white) if options else None
    tiles: list[tuple[str, Rgb]] = []
    chosen = choose(dataset.samples, images, seed)
    for number, sample in enumerate(track(chosen, "preview", len(chosen))):
        loaded = loader.load(sample)
        known = sample.kind or sample.label or "not known"
        plain = _outlined(to_rgb(loaded.pixels, spec.white), None if loaded.coarse else loaded.mask)
        caption = f"{known}: {sample.path.parent.name}/{sample.path.name}"
        tiles.append((caption, _boxed(plain, sample, loaded.placement)))
        for version in range(versions if augmentation else 0):
            assert augmentation is not None
            changed, mask = augmentation.apply(loaded.pixels, loaded.mask, seed + 1000 * number + version)
            tiles.append((f"augmented {version + 1}", _outlined(to_rgb(changed, spec.white), mask)))
    return contact_sheet(tiles, columns=1 + versions if augmentation else 6, cell=cell)


def choose(samples: Sequence[Sample], count: int, seed: int) -> list[Sample]:
    """`count` samples in which good ones and all kinds take turns, drawn by `seed`."""
    piles: defaultdict[tuple[str, ...], list[Sample]] = defaultdict(list)
    for position in np.random.default_rng(seed).permutation(len(samples)):
        piles[stratum(samples[position])].append(samples[position])
    order = [piles[key] for key in sorted(piles)]
    taken: list[Sample] = []
    while len(taken) < min(count, len(samples)):
        taken += [pile.pop() for pile in order if pile]
    return taken[:count]


def _outlined(picture: Rgb, mask: Mask | None) -> Rgb:
    """The outline lies around the defect and not on it, so that the defect itself stays to be seen."""
    if mask is None or not mask.any():
        return picture
    line = max(1, round(min(picture.shape[:2]) / 160))
    grown = cv2.dilate(mask.astype(np.uint8), np.ones((2 * line + 1, 2 * line + 1), np.uint8)) != 0
    picture = picture.copy()
    picture[grown & ~mask] = MASK
    return picture


def _boxed(picture: Rgb, sample: Sample, placement: Placement) -> Rgb:
    line = max(1, round(min(picture.shape[:2]) / 160))
    for box in sample.boxes or ():
        left, top, right, bottom = corners(box)
        x0, x1 = (round(value * placement.scale_x + placement.offset_x) for value in (left, right))
        y0, y1 = (round(value * placement.scale_y + placement.offset_y) for value in (top, bottom))
        cv2.rectangle(picture, (x0, y0), (max(x0, x1 - 1), max(y0, y1 - 1)), BOX, line)
    return picture
