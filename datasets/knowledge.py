"""What follows from what an annotation says; every reader ends here, so that a fact means the same in each layout."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from datasets.naming import is_good
from datasets.sample import Box, Label, Sample
from inspection.errors import DataInvalid, ImageUnreadable
from inspection.header import image_header
from inspection.pixels import read_mask


def settled(sample: Sample, where: str) -> Sample:
    """Fills in what follows from the rest, and refuses what contradicts itself.

    A kind, a box or a mask that is not empty makes a defect; empty boxes or an empty mask make a good image; a
    probability from 0.5 on makes a defect. `where` (file, line) is named in errors.

    Raises:
        DataInvalid: good and defect at once, or a probability outside 0..1.
    """
    if sample.probability is not None and not 0 <= sample.probability <= 1:
        raise DataInvalid(f"the probability {sample.probability} is not within 0 to 1.", where=where)
    kind = sample.kind or (_widest(sample.boxes) if sample.boxes else None)
    label = sample.label
    if label == "good" and (kind or sample.boxes):
        raise DataInvalid(
            "it is called good, and has a kind of defect or a box.", where=where, hint="Correct one of the two."
        )
    if label is None:
        label = "defect" if kind or sample.boxes else _follows(sample)
    mask = sample.mask
    if label == "good" and sample.label is None:
        mask = None  # it was read and is empty: it says no more than the label
    return replace(sample, label=label, kind=kind, mask=mask)


def _follows(sample: Sample) -> Label | None:
    if sample.probability is not None:
        return "defect" if sample.probability >= 0.5 else "good"
    if sample.boxes is not None:
        return "good"
    if sample.mask is not None:
        try:
            return "defect" if read_mask(sample.mask).any() else "good"
        except ImageUnreadable:
            return None  # `inspection data check` names it; a guess here would train on it
    return None


def _widest(boxes: Iterable[Box]) -> str:
    areas: defaultdict[str, float] = defaultdict(float)
    for box in boxes:
        areas[box.kind] += box.width * box.height
    return max(sorted(areas), key=areas.__getitem__)


def defects(boxes: Iterable[Box]) -> tuple[Box, ...]:
    """The boxes that mark a defect: some tools also draw boxes called `good`."""
    return tuple(box for box in boxes if not is_good(box.kind))


def around(kind: str, outline: tuple[tuple[float, ...], ...]) -> Box:
    """The box around an outline."""
    xs = [value for polygon in outline for value in polygon[0::2]]
    ys = [value for polygon in outline for value in polygon[1::2]]
    x, y = min(xs), min(ys)
    return Box(kind=kind, x=x, y=y, width=max(xs) - x, height=max(ys) - y, outline=outline)


def image_size(path: Path) -> tuple[int, int] | None:
    """Width and height from the header; None where there is no readable image."""
    try:
        header = image_header(path)
    except ImageUnreadable:
        return None
    return header.width, header.height
