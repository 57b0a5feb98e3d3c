"""A small real line for tests of the doors: states, change-over and verdicts on its own threads, without images."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

from inspection.control import LineState, NotReady, RecipeInfo
from inspection.errors import ConfigInvalid, InspectionError
from inspection.outputs.sink import DeliveryFailed, Message, Sink
from inspection.parts import Frame, PartResult, Trigger, ViewResult
from inspection.results import Inspection, Verdict

RECIPES = (
    RecipeInfo(id="bolt", index=0, product="M8 bolt", hash="b0" * 32),
    RecipeInfo(id="nut", index=1, product="M8 nut", hash="a1" * 32),
    RecipeInfo(id="washer", index=2, product="M8 washer"),
)


def by_part(trigger: Trigger) -> Verdict:
    """The verdict that the part's id asks for (`...-NG`, `...-REVIEW`, `...-ERROR`), otherwise OK."""
    return next((verdict for verdict in Verdict if trigger.part.endswith(f"-{verdict}")), Verdict.OK)


class ScriptedLine:
    """Implements `inspection.control.Control`, and feeds attached sinks as couriers do: in order, one thread for each.

    Args:
        judging: seconds from a trigger to its verdict.
        warming: seconds that loading a recipe takes.
        verdict: decides each part. broken: recipes that cannot be carried out, by id.
        running: start at once, as a line does that nobody has to start.

    Attributes:
        open_gate: parts get their verdicts only while it is set; clear it to keep parts in flight.
        alarms: what was raised, as (code, text).
        encoder: the last count given to `turn`.
        delivered: sequence of the last message that every sink has, by sink.
    """

    def __init__(
        self,
        *,
        name: str = "line",
        recipes: Sequence[RecipeInfo] = RECIPES,
        judging: float = 0.003,
        warming: float = 0.01,
        verdict: Callable[[Trigger], Verdict] = by_part,
        broken: Sequence[str] = (),
        running: bool = False,
    ) -> None:
        self.name = name
        self.judging = judging
        self.warming = warming
        self.verdict = verdict
        self.broken = set(broken)
        self.alarms: list[tuple[str, str]] = []
        self.encoder: int | None = None
        self.open_gate = threading.Event()
        self.open_gate.set()
        self._recipes = list(recipes)
        self._changed = threading.Condition(threading.RLock())
        self._state = LineState.STARTING
        self._problem: InspectionError | None = None
        self._recipe: RecipeInfo | None = None
        self._changing: RecipeInfo | None = None
        self._numbers = 0
        self._sequence = 0
        self._in_flight = 0
        self._counts = dict.fromkeys(Verdict, 0)
        self._results: dict[int, PartResult] = {}
        self._couriers: list[_Courier] = []
        self._parts: queue.SimpleQueue[Trigger | None] = queue.SimpleQueue()
        self._run_at_once = running
        self._threads = [threading.Thread(target=self._judge, name="scripted-judge", daemon=True)]
        self._threads[0].start()
        self._load(self._recipes[0])

    # What a test does to the line.

    def attach(self, sink: Sink) -> Sink:
        """Opens a sink and gives it every message from now on."""
        sink.open()
        courier = _Courier(sink)
        with self._changed:
            self._couriers.append(courier)
        return sink

    def detach(self, sink: Sink) -> None:
        """Closes the sink; it gets no further message."""
        with self._changed:
            gone = [courier for courier in self._couriers if courier.sink is sink]
            self._couriers = [courier for courier in self._couriers if courier.sink is not sink]
        for courier in gone:
            courier.close()

    def fail(self, problem: InspectionError) -> None:
        """The line breaks down: it is FAILED until `reset`; parts in flight are ERROR."""
        with self._changed:
            self._problem = problem
            self._enter(LineState.FAILED)
        self.alarm(problem.code, str(problem))

    def alarm(self, code: str, text: str) -> None:
        """An `Alarm`: kept in `alarms` and told to every sink."""
        with self._changed:
            self.alarms.append((code, text))
            self._tell("alarm", {"code": code, "what": text, "wall": time.time()})

    def until(self, state: LineState, timeout: float = 20.0) -> None:
        """Waits for the state. Raises AssertionError."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._state is state, timeout), f"{self._state}, never {state}"

    def close(self) -> None:
        """Closes the sinks and ends all threads."""
        with self._changed:
            if self._state is LineState.CLOSED:
                return
            self._enter(LineState.CLOSED)
        self.open_gate.set()
        self._parts.put(None)
        for courier in list(self._couriers):
            courier.close()
        for thread in self._threads:
            thread.join(20)
            assert not thread.is_alive(), thread.name

    def __enter__(self) -> ScriptedLine:
        self.until(LineState.RUNNING if self._run_at_once else LineState.STOPPED)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # `Control`.

    @property
    def state(self) -> LineState:
        return self._state

    @property
    def problem(self) -> InspectionError | None:
        return self._problem

    @property
    def recipe(self) -> RecipeInfo | None:
        return self._recipe

    @property
    def changing_to(self) -> RecipeInfo | None:
        return self._changing

    def recipes(self) -> list[RecipeInfo]:
        return sorted(self._recipes, key=lambda recipe: recipe.index)

    def trigger(self, *, part: str | None = None, lot: str | None = None, encoder: int | None = None) -> int:
        with self._changed:
            if self._state is not LineState.RUNNING or self._recipe is None:
                raise NotReady(f"the line is {self._state}.", hint="Start it.")
            self._numbers += 1
            number = self._numbers
            self._in_flight += 1
            self._parts.put(
                Trigger(
                    number=number,
                    part=part or str(number),
                    product=self._recipe.product,
                    at=time.monotonic(),
                    wall=time.time(),
                    lot=lot,
                    encoder=encoder,
                )
            )
            return number

    def wait(self, number: int, timeout: float) -> PartResult | None:
        with self._changed:
            self._changed.wait_for(lambda: number in self._results, timeout)
            return self._results.get(number)

    def change_over(self, recipe_id: str, *, wait: bool = False) -> None:
        recipe = next((one for one in self._recipes if one.id == recipe_id), None)
        if recipe is None:
            raise ConfigInvalid(f"there is no recipe `{recipe_id}`.")
        if recipe_id in self.broken:
            raise ConfigInvalid(f"the recipe `{recipe_id}` cannot be carried out.", hint="Mend its model's path.")
        thread = self._load(recipe)
        if wait:
            thread.join()

    def start(self) -> None:
        with self._changed:
            if self._state is LineState.STOPPED:
                self._enter(LineState.RUNNING)
            elif self._state is not LineState.RUNNING:
                raise NotReady(f"the line is {self._state}.")

    def stop(self) -> None:
        with self._changed:
            if self._state is LineState.RUNNING:
                self._enter(LineState.DRAINING)
                self._drained()

    def reset(self) -> None:
        with self._changed:
            if self._state is not LineState.FAILED:
                return
            self._problem = None
            self._enter(LineState.STARTING)
        self._load(self._recipe or self._recipes[0])

    def turn(self, encoder: int) -> None:
        self.encoder = encoder

    def push(self, view: str, frame: Frame) -> None:
        raise ConfigInvalid(f"there is no view `{view}` whose frames are pushed.")

    def counters(self) -> dict[str, dict[str, int]]:
        with self._changed:
            counts = {str(verdict): count for verdict, count in self._counts.items()}
            return {"line": {"triggers": self._numbers, **counts, "in_flight": self._in_flight}}

    # Inside.

    def _enter(self, state: LineState) -> None:
        self._state = state
        recipe = self._recipe.id if self._recipe else None
        self._tell("state", {"state": str(state), "recipe": recipe})

    def _load(self, recipe: RecipeInfo) -> threading.Thread:
        with self._changed:
            self._changing = recipe
        thread = threading.Thread(target=self._warm, args=(recipe,), name="scripted-warm", daemon=True)
        self._threads.append(thread)
        thread.start()
        return thread

    def _warm(self, recipe: RecipeInfo) -> None:
        time.sleep(self.warming)
        with self._changed:
            if recipe.hash is None:  # known once it is loaded
                loaded = RecipeInfo(id=recipe.id, index=recipe.index, product=recipe.product, hash="c2" * 32)
                self._recipes[self._recipes.index(recipe)] = recipe = loaded
            self._recipe, self._changing = recipe, None
            if self._state is LineState.STARTING:
                self._enter(LineState.STOPPED)
                if self._run_at_once:
                    self._enter(LineState.RUNNING)
            else:
                self._enter(self._state)

    def _judge(self) -> None:
        while (trigger := self._parts.get()) is not None:
            time.sleep(max(0.0, trigger.at + self.judging - time.monotonic()))
            self.open_gate.wait()
            with self._changed:
                result = self._result(trigger)
                self._results[trigger.number] = result
                self._counts[result.verdict] += 1
                self._in_flight -= 1
                self._tell("result", result.to_dict(), result)
                self._drained()

    def _result(self, trigger: Trigger) -> PartResult:
        assert self._recipe is not None
        failed = self._state is LineState.FAILED
        verdict = Verdict.ERROR if failed else self.verdict(trigger)
        error = verdict is Verdict.ERROR
        score = {Verdict.OK: 0.25, Verdict.NG: 0.875, Verdict.REVIEW: 0.5, Verdict.ERROR: float("nan")}[verdict]
        reason = {Verdict.ERROR: "the view has no frame.", Verdict.REVIEW: "between the thresholds."}.get(verdict)
        code = "frame-missing" if error else None
        inspection = Inspection(
            name="top", verdict=verdict, score=score, size=(64, 48), kind="scratch" if verdict is Verdict.NG else None
        )
        view = ViewResult(
            view="top", verdict=verdict, inspections=() if error else (inspection,), reason=reason, code=code
        )
        now = time.monotonic()
        return PartResult(
            trigger=trigger,
            verdict=verdict,
            views=(view,),
            decided=now,
            deadline=trigger.at + 1.0,
            recipe=self._recipe.id,
            recipe_hash=self._recipe.hash or "",
            models={"top": "d3" * 32},
            kind=inspection.kind,
            reason=reason,
            code=code,
            seconds={"last_frame": (now - trigger.at) / 2, "decided": now - trigger.at},
        )

    def _drained(self) -> None:
        if self._state is LineState.DRAINING and not self._in_flight:
            self._enter(LineState.STOPPED)

    def _tell(
        self, kind: Literal["result", "alarm", "state"], body: dict[str, Any], result: PartResult | None = None
    ) -> None:
        self._sequence += 1
        deadline = result.deadline if result else None
        message = Message(
            kind=kind, sequence=self._sequence, wall=time.time(), body=body, result=result, deadline=deadline
        )
        for courier in self._couriers:
            courier.messages.put(message)
        self._changed.notify_all()


class _Courier:
    """Delivers to one sink in order, trying again where the sink asks for it."""

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self.messages: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="scripted-courier", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while (message := self.messages.get()) is not None:
            while not self._closing.is_set():
                try:
                    self.sink.deliver(message)
                except DeliveryFailed:
                    self._closing.wait(0.05)
                else:
                    break

    def close(self) -> None:
        """Delivers what waits, unless the sink will not take it; then closes the sink."""
        self.messages.put(None)
        self._thread.join(2)
        self._closing.set()
        self.sink.close()
        self._thread.join(20)
        assert not self._thread.is_alive()
