"""A line without hardware: the recipe's models, rule and record, with frames from a folder or made up."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from inspection.cameras.camera import Camera
from inspection.cameras.options import AnyCamera, DeviceOptions, GenICamOptions, ReplayOptions
from inspection.cameras.replay import ReplayCamera
from inspection.cameras.synthetic import SyntheticCamera
from inspection.line.line import Line
from inspection.modelfile import InputSpec, read_card
from inspection.recipe.load import Loaded, load
from inspection.recipe.recipe import Match, TimerTrigger, View


def simulated(
    recipe: Path,
    *,
    images: Path | None = None,
    takt: float | None = None,
    outputs: bool = False,
    name: str | None = None,
) -> Line:
    """The recipe's line with a timer for a trigger.

    Its record lies beside the real one (`...-simulated`), whose verdicts are of real parts.

    Args:
        images: a folder, or one with a subfolder for each view, whose images are the frames, again and again; None:
            textured noise of the size that the recipe implies.
        takt: seconds per part; None: the recipe's.
        outputs: whether the recipe's outputs are told of made-up verdicts.
    """

    def transform(loaded: Loaded) -> Loaded:
        folder = loaded.recipe.record.folder
        changes: dict[str, object] = {
            "trigger": TimerTrigger(kind="timer"),
            "match": Match(),
            "record": loaded.recipe.record.model_copy(update={"folder": folder.with_name(f"{folder.name}-simulated")}),
        }
        if takt is not None:
            changes["takt"] = takt
        if not outputs:
            changes["outputs"] = ()
        return replace(loaded, recipe=loaded.recipe.model_copy(update=changes))

    return Line(recipe, transform=transform, camera=cameras(recipe, images), name=name)


def cameras(recipe: Path, images: Path | None) -> Callable[[AnyCamera, str], Camera]:
    """Makes a camera for each view that needs no hardware."""
    views = load(recipe).recipe.views

    def make(_options: AnyCamera, view: str) -> Camera:
        if images is not None:
            folder = images / view if (images / view).is_dir() else images
            return ReplayCamera(ReplayOptions(kind="replay", path=folder, loop=True, preload=True), view)
        spec = read_card(views[view].model).input
        seed = zlib.crc32(view.encode())  # the same noise in every run, another in every view
        size = size_of(views[view], spec)
        return SyntheticCamera(view, size=size, channels=spec.channels, white=spec.white, seed=seed)

    return make


def size_of(view: View, spec: InputSpec) -> tuple[int, int]:
    """Width and height of a view's frames, as far as the recipe says: the camera's, else what holds all regions, else
    the model's input."""
    camera = view.camera
    if isinstance(camera, (GenICamOptions, DeviceOptions)) and camera.width and camera.height:
        return camera.width, camera.height
    if view.regions:
        return max(one.x + one.width for one in view.regions), max(one.y + one.height for one in view.regions)
    return spec.width, spec.height
