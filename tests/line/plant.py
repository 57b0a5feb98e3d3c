"""A small plant for tests: a model with known arithmetic, images that are good and bad, a recipe, and a line on them.

The model's score is its brightest 8 x 8 cell, so a dark image is OK and one with a white spot NG.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml

from inspection.line.line import Line
from inspection.pixels import Pixels
from tests.support.graphs import model_file, spec

SIZE = 64


def image(*, bad: bool = False, shade: int = 40) -> Pixels:
    """A dark image, RGB; a bad one has a white spot."""
    pixels = np.full((SIZE, SIZE, 3), shade, np.uint8)
    if bad:
        pixels[16:32, 16:32] = 255
    return pixels


def images(folder: Path, bad: list[bool]) -> Path:
    """A folder of such images, in this order."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, one in enumerate(bad):
        assert cv2.imwrite(str(folder / f"{index:04}.png"), image(bad=one, shade=20 + index % 60))
    return folder


def recipe(
    folder: Path, *, name: str = "screen", views: dict[str, dict[str, Any]] | None = None, **changes: Any
) -> Path:
    """Writes a recipe file into `folder` and returns it; `changes` are its keys.

    Without `views`, two views replay the folders `top` and `side`.
    """
    if not (folder / "model.onnx").exists():
        model_file(folder / "model.onnx", spec())
    if views is None:
        views = {
            view: {"camera": {"kind": "replay", "path": view, "loop": True}, "model": "model.onnx"}
            for view in ("top", "side")
        }
    values = {
        "product": name,
        "takt": 0.05,
        "match": {"window": 2.0},  # a busy machine must not make a frame late
        "deadline": 5.0,
        "trigger": {"kind": "signal"},
        "views": views,
        "record": {"folder": "record", "images": {"free": 1}},
        **changes,
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def until(condition: Callable[[], bool], *, seconds: float = 30.0, what: str = "") -> None:
    """Waits until `condition` holds; fails after `seconds`."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"did not happen within {seconds} s: {what or condition}"
        time.sleep(0.005)


def ready(line: Line) -> Line:
    """Waits until every camera streams, and starts the line."""
    until(lambda: all(facts["state"] == "streaming" for facts in line.cameras.facts().values()), what="cameras")
    line.start()
    return line
