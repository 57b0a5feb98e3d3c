"""Pascal VOC: one .xml for each image, wherever the two lie."""

from __future__ import annotations

from pathlib import PurePosixPath
from xml.etree import ElementTree

from datasets.folder import Folder, read_text
from datasets.knowledge import defects, settled
from datasets.naming import split_in, split_of
from datasets.sample import Box, Sample, Split
from inspection.errors import DataInvalid


def fits_voc(folder: Folder) -> bool:
    """The first .xml has the root <annotation>."""
    files = folder.ending(".xml")
    return bool(files) and "<annotation" in read_text(folder.path(files[0]))[:2000]


def read_voc(folder: Folder) -> list[Sample]:
    """Boxes as VOC counts them: from pixel 1, both ends within. An .xml without objects is a good image.

    Of an image without .xml nothing is known. Splits come from ImageSets/*.txt or from folders' names.
    """
    splits = _image_sets(folder)
    samples: dict[PurePosixPath, Sample] = {}
    for file in folder.ending(".xml"):
        where = str(folder.path(file))
        try:
            root = ElementTree.fromstring(read_text(folder.path(file)).encode())
        except ElementTree.ParseError as error:
            raise DataInvalid(f"this is no XML: {error.msg}.", where=f"{where}:{error.position[0]}") from error
        if root.tag != "annotation":
            continue
        image = _find(folder, file, root.findtext("filename") or "")
        boxes = defects(_box(entry, where) for entry in root.iter("object"))
        if image in samples:
            raise DataInvalid(f"{image} has two .xml files.", where=where)
        samples[image] = settled(
            Sample(path=folder.path(image), boxes=boxes, split=splits.get(image.stem) or _split(image)), where
        )
    for image in folder.images:
        if image not in samples:
            samples[image] = Sample(path=folder.path(image), split=splits.get(image.stem) or _split(image))
    return list(samples.values())


def _find(folder: Folder, file: PurePosixPath, name: str) -> PurePosixPath:
    """By the .xml's own name first: <filename> is often from before someone renamed the files."""
    for stem in (file.stem, PurePosixPath(name.replace("\\", "/")).stem):
        found = folder.by_stem.get(stem, [])
        if len(found) > 1:  # the same name in train/ and in test/
            found = [image for image in found if _split(image) == _split(file)]
        if len(found) == 1:
            return found[0]
        if found:
            raise DataInvalid(f"{found[0]} and {found[1]} both may be its image.", where=str(folder.path(file)))
    return file.parent / (name or f"{file.stem}.jpg")  # a missing image stays in: the check names it


def _box(entry: ElementTree.Element, where: str) -> Box:
    kind = (entry.findtext("name") or "").strip()
    if not kind:
        raise DataInvalid("an object has no name.", where=where)
    ends: dict[str, float] = {}
    for key in ("xmin", "ymin", "xmax", "ymax"):
        text = entry.findtext(f"bndbox/{key}")
        try:
            ends[key] = float(text or "")
        except ValueError as error:
            raise DataInvalid(f"an object `{kind}` has {key} = {text!r}.", where=where) from error
    x, y = max(0.0, ends["xmin"] - 1), max(0.0, ends["ymin"] - 1)
    return Box(kind=kind, x=x, y=y, width=ends["xmax"] - x, height=ends["ymax"] - y)


def _split(file: PurePosixPath) -> Split | None:
    return next((split for part in file.parts[:-1] if (split := split_of(part))), None)


def _image_sets(folder: Folder) -> dict[str, Split]:
    """Image name -> split, from ImageSets/.../train.txt and its like; trainval says nothing and is left out."""
    found: dict[str, Split] = {}
    for file in folder.ending(".txt"):
        split = split_in(file.stem)
        if split and "ImageSets" in file.parts:
            for line in read_text(folder.path(file)).splitlines():
                if line.strip():
                    found[line.split()[0]] = split
    return found
