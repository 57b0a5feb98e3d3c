"""The hash chain over verdicts: whoever alters, removes or adds one afterwards must alter all that follow it.

Every verdict's hash is SHA-256 over the hash before it (64 hex digits, ASCII) and its own body as text, so a program in
any language can check it: `sha256(previous + body)`. The body is JSON with sorted keys, without blanks, in ASCII.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from typing import Any

from inspection.errors import InspectionError

GENESIS = "0" * 64
"""What the first verdict of a record follows."""


class RecordInvalid(InspectionError):
    """A folder or database that is no record, one of a newer version, or a call that a record cannot honour."""

    code = "record-invalid"
    exit_code = 5
    status = 500


class RecordInUse(RecordInvalid):
    """Another process writes this record."""

    code = "record-in-use"
    exit_code = 9
    status = 409


class RecordUnavailable(InspectionError):
    """The database cannot be reached, or does not answer."""

    code = "record-unavailable"
    exit_code = 9
    status = 503


def canonical(body: dict[str, Any]) -> str:
    """The one text of a body. Numbers that JSON does not have (NaN, infinite) become null; numpy's become plain."""
    try:
        return json.dumps(body, sort_keys=True, separators=(",", ":"), allow_nan=False, default=_plain)
    except ValueError:
        finite = _finite(json.loads(json.dumps(body, default=_plain)))
        return json.dumps(finite, sort_keys=True, separators=(",", ":"))


def link(previous: str, body: str) -> str:
    """The hash of a verdict that follows the hash `previous`."""
    return hashlib.sha256((previous + body).encode("ascii")).hexdigest()


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the journal: a trigger, or a verdict with its place in the chain (`sequence` from 1)."""

    number: int
    trigger: str | None = None  # JSON
    body: str = ""  # JSON
    sequence: int = 0
    previous: str = ""
    hash: str = ""

    def line(self) -> bytes:
        """As it stands in the journal."""
        if self.trigger is not None:
            return f'{{"number":{self.number},"trigger":{self.trigger}}}\n'.encode("ascii")
        return (
            f'{{"number":{self.number},"sequence":{self.sequence},"previous":"{self.previous}","hash":"{self.hash}",'
            f'"verdict":{self.body}}}\n'
        ).encode("ascii")


def read_entry(line: bytes) -> Entry | None:
    """The entry of a journal line without its line break; None: the line is damaged (a verdict's hash is checked)."""
    try:
        text = line.decode("ascii")
        values = json.loads(text)
        if not isinstance(values["number"], int):
            return None
        if "trigger" in values:
            return Entry(number=values["number"], trigger=text[text.index('"trigger":') + 10 : -1])
        entry = Entry(
            number=values["number"],
            body=text[text.index('"verdict":') + 10 : -1],  # as it was hashed; nothing before it is a user's text
            sequence=values["sequence"],
            previous=values["previous"],
            hash=values["hash"],
        )
        return entry if link(entry.previous, entry.body) == entry.hash else None
    except (ValueError, KeyError, TypeError):
        return None


def _plain(value: object) -> object:
    item = getattr(value, "item", None)  # numpy scalars
    return item() if callable(item) else str(value)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
