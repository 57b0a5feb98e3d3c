"""What is known of an image, and a set of such images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

Label = Literal["good", "defect"]
Split = Literal["train", "calibration", "test"]
SPLITS: tuple[Split, ...] = ("train", "calibration", "test")


@dataclass(frozen=True, kw_only=True, slots=True)
class Box:
    """A rectangle around one defect, in pixels of the original image; may be fractional."""

    kind: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One image and all that is known of it; what is None is not known.

    Attributes:
        path: the image file.
        label: good or defect.
        kind: which kind of defect (only with label "defect").
        mask: an image of the same size, not zero where the defect is.
        boxes: the defects' boxes; an empty tuple says that someone looked and found none.
        probability: how sure the annotators were that it is defective, 0 to 1, where they said so.
        part: the physical thing. lot: what was made or photographed together. view: the camera position.
        split: what it may be used for; None until split.
    """

    path: Path
    label: Label | None = None
    kind: str | None = None
    mask: Path | None = None
    boxes: tuple[Box, ...] | None = None
    probability: float | None = None
    part: str | None = None
    lot: str | None = None
    view: str | None = None
    split: Split | None = None

    @property
    def group(self) -> str:
        """What must not straddle splits: the lot, else the part, else the image itself."""
        return self.lot or self.part or str(self.path)


@dataclass(frozen=True, kw_only=True, slots=True)
class Dataset:
    """Samples in a stable order (by path), with the name of the folder or package that they came from."""

    name: str
    root: Path
    layout: str  # which reader: mvtec, folders, pairs, coco, yolo, voc, manifest, elpv
    samples: tuple[Sample, ...]

    def __len__(self) -> int:
        return len(self.samples)

    def __iter__(self) -> Iterator[Sample]:
        return iter(self.samples)

    @property
    def kinds(self) -> tuple[str, ...]:
        """All kinds of defects, sorted."""
        return tuple(sorted({sample.kind for sample in self.samples if sample.kind}))

    def of(self, split: Split) -> Dataset:
        """The samples of one split."""
        return self.with_samples(sample for sample in self.samples if sample.split == split)

    def with_samples(self, samples: Iterable[Sample]) -> Dataset:
        """The same dataset with other samples."""
        return replace(self, samples=tuple(samples))
