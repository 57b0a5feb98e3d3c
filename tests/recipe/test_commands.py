"""`inspection recipe`: findings with their lines, the recipe in plain words, and the schema for an editor."""

from __future__ import annotations

import importlib
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from inspection.errors import ConfigInvalid
from inspection.modelfile import Tiling
from inspection.recipe.check import check_file
from inspection.recipe.commands import app
from inspection.recipe.explain import explain
from inspection.recipe.load import load
from tests.recipe.conftest import Write
from tests.support import graphs

DOCS = Path(__file__).parents[2] / "docs"
GATE = {"kind": "modbus", "host": "10.0.0.1", "gate": True, "lead": "20ms"}


def run(*arguments: object) -> Any:
    """The command as `inspection.cli.main` runs it; what it returns is the exit code."""
    return app([str(one) for one in arguments], standalone_mode=False)


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """The example of the documentation, with a model where it names one."""
    path = tmp_path / "recipe.example.yaml"
    path.write_text((DOCS / path.name).read_text())
    (tmp_path / "models").mkdir()
    of = graphs.spec(channels=1, width=1024, height=576)
    graphs.model_file(tmp_path / "models" / "cap.onnx", of, tiling=Tiling())
    return path


def test_the_example_of_the_documentation_is_sound(example: Path) -> None:
    assert check_file(example) == []


def test_the_example_in_plain_words_says_what_it_does(example: Path) -> None:
    text = explain(load(example))
    for words in (
        "one is expected every 1 s",
        "a wire on line1",
        "loaded once, with side",
        "2 regions, each by itself: 960 x 1080 at 0, 0",
        "OK below 0.4, NG from 0.6 on",
        "escape: 0 of 2 bad parts called OK; at most 77.64%",
        "in zone rim of view top may pass: at most 0.5 mm long, at most 2 on one part",
        "there 880 ms after the trigger (modbus needs 20 ms)",
        "drives the reject gate, 890 ms after the trigger",
        "one in 100 OK: at most 50 GB, for 90 days",
        # 1024 x 576 tiles with a quarter in common: side 1920 x 1080 takes 3 by 3, each region of top 1 by 3
        "9 a frame",
        "6 a frame",
        "15 images through the network for each part, 15 a second",
    ):
        assert words in text


def test_check_prints_findings_with_their_lines_and_says_by_its_exit_code_whether_there_are_errors(
    write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    sound = write({"outputs": [GATE]}, name="sound.yaml")
    assert run("check", sound) == 0
    assert "sound.yaml: sound" in capsys.readouterr().out
    warned = write({"outputs": []}, name="warned.yaml")
    assert run("check", warned) == 0
    assert "0 errors, 1 warning" in capsys.readouterr().out
    broken = write({"views.top.modle": "x"}, name="broken.yaml")
    assert run("check", sound, broken) == 2
    out = capsys.readouterr().out
    assert re.search(r"broken\.yaml:\d+: error the key `views\.top\.modle` is unknown", out)
    assert "Did you mean `model`?" in out


def test_check_gives_json_for_programs(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    path = write({"outputs": [GATE], "rule": {"ng_views": 3}})
    assert run("check", path, "--json") == 2
    answer = json.loads(capsys.readouterr().out)
    (finding,) = answer["recipes"][0]["findings"]
    assert answer["sound"] is False
    assert (finding["level"], finding["key"]) == ("error", "rule.ng_views")
    assert finding["where"].startswith(f"{path}:")


@pytest.mark.parametrize(
    "camera", [{"kind": "stream", "url": "rtsp://me:secret@h/a"}, {"kind": "device", "device": "rtsp://me:secret@h/a"}]
)
def test_explain_keeps_a_camera_s_password_to_itself(write: Write, camera: dict[str, Any]) -> None:
    text = explain(load(write({"views.side.camera": camera})))
    assert "rtsp://h/a" in text
    assert "secret" not in text


def test_explain_prints_what_will_happen(example: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("explain", example)
    out = capsys.readouterr().out
    assert [line for line in out.splitlines() if not line.startswith(" ")] == [
        "recipe recipe.example", "parts", "view top", "view side", "verdict", "time", "outputs", "kept",
    ]  # fmt: skip
    with pytest.raises(ConfigInvalid):
        run("explain", example.parent / "none.yaml")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"trigger": {"kind": "timer"}}, "a timer makes a part every 1 s"),
        ({"trigger": {"kind": "camera", "view": "top"}}, "a part begins with a frame of view top"),
        ({"match": {"by": "order", "window": "300ms", "early": "20ms"}}, "from 20 ms before the trigger until 300 ms"),
        ({"views.top.model": "models/pointless.onnx"}, "thresholds: none, so every part is REVIEW"),
        ({"views.top.operating_point": {"ok_below": 1, "ng_above": 2}}, "promised: nothing"),
        ({"views.top.tiling": {}}, "as many as the frame's size asks for"),
        ({"views.top.ignore_mask": "mask.png"}, "the whole frame, 640 x 480 pixels"),
        ({"views.side.optional": True}, "ERROR: else, where top has no frame"),
        ({"rule": {"ng_views": 2}}, "NG: 2 of 2 views are NG; with fewer the part is REVIEW"),
        ({"deadline": "5s"}, "up to 5 parts are under way"),
        ({"outputs": []}, "nobody is told"),
        ({"record": {"images": {"ng": 0, "review": 0, "error": 0, "ok": 0}}}, "images: none"),
        ({"record": {"images": {"age": None}}}, "one in 100 OK: at most 50 GB; verdicts alone"),
    ],
)
def test_explain_follows_what_the_recipe_says(write: Write, changes: dict[str, Any], words: str) -> None:
    assert words in explain(load(write(changes)))


def test_the_schema_knows_every_key_and_takes_the_example(example: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if not os.environ.get("CI"):
        pytest.importorskip("jsonschema", reason="jsonschema: .ci/run installs it")
    jsonschema = importlib.import_module("jsonschema")
    run("schema")
    schema = json.loads(capsys.readouterr().out)
    validator = jsonschema.Draft202012Validator(schema)
    validator.check_schema(schema)
    values = yaml.safe_load(example.read_text())
    assert list(validator.iter_errors(values)) == []
    values["views"]["top"]["camera"]["kind"] = "genecam"
    values["views"]["side"]["modle"] = "x"
    assert len(list(validator.iter_errors(values))) == 2
