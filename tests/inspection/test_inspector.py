"""Judging images with a model file, from its start to its verdicts."""

from __future__ import annotations

import base64
import math
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inspection import Inspector, OperatingPoint, Tiling, Verdict
from inspection.engine import Engine, Outputs
from inspection.errors import (
    CertificateMismatch,
    ConfigInvalid,
    ImageUnreadable,
    InferenceFailed,
    InputMismatch,
    InspectionError,
    ModelInvalid,
)
from inspection.modelfile import InputSpec, file_hash
from inspection.pixels import prepare
from tests.support import graphs

COLOURS = ("red", "green", "blue")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def inspector(folder: Path) -> Iterator[Inspector]:
    with Inspector(graphs.model_file(folder / "colours.onnx", classes=COLOURS), threads=1) as made:
        yield made


def plain(value: int, shape: tuple[int, ...] = (64, 64, 3)) -> Any:
    return np.full(shape, value, np.uint8)


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
def test_more_than_8_bit_keep_their_depth(folder: Path, tmp_path: Path, bits: int) -> None:
    spec = graphs.spec(channels=1, bit_depth=bits)
    with Inspector(graphs.model_file(folder / f"mono{bits}.onnx", spec), threads=1) as made:
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


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(width=st.integers(8, 200), height=st.integers(8, 200), seed=st.integers(0, 1000))
@pytest.mark.parametrize("rule", ["stretch", "letterbox"])
def test_an_image_scores_what_its_prepared_pixels_score(
    folder: Path, rule: str, width: int, height: int, seed: int
) -> None:
    spec = graphs.spec(height=64, width=96, channels=1, resize=rule)
    path = folder / f"{rule}.onnx"
    made = MADE.setdefault(path, Inspector(path if path.exists() else graphs.model_file(path, spec), threads=1))
    image = np.random.default_rng(seed).integers(0, 255, (height, width)).astype(np.uint8)
    score, cells, _ = graphs.expected(prepare(image, spec)[0], spec)
    result = made.inspect(image)
    assert result.score == pytest.approx(score, abs=1e-5)
    assert result.map is not None
    np.testing.assert_allclose(result.map.values, cells, atol=1e-5)


MADE: dict[Path, Inspector] = {}


def test_views_that_are_not_contiguous_are_judged_by_their_pixels(inspector: Inspector) -> None:
    wide = np.random.default_rng(0).integers(0, 255, (64, 128, 3)).astype(np.uint8)
    for view in (wide[:, ::2], wide[::-1, :64], wide[:, 40:104], wide[:, :64, ::-1]):
        assert inspector.inspect(view).classes == inspector.inspect(np.ascontiguousarray(view)).classes


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


def test_another_operating_point_takes_the_place_of_the_cards(folder: Path) -> None:
    point = OperatingPoint(ok_below=0.9, ng_above=0.95)
    with Inspector(folder / "colours.onnx", threads=1, operating_point=point) as made:
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


def test_a_closed_inspector_says_so(folder: Path) -> None:
    made = Inspector(folder / "colours.onnx", threads=1)
    made.close()
    with pytest.raises(InspectionError, match="closed"):
        made.inspect(plain(0))


def test_a_model_that_is_replaced_while_in_use_keeps_judging_as_before(tmp_path: Path) -> None:
    path = graphs.model_file(tmp_path / "m.onnx")
    with Inspector(path, threads=1) as made:
        path.write_bytes(b"other")
        assert made.inspect(plain(255)).verdict is Verdict.NG


# --- many images ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 3, 8])
@pytest.mark.parametrize("count", [0, 1, 3, 17])
def test_many_images_come_back_in_order_and_as_if_each_were_alone(inspector: Inspector, batch: int, count: int) -> None:
    rng = np.random.default_rng(3)
    images = [rng.integers(0, 255, (rng.integers(20, 90), rng.integers(20, 90), 3)).astype(np.uint8)] * 0
    for index in range(count):
        images.append(rng.integers(0, 1 + 15 * index, (20 + 3 * index, 90 - 2 * index, 3)).astype(np.uint8))
    many = list(inspector.inspect_many(((f"part {i}", image) for i, image in enumerate(images)), batch=batch))
    assert [result.name for result in many] == [f"part {i}" for i in range(count)]
    for image, result in zip(images, many, strict=True):
        alone = inspector.inspect(image)
        assert result.score == pytest.approx(alone.score, abs=1e-6)
        assert (result.verdict, result.defects, result.size) == (alone.verdict, alone.defects, alone.size)


def test_one_bad_item_costs_only_itself(inspector: Inspector, tmp_path: Path) -> None:
    good = tmp_path / "good.png"
    cv2.imwrite(str(good), plain(10))
    (tmp_path / "broken.png").write_bytes(good.read_bytes()[:40])
    items: list[Any] = [
        good,
        tmp_path / "broken.png",
        plain(10),
        tmp_path / "missing.png",
        ("mono", plain(10, (64, 64))),
        str(good),
        plain(10).astype(np.float32),
        None,
        ("nothing", None),
        ("empty", np.zeros((0, 5, 3), np.uint8)),
        ("one", plain(10), "too many"),
        good,
    ]
    results = list(inspector.inspect_many(items, batch=4))
    codes = [result.code for result in results]
    assert codes == [
        None,
        "image-unreadable",
        None,
        "image-unreadable",
        "input-mismatch",
        None,
        "input-mismatch",
        "input-mismatch",
        "input-mismatch",
        "input-mismatch",
        "input-mismatch",
        None,
    ]
    for result in results:
        assert (result.verdict is Verdict.ERROR) == (result.code is not None)
        assert (result.reason is not None) == (result.code is not None)
    assert results[1].name == str(tmp_path / "broken.png")
    assert results[2].name == "image 2"
    assert results[4].name == "mono"


class FailsOn(Engine):
    """The real engine, on a device that gives up whenever a batch holds an image of this value."""

    value = 77
    runs: list[int]

    def run(self, batch: Any) -> Outputs:
        self.runs.append(len(batch))
        if (batch == self.value).any():
            raise InferenceFailed("out of memory.")
        return super().run(batch)


def test_a_batch_that_fails_is_run_again_one_by_one(folder: Path) -> None:
    with Inspector(folder / "colours.onnx", threads=1) as made:
        assert made._engine is not None
        made._engine.__class__ = FailsOn
        made._engine.runs = []  # type: ignore[attr-defined]
        results = list(made.inspect_many([plain(10), plain(77), plain(250)], batch=3))
        assert made._engine.runs == [3, 1, 1, 1]  # type: ignore[attr-defined]
        assert [result.verdict for result in results] == [Verdict.OK, Verdict.ERROR, Verdict.NG]
        assert results[1].code == "inference-failed"
        with pytest.raises(InferenceFailed):
            made.inspect(plain(77))


def test_no_more_images_are_taken_than_are_needed_ahead(inspector: Inspector) -> None:
    taken = 0

    def endless() -> Iterator[Any]:
        nonlocal taken
        while True:
            taken += 1
            yield plain(10)

    results = inspector.inspect_many(endless(), batch=4)
    for seen in range(1, 30):
        next(results)
        assert taken <= seen + 3 * 4
    results.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("decode")]


def test_decoding_runs_beside_the_network(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the network is held in a run, the next batch is read all the same."""
    with Inspector(folder / "colours.onnx", threads=1) as made:
        assert made._engine is not None
        second_read = threading.Event()
        original_prepare, original_run = made._prepare, made._engine.run

        def prepare_and_tell(image: Any, name: str | None) -> Any:
            if name == "6":
                second_read.set()
            return original_prepare(image, name)

        def wait_and_run(batch: Any) -> Outputs:
            assert second_read.wait(10), "nobody read ahead"
            return original_run(batch)

        monkeypatch.setattr(made, "_prepare", prepare_and_tell)
        monkeypatch.setattr(made._engine, "run", wait_and_run)
        results = list(made.inspect_many([(str(index), plain(10)) for index in range(8)], batch=4))
    assert [result.verdict for result in results] == [Verdict.OK] * 8


def test_an_error_of_the_source_itself_is_not_hidden(inspector: Inspector) -> None:
    def breaking() -> Iterator[Any]:
        yield plain(1)
        raise OSError("camera gone")

    with pytest.raises(OSError, match="camera gone"):
        list(inspector.inspect_many(breaking()))


def test_a_batch_of_none_is_refused(inspector: Inspector) -> None:
    with pytest.raises(ConfigInvalid):
        list(inspector.inspect_many([plain(0)], batch=0))


def test_several_threads_may_judge_at_once(inspector: Inspector) -> None:
    scores: dict[int, list[float]] = {}

    def work(value: int) -> None:
        scores[value] = [inspector.inspect(plain(value)).score for _ in range(20)]

    threads = [threading.Thread(target=work, args=(value,)) for value in (10, 100, 200, 250)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for value, found in scores.items():
        assert found == [pytest.approx(value / 255, abs=1e-5)] * 20


# --- tiles ------------------------------------------------------------------------------------------------------------


def test_a_small_defect_in_a_large_image_is_found_by_tiles_alone(folder: Path) -> None:
    image = plain(0, (640, 800, 3))
    image[304:312, 400:408] = 255
    path = folder / "colours.onnx"
    with Inspector(path, threads=1) as whole, Inspector(path, threads=1, tiling=Tiling(overlap=0.25)) as tiled:
        assert whole.inspect(image).verdict is Verdict.OK
        for result in (tiled.inspect(image), *tiled.inspect_many([image])):
            assert result.verdict is Verdict.NG
            assert [defect.box for defect in result.defects] == [(400, 304, 8, 8)]
            assert result.size == (800, 640)
            assert result.map is not None
            assert result.map.full().shape == (640, 800)
            assert result.score == pytest.approx(1.0)


def test_tiles_of_a_resized_image_are_boxed_in_the_original(folder: Path) -> None:
    image = plain(0, (320, 400, 3))
    image[160:192, 208:240] = 255
    for scale in (0.5, 2.0):
        with Inspector(folder / "colours.onnx", threads=1, tiling=Tiling(overlap=0.5, scale=scale)) as made:
            assert [defect.box for defect in made.inspect(image).defects] == [(208, 160, 32, 32)]


def test_the_cards_tiling_is_used_unless_told_otherwise(tmp_path: Path) -> None:
    path = graphs.model_file(tmp_path / "m.onnx", tiling=Tiling(overlap=0))
    image = plain(0, (256, 256, 3))
    image[0:8, 0:8] = 255
    with Inspector(path, threads=1) as made:
        assert made.tiling == Tiling(overlap=0)
        assert made.inspect(image).verdict is Verdict.NG


def test_kinds_are_those_of_the_worst_tile(folder: Path) -> None:
    image = plain(0, (64, 640, 3))
    image[:, :64, 0] = 100
    image[:, 576:, 2] = 250  # the last of ten tiles, in the second micro-batch
    with Inspector(folder / "colours.onnx", threads=1, tiling=Tiling(overlap=0)) as made:
        assert made.inspect(image).kind == "blue"


# --- as others see it -------------------------------------------------------------------------------------------------


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


def test_a_file_that_cannot_be_read_is_an_exception_when_judged_alone(inspector: Inspector, tmp_path: Path) -> None:
    with pytest.raises(ImageUnreadable):
        inspector.inspect(tmp_path / "missing.png")
    with pytest.raises(InputMismatch, match="mono") as caught:
        inspector.inspect(plain(3, (64, 64)), name="camera 1")
    assert caught.value.where == "camera 1"
