"""The model file: one `.onnx` with one JSON document (the card) in its metadata.

The card says everything that a plant must know to use the file: what it takes, what it was trained on, which thresholds
it was given and what they promise, and the proof that the file judges like the network it came from. The graph itself
carries no threshold.

Graph contract: one input `pixels`, `N x height x width x channels`, uint8 (8 bit) or uint16 (10, 12, 16 bit), N free.
Outputs by name: `score` float32 `[N]`, always; `map` float32 `[N, h, w]`, raw scores over the whole input at a coarser
grid; `classes` float32 `[N, K]`, raw scores in the order of `ModelCard.classes`.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from inspection import onnxfile
from inspection.errors import ModelInvalid

METADATA_KEY = "inspection"  # where the card's JSON lies in the ONNX metadata
FORMAT: Literal[1] = 1


class Value(BaseModel):
    """A frozen value that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Resize(StrEnum):
    """How an image of another size is brought to the network's size (`inspection.pixels.prepare`)."""

    STRETCH = "stretch"  # to the exact size, each axis by its own factor
    LETTERBOX = "letterbox"  # as large as fits with its own proportions, the rest black


class InputSpec(Value):
    """What the network takes."""

    height: Annotated[int, Field(ge=32, le=8192)]
    width: Annotated[int, Field(ge=32, le=8192)]
    channels: Literal[1, 3]
    bit_depth: Literal[8, 10, 12, 16] = 8
    resize: Resize = Resize.STRETCH

    @property
    def dtype(self) -> type[np.uint8] | type[np.uint16]:
        """numpy's type for these pixels."""
        return np.uint8 if self.bit_depth == 8 else np.uint16

    @property
    def white(self) -> int:
        """The highest pixel value that the bit depth allows."""
        return (1 << self.bit_depth) - 1


class Tiling(Value):
    """Large images are cut into overlapping tiles of the input size instead of being resized to it."""

    overlap: Annotated[float, Field(ge=0, lt=0.9)] = 0.25  # share of a tile that it has in common with the next
    scale: Annotated[float, Field(gt=0, le=8)] = 1.0  # the image is resized by this before it is cut


class OperatingPoint(Value):
    """The thresholds, in raw score units: OK where score < ok_below, NG where score >= ng_above, else REVIEW.

    NG is asked first, so a point with ok_below > ng_above cannot let an NG score through.
    """

    ok_below: float
    ng_above: float
    pixel_above: float | None = None  # map values from here on belong to a defect; None: the model has no map


class Bound(Value):
    """What one side of the operating point does on the calibration set, and what that proves.

    `upper` is an exact upper bound on the rate at `confidence`, from counts alone. It is Clopper and Pearson's (1934)
    for the errors that the threshold was allowed, so it may lie above theirs for the `errors` that it has
    (docs/operating-point.md).
    """

    kind: Literal["escape", "overkill"]
    errors: int
    total: int
    upper: float
    confidence: float
    asked: float | None = None  # the highest rate that the user accepts
    held: bool | None = None  # None: nothing was asked
    needed: int = 0  # how many more such parts (without a further error) would prove what was asked


class Calibration(Value):
    """The raw scores that the operating point was chosen from; kept so that another one can be chosen later."""

    good: list[float]  # ascending
    bad: list[float]  # ascending
    method: str
    bounds: list[Bound]


class Parity(Value):
    """One proof that the file gives the network's scores: on these images, by this provider, at this precision."""

    provider: str
    precision: Literal["fp32", "fp16", "int8"]
    images: int
    flips: int  # verdicts that differ at the operating point
    max_difference: float  # of scores, relative to max(|score|, median |score| of all images)
    max_map_difference: float | None
    tolerance: float


class Golden(Value):
    """One image that the file must score alike on every machine."""

    name: str
    pixels: str  # the network's input, as base64 of a PNG
    score: float
    verdict: str


class Certificate(Value):
    """The proof that was made when the file was exported."""

    parities: list[Parity]
    goldens: list[Golden]
    golden_tolerance: float  # relative, as in Parity.max_difference


class DataRecord(Value):
    """What the model was trained on."""

    name: str
    fingerprint: str  # of all images and annotations
    counts: dict[str, dict[str, int]]  # split -> what is known -> images


class ModelCard(Value):
    """The JSON document in the model file."""

    format: Literal[1] = FORMAT  # raised when an older reader would misread the card
    name: str
    network: str  # defectnet, classifier, patchcore
    task: Literal["defect", "kinds"]  # good against bad; or only kinds of defects, where no good image was known
    classes: list[str] = []  # names in the order of output `classes`; empty: no such output
    input: InputSpec
    tiling: Tiling | None = None
    precision: Literal["fp32", "fp16", "int8"] = "fp32"
    calibration: Calibration | None = None
    operating_point: OperatingPoint | None = None  # None: every verdict is REVIEW
    certificate: Certificate | None = None
    data: DataRecord
    training: dict[str, str | int | float | bool | None]  # settings worth knowing, seed included
    versions: dict[str, str]
    weights: str  # where the starting weights came from
    weights_licence: str
    created: str  # ISO 8601, UTC


def read_model(path: str | Path) -> bytes:
    """The bytes of a model file. Raises ModelInvalid where there are none."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ModelInvalid(f"cannot be read: {error.strerror or error}.", where=str(path)) from error
    if not data:
        raise ModelInvalid("the file is empty.", where=str(path), hint="Copy the file again, or export it again.")
    return data


def read_card(path: str | Path) -> ModelCard:
    """The card of a model file; neither the graph nor onnxruntime is loaded.

    Raises:
        ModelInvalid: not there, no ONNX, damaged, no card or one that this version cannot read.
    """
    return parse_card(read_model(path), name=str(path))


def parse_card(model: bytes, *, name: str = "model") -> ModelCard:
    """The card in the bytes of a model file; see `read_card`. `name` goes into errors."""
    try:
        text = onnxfile.metadata(model).get(METADATA_KEY)
    except ModelInvalid as error:
        raise ModelInvalid(error.what, where=name, hint=error.hint) from error
    if text is None:
        raise ModelInvalid(
            "this ONNX file has no card, so nobody knows what it takes or what its scores mean.",
            where=name,
            hint="Make the file with `inspection export`.",
        )
    try:
        return ModelCard.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ModelInvalid(
            f"the card of this file cannot be read: `{key}`: {first['msg']}.",
            where=name,
            hint="It was made by another version, or changed by hand: export it again with this one.",
        ) from error


def file_hash(path: str | Path) -> str:
    """SHA-256 of a file, as hex: what a record of verdicts names the model by."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
