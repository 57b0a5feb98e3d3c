"""What a door may ask of a running line: the PLC's handshake, OPC UA's methods and HTTP all come down to this."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from inspection.errors import InspectionError
from inspection.parts import Frame, PartResult

Alarm = Callable[[str, str], None]
"""Tells a person what went wrong: a short code that never changes, and one sentence."""


class NotReady(InspectionError):
    """The line cannot do this in the state that it is in."""

    code = "not-ready"
    exit_code = 9
    status = 409


class LineState(StrEnum):
    """What the line is doing."""

    STARTING = "starting"  # no recipe is loaded yet
    STOPPED = "stopped"  # a recipe is loaded and warm; triggers are refused until `start`
    RUNNING = "running"  # every trigger becomes a part
    DRAINING = "draining"  # no new part; those in flight get their verdicts
    FAILED = "failed"  # it cannot go on until `reset`: models that do not load, a recipe that cannot be carried out
    CLOSED = "closed"


@dataclass(frozen=True, kw_only=True, slots=True)
class RecipeInfo:
    """A recipe that the line could judge by.

    `id` is the file's stem, `index` its number for PLCs (0, 1, ... by id unless the file states one), `hash` the
    SHA-256 of what it says, models included; None before it was loaded.
    """

    id: str
    index: int
    product: str
    hash: str | None = None


class Control(Protocol):
    """A running line. Every method may be called from any thread and returns at once, unless it says otherwise."""

    name: str

    @property
    def state(self) -> LineState: ...

    @property
    def problem(self) -> InspectionError | None:
        """Why it is `FAILED`; None otherwise."""

    @property
    def recipe(self) -> RecipeInfo | None:
        """What new parts are judged by."""

    @property
    def changing_to(self) -> RecipeInfo | None:
        """A recipe that is being loaded and takes over when it is warm; None: none is."""

    def recipes(self) -> list[RecipeInfo]:
        """All that can be chosen, by index."""

    def trigger(self, *, part: str | None = None, lot: str | None = None, encoder: int | None = None) -> int:
        """A part comes by; returns its number. Its `PartResult` reaches every output and `wait`.

        Raises:
            NotReady: not RUNNING.
        """

    def wait(self, number: int, timeout: float) -> PartResult | None:
        """Blocks until that part has its verdict; None when it has none within `timeout` seconds, or is long past."""

    def change_over(self, recipe_id: str, *, wait: bool = False) -> None:
        """Loads and warms another recipe beside the running one; it takes over between two parts.

        Args:
            wait: blocks until it has taken over.

        Raises:
            ConfigInvalid: no such recipe, or it cannot be carried out; the running one goes on.
        """

    def start(self) -> None:
        """STOPPED -> RUNNING. Raises NotReady elsewhere; in RUNNING nothing happens."""

    def stop(self) -> None:
        """RUNNING -> DRAINING -> STOPPED: no new parts, those in flight get their verdicts."""

    def reset(self) -> None:
        """FAILED -> STARTING: tries again."""

    def turn(self, encoder: int) -> None:
        """The belt's encoder stands at this count."""

    def push(self, view: str, frame: Frame) -> None:
        """Hands a frame to a view whose camera is of the kind `pushed`. Raises ConfigInvalid, NotReady."""

    def counters(self) -> dict[str, dict[str, int]]:
        """`line`: triggers, OK, NG, REVIEW, ERROR, in_flight; and such an account for every view and output."""
