"""Tiny model files built by hand with the `onnx` package: known arithmetic, a full card, no torch.

`model_file` writes a graph that says how far each 8 x 8 cell is from black:

    map[n, i, j] = mean over the cell of (pixels / white), over all channels
    score[n]     = max of the map
    classes      = weighted colours: one class per channel, mean of that channel (RGB only)

so every score can be computed with numpy (`expected`).
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from inspection.modelfile import (
    METADATA_KEY,
    Bound,
    Calibration,
    Certificate,
    DataRecord,
    Golden,
    InputSpec,
    ModelCard,
    OperatingPoint,
    Parity,
)

CELL = 8
POINT = OperatingPoint(ok_below=0.4, ng_above=0.6, pixel_above=0.6)


def spec(**changes: Any) -> InputSpec:
    """A small RGB input; `changes` are fields of InputSpec."""
    return InputSpec(**{"height": 64, "width": 64, "channels": 3, "bit_depth": 8, **changes})


def expected(pixels: NDArray[Any], of: InputSpec) -> tuple[float, NDArray[np.float32], NDArray[np.float32]]:
    """Score, map and classes that the graph gives for one network input `height x width x channels`."""
    light = pixels.astype(np.float64).reshape(of.height, of.width, of.channels) / of.white
    cells = light.mean(axis=2).reshape(of.height // CELL, CELL, of.width // CELL, CELL).mean(axis=(1, 3))
    return float(cells.max()), cells.astype(np.float32), light.mean(axis=(0, 1)).astype(np.float32)


def card(
    of: InputSpec | None = None,
    *,
    classes: Sequence[str] = (),
    operating_point: OperatingPoint | None = POINT,
    certificate: Certificate | None = None,
    **changes: Any,
) -> ModelCard:
    """A full card; `changes` are fields of ModelCard."""
    fields: dict[str, Any] = {
        "name": "brightness",
        "network": "classifier" if classes else "defectnet",
        "task": "defect",
        "classes": list(classes),
        "input": of or spec(),
        "calibration": Calibration(
            good=[0.1, 0.2, 0.3],
            bad=[0.7, 0.8],
            method="clopper-pearson",
            bounds=[
                Bound(
                    kind="escape", errors=0, total=2, upper=0.7764, confidence=0.95, asked=0.01, held=False, needed=297
                ),
                Bound(kind="overkill", errors=0, total=3, upper=0.6316, confidence=0.95),
            ],
        ),
        "operating_point": operating_point,
        "certificate": certificate,
        "data": DataRecord(name="made up", fingerprint="0" * 64, counts={"train": {"good": 3, "defect": 2}}),
        "training": {"seed": 0, "epochs": 1},
        "versions": {"onnx": onnx.__version__},
        "weights": "none",
        "weights_licence": "Apache-2.0",
        "created": "2026-01-01T00:00:00Z",
    }
    return ModelCard(**(fields | changes))


def golden(pixels: NDArray[Any], of: InputSpec, *, score: float | None = None, name: str = "golden") -> Golden:
    """A golden image with the score that the graph gives, or another one."""
    stored = pixels if pixels.ndim == 2 or pixels.shape[2] == 1 else cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    done, png = cv2.imencode(".png", stored)
    assert done
    right = expected(pixels, of)[0]
    return Golden(
        name=name,
        pixels=base64.b64encode(png.tobytes()).decode(),
        score=right if score is None else score,
        verdict="OK" if right < POINT.ok_below else "NG" if right >= POINT.ng_above else "REVIEW",
    )


def certificate(goldens: list[Golden], *, tolerance: float = 1e-3) -> Certificate:
    """A certificate over `goldens`."""
    parity = Parity(
        provider="cpu",
        precision="fp32",
        images=10,
        flips=0,
        max_difference=1e-6,
        max_map_difference=1e-6,
        tolerance=1e-3,
    )
    return Certificate(parities=[parity], goldens=goldens, golden_tolerance=tolerance)


def graph(
    of: InputSpec | None = None,
    *,
    classes: bool = False,
    maps: bool = True,
    batch: str | int = "N",
    poison: Literal["nan", "inf", "raise"] | None = None,
    layers: int = 0,
) -> onnx.ModelProto:
    """The graph without a card.

    Args:
        classes: add the output `classes`.
        maps: add the output `map`.
        batch: the batch axis: a name, or a fixed number.
        poison: a black image gets this score; `raise`: an image that is white all over makes the run itself fail.
        layers: 3x3 convolutions with 16 channels beside the result, to give the graph a running time.
    """
    of = of or spec()
    h, w = of.height // CELL, of.width // CELL
    pixels_type = TensorProto.UINT8 if of.bit_depth == 8 else TensorProto.UINT16
    constants: dict[str, NDArray[Any]] = {
        "white": np.array(of.white, np.float32),
        "cells": np.array([0, h, w], np.int64),
        "zero": np.array(0, np.float32),
    }
    # uint16 goes through int32, as onnxruntime has no direct cast on every provider.
    nodes = [
        helper.make_node("Cast", ["pixels"], ["whole"], to=TensorProto.INT32),
        helper.make_node("Cast", ["whole"], ["raw"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["raw", "white"], ["light"]),
        helper.make_node("Transpose", ["light"], ["planes"], perm=[0, 3, 1, 2]),
    ]
    last = "planes"
    if layers:  # a side branch of real work whose result is zero, so that the scores stay known
        rng = np.random.default_rng(0)
        width = 16
        for index in range(layers):
            inputs = of.channels if index == 0 else width
            constants[f"kernel{index}"] = (rng.normal(size=(width, inputs, 3, 3)) / (3 * inputs**0.5)).astype(
                np.float32
            )
            nodes += [
                helper.make_node("Conv", [last, f"kernel{index}"], [f"conv{index}"], pads=[1, 1, 1, 1]),
                helper.make_node("Relu", [f"conv{index}"], [f"relu{index}"]),
            ]
            last = f"relu{index}"
        constants["axes123"] = np.array([1, 2, 3], np.int64)
        nodes += [
            helper.make_node("ReduceMean", [last, "axes123"], ["work"], keepdims=1),
            helper.make_node("Mul", ["work", "zero"], ["nothing"]),
            helper.make_node("Add", ["planes", "nothing"], ["planes2"]),
        ]
        last = "planes2"
    constants["channel"] = np.array([1], np.int64)
    constants["space"] = np.array([2, 3], np.int64)
    constants["mapaxes"] = np.array([1, 2], np.int64)
    nodes += [
        helper.make_node("AveragePool", [last], ["pooled"], kernel_shape=[CELL, CELL], strides=[CELL, CELL]),
        helper.make_node("ReduceMean", ["pooled", "channel"], ["map"], keepdims=0),
        helper.make_node("ReduceMax", ["map", "mapaxes"], ["top"], keepdims=0),
    ]
    if poison == "raise":
        constants |= {"none": np.zeros(1, np.float32), "almost": np.array(0.99, np.float32)}
        nodes += [
            helper.make_node("ReduceMin", ["map", "mapaxes"], ["darkest"], keepdims=0),
            helper.make_node("Greater", ["darkest", "almost"], ["flat"]),
            helper.make_node("Cast", ["flat"], ["index"], to=TensorProto.INT64),
            helper.make_node("Gather", ["none", "index"], ["nought"]),  # index 1 is not there
            helper.make_node("Add", ["top", "nought"], ["score"]),
        ]
    elif poison:
        constants["bad"] = np.array(np.nan if poison == "nan" else np.inf, np.float32)
        nodes += [
            helper.make_node("Equal", ["top", "zero"], ["black"]),
            helper.make_node("Where", ["black", "bad", "top"], ["score"]),
        ]
    else:
        nodes.append(helper.make_node("Identity", ["top"], ["score"]))
    outputs = [helper.make_tensor_value_info("score", TensorProto.FLOAT, [batch])]
    if maps:
        outputs.append(helper.make_tensor_value_info("map", TensorProto.FLOAT, [batch, h, w]))
    if classes:
        nodes.append(helper.make_node("ReduceMean", [last, "space"], ["classes"], keepdims=0))
        outputs.append(helper.make_tensor_value_info("classes", TensorProto.FLOAT, [batch, of.channels]))
    made = helper.make_graph(
        nodes,
        "brightness",
        [helper.make_tensor_value_info("pixels", pixels_type, [batch, of.height, of.width, of.channels])],
        outputs,
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


def write(path: Path, model: onnx.ModelProto, about: ModelCard | None) -> Path:
    """Writes the model file; without `about` it has no card."""
    if about is not None:
        helper.set_model_props(model, {METADATA_KEY: about.model_dump_json()})
    path.write_bytes(model.SerializeToString())
    return path


def model_file(
    path: Path,
    of: InputSpec | None = None,
    *,
    classes: Sequence[str] = (),
    poison: Literal["nan", "inf", "raise"] | None = None,
    maps: bool = True,
    layers: int = 0,
    **changes: Any,
) -> Path:
    """Writes a whole model file at `path`: the graph above with a card; `changes` go to `card`."""
    of = of or spec()
    model = graph(of, classes=bool(classes), maps=maps, poison=poison, layers=layers)
    return write(path, model, card(of, classes=classes, **changes))


def card_of(model: onnx.ModelProto) -> dict[str, Any]:
    """The card in a model, as plain values."""
    return dict(json.loads(next(entry.value for entry in model.metadata_props if entry.key == METADATA_KEY)))


def probe() -> onnx.ModelProto:
    """The tiny model that `inspection doctor` carries: score = 1 + mean of 8 x 8 x 3 pixels, through a convolution."""
    nodes = [
        helper.make_node("Cast", ["pixels"], ["raw"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["raw"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "kernel", "bias"], ["conv"]),
        helper.make_node("GlobalAveragePool", ["conv"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("Squeeze", ["flat", "last"], ["score"]),
    ]
    made = helper.make_graph(
        nodes,
        "probe",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["N", 8, 8, 3])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["N"])],
        [
            numpy_helper.from_array(np.full((1, 3, 1, 1), 1 / 3, np.float32), "kernel"),
            numpy_helper.from_array(np.ones(1, np.float32), "bias"),
            numpy_helper.from_array(np.array([1], np.int64), "last"),
        ],
    )
    model = helper.make_model(
        made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="inspection"
    )
    onnx.checker.check_model(model, full_check=True)
    return model
