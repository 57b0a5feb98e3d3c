"""What is known of an image, and a set of such images."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from inspection.errors import DataInvalid
from inspection.modelfile import file_hash
from inspection.progress import track

Label = Literal["good", "defect"]
Split = Literal["train", "calibration", "test"]
SPLITS: tuple[Split, ...] = ("train", "calibration", "test")


@dataclass(frozen=True, kw_only=True, slots=True)
class Box:
    """A rectangle around one defect, in pixels of the original image; may be fractional.

    `outline`: the defect's exact border where it is known, as closed polygons `(x0, y0, x1, y1, ...)` in pixel corners
    (the first pixel covers 0..1). A polygon inside another one is a hole.
    """

    kind: str
    x: float
    y: float
    width: float
    height: float
    outline: tuple[tuple[float, ...], ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One image and all that is known of it; what is None is not known.

    Attributes:
        path: the image file.
        label: good or defect.
        kind: which kind of defect (only with label "defect"); with several in one image, the one that covers most.
        mask: an image of the same size, not zero where the defect is.
        boxes: the defects' boxes; an empty tuple says that someone looked and found none.
        probability: how sure the annotators were that it is defective, 0 to 1, where they said so.
        part: the physical thing. lot: what was made or photographed together. view: the camera position.
        stratum: what every split should hold its share of, besides label and kind (product, type of cell).
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
    stratum: str | None = None
    split: Split | None = None

    @property
    def group(self) -> str:
        """What must not straddle splits: the lot, else the part, else the image itself."""
        return self.lot or self.part or str(self.path)

    @property
    def localised(self) -> bool:
        """Whether it is known where in the image the defects are (of a good image: nowhere)."""
        return self.label == "good" or self.mask is not None or self.boxes is not None


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

    def counts(self) -> dict[str, dict[str, int]]:
        """Images by split ("unsplit" where there is none) and by what is known of them."""
        found: dict[str, dict[str, int]] = {}
        for sample in sorted(self.samples, key=lambda s: SPLITS.index(s.split) if s.split else len(SPLITS)):
            known: str = sample.label or "unlabelled"
            if sample.label == "defect":
                known += " with mask" if sample.mask else " with boxes" if sample.boxes else ""
            row = found.setdefault(sample.split or "unsplit", {})
            row[known] = row.get(known, 0) + 1
        return found

    def write(self, path: str | Path) -> None:
        """Writes the manifest form, CSV or Parquet by the ending of `path`; `open_dataset(path)` gives equal samples.

        Raises:
            OutputUnwritable: the folder cannot be written.
            ConfigInvalid: another ending.
        """
        from datasets import manifest

        manifest.write(self.samples, Path(path))

    def fingerprint(self) -> str:
        """SHA-256, as hex, of all images and all that is known of them; names, places, order and splits do not count.

        Raises:
            DataInvalid: an image or a mask cannot be read.
        """
        lines = sorted(_content(sample) for sample in track(self.samples, "fingerprint", len(self)))
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _content(sample: Sample) -> str:
    known = asdict(replace(sample, split=None))
    for key in ("path", "mask"):
        try:
            known[key] = file_hash(known[key]) if known[key] else None
        except OSError as error:
            raise DataInvalid(f"cannot be read: {error.strerror or error}.", where=str(known[key])) from error
    return json.dumps(known, sort_keys=True)
