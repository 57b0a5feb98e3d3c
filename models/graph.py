"""The graph that a network is exported as: one ONNX file, weights inside, the batch axis free."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import onnx
import torch

from inspection.errors import ModelInvalid, PromiseBroken
from inspection.files import writing
from models.network import Network

OPSET = 20
INPUT = "pixels"
MAX_BYTES = 2_000_000_000  # protobuf ends at 2 GB, and a file is one message


def to_onnx(network: Network, path: str | Path) -> None:
    """Writes `network` (in eval mode) as `inspection.modelfile` describes the graph, without the card.

    Raises:
        ModelInvalid: the network is too large for one file.
        PromiseBroken: the exported graph is not what the contract says.
        OutputUnwritable: `path` cannot be written.
    """
    size = sum(t.numel() * t.element_size() for t in (*network.parameters(), *network.buffers()))
    if size > MAX_BYTES:
        raise ModelInvalid(
            f"the network takes {size / 1e9:.1f} GB, and one ONNX file holds 2.",
            hint="Take a smaller bank or backbone.",
        )
    program = _traced(network)
    with writing(path) as temporary:
        program.save(str(temporary), external_data=False)
        onnx.checker.check_model(str(temporary), full_check=True)
        model = onnx.shape_inference.infer_shapes(onnx.load(temporary), strict_mode=True, data_prop=True)
        _check(model, network)


def _traced(network: Network) -> torch.onnx.ONNXProgram:
    spec = network.spec
    training, device = network.training, next(network.buffers()).device
    kind = torch.uint8 if spec.bit_depth == 8 else torch.uint16
    # Two images: a batch of one would be taken for a constant.
    pixels = torch.zeros(2, spec.height, spec.width, spec.channels, dtype=kind, device=device)
    outputs = [name for name, value in network.eval()(pixels)._asdict().items() if value is not None]
    try:
        with torch.no_grad(), _quiet():
            program = torch.onnx.export(
                network,
                (pixels,),
                input_names=[INPUT],
                output_names=outputs,
                dynamo=True,
                external_data=False,
                opset_version=OPSET,
                dynamic_shapes={INPUT: {0: torch.export.Dim("N")}},
                verbose=False,
            )
    finally:
        network.train(training)
    assert program is not None
    return program


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter's notes on its own insides are no news for a user."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _check(model: onnx.ModelProto, network: Network) -> None:
    """Input and outputs by name, type and shape. Raises PromiseBroken."""
    spec, types = network.spec, onnx.TensorProto
    wanted = {
        INPUT: (types.UINT8 if spec.bit_depth == 8 else types.UINT16, ["N", spec.height, spec.width, spec.channels]),
        "score": (types.FLOAT, ["N"]),
    }
    for value in (*model.graph.input, *model.graph.output):
        shape = [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        kind = value.type.tensor_type.elem_type
        expected = wanted.pop(value.name, (types.FLOAT, ["N", *shape[1:]]))
        if (kind, shape) != expected or not all(shape):
            raise PromiseBroken(f"`{value.name}` of the exported graph is {kind} {shape} and should be {expected}.")
    if wanted:
        raise PromiseBroken(f"the exported graph lacks {', '.join(wanted)}.")
