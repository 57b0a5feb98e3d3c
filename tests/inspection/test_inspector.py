"""Judging an image with a model file, from its start to its verdict."""

from __future__ import annotations

import base64
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inspection import Inspector, OperatingPoint, Tiling, Verdict
from inspection.errors import CertificateMismatch, ImageUnreadable, InputMismatch, InspectionError, ModelInvalid
from inspection.modelfile import InputSpec, file_hash
from inspection.pixels import prepare
from tests.inspection.conftest import COLOURS, plain
from tests.support import graphs


@pytest.mark.parametrize(("value", "verdict"), [(50, Verdict.OK), (128, Verdict.REVIEW), (250, Verdict.NG)])
def test_a_verdict_follows_from_the_score_and_the_thresholds(
    inspector: Inspector, value: int, verdict: Verdict
) -> None:
    result = inspector.inspect(plain(value, (100, 130, 3)))
    assert result.verdict is verdict
    assert result.score == pytest.approx(value / 255, abs=1e-5)
    assert result.size == (130, 100)
    assert result.map is not None
    assert result.map.full().shape == (100, 130)
    assert set(result.seconds) == {"prepare", "network", "postprocess"}


@pytest.mark.parametrize(("index", "colour"), list(enumerate(COLOURS)))
@pytest.mark.parametrize("ending", ["png", "bmp", "tiff", "jpg"])
def test_a_red_image_arrives_red_at_the_network(
    inspector: Inspector, tmp_path: Path, index: int, colour: str, ending: str
) -> None:
    image = plain(20)
    image[..., index] = 240
    path = tmp_path / f"{colour}.{ending}"
    cv2.imwrite(str(path), image[..., ::-1])
    from_array, from_file = inspector.inspect(image), inspector.inspect(path)
    for result in (from_array, from_file):
        assert result.kind == colour
        assert result.classes is not None
        assert result.classes[colour] == pytest.approx(240 / 255, abs=0.02)
        assert sum(result.classes.values()) == pytest.approx(280 / 255, abs=0.05)
    assert from_file.name == str(path)
    assert "decode" in from_file.seconds


@pytest.mark.parametrize("bits", [10, 12, 16])
def test_more_than_8_bit_keep_their_depth(tmp_path: Path, bits: int) -> None:
    spec = graphs.spec(channels=1, bit_depth=bits)
    with Inspector(graphs.model_file(tmp_path / f"mono{bits}.onnx", spec), threads=1) as made:
        low, high = np.full((64, 64), 1 << (bits - 1), np.uint16), np.full((64, 64), (1 << (bits - 1)) + 1, np.uint16)
        cv2.imwrite(str(tmp_path / "low.png"), low)
        cv2.imwrite(str(tmp_path / "high.tiff"), high)
        scores = [made.inspect(tmp_path / name).score for name in ("low.png", "high.tiff")]
        assert scores[0] == pytest.approx((1 << (bits - 1)) / spec.white, abs=1e-6)
        assert scores[1] - scores[0] == pytest.approx(1 / spec.white, rel=0.05)
        with pytest.raises(InputMismatch, match=f"{bits} bit"):
            made.inspect(plain(128, (64, 64)))


def test_defects_are_in_pixels_of_the_original(inspector: Inspector) -> None:
    image = plain(0, (128, 256, 3))
    image[32:48, 64:128] = 255
    (defect,) = inspector.inspect(image).defects
    assert defect.box == (64, 32, 64, 16)
    assert defect.area == 64 * 16
    assert defect.score == pytest.approx(1.0)


MADE: dict[Path, Inspector] = {}


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(width=st.integers(8, 200), height=st.integers(8, 200), seed=st.integers(0, 1000))
@pytest.mark.parametrize("rule", ["stretch", "letterbox"])
def test_an_image_scores_what_its_prepared_pixels_score(
    tmp_path: Path, rule: str, width: int, height: int, seed: int
) -> None:
    spec = graphs.spec(height=64, width=96, channels=1, resize=rule)
    path = tmp_path / f"{rule}.onnx"
    made = MADE.setdefault(path, Inspector(path if path.exists() else graphs.model_file(path, spec), threads=1))
    image = np.random.default_rng(seed).integers(0, 255, (height, width)).astype(np.uint8)
    score, cells, _ = graphs.expected(prepare(image, spec)[0], spec)
    result = made.inspect(image)
    assert result.score == pytest.approx(score, abs=1e-5)
    assert result.map is not None
    np.testing.assert_allclose(result.map.values, cells, atol=1e-5)


def test_views_that_are_not_contiguous_are_judged_by_their_pixels(inspector: Inspector) -> None:
    wide = np.random.default_rng(0).integers(0, 255, (64, 128, 3)).astype(np.uint8)
    for view in (wide[:, ::2], wide[::-1, :64], wide[:, 40:104], wide[:, :64, ::-1]):
        assert inspector.inspect(view).classes == inspector.inspect(np.ascontiguousarray(view)).classes


def test_a_file_that_cannot_be_read_is_an_exception_when_judged_alone(inspector: Inspector, tmp_path: Path) -> None:
    with pytest.raises(ImageUnreadable):
        inspector.inspect(tmp_path / "missing.png")
    with pytest.raises(InputMismatch, match="mono") as caught:
        inspector.inspect(plain(3, (64, 64)), name="camera 1")
    assert caught.value.where == "camera 1"


# --- nothing is ever silently OK ------------------------------------------------------------------------------------


def test_class_scores_that_are_no_numbers_are_an_error_and_never_ok(tmp_path: Path) -> None:
    model = graphs.graph(classes=True)
    for node in model.graph.node:
        node.output[:] = ["sound" if name == "classes" else name for name in node.output]
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(np.nan, np.float32), "nan"))
    model.graph.node.append(onnx.helper.make_node("Mul", ["sound", "nan"], ["classes"]))
    path = graphs.write(tmp_path / "m.onnx", model, graphs.card(classes=["red", "green", "blue"]))
    with Inspector(path, threads=1, warmup=0) as made:
        judged = made.inspect(np.zeros((32, 32, 3), np.uint8))
    assert judged.verdict is Verdict.ERROR
    assert judged.classes is None
    assert "class scores" in (judged.reason or "")


@pytest.mark.parametrize("poison", ["nan", "inf"])
def test_a_score_that_is_no_number_is_an_error_and_never_ok(tmp_path: Path, poison: Any) -> None:
    with Inspector(graphs.model_file(tmp_path / "m.onnx", poison=poison), threads=1, warmup=0) as made:
        results = [made.inspect(plain(0)), *made.inspect_many([plain(0), plain(9)], batch=2)]
    assert [result.verdict for result in results] == [Verdict.ERROR, Verdict.ERROR, Verdict.OK]
    assert results[0].reason
    assert results[0].code == "inference-failed"
    assert math.isnan(results[0].score)


def test_a_tile_without_a_number_makes_the_whole_image_an_error(tmp_path: Path) -> None:
    path = graphs.model_file(tmp_path / "m.onnx", poison="nan")
    image = plain(250, (64, 256, 3))
    image[:, 128:192] = 0  # one black tile among bright ones
    with Inspector(path, threads=1, tiling=Tiling(overlap=0)) as made:
        assert made.inspect(image).verdict is Verdict.ERROR


def test_without_an_operating_point_everything_is_for_review(tmp_path: Path) -> None:
    with Inspector(graphs.model_file(tmp_path / "m.onnx", operating_point=None), threads=1) as made:
        for value in (0, 128, 255):
            result = made.inspect(plain(value))
            assert result.verdict is Verdict.REVIEW
            assert "operating point" in str(result.reason)


def test_another_operating_point_takes_the_place_of_the_cards(colours: Path) -> None:
    point = OperatingPoint(ok_below=0.9, ng_above=0.95)
    with Inspector(colours, threads=1, operating_point=point) as made:
        assert made.inspect(plain(200)).verdict is Verdict.OK
        assert made.inspect(plain(235)).verdict is Verdict.REVIEW
        assert made.inspect(plain(250)).verdict is Verdict.NG


# --- start ----------------------------------------------------------------------------------------------------------


def goldens(spec: InputSpec, **options: Any) -> list[Any]:
    rng = np.random.default_rng(5)
    shape = (spec.height, spec.width, spec.channels)
    images = [rng.integers(0, spec.white, shape).astype(spec.dtype) for _ in range(3)]
    return [graphs.golden(image, spec, name=f"golden-{index}", **options) for index, image in enumerate(images)]


@pytest.mark.parametrize(
    "spec",
    [graphs.spec(), graphs.spec(channels=1), graphs.spec(channels=1, bit_depth=12), graphs.spec(bit_depth=16)],
    ids=["rgb8", "mono8", "mono12", "rgb16"],
)
def test_a_model_whose_goldens_score_as_at_export_starts(tmp_path: Path, spec: InputSpec) -> None:
    path = graphs.model_file(tmp_path / "m.onnx", spec, certificate=graphs.certificate(goldens(spec), tolerance=1e-5))
    with Inspector(path, provider="cpu", threads=1) as made:
        assert made.start_seconds["self_test"] > 0
        assert made.model_hash == file_hash(path)
        assert made.provider == "cpu"
        assert set(made.start_seconds) == {"read", "session", "self_test", "warmup"}


@pytest.mark.parametrize("score", [0.9, -0.5, float("nan")])
def test_a_golden_that_scores_otherwise_stops_the_start(tmp_path: Path, score: float) -> None:
    spec = graphs.spec()
    proof = graphs.certificate([*goldens(spec)[:2], graphs.golden(plain(128), spec, score=score, name="the-third")])
    # JSON has no NaN: the card is forged as it would be read from a file that does.
    path = graphs.model_file(tmp_path / "m.onnx", spec, certificate=proof)
    if math.isnan(score):
        with pytest.raises(ModelInvalid):
            Inspector(path, threads=1)
        return
    with pytest.raises(CertificateMismatch, match="the-third") as caught:
        Inspector(path, threads=1)
    assert caught.value.exit_code == 4
    with Inspector(path, threads=1, self_test=False) as made:  # somebody who knows may look at it all the same
        assert made.inspect(plain(0)).verdict is Verdict.OK


def test_a_golden_that_moves_within_the_tolerance_does_not_stop_the_start(tmp_path: Path) -> None:
    spec = graphs.spec()
    near = graphs.golden(plain(128), spec, score=graphs.expected(plain(128), spec)[0] * 1.0009)
    far = graphs.golden(plain(128), spec, score=graphs.expected(plain(128), spec)[0] * 1.0011)
    Inspector(graphs.model_file(tmp_path / "a.onnx", spec, certificate=graphs.certificate([near])), threads=1).close()
    with pytest.raises(CertificateMismatch):
        Inspector(graphs.model_file(tmp_path / "b.onnx", spec, certificate=graphs.certificate([far])), threads=1)


@pytest.mark.parametrize("damage", ["text", "not base64 !", "size"])
def test_a_damaged_golden_image_stops_the_start(tmp_path: Path, damage: str) -> None:
    spec = graphs.spec()
    golden = graphs.golden(plain(7), spec)
    small = base64.b64encode(cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))[1].tobytes()).decode()
    golden = golden.model_copy(update={"pixels": small if damage == "size" else damage})
    path = graphs.model_file(tmp_path / "m.onnx", spec, certificate=graphs.certificate([golden]))
    with pytest.raises(ModelInvalid, match="golden"):
        Inspector(path, threads=1)


def test_a_closed_inspector_says_so(colours: Path) -> None:
    made = Inspector(colours, threads=1)
    made.close()
    with pytest.raises(InspectionError, match="closed"):
        made.inspect(plain(0))


def test_a_model_that_is_replaced_while_in_use_keeps_judging_as_before(tmp_path: Path) -> None:
    path = graphs.model_file(tmp_path / "m.onnx")
    with Inspector(path, threads=1) as made:
        path.write_bytes(b"other")
        assert made.inspect(plain(255)).verdict is Verdict.NG


# --- as others see it -----------------------------------------------------------------------------------------------


def test_importing_inspection_is_light() -> None:
    code = (
        "import sys, inspection; heavy = {'numpy', 'cv2', 'onnxruntime', 'torch', 'pydantic'} & set(sys.modules);"
        "assert not heavy, heavy; from inspection import Inspector; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_public_name_is_there() -> None:
    import inspection

    for name in inspection.__all__:
        assert getattr(inspection, name) is not None
    with pytest.raises(AttributeError):
        _ = inspection.Nothing
