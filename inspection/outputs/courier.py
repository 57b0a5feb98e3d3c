"""Carries messages to one output, on threads of its own, so that no output ever holds up judging or another output.

Two threads, however often the sink hangs: the courier's own one decides (`Dispatch`) and never touches the sink, the
second one makes the calls. A call that takes longer than the time-out is ended by closing the sink from a third one,
of which there is never more than one, because `close` might hang as well.
"""

from __future__ import annotations

import logging
import math
import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path

from inspection.control import Alarm
from inspection.errors import InspectionError
from inspection.outputs.attempt import Try
from inspection.outputs.dispatch import Dispatch, Outcome, State
from inspection.outputs.options import OutputOptions
from inspection.outputs.sink import DeliveryFailed, Message, Sink
from inspection.outputs.spool import Spool

_log = logging.getLogger(__name__)
_LETTING_GO = 2.0  # seconds that a sink gets for its last close
_LONGEST_REST = 1.0  # seconds between two looks at the clock


class Courier:
    """One output: bounded, with retries, breaker, watchdog and counters of its own.

    Args:
        options: what the recipe says; kinds that it does not send are not taken.
        name: of the output, in counters, alarms and thread names.
        spool: folder where a reporting output stores what waits; None, or a gate: memory only.
        alarm: called on the courier's thread.
        clock: monotonic seconds, the same as the deadlines'.

    Raises:
        OutputUnwritable: the spool's folder cannot be made. ConfigInvalid: another process uses it.
    """

    def __init__(
        self,
        options: OutputOptions,
        sink: Sink,
        *,
        name: str,
        spool: Path | None,
        alarm: Alarm,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.options = options
        self._sink = sink
        self._alarm = alarm
        self._clock = clock
        stored = Spool(spool, options.spool) if spool is not None and not options.gate else None
        self._dispatch = Dispatch(options, name=name, spool=stored)
        self._changed = threading.Condition()
        self._news = False
        self._until: float | None = None  # the end of draining, once it has begun
        self._calls: queue.SimpleQueue[Try | None] = queue.SimpleQueue()
        self._busy = False  # the second thread is in the sink
        self._returned: tuple[Try, Outcome, float] | None = None
        self._closing = False  # the third thread is in the sink's `close`
        self._touched = False  # `open` was called before
        self._courier = threading.Thread(target=self._run, name=f"output-{name}", daemon=True)
        self._caller = threading.Thread(target=self._make_calls, name=f"output-{name}-sink", daemon=True)

    def start(self) -> None:
        """Opens the sink and begins to deliver, both on the courier's threads. Returns at once."""
        self._caller.start()
        self._courier.start()

    def put(self, message: Message) -> None:
        """Takes a message. Never blocks, never raises; what cannot be kept is counted and alarmed."""
        if message.kind in self.options.sends:
            self._dispatch.put(message)
            self._notify()

    def turn(self, encoder: int) -> None:
        """The belt's encoder stands at this count: what was held for it may go."""
        if self.options.hold is not None:
            self._dispatch.turn(encoder)
            self._notify()

    def close(self, drain: float) -> None:
        """Delivers what it can within `drain` seconds, stores or counts the rest, and lets go of the sink.

        Returns after `drain` and a few seconds at the latest; a sink that hangs even then is left to its thread.
        """
        with self._changed:
            if self._until is not None:
                return
            self._until = self._clock() + drain
            self._dispatch.drain(self._clock())
        self._notify()
        if self._courier.ident is None:
            self._end()
        elif self._courier is not threading.current_thread():
            self._courier.join(drain + 2 * _LETTING_GO + _LONGEST_REST)

    def counters(self) -> dict[str, int]:
        """See `Dispatch.counters`: `taken + recovered = delivered + refused + late + dropped + waiting`."""
        return self._dispatch.counters()

    @property
    def state(self) -> State:
        """`connected`, `trying`, or `away` while the breaker is open."""
        return self._dispatch.state

    def _notify(self) -> None:
        with self._changed:
            self._news = True
            self._changed.notify_all()

    # -- the courier's thread --------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            now = self._clock()
            self._take_back(now)
            if self._until is not None and (now >= self._until or (not self._busy and self._dispatch.idle())):
                break
            free = not self._busy and not self._closing
            call = self._dispatch.step(now, free=free)
            self._raise_alarms()
            if call is not None:
                self._busy = True
                self._calls.put(call)
            else:
                self._rest(now, free)
        self._end()

    def _rest(self, now: float, free: bool) -> None:
        until = min(self._dispatch.wake(now, free=free), math.inf if self._until is None else self._until)
        with self._changed:
            if not self._news:
                self._changed.wait(min(max(until - now, 0.0), _LONGEST_REST))
            self._news = False

    def _take_back(self, now: float) -> None:
        """What the second thread has brought back; a call that hangs is given up."""
        with self._changed:
            returned, self._returned = self._returned, None
        call = self._dispatch.call
        if returned is not None:
            self._busy = False
            made, error, at = returned
            if made is call:
                known = error is None or isinstance(error, InspectionError)
                self._dispatch.done(error, at, lost=not known)
        elif call is not None and now >= call.ends:
            hang = f"{self.name} has not answered within {call.ends - call.began:.3g} s."
            self._dispatch.done(DeliveryFailed(hang), now, lost=True)
            self._close_from_outside()

    def _close_from_outside(self) -> None:
        if not self._closing:
            self._closing = True
            threading.Thread(target=self._let_go, name=f"output-{self.name}-close", daemon=True).start()

    def _let_go(self) -> None:
        try:
            self._sink.close()
        finally:
            self._closing = False
            self._notify()

    def _raise_alarms(self) -> None:
        for code, text in self._dispatch.alarms():
            self._alarm(code, text)

    def _end(self) -> None:
        self._dispatch.abandon(self._clock())
        self._raise_alarms()
        if self._caller.ident is None:
            return
        self._calls.put(None)
        self._caller.join(0 if self._busy else _LETTING_GO)
        if self._caller.is_alive():
            self._close_from_outside()
            self._caller.join(_LETTING_GO)

    # -- the second thread -----------------------------------------------------------------------------------------

    def _make_calls(self) -> None:
        while (call := self._calls.get()) is not None:
            error: Outcome = None
            try:
                if call.message is not None:
                    self._sink.deliver(call.message)
                else:
                    if self._touched:
                        self._sink.close()
                    self._touched = True
                    self._sink.open()
            except InspectionError as raised:
                error = raised
            except Exception as raised:  # noqa: BLE001
                # A fault of the sink's own code must not end the output: it counts as a failed try, and is shown.
                _log.exception("%s failed in an unforeseen way", self.name)
                error = raised
            with self._changed:
                self._returned = (call, error, self._clock())
                self._news = True
                self._changed.notify_all()
        if self._touched:
            self._sink.close()
