"""The line's time: the machine's monotonic clock, or one that a replay moves by hand."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Seconds that only rise."""

    real: bool
    """Whether it goes by itself; else it stands still until somebody moves it."""

    def now(self) -> float: ...


class MachineClock:
    """The machine's own monotonic clock."""

    real = True

    def now(self) -> float:
        """Seconds since some moment."""
        return time.monotonic()


class HandClock:
    """A clock that stands still until it is moved: a recording is replayed as fast as it goes, and nothing is late."""

    real = False

    def __init__(self, start: float = 0.0) -> None:
        self._now = start

    def now(self) -> float:
        """Where it stands."""
        return self._now

    def move(self, to: float) -> None:
        """Moves it on; never back."""
        self._now = max(self._now, to)
