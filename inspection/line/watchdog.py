"""Gives up what hangs: network runs and cameras. It waits for nothing itself, or nobody would be watching."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from inspection.control import Alarm, NotReady
from inspection.errors import InspectionError
from inspection.line.feeders import Feeders
from inspection.line.floor import Floor

WATCH = 0.25  # seconds between two looks
MOST_HUNG = 16  # threads that may be left to themselves before the process must be started anew
RENEWAL = 120.0  # seconds that loading the models anew may take


class Watchdog:
    """Looks after the threads of a line.

    Args:
        renew: loads the models anew, because a session has failed; may take long, and may hang.
        fail: told that the line cannot go on.
    """

    def __init__(
        self,
        cameras: Feeders,
        floor: Floor,
        *,
        alarm: Alarm,
        renew: Callable[[], None],
        fail: Callable[[InspectionError], None],
    ) -> None:
        self._cameras, self._floor = cameras, floor
        self._alarm, self._renew, self._fail = alarm, renew, fail
        self._renewal: threading.Thread | None = None
        self._since = 0.0
        self._hung = 0

    def run(self, ended: threading.Event) -> None:
        """Looks until `ended`."""
        while not ended.wait(WATCH):
            runs = self._floor.check()
            hung = runs + self._cameras.check()
            if runs:
                self._alarm("judging-hung", f"{runs} network runs hung and were given up; their parts are ERROR.")
                self._begin_renewal()
            if hung and (self._hung + hung) > MOST_HUNG:
                self._give_up(f"{self._hung + hung} calls hang in this process.")
            self._hung += hung
            if self._renewal is not None and not self._renewal.is_alive():
                self._renewal = None
            elif self._renewal is not None and time.monotonic() - self._since > RENEWAL:
                self._since = float("inf")  # once
                self._give_up(f"the models could not be loaded anew within {RENEWAL:g} s.")

    def _begin_renewal(self) -> None:
        if self._renewal is None:  # else one is on its way
            self._since = time.monotonic()
            self._renewal = threading.Thread(target=self._try, name="renewer", daemon=True)
            self._renewal.start()

    def _try(self) -> None:
        try:
            self._renew()
        except Exception as error:  # noqa: BLE001 - whatever it is, the line cannot judge any more and must say so
            known = error if isinstance(error, InspectionError) else NotReady(f"models cannot be loaded: {error!r}.")
            self._fail(known)

    def _give_up(self, what: str) -> None:
        hint = "Start the process anew; look at the device and the cameras (`inspection doctor`)."
        self._fail(NotReady(what, hint=hint))
