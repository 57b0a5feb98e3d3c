"""Views: camera against model, places inside the frame, and whether what the thresholds promise still holds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from inspection.cameras.options import (
    AnyCamera,
    DeviceOptions,
    FolderOptions,
    GenICamOptions,
    ReplayOptions,
    StreamOptions,
)
from inspection.cameras.recording import is_recording
from inspection.errors import InspectionError
from inspection.modelfile import ModelCard
from inspection.pixels import ENDINGS, MAX_ENLARGEMENT, Pixels, check_fits, read_image, read_mask
from inspection.recipe.geometry import Mask, inside, zone_points
from inspection.recipe.recipe import Recipe, View
from inspection.recipe.views import depth_of, is_mono

if TYPE_CHECKING:
    from inspection.recipe.check import Report

Size = tuple[int, int]  # width, height


def check_views(recipe: Recipe, cards: dict[str, ModelCard], report: Report) -> None:
    """Each view by itself, then those that share a camera."""
    for name, view in recipe.views.items():
        card = cards.get(name)
        if card is not None:
            _thresholds(name, view, card, report)
            _camera_fits(name, view, card, report)
        _places(name, view, report)
        if card is not None:
            _size_fits(name, view, card, report)
    _shared_cameras(recipe, report)


def frame_size(view: View) -> tuple[Size, str] | None:
    """The frame's width and height as far as the recipe or its files say, and what says so."""
    return next(_sizes(view), None)


def _sizes(view: View) -> Iterator[tuple[Size, str]]:
    camera = view.camera
    if isinstance(camera, GenICamOptions | DeviceOptions) and camera.width and camera.height:
        yield (camera.width, camera.height), "the camera's `width` and `height`"
    for key in ("ignore_mask", "reference"):
        file = getattr(view, key)
        if file is not None:
            try:
                pixels: Pixels | Mask = read_mask(file) if key == "ignore_mask" else read_image(file)
            except InspectionError:
                continue  # `_places` says so
            yield (pixels.shape[1], pixels.shape[0]), f"`{key}`"
    sample = first_image(camera)
    if sample is not None:
        try:
            pixels = read_image(sample)
        except InspectionError:
            return
        yield (pixels.shape[1], pixels.shape[0]), sample.name


def first_image(camera: AnyCamera) -> Path | None:
    """An image that the camera will bring, where it reads images from a folder that has some."""
    if not isinstance(camera, FolderOptions | ReplayOptions) or not camera.path.is_dir() or is_recording(camera.path):
        return None
    found = camera.path.glob(camera.pattern) if isinstance(camera, FolderOptions) else camera.path.rglob("*")
    return min((file for file in found if file.suffix.lower() in ENDINGS and file.is_file()), default=None)


def _thresholds(name: str, view: View, card: ModelCard, report: Report) -> None:
    key = ("views", name)
    point = view.operating_point or card.operating_point
    if card.task == "kinds":
        report.error(
            (*key, "model"),
            "the model tells kinds of defects apart and never saw a good part: it cannot say which part is good.",
            "Train a model with good images.",
        )
    if point is None:
        report.warning(
            (*key, "model"),
            "neither the view nor the model has an operating point: every part is REVIEW.",
            "Write `operating_point` into the view, or export the model with `--max-escape` or `--max-overkill`.",
        )
    elif point.ok_below > point.ng_above:
        report.warning(
            (*key, "operating_point"),
            f"ok_below {point.ok_below:g} lies above ng_above {point.ng_above:g}: nothing is ever REVIEW.",
        )
    if view.operating_point is not None and view.operating_point.pixel_above is not None:
        own = card.operating_point
        if own is not None and own.pixel_above is None:
            report.error(
                (*key, "operating_point", "pixel_above"),
                "the model has no map, so no place can be held against it.",
                "Leave `pixel_above` out.",
            )
    if (view.ignore or view.ignore_mask) and point is not None and point.pixel_above is None:
        report.error(
            (*key, "ignore" if view.ignore else "ignore_mask"),
            "places are ignored on the score map, and the model has none or its thresholds no `pixel_above`.",
            "Use a model with a map, or write `operating_point` with `pixel_above`.",
        )
    if view.tiling is not None and view.tiling != card.tiling:
        had = "resized as a whole" if card.tiling is None else f"tiled by {card.tiling}"
        report.warning(
            (*key, "tiling"),
            f"the model's thresholds were chosen on images that were {had}: with this tiling scores differ, and what "
            "the thresholds promise does not hold.",
            "Train and export with this tiling, or measure with `inspection evaluate`.",
        )


def _camera_fits(name: str, view: View, card: ModelCard, report: Report) -> None:
    key, camera, spec = ("views", name), view.camera, card.input
    depth, mono, says = _camera_gives(camera)
    says_depth = says if view.bit_depth is None else ("bit_depth",)
    depth = view.bit_depth or depth
    if depth is not None and depth != spec.bit_depth:
        report.error(
            (*key, *says_depth),
            f"the frames have {depth} bit and the model takes {spec.bit_depth} bit: every frame would be refused.",
            f"Set the camera to {spec.bit_depth} bit, or train a model on {depth} bit.",
        )
    wants, has = ("mono" if one else "RGB" for one in (spec.channels == 1, mono))
    if mono is not None and mono != (spec.channels == 1):
        report.error(
            (*key, *says),
            f"the frames are {has} and the model takes {wants}: every frame would be refused.",
            "Write `mono: true` into the camera."
            if wants == "mono" and not isinstance(camera, GenICamOptions)
            else f"Set the camera to {wants}, or train a model on {has} images.",
        )
    if isinstance(camera, GenICamOptions) and camera.pixel_format is None:
        report.warning(
            (*key, "camera"),
            "the camera's `pixel_format` is not stated: it stays as the last program left it.",
            f"Write `pixel_format`, such as {'Mono' if spec.channels == 1 else 'BayerRG'}{spec.bit_depth}.",
        )
    sample = first_image(camera)
    if sample is not None:
        try:
            check_fits(read_image(sample), spec)
        except InspectionError as error:
            report.error((*key, "camera", "path"), f"{sample.name}: {error.what}", error.hint)


def _camera_gives(camera: AnyCamera) -> tuple[int | None, bool | None, tuple[str, ...]]:
    """Bit depth, whether mono, and the key that says so; None where nobody knows before it runs."""
    if isinstance(camera, GenICamOptions) and camera.pixel_format is not None:
        return depth_of(camera.pixel_format), is_mono(camera.pixel_format), ("camera", "pixel_format")
    if isinstance(camera, DeviceOptions | StreamOptions):
        return None, True if camera.mono else None, ("camera", "mono")
    return None, None, ("camera",)


def _places(name: str, view: View, report: Report) -> None:
    """Regions, zones and places to ignore: that they can be read and lie in the frame."""
    key = ("views", name)
    for what in ("ignore_mask", "reference"):
        file = getattr(view, what)
        if file is None:
            continue
        try:
            read_mask(file) if what == "ignore_mask" else read_image(file)
        except InspectionError as error:
            report.failed((*key, what), error)
    if view.reference is not None:
        report.warning(
            (*key, "reference"), "no network of this version compares with a reference: it changes no verdict."
        )
    for zone, place in view.zones.items():
        if (place.rectangle is None) == (place.polygon is None):
            report.error(
                (*key, "zones", zone), "a zone is either a `rectangle` or a `polygon`.", "Give exactly one of them."
            )
    sizes = list(_sizes(view))
    for size, says in sizes[1:]:
        if size != sizes[0][0]:
            report.error(
                key,
                f"{sizes[0][1]} says that a frame has {_by(sizes[0][0])} pixels, and {says} has {_by(size)}.",
                "Draw masks and references on frames of this camera as it is set.",
            )
    for first, one in enumerate(view.regions):
        for second in range(first + 1, len(view.regions)):
            if view.regions[second] == one:
                report.warning((*key, "regions", second), f"is the same place as `regions.{first}`: judged twice.")
    if not sizes:
        return
    size = sizes[0][0]
    for index, region in enumerate(view.regions):
        end = (region.x + region.width, region.y + region.height)
        if end[0] > size[0] or end[1] > size[1]:
            report.error(
                (*key, "regions", index),
                f"the region ends at {_by(end)}, and the frame at {_by(size)}: every frame would be refused.",
                "Mend the region, or the camera's size.",
            )
    ignored: Mask = np.zeros((size[1], size[0]), dtype=np.bool_)
    for index, points in enumerate(view.ignore):
        ignored |= _in_frame(report, (*key, "ignore", index), points, size)
    for zone, place in view.zones.items():
        if (place.rectangle is None) != (place.polygon is None):
            _in_frame(report, (*key, "zones", zone), zone_points(place), size)
    if view.ignore_mask is not None:
        try:
            mask = read_mask(view.ignore_mask)
        except InspectionError:
            return
        if not mask.any():
            report.warning((*key, "ignore_mask"), "is black everywhere: nothing is ignored.")
        if mask.shape == ignored.shape:
            ignored |= mask
    for index, region in enumerate(view.regions):
        if ignored[region.y : region.y + region.height, region.x : region.x + region.width].all():
            report.error((*key, "regions", index), "is ignored wholly: no defect in it would count.")
    if not view.regions and ignored.all():
        report.error(
            (*key, "ignore_mask" if view.ignore_mask else "ignore"),
            "the whole frame is ignored: no defect would count.",
            "In a mask, what is not black is ignored.",
        )


def _in_frame(report: Report, key: tuple[int | str, ...], points: object, size: Size) -> Mask:
    corners = np.asarray(points, dtype=np.float64)
    mask = inside([(float(x), float(y)) for x, y in corners], size)
    low, high = corners.min(axis=0), corners.max(axis=0)
    if not mask.any():
        report.error(key, f"holds no pixel of the frame of {_by(size)}.", "Corners are x, y in pixels of the frame.")
    elif (low < 0).any() or (high > size).any():
        report.warning(key, f"reaches beyond the frame of {_by(size)}.", "Corners are x, y in pixels of the frame.")
    return mask


def _size_fits(name: str, view: View, card: ModelCard, report: Report) -> None:
    """What is judged against the network's input: neither a thumbnail nor tiles that are larger than it."""
    known = frame_size(view)
    spec, tiling = card.input, view.tiling or card.tiling
    places: list[tuple[tuple[int | str, ...], Size]] = [
        (("views", name, "regions", index), (region.width, region.height)) for index, region in enumerate(view.regions)
    ] or ([(("views", name), known[0])] if known is not None else [])
    for key, (width, height) in places:
        if spec.width > MAX_ENLARGEMENT * width or spec.height > MAX_ENLARGEMENT * height:
            report.error(
                key,
                f"{_by((width, height))} pixels are judged, and the model looks at {_by((spec.width, spec.height))}: "
                f"an image may be enlarged {MAX_ENLARGEMENT} times at most.",
                "Make the region larger, or train a smaller model.",
            )
        elif tiling is not None and width * tiling.scale < spec.width and height * tiling.scale < spec.height:
            report.warning(
                key,
                f"{_by((width, height))} pixels fit into one tile of {_by((spec.width, spec.height))} at the scale "
                f"{tiling.scale:g}, whose rest is filled up.",
                "Raise `tiling.scale`, or leave `tiling` out.",
            )


def _shared_cameras(recipe: Recipe, report: Report) -> None:
    owners: dict[tuple[str, str], str] = {}
    for name, view in recipe.views.items():
        camera = view.camera
        if isinstance(camera, GenICamOptions):
            one, key = camera.address, "address"
        elif isinstance(camera, DeviceOptions):
            one, key = str(camera.device), "device"
        elif isinstance(camera, FolderOptions):
            one, key = f"{camera.path}/{camera.pattern}", "path"
        else:
            continue
        other = owners.setdefault((camera.kind, one), name)
        if other != name:
            report.error(
                ("views", name, "camera", key),
                f"view `{other}` has the same camera, and one camera serves one view.",
                "Give one view both as its `regions`, or mend the address.",
            )


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"
