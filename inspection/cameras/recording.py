"""What a running line saw, on disk: triggers, frames, lost cameras and verdicts in their order, to the bit.

A recording is a folder:

    recording.json   format, when it was made, and what the line said of itself
    events.jsonl     one line for each trigger, frame, loss and verdict, in their order; a last one `end` says why it
                     ended
    VIEW.pixels      the frames' raw pixels, one after another; the events say where each lies and its CRC-32

Pixels are written before the line that names them, so whatever a kill or a power cut leaves half written is a last line
that is not whole, or pixels that nobody names. `inspection.cameras.recorder` writes recordings; this module reads them.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from inspection.errors import ConfigInvalid, DataInvalid
from inspection.machine import memory_bytes
from inspection.parts import Frame, Trigger
from inspection.pixels import Pixels

FORMAT = 2
READABLE = (1, FORMAT)  # 1 has no losses of cameras
ABOUT, EVENTS, PIXELS = "recording.json", "events.jsonl", ".pixels"
CUT_OFF = "cut off"  # the state of a recording without an `end`
TRIGGER_FIELDS = [one.name for one in dataclasses.fields(Trigger) if one.name != "at"]
FRAME_FIELDS = [one.name for one in dataclasses.fields(Frame) if one.name not in ("pixels", "received")]
DTYPES: dict[str, np.dtype[Any]] = {"uint8": np.dtype("u1"), "uint16": np.dtype("<u2")}
VIEW_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")  # as in recipes: it is part of a file's name


@dataclass(frozen=True, kw_only=True, slots=True)
class TriggerEvent:
    """A part came by, `offset` seconds after the recording's start."""

    offset: float
    trigger: Trigger


@dataclass(frozen=True, kw_only=True, slots=True)
class FrameEvent:
    """A frame of a view arrived, `offset` seconds after the recording's start."""

    offset: float
    view: str
    frame: Frame


@dataclass(frozen=True, kw_only=True, slots=True)
class LostEvent:
    """A view's camera went or came back, `offset` seconds after the recording's start: frames of the triggers before
    it will not come, for this `reason`, and its count begins anew."""

    offset: float
    view: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ResultEvent:
    """A part had its verdict, `offset` seconds after the recording's start; `body` as `PartResult.to_dict` gave it."""

    offset: float
    body: dict[str, Any]


Event = TriggerEvent | FrameEvent | LostEvent | ResultEvent


def is_recording(folder: str | Path) -> bool:
    """Whether the folder holds a recording."""
    return (Path(folder) / ABOUT).is_file()


class Recording:
    """A recording, read.

    Its index lies in memory, its pixels are read when they are asked for, or all at once by `preload`. Times are
    seconds after the recording's start: `offset`, `Trigger.at` and `Frame.received` are the same number.

    Attributes:
        about: what the line said of itself. started: seconds since 1970, UTC.
        state: why it ended: `closed`, `full`, `behind` (`RecorderState`), or `cut off` by a kill or a failing disk.
        index: everything in its order, frames without their pixels.
        seconds: the highest offset.
    """

    def __init__(self, folder: str | Path) -> None:
        """Raises DataInvalid: no recording, one of another version, or a line of it that cannot be read."""
        self.folder = Path(folder)
        try:
            head = json.loads((self.folder / ABOUT).read_text(encoding="utf-8"))
            lines = (self.folder / EVENTS).read_bytes().split(b"\n")[:-1]  # what has no end of line was cut off
        except (OSError, ValueError) as error:
            raise DataInvalid(
                f"this is no recording: {error}.",
                where=str(folder),
                hint="Name a folder that `inspection run --record` made.",
            ) from error
        if not isinstance(head, dict) or head.get("format") not in READABLE:
            raise DataInvalid(
                "the recording was made by another version.",
                where=str(self.folder / ABOUT),
                hint=f"This one reads the formats {', '.join(map(str, READABLE))}.",
            )
        self.about: dict[str, Any] = head.get("about", {})
        self.started: float = head.get("started", 0.0)
        self.state = CUT_OFF
        self.index: list[Event] = []
        self._stored: list[_Stored | None] = []  # where the pixels of each event lie
        self._kept: dict[int, Pixels | None] = {}
        for number, line in enumerate(lines, start=1):
            try:
                self._add(json.loads(line))
            except (ValueError, KeyError, TypeError) as error:
                if number == len(lines):
                    break  # it was being written when the power went
                raise DataInvalid(
                    f"the line cannot be read: {error!r}.",
                    where=f"{self.folder / EVENTS}:{number}",
                    hint="The file was changed or damaged; record again.",
                ) from error
        self.seconds = max((event.offset for event in self.index), default=0.0)

    def _add(self, line: dict[str, Any]) -> None:
        kind = line["event"]
        if kind == "end":
            self.state = str(line["state"])
            return
        offset = float(line["offset"])
        event: Event
        stored = None
        if kind == "trigger":
            trigger = Trigger(at=offset, **{name: line[name] for name in TRIGGER_FIELDS})
            event = TriggerEvent(offset=offset, trigger=trigger)
        elif kind == "frame":
            view = _view(line)
            frame = Frame(pixels=None, received=offset, **{name: line[name] for name in FRAME_FIELDS})
            event = FrameEvent(offset=offset, view=view, frame=frame)
            stored = _Stored.parse(line["pixels"]) if line["pixels"] is not None else None
        elif kind == "lost":
            event = LostEvent(offset=offset, view=_view(line), reason=str(line["reason"]))
        elif kind == "result":
            event = ResultEvent(offset=offset, body=line["result"])
        else:
            raise ValueError(f"an event {kind!r} is unknown")
        self.index.append(event)
        self._stored.append(stored)

    @property
    def views(self) -> tuple[str, ...]:
        """The views that have frames, by name."""
        return tuple(sorted({event.view for event in self.index if isinstance(event, FrameEvent)}))

    @property
    def triggers(self) -> list[Trigger]:
        """In their order."""
        return [event.trigger for event in self.index if isinstance(event, TriggerEvent)]

    @property
    def results(self) -> list[dict[str, Any]]:
        """The verdicts in their order, each as `PartResult.to_dict` gave it."""
        return [event.body for event in self.index if isinstance(event, ResultEvent)]

    def frames(self, view: str) -> Iterator[Frame]:
        """A view's frames in their order."""
        for place, event in enumerate(self.index):
            if isinstance(event, FrameEvent) and event.view == view:
                yield self.frame(place)

    def events(self) -> Iterator[Event]:
        """Everything in its order, frames with their pixels."""
        for place, event in enumerate(self.index):
            if isinstance(event, FrameEvent):
                yield dataclasses.replace(event, frame=self.frame(place))
            else:
                yield event

    def frame(self, place: int) -> Frame:
        """The frame at a place of `index`. Its pixels are read-only; where they are no longer those that were written
        it has `damage`."""
        event, stored = self.index[place], self._stored[place]
        if not isinstance(event, FrameEvent):
            raise IndexError(f"event {place} is no frame")
        if stored is None:
            return event.frame
        pixels = self._kept[place] if place in self._kept else self._read(event.view, stored)
        if pixels is None:
            damage = "the recording's file of pixels is damaged or cut short here."
            return dataclasses.replace(event.frame, damage=damage)
        return dataclasses.replace(event.frame, pixels=pixels)

    def preload(self, views: Iterable[str] | None = None) -> int:
        """Reads the pixels of these views (None: of all) into memory; returns their bytes.

        Raises:
            ConfigInvalid: more than this machine has memory available.
        """
        wanted = set(self.views if views is None else views)
        places = {
            place: (event.view, stored)
            for place, (event, stored) in enumerate(zip(self.index, self._stored, strict=True))
            if isinstance(event, FrameEvent) and event.view in wanted and stored is not None
        }
        size = sum(stored.size for _, stored in places.values())
        check_memory(size, where=str(self.folder))
        for place, (view, stored) in places.items():
            if place not in self._kept:
                self._kept[place] = self._read(view, stored)
        return size

    def _read(self, view: str, stored: _Stored) -> Pixels | None:
        """Pixels that are those that were written; None otherwise, and then the frame says so."""
        try:
            with (self.folder / f"{view}{PIXELS}").open("rb") as file:
                if file.seek(0, os.SEEK_END) < stored.at + stored.size:
                    return None
                file.seek(stored.at)
                data = np.fromfile(file, dtype=np.uint8, count=stored.size)
        except OSError:
            return None
        if data.size < stored.size or zlib.crc32(data.data) != stored.crc32:
            return None
        pixels: Pixels = data.view(stored.dtype).reshape(stored.shape)
        pixels.flags.writeable = False
        return pixels


def _view(line: dict[str, Any]) -> str:
    """The view of an event; its name is part of a file's. Raises KeyError, TypeError, ValueError."""
    name = line["view"]
    if not VIEW_NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no view's name")
    return str(name)


@dataclass(frozen=True, slots=True)
class _Stored:
    """Where a frame's pixels lie in its view's file, and what they must be."""

    at: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    crc32: int

    @classmethod
    def parse(cls, line: dict[str, Any]) -> _Stored:
        """Raises KeyError, TypeError, ValueError."""
        shape = tuple(int(length) for length in line["shape"])
        stored = cls(at=int(line["at"]), shape=shape, dtype=DTYPES[line["dtype"]], crc32=int(line["crc32"]))
        if stored.at < 0 or min(shape, default=0) < 0:
            raise ValueError("pixels at no place")
        return stored

    @property
    def size(self) -> int:
        """Bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


def check_memory(size: int, *, where: str) -> None:
    """Refuses to keep more frames in memory than it has room for. Raises ConfigInvalid."""
    memory = memory_bytes()
    if memory is not None and size > memory[1]:
        raise ConfigInvalid(
            f"its frames take {size / 1e9:.1f} GB in memory, and {memory[1] / 1e9:.1f} GB are available.",
            where=where,
            hint="Set `preload: false`, or replay fewer or smaller frames.",
        )


def judgement(body: dict[str, Any]) -> str:
    """A verdict (`PartResult.to_dict`) without its times, as text: the same for two runs that judged alike to the bit.

    Times are what no two runs share: `triggered` and every `seconds`.
    """
    kept = {key: value for key, value in body.items() if key not in ("triggered", "seconds")}
    kept["views"] = [{key: value for key, value in view.items() if key != "seconds"} for view in body["views"]]
    return json.dumps(kept, sort_keys=True, default=plain)


def plain(value: object) -> object:
    """numpy's numbers as Python's, for JSON."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} has no place in JSON")
