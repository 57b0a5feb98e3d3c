"""Layouts that folder and file names tell: MVTec AD, a folder per class, image and mask pairs.

All three read a path in the same way. Words for splits, images and masks are taken out of it; what is left is the
image's place (class, lot). A mask belongs to the image of the same place and name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from datasets.folder import Folder
from datasets.knowledge import settled
from datasets.naming import IMAGE_FOLDERS, MASK_FOLDERS, is_bad, is_good, plain, split_of, without_mask_ending
from datasets.sample import Sample, Split
from inspection.errors import DataInvalid
from inspection.progress import track

Place = tuple[str, ...]


@dataclass(frozen=True)
class _Picture:
    file: PurePosixPath
    split: Split | None
    place: Place
    stem: str  # of a mask: of the image that it belongs to


@dataclass(frozen=True)
class _Tree:
    """The images of a folder, told apart from the masks."""

    images: list[_Picture]
    masks: list[_Picture]
    masks_beside: bool  # masks lie beside their images, or images/ and masks/ are siblings


def fits_mvtec(folder: Folder) -> bool:
    """train/ holds only good ones and test/ has classes; or train/ and test/ of classes and ground_truth/."""
    images = _tree(folder).images
    train = {name for image in images if image.split == "train" for name in image.place[:1]}
    test = {name for image in images if image.split == "test" for name in image.place[:1]}
    if not train or not test or not all(image.place and image.split for image in images):
        return False
    good = any(map(is_good, train))
    return good and (all(map(is_good, train)) or any(plain(file.parts[0]) == "groundtruth" for file in folder.images))


def fits_folders(folder: Folder) -> bool:
    """Some folder is called good, ok, normal, ..."""
    return any(is_good(name) for image in _tree(folder).images for name in image.place)


def fits_pairs(folder: Folder) -> bool:
    """Some image has its mask beside it, or in a folder masks/ beside images/."""
    return _tree(folder).masks_beside


def read_mvtec(folder: Folder) -> list[Sample]:
    """As `read_folders`; masks of ground_truth/<kind> are those of test/<kind>, whose names train/ may have too."""
    return _classes(folder, masked_split="test")


def read_folders(folder: Folder) -> list[Sample]:
    """A folder per class; folders of splits may be above or below, lots below. Masks are taken where there are some."""
    return _classes(folder, masked_split=None)


def read_pairs(folder: Folder) -> list[Sample]:
    """Images with and without masks: no mask, or an empty one, is good. The folder is the lot, folder/name the part."""
    tree = _tree(folder)
    masks = _assign(folder, tree, masked_split=None)
    samples = []
    for image in track(tree.images, "reading masks", len(tree.images)):
        mask = masks.get(image.file)
        lot = "/".join(image.place) or None
        sample = Sample(
            path=folder.path(image.file),
            label=None if mask else "good",
            mask=folder.path(mask) if mask else None,
            part=f"{lot}/{image.stem}" if lot else None,
            lot=lot,
            split=image.split,
        )
        samples.append(settled(sample, str(folder.path(image.file))))
    return samples


def _classes(folder: Folder, *, masked_split: Split | None) -> list[Sample]:
    tree = _tree(folder)
    masks = _assign(folder, tree, masked_split=masked_split)
    depth = _class_depth(folder, tree.images)
    # bad/scratch/1.png beside good/2.png: the folders below `bad` are kinds, unless `good` has such folders too (lots).
    kinds_below = not any(is_good(i.place[depth]) and len(i.place) > depth + 1 for i in tree.images)
    samples = []
    for image in tree.images:
        name, above, below = image.place[depth], image.place[:depth], image.place[depth + 1 :]
        kind = None if is_good(name) or is_bad(name) else name
        if is_bad(name) and below and kinds_below:
            kind, below = below[0], below[1:]
        mask = masks.get(image.file)
        sample = Sample(
            path=folder.path(image.file),
            label="good" if is_good(name) else "defect",
            kind=kind,
            mask=folder.path(mask) if mask else None,
            lot="/".join((*above, *below)) or None,
            split=image.split,
        )
        samples.append(settled(sample, str(folder.path(image.file))))
    return samples


def _class_depth(folder: Folder, images: Sequence[_Picture]) -> int:
    """How many folders lie above the class's, found by where the good ones are; 0 where there are none."""
    depths = {depth for image in images for depth, name in enumerate(image.place) if is_good(name)}
    if len(depths) > 1:
        raise DataInvalid(
            "folders of good images lie at different depths, so the place of the class is not clear.",
            where=str(folder.root),
            hint="Open one of the folders below, or write a manifest.",
        )
    depth = depths.pop() if depths else 0
    outside = next((image for image in images if len(image.place) <= depth), None)
    if outside:
        raise DataInvalid(
            "this image lies in no folder of a class.",
            where=str(folder.path(outside.file)),
            hint="Move it into the folder of its class, or out of the data.",
        )
    return depth


def _tree(folder: Folder) -> _Tree:
    pictures = set(folder.images)
    stems = {(file.parent, file.stem) for file in pictures}
    images, masks = [], []
    beside = False
    image_places, mask_places = set(), set()
    for file in folder.images:
        folders = [plain(name) for name in file.parts[:-1]]
        split = next((found for name in folders if (found := split_of(name))), None)
        place = tuple(
            name
            for name, word in zip(file.parts[:-1], folders, strict=True)
            if not split_of(word) and word not in IMAGE_FOLDERS and word not in MASK_FOLDERS
        )
        base = without_mask_ending(file.stem)
        if any(word in MASK_FOLDERS for word in folders):
            masks.append(_Picture(file, split, place, base or file.stem))
            mask_places.add((split, place))
        elif base and (file.parent, base) in stems:
            masks.append(_Picture(file, split, place, base))
            beside = True
        else:
            images.append(_Picture(file, split, place, file.stem))
            image_places.add((split, place))
    return _Tree(images, masks, beside or bool(image_places & mask_places))


def _assign(folder: Folder, tree: _Tree, *, masked_split: Split | None) -> dict[PurePosixPath, PurePosixPath]:
    """The mask of each image that has one. A mask that is nobody's, or two images', is an error: it would be lost."""
    by_place: dict[tuple[Place, str], list[_Picture]] = {}
    for image in tree.images:
        by_place.setdefault((image.place, image.stem), []).append(image)
    found: dict[PurePosixPath, PurePosixPath] = {}
    for mask in tree.masks:
        owners = by_place.get((mask.place, mask.stem), [])
        wanted = mask.split or masked_split
        owners = [image for image in owners if wanted is None or image.split == wanted] if len(owners) > 1 else owners
        if not owners:
            raise DataInvalid(
                "this mask belongs to no image.",
                where=str(folder.path(mask.file)),
                hint=f"The image would be called {mask.stem}.png (or .jpg, ...) in a folder of the same name.",
            )
        if len(owners) > 1:
            raise DataInvalid(
                f"this mask fits {owners[0].file} and {owners[1].file}.",
                where=str(folder.path(mask.file)),
                hint="Put masks into folders like their images' (masks/train/..., masks/test/...).",
            )
        if owners[0].file in found:
            raise DataInvalid(
                f"{owners[0].file} has two masks: {found[owners[0].file]} is another one.",
                where=str(folder.path(mask.file)),
            )
        found[owners[0].file] = mask.file
    return found
