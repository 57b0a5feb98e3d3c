"""Durations, shares and sizes as a person writes them in YAML: `90s`, `20m`, `0.5%`, `50 GB`."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator, Field, WithJsonSchema

UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
BYTES = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


def seconds(value: object) -> object:
    """`90`, `"90s"`, `"250ms"`, `"20m"`, `"30d"` as seconds; anything else unchanged, for pydantic to refuse."""
    if isinstance(value, str) and (found := re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|)\s*", value)):
        return float(found[1]) * UNITS[found[2] or "s"]
    return value


def share(value: object) -> object:
    """`0.005` and `"0.5%"` as a share of one; anything else unchanged, for pydantic to refuse."""
    if isinstance(value, str) and (found := re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(%?)\s*", value)):
        return float(found[1]) / (100 if found[2] else 1)
    return value


def size(value: object) -> object:
    """`1000`, `"20 MB"`, `"50GB"` as bytes (powers of ten); anything else unchanged, for pydantic to refuse."""
    if isinstance(value, str) and (found := re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?B|)\s*", value, re.I)):
        return int(float(found[1]) * BYTES[found[2].upper() or "B"])
    return value


def _number_or(pattern: str, title: str) -> WithJsonSchema:
    return WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "string", "pattern": pattern}], "title": title})


_SECONDS = r"^\d+(\.\d+)?\s*(ms|s|m|h|d)?$"
_SHARE = r"^\d+(\.\d+)?\s*%?$"
_BYTES = r"^\d+(\.\d+)?\s*([KMGTkmgt]?[Bb])?$"

Seconds = Annotated[float, BeforeValidator(seconds), Field(gt=0), _number_or(_SECONDS, "Duration")]
Delay = Annotated[float, BeforeValidator(seconds), Field(ge=0), _number_or(_SECONDS, "Duration, or 0")]
Rate = Annotated[float, BeforeValidator(share), Field(gt=0, lt=1), _number_or(_SHARE, "Share")]
Fraction = Annotated[float, BeforeValidator(share), Field(ge=0, le=1), _number_or(_SHARE, "Share")]
Bytes = Annotated[int, BeforeValidator(size), Field(gt=0), _number_or(_BYTES, "Size")]
Count = Annotated[int, Field(ge=1)]
