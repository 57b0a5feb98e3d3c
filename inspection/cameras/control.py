"""The one thread that talks on a GenICam camera's control channel.

A camera that freezes holds up the call that waits for its answer for 8 s, and every other call behind it (measured
with viva-genicam 0.10). So neither a trigger nor the sign of life is awaited by the line: this thread waits, and
anybody can see at once that it has been waiting for too long.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import viva_genicam as viva

ASK_EVERY = 1.0  # seconds between signs of life
ANSWER_WITHIN = 2.0  # a healthy camera answers within milliseconds
MAX_TRIGGERS = 16  # that wait for a camera which does not answer


class ControlChannel:
    """Runs software triggers, and notices by itself that the camera is gone: after 3 s at most."""

    def __init__(self, camera: viva.Camera, name: str) -> None:
        self._camera = camera
        self._commands: queue.Queue[Callable[[], object] | None] = queue.Queue(MAX_TRIGGERS)
        self._waiting_since: float | None = None
        self._failure: str | None = None
        self._last: Callable[[], object] | None = None  # what remains to be done before the camera is let go
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def loss(self) -> str | None:
        """Why the camera counts as lost, in words; None: it answers."""
        since = self._waiting_since
        if self._failure is None and since is not None and time.monotonic() - since > ANSWER_WITHIN:
            self._failure = f"it has not answered for {ANSWER_WITHIN:g} s"
        return self._failure

    def trigger(self) -> bool:
        """One exposure, as soon as the camera takes it; False when too many wait already."""
        try:
            self._commands.put_nowait(self._camera.trigger_software)
        except queue.Full:
            return False
        return True

    def close(self, last: Callable[[], object]) -> None:
        """Runs `last` if the camera still answers, and lets go of it; of a camera that hangs when the call returns."""
        self._last = last
        self._closing.set()
        with suppress(queue.Full):  # then it is awake anyway
            self._commands.put_nowait(None)
        if self.loss is None:
            self._thread.join(ANSWER_WITHIN)

    def _run(self) -> None:
        try:
            while self._failure is None and not self._closing.is_set():
                try:
                    command = self._commands.get(timeout=ASK_EVERY)
                except queue.Empty:
                    command = self._ask
                if command is not None:
                    self._do(command)
            if self._failure is None and self._last is not None:
                self._do(self._last)
        except Exception as error:  # noqa: BLE001 - of whatever kind: nobody asks this camera for a sign of life any more
            self._fail(error)
        finally:
            self._waiting_since = None
            try:
                self._camera.close()
            except Exception as error:  # noqa: BLE001
                self._fail(error)

    def _fail(self, error: Exception) -> None:
        text = str(error) if isinstance(error, viva.GenicamError) else f"{type(error).__name__}: {error}"
        self._failure = self._failure or text

    def _do(self, command: Callable[[], object]) -> None:
        self._waiting_since = time.monotonic()
        command()
        self._waiting_since = None

    def _ask(self) -> None:
        self._camera.read_register(0)  # both standards have a version there
        if self._camera.transport == "gige" and self._camera.control_state is viva.ControlState.LOST:
            self._failure = "another application has taken control of it, or its heartbeat has expired"
