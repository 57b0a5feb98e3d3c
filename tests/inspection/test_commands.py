"""The commands of this room, as a user and as a script meet them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from inspection import cli, engine
from inspection.bench import _numbers
from inspection.doctor import PROBE, examine, probe
from inspection.errors import ConfigInvalid
from inspection.modelfile import Tiling
from tests.support import graphs

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # onnxruntime warns when a provider is not granted


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["inspection", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return int(caught.value.code or 0)


def image(path: Path, value: int, colour: int | None = None) -> Path:
    pixels = np.full((80, 100, 3), value if colour is None else 10, np.uint8)
    if colour is not None:
        pixels[..., colour] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), pixels[..., ::-1])
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return graphs.model_file(tmp_path / "model.onnx", classes=("red", "green", "blue"))


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ([10, 20], 0),
        ([10, 250], 10),
        ([10, 128], 11),
        ([10, 128, 250], 10),
        ([10, 128, 250, None], 12),
        ([10, None], 12),
    ],
)
def test_a_script_can_branch_on_the_exit_code(
    values: list[int | None], code: int, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = []
    for index, value in enumerate(values):
        path = tmp_path / "in" / f"{index}.png"
        if value is None:
            path.write_bytes(b"broken")
        else:
            image(path, value)
        images.append(path)
    assert run(monkeypatch, "judge", model, *images) == code
    assert run(monkeypatch, "judge", model, tmp_path / "in") == code


def test_the_table_says_what_a_person_wants_to_know(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    image(tmp_path / "in" / "good.png", 10)
    image(tmp_path / "in" / "unsure.png", 128)
    image(tmp_path / "in" / "bad [x].png", 250)
    (tmp_path / "in" / "broken.png").write_bytes(b"")
    run(monkeypatch, "judge", model, tmp_path / "in", tmp_path / "missing.png")
    lines = {line.split()[0].rpartition("/")[2]: line for line in capsys.readouterr().out.splitlines() if line}
    assert "OK" in lines["good.png"]
    assert "REVIEW" in lines["unsure.png"]
    assert "between the thresholds" in lines["unsure.png"]
    assert "NG" in lines["bad"]
    assert "bad [x].png" in lines["bad"]
    assert "0.98" in lines["bad"]
    assert "1, worst 100 x 80 at 0,0" in lines["bad"]
    assert "empty" in lines["broken.png"]
    assert "No such file" in lines["missing.png"]
    assert lines["5"] == "5 images: 1 OK, 1 NG, 1 REVIEW, 2 ERROR"


@pytest.mark.parametrize(("index", "colour"), [(0, "red"), (1, "green"), (2, "blue")])
def test_a_red_image_arrives_red_through_the_command_line(
    index: int,
    colour: str,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = image(tmp_path / "part.png", 240, colour=index)
    assert run(monkeypatch, "judge", model, path, "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["kind"] == colour
    assert result["name"] == str(path)
    assert result["size"] == {"width": 100, "height": 80}


def test_16_bit_keep_their_depth_through_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = graphs.model_file(tmp_path / "m.onnx", graphs.spec(channels=1, bit_depth=16))
    for index, value in enumerate((30_000, 30_001)):
        cv2.imwrite(str(tmp_path / f"{index}.tiff"), np.full((64, 64), value, np.uint16))
    run(monkeypatch, "judge", model, tmp_path / "0.tiff", tmp_path / "1.tiff", "--json")
    low, high = (json.loads(line)["score"] for line in capsys.readouterr().out.splitlines())
    assert high - low == pytest.approx(1 / 65535, rel=0.05)


def test_json_is_one_object_a_line_and_nothing_else(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for index in range(3):
        image(tmp_path / f"{index}.png", 250)
    (tmp_path / "9.png").write_bytes(b"x")
    assert run(monkeypatch, "judge", model, tmp_path, "--json") == 12
    results = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [result["verdict"] for result in results] == ["NG", "NG", "NG", "ERROR"]
    assert results[3]["score"] is None
    assert results[3]["code"] == "image-unreadable"


def test_pictures_are_drawn_for_each_image_also_where_names_are_alike(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    image(tmp_path / "a" / "part.png", 250)
    image(tmp_path / "b" / "part.png", 10)
    (tmp_path / "b" / "broken.png").write_bytes(b"x")
    out = tmp_path / "a" / "out"  # inside a folder that is searched: must not be judged in the next run
    for _ in range(2):
        run(monkeypatch, "judge", model, tmp_path / "a", tmp_path / "b", "--overlay", out)
        assert sorted(path.name for path in out.iterdir()) == ["part-2.png", "part.png"]
        assert "3 images" in capsys.readouterr().out
    drawn = cv2.imread(str(out / "part.png"))
    assert drawn.shape == (80, 100, 3)
    np.testing.assert_array_equal(drawn[79, 50][::-1], (213, 94, 0))


def test_pictures_that_cannot_be_written_are_one_error(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("x")
    code = run(monkeypatch, "judge", model, image(tmp_path / "a.png", 10), "--overlay", tmp_path / "file")
    assert code == 6
    assert "output-unwritable" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "code", "word"),
    [
        (["--ok-below", "0.9", "--ng-above", "0.2"], 2, "OK and NG at once"),
        (["--ok-below", "0.99"], 2, "OK and NG at once"),
        (["--tile", "--scale", "0"], 2, "scale"),
        (["--threads", "0"], 2, "threads"),
        (["--provider", "gpu"], 2, "unknown"),
        (["--provider", "tensorrt"], 4, "tensorrt"),
    ],
)
def test_options_that_cannot_be_are_refused_with_the_reason(
    options: list[str],
    code: int,
    word: str,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(monkeypatch, "judge", model, image(tmp_path / "a.png", 10), *options) == code
    shown = capsys.readouterr()
    assert word in shown.err
    assert shown.out == ""


def test_thresholds_of_the_command_line_take_the_place_of_the_cards(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = image(tmp_path / "a.png", 128)
    assert run(monkeypatch, "judge", model, path) == 11
    assert run(monkeypatch, "judge", model, path, "--ok-below", "0.55") == 0
    assert run(monkeypatch, "judge", model, path, "--ng-above", "0.45") == 10
    bare = graphs.model_file(tmp_path / "bare.onnx", operating_point=None)
    assert run(monkeypatch, "judge", bare, path) == 11
    assert run(monkeypatch, "judge", bare, path, "--ok-below", "0.6", "--ng-above", "0.7") == 0
    assert run(monkeypatch, "judge", bare, path, "--ok-below", "0.6") == 2


def test_tiles_find_what_is_small(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.zeros((512, 512, 3), np.uint8)
    pixels[256:264, 256:264] = 255
    cv2.imwrite(str(tmp_path / "a.png"), pixels)
    assert run(monkeypatch, "judge", model, tmp_path / "a.png") == 0
    assert run(monkeypatch, "judge", model, tmp_path / "a.png", "--tile", "--overlap", "0.5") == 10


def test_a_folder_without_images_is_an_error(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / ".hidden.png").write_bytes(b"")
    (tmp_path / "empty" / "notes.txt").write_bytes(b"")
    assert run(monkeypatch, "judge", model, tmp_path / "empty") == 5
    assert "no image" in capsys.readouterr().err


# --- info -----------------------------------------------------------------------------------------------------------


def test_info_tells_a_person_what_the_model_takes_and_promises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    of = graphs.spec(channels=1, bit_depth=12, resize="letterbox")
    proof = graphs.certificate([graphs.golden(np.zeros((64, 64, 1), np.uint16), of)])
    path = graphs.model_file(tmp_path / "m.onnx", of, certificate=proof)
    assert run(monkeypatch, "info", path) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for words in (
        "mono images of 12 bit, brought to 64 x 64 by letterbox",
        "OK below 0.4, NG from 0.6 on, REVIEW between",
        "chosen from 3 good and 2 bad images",
        "0 of 2 bad parts called OK; at most 77.64% with 95% confidence",
        "asked: at most 1.00%, NOT proven; 297 more such parts",
        "0 of 3 good parts called NG; at most 63.16%",
        "0 verdicts flipped on 10 images",
        "1 golden images are scored again at every start",
        "train: 3 good, 2 defect",
        "licence: Apache-2.0",
        "seed 0",
        "sha256",
    ):
        assert words in shown, words


def test_info_tells_of_tiles_and_of_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = graphs.model_file(tmp_path / "m.onnx", operating_point=None, calibration=None, tiling=Tiling(overlap=0.5))
    assert run(monkeypatch, "info", path) == 0
    shown = capsys.readouterr().out
    assert "cut into tiles of 64 x 64 with 50% overlap" in shown
    assert "every verdict is REVIEW" in shown
    assert "nobody proved" in shown


def test_info_as_json_is_the_card_and_no_image(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "info", model, "--json") == 0
    values = json.loads(capsys.readouterr().out)
    assert values["classes"] == ["red", "green", "blue"]
    assert values["bytes"] == model.stat().st_size
    assert "pixels" not in json.dumps(values)


# --- doctor ---------------------------------------------------------------------------------------------------------


def test_the_doctors_tiny_model_is_the_one_that_the_onnx_package_makes() -> None:
    assert graphs.probe().SerializeToString() == PROBE


def test_a_healthy_machine_is_called_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "doctor", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    found = {finding["what"]: finding for finding in report["findings"]}
    assert report["healthy"] is True
    assert found["device cpu"]["state"] == "good"
    assert {"python", "numpy", "onnxruntime", "processor", "memory", "temporary files"} <= set(found)
    assert run(monkeypatch, "doctor") == 0
    assert "This machine can judge." in capsys.readouterr().out


def test_a_device_that_is_offered_and_does_not_run_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "offered", lambda: ["cpu", "cuda"])
    found = {finding.what: finding for finding in examine()}
    assert found["device cuda"].state == "note"
    assert "does not run" in found["device cuda"].found
    assert "not in this onnxruntime" in found["device openvino"].found


def test_a_device_that_computes_wrongly_is_not_called_good(monkeypatch: pytest.MonkeyPatch) -> None:
    import inspection.doctor

    wrong = graphs.probe()
    wrong.graph.initializer[1].CopyFrom(inspection_bias(2.0))
    monkeypatch.setattr(inspection.doctor, "PROBE", wrong.SerializeToString())
    with pytest.raises(engine.ProviderUnavailable, match="computes 5 where 4"):
        probe("cpu")


def inspection_bias(value: float) -> Any:
    from onnx import numpy_helper

    return numpy_helper.from_array(np.array([value], np.float32), "bias")


def test_a_machine_without_room_for_temporary_files_is_not_healthy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    assert run(monkeypatch, "doctor") == 1
    assert "cannot judge as it is" in capsys.readouterr().out


# --- bench ----------------------------------------------------------------------------------------------------------


def test_bench_gives_every_stage_and_every_ratio(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = image(tmp_path / "a.png", 10)
    options = ["--image", path, "--threads", "1", "--batches", "1,2", "--seconds", "0.1"]
    assert run(monkeypatch, "bench", model, *options, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert set(report["stages"]) == {"decode", "prepare", "network", "postprocess", "whole"}
    stages = {name: timing["p50"] for name, timing in report["stages"].items()}
    parts = stages["decode"] + stages["prepare"] + stages["network"] + stages["postprocess"]
    assert 0 < parts <= report["stages"]["whole"]["p99"] * 1.5
    assert all(timing["p10"] <= timing["p50"] <= timing["p99"] for timing in report["stages"].values())
    assert [(speed["threads"], speed["batch"]) for speed in report["speeds"]] == [(1, 1), (1, 2)]
    for speed in report["speeds"]:
        assert speed["ratio"] == pytest.approx(speed["bare"] / speed["inspector"], rel=1e-6)
    assert report["overhead"] == pytest.approx(report["inspect"]["p10"] / report["bare"]["p10"])
    assert report["verdict"] == "OK"
    assert run(monkeypatch, "bench", model, "--threads", "1", "--batches", "1", "--seconds", "0.1") == 0
    assert "cold start" in capsys.readouterr().out


def test_bench_works_for_16_bit_mono(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = graphs.model_file(tmp_path / "m.onnx", graphs.spec(channels=1, bit_depth=10))
    assert run(monkeypatch, "bench", path, "--threads", "1", "--batches", "2", "--seconds", "0.1", "--json") == 0
    assert json.loads(capsys.readouterr().out)["speeds"][0]["batch"] == 2


@pytest.mark.parametrize(("text", "numbers"), [("1..4", [1, 2, 3, 4]), ("1,2,8", [1, 2, 8]), ("3", [3])])
def test_lists_of_numbers(text: str, numbers: list[int]) -> None:
    assert _numbers(text, "--threads") == numbers


@pytest.mark.parametrize("text", ["", "0", "4..1", "a", "1,,2", "1..", "-2"])
def test_what_is_no_list_of_numbers_is_refused(text: str) -> None:
    with pytest.raises(ConfigInvalid):
        _numbers(text, "--threads")
