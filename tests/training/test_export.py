"""From a run to one model file: what is in it, that it judges like the network, and that it is never half written."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest

from datasets.load import Loader
from inspection.errors import ConfigInvalid, OutputUnwritable, PromiseBroken, ProviderUnavailable
from inspection.inspector import Inspector
from inspection.modelfile import OperatingPoint, read_card
from inspection.pixels import read_image
from training.config import Asks
from training.export import Naming, asks_of, attach, export, gate
from training.run import Calibrated, Run
from training.scoring import score

pytestmark = pytest.mark.train

COMMAND = str(Path(sys.executable).with_name("inspection"))


def test_the_file_holds_all_that_a_plant_must_know(exported: Path, trained: Run) -> None:
    card = read_card(exported)
    assert card.operating_point is not None
    assert card.operating_point.pixel_above is not None
    assert card.calibration is not None
    assert [bound.kind for bound in card.calibration.bounds] == ["escape", "overkill"]
    assert card.certificate is not None
    assert (card.network, card.task, card.precision) == ("defectnet", "defect", "fp32")
    assert card.weights_licence == "Apache-2.0"
    assert card.data.fingerprint == trained.dataset().fingerprint()
    assert {"torch", "onnx", "onnxruntime", "opset"} <= card.versions.keys()
    assert card.training["seed"] == 0
    assert [path.name for path in exported.parent.iterdir()] == ["model.onnx"]


def test_the_thresholds_are_those_that_training_chose(exported: Path, trained: Run) -> None:
    calibrated, card = trained.calibrated(), read_card(exported)
    assert calibrated is not None
    assert card.operating_point is not None
    assert card.operating_point.ok_below == pytest.approx(calibrated.operating_point.ok_below, abs=1e-4)
    assert card.operating_point.pixel_above == pytest.approx(calibrated.operating_point.pixel_above, abs=1e-2)


def test_a_plain_onnxruntime_user_gets_the_network_s_scores_from_raw_pixels_in_any_batch(
    exported: Path, trained: Run
) -> None:
    samples = trained.dataset().of("test").samples[:5]
    loader = Loader(trained.spec)
    reference = score(trained.network(), samples, loader)
    session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
    pixels = np.stack([loader.load(sample).pixels for sample in samples])
    for batch in (pixels, pixels[:1]):
        (given,) = session.run(["score"], {"pixels": batch})
        np.testing.assert_allclose(given, reference.score[: len(batch)], rtol=1e-4, atol=1e-4)


def test_the_certificate_covers_every_calibration_and_test_image_by_every_device_here(
    exported: Path, trained: Run
) -> None:
    certificate = read_card(exported).certificate
    assert certificate is not None
    dataset = trained.dataset()
    for parity in certificate.parities:
        assert parity.images == len(dataset.of("calibration")) + len(dataset.of("test"))
        assert parity.flips == 0
        assert parity.max_difference < 1e-4
        assert parity.max_map_difference is not None
        assert parity.max_map_difference < 1e-4
    assert [parity.provider for parity in certificate.parities] == ["cpu"]


def test_golden_images_are_network_inputs_to_the_bit_and_each_start_scores_them(exported: Path, trained: Run) -> None:
    certificate = read_card(exported).certificate
    assert certificate is not None
    assert 3 <= len(certificate.goldens) <= 6
    loader = Loader(trained.spec)
    inputs = {sample.path.name: [] for sample in trained.dataset()}  # type: ignore[var-annotated]
    for sample in trained.dataset():
        inputs[sample.path.name].append(loader.load(sample).pixels.tobytes())
    for golden in certificate.goldens:
        stored = cv2.imdecode(np.frombuffer(base64.b64decode(golden.pixels), np.uint8), cv2.IMREAD_UNCHANGED)
        assert stored.tobytes() in inputs[golden.name.split(", ")[1]]
    with Inspector(exported, provider="cpu") as inspector:
        assert inspector.start_seconds["self_test"] > 0


def test_the_extremes_and_the_neighbours_of_the_thresholds_are_golden(exported: Path) -> None:
    card = read_card(exported)
    assert card.certificate is not None
    assert card.calibration is not None
    scores = [golden.score for golden in card.certificate.goldens]
    # Test images count too, so the extremes lie at or beyond those of calibration.
    assert min(scores) <= card.calibration.good[0] + 1e-4
    assert max(scores) >= card.calibration.bad[-1] - 1e-4


def _with_bias(change: Callable[[Any], Any]) -> Callable[[onnx.ModelProto], None]:
    """Makes the graph another one than the network's: its decision's bias moves."""

    def spoil(model: onnx.ModelProto) -> None:
        tensor = next(t for t in model.graph.initializer if t.name == "decide.linear.bias")
        tensor.CopyFrom(onnx.numpy_helper.from_array(change(onnx.numpy_helper.to_array(tensor)), tensor.name))

    return spoil


def test_a_file_that_scores_otherwise_is_refused_and_nothing_is_left(
    trained: Run, tmp_path: Path, traced_before: list[Any]
) -> None:
    traced_before.append(_with_bias(lambda bias: bias + np.float32(0.5)))
    with pytest.raises(PromiseBroken, match="moved by"):
        export(trained, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_refused_export_leaves_the_old_file(trained: Run, tmp_path: Path, traced_before: list[Any]) -> None:
    old = tmp_path / "model.onnx"
    old.write_bytes(b"the old file")
    traced_before.append(_with_bias(lambda bias: bias * np.float32(np.nan)))
    with pytest.raises(PromiseBroken, match="cannot judge"):
        export(trained, old)
    assert old.read_bytes() == b"the old file"
    assert len(list(tmp_path.iterdir())) == 1


def test_other_rates_are_promised_without_training_again(
    trained: Run, exported: Path, tmp_path: Path, traced_before: list[Any]
) -> None:
    asks = asks_of(trained.config.asks, max_escape="90%", max_overkill="90%")
    card = export(trained, tmp_path / "loose.onnx", asks=asks)
    before = read_card(exported)
    assert card.calibration is not None
    assert before.calibration is not None
    assert [bound.asked for bound in card.calibration.bounds] == [0.9, 0.9]
    assert card.calibration.good == pytest.approx(before.calibration.good)
    for loose, strict in zip(card.calibration.bounds, before.calibration.bounds, strict=True):
        assert loose.upper > strict.upper  # more errors were allowed


def test_costs_replace_rates_and_rates_replace_costs() -> None:
    asks = Asks(max_escape=0.1, confidence=0.9)
    costly = asks_of(asks, escape_cost=100.0, overkill_cost=1.0)
    assert (costly.max_escape, costly.escape_cost, costly.confidence) == (None, 100.0, 0.9)
    back = asks_of(costly, max_overkill="2%")
    assert (back.escape_cost, back.max_overkill) == (None, 0.02)
    with pytest.raises(ConfigInvalid):
        asks_of(asks, max_escape="nonsense")


def test_a_device_that_is_not_there_is_refused_by_name(trained: Run, tmp_path: Path) -> None:
    with pytest.raises(ProviderUnavailable):
        export(trained, tmp_path / "model.onnx", provider="tensorrt")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_said_so(trained: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputUnwritable):
        export(trained, tmp_path / "file" / "model.onnx")


def test_attaching_a_card_twice_leaves_one(exported: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.onnx"
    copy.write_bytes(exported.read_bytes())
    card = read_card(copy).model_copy(update={"name": "other"})
    attach(copy, card)
    assert read_card(copy) == card
    assert [item.key for item in onnx.load(copy).metadata_props].count("inspection") == 1


def _calibrated(good: list[float], bad: list[float], threshold: float) -> Calibrated:
    from training.operating import choose

    _, calibration = choose(good, bad)
    return Calibrated(operating_point=OperatingPoint(ok_below=threshold, ng_above=threshold), calibration=calibration)


def test_smaller_numbers_may_cost_what_chance_explains_and_no_more() -> None:
    good, bad = list(np.linspace(0, 1, 100)), list(np.linspace(2, 3, 100))
    reference = _calibrated(good, bad, 1.5)
    # none of 100 wrong in float32: its exact bound at 95 % is 2.95 %, so two may be and three may not
    gate(reference, _calibrated([*good[:-2], 1.6, 1.7], bad, 1.5), "int8")
    with pytest.raises(PromiseBroken, match=r"3 of 100 good .* in float32 these are 0, and up to 2"):
        gate(reference, _calibrated([*good[:-3], 1.6, 1.7, 1.8], bad, 1.5), "int8")
    with pytest.raises(PromiseBroken, match="of 100 bad"):
        gate(reference, _calibrated(good, [1.2, 1.3, 1.4, *bad[3:]], 1.5), "int8")


def test_smaller_numbers_may_not_name_kinds_worse_than_chance_explains(trained: Run) -> None:
    naming = Naming(trained)
    naming.total, naming.network, naming.file = 100, 0, 2
    naming.gate(0.95, "fp16")
    naming.file = 3
    with pytest.raises(
        PromiseBroken, match="name the kind of 3 of 100 calibration images rightly; in float32 these are 0"
    ):
        naming.gate(0.95, "fp16")


@pytest.mark.slow
def test_a_16_bit_colour_classifier_exports_and_keeps_its_depth(
    train_small: Any, colours16: Path, tmp_path: Path
) -> None:
    run = train_small(colours16, steps=4, model={"kind": "classifier"})
    for precision in ("fp32", "fp16"):
        card = export(run, tmp_path / f"{precision}.onnx", precision)  # type: ignore[arg-type]
        assert (card.input.channels, card.input.bit_depth) == (3, 16)
        assert card.classes == ["good", "scrape", "scratch"]
        sample = run.dataset().of("test").samples[0]
        image = read_image(sample.path)
        assert image.dtype == np.uint16
        with Inspector(tmp_path / f"{precision}.onnx", provider="cpu") as inspector:
            bright = inspector.inspect(np.full_like(image, 65535))  # a white pixel does not fit into a float16
            assert np.isfinite(bright.score)


@pytest.mark.slow
def test_killed_at_any_moment_there_is_the_old_file_or_the_new_one(trained: Run, tmp_path: Path) -> None:
    out = tmp_path / "model.onnx"
    out.write_bytes(b"old")
    for delay in (3.0, 7.0, 11.0):
        process = subprocess.Popen(
            [COMMAND, "export", str(trained.path), "--out", str(out)],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        time.sleep(delay)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if out.read_bytes() != b"old":
            assert read_card(out).certificate is not None
    done = subprocess.run(
        [COMMAND, "export", str(trained.path), "--out", str(out), "--json"], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout)["certificate"]["parities"][0]["flips"] == 0
