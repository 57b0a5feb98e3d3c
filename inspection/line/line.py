"""The running line: cameras, parts in flight, record and outputs, and what a door may ask of it.

Who does what: one thread for each camera hands frames in (`Feeder`), workers judge and one thread closes parts
(`Floor`), and tells them from here: first the record's journal, then the outputs; one thread watches the others.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import cast

from inspection.cameras.camera import Camera
from inspection.cameras.open import open_camera
from inspection.cameras.options import AnyCamera
from inspection.cameras.recorder import Recorder
from inspection.control import LineState, NotReady, RecipeInfo
from inspection.errors import ConfigInvalid, InspectionError
from inspection.line.clock import Clock, MachineClock
from inspection.line.feeders import Feeders
from inspection.line.floor import Floor
from inspection.line.outlets import Outlets
from inspection.line.plan import Closed
from inspection.line.recipes import Recipes, Transform
from inspection.line.setup import Setup
from inspection.line.times import Times
from inspection.line.watchdog import Watchdog
from inspection.parts import Frame, PartResult, Trigger
from inspection.recipe.recipe import CameraTrigger, TimerTrigger
from inspection.record.record import Record

RECENT = 1024  # results that `wait` still finds
IDLE = 0.25  # seconds between two looks of the timer while there is nothing for it to do


class Line:
    """One line. Implements `inspection.control.Control`; every method may be called from any thread.

    Args:
        recipe: the file to begin with; the others in its folder can be changed over to.
        name: of the line; None: the recipe's product.
        clock: the line's time. camera: makes a view's camera.
        transform: what is changed in every recipe before it is carried out (simulation, replay).
        recorder: writes down what the line sees.

    Attributes:
        cameras: of all views. floor: the parts in flight. record, outlets: where verdicts go.
        listeners: told of every result, on the thread that closes parts: they must be quick.
        times: how long what took, of the latest parts.
        idle_frames: frames that came while the line did not run.
        opened: whether there is a record, and so an account.
    """

    record: Record

    def __init__(
        self,
        recipe: str | Path,
        *,
        name: str | None = None,
        clock: Clock | None = None,
        camera: Callable[[AnyCamera, str], Camera] = lambda options, view: open_camera(options, view=view),
        transform: Transform = lambda loaded: loaded,
        recorder: Recorder | None = None,
    ) -> None:
        self._recipes = Recipes(Path(recipe), transform)
        first = self._recipes.first.recipe
        self.name = name or first.product
        self.clock = clock or MachineClock()
        self.recorder = recorder
        self.times = Times()
        self.idle_frames = 0
        self.opened = False
        self.listeners: list[Callable[[PartResult], None]] = []
        self.outlets = Outlets((), self, spool=first.record.folder, clock=self.clock.now)  # none until `open`
        self.floor = Floor(clock=self.clock, tell=self._tell, after=self._after, alarm=self.alarm, broken=self._fail)
        self.cameras = Feeders(camera, on_frame=self.frame, on_lost=self.lost, alarm=self.alarm, lock=self.floor.lock)
        self._state = LineState.STARTING
        self._problem: InspectionError | None = None
        self._told = threading.Condition(self.floor.lock)  # a verdict was told, or the state changed
        self._ended = threading.Event()
        self._closing = False
        self._recent: OrderedDict[int, PartResult] = OrderedDict()
        self._threads: list[threading.Thread] = []

    # -- beginning and end -------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Opens record and outputs, loads the models, starts cameras and threads; then the line is STOPPED.

        Raises:
            InspectionError: what of this cannot be done; nothing is left running.
        """
        setup = self._recipes.begin()
        recipe = setup.loaded.recipe
        # First: what the record has to say while it is opened, such as a full disk, reaches the outputs too.
        self.outlets = Outlets(recipe.outputs, self, spool=recipe.record.folder / "outputs", clock=self.clock.now)
        try:
            self.record = Record(recipe.record, line=self.name, alarm=self.alarm)
        except InspectionError:
            self.outlets.close(0.0)
            raise
        self._number = self.record.next_number
        self.outlets.start()
        for body in self.record.interrupted:
            self.outlets.tell(body)
        if self.record.interrupted:
            count = len(self.record.interrupted)
            self.alarm("interrupted", f"{count} parts were in flight when the line was killed; they are ERROR.")
        self.floor.use(setup)
        self.floor.start(setup.workers)
        watchdog = Watchdog(self.cameras, self.floor, alarm=self.alarm, renew=self._renew, fail=self._fail)
        self._thread(lambda: watchdog.run(self._ended), "watchdog")
        self._thread(self._tick, "timer")
        self.cameras.use(setup.cameras)
        self.opened = True
        self._become(LineState.STOPPED)

    def close(self, drain: float = 10.0) -> None:
        """No new parts; those in flight get their verdicts, at the latest after `drain` seconds; then all is let go."""
        with self.floor.lock:
            if self._closing:
                return
            self._closing = True  # from now on nobody starts it
        self.stop()
        self.floor.end(drain, "stopped", "the line was stopped before it was judged.")
        self._ended.set()
        self.cameras.stop()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(5.0)
        self._become(LineState.CLOSED)
        if self.recorder is not None:
            self.recorder.close()
        self.outlets.close(drain)
        self.record.close()

    def __enter__(self) -> Line:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- Control -----------------------------------------------------------------------------------------------------

    @property
    def setup(self) -> Setup:
        """What new parts are judged by, with all its models."""
        return self._recipes.current

    @property
    def state(self) -> LineState:
        """What it is doing."""
        return self._state

    @property
    def problem(self) -> InspectionError | None:
        """Why it is FAILED."""
        return self._problem

    @property
    def recipe(self) -> RecipeInfo | None:
        """What new parts are judged by."""
        return self._recipes.info

    @property
    def changing_to(self) -> RecipeInfo | None:
        """What is being loaded."""
        return self._recipes.changing

    def recipes(self) -> list[RecipeInfo]:
        """All recipes in the folder, by index."""
        return self._recipes.infos()

    def trigger(self, *, part: str | None = None, lot: str | None = None, encoder: int | None = None) -> int:
        """A part comes by. Raises NotReady, ConfigInvalid."""
        with self.floor.lock:
            setup = self._running()
            if setup.by == "part" and part is None:
                what = "frames find their part by its serial, and this trigger brings none."
                raise ConfigInvalid(what, where="match.by", hint="Send the serial with it, or match by `order`.")
            return self._open(setup, part=part, lot=lot, encoder=encoder, at=self.clock.now())

    def wait(self, number: int, timeout: float) -> PartResult | None:
        """Blocks until that part has its verdict."""
        end = time.monotonic() + timeout
        with self.floor.lock:
            while number not in self._recent:
                left = end - time.monotonic()
                if left <= 0 or self._state is LineState.CLOSED:
                    return None
                self._told.wait(left)
            return self._recent[number]

    def start(self) -> None:
        """STOPPED -> RUNNING."""
        with self.floor.lock:
            if self._state is LineState.RUNNING:
                return
            if self._state is not LineState.STOPPED or self._closing:
                raise NotReady(f"the line is {self._state}, and starts only when it is stopped.", where=self.name)
            for view in self._recipes.current.regions:
                self.lost(view, "the line was stopped.")
            self._become(LineState.RUNNING)

    def stop(self) -> None:
        """RUNNING -> DRAINING -> STOPPED."""
        with self.floor.lock:
            if self._state is LineState.RUNNING:
                self._become(LineState.DRAINING)
        self._after()

    def reset(self) -> None:
        """FAILED -> STOPPED: loads the recipe's models anew."""
        if self._state is not LineState.FAILED:
            return
        self._become(LineState.STARTING)
        self._thread(self._begin_anew, "loader")

    def change_over(self, recipe_id: str, *, wait: bool = False) -> None:
        """Loads and warms another recipe; it takes over between two parts. Raises ConfigInvalid, NotReady."""
        if not self.opened or self._closing or self._state is LineState.FAILED:
            raise NotReady(f"the line is {self._state} and changes to no recipe now.", where=self.name)
        path = self._recipes.claim(recipe_id, wait=wait)
        if wait:
            self._change(path)
        else:
            self._thread(lambda: self._change_aside(path), "loader")

    def turn(self, encoder: int) -> None:
        """The belt's encoder stands at this count."""
        self.outlets.turn(encoder)

    def push(self, view: str, frame: Frame) -> None:
        """Hands a frame to a view whose camera is pushed to. Raises ConfigInvalid, NotReady."""
        self.cameras.push(view, frame)

    def counters(self) -> dict[str, dict[str, int]]:
        """All accounts: of the line, of each view and camera, of workers, outputs and record."""
        idle = {"line stopped": {"frames": self.idle_frames}}
        return {
            **self.floor.counters(),
            **self.cameras.counters(),
            **idle,
            **self.outlets.counters(),
            "record": self.record.counters(),
        }

    # -- parts -------------------------------------------------------------------------------------------------------

    def again(self, trigger: Trigger, at: float, named: int | None = None) -> int:
        """A recorded part comes by once more; returns its new number. Frames name it by what they did: `named`, or the
        number that it had."""
        with self.floor.lock:
            setup = self._running()
            number = trigger.number if named is None else named
            key = {"order": None, "trigger": str(number), "part": trigger.part}[setup.by]
            return self._open(
                setup, part=trigger.part, lot=trigger.lot, encoder=trigger.encoder, at=at, key=key, wall=trigger.wall
            )

    def _open(
        self,
        setup: Setup,
        *,
        at: float,
        part: str | None = None,
        lot: str | None = None,
        encoder: int | None = None,
        key: str | None = None,
        wall: float | None = None,
    ) -> int:
        """A part comes by; the lock is held. `key` is what frames name it by, where it is not its number or serial."""
        number = self._number
        self._number += 1
        trigger = Trigger(
            number=number,
            part=part or str(number),
            lot=lot,
            product=setup.loaded.recipe.product,
            encoder=encoder,
            at=at,
            wall=time.time() if wall is None else wall,
        )
        if key is None and setup.by != "order":
            key = str(number) if setup.by == "trigger" else trigger.part
        self.record.triggered(trigger)
        if self.recorder is not None:
            self.recorder.trigger(trigger)
        self.floor.open(trigger, setup, key)
        self.cameras.pulse(setup.regions)
        return number

    def frame(self, view: str, frame: Frame) -> None:
        """A frame of a view is here."""
        with self.floor.lock:
            if self._state not in (LineState.RUNNING, LineState.DRAINING):
                self.idle_frames += 1
                return
            setup = self._recipes.current
            by = setup.loaded.recipe.trigger
            opens = self._state is LineState.RUNNING and isinstance(by, CameraTrigger) and by.view in (None, view)
            if opens and view in setup.regions and not self.floor.tracker.awaited(view, frame, setup):
                if setup.by == "order" and isinstance(by, CameraTrigger) and by.view == view:
                    for at in self.floor.missed(view, frame):  # parts that came by, and whose frames were lost
                        self._open(setup, at=at)
                self._open(setup, at=frame.received, part=frame.part, lot=frame.lot, key=setup.key(frame))
            if self.recorder is not None:
                self.recorder.frame(view, frame)
            self.floor.frame(view, frame, setup)

    def lost(self, view: str, reason: str) -> None:
        """A view's camera went or came back: frames of the parts so far will not come from it."""
        with self.floor.lock:
            if self.recorder is not None:
                self.recorder.lost(view, reason, self.clock.now())
            self.floor.lost(view, reason)

    def _tell(self, closed: Closed) -> None:
        whole = cast(Setup, closed.plan).result(closed, self.clock.now())
        digest = self.record.decided(whole, closed.frames)
        result = whole.without_maps()
        self.outlets.result(result, result.to_dict() | {"hash": digest})
        if self.recorder is not None:
            self.recorder.result(result)
        self.times.add(result)
        with self.floor.lock:
            self._recent[result.trigger.number] = result
            while len(self._recent) > RECENT:
                self._recent.popitem(last=False)
        for listener in self.listeners:
            listener(result)

    def _after(self) -> None:
        with self.floor.lock:
            if self._state is LineState.DRAINING and not self.floor.in_flight:
                self._become(LineState.STOPPED)
            self._told.notify_all()

    # -- cameras, recipes, states ------------------------------------------------------------------------------------

    def alarm(self, code: str, what: str) -> None:
        """Tells a person, by the log and every output."""
        self.outlets.alarm(code, what)

    def _change_aside(self, path: Path) -> None:
        try:
            self._change(path)
        except Exception as error:  # noqa: BLE001 - whatever it is, a person must know that nothing has changed
            self.alarm("change-over-failed", f"{path.stem}: {error} The line goes on with the recipe that it has.")

    def _change(self, path: Path) -> None:
        """Loads a recipe beside the running one, then exchanges the two between two parts; ends what `claim` began."""
        try:
            before = self._recipes.current.loaded.recipe.views
            setup = self._recipes.load(path)
            after = setup.loaded.recipe.views
            self._exchange(setup)
            last = self._number - 1
            self.cameras.use(setup.cameras)
            # Cameras that the new recipe has no use for go when the last part of the old one has its verdict.
            while any(number <= last for number in self.floor.in_flight) and not self._ended.is_set():
                time.sleep(0.02)
            self.cameras.drop(before.keys() - after.keys())
            self._recipes.forget_old()
        finally:
            self._recipes.release()
            self._after()

    def _begin_anew(self) -> None:
        try:
            self._renew()
        except Exception as error:  # noqa: BLE001 - it stays FAILED, and says why
            known = error if isinstance(error, InspectionError) else NotReady(f"models cannot be loaded: {error!r}.")
            self._fail(known)
            return
        with self.floor.lock:
            self._problem = None
            if not self._closing:
                self._become(LineState.STOPPED)

    def _renew(self) -> None:
        """Loads the models anew; once more where another recipe took over meanwhile, which must not be taken back."""
        renewed = False
        while not renewed:
            setup = self._recipes.renew()
            renewed = self._exchange(setup, only_for=setup.info)

    def _exchange(self, setup: Setup, *, only_for: RecipeInfo | None = None) -> bool:
        with self.floor.lock:
            if only_for is not None and self._recipes.info != only_for:
                return False
            if self._closing:
                raise NotReady("the line is closing.", where=self.name)
            self.floor.use(setup)
            self._recipes.take_over(setup)
            for view in self.cameras.retire(setup.cameras):
                self.lost(view, "its camera is given other settings.")
                self.floor.tracker.forget_early(view)
        self.outlets.state()
        return True

    def _tick(self) -> None:
        """Makes a part every takt while the line runs by a recipe that says so. One thread from `open` to `close`: one
        for each `start` would be two after a quick stop and start, and after a change-over go on in the old takt."""
        due = self.clock.now()
        while not self._ended.wait(max(0.0, due - self.clock.now())):
            with self.floor.lock:
                recipe = self._recipes.current.loaded.recipe
                if self._state is LineState.RUNNING and isinstance(recipe.trigger, TimerTrigger):
                    self.trigger()
                    due += recipe.takt
                else:
                    self._told.wait(IDLE)
                    due = self.clock.now()

    def _fail(self, error: InspectionError) -> None:
        self._problem = error
        self.alarm("line-failed", str(error))
        self._become(LineState.FAILED)

    def _become(self, state: LineState) -> None:
        with self.floor.lock:
            self._state = state
            self._told.notify_all()
        self.outlets.state()

    def _running(self) -> Setup:
        if self._state is not LineState.RUNNING:
            raise NotReady(
                f"the line is {self._state} and takes no parts.",
                where=self.name,
                hint="Start it, and wait until it runs.",
            )
        return self._recipes.current

    def _thread(self, target: Callable[[], None], name: str) -> None:
        thread = threading.Thread(target=target, name=name, daemon=True)
        self._threads = [*(one for one in self._threads if one.is_alive()), thread]
        thread.start()
