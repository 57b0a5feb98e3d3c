"""What a person must be told of one output: each fault once, and losses as a count now and then."""

from __future__ import annotations

_EVERY = 1.0  # seconds between two alarms about losses of the same sort; each says how many there were
_SORTS = {
    "late": "not delivered before the deadline, and not sent any more",
    "dropped": "dropped, because more waited than may wait",
    "refused": "refused by the other side for good",
}


class Notices:
    """Alarms of one output that are still to be raised. Not thread-safe: its owner holds a lock."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._alarms: list[tuple[str, str]] = []
        self._losses: dict[str, tuple[int, str]] = {}  # not alarmed yet: how many, and what happened to the last
        self._next: dict[str, float] = {}

    def say(self, code: str, what: str) -> None:
        """An alarm."""
        self._alarms.append((code, f"{self._name}: {what}"))

    def lost(self, sort: str, number: int, last: str) -> None:
        """So many messages more are `late`, `dropped` or `refused`; `last` says what happened to the last of them."""
        self._losses[sort] = (self._losses.get(sort, (0, ""))[0] + number, last)

    def say_losses(self, now: float, *, all_of_them: bool = False) -> None:
        """Alarms of the losses whose turn it is."""
        for sort in [s for s in self._losses if all_of_them or now >= self._next.get(s, 0.0)]:
            number, last = self._losses.pop(sort)
            self._next[sort] = now + _EVERY
            self.say(f"output-{sort}", f"{number} {_SORTS[sort]}; {last}.")

    def due(self, now: float) -> list[float]:
        """When `say_losses` has something to say next."""
        return [self._next.get(sort, now) for sort in self._losses]

    def take(self) -> list[tuple[str, str]]:
        """All alarms since the last call: code and sentence."""
        alarms, self._alarms = self._alarms, []
        return alarms
