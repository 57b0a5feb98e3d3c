"""What is wrong with a line: its recipe, what the recipe names, a recording."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from tests.project.cases import Case, Make
from tests.support import graphs


def line(make: Callable[[Path, dict[str, Any]], object], *more: str) -> Make:
    """A line by a recipe that `make` has spoiled; the model and all else are sound."""

    def lay(folder: Path) -> list[str]:
        graphs.model_file(folder / "model.onnx")
        camera = {"kind": "genicam", "address": "127.0.0.1", "width": 640, "height": 480}
        values = {
            "product": "part",
            "takt": 1.0,
            "deadline": 1.0,
            "trigger": {"kind": "signal"},
            "views": {"top": {"camera": camera, "model": "model.onnx"}},
        }
        text = make(folder, values)
        (folder / "recipe.yaml").write_text(text if isinstance(text, str) else yaml.safe_dump(values))
        given = [one.format(folder=folder) for one in more]
        return ["run", str(folder / "recipe.yaml"), "--port", "0", *(given or ["--for", "1s"])]

    return lay


def top(**changes: object) -> Callable[[Path, dict[str, Any]], object]:
    """The view is described otherwise."""
    return lambda folder, values: values["views"]["top"].update(changes)


def half_a_model(folder: Path, values: dict[str, Any]) -> None:
    """The recipe's model is cut off."""
    whole = (folder / "model.onnx").read_bytes()
    (folder / "model.onnx").write_bytes(whole[: len(whole) // 2])


def record_below_a_file(folder: Path, values: dict[str, Any]) -> None:
    """The record's folder cannot be made."""
    (folder / "file").write_text("no folder")
    values["record"] = {"folder": "file/record"}


def no_recording(folder: Path, values: dict[str, Any]) -> None:
    """A recording whose events have lost their beginning."""
    (folder / "recording").mkdir()
    (folder / "recording" / "recording.json").write_text('{"format": 2, "started": 0, "about": {}}')
    (folder / "recording" / "events.jsonl").write_text('fset":0.1,"number":3}\n{}\n')


LINES = (
    Case(what="a recipe that is no YAML", make=line(lambda *_: "views: [1\n"), code="config-invalid"),
    Case(what="a recipe with an unknown key", make=line(top(tilling={"overlap": 0.1})), code="config-invalid"),
    Case(what="a recipe whose model is not there", make=line(top(model="gone.onnx")), code="config-invalid"),
    Case(what="a recipe whose model is cut off", make=line(half_a_model), code="model-invalid"),
    Case(what="a camera without an address", make=line(top(camera={"kind": "genicam"})), code="config-invalid"),
    Case(what="a record below a file", make=line(record_below_a_file), code="output-unwritable"),
    Case(
        what="a recording that is no recording",
        make=line(lambda *_: None, "--replay", "{folder}"),
        code="data-invalid",
    ),
    Case(
        what="a recording that is damaged",
        make=line(no_recording, "--replay", "{folder}/recording"),
        code="data-invalid",
    ),
)
