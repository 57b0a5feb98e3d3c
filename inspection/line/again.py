"""A recording, run through the line again: its triggers, frames and lost cameras in their recorded order.

At a stated speed the machine's clock goes on as ever. As fast as it goes, the clock stands still while something is
judged and is then moved to the next event: nothing is late because this machine is slow, so the same recording gives
the same verdicts, to the bit, whatever the machine's load.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from inspection.cameras.camera import CameraEnded
from inspection.cameras.recording import Event, FrameEvent, LostEvent, Recording, TriggerEvent, judgement
from inspection.cameras.replay import events
from inspection.errors import ConfigInvalid
from inspection.line.clock import HandClock
from inspection.line.line import Line
from inspection.parts import PartResult
from inspection.recipe.load import Loaded, load
from inspection.recipe.recipe import CameraTrigger, SignalTrigger


class Silent:
    """Stands for a camera while its frames come from a recording: it is over before it begins, so that nothing that
    the line does about cameras, such as to find one silent, gets between the recorded events."""

    triggered = False

    def start(self) -> None:
        """Raises CameraEnded."""
        raise CameraEnded("its frames come from a recording.")

    def frame(self, timeout: float) -> None:
        """Nothing."""

    def trigger(self) -> None:
        """Nothing."""

    def stop(self) -> None:
        """Nothing."""

    def facts(self) -> dict[str, str | int | float | bool | None]:
        """That its frames are recorded."""
        return {"source": "recording"}


class Replay:
    """Runs a recording through the line of a recipe; its verdicts are kept beside the recipe's record (`...-replayed`).

    Args:
        recipe: by which it is judged; with the recording's own recipe the verdicts are those of the recording.
        speed: 1 its own takt, 2 twice as fast, None as fast as it goes.
        outputs: whether the recipe's outputs are told.

    Attributes:
        results: of all parts, in their order.

    Raises:
        ConfigInvalid: the recording has views that the recipe lacks; outputs are told, and `speed` is None.
    """

    def __init__(
        self, recipe: Path, recording: Recording, *, speed: float | None = None, outputs: bool = False
    ) -> None:
        if outputs and speed is None:
            raise ConfigInvalid(
                "outputs keep the machine's time, and a replay that goes as fast as it can has none.",
                where="--outputs",
                hint="Name a speed: `--speed 1`.",
            )
        self.recording = recording
        self.results: list[PartResult] = []
        self._speed = speed
        self._hand = HandClock() if speed is None else None
        loaded = load(recipe)
        strange = {one.view for one in recording.index if isinstance(one, FrameEvent | LostEvent)}
        strange -= set(loaded.recipe.views)
        if strange:
            raise ConfigInvalid(
                f"the recording has views that the recipe lacks: {', '.join(sorted(strange))}.",
                where=str(recording.folder),
                hint="Replay it with the recipe that it was made with.",
            )
        # A frame that opened a part did so for the number that it names, which is not the part's own.
        self._named = _named(recording) if isinstance(loaded.recipe.trigger, CameraTrigger) else {}
        self._deadline = loaded.recipe.deadline
        self.line = Line(
            recipe,
            clock=self._hand,
            transform=lambda one: _detached(one, outputs),
            camera=lambda _options, _view: Silent(),
        )
        self.line.listeners.append(self.results.append)

    def run(self, on_event: Callable[[], None] = lambda: None) -> None:
        """Replays all; `on_event` is called after each of `recording.index`. Raises what `Line.open` raises."""
        with self.line:
            self.line.start()
            for event in self._events():
                if isinstance(event, FrameEvent):
                    self.line.frame(event.view, event.frame)
                elif isinstance(event, LostEvent):
                    self.line.lost(event.view, event.reason)
                elif isinstance(event, TriggerEvent):
                    self.line.again(event.trigger, event.trigger.at, self._named.get(event.trigger.number))
                on_event()
            if self._hand is not None:
                self.line.floor.advance(self._hand, self._hand.now() + self._deadline)

    def differences(self) -> list[str]:
        """The parts that got another verdict than in the recording, or the same with other numbers, a line each."""
        recorded = {body["number"]: body for body in self.recording.results}
        found = []
        triggers = self.recording.triggers
        if len(self.results) != len(triggers):
            found.append(f"{len(triggers)} triggers were recorded, and {len(self.results)} parts were replayed.")
        for trigger, result in zip(triggers, sorted(self.results, key=lambda one: one.trigger.number), strict=False):
            old = recorded.get(trigger.number)
            if old is None:
                continue  # the recording ended before its verdict
            new = json.loads(json.dumps(result.to_dict()))
            if new["part"] == str(new["number"]):
                new["part"] = old["part"]  # nobody gave one
            new["number"] = old["number"]
            if judgement(new) != judgement(old):
                keys = [key for key in new if key not in ("seconds", "triggered") and new[key] != old.get(key)]
                found.append(
                    f"part {trigger.part}: {new['verdict']}, and {old['verdict']} in the recording ({', '.join(keys)})."
                )
        return found

    def _events(self) -> Iterator[Event]:
        if self._hand is None:
            yield from events(self.recording, self._speed)
            return
        start, latest = 1.0 + max(0.0, -min((event.offset for event in self.recording.index), default=0.0)), 0.0
        for event in self.recording.events():
            latest = max(latest, start + event.offset)
            self.line.floor.advance(self._hand, latest)
            if isinstance(event, FrameEvent):
                yield replace(event, frame=replace(event.frame, received=start + event.frame.received))
            elif isinstance(event, TriggerEvent):
                yield replace(event, trigger=replace(event.trigger, at=start + event.trigger.at))
            else:
                yield event


def _named(recording: Recording) -> dict[int, int | None]:
    """By part, the trigger's number that its frames name, where frames opened the parts: that of the next one."""
    found: dict[int, int | None] = {}
    named: int | None = None
    for event in reversed(recording.index):
        if isinstance(event, FrameEvent):
            named = event.frame.trigger
        elif isinstance(event, TriggerEvent):
            found[event.trigger.number] = named
    return found


def _detached(loaded: Loaded, outputs: bool) -> Loaded:
    """The recipe without the plant: its verdicts are kept elsewhere, because those of the real parts stand, and parts
    come by when they did, whoever told of them."""
    folder = loaded.recipe.record.folder
    changes: dict[str, object] = {
        "record": loaded.recipe.record.model_copy(update={"folder": folder.with_name(f"{folder.name}-replayed")}),
        "trigger": SignalTrigger(kind="signal"),
    }
    if not outputs:
        changes["outputs"] = ()
    return replace(loaded, recipe=loaded.recipe.model_copy(update=changes))
