"""The register map of docs/modbus.md as data; the tables on that page are printed by

    python -m inspection.outputs.modbus_map

Addresses count from 0, as they stand in the request. 32-bit values and floats take two registers, the high word first.
Text is ASCII, two characters a register, the first in the high byte; the first NUL ends it.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Any, Literal

from inspection.control import LineState
from inspection.results import Verdict

VERSION = 1
"""Rises with every change that an existing PLC program could stumble over."""

Kind = Literal["u16", "i16", "u32", "i32", "f32", "text"]
Written = int | float | str
_FORMATS = {"u16": ">H", "i16": ">h", "u32": ">I", "i32": ">i", "f32": ">f"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Register:
    """One value of the map. `characters` is the room of a text, and 0 for numbers."""

    name: str
    address: int
    kind: Kind
    meaning: str
    characters: int = 0

    @property
    def count(self) -> int:
        """Registers that it takes."""
        return self.characters // 2 if self.kind == "text" else struct.calcsize(_FORMATS[self.kind]) // 2

    @property
    def end(self) -> int:
        """The address behind it."""
        return self.address + self.count

    def encode(self, value: Written) -> list[int]:
        """As registers. A text is cut to its room, and characters that it cannot hold are `?`.

        Raises:
            struct.error: a number that does not fit.
        """
        if isinstance(value, str):
            shown = "".join(letter if " " <= letter <= "~" else "?" for letter in value[: self.characters])
            data = shown.encode("ascii").ljust(self.characters, b"\0")
        else:
            data = struct.pack(_FORMATS[self.kind], value)
        return list(struct.unpack(f">{len(data) // 2}H", data))

    def decode(self, registers: Sequence[int]) -> Written:
        """The value of its registers. A text ends at its first NUL, and loses spaces behind it.

        Raises:
            ValueError: a text with a character that is not printable ASCII.
        """
        data = struct.pack(f">{self.count}H", *registers)
        if self.kind != "text":
            value: int | float = struct.unpack(_FORMATS[self.kind], data)[0]
            return value
        letters = data.partition(b"\0")[0]
        if any(not 0x20 <= letter <= 0x7E for letter in letters):
            raise ValueError(f"{self.name}: {letters!r} is not printable ASCII")
        return letters.decode("ascii").rstrip(" ")


class Status(IntFlag):
    """Bits of `status`, from bit 0 on, and the discrete inputs of the same numbers."""

    TRIGGER_READY = 1 << 0
    BUSY = 1 << 1
    RESULTS_READY = 1 << 2
    OK = 1 << 3
    NG = 1 << 4
    REVIEW = 1 << 5
    ERROR = 1 << 6
    ALARM = 1 << 7
    REFUSED = 1 << 8
    CHANGING = 1 << 9
    FAULT = 1 << 10
    PLC_LOST = 1 << 11


class Command(IntFlag):
    """Bits of `command`, from bit 0 on, and the coils of the same numbers. Each acts when it rises from 0 to 1."""

    TRIGGER = 1 << 0
    ACKNOWLEDGE = 1 << 1
    START = 1 << 2
    STOP = 1 << 3
    RESET = 1 << 4
    CHANGE = 1 << 5


ORDER = (Command.ACKNOWLEDGE, Command.RESET, Command.CHANGE, Command.STOP, Command.START, Command.TRIGGER)
"""In which bits that rise together are carried out."""


class Refusal(IntEnum):
    """Why a command was not carried out: `refusal`."""

    NONE = 0
    NOT_READY = 1
    NO_SUCH_RECIPE = 2
    RECIPE_INVALID = 3
    NOTHING_TO_ACKNOWLEDGE = 4
    OTHER_RESULT = 5
    OTHER = 9


# One table for each: members of different enumerations with the same number are equal, and so the same key.
MEANINGS: dict[type[IntFlag | IntEnum], dict[IntFlag | IntEnum, str]] = {
    Status: {
        Status.TRIGGER_READY: "a trigger becomes a part now",
        Status.BUSY: "parts are in flight: triggered, and without a verdict",
        Status.RESULTS_READY: "the result below is new; falls with its acknowledgement",
        Status.OK: "verdict of the result below: good",
        Status.NG: "bad, or could not be judged (then with ERROR)",
        Status.REVIEW: "between the two thresholds: for a person or the rework bin",
        Status.ERROR: "could not be judged; `code` says why; NG is set with it",
        Status.ALARM: "an alarm came since the last RESET; `alarm` says which",
        Status.REFUSED: "the last command was refused; `refusal` says why",
        Status.CHANGING: "another recipe is being loaded",
        Status.FAULT: "the line has failed; `problem` says why; RESET tries again",
        Status.PLC_LOST: "`plc_heartbeat` has stood still for longer than the recipe's `watchdog`",
    },
    Command: {
        Command.TRIGGER: "a part comes by, with `serial_in`, `lot_in` and the encoder's count if it was ever written",
        Command.ACKNOWLEDGE: "the result was read (Results Ack)",
        Command.START: "from stopped to running",
        Command.STOP: "no new part; those in flight get their verdicts",
        Command.RESET: "clears ALARM and REFUSED; a line that has failed tries again",
        Command.CHANGE: "loads the recipe `recipe_in`, which takes over between two parts",
    },
    Refusal: {
        Refusal.NONE: "the last command was carried out",
        Refusal.NOT_READY: "the line's state does not allow it: a trigger while it is not running",
        Refusal.NO_SUCH_RECIPE: "no recipe has the index `recipe_in`",
        Refusal.RECIPE_INVALID: "that recipe cannot be carried out; the running one goes on",
        Refusal.NOTHING_TO_ACKNOWLEDGE: "ACKNOWLEDGE without Results Ready",
        Refusal.OTHER_RESULT: "ACKNOWLEDGE with the `acknowledge` of another result than the one that stands there",
        Refusal.OTHER: "another reason; the line's log says which",
    },
}

STATES = {
    LineState.STARTING: 0,
    LineState.STOPPED: 1,
    LineState.RUNNING: 2,
    LineState.DRAINING: 3,
    LineState.FAILED: 4,
    LineState.CLOSED: 5,
}

VERDICTS = {Verdict.OK: 1, Verdict.NG: 2, Verdict.REVIEW: 3, Verdict.ERROR: 4}

NO_KIND, OTHER_KIND = -1, 32767
UNKNOWN_TIME = 0xFFFFFFFF
OTHER_CODE = 999

CODES = {
    "frame-missing": 10,
    "frame-incomplete": 11,
    "frame-lost": 12,
    "frame-doubled": 13,
    "deadline-missed": 14,
    "view-missing": 15,
    "judging-failed": 16,
    "stopped": 17,
    "interrupted": 18,
    "accounts": 19,
    "camera-lost": 20,
    "camera-ended": 21,
    "camera-hung": 22,
    "camera-back": 23,
    "queue-full": 24,
    "recording-ended": 25,
    "image-unreadable": 30,
    "image-too-large": 31,
    "input-mismatch": 32,
    "inference-failed": 33,
    "judging-hung": 34,
    "telling-failed": 35,
    "config-invalid": 40,
    "model-invalid": 41,
    "provider-unavailable": 42,
    "certificate-mismatch": 43,
    "data-invalid": 44,
    "missing-extra": 45,
    "promise-broken": 46,
    "not-ready": 47,
    "change-over-failed": 48,
    "line-failed": 49,
    "output-unwritable": 50,
    "delivery-failed": 51,
    "delivery-refused": 52,
    "output-late": 53,
    "output-dropped": 54,
    "output-refused": 55,
    "output-away": 56,
    "output-back": 57,
    "output-disk": 58,
    "output-disk-back": 59,
    "output-damaged": 60,
    "plc-lost": 70,
    "result-unacknowledged": 71,
    "modbus-failed": 72,
    "record-invalid": 80,
    "record-in-use": 81,
    "record-unavailable": 82,
    "record-gap": 83,
    "record-damaged": 84,
    "record-images": 85,
    "record-conflict": 86,
    "record-disk-full": 87,
    "record-journal": 88,
    "record-lost": 89,
    "record-storer": 90,
    "record-retention": 91,
    "record-database": 92,
    "chain-broken": 93,
    "opcua-certificate": 100,
    "opcua-change-over": 101,
    "opcua-client-refused": 102,
    "opcua-login-refused": 103,
    "opcua-unprotected": 104,
    "opcua-behind": 105,
    "payload-invalid": 110,
    "sparkplug-command": 111,
}
"""Numbers of `code`, `alarm` and `problem`; 0: none, 999: one that this map does not number yet."""


def code_number(code: str | None) -> int:
    """The number of an error's or alarm's code."""
    return CODES.get(code, OTHER_CODE) if code else 0


def _lay(start: int, *rows: tuple[str, Kind, str] | tuple[str, Kind, str, int] | int) -> tuple[Register, ...]:
    """Registers one behind the other; a number leaves so many free."""
    laid: list[Register] = []
    for row in rows:
        if isinstance(row, int):
            start += row
            continue
        name, kind, meaning, *room = row
        laid.append(Register(name=name, address=start, kind=kind, meaning=meaning, characters=room[0] if room else 0))
        start = laid[-1].end
    return tuple(laid)


STATUS = _lay(
    0,
    ("version", "u16", f"of this map: {VERSION}"),
    ("heartbeat", "u16", "counts up every `heartbeat` seconds while the line is alive; after 65535 comes 0"),
    ("status", "u16", "bits, see below"),
    ("state", "u16", "of the line, see below"),
    ("recipe", "i16", "index of the recipe that new parts are judged by; -1: none"),
    ("changing_to", "i16", "index of the recipe that is being loaded; -1: none"),
    ("alarm", "u16", "code of the last alarm, see below; 0 after RESET"),
    ("problem", "u16", "code of why the line has failed, see below; 0: it has not"),
    ("refusal", "u16", "why the last command was refused, see below"),
    ("echo", "u16", "`command` as it was carried out or refused"),
    ("accepted", "u32", "part number of the last trigger that became a part"),
    ("alarms", "u32", "alarms since the start"),
    ("refused", "u32", "commands refused since the start"),
    ("triggers", "u32", "parts; always = ok + ng + review + error + in_flight"),
    ("ok", "u32", "parts with that verdict"),
    ("ng", "u32", "parts with that verdict"),
    ("review", "u32", "parts with that verdict"),
    ("error", "u32", "parts that could not be judged"),
    ("in_flight", "u32", "parts without a verdict yet"),
    ("unacknowledged", "u32", "results that the next one replaced before they were acknowledged"),
)

RESULT = _lay(
    32,
    ("sequence", "u16", "of the result; 1, 2, ... and after 65535 again 1; 0: there was none yet"),
    ("verdict", "u16", "0: none yet, 1: OK, 2: NG, 3: REVIEW, 4: ERROR"),
    ("class", "i16", "number of the worst defect's kind in the output's `classes`; -1: none, 32767: not in that list"),
    ("code", "u16", "why it is ERROR, see below; 0: it is not"),
    ("number", "u32", "part number: the line's own count"),
    ("score", "f32", "highest raw score of all views; NaN: there is none"),
    ("encoder", "u32", "the encoder's count at the trigger; 0: none"),
    ("last_frame_ms", "u32", "trigger to last frame; 4294967295: unknown"),
    ("decided_ms", "u32", "trigger to verdict; 4294967295: unknown"),
    ("judged_by", "i16", "index of the recipe; -1: it is no longer there"),
    ("views", "u16", "how many the part has"),
    ("views_ok", "u32", "bit n: view n of the recipe is OK (views from the 33rd on have no bit)"),
    ("views_ng", "u32", "likewise NG"),
    ("views_review", "u32", "likewise REVIEW"),
    ("views_error", "u32", "likewise ERROR"),
    ("defects", "u16", "of all views, without the tolerated ones"),
    ("worst_view", "i16", "view of the defect with the highest score; -1: there is no defect"),
    ("worst_x", "u16", "its box, in pixels of the whole frame"),
    ("worst_y", "u16", ""),
    ("worst_width", "u16", ""),
    ("worst_height", "u16", ""),
    ("worst_score", "f32", "its raw score; NaN: there is no defect"),
    ("serial", "text", "the part's serial or barcode; its number where none was given", 48),
    ("lot", "text", "", 32),
    ("sequence_again", "u16", "the same as `sequence`: for a PLC that reads the result in several requests"),
)

COMMANDS = _lay(
    200,
    ("command", "u16", "bits, see below"),
    ("recipe_in", "u16", "index of the recipe for CHANGE"),
    ("acknowledge", "u16", "`sequence` of the result that ACKNOWLEDGE is for; 0: whichever stands there"),
    ("plc_heartbeat", "u16", "anything that changes, where the recipe sets a `watchdog`"),
    ("encoder_in", "u32", "the belt's count, both registers in one request; may wrap"),
    ("serial_in", "text", "of the parts to come; empty: the line's own number", 48),
    ("lot_in", "text", "of the parts to come", 32),
)

REGISTERS = {register.name: register for register in (*STATUS, *RESULT, *COMMANDS)}
READ_ONLY = range(RESULT[-1].end)
WRITABLE = range(COMMANDS[0].address, COMMANDS[-1].end)


OUTCOMES = {
    Verdict.OK: Status.OK,
    Verdict.NG: Status.NG,
    Verdict.REVIEW: Status.REVIEW,
    Verdict.ERROR: Status.ERROR | Status.NG,  # a PLC that only looks at NG rejects the part
}
NO_RESULT: dict[str, Written] = {
    "class": NO_KIND,
    "score": math.nan,
    "worst_score": math.nan,
    "worst_view": -1,
    "judged_by": -1,
    "last_frame_ms": UNKNOWN_TIME,
    "decided_ms": UNKNOWN_TIME,
}


def result_values(body: Mapping[str, Any], classes: Sequence[str]) -> dict[str, Written]:
    """A `PartResult.to_dict()` by register; it may come back from a spool, where nothing else is left of it."""
    views: Sequence[Mapping[str, Any]] = body["views"]
    defects = [(index, defect) for index, view in enumerate(views) for defect in view["defects"]]
    scores = [view["score"] for view in views if view["score"] is not None]
    kind = body["kind"]
    values: dict[str, Written] = NO_RESULT | {
        "verdict": VERDICTS[Verdict(body["verdict"])],
        "code": code_number(body["code"]),
        "number": body["number"] & 0xFFFFFFFF,
        "encoder": (body["encoder"] or 0) & 0xFFFFFFFF,
        "views": len(views),
        "defects": min(len(defects), 0xFFFF),
        "serial": body["part"],
        "lot": body["lot"] or "",
    }
    if kind is not None:
        values["class"] = classes.index(kind) if kind in classes else OTHER_KIND
    if scores:
        values["score"] = _single(max(scores))
    for name in ("last_frame", "decided"):
        if (seconds := body["seconds"].get(name)) is not None:
            values[f"{name}_ms"] = min(max(0, round(seconds * 1000)), UNKNOWN_TIME - 1)
    for verdict in Verdict:
        judged_so = (1 << index for index, view in enumerate(views[:32]) if view["verdict"] == verdict)
        values[f"views_{verdict.value.lower()}"] = sum(judged_so)
    box: Sequence[int] = (0, 0, 0, 0)
    if defects:
        index, worst = max(defects, key=lambda one: one[1]["score"])
        box = worst["box"]
        values |= {"worst_view": index, "worst_score": _single(worst["score"])}
    for name, length in zip(("x", "y", "width", "height"), box, strict=True):
        values[f"worst_{name}"] = min(max(0, length), 0xFFFF)
    return values


def _single(value: float) -> float:
    """As far as single precision reaches; beyond it is infinite."""
    return value if abs(value) < 3.4e38 or not math.isfinite(value) else math.copysign(math.inf, value)


def tables() -> str:
    """The tables of docs/modbus.md."""
    parts = []
    for title, registers in (
        ("Status: read only", STATUS),
        ("Result: read only", RESULT),
        ("Commands: read and write", COMMANDS),
    ):
        rows = [
            f"| {one.address}{f'-{one.end - 1}' if one.count > 1 else ''} | `{one.name}` | "
            f"{f'text, {one.characters}' if one.characters else one.kind} | {one.meaning} |"
            for one in registers
        ]
        parts.append("\n".join([f"### {title}", "", "| register | name | type | |", "|---|---|---|---|", *rows]))
    for title, bits in (("Bits of `status`, discrete inputs", Status), ("Bits of `command`, coils", Command)):
        rows = [f"| {int(bit).bit_length() - 1} | {bit.name} | {MEANINGS[bits][bit]} |" for bit in bits]
        parts.append("\n".join([f"### {title}", "", "| bit | name | |", "|---|---|---|", *rows]))
    rows = [f"| {reason.value} | {MEANINGS[Refusal][reason]} |" for reason in Refusal]
    parts.append("\n".join(["### Numbers of `refusal`", "", "| number | |", "|---|---|", *rows]))
    rows = [f"| {number} | {state.value} |" for state, number in STATES.items()]
    parts.append("\n".join(["### Numbers of `state`", "", "| number | state |", "|---|---|", *rows]))
    rows = [f"| {number} | `{code}` |" for code, number in sorted(CODES.items(), key=lambda item: item[1])]
    rows = ["| 0 | none |", *rows, f"| {OTHER_CODE} | one that this map does not number |"]
    parts.append(
        "\n".join(["### Numbers of `code`, `alarm` and `problem`", "", "| number | code |", "|---|---|", *rows])
    )
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    print(tables(), end="")
