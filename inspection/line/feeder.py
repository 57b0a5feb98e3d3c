"""One view's camera, in a thread of its own: started, watched, started again; its frames handed on.

What goes wrong with a camera, and what is done:
- it cannot be reached, or says that it is gone: tried again, with waits that double up to `RETRY_AT_MOST`;
- it is silent though it was triggered, or for longer than the recipe's `silence`: started again;
- it does not return from a call (`HANG`): its thread is left to itself and another one begins with a new camera.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from enum import StrEnum

from inspection.cameras.camera import Camera, CameraEnded, CameraLost
from inspection.control import Alarm
from inspection.errors import InspectionError
from inspection.parts import Frame

POLL = 0.25  # seconds that one call for a frame waits
SILENCE = 5.0  # of a camera that was triggered, where the recipe states none
HANG = 30.0  # a call that takes so long will not return; connecting to a camera takes some seconds
RETRY, RETRY_AT_MOST = 0.5, 10.0


class Feed(StrEnum):
    """What a camera is doing."""

    STARTING = "starting"
    STREAMING = "streaming"
    LOST = "lost"  # is being tried again
    ENDED = "ended"  # a recording or folder is over
    STOPPED = "stopped"


class Feeder:
    """Runs one camera.

    Args:
        view: whose frames it gives.
        make: makes the camera; called again after it hung.
        on_frame: told of every frame, in their order.
        on_lost: told when frames of earlier triggers will not come (the camera went or came back), and why.
        lock: held while a part comes by, from its trigger to `pulse`.
        silence: as in the recipe; None: frames may be rare.
    """

    def __init__(
        self,
        view: str,
        make: Callable[[], Camera],
        *,
        on_frame: Callable[[str, Frame], None],
        on_lost: Callable[[str, str], None],
        alarm: Alarm,
        lock: AbstractContextManager[object],
        silence: float | None = None,
    ) -> None:
        self.view = view
        self.state = Feed.STARTING
        self.restarts = 0
        self.hung = 0
        self.camera: Camera | None = None
        self._make, self._on_frame, self._on_lost, self._alarm = make, on_frame, on_lost, alarm
        self._lock, self._silence = lock, silence
        self._stop = threading.Event()
        self._run = 0  # which thread is listened to
        self._beat = time.monotonic()
        self._pulses = threading.Semaphore(0)
        self._unanswered: float | None = None  # when the first trigger without a frame was
        self._broken: InspectionError | None = None  # what the thread that triggers met
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Begins to connect, and returns."""
        self._begin()

    def pulse(self) -> None:
        """One exposure, where the camera exposes by software; returns at once."""
        if self.state is Feed.STREAMING and self.camera is not None and self.camera.triggered:
            self._pulses.release()

    def check(self) -> bool:
        """Whether the camera hung, and was replaced."""
        if self._stop.is_set() or self.state is Feed.ENDED or time.monotonic() - self._beat < HANG:
            return False
        with self._lock:  # nobody listens to its thread any more, should it go on just now
            self._run += 1
            self.state = Feed.STARTING
        self.hung += 1
        if (old := self.camera) is not None:  # it may hang as well
            self._thread(old.stop, f"release-{self.view}")
        self._on_lost(self.view, "the camera hung.")
        self._alarm("camera-hung", f"{self.view}: the camera did not answer for {HANG:g} s and is opened anew.")
        self._begin()
        return True

    def retire(self) -> None:
        """From now on it triggers nothing and hands no frame on; its thread lets go of the camera. Returns at once."""
        self._stop.set()
        self._pulses.release()

    def stop(self, timeout: float = 5.0) -> None:
        """Stops the camera and its threads."""
        self.retire()
        end = time.monotonic() + timeout
        if (camera := self.camera) is not None:  # it may hang as well
            self._thread(camera.stop, f"release-{self.view}")
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
        self.state = Feed.STOPPED

    def facts(self) -> dict[str, str | int | float | bool | None]:
        """What is known of the camera, for a person."""
        own = {} if self.camera is None else self.camera.facts()
        return {"state": self.state.value, "restarts": self.restarts, "hung": self.hung, **own}

    def _thread(self, target: Callable[[], None], name: str) -> None:
        thread = threading.Thread(target=target, name=name, daemon=True)
        self._threads = [one for one in self._threads if one.is_alive()] + [thread]
        thread.start()

    def _begin(self) -> None:
        self._run += 1
        self._pulses.release()  # the thread that triggered before ends
        self._beat = time.monotonic()
        run = self._run
        self._pulses = pulses = threading.Semaphore(0)  # what piled up before is not exposed now
        self._thread(lambda: self._feed(run), f"camera-{self.view}")
        self._thread(lambda: self._trigger(run, pulses), f"trigger-{self.view}")

    def _feed(self, run: int) -> None:
        wait, told = RETRY, False
        camera: Camera | None = None
        while not self._over(run):
            self.state = Feed.STARTING
            self._beat = time.monotonic()
            try:
                if camera is None:
                    camera = self._make()
                camera.start()
                if self._over(run):
                    break
                self.camera, self._broken, self._unanswered = camera, None, None
                # No part comes by in between: its trigger would be passed over and it would get the next part's frame.
                with self._lock:
                    self._on_lost(self.view, "the camera was not there yet.")
                    self.state = Feed.STREAMING
                if told:
                    self._alarm("camera-back", f"{self.view}: the camera is back.")
                wait, told = RETRY, False
                self._stream(run, camera)
            except CameraEnded:
                if not self._over(run):
                    self.state = Feed.ENDED
                break
            except Exception as raised:  # noqa: BLE001 - also a driver's own: this thread must try again, not end
                if self._over(run):
                    break
                error = raised if isinstance(raised, InspectionError) else broke_off(raised)
                self.state = Feed.LOST
                self.restarts += 1
                self._on_lost(self.view, f"the camera was lost: {error.what}")
                if not told:  # once, not at every try
                    self._alarm("camera-lost", f"{self.view}: {error}")
                    told = True
                if camera is not None:
                    camera.stop()
                self._beat = time.monotonic() + wait
                self._stop.wait(wait)
                wait = min(wait * 2, RETRY_AT_MOST)
        if camera is not None:
            camera.stop()

    def _stream(self, run: int, camera: Camera) -> None:
        last = time.monotonic()
        while not self._over(run):
            self._beat = now = time.monotonic()
            frame = camera.frame(POLL)
            if frame is not None:
                with self._lock:  # it was taken for the recipe that runs until another takes over, under this lock
                    if self._over(run):
                        return
                    last, self._unanswered = now, None
                    self._on_frame(self.view, frame)
                continue
            if self._over(run):
                return
            if self._broken is not None:
                raise self._broken
            now = time.monotonic()
            if self._unanswered is not None and now - self._unanswered > (self._silence or SILENCE):
                silent = now - self._unanswered
                raise CameraLost(f"it was triggered {silent:.1f} s ago and sends nothing.", where=self.view)
            if self._silence is not None and not camera.triggered and now - last > self._silence:
                raise CameraLost(f"no frame for {now - last:.1f} s.", where=self.view)

    def _trigger(self, run: int, pulses: threading.Semaphore) -> None:
        while True:
            pulses.acquire()
            if self._over(run):
                return
            camera = self.camera
            if camera is None or self.state is not Feed.STREAMING:
                continue  # the parts that it was for are ERROR: `on_lost` is called when it is back
            if self._unanswered is None:
                self._unanswered = time.monotonic()
            try:
                camera.trigger()
            except InspectionError as error:
                self._broken = error
            except Exception as error:  # noqa: BLE001 - as in `_feed`
                self._broken = broke_off(error)

    def _over(self, run: int) -> bool:
        return self._stop.is_set() or run != self._run


def broke_off(error: Exception) -> CameraLost:
    """What is said of a camera whose code raised what it must not."""
    return CameraLost(f"its code broke off: {type(error).__name__}: {error}.")
