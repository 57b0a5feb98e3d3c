"""What must be known of an ONNX file before a runtime opens it, read from its protobuf wire format.

The plain install leaves the `onnx` package out, and onnxruntime shows the metadata only after it has built a whole
session, by which time it has already followed references to files outside the model. Field numbers: onnx/onnx.proto3.
"""

from __future__ import annotations

from collections.abc import Iterator

from inspection.errors import ModelInvalid

Field = tuple[int, int, "int | memoryview"]  # number, wire type, value

# Message -> field number -> message below it, along every way that leads to a tensor.
BELOW = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
TENSOR_EXTERNAL_DATA, TENSOR_DATA_LOCATION, EXTERNAL = 13, 14, 1
MODEL_METADATA = 14
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
DEEPEST = 64  # of nested graphs; protobuf itself stops at 100


def metadata(data: bytes) -> dict[str, str]:
    """The model's metadata by key.

    Raises:
        ModelInvalid: the bytes are no ONNX model, or a cut-off one.
    """
    found: dict[str, str] = {}
    for number, kind, value in _fields(memoryview(data)):
        if number == MODEL_METADATA and kind == BYTES and isinstance(value, memoryview):
            entry = {n: bytes(v) for n, k, v in _fields(value) if k == BYTES and isinstance(v, memoryview)}
            try:
                found[entry.get(1, b"").decode()] = entry.get(2, b"").decode()
            except UnicodeDecodeError as error:
                raise _damaged() from error
    return found


def needs_other_files(data: bytes) -> bool:
    """Whether any tensor lies in a file beside the model. Raises ModelInvalid as `metadata`."""
    return _external(memoryview(data), "model", 0)


def _external(data: memoryview, message: str, depth: int) -> bool:
    if depth > DEEPEST:
        raise _damaged()
    if message == "tensor":
        return any(
            number == TENSOR_EXTERNAL_DATA or (number == TENSOR_DATA_LOCATION and value == EXTERNAL)
            for number, _, value in _fields(data)
        )
    return any(
        _external(value, BELOW[message][number], depth + 1)
        for number, kind, value in _fields(data)
        if kind == BYTES and isinstance(value, memoryview) and number in BELOW[message]
    )


def _fields(data: memoryview) -> Iterator[Field]:
    """The fields of one message, in order; bytes as views, so that weights are stepped over and not copied."""
    at, end = 0, len(data)
    while at < end:
        tag, at = _varint(data, at)
        number, kind = tag >> 3, tag & 7
        value: int | memoryview
        if kind == VARINT:
            value, at = _varint(data, at)
        elif kind in (FIXED64, FIXED32):
            size = 8 if kind == FIXED64 else 4
            value, at = data[at : at + size], at + size
        elif kind == BYTES:
            size, at = _varint(data, at)
            value, at = data[at : at + size], at + size
        else:
            raise _damaged()
        if number == 0 or at > end:
            raise _damaged()
        yield number, kind, value


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise _damaged()
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise _damaged()


def _damaged() -> ModelInvalid:
    return ModelInvalid("this is no ONNX model, or a damaged one.", hint="Copy the file again, or export it again.")
