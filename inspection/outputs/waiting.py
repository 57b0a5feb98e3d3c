"""What waits in memory for one output, and in which order it may go."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain

from inspection.outputs.options import OutputOptions
from inspection.outputs.sink import Message

FOREVER = float("inf")


class Waiting:
    """A bounded queue. Not thread-safe: its owner holds a lock.

    A report's messages keep their order. In a gate's queue those with a deadline go before those without one, or what
    came up during an outage would be told first while the verdicts behind it run out; among each the order is kept.
    """

    def __init__(self, options: OutputOptions) -> None:
        self._options = options
        self._urgent: deque[Message] = deque()  # a gate's with a deadline, oldest first
        self._others: deque[Message] = deque()
        self._earliest = FOREVER  # no deadline of the urgent is before this

    def __len__(self) -> int:
        return len(self._urgent) + len(self._others)

    def __iter__(self) -> Iterator[Message]:
        """In the order in which they go."""
        return chain(self._urgent, self._others)

    @property
    def earliest(self) -> float:
        """Monotonic seconds; nothing is late before. Infinity: nothing can be late."""
        return self._earliest

    def put(self, message: Message) -> Message | None:
        """Takes the newest message; what had to go for it, which may be the message itself.

        The oldest goes. At a gate it is the new one, for those before it are wanted sooner; but one with a deadline
        pushes out the oldest without.
        """
        queue = self._queue_of(message)
        lost = None
        if len(self) >= self._options.queue:
            if not self._others or (self._options.gate and queue is self._others):
                return message
            lost = self._others.popleft()
        queue.append(message)
        self._note(message)
        return lost

    def put_back(self, messages: Iterable[Message]) -> None:
        """Takes again what was taken out, oldest first, and is older than all that waits. May go beyond the bound."""
        for message in reversed(list(messages)):
            self._queue_of(message).appendleft(message)
            self._note(message)

    def drop_oldest(self) -> Message | None:
        """Takes out the oldest beyond the bound."""
        return self._others.popleft() if len(self) > self._options.queue and self._others else None

    def take_all(self) -> list[Message]:
        """Takes out everything."""
        messages = list(self)
        self._urgent.clear()
        self._others.clear()
        self._earliest = FOREVER
        return messages

    def take(self, now: float, encoder: int | None) -> Message | None:
        """Takes out the next message that may go now: the first, or with `hold` the first that is not held."""
        message = self.ready(now, encoder)
        if message is None:
            return None
        queue = self._queue_of(message)
        del queue[next(index for index, one in enumerate(queue) if one is message)]
        return message

    def ready(self, now: float, encoder: int | None) -> Message | None:
        """What `take` would take out.

        Args:
            encoder: where the belt stands; None: nobody has said.
        """
        hold = self._options.hold
        held = False  # results go in the order of their parts
        for message in self:
            result = message.result
            if hold is None or result is None:
                return message
            if held:
                continue
            if hold.after is not None:
                held = now < result.trigger.at + hold.after
            elif hold.encoder is not None:
                held = not _reached(encoder, result.trigger.encoder, hold.encoder)
            if not held:
                return message
        return None

    def held_until(self) -> float:
        """When the first result has been held for its time; infinity: nothing is held for a time."""
        hold = self._options.hold
        if hold is None or hold.after is None:
            return FOREVER
        first = next((message.result for message in self if message.result is not None), None)
        return FOREVER if first is None else first.trigger.at + hold.after

    def is_late(self, message: Message, now: float) -> bool:
        """Whether the gate can use it no more."""
        return self._options.gate and message.deadline is not None and message.deadline <= now

    def take_late(self, now: float) -> list[Message]:
        """Takes out what is late."""
        if now < self._earliest:
            return []
        late = [message for message in self._urgent if self.is_late(message, now)]
        self._urgent = deque(message for message in self._urgent if not self.is_late(message, now))
        self._earliest = min((m.deadline for m in self._urgent if m.deadline is not None), default=FOREVER)
        return late

    def _queue_of(self, message: Message) -> deque[Message]:
        return self._urgent if self._options.gate and message.deadline is not None else self._others

    def _note(self, message: Message) -> None:
        if self._options.gate and message.deadline is not None:
            self._earliest = min(self._earliest, message.deadline)


def _reached(encoder: int | None, trigger: int | None, distance: int) -> bool:
    """Whether the belt has gone `distance` counts since the trigger; a count of 32 bits may have wrapped meanwhile."""
    if encoder is None or trigger is None:
        return False
    return (encoder - trigger - distance) % 2**32 < 2**31
