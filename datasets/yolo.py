"""YOLO: data.yaml with the names of the classes, and one .txt of normalised boxes or polygons for each image."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

import yaml

from datasets.folder import Folder, read_text
from datasets.knowledge import around, defects, image_size, settled
from datasets.naming import split_of
from datasets.sample import Box, Sample, Split
from inspection.errors import DataInvalid


def fits_yolo(folder: Folder) -> bool:
    """A .yaml with `names` at the top, or folders images/ and labels/ with .txt files."""
    if any(_names_of(folder, file) is not None for file in _yamls(folder)):
        return True
    return any("labels" in file.parts[:-1] for file in folder.ending(".txt"))


def read_yolo(folder: Folder) -> list[Sample]:
    """Boxes `class x y width height` or polygons `class x y x y ...`, all normalised to 0..1.

    An image without .txt, or with an empty one, is good, as YOLO has it; where a folder has no .txt at all, nothing is
    known of its images.
    """
    names: dict[int, str] | None = None
    entries: dict[str, Any] = {}
    for file in _yamls(folder):
        found = _names_of(folder, file)
        if found is not None:
            names, entries = found
            break
    if names is None:
        raise DataInvalid(
            "labels/ without data.yaml: the classes have no names.",
            where=str(folder.root),
            hint="Write data.yaml with `names: [scratch, dent]` in the order of the class numbers.",
        )
    texts = set(folder.ending(".txt"))
    labelled = {text.parent for text in texts}
    samples = []
    for image in folder.images:
        text = _text_of(image)
        boxes: tuple[Box, ...] | None = None
        if text in texts:
            boxes = _boxes(folder, image, text, names)
        elif text.parent in labelled:
            boxes = ()
        path = folder.path(image)
        sample = Sample(path=path, boxes=boxes, split=_split(image, entries))
        if text in texts and boxes is None:  # the image cannot be opened, so its boxes have no pixels
            sample = Sample(path=path, label="defect", split=sample.split)
        samples.append(settled(sample, str(path)))
    return samples


def _yamls(folder: Folder) -> list[PurePosixPath]:
    return [file for file in folder.ending(".yaml", ".yml") if len(file.parts) == 1]


def _names_of(folder: Folder, file: PurePosixPath) -> tuple[dict[int, str], dict[str, Any]] | None:
    try:
        document = yaml.safe_load(read_text(folder.path(file)))
    except yaml.YAMLError:
        return None  # some other tool's file
    if not isinstance(document, dict) or not isinstance(document.get("names"), list | dict):
        return None
    names = document["names"]
    pairs = enumerate(names) if isinstance(names, list) else names.items()
    try:
        return {int(number): str(name) for number, name in pairs}, document
    except (TypeError, ValueError) as error:
        raise DataInvalid(f"`names` is malformed: {error}.", where=str(folder.path(file))) from error


def _text_of(image: PurePosixPath) -> PurePosixPath:
    """The last folder `images` becomes `labels`; without such a folder the .txt lies beside the image."""
    parts = list(image.parts)
    for position in range(len(parts) - 2, -1, -1):
        if parts[position] == "images":
            parts[position] = "labels"
            break
    return PurePosixPath(*parts).with_suffix(".txt")


def _split(image: PurePosixPath, entries: dict[str, Any]) -> Split | None:
    for key in ("train", "val", "test"):
        places = entries.get(key)
        for place in [places] if isinstance(places, str) else places or []:
            # Exporters write `../train/images` and `./train/images` for the folder train/images beside the file.
            named = PurePosixPath(*(part for part in PurePosixPath(str(place)).parts if part not in ("..", ".")))
            if named.parts and image.is_relative_to(named):
                return split_of(key)
    return next((split for part in image.parts[:-1] if (split := split_of(part))), None)


def _boxes(folder: Folder, image: PurePosixPath, text: PurePosixPath, names: dict[int, str]) -> tuple[Box, ...] | None:
    lines = read_text(folder.path(text)).splitlines()
    size = image_size(folder.path(image)) if any(line.strip() for line in lines) else (1, 1)
    if size is None:
        return None
    return defects(
        _box(line.split(), size, names, f"{folder.path(text)}:{number}")
        for number, line in enumerate(lines, start=1)
        if line.strip()
    )


def _box(fields: list[str], size: tuple[int, int], names: dict[int, str], where: str) -> Box:
    try:
        kind = names[int(fields[0])]
        values = [float(field) for field in fields[1:]]
    except KeyError as error:
        raise DataInvalid(f"class {fields[0]} has no name in data.yaml.", where=where) from error
    except ValueError as error:
        raise DataInvalid(f"`{' '.join(fields[:6])}` is no line of numbers.", where=where) from error
    width, height = size
    if len(values) == 4:
        x, y, w, h = values
        return Box(kind=kind, x=(x - w / 2) * width, y=(y - h / 2) * height, width=w * width, height=h * height)
    if len(values) >= 6 and len(values) % 2 == 0:
        outline = tuple(value * (height if index % 2 else width) for index, value in enumerate(values))
        return around(kind, (outline,))
    raise DataInvalid(
        f"{len(values)} numbers after the class: 4 make a box, an even number from 6 on a polygon.", where=where
    )
