"""Smaller numbers: what is converted, what stays, and that the file is still the network."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from datasets.load import Loader
from inspection.errors import PromiseBroken
from inspection.modelfile import ModelCard, read_card
from tests.training.conftest import Train
from training.export import export
from training.quantise import to_fp16, to_int8
from training.run import Run

pytestmark = pytest.mark.train


@pytest.fixture
def graph(exported: Path, tmp_path: Path) -> Path:
    """A copy of a trained network's graph."""
    return Path(shutil.copy(exported, tmp_path / "graph.onnx"))


def _scores(path: Path, pixels: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"pixels": pixels}), strict=True))


def _inputs(run: Run) -> NDArray[Any]:
    loader = Loader(run.spec)
    return np.stack([loader.load(sample).pixels for sample in run.dataset().of("test").samples])


def _types(path: Path) -> dict[str, int]:
    model = onnx.load(path)
    return {value.name: value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)}


def test_fp16_halves_the_weights_and_keeps_inputs_and_outputs(graph: Path, trained: Run) -> None:
    pixels, before, size = _inputs(trained), _scores(graph, _inputs(trained)), graph.stat().st_size
    types = _types(graph)
    to_fp16(graph)
    assert _types(graph) == types
    weights = Counter(t.data_type for t in onnx.load(graph).graph.initializer if np.prod(t.dims) > 100)
    assert set(weights) == {TensorProto.FLOAT16}
    assert graph.stat().st_size < 0.65 * size
    after = _scores(graph, pixels)
    for name, values in before.items():
        scale = np.abs(values).max()
        assert 0 < np.abs(after[name] - values).max() < 0.02 * scale


def test_int8_quarters_the_weights_and_keeps_inputs_and_outputs(graph: Path, trained: Run) -> None:
    pixels, before, size = _inputs(trained), _scores(graph, _inputs(trained)), graph.stat().st_size
    types = _types(graph)
    to_int8(graph, trained.dataset().of("train").samples, Loader(trained.spec))
    assert _types(graph) == types
    assert graph.stat().st_size < 0.6 * size
    kinds = Counter(node.op_type for node in onnx.load(graph).graph.node)
    assert kinds["QuantizeLinear"] > 10
    after = _scores(graph, pixels)
    assert np.corrcoef(before["score"], after["score"])[0, 1] > 0.9


def test_what_carries_the_score_stays_float(graph: Path, trained: Run) -> None:
    to_int8(graph, trained.dataset().of("train").samples, Loader(trained.spec))
    model = onnx.load(graph)
    makers = {name: node for node in model.graph.node for name in node.output}
    for output in model.graph.output:
        node = makers[output.name]
        while node.op_type != "Conv":
            node = makers[next(name for name in node.input if name in makers)]
            assert node.op_type not in ("DequantizeLinear", "QuantizeLinear")


def _white_graph(path: Path) -> None:
    """16-bit pixels, scaled, through one convolution of one cell, to their mean: score = 3 * mean / 65535 + 1."""
    nodes = [
        helper.make_node("Transpose", ["pixels"], ["turned"], "turn", perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["turned"], ["floats"], "cast", to=TensorProto.FLOAT),
        helper.make_node("Div", ["floats", "white"], ["scaled"], "scale"),
        helper.make_node("Conv", ["scaled", "w", "b"], ["convolved"], "conv"),
        helper.make_node("Relu", ["convolved"], ["relu"], "relu"),
        helper.make_node("Conv", ["relu", "w2"], ["second"], "conv2"),
        helper.make_node("ReduceMean", ["second", "axes"], ["score"], "mean", keepdims=0),
    ]
    weights = [
        numpy_helper.from_array(np.array(65535, np.float32), "white"),
        numpy_helper.from_array(np.full((1, 1, 1, 1), 3, np.float32), "w"),
        numpy_helper.from_array(np.ones(1, np.float32), "b"),
        numpy_helper.from_array(np.ones((1, 1, 1, 1), np.float32), "w2"),
        numpy_helper.from_array(np.array([1, 2, 3]), "axes"),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "white",
        [value("pixels", TensorProto.UINT16, ["N", 32, 32, 1])],
        [value("score", TensorProto.FLOAT, ["N"])],
        weights,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)


def test_a_white_16_bit_pixel_survives_float16(tmp_path: Path) -> None:
    path = tmp_path / "white.onnx"
    _white_graph(path)
    to_fp16(path)
    (score,) = _scores(path, np.full((1, 32, 32, 1), 65535, np.uint16))["score"]
    assert score == pytest.approx(4, rel=1e-3)
    assert {t.name for t in onnx.load(path).graph.initializer} == {"white", "w.half", "b.half", "w2.half", "axes"}


def test_weights_that_float16_cannot_hold_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "white.onnx"
    _white_graph(path)
    model = onnx.load(path)
    tensor = next(t for t in model.graph.initializer if t.name == "w")
    tensor.CopyFrom(numpy_helper.from_array(np.full((1, 1, 1, 1), 1e5, np.float32), "w"))
    onnx.save(model, path)
    with pytest.raises(PromiseBroken, match="`w` do not fit"):
        to_fp16(path)


def test_int8_without_images_to_measure_is_refused(graph: Path, trained: Run) -> None:
    with pytest.raises(PromiseBroken, match="training split is empty"):
        to_int8(graph, (), Loader(trained.spec))


@pytest.fixture
def in_eight_bits(train_small: Train, commutators: Path) -> Run:
    """A run whose network bears 8 bits on any processor; EfficientNet-Lite, trained this shortly, does not."""
    model = {"kind": "defectnet", "width": 16, "backbone": "resnet18", "weights": "random"}
    run: Run = train_small(commutators, model=model)
    return run


def test_a_16_bit_file_has_its_own_thresholds_and_the_same_promises(
    trained: Run, exported: Path, tmp_path: Path, traced_before: list[Any]
) -> None:
    _same_promises(export(trained, tmp_path / "model.onnx", "fp16"), tmp_path / "model.onnx", read_card(exported))


@pytest.mark.slow
def test_an_8_bit_file_has_its_own_thresholds_and_the_same_promises(in_eight_bits: Run, tmp_path: Path) -> None:
    float_card = export(in_eight_bits, tmp_path / "float.onnx")
    _same_promises(export(in_eight_bits, tmp_path / "model.onnx", "int8"), tmp_path / "model.onnx", float_card)


def _same_promises(card: ModelCard, path: Path, float_card: ModelCard) -> None:
    assert read_card(path) == card
    assert card.calibration is not None
    assert float_card.calibration is not None
    assert card.operating_point != float_card.operating_point
    for ours, theirs in zip(card.calibration.bounds, float_card.calibration.bounds, strict=True):
        assert (ours.upper, ours.held) == (theirs.upper, theirs.held)  # the rank depends on counts alone
    assert card.certificate is not None
    assert card.certificate.parities[0].precision == card.precision != "fp32"
