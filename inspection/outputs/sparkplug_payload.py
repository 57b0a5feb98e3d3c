"""The payload of Sparkplug B: metrics as protobuf, with the field numbers of the specification's `sparkplug_b.proto`.

The message classes are built when this is imported, so that neither generated code nor `protoc` is needed. Only what
this project sends and understands is declared; protobuf keeps or skips all other fields.
Source: Sparkplug Specification 3.0.0, section 6.4 and appendix B (Eclipse Tahu, sparkplug_b.proto).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from inspection.errors import InspectionError, MissingExtra

try:
    from google.protobuf import (  # type: ignore[import-untyped]
        descriptor_pb2,
        descriptor_pool,
        message_factory,
    )
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
except ImportError as missing:
    raise MissingExtra(
        "Sparkplug B needs protobuf.", hint="Install it with: pip install 'lightsout-inspection[mqtt]'"
    ) from missing


class PayloadInvalid(InspectionError):
    """Bytes that are no Sparkplug B payload."""

    code = "payload-invalid"
    exit_code = 9
    status = 400


class DataType(IntEnum):
    """Of a metric's value; the numbers are the specification's."""

    INT64 = 4
    UINT64 = 8
    DOUBLE = 10
    BOOLEAN = 11
    STRING = 12
    DATETIME = 13  # milliseconds since 1970


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """One named value; None is sent as null. `historical`: it was stored, and does not tell how things stand now."""

    name: str
    kind: DataType
    value: str | int | float | bool | None
    timestamp: int  # milliseconds since 1970
    historical: bool = False


def encode(metrics: Iterable[Metric], *, timestamp: int, seq: int | None) -> bytes:
    """A payload; NDEATH alone has no `seq`."""
    payload = _Payload(timestamp=timestamp)
    if seq is not None:
        payload.seq = seq
    for metric in metrics:
        one = payload.metrics.add(name=metric.name, timestamp=metric.timestamp, datatype=int(metric.kind))
        if metric.historical:
            one.is_historical = True
        if metric.value is None:
            one.is_null = True
        elif metric.kind is DataType.INT64:
            one.long_value = int(metric.value) % 2**64  # two's complement, as the specification asks
        else:
            setattr(one, _FIELD[metric.kind], metric.value)
    encoded: bytes = payload.SerializeToString()
    return encoded


def decode(data: bytes) -> dict[str, object]:
    """The values by name: what a command (NCMD) asks for.

    Raises:
        PayloadInvalid: no such payload.
    """
    try:
        payload = _Payload.FromString(data)
    except DecodeError as error:
        raise PayloadInvalid(f"{len(data)} bytes are no Sparkplug B payload: {error}.") from error
    values: dict[str, object] = {}
    for metric in payload.metrics:
        field = metric.WhichOneof("value")
        # protobuf gives a name that is not UTF-8 as bytes.
        name = metric.name if isinstance(metric.name, str) else metric.name.decode(errors="backslashreplace")
        values[name] = getattr(metric, field) if field is not None else None
    return values


_FIELD = {
    DataType.UINT64: "long_value",
    DataType.DATETIME: "long_value",
    DataType.DOUBLE: "double_value",
    DataType.BOOLEAN: "boolean_value",
    DataType.STRING: "string_value",
}


def _payload_class() -> Any:
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="inspection_sparkplug_b.proto", package="inspection.sparkplug_b")
    payload = file.message_type.add(name="Payload")
    metric = payload.nested_type.add(name="Metric")
    for name, number, kind in (
        ("name", 1, field.TYPE_STRING),
        ("alias", 2, field.TYPE_UINT64),
        ("timestamp", 3, field.TYPE_UINT64),
        ("datatype", 4, field.TYPE_UINT32),
        ("is_historical", 5, field.TYPE_BOOL),
        ("is_transient", 6, field.TYPE_BOOL),
        ("is_null", 7, field.TYPE_BOOL),
    ):
        metric.field.add(name=name, number=number, type=kind, label=field.LABEL_OPTIONAL)
    metric.oneof_decl.add(name="value")
    for name, number, kind in (
        ("int_value", 10, field.TYPE_UINT32),
        ("long_value", 11, field.TYPE_UINT64),
        ("float_value", 12, field.TYPE_FLOAT),
        ("double_value", 13, field.TYPE_DOUBLE),
        ("boolean_value", 14, field.TYPE_BOOL),
        ("string_value", 15, field.TYPE_STRING),
        ("bytes_value", 16, field.TYPE_BYTES),
    ):
        metric.field.add(name=name, number=number, type=kind, label=field.LABEL_OPTIONAL, oneof_index=0)
    payload.field.add(name="timestamp", number=1, type=field.TYPE_UINT64, label=field.LABEL_OPTIONAL)
    payload.field.add(
        name="metrics",
        number=2,
        type=field.TYPE_MESSAGE,
        label=field.LABEL_REPEATED,
        type_name=".inspection.sparkplug_b.Payload.Metric",
    )
    payload.field.add(name="seq", number=3, type=field.TYPE_UINT64, label=field.LABEL_OPTIONAL)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("inspection.sparkplug_b.Payload"))


_Payload = _payload_class()
