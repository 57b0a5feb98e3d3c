"""A folder with a recipe, its models and its masks, as an integrator has it."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support import graphs
from tests.support.images import save, surface

Write = Callable[..., Path]

PLAIN: dict[str, Any] = {
    "product": "cell",
    "takt": "1s",
    "deadline": "900ms",
    "trigger": {"kind": "signal"},
    "views": {
        "top": {
            "camera": {"kind": "genicam", "address": "10.0.0.2", "trigger": "line1", "pixel_format": "Mono8"},
            "model": "models/mono.onnx",
        },
        "side": {"camera": {"kind": "pushed"}, "model": "models/mono.onnx"},
    },
}


def changed(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`values` with some keys set by their dotted path; None takes a key away."""
    values = copy.deepcopy(values)
    for path, value in changes.items():
        *above, last = path.split(".")
        inner = values
        for key in above:
            inner = inner.setdefault(key, {})
        if value is None:
            inner.pop(last)
        else:
            inner[last] = value
    return values


@pytest.fixture(autouse=True)
def roomy_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A petabyte is free, so that what is found in a recipe is not about the machine that these tests run on."""
    there = type(shutil.disk_usage("/"))(total=2 * 10**15, used=10**15, free=10**15)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: there)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes the plain recipe with some keys changed; the folder has models and masks beside it."""
    (tmp_path / "models").mkdir()
    graphs.model_file(tmp_path / "models" / "mono.onnx", graphs.spec(channels=1))
    graphs.model_file(tmp_path / "models" / "rgb.onnx", classes=("scratch", "dent", "good"))
    graphs.model_file(tmp_path / "models" / "mono12.onnx", graphs.spec(channels=1, bit_depth=12))
    graphs.model_file(tmp_path / "models" / "blind.onnx", graphs.spec(channels=1), maps=False)
    graphs.model_file(tmp_path / "models" / "pointless.onnx", graphs.spec(channels=1), operating_point=None)
    save(tmp_path / "mask.png", surface(0, 480, 640))
    save(tmp_path / "reference.png", surface(1, 480, 640))

    def write(changes: dict[str, Any] | None = None, *, name: str = "recipe.yaml") -> Path:
        path = tmp_path / name
        path.write_text(yaml.safe_dump(changed(PLAIN, changes or {}), sort_keys=False))
        return path

    return write
