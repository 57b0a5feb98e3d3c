"""What is wrong with a data set, before anything is trained on it."""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Any

from datasets.duplicates import NEAR, Hash, clusters, near_pairs, perceptual_hash, same
from datasets.sample import SPLITS, Dataset, Sample
from datasets.split import straddling
from inspection.errors import ImageUnreadable
from inspection.pixels import read_image, read_mask
from inspection.progress import track

FEW_GOOD, FEW_DEFECTS, FEW_OF_KIND = 20, 10, 5  # below: learning and thresholds rest on chance


class Severity(StrEnum):
    """How bad a finding is: an error would spoil training or its figures."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing that was found: which check found it, in which images."""

    code: str
    severity: Severity
    what: str
    paths: tuple[Path, ...] = ()


# What each check is called and what to do about its findings, in the order in which they are shown.
MENDS = {
    "unreadable": "Copy the file again, or leave it out.",
    "mask-unreadable": "Save the mask again, or leave it out.",
    "mask-size": "Draw the mask on the image as it is stored.",
    "mask-empty": "Draw the defect, or call the image good.",
    "mask-on-good": "Call the image a defect, or leave the mask out.",
    "box-outside": "Correct the box, or export the annotations again for these images.",
    "labels-differ": "The same image is called good and defect: keep one.",
    "straddles-splits": "Keep one, or give both the same lot or part and split again (inspection data split).",
    "straddles-groups": "Give both the same lot or part, so that a split cannot part them.",
    "duplicate": "Keep one: copies count as proof that is not there.",
    "near-duplicate": "Look at them: if they show the same part, give them the same part or lot.",
    "all-alike": "The hash cannot tell these parts apart. Lower --near, and group by part or lot yourself.",
    "group-straddles": "Split again by group: inspection data split.",
    "mixed-channels": "Save all as mono, or all as RGB, as the line's camera gives them.",
    "mixed-depth": "Use one bit depth, as the line's camera gives it.",
    "mixed-sizes": "Training resizes all to one size. If the scale differs too, record anew with one camera set-up.",
    "grey-as-rgb": "Save as mono: the network and the line compute a third.",
    "depth-unused": "State this bit depth in training, so that white is white.",
    "blank": "All pixels have one value: a camera without light, or a lost frame. Leave it out.",
    "few-good": "Add good images: thresholds come from them.",
    "few-defects": "Add defective images: the promise on escapes rests on their count.",
    "few-of-kind": "Add images of the kind, or merge it with another one.",
    "split-without": "Split again: inspection data split.",
    "unlabelled": "Label them, or leave them out: training does not use them.",
}


@dataclass(frozen=True, kw_only=True)
class Report:
    """What is in a data set, and all findings, worst first."""

    dataset: Dataset
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)  # width, height
    pixels: Counter[str] = field(default_factory=Counter)  # "mono uint8" -> images
    findings: tuple[Finding, ...] = ()

    def count(self, severity: Severity) -> int:
        """Findings of one severity."""
        return sum(finding.severity is severity for finding in self.findings)

    def by_code(self) -> dict[str, list[Finding]]:
        """Findings by check, worst first."""
        found: dict[str, list[Finding]] = {}
        for finding in self.findings:
            found.setdefault(finding.code, []).append(finding)
        return found

    def shown(self, path: Path) -> str:
        """A path as people read it: below the folder that all images share."""
        return os.path.relpath(path, self.base)

    @cached_property
    def base(self) -> str:
        """The folder that all images share."""
        return os.path.commonpath([str(sample.path.parent) for sample in self.dataset])

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "name": self.dataset.name,
            "layout": self.dataset.layout,
            "images": len(self.dataset),
            "counts": self.dataset.counts(),
            "kinds": dict(sorted(Counter(s.kind for s in self.dataset if s.kind).items())),
            "sizes": {f"{width}x{height}": count for (width, height), count in self.sizes.most_common()},
            "pixels": dict(self.pixels),
            "errors": self.count(Severity.ERROR),
            "warnings": self.count(Severity.WARNING),
            "findings": [
                {
                    "code": finding.code,
                    "severity": finding.severity.value,
                    "what": finding.what,
                    "mend": MENDS[finding.code],
                    "paths": [self.shown(path) for path in finding.paths],
                }
                for finding in self.findings
            ],
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class _Facts:
    """What decoding one image tells; `size` is None where it cannot be decoded."""

    size: tuple[int, int] | None = None
    channels: int = 0
    dtype: str = ""
    highest: int = 0
    grey: bool = False
    blank: bool = False
    digest: str | None = None
    hash: Hash | None = None
    findings: tuple[Finding, ...] = ()


def check(dataset: Dataset, *, near: int = NEAR) -> Report:
    """Decodes every image and mask, and looks at what there is.

    Args:
        dataset: as it was opened; splits are checked where there are some.
        near: images whose perceptual hashes differ in at most so many of 256 bits are near duplicates.
    """
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:  # decoding and hashing let other threads run
        facts = list(track(pool.map(_look, dataset.samples), "reading images", len(dataset)))
    findings = [finding for fact in facts for finding in fact.findings]
    for look in (_pixels, _counts, _groups):
        findings += look(dataset, facts)
    findings += _duplicates(dataset, facts, near)
    order, codes = list(Severity), list(MENDS)
    findings.sort(key=lambda finding: (order.index(finding.severity), codes.index(finding.code)))
    seen = [fact for fact in facts if fact.size]
    return Report(
        dataset=dataset,
        sizes=Counter(fact.size for fact in seen if fact.size),
        pixels=Counter(f"{'mono' if fact.channels == 1 else 'RGB'} {fact.dtype}" for fact in seen),
        findings=tuple(findings),
    )


def _error(code: str, what: str, *paths: Path) -> Finding:
    return Finding(code=code, severity=Severity.ERROR, what=what, paths=paths)


def _warning(code: str, what: str, *paths: Path) -> Finding:
    return Finding(code=code, severity=Severity.WARNING, what=what, paths=paths)


def _note(code: str, what: str, *paths: Path) -> Finding:
    return Finding(code=code, severity=Severity.NOTE, what=what, paths=paths)


def _look(sample: Sample) -> _Facts:
    try:
        image = read_image(sample.path)
    except ImageUnreadable as error:
        return _Facts(findings=(_error("unreadable", error.what, sample.path),))
    height, width = image.shape[:2]
    highest = int(image.max())
    blank = highest == int(image.min())
    findings = [*_mask(sample, (width, height)), *_boxes(sample, (width, height))]
    if blank:
        findings.append(_warning("blank", f"every pixel is {highest}.", sample.path))
    shape = f"{image.shape}{image.dtype}".encode()
    return _Facts(
        size=(width, height),
        channels=1 if image.ndim == 2 else 3,
        dtype=str(image.dtype),
        highest=highest,
        grey=image.ndim == 3 and bool((image == image[..., :1]).all()),
        blank=blank,
        # Of the pixels and not of the file: a copy that was saved again is a copy.
        digest=hashlib.sha256(shape + image.tobytes()).hexdigest(),
        hash=None if blank else perceptual_hash(image),
        findings=tuple(findings),
    )


def _mask(sample: Sample, size: tuple[int, int]) -> Iterator[Finding]:
    if sample.mask is None:
        return
    try:
        mask = read_mask(sample.mask)
    except ImageUnreadable as error:
        yield _error("mask-unreadable", error.what, sample.path, sample.mask)
        return
    height, width = mask.shape
    if (width, height) != size:
        what = f"the mask is {width} x {height}, the image {size[0]} x {size[1]}."
        yield _error("mask-size", what, sample.path, sample.mask)
    if sample.label == "defect" and not mask.any():
        yield _error("mask-empty", "a defect with an empty mask.", sample.path, sample.mask)
    if sample.label == "good" and mask.any():
        yield _error("mask-on-good", "a good image with a mask that is not empty.", sample.path, sample.mask)


def _boxes(sample: Sample, size: tuple[int, int]) -> Iterator[Finding]:
    width, height = size
    for box in sample.boxes or ():
        said = f"{box.kind} at {box.x:g}, {box.y:g}, {box.width:g} x {box.height:g} in {width} x {height}"
        inner_w = min(width, box.x + box.width) - max(0.0, box.x)
        inner_h = min(height, box.y + box.height) - max(0.0, box.y)
        if box.width <= 0 or box.height <= 0 or inner_w <= 0 or inner_h <= 0:
            yield _error("box-outside", f"the box holds no pixel of the image: {said}.", sample.path)
        elif box.width - inner_w > 1 or box.height - inner_h > 1:  # tools round by up to a pixel
            yield _warning("box-outside", f"the box reaches beyond the image: {said}.", sample.path)


def _pixels(dataset: Dataset, facts: list[_Facts]) -> Iterator[Finding]:
    seen = [(sample.path, fact) for sample, fact in zip(dataset, facts, strict=True) if fact.size]
    channels = _by(seen, lambda fact: fact.channels)
    if len(channels) > 1:
        few = min(channels.values(), key=len)
        yield _error("mixed-channels", f"{len(channels[1])} images are mono, {len(channels[3])} are RGB.", *few)
    depths = _by(seen, lambda fact: fact.dtype)
    if len(depths) > 1:
        few = min(depths.values(), key=len)
        said = ", ".join(f"{len(paths)} are {name}" for name, paths in sorted(depths.items()))
        yield _error("mixed-depth", f"of the images {said}.", *few)
    sizes = _by(seen, lambda fact: fact.size)
    if len(sizes) > 1:
        aspects = [width / height for width, height in sizes]
        usual = max(sizes, key=lambda size: len(sizes[size]))
        # Crops of about one shape are the rule; shapes that differ by a tenth come from different cameras.
        differ = max(aspects) > 1.1 * min(aspects)
        report = _warning if differ else _note
        others = [path for size, paths in sizes.items() if size != usual for path in paths]
        yield report(
            "mixed-sizes", f"{len(sizes)} sizes; {len(sizes[usual])} images are {usual[0]} x {usual[1]}.", *others
        )
    grey = [path for path, fact in seen if fact.grey]
    if grey:
        yield _note("grey-as-rgb", f"in {len(grey)} RGB images all three channels are equal.", *grey)
    deep = [fact.highest for _, fact in seen if fact.dtype == "uint16"]
    bits = max(deep, default=1 << 15).bit_length()
    if deep and bits <= 12:
        yield _note("depth-unused", f"no pixel is above {max(deep)}: {10 if bits <= 10 else 12} bit in files of 16.")


def _by(seen: Iterable[tuple[Path, _Facts]], key: Callable[[_Facts], Any]) -> dict[Any, list[Path]]:
    found: defaultdict[Any, list[Path]] = defaultdict(list)
    for path, fact in seen:
        found[key(fact)].append(path)
    return dict(found)


def _counts(dataset: Dataset, _: list[_Facts]) -> Iterator[Finding]:
    labels = Counter(sample.label for sample in dataset)
    if labels["good"] < FEW_GOOD and (labels["good"] or not dataset.kinds):
        yield _warning("few-good", f"{labels['good']} good images.")
    if labels["defect"] < FEW_DEFECTS:
        said = "no defective images: escapes stay unknown" if not labels["defect"] else f"{labels['defect']} defective"
        yield _warning("few-defects", f"{said}.")
    for kind, count in sorted(Counter(sample.kind for sample in dataset if sample.kind).items()):
        if count < FEW_OF_KIND:
            paths = [sample.path for sample in dataset if sample.kind == kind]
            yield _warning("few-of-kind", f"{count} of the kind `{kind}`.", *paths)
    unlabelled = [sample.path for sample in dataset if sample.label is None]
    if unlabelled:
        yield _warning("unlabelled", f"of {len(unlabelled)} images it is not known what they show.", *unlabelled)
    present = [split for split in SPLITS if any(sample.split == split for sample in dataset)]
    for split in present:
        inside = Counter(sample.label for sample in dataset.of(split))
        for label in ("good", "defect"):
            # A train split of good images alone is a way to train; a test split without one side measures nothing.
            if labels[label] and not inside[label] and not (split != "test" and label == "defect"):
                yield _warning("split-without", f"{split} has no {label} images.")


def _groups(dataset: Dataset, _: list[_Facts]) -> Iterator[Finding]:
    for group, splits in straddling(dataset).items():
        paths = [sample.path for sample in dataset if sample.group == group]
        yield _error("group-straddles", f"images of the group {group} are in {' and '.join(splits)}.", *paths)


def _duplicates(dataset: Dataset, facts: list[_Facts], near: int) -> list[Finding]:
    samples = dataset.samples
    findings: list[Finding] = []
    copies = same(None if fact.blank else fact.digest for fact in facts)
    for indices in copies:
        findings += _relation([samples[index] for index in indices], "duplicate", "the same pixels")
    # Of copies one stands for all.
    left_out = {index for indices in copies for index in indices[1:]}
    hashed = [(index, fact.hash) for index, fact in enumerate(facts) if fact.hash is not None and index not in left_out]
    pairs = near_pairs([value for _, value in hashed], near)
    found = clusters(pairs, len(hashed))
    alike = sum(map(len, found))
    if alike > 0.3 * len(hashed) and len(hashed) >= 10:
        findings.append(_note("all-alike", f"{alike} of {len(hashed)} images look nearly like another one."))
        return findings
    for cluster in found:
        findings += _relation([samples[hashed[member][0]] for member in cluster], "near-duplicate", "nearly the same")
    return findings


def _relation(members: list[Sample], code: str, said: str) -> Iterator[Finding]:
    """The worst that can be said of images that are copies of one another."""
    paths = [sample.path for sample in members]
    splits = [split for split in SPLITS if any(sample.split == split for sample in members)]
    groups = sorted({sample.lot or sample.part or "" for sample in members} - {""})
    if code == "duplicate" and len({sample.label for sample in members}) > 1:
        yield _error("labels-differ", f"{len(members)} images have {said}, and different labels.", *paths)
    if len(splits) > 1:
        report = _error if code == "duplicate" else _warning
        yield report("straddles-splits", f"{len(members)} images in {' and '.join(splits)} are {said}.", *paths)
    elif len(groups) > 1:
        yield _warning("straddles-groups", f"{len(members)} images of {', '.join(groups)} are {said}.", *paths)
    elif code == "duplicate" or not groups or any(not (sample.lot or sample.part) for sample in members):
        # Near copies of one part or lot are known to belong together, and stay so.
        yield _warning(code, f"{len(members)} images are {said}.", *paths)
