"""The exported file: what is refused, and that nothing half written is left."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch

import models
from inspection.errors import ModelInvalid
from inspection.modelfile import InputSpec
from models import graph
from models.options import ClassifierOptions, DefectNetOptions, PatchCoreOptions
from tests.models.contract import images

pytestmark = pytest.mark.train

SPEC = InputSpec(height=64, width=64, channels=1)


def test_the_file_has_only_the_batch_free_and_its_weights_inside(tmp_path: Path) -> None:
    network = models.build(DefectNetOptions(width=16), SPEC, ())
    graph.to_onnx(network, tmp_path / "m.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]
    model = onnx.load(tmp_path / "m.onnx", load_external_data=False)
    free = {axis.dim_param for v in (*model.graph.input, *model.graph.output) for axis in v.type.tensor_type.shape.dim}
    assert free == {"N", ""}
    assert not any(tensor.external_data for tensor in model.graph.initializer)
    assert {node.domain for node in model.graph.node} == {""}
    # Chance and training belong to training: none of it may be left in the graph.
    assert not {"Dropout", "RandomNormal", "RandomUniform", "Bernoulli"} & {n.op_type for n in model.graph.node}


def test_exporting_leaves_a_network_in_training_as_it_was(tmp_path: Path) -> None:
    network = models.build(ClassifierOptions(weights="random"), SPEC, ("good", "defect")).train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    graph.to_onnx(network, tmp_path / "m.onnx")
    assert network.training
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_a_bank_that_no_file_can_hold_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = models.build(PatchCoreOptions(rows=64), SPEC, ())
    network.remember(images(SPEC, 2))
    network.settle()
    monkeypatch.setattr(graph, "MAX_BYTES", 10_000)
    with pytest.raises(ModelInvalid, match="one ONNX file"):
        graph.to_onnx(network, tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())
