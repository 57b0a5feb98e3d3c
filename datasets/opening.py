"""From a path to a dataset: finds the layout by looking, and says what it looked for when it finds none."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from datasets.sample import Dataset, Sample
from inspection.errors import ConfigInvalid, DataInvalid

if TYPE_CHECKING:
    from datasets.folder import Folder


@dataclass(frozen=True)
class Layout:
    """One way in which folders of images are laid out, and where its reader is."""

    name: str
    module: str  # has `fits_<name>(Folder) -> bool` and `read_<name>(Folder) -> list[Sample]`
    looks_like: str

    def fits(self, folder: Folder) -> bool:
        """Whether the folder has this layout."""
        look: Callable[[Folder], bool] = getattr(importlib.import_module(self.module), f"fits_{self.name}")
        return look(folder)

    def read(self, folder: Folder) -> list[Sample]:
        """The samples of a folder of this layout."""
        read: Callable[[Folder], list[Sample]] = getattr(importlib.import_module(self.module), f"read_{self.name}")
        return read(folder)


# Annotation files say what they are; only where there are none do the names of folders decide.
ANNOTATED = (
    Layout("coco", "datasets.coco", "COCO: a .json with `images` and `annotations`"),
    Layout("yolo", "datasets.yolo", "YOLO: data.yaml beside images/ and labels/"),
    Layout("voc", "datasets.voc", "Pascal VOC: .xml files with <annotation>"),
)
BY_NAMES = (
    Layout("mvtec", "datasets.classfolders", "MVTec AD: train/good, test/good, test/<kind>, ground_truth/<kind>"),
    Layout("folders", "datasets.classfolders", "a folder per class, one of them called good, ok or normal"),
    Layout("pairs", "datasets.classfolders", "image and mask pairs: x.jpg + x_mask.png, or images/ + masks/"),
)
MANIFEST = Layout("manifest", "datasets.manifest", "a manifest: manifest.csv or manifest.parquet, with a column `path`")
LAYOUTS = (MANIFEST, *ANNOTATED, *BY_NAMES)


def open_dataset(path: str | Path, layout: str | None = None) -> Dataset:
    """Reads what is known of the images at `path`; no image is decoded, except masks that alone say good or bad.

    Args:
        path: a folder; a manifest (`.csv`, `.parquet`) or a COCO `.json`; or `elpv` for the package elpv-dataset.
        layout: the name of the layout (see `LAYOUTS`), where looking is not enough.

    Raises:
        DataInvalid: nothing there, no layout fits or several do, or an annotation is wrong (names file and line).
        ConfigInvalid: there is no such layout.
        MissingExtra: `elpv` is asked for and elpv-dataset is not installed.
    """
    if str(path) == "elpv" and layout in (None, "elpv"):
        from datasets import elpv

        root, samples = elpv.read()
        return _dataset("elpv", root, "elpv", samples)
    chosen = _by_name(layout) if layout else None
    root = Path(os.path.abspath(path))
    if not root.exists():
        raise DataInvalid("there is no such file or folder.", where=str(path))
    if root.is_file():
        return _open_file(root, chosen)

    from datasets.folder import scan

    folder = scan(root)
    if not folder.images and not MANIFEST.fits(folder):
        raise DataInvalid(
            "there are no images (PNG, JPEG, TIFF, BMP) here.", where=str(path), hint="Give the folder that holds them."
        )
    chosen = chosen or _look(folder)
    return _dataset(root.name, root, chosen.name, chosen.read(folder))


def _open_file(file: Path, chosen: Layout | None) -> Dataset:
    ending = file.suffix.lower()
    if ending in (".csv", ".tsv", ".parquet") and chosen in (None, MANIFEST):
        from datasets import manifest

        name = file.parent.name if file.stem == "manifest" else file.stem
        return _dataset(name, file.parent, "manifest", manifest.read(file))
    if ending == ".json" and (chosen is None or chosen.name == "coco"):
        from datasets import coco
        from datasets.folder import scan

        folder = scan(file.parent)
        return _dataset(file.parent.name, file.parent, "coco", coco.read_file(folder, folder.index[file.name]))
    raise DataInvalid(
        "this file is neither a manifest (.csv, .parquet) nor COCO (.json).",
        where=str(file),
        hint="Give the folder that holds the images.",
    )


def _by_name(name: str) -> Layout:
    for layout in LAYOUTS:
        if layout.name == name:
            return layout
    raise ConfigInvalid(
        f"there is no layout `{name}`.", hint=f"Known: {', '.join(layout.name for layout in LAYOUTS)}, elpv."
    )


def _look(folder: Folder) -> Layout:
    if MANIFEST.fits(folder):
        return MANIFEST
    found = [layout for layout in ANNOTATED if layout.fits(folder)]
    if len(found) > 1:
        raise DataInvalid(
            f"{' and '.join(layout.name for layout in found)} both fit this folder.",
            where=str(folder.root),
            hint="Say which is meant with --layout, or give a folder that holds one of them.",
        )
    if found:
        return found[0]
    for layout in BY_NAMES:
        if layout.fits(folder):
            return layout
    raise _unknown(folder)


def _unknown(folder: Folder) -> DataInvalid:
    places = sorted({str(image.parent) for image in folder.images})
    shown = ", ".join(places[:4]) + (f" and {len(places) - 4} more" if len(places) > 4 else "")
    looked = "; ".join(layout.looks_like for layout in LAYOUTS)
    if places == ["."]:
        hint = "If these images are all good, put them into a folder `good`; else say what they are in a manifest."
    else:
        hint = (
            "If each folder is a kind of defect, say --layout folders; if each is a lot of good images, say --layout "
            "pairs; else say what they are in a manifest (docs/data.md)."
        )
    return DataInvalid(
        f"no known layout: {len(folder.images)} images in {shown}. Looked for: {looked}.",
        where=str(folder.root),
        hint=hint,
    )


def _dataset(name: str, root: Path, layout: str, samples: list[Sample]) -> Dataset:
    samples = sorted(samples, key=lambda sample: str(sample.path))
    if not samples:
        raise DataInvalid(f"the {layout} layout fits, and there is no image in it.", where=str(root))
    if not any(sample.path.exists() for sample in samples):
        raise DataInvalid(
            f"none of the {len(samples)} images is there.",
            where=str(samples[0].path),
            hint="Image paths count from the folder of the file that names them.",
        )
    for first, second in pairwise(samples):
        if first.path == second.path:
            raise DataInvalid("this image is listed twice.", where=str(first.path))
    return Dataset(name=name, root=root, layout=layout, samples=tuple(samples))
