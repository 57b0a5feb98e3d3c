"""All outputs of a line: what is told to one is told to all, each by its own courier."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from inspection.control import Control
from inspection.outputs.courier import Courier
from inspection.outputs.open import open_sink
from inspection.outputs.options import AnyOutput
from inspection.outputs.sink import Message
from inspection.parts import PartResult

_log = logging.getLogger("inspection.line")


class Outlets:
    """The couriers of a line's outputs.

    Args:
        spool: folder below which reporting outputs store what waits.
        clock: monotonic seconds, the same as the deadlines'.
    """

    def __init__(
        self, options: Sequence[AnyOutput], control: Control, *, spool: Path, clock: Callable[[], float]
    ) -> None:
        self.couriers: dict[str, Courier] = {}
        self.alarms = 0
        self.last_alarms: list[dict[str, Any]] = []
        self._control = control
        self._sequence = itertools.count(1)
        self._lock = threading.RLock()  # over the sequence: every output gets messages in its order
        for one in options:
            name = one.name or one.kind
            if name in self.couriers:
                name = next(f"{name}-{n}" for n in itertools.count(2) if f"{name}-{n}" not in self.couriers)
            sink = open_sink(one, control=control, line=control.name, alarm=self.alarm)
            self.couriers[name] = Courier(one, sink, name=name, spool=spool / name, alarm=self.alarm, clock=clock)

    def start(self) -> None:
        """Opens all; returns at once."""
        for courier in self.couriers.values():
            courier.start()

    def result(self, result: PartResult, body: dict[str, Any]) -> None:
        """Tells the verdict on a part."""
        self._send("result", body, result)

    def tell(self, body: dict[str, Any]) -> None:
        """Tells a result of which only the body is left: a part that a kill interrupted."""
        self._send("result", body)

    def state(self) -> None:
        """Tells the line's state and recipe, of which one has changed."""
        control = self._control
        with self._lock:  # what is told last is what was last so
            info, problem = control.recipe, control.problem
            self._send(
                "state",
                {
                    "line": control.name,
                    "state": control.state.value,
                    "recipe": None if info is None else info.id,
                    "recipe_hash": None if info is None else info.hash,
                    "product": None if info is None else info.product,
                    "problem": None if problem is None else str(problem),
                },
            )

    def alarm(self, code: str, what: str) -> None:
        """Tells what a person must know; also the log."""
        _log.warning("[%s] %s", code, what)
        body = {"code": code, "what": what, "wall": time.time()}
        self.alarms += 1
        self.last_alarms = [*self.last_alarms[-49:], body]
        self._send("alarm", body)

    def turn(self, encoder: int) -> None:
        """The belt's encoder stands at this count."""
        for courier in self.couriers.values():
            courier.turn(encoder)

    def close(self, drain: float) -> None:
        """Delivers what can be delivered within `drain` seconds; the rest is stored or counted."""
        closers = [threading.Thread(target=courier.close, args=(drain,)) for courier in self.couriers.values()]
        for thread in closers:
            thread.start()
        for thread in closers:
            thread.join()

    def counters(self) -> dict[str, dict[str, int]]:
        """Of each output."""
        return {f"output {name}": courier.counters() for name, courier in self.couriers.items()}

    def _send(
        self, kind: Literal["result", "alarm", "state"], body: dict[str, Any], result: PartResult | None = None
    ) -> None:
        with self._lock:
            message = Message(
                kind=kind,
                sequence=next(self._sequence),
                wall=time.time(),
                body=body,
                result=result,
                deadline=None if result is None else result.deadline,
            )
            for courier in self.couriers.values():
                courier.put(message)
