"""What an output does next, decided without threads and without a clock of its own, so that time can be simulated.

Every message that was taken is, at every moment, in exactly one place: delivered, refused, late, dropped, or waiting:
`taken + recovered = delivered + refused + late + dropped + waiting`. `recovered` are those that an earlier run left in
the spool.

A reporting output writes each message to its spool before it tries to deliver it. An output for the gate keeps them in
memory: a verdict that comes late is of no use there.
"""

from __future__ import annotations

import contextlib
import random
import threading
from collections import deque
from typing import Literal

from inspection.outputs.attempt import AT_LEAST, Try
from inspection.outputs.notices import Notices
from inspection.outputs.options import OutputOptions
from inspection.outputs.sink import DeliveryFailed, DeliveryRefused, Message
from inspection.outputs.spool import Spool
from inspection.outputs.waiting import FOREVER, Waiting

Outcome = BaseException | None
State = Literal["connected", "trying", "away"]

_DISK_EVERY = 1.0  # seconds between two tries of a disk that is full, and between two `fdatasync`
_LONGEST_ASKED = 3600.0  # seconds that the other side may ask us to wait
_RECENT = 64  # stored messages that are also kept in memory, so that a sink that keeps up gets them with their result


class Dispatch:
    """The waiting messages of one output, its breaker and its counters.

    `put`, `turn`, `counters` and `state` may be called from any thread; all else is the courier's alone.

    Args:
        spool: where a reporting output stores; None: memory only, as for a gate.
    """

    def __init__(
        self, options: OutputOptions, *, name: str, spool: Spool | None, chance: random.Random | None = None
    ) -> None:
        self._options = options
        self._name = name
        self._spool = spool
        self._chance = chance or random.Random()
        self._lock = threading.Lock()
        self._memory = Waiting(options)
        self._storing: list[Message] = []  # what is being written to the spool
        self._recent: deque[Message] = deque()  # the newest of the spool's messages
        self._stored = len(spool) if spool else 0  # messages in the spool
        self._try: Try | None = None
        self._encoder: int | None = None
        self._opened = self._closed = self._away = False
        # What failed last, by time and number, with a deadline and without: one of the other sort may go in between.
        self._to_repeat: dict[bool, tuple[float, int]] = {}
        self._failures = 0  # in a row
        self._next_try = 0.0
        self._disk_broken = False  # it cannot be written
        self._unread = False  # it has not given the oldest message
        self._read_next = 0.0
        self._disk_next = self._sync_next = 0.0
        self._notices = Notices(name)
        self._recovered = self._stored
        self._taken = self._delivered = self._retried = self._failed = 0
        self._refused = self._late = self._dropped = 0
        if spool and spool.damaged:
            self._notices.say("output-damaged", f"{spool.damaged} stored messages are damaged and were passed over.")

    # -- from any thread -----------------------------------------------------------------------------------------

    def put(self, message: Message) -> None:
        """Takes a message. What a full queue loses for it, `Waiting.put` says; a reporting output only comes to that
        when its disk is full."""
        with self._lock:
            self._taken += 1
            lost = message if self._closed else self._memory.put(message)
            if lost is not None:
                self._lose("dropped", lost)

    def turn(self, encoder: int) -> None:
        """The belt's encoder stands at this count."""
        with self._lock:
            self._encoder = encoder

    def counters(self) -> dict[str, int]:
        """`taken`, `recovered` (found in the spool at the start); `delivered`, `refused`, `late`, `dropped`, `waiting`;
        `spooled`: of the waiting, on disk. `failed`: tries to deliver or connect; `retried`: repeated deliveries."""
        with self._lock:
            return {
                "taken": self._taken,
                "recovered": self._recovered,
                "delivered": self._delivered,
                "refused": self._refused,
                "late": self._late,
                "dropped": self._dropped,
                "waiting": self._waiting(),
                "spooled": self._stored,
                "failed": self._failed,
                "retried": self._retried,
            }

    @property
    def state(self) -> State:
        """`away` while the breaker is open; `trying` before the first and after a failed try; else `connected`."""
        if self._away:
            return "away"
        return "connected" if self._opened and not self._failures else "trying"

    # -- the courier's -------------------------------------------------------------------------------------------

    def step(self, now: float, *, free: bool = True) -> Try | None:
        """Brings everything up to `now`; the call to make next, if the sink is `free` and there is one."""
        self._store(now)
        with self._lock:
            self._expire(now)
            self._hurry(now)
            self._notices.say_losses(now)
        if self._failures and now >= self._sync_next:
            self._sync(now)
        if not free or self._try is not None or now < self._next_try:
            return None
        ends = now + self._options.timeout
        if not self._opened:
            self._try = Try(None, now, ends)
            return self._try
        oldest = self._oldest_stored(now)
        if self._unread:
            return None  # those in memory are newer
        with self._lock:
            if oldest is not None:
                self._try = Try(oldest, now, ends, stored=True)
            elif self._from_memory and (message := self._memory.take(now, self._encoder)) is not None:
                self._try = Try(message, now, ends)
            if self._try is not None and self._try.message is not None:
                self._bound(self._try, self._try.message)
                sort, key = _sort_and_key(self._try.message)
                self._retried += self._to_repeat.pop(sort, None) == key
            return self._try

    def done(self, error: Outcome, now: float, *, lost: bool = False) -> None:
        """The call has come back at `now`.

        Args:
            error: what it raised. lost: the sink must be opened again.
        """
        call = self._try
        if call is None:
            return
        over = call.message is not None and (error is None or isinstance(error, DeliveryRefused))
        if over and call.stored:
            self._pop_stored(now)
        with self._lock:
            self._try = None
            if call.message is None:
                self._opened = error is None
            else:
                self._settle(call, call.message, error, now)
                self._opened = self._opened and not lost
            if over or (error is None and not self._waiting()):
                self._count_success()
            elif error is not None:
                self._count_failure(error, now)
                if call.hurried:
                    self._next_try = now  # the verdict that has waited for it does not wait for its next try as well

    @property
    def call(self) -> Try | None:
        """The call that is being made."""
        return self._try

    def wake(self, now: float, *, free: bool = True) -> float:
        """When to `step` again although nothing happens: monotonic seconds, or infinity."""
        with self._lock:
            times = [FOREVER]
            times += self._notices.due(now)
            times.append(self._memory.earliest)
            if self._disk_broken and self._memory and not (self._try is not None and self._try.from_memory):
                times.append(self._disk_next)
            if self._try is not None:
                times.append(self._try.ends)
                if self._try.may_be_hurried and (held := self._memory.held_until()) > now:
                    times.append(held)
                if self._options.gate and self._try.message is not None and not self._try.counted:
                    times.append(FOREVER if self._try.message.deadline is None else self._try.message.deadline)
            elif free:
                if self._opened and self._unread:
                    times.append(max(self._next_try, self._read_next))
                elif not self._opened or self._stored or self._ready(now):
                    times.append(self._next_try)
                elif self._from_memory:
                    times.append(self._memory.held_until())
            return min(times)

    def alarms(self) -> list[tuple[str, str]]:
        """What is to be alarmed since the last call: code and sentence."""
        with self._lock:
            return self._notices.take()

    def drain(self, now: float) -> None:
        """No more messages; those that wait are tried at once, whatever the breaker says."""
        with self._lock:
            self._closed = True
            self._next_try = min(self._next_try, now)

    def idle(self) -> bool:
        """Whether nothing waits."""
        with self._lock:
            return not self._waiting()

    def abandon(self, now: float) -> None:
        """The end: what waits goes to the spool, and without one is dropped. A call that has not come back counts as
        failed."""
        if self._try is not None:
            self.done(DeliveryFailed(f"{self._name} was closed while it delivered."), now, lost=True)
        self._disk_next = now
        self._store(now)
        with self._lock:
            self._expire(now)
            for message in self._memory.take_all():
                self._lose("dropped", message)
            self._notices.say_losses(now, all_of_them=True)
        if self._spool is not None:
            self._spool.close()

    # -- places of messages ----------------------------------------------------------------------------------------

    def _waiting(self) -> int:
        call = self._try
        alone = call is not None and call.message is not None and not call.stored and not call.counted
        return len(self._memory) + len(self._storing) + self._stored + alone

    @property
    def _from_memory(self) -> bool:
        """Whether messages go straight from memory; else they go to the spool first."""
        return self._spool is None or self._disk_broken

    def _ready(self, now: float) -> bool:
        return self._from_memory and self._memory.ready(now, self._encoder) is not None

    def _settle(self, call: Try, message: Message, error: Outcome, now: float) -> None:
        if call.stored and (error is None or isinstance(error, DeliveryRefused)):
            self._stored -= 1
            self._trim_recent()
        if call.counted:
            return
        if self._memory.is_late(message, now):
            self._lose("late", message)
        elif error is None:
            self._delivered += 1
        elif isinstance(error, DeliveryRefused):
            self._lose("refused", message, str(error))
        elif call.pushed_out:
            self._lose("dropped", message)
        else:
            sort, key = _sort_and_key(message)
            self._to_repeat[sort] = key
            if call.from_memory:
                self._memory.put_back([message])

    def _expire(self, now: float) -> None:
        """Counts what is late; that may also be what is just being delivered, should it arrive all the same."""
        call = self._try
        if (
            call is not None
            and call.message is not None
            and not call.counted
            and self._memory.is_late(call.message, now)
        ):
            call.counted = True
            self._lose("late", call.message)
        for message in self._memory.take_late(now):
            self._lose("late", message)

    def _bound(self, call: Try, message: Message) -> None:
        """A verdict that hangs beyond its own deadline must not cost the next one's."""
        if self._options.gate and not self._options.serves and message.deadline is not None:
            call.ends = min(call.ends, max(message.deadline, call.began) + AT_LEAST)

    def _hurry(self, now: float) -> None:
        """An alarm or a state that the other side is slow to take must not cost a verdict its time. Where the other
        side connects to us, it takes nothing, and to close would cut it off."""
        call = self._try
        if not self._options.gate or self._options.serves or call is None or not call.may_be_hurried:
            return
        first = self._memory.ready(now, self._encoder)
        if first is not None and first.deadline is not None:
            call.hurry(first.deadline, now)

    def _lose(self, sort: Literal["late", "dropped", "refused"], message: Message, why: str = "") -> None:
        if sort == "late":
            self._late += 1
        elif sort == "dropped":
            self._dropped += 1
        else:
            self._refused += 1
        if message.kind != "alarm":  # an alarm about a lost alarm would be the next one to be lost
            part = message.result.trigger.part if message.result is not None else message.body.get("part")
            what = f"part {part}" if message.kind == "result" else f"message {message.sequence} ({message.kind})"
            self._notices.lost(sort, 1, f"the last one: {what}{': ' if why else ''}{why}")

    # -- the disk --------------------------------------------------------------------------------------------------

    def _store(self, now: float) -> None:
        """Moves what is in memory to the spool: outside the lock, for `put` must not wait for a disk."""
        if self._spool is None or (self._disk_broken and now < self._disk_next):
            return
        with self._lock:
            # What is in hand from memory is older than the rest, and comes back to memory if it fails.
            if self._try is not None and self._try.from_memory:
                return
            self._storing = self._memory.take_all()
        broken: OSError | None = None
        written = False
        while self._storing and broken is None:
            message = self._storing[0]
            try:
                pushed_out = self._spool.append(message)
            except OSError as error:
                broken = error
                with self._lock:  # it may have made room before it failed
                    self._count_pushed_out(self._stored - len(self._spool))
            except (ValueError, TypeError) as error:
                with self._lock:
                    self._lose("refused", self._storing.pop(0), f"it is not JSON: {error}.")
            else:
                written = True
                with self._lock:
                    self._storing.pop(0)
                    self._count_stored(message, pushed_out)
        with self._lock:
            if self._storing:
                self._memory.put_back(self._storing)
                self._storing = []
                while (lost := self._memory.drop_oldest()) is not None:
                    self._lose("dropped", lost)
            if broken is not None or written:
                self._say_disk(broken, now)

    def _count_stored(self, message: Message, pushed_out: int) -> None:
        self._recent.append(message)
        self._stored += 1
        self._count_pushed_out(pushed_out)

    def _count_pushed_out(self, number: int) -> None:
        """So many of the oldest have left the spool undelivered."""
        call = self._try
        self._stored -= number
        if number and call is not None and call.stored:
            call.stored, call.pushed_out = False, True  # it is in hand alone now
            number -= 1
        if number:
            self._dropped += number
            why = f"the oldest, for the spool of {self._options.spool} bytes is full"
            self._notices.lost("dropped", number, why)
        self._trim_recent()

    def _trim_recent(self) -> None:
        while len(self._recent) > min(self._stored, _RECENT):
            self._recent.popleft()

    def _oldest_stored(self, now: float) -> Message | None:
        """The oldest message in the spool; None: there is none, or the disk does not give it (`_unread`)."""
        if self._spool is None:
            return None
        broken: OSError | None = None
        message: Message | None = None
        if len(self._recent) == self._stored:
            message = self._recent[0] if self._recent else None
        elif self._unread and now < self._read_next:
            return None
        else:
            try:
                message = self._spool.peek()
            except OSError as error:
                broken = error
                self._read_next = now + _DISK_EVERY
        with self._lock:
            gone, self._stored = self._stored - len(self._spool), len(self._spool)
            self._dropped += gone
            self._trim_recent()
            if gone:
                why = "are damaged or their file was deleted, and were passed over"
                self._notices.say("output-damaged", f"{gone} stored messages {why}.")
            if broken is not None and not self._unread:
                self._notices.say("output-disk", f"cannot read stored messages ({_reason(broken)}); they stay there.")
            elif broken is None and self._unread:
                self._notices.say("output-disk-back", "stored messages can be read again.")
            self._unread = broken is not None
        return message

    def _pop_stored(self, now: float) -> None:
        assert self._spool is not None
        try:
            self._spool.pop()
        except OSError as error:  # it is gone for this run, and would be delivered again by the next one
            with self._lock:
                self._say_disk(error, now)

    def _sync(self, now: float) -> None:
        """While the other side is away, against a power cut as well. What goes wrong here shows at the next write."""
        self._sync_next = now + _DISK_EVERY
        if self._spool is not None:
            with contextlib.suppress(OSError):
                self._spool.sync()

    # -- what a person must know -----------------------------------------------------------------------------------

    def _count_failure(self, error: BaseException, now: float) -> None:
        self._failed += 1
        self._failures += 1
        longest = self._options.longest_wait
        wait = min(self._options.retry_after * 2.0 ** min(self._failures - 1, 60), longest)
        if self._failures >= self._options.breaker:
            wait = longest
            if not self._away:
                self._away = True
                self._notices.say("output-away", f"{self._failures} tries in a row failed, the last one: {error}")
        wait *= self._chance.uniform(0.5, 1.0)  # so that not all lines of a plant come back in the same moment
        if isinstance(error, DeliveryFailed) and error.retry_after is not None:
            wait = max(wait, min(error.retry_after, _LONGEST_ASKED))
        self._next_try = now + wait

    def _count_success(self) -> None:
        self._failures = 0
        if self._away:
            self._away = False
            self._notices.say("output-back", "it takes messages again.")

    def _say_disk(self, error: OSError | None, now: float) -> None:
        if error is not None:
            self._disk_next = now + _DISK_EVERY
            if not self._disk_broken:
                why = _reason(error)
                self._notices.say("output-disk", f"cannot store messages ({why}); the newest are kept in memory.")
        elif self._disk_broken:
            self._notices.say("output-disk-back", "messages are stored on disk again.")
        self._disk_broken = error is not None


def _reason(error: OSError) -> str:
    return error.strerror or str(error)


def _sort_and_key(message: Message) -> tuple[bool, tuple[float, int]]:
    return message.deadline is not None, (message.wall, message.sequence)
