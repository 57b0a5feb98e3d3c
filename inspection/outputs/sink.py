"""The protocol of an output. A `Courier` (inspection.outputs.courier) owns its thread, queue, retries and counters."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from inspection.errors import InspectionError
from inspection.parts import PartResult


class DeliveryFailed(InspectionError):
    """The other side did not take the message; trying again may help.

    Args:
        retry_after: seconds that the other side asked to wait before the next try.
    """

    code = "delivery-failed"
    exit_code = 9
    status = 502

    def __init__(
        self, what: str, *, where: str | None = None, hint: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(what, where=where, hint=hint)
        self.retry_after = retry_after


class DeliveryRefused(DeliveryFailed):
    """The other side will never take this message (too large, no right): trying again is of no use."""

    code = "delivery-refused"


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """What an output is given.

    Attributes:
        kind: `result`: the verdict on a part; `alarm`: something that a person must know (a camera lost, a disk full,
            a verdict too late for the gate); `state`: the line's state or recipe changed.
        sequence: counts up within one line; messages reach each output in this order, so the order per part is kept.
            A gate gets those with a deadline before those without, each in this order.
        body: plain values for JSON.
        result: with `result`, what `body` was made from; None after it came back from a spool on disk.
        deadline: monotonic seconds; of use until then only. None: of use whenever it arrives.
    """

    kind: Literal["result", "alarm", "state"]
    sequence: int
    wall: float
    body: dict[str, Any] = field(default_factory=dict)
    result: PartResult | None = None
    deadline: float | None = None


class Sink(Protocol):
    """One way out; used by one thread at a time."""

    def open(self) -> None:
        """Connects or listens. Raises DeliveryFailed (may succeed later), ConfigInvalid, MissingExtra."""

    def deliver(self, message: Message) -> None:
        """Returns when the other side has it.

        Raises:
            DeliveryFailed: it has not; the courier tries again. DeliveryRefused: it never will.
        """

    def close(self) -> None:
        """Lets go. Never raises; may be called twice, and from another thread to end a `deliver` that hangs."""
