"""Sessions: the device that was asked for, and graphs that keep the contract."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from inspection import engine
from inspection.engine import Engine
from inspection.errors import ConfigInvalid, ModelInvalid, ProviderUnavailable
from inspection.modelfile import InputSpec, ModelCard
from tests.support import graphs

MONO16 = InputSpec(height=64, width=96, channels=1, bit_depth=12)


def made(model: onnx.ModelProto | None = None, card: ModelCard | None = None, **options: Any) -> Engine:
    return Engine((model or graphs.graph()).SerializeToString(), card or graphs.card(), threads=1, **options)


@pytest.mark.parametrize("spec", [graphs.spec(), MONO16, graphs.spec(bit_depth=16)], ids=["rgb8", "mono12", "rgb16"])
@pytest.mark.parametrize("batch", [1, 3])
def test_outputs_are_those_of_the_graph(spec: InputSpec, batch: int) -> None:
    ready = made(graphs.graph(spec, classes=True), graphs.card(spec, classes=["a", "b", "c"][: spec.channels]))
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, spec.white, (batch, spec.height, spec.width, spec.channels)).astype(spec.dtype)
    outputs = ready.run(pixels)
    for index in range(batch):
        score, cells, classes = graphs.expected(pixels[index], spec)
        assert outputs.score[index] == pytest.approx(score, abs=1e-5)
        assert outputs.map is not None
        assert outputs.classes is not None
        np.testing.assert_allclose(outputs.map[index], cells, atol=1e-5)
        np.testing.assert_allclose(outputs.classes[index], classes, atol=1e-5)


def test_a_graph_without_map_and_classes_is_enough() -> None:
    outputs = made(graphs.graph(maps=False)).run(np.zeros((1, 64, 64, 3), np.uint8))
    assert outputs.map is None
    assert outputs.classes is None


def without_score(model: onnx.ModelProto) -> onnx.ModelProto:
    del model.graph.output[0]
    return model


def renamed_input(model: onnx.ModelProto) -> onnx.ModelProto:
    model.graph.input[0].name = "x"
    for node in model.graph.node:
        node.input[:] = ["x" if name == "pixels" else name for name in node.input]
    return model


def two_inputs(model: onnx.ModelProto) -> onnx.ModelProto:
    model.graph.input.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, ["N"]))
    return model


def column_of_scores(model: onnx.ModelProto) -> onnx.ModelProto:
    for node in model.graph.node:
        if node.output[0] == "score":
            node.CopyFrom(helper.make_node("Unsqueeze", ["top", "channel"], ["score"]))
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("score", TensorProto.FLOAT, ["N", 1]))
    return model


def whole_scores(model: onnx.ModelProto) -> onnx.ModelProto:
    for node in model.graph.node:
        if node.output[0] == "score":
            node.CopyFrom(helper.make_node("Cast", ["top"], ["score"], to=TensorProto.INT32))
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.INT32
    return model


@pytest.mark.parametrize(
    ("model", "card", "word"),
    [
        (without_score(graphs.graph()), graphs.card(), "no `score`"),
        (renamed_input(graphs.graph()), graphs.card(), "`x`"),
        (two_inputs(graphs.graph()), graphs.card(), "`more`"),
        (graphs.graph(), graphs.card(graphs.spec(height=128)), "128"),
        (graphs.graph(), graphs.card(graphs.spec(channels=1)), "64 x 64 x 1"),
        (graphs.graph(), graphs.card(graphs.spec(bit_depth=16)), "uint16"),
        (graphs.graph(batch=1), graphs.card(), "exactly 1"),
        (graphs.graph(), graphs.card(classes=["a", "b"]), "2 classes"),
        (graphs.graph(classes=True), graphs.card(classes=["a", "b"]), "3 classes"),
        (column_of_scores(graphs.graph()), graphs.card(), "score"),
        (whole_scores(graphs.graph()), graphs.card(), "int32"),
    ],
)
def test_a_graph_that_breaks_the_contract_is_refused_with_the_reason(
    model: onnx.ModelProto, card: ModelCard, word: str
) -> None:
    with pytest.raises(ModelInvalid, match=word) as caught:
        made(model, card, name="line-3.onnx")
    assert caught.value.where == "line-3.onnx"
    assert caught.value.hint


def test_a_graph_that_forgets_its_batch_is_refused_when_it_runs() -> None:
    """What anomalib 2.7.0 exported: an axis that says N, and one batch of the training frozen inside."""
    model = graphs.graph(maps=False)
    for node in model.graph.node:
        if node.output[0] == "score":
            node.CopyFrom(helper.make_node("ReduceMax", ["top"], ["score"], keepdims=0))
            node.output[0] = "one"
    model.graph.node.append(helper.make_node("Unsqueeze", ["one", "first"], ["score"]))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([0], np.int64), "first"))
    ready = made(model)
    with pytest.raises(ModelInvalid, match="1 rows for 2 images"):
        ready.run(np.zeros((2, 64, 64, 3), np.uint8))


@pytest.mark.parametrize(
    "data",
    [b"text", graphs.graph().SerializeToString()[:300], graphs.graph().SerializeToString()[:-300]],
    ids=["text", "head", "tail missing"],
)
def test_a_corrupt_graph_is_refused_with_the_reason(data: bytes) -> None:
    with pytest.raises(ModelInvalid):
        Engine(data, graphs.card(), threads=1)


def test_a_graph_for_a_newer_onnxruntime_is_refused_with_the_reason() -> None:
    model = graphs.graph()
    model.graph.node[0].op_type = "CastOfTomorrow"
    with pytest.raises(ModelInvalid, match="CastOfTomorrow"):
        made(model)


def test_a_provider_that_is_not_there_is_an_error_and_not_the_cpu() -> None:
    missing = next(name for name in engine.PROVIDERS if name not in engine.offered())
    with pytest.raises(ProviderUnavailable, match=missing) as caught:
        made(provider=missing)
    assert caught.value.hint is not None
    assert engine.WHEEL[missing] in caught.value.hint


def test_a_provider_that_is_offered_and_not_granted_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """onnxruntime-gpu without a driver lists CUDA, warns, and makes a session on the CPU."""
    monkeypatch.setattr(engine, "offered", lambda: ["cpu", "cuda"])
    with pytest.raises(ProviderUnavailable, match="not granted"):
        made(provider="cuda")


def test_auto_falls_to_what_is_granted_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "offered", lambda: ["cpu", "cuda"])
    assert made(provider="auto").provider == "cpu"


def test_a_broken_model_is_a_broken_model_whatever_device_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "offered", lambda: ["cpu", "cuda"])
    with pytest.raises(ModelInvalid):
        Engine(b"text", graphs.card(), provider="cuda", threads=1)


def test_an_unknown_provider_lists_those_that_are_known() -> None:
    with pytest.raises(ConfigInvalid, match="gpu") as caught:
        made(provider="gpu")
    assert "cuda" in str(caught.value.hint)


@pytest.mark.parametrize("threads", [0, -1])
def test_no_threads_are_refused(threads: int) -> None:
    with pytest.raises(ConfigInvalid):
        Engine(graphs.graph().SerializeToString(), graphs.card(), threads=threads)


def test_threads_are_those_that_were_asked_for_and_do_not_spin() -> None:
    options = engine.session_options(3)
    assert options.intra_op_num_threads == 3
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert options.graph_optimization_level == onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL


def test_the_card_in_the_file_is_not_what_the_engine_goes_by() -> None:
    """The engine holds the graph to the card it is given; a card is plain data that a test can forge."""
    model = graphs.graph()
    helper.set_model_props(model, {"inspection": json.dumps({"format": 9})})
    assert made(model).run(np.zeros((1, 64, 64, 3), np.uint8)).score[0] == 0
