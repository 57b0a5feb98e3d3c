"""Smaller numbers for an exported graph: float16, or 8-bit integers from statistics of real images.

Only the convolutions' trunk is converted. What comes before the first convolution stays float32, because a 16-bit
pixel does not fit into a float16; what comes after the last one stays float32 too, because it decides.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from datasets.load import Loader
from datasets.sample import Sample
from inspection.errors import PromiseBroken
from inspection.progress import Meter

RANGE_IMAGES = 128  # enough for minimum and maximum of each activation
RANGE_BATCH = 8
CONV = "Conv"
# So many convolutions stay float32 in an int8 file, in the order of the graph: they have few channels, and what is
# rounded there all others feel. The export prints by how much scores move: that of `python -m benchmarks.phones FOLDER
# --tile` was refused with none and with three of them left out, and keeps well within the tolerance with six.
FIRST = 6
QUANTISED = ["Conv", "Add", "Clip", "Relu", "MaxPool", "AveragePool", "GlobalAveragePool", "Concat"]


def to_fp16(path: Path) -> None:
    """Converts the trunk of the graph in the file `path` to float16; its input and outputs stay as they are.

    onnxruntime's own converter passes every value between two nodes through a float16, also between those that it is
    told to leave alone, and 65,535, a white 16-bit pixel, becomes infinite there. Hence these lines.

    Raises:
        PromiseBroken: a weight does not fit into a float16.
    """
    model = onnx.shape_inference.infer_shapes(onnx.load(path), strict_mode=True, data_prop=True)
    graph = model.graph
    opset = next(item.version for item in model.opset_import if item.domain in ("", "ai.onnx"))
    outside = _before(graph) | _after(graph)
    floats = {
        value.name
        for value in (*graph.input, *graph.value_info, *graph.output)
        if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    }
    weights = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT}
    # Values that someone still wants as float32.
    wanted = {value.name for value in graph.output}
    for node in graph.node:
        wanted.update(name for i, name in enumerate(node.input) if node.name in outside or not _halves(node, i, opset))
    halves: dict[str, str] = {}  # value -> its name as float16
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.name in outside:
            nodes.append(node)
            continue
        for index, name in enumerate(node.input):
            if name not in floats | weights.keys() or not _halves(node, index, opset):
                continue
            if name not in halves:
                halves[name] = f"{name}.half"
                if name in weights:
                    graph.initializer.append(_half(weights[name], halves[name]))
                else:
                    nodes.append(_cast(name, halves[name], onnx.TensorProto.FLOAT16))
            node.input[index] = halves[name]
        nodes.append(node)
        for index, name in enumerate(node.output):
            if name in floats:
                halves[name] = node.output[index] = f"{name}.half"
                if name in wanted:
                    nodes.append(_cast(halves[name], name, onnx.TensorProto.FLOAT))
    used = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.initializer.extend(kept)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def _halves(node: onnx.NodeProto, index: int, opset: int) -> bool:
    """Whether the input may be float16 by the operator's definition: Resize, say, takes its scales as float32 only."""
    schema = onnx.defs.get_schema(node.op_type, opset, node.domain)
    kind = schema.inputs[min(index, len(schema.inputs) - 1)].type_str
    return any(kind == c.type_param_str and "tensor(float16)" in c.allowed_type_strs for c in schema.type_constraints)


def _half(tensor: onnx.TensorProto, name: str) -> onnx.TensorProto:
    values = onnx.numpy_helper.to_array(tensor)
    if np.abs(values).max(initial=0) > np.finfo(np.float16).max:
        raise PromiseBroken(f"the weights `{tensor.name}` do not fit into float16.", hint="Export with fp32.")
    return onnx.numpy_helper.from_array(values.astype(np.float16), name)


def _cast(source: str, target: str, to: int) -> onnx.NodeProto:
    return onnx.helper.make_node("Cast", [source], [target], name=f"cast.{target}", to=to)


def to_int8(path: Path, samples: Sequence[Sample], loader: Loader) -> None:
    """Converts the graph in the file `path` to 8-bit integers (QDQ; activations u8, weights s8 per channel).

    Args:
        path: a float32 graph; replaced.
        samples: real images whose activations give the ranges. Not those that prove the operating point: a promise
            holds for parts that the file has not seen.
        loader: prepares them.

    Raises:
        PromiseBroken: there is no image to take ranges from.
        ImageUnreadable, InputMismatch: an image cannot be used.
    """
    if not samples:
        raise PromiseBroken("int8 needs images to take ranges from, and the training split is empty.")
    chosen = [samples[i] for i in np.linspace(0, len(samples) - 1, min(RANGE_IMAGES, len(samples))).astype(int)]
    with tempfile.TemporaryDirectory(prefix="int8-") as folder, Meter("measuring activations", len(chosen)) as meter:
        folded = Path(folder) / "folded.onnx"
        # Folds batch normalisation into the convolutions, so that one rounding takes the place of two.
        quant_pre_process(str(path), str(folded), skip_symbolic_shape=True)
        graph = onnx.load(folded).graph
        level = logging.getLogger().level
        logging.getLogger().setLevel(logging.ERROR)  # it warns at the root logger of what it leaves as it is
        try:
            quantize_static(
                str(folded),
                str(path),
                _Images(chosen, loader, meter),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=QUANTISED,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                # Seven bits for weights: processors without VNNI add two products of u8 and s8 in 16 bits, which 8-bit
                # weights overflow. The same file then gave other scores there (one moved by 1.3 of its size instead of
                # 0.6; tests/training/test_quantise.py runs on whatever processor there is).
                reduce_range=True,
                nodes_to_exclude=sorted(_before(graph) | _after(graph) | _deciding(graph) | _first(graph)),
                calibrate_method=CalibrationMethod.MinMax,
                extra_options={"CalibTensorRangeSymmetric": False},
            )
        finally:
            logging.getLogger().setLevel(level)
    onnx.checker.check_model(str(path), full_check=True)


class _Images(CalibrationDataReader):  # type: ignore[misc]
    """Real network inputs, a few at a time."""

    def __init__(self, samples: Sequence[Sample], loader: Loader, meter: Meter) -> None:
        self._batches = self._read(samples, loader, meter)

    def get_next(self) -> dict[str, Any] | None:
        return next(self._batches, None)

    @staticmethod
    def _read(samples: Sequence[Sample], loader: Loader, meter: Meter) -> Iterator[dict[str, Any]]:
        for first in range(0, len(samples), RANGE_BATCH):
            part = samples[first : first + RANGE_BATCH]
            yield {"pixels": np.stack([loader.load(sample).pixels for sample in part])}
            meter.step(len(part))


def _first(graph: onnx.GraphProto) -> set[str]:
    """Names of the first convolutions."""
    return set([node.name for node in graph.node if node.op_type == CONV][:FIRST])


def _before(graph: onnx.GraphProto) -> set[str]:
    """Names of the nodes that no convolution comes before, convolutions left out."""
    reached: set[str] = set()  # values that depend on a convolution
    names = set()
    for node in graph.node:  # topologically sorted, by ONNX's rule
        if node.op_type == CONV or any(value in reached for value in node.input):
            reached.update(node.output)
        else:
            names.add(node.name)
    return names


def _after(graph: onnx.GraphProto) -> set[str]:
    """Names of the nodes that no convolution comes after, convolutions left out."""
    reached: set[str] = set()  # values on which a convolution depends
    names = set()
    for node in reversed(graph.node):
        if node.op_type == CONV or any(value in reached for value in node.output):
            reached.update(node.input)
        else:
            names.add(node.name)
    return names


def _deciding(graph: onnx.GraphProto) -> set[str]:
    """Names of the nodes that make or read what reaches an output without another convolution.

    That is the map, and the features of the decision. Those that read it count, because the quantiser rounds a value
    for all of its readers as soon as one of them is quantised.
    """
    values = {value.name for value in graph.output}
    names = set()
    for node in reversed(graph.node):
        if any(value in values for value in node.output):
            names.add(node.name)
            if node.op_type != CONV:
                values.update(node.input)
    return names | {node.name for node in graph.node if any(value in values for value in node.input)}
