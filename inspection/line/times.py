"""How long what took, of the latest parts."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator

import numpy as np

from inspection.parts import PartResult

KEPT = 20_000
SHARES = (50.0, 99.0, 99.9)


class Times:
    """Seconds by stage, of the latest `KEPT` parts (views).

    Stages of a view: `frame` from the trigger to its last byte, `wait` until a worker took it, `judge` until its
    result.
    Of a part: `verdict` from its last frame to its verdict, `part` from the trigger to its verdict, `margin` from its
    verdict to its deadline.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seconds: dict[str, deque[float]] = {}

    def add(self, result: PartResult) -> None:
        """Takes the times of one part."""
        with self._lock:
            for stage, value in _stages(result):
                self._seconds.setdefault(stage, deque(maxlen=KEPT)).append(value)

    def clear(self) -> None:
        """Forgets everything."""
        with self._lock:
            self._seconds.clear()

    def seconds(self, stage: str) -> list[float]:
        """All values that are kept, the oldest first."""
        with self._lock:
            return list(self._seconds.get(stage, ()))

    def summary(self) -> dict[str, dict[str, float]]:
        """By stage: `p50`, `p99`, `p99.9`, `max`, and how many."""
        with self._lock:
            kept = {stage: np.array(values) for stage, values in self._seconds.items()}
        return {
            stage: {
                **{f"p{share:g}": float(np.percentile(values, share)) for share in SHARES},
                "max": float(values.max()),
                "count": float(len(values)),
            }
            for stage, values in kept.items()
        }


def _stages(result: PartResult) -> Iterator[tuple[str, float]]:
    for view in result.views:
        times = view.seconds
        if "received" in times:
            yield "frame", times["received"]
        if "started" in times:
            yield "wait", times["started"] - times["received"]
        if "judged" in times and "started" in times:
            yield "judge", times["judged"] - times["started"]
    yield "part", result.seconds["decided"]
    yield "margin", result.deadline - result.decided
    if "last_frame" in result.seconds:
        yield "verdict", result.seconds["decided"] - result.seconds["last_frame"]
