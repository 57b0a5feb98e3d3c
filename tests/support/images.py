"""Generated images and folders of images, in every layout, for the tests of all rooms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def surface(seed: int, height: int = 48, width: int = 64, *, channels: int = 1, dtype: type = np.uint8) -> Array:
    """A part's surface: a smooth grain that differs from seed to seed, `HxW` or `HxWx3` RGB, mid-grey."""
    rng = np.random.default_rng(seed)
    shape = (height, width) if channels == 1 else (height, width, channels)
    grain = cv2.GaussianBlur(rng.standard_normal(shape).astype(np.float32), (0, 0), 2)
    share = np.clip(0.5 + 0.6 * grain, 0.05, 0.8)
    return np.asarray(np.rint(share * np.iinfo(dtype).max), dtype=dtype)


def scratched(seed: int, height: int = 48, width: int = 64, **kind: Any) -> tuple[Array, NDArray[np.bool_]]:
    """A surface with one bright scratch, and where it is."""
    image = surface(seed, height, width, **kind)
    rng = np.random.default_rng(seed + 10_000)
    x, y = int(rng.integers(4, width // 2)), int(rng.integers(4, height - 8))
    mask = np.zeros((height, width), dtype=np.uint8)
    cv2.line(mask, (x, y), (x + width // 3, y + 3), 1, 2)
    image[mask != 0] = np.iinfo(image.dtype).max
    return image, mask.astype(np.bool_)


def save(path: Path, image: Array) -> Path:
    """Writes an image (RGB or mono) or a bool mask; the ending chooses the format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if image.dtype == np.bool_:
        image = image.astype(np.uint8) * 255
    stored = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image
    assert cv2.imwrite(str(path), stored)
    return path


def class_folders(
    root: Path, *, good: int = 6, bad: int = 4, kinds: tuple[str, ...] = ("scratch",), **kind: Any
) -> Path:
    """A folder per class: good/ and one for each kind, `bad` images each."""
    for index in range(good):
        save(root / "good" / f"{index:03}.png", surface(index, **kind))
    for number, name in enumerate(kinds):
        for index in range(bad):
            save(root / name / f"{index:03}.png", scratched(1000 * (number + 1) + index, **kind)[0])
    return root


def mvtec(root: Path, *, train: int = 6, good: int = 3, bad: int = 3, **kind: Any) -> Path:
    """MVTec AD: train/good, test/good, test/scratch, ground_truth/scratch."""
    for index in range(train):
        save(root / "train" / "good" / f"{index:03}.png", surface(index, **kind))
    for index in range(good):
        save(root / "test" / "good" / f"{index:03}.png", surface(500 + index, **kind))
    for index in range(bad):
        image, mask = scratched(1000 + index, **kind)
        save(root / "test" / "scratch" / f"{index:03}.png", image)
        save(root / "ground_truth" / "scratch" / f"{index:03}_mask.png", mask)
    return root


def pairs(root: Path, *, lots: int = 5, parts: int = 4, **kind: Any) -> Path:
    """As KolektorSDD: lotN/PartK.png; Part0 has a scratch and a mask, Part1 an empty mask."""
    for lot in range(lots):
        for part in range(parts):
            seed = 100 * lot + part
            image, mask = scratched(seed, **kind) if part == 0 else (surface(seed, **kind), None)
            folder = root / f"lot{lot}"
            save(folder / f"Part{part}.png", image)
            if mask is not None:
                save(folder / "Part0_mask.png", mask)
            elif part == 1:
                save(folder / "Part1_mask.png", np.zeros(image.shape[:2], dtype=np.bool_))
    return root
