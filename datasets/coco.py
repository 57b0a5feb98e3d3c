"""COCO JSON: boxes, polygons and run-length masks; one file, or one for each split."""

from __future__ import annotations

import json
from pathlib import PurePosixPath
from typing import Any

import cv2
import numpy as np

from datasets.folder import Folder, read_text
from datasets.knowledge import around, defects, settled
from datasets.naming import split_in, split_of
from datasets.sample import Box, Sample, Split
from inspection.errors import DataInvalid


def fits_coco(folder: Folder) -> bool:
    """Some .json holds the keys `images` and `annotations`."""
    return bool(_files(folder))


def read_coco(folder: Folder) -> list[Sample]:
    """All COCO files of the folder; a file or folder called train, val or test says the split."""
    return [sample for file in _files(folder) for sample in read_file(folder, file)]


def read_file(folder: Folder, file: PurePosixPath) -> list[Sample]:
    """The images of one COCO file. Images without annotations are good. Raises DataInvalid (names the annotation)."""
    where = str(folder.path(file))
    try:
        document = json.loads(read_text(folder.path(file)))
        categories = {entry["id"]: str(entry["name"]) for entry in document["categories"]}
        images = {entry["id"]: entry for entry in document["images"]}
        boxes: dict[Any, list[Box]] = {key: [] for key in images}
        annotations = document["annotations"]
    except json.JSONDecodeError as error:
        raise DataInvalid(f"this is no JSON: {error.msg}.", where=f"{where}:{error.lineno}") from error
    except (KeyError, TypeError) as error:
        raise DataInvalid(f"this is no COCO file: {error} is missing or of another form.", where=where) from error
    for index, entry in enumerate(annotations):
        here = f"{where}, annotation {entry.get('id', index)}"
        if entry.get("image_id") not in images:
            raise DataInvalid(f"it belongs to image {entry.get('image_id')}, which is not listed.", where=here)
        if entry.get("category_id") not in categories:
            raise DataInvalid(f"category {entry.get('category_id')} is not listed.", where=here)
        boxes[entry["image_id"]].append(_box(entry, categories[entry["category_id"]], here))
    samples = []
    for key, entry in images.items():
        name = str(entry.get("file_name", ""))
        if not name:
            raise DataInvalid(f"image {key} has no file_name.", where=where)
        found = _find(folder, file, name)
        sample = Sample(
            path=folder.path(found or file.parent / name),  # a missing image stays in: the check names it
            boxes=defects(boxes[key]),
            split=_split(file, found),
        )
        samples.append(settled(sample, f"{where}, image {key}"))
    return samples


def _files(folder: Folder) -> list[PurePosixPath]:
    found = []
    for file in folder.ending(".json"):
        if len(file.parts) <= 3:
            text = read_text(folder.path(file))
            if '"images"' in text and '"annotations"' in text:
                found.append(file)
    return found


def _split(file: PurePosixPath, image: PurePosixPath | None) -> Split | None:
    named = split_in(file.stem) or next((s for part in file.parts[:-1] if (s := split_of(part))), None)
    if named or image is None:
        return named
    return next((s for part in image.parts[:-1] if (s := split_of(part))), None)


def _find(folder: Folder, file: PurePosixPath, name: str) -> PurePosixPath | None:
    """Where tools put images: beside the file, in images/, in a folder called as the file's split, or anywhere once."""
    bases = (file.parent, file.parent.parent)
    words = [file.stem.removeprefix("instances_"), split_in(file.stem) or ""]
    below = ("", "images", *words, *(f"images/{word}" for word in words))
    found = folder.find(name, [base / place for base in bases for place in below])
    if found is None:
        base = PurePosixPath(name)
        same = [image for image in folder.by_stem.get(base.stem, []) if image.name == base.name]
        found = same[0] if len(same) == 1 else None
    return found


def _box(entry: dict[str, Any], kind: str, where: str) -> Box:
    try:
        outline = _outline(entry.get("segmentation"))
        if entry.get("bbox"):
            x, y, width, height = (float(value) for value in entry["bbox"])
            return Box(kind=kind, x=x, y=y, width=width, height=height, outline=outline)
        if outline:
            return around(kind, outline)
    except (TypeError, ValueError, KeyError, IndexError) as error:
        raise DataInvalid(f"its bbox or segmentation is malformed: {error}.", where=where) from error
    raise DataInvalid("it has neither bbox nor segmentation.", where=where)


def _outline(segmentation: Any) -> tuple[tuple[float, ...], ...]:
    if not segmentation:
        return ()
    if isinstance(segmentation, list):
        polygons = tuple(tuple(float(value) for value in polygon) for polygon in segmentation)
        if any(len(polygon) < 6 or len(polygon) % 2 for polygon in polygons):
            raise ValueError("a polygon needs three points or more")
        return polygons
    height, width = (int(value) for value in segmentation["size"])
    counts = segmentation["counts"]
    runs = _unpacked(counts) if isinstance(counts, str) else [int(value) for value in counts]
    if sum(runs) != height * width or min(runs, default=0) < 0:
        raise ValueError("the run lengths do not add up to the image")
    # Runs go down the columns and begin with background.
    flat = np.repeat(np.arange(len(runs)) % 2, runs).astype(np.uint8)
    mask = np.ascontiguousarray(flat.reshape(width, height).T)
    contours, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    return tuple(tuple((contour.reshape(-1) + 0.5).tolist()) for contour in contours)  # pixel centres


def _unpacked(text: str) -> list[int]:
    """COCO's compressed run lengths: signed base-32 digits, low first; from the third on, differences to the run before
    the previous one (format of pycocotools)."""
    runs: list[int] = []
    value = shift = 0
    for character in text:
        digit = ord(character) - 48
        value |= (digit & 0x1F) << shift
        shift += 5
        if digit & 0x20:
            continue
        if digit & 0x10:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    return runs
