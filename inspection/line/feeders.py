"""The cameras of all views of a line."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager

from inspection.cameras.camera import Camera
from inspection.cameras.options import AnyCamera
from inspection.cameras.pushed import PushedCamera
from inspection.control import Alarm
from inspection.errors import ConfigInvalid
from inspection.line.feeder import Feeder
from inspection.parts import Frame


class Feeders:
    """One `Feeder` for each view.

    Args:
        make: makes a view's camera. on_frame, on_lost, alarm, lock: as `Feeder` has them.
    """

    def __init__(
        self,
        make: Callable[[AnyCamera, str], Camera],
        *,
        on_frame: Callable[[str, Frame], None],
        on_lost: Callable[[str, str], None],
        alarm: Alarm,
        lock: AbstractContextManager[object],
    ) -> None:
        self._lock = lock
        self._make, self._on_frame, self._on_lost, self._alarm = make, on_frame, on_lost, alarm
        self._options: dict[str, AnyCamera] = {}
        self._feeders: dict[str, Feeder] = {}
        self._closing = threading.Lock()  # a change-over may be under way when the line is closed
        self._closed = False

    def retire(self, cameras: Mapping[str, AnyCamera]) -> list[str]:
        """Listens no more to those of these views' cameras that run with other options, and says which; returns at
        once. `use` follows, which may take seconds, and no part that comes by until then must get a frame taken with
        the old options."""
        old = [view for view, now in cameras.items() if view in self._feeders and self._options.get(view) != now]
        for view in old:
            self._feeders[view].retire()
        return old

    def use(self, cameras: Mapping[str, AnyCamera]) -> None:
        """Starts these views' cameras; those that run with the same options already run on."""
        for view, options in cameras.items():
            if self._options.get(view) == options:
                continue
            if view in self._feeders:
                self._feeders[view].stop()
            with self._closing:
                if self._closed:
                    return
                self._options[view] = options
                self._feeders[view] = self._feeder(view, options)
                self._feeders[view].start()

    def drop(self, views: Iterable[str]) -> None:
        """Stops the cameras of these views."""
        for view in views:
            with self._closing:
                self._options.pop(view, None)
                feeder = self._feeders.pop(view, None)
            if feeder is not None:
                feeder.stop()

    def pulse(self, views: Iterable[str]) -> None:
        """One exposure of each of these views whose camera exposes by software; returns at once."""
        for view in views:
            if view in self._feeders:
                self._feeders[view].pulse()

    def push(self, view: str, frame: Frame) -> None:
        """Hands a frame to a camera of the kind `pushed`. Raises ConfigInvalid, NotReady."""
        camera = self._feeders[view].camera if view in self._feeders else None
        if not isinstance(camera, PushedCamera):
            pushed = [name for name, one in self._options.items() if one.kind == "pushed"]
            raise ConfigInvalid(
                f"no frames are pushed to a view `{view}`.",
                where=view,
                hint=f"Views with a camera of the kind `pushed`: {', '.join(pushed) or 'none'}.",
            )
        camera.push(frame)

    def check(self) -> int:
        """Replaces cameras that hang; how many did."""
        return sum(feeder.check() for feeder in list(self._feeders.values()))

    def stop(self) -> None:
        """Stops all of them, at the same time, and starts no other."""
        with self._closing:
            self._closed = True
            feeders = list(self._feeders.values())
        stoppers = [threading.Thread(target=feeder.stop, daemon=True) for feeder in feeders]
        for thread in stoppers:
            thread.start()
        for thread in stoppers:
            thread.join()

    def facts(self) -> dict[str, dict[str, str | int | float | bool | None]]:
        """What is known of each view's camera."""
        return {view: feeder.facts() for view, feeder in list(self._feeders.items())}

    def counters(self) -> dict[str, dict[str, int]]:
        """How often each was started again, and hung."""
        return {
            f"camera {view}": {"restarts": feeder.restarts, "hung": feeder.hung}
            for view, feeder in list(self._feeders.items())
        }

    def _feeder(self, view: str, options: AnyCamera) -> Feeder:
        return Feeder(
            view,
            lambda: self._make(options, view),
            on_frame=self._on_frame,
            on_lost=self._on_lost,
            alarm=self._alarm,
            lock=self._lock,
            silence=options.silence,
        )
