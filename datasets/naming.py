"""The words that folders, files and manifests use for good, bad, splits and masks."""

from __future__ import annotations

import re

from datasets.sample import Split

GOOD = frozenset((
        "good", "ok", "okay", "io", "normal", "pass", "passed", "clean", "healthy", "nodefect", "nodefects",
    "defectfree", "nondefective", "nondefect", "faultless", "flawless"
))  # fmt: skip
# These say that a part is bad, and not in which way: such a sample has a label and no kind.
BAD = frozenset((
        "bad", "ng", "nok", "ko", "nio", "defect", "defects", "defective", "anomaly", "anomalies", "anomalous",
    "abnormal", "fail", "failed", "faulty", "reject", "rejected", "scrap", "broken"
))  # fmt: skip
SPLIT: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "calibration": "calibration",
    "calib": "calibration",
    "val": "calibration",
    "valid": "calibration",
    "validation": "calibration",
    "dev": "calibration",
    "test": "test",
    "testing": "test",
}
IMAGE_FOLDERS = frozenset((
    "images", "image", "imgs", "img", "jpegimages", "jpg", "png"
))  # fmt: skip
MASK_FOLDERS = frozenset((
        "groundtruth", "gt", "mask", "masks", "segmentation", "segmentations", "label", "labels", "annotation",
    "annotations"
))  # fmt: skip
MASK_ENDINGS = ("_mask", "-mask", "_label", "_gt", "_groundtruth")


def plain(name: str) -> str:
    """A name without case, spaces and punctuation: `No-Defects` and `no_defects` are one word."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def is_good(name: str) -> bool:
    """Whether the name says that nothing is wrong."""
    return plain(name) in GOOD


def is_bad(name: str) -> bool:
    """Whether the name says that something is wrong, and not what."""
    return plain(name) in BAD


def split_of(name: str) -> Split | None:
    """The split that a name means: val, valid, validation and dev are calibration."""
    return SPLIT.get(plain(name))


def split_in(name: str) -> Split | None:
    """The split that is a word in a file's name, as in `instances_train2017`; None where there is none or two."""
    found = {SPLIT[word] for word in re.findall(r"[a-z]+", name.lower()) if word in SPLIT}
    return found.pop() if len(found) == 1 else None


def without_mask_ending(stem: str) -> str | None:
    """`part7_mask` -> `part7`; None where the name is no mask's."""
    for ending in MASK_ENDINGS:
        if stem.lower().endswith(ending) and len(stem) > len(ending):
            return stem[: -len(ending)]
    return None
