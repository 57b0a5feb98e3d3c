"""Progress with time left, on a terminal as a bar and in a log as a line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

T = TypeVar("T")

# Everything a person reads while waiting goes to stderr: stdout carries results only, so that it can be piped.
console = Console(stderr=True, highlight=False)

WIDE = 1000  # columns of a table in a file or a pipe: a row stays one line, so that it can be searched


def stdout() -> Console:
    """Where results are printed for a person."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else WIDE)


LOG_EVERY = 10.0  # seconds between lines when stderr is no terminal


class Meter:
    """Counts steps towards `total` and shows them with the time left. Use as a context manager."""

    def __init__(self, label: str, total: int, *, done: int = 0) -> None:
        self.label = label
        self.total = total
        self.done = done
        self.note = ""
        self._first = done
        self._started = self._printed = time.monotonic()
        self._bar: Progress | None = None

    def __enter__(self) -> Meter:
        if console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                console=console,
                transient=False,
            )
            self._bar.start()
            self._task = self._bar.add_task(self.label, total=self.total, completed=self.done, note="")
        return self

    def step(self, count: int = 1, note: str | None = None) -> None:
        """Says that `count` more are done; `note` stands behind the bar until the next one."""
        self.done += count
        self.note = self.note if note is None else note
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done, note=self.note)
            return
        now = time.monotonic()
        if now - self._printed >= LOG_EVERY:
            self._printed = now
            left = (now - self._started) / max(1, self.done - self._first) * (self.total - self.done)
            tail = f", {self.note}" if self.note else ""
            print(f"{self.label}: {self.done}/{self.total}, {left:.0f} s left{tail}", file=sys.stderr, flush=True)

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()


def track(items: Iterable[T], label: str, total: int) -> Iterator[T]:
    """Yields `items` and shows how many of `total` are done."""
    with Meter(label, total) as meter:
        for item in items:
            yield item
            meter.step()
