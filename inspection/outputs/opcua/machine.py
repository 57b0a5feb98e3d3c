"""The vision system at work: it follows the line, and what a client asks for is asked of the line.

All of it runs in the server's event loop; `_lock` makes each step whole, so that a client never sees half of one.
"""

from __future__ import annotations

import asyncio
import datetime
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from asyncua import ua

from inspection.control import Control, LineState, NotReady, RecipeInfo
from inspection.errors import ConfigInvalid, InspectionError
from inspection.outputs.opcua.aside import in_thread
from inspection.outputs.opcua.events import ERROR, WARNING, Conditions, Emitter
from inspection.outputs.opcua.results import Job, Results, configuration_id, external_id, internal_id, make, new
from inspection.outputs.opcua.space import Space
from inspection.outputs.opcua.states import ALLOWED, EXECUTING, Vision, follow, transition
from inspection.outputs.options import OpcUaOptions
from inspection.outputs.sink import Message

# Seconds that PrepareRecipe waits. A connection is served one request after the other, and asyncua's clients hang up
# when their once-a-second look at the server is not answered.
PATIENCE = 0.5
DRAINED = 0.5  # seconds that StartSingleJob waits for the parts of an aborted job to get their verdicts
BEHIND = 2.0  # seconds that the last verdicts of a run may be on their way here after the line has stopped
JOBS_KEPT = 1000
LINE_FAILED = "line-failed"  # the line's own alarm when it fails


class Refused(Exception):
    """A method is answered with a bad status."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Machine:
    """The state machine, its jobs and its results. `behind` is told why it could not follow the line just now."""

    def __init__(
        self,
        control: Control,
        options: OpcUaOptions,
        space: Space,
        emitter: Emitter,
        conditions: Conditions,
        behind: Callable[[Exception], None],
    ) -> None:
        self.control = control
        self.results = Results(options.results)
        self.state = Vision.PREOPERATIONAL
        self.configurations: OrderedDict[str, Any] = OrderedDict()
        self._options = options
        self._space = space
        self._emitter = emitter
        self._conditions = conditions
        self._behind = behind
        self._lock = asyncio.Lock()
        self._boot = secrets.token_hex(4)  # job ids are unique across restarts
        self._jobs = 0
        self._job: Job | None = None
        self._single: OrderedDict[int, Job] = OrderedDict()  # by the number of their part, until its result is out
        self._told_stopped = False  # whether the latest message of state said so: what was sent before it is here
        self._stopped_at: float | None = None  # monotonic seconds at which the line was seen to have stopped by itself
        self._withdrawn = False  # a client has taken the prepared recipe back
        self._announced: RecipeInfo | None = None
        self._shown: tuple[object, ...] = ()
        self._preparing: asyncio.Future[None] | None = None
        self.link_recipe: Callable[[str], None] = lambda _recipe_id: None

    # What the line says.

    async def start(self) -> None:
        """Shows the beginning."""
        async with self._lock:
            await self._space.show_state(self.state)
            await self._configure({})
            await self._settle()
            if self.state is Vision.ERROR:  # the alarm was before this server's time
                await self._report_failure()

    async def follow_line(self) -> None:
        """Looks at the line: for what no message tells, or where messages of state are not sent to this output."""
        async with self._lock:
            job = self._job
            if job is not None and job.number is not None and not job.published:
                await self._look_for_lost(job)
            await self._settle()

    async def take(self, message: Message) -> None:
        """Publishes one message. Two deliveries of the same result are one."""
        async with self._lock:
            if message.kind == "result":
                await self._publish(message.body)
            elif message.kind == "alarm":
                await self._alarm(message.body)
            else:
                self._told_stopped = message.body.get("state") == LineState.STOPPED
            try:
                await self._settle()
            except Exception as error:  # noqa: BLE001 - the message is out; the next look at the line settles the rest
                self._behind(error)

    async def _alarm(self, body: dict[str, Any]) -> None:
        problem = self.control.problem
        code = str(body.get("code", "alarm"))
        is_problem = self.control.state is LineState.FAILED and problem is not None and problem.code == code
        await self._conditions.report(code, str(body.get("what", code)), error=is_problem or code == LINE_FAILED)

    async def _report_failure(self) -> None:
        await self._conditions.report(LINE_FAILED, str(self.control.problem or "The line has failed."), error=True)

    async def _publish(self, body: dict[str, Any]) -> None:
        number = int(body["number"])
        if str(number) in self.results:
            return
        job = self._single.pop(number, None)
        if job is None and self._job is not None and not self._job.single:
            job = self._job
        result = make(body, job)
        self.results.put(result)
        if body["models"]:  # a part that a kill interrupted was judged by none
            await self._configure(body["models"])
        last = body["seconds"].get("last_frame")
        if last is not None:
            at = datetime.datetime.fromtimestamp(body["triggered"] + last, datetime.UTC)
            await self._emitter.emit(
                "AcquisitionDoneEventType", f"Part {body['part']} is taken.", at=at, fields={"JobId": result.JobId}
            )
        shown = ("ResultId ResultState IsPartial JobId MeasId PartId ExternalRecipeId InternalRecipeId ProductId "
                 "InternalConfigurationId CreationTime ProcessingTimes ResultContent")  # fmt: skip
        await self._emitter.emit(
            "ResultReadyEventType",
            f"Part {body['part']}: {body['verdict']}.",
            fields={name: getattr(result, name) for name in shown.split()},
        )
        if job is not None and job.single:
            job.published = True

    async def _look_for_lost(self, job: Job) -> None:
        """Ends a single job whose result this output will not be given: its gate holds it, or a queue dropped it."""
        assert job.number is not None
        if self.control.wait(job.number, 0) is None:
            return
        now = time.monotonic()
        job.verdict_at = job.verdict_at or now
        never = self._options.hold is not None or "result" not in self._options.sends
        if never or now - job.verdict_at > self._options.timeout:
            job.published = True

    async def _settle(self) -> None:
        """Goes on until the state is what the line's state asks for."""
        if (
            self._job is not None
            and self._job.single
            and self._job.published
            and self.control.state is LineState.RUNNING
        ):
            self.control.stop()
        while True:
            line, recipe = self._line_state(), self.control.recipe
            if line is LineState.RUNNING:
                self._withdrawn = False
            job_open = self._job is not None and self._job.single and not self._job.published
            prepared = recipe is not None and not self._withdrawn
            if line is LineState.RUNNING and self._job is not None and self._job.single:
                target = None  # a single job keeps the line running for itself
            else:
                target = follow(self.state, line, prepared=prepared, job_open=job_open)
            if target is None:
                break
            ended_by = self._job.ended_by if self._job and target is Vision.READY else None
            await self._move(target, ended_by)
        await self._show(line, recipe, prepared)

    def _line_state(self) -> LineState:
        """What the line is doing; it drains until the last verdicts of its run are out here, too: Ready comes after
        them, and they belong to the job. Each output gets its messages in order, so these are before that of the stop.
        """
        line = self.control.state
        waits = self.state is Vision.CONTINUOUS and "state" in self._options.sends and not self._told_stopped
        if line is not LineState.STOPPED or not waits:
            self._stopped_at = None
            return line
        now = time.monotonic()
        self._stopped_at = self._stopped_at or now
        return LineState.DRAINING if now - self._stopped_at < BEHIND else line

    async def _show(self, line: LineState, recipe: RecipeInfo | None, prepared: bool) -> None:
        recipes = self.control.recipes()
        shown = (line, self.state, recipe, prepared, tuple(recipes))
        if shown == self._shown:
            return
        await self._space.show_system(line, self.state is Vision.HALTED)
        for fresh in await self._space.show_recipes(recipes, recipe.id if recipe and prepared else None):
            self.link_recipe(fresh)
        if recipe is not None and prepared and recipe != self._announced:
            self._announced = recipe
            await self._emitter.emit(
                "RecipePreparedEventType",
                f"Recipe {recipe.id} is prepared.",
                fields={
                    "InternalId": internal_id(recipe),
                    "ExternalId": external_id(recipe),
                    "ProductId": new("ProductIdDataType", Id=recipe.product),
                },
            )
        if not prepared:
            self._announced = None
        self._shown = shown  # only now: what failed half-way is shown at the next look

    async def _configure(self, models: dict[str, str]) -> None:
        internal = configuration_id(models)
        if internal.Id in self.configurations and next(reversed(self.configurations)) == internal.Id:
            return
        value = self.configurations.pop(internal.Id, None) or new(
            "ConfigurationDataType",
            HasTransferableDataOnFile=False,
            ExternalId=internal,
            InternalId=internal,
            LastModified=datetime.datetime.now(datetime.UTC),
        )
        self.configurations[internal.Id] = value
        await self._space.show_configuration(value)
        while len(self.configurations) > 100:
            self.configurations.popitem(last=False)

    async def _move(self, target: Vision, cause: str | None = None, why: str = "") -> None:
        step = transition(self.state, target, cause)
        if step.target is Vision.CONTINUOUS and self._job is None:
            self._job = self._new_job(single=False)
        job, self.state = self._job, target
        if target is Vision.CONTINUOUS:
            self._told_stopped = False
        await self._space.show_state(target)
        fields = self._space.transition_fields(step)
        await self._emitter.emit("StateChangedEventType", f"{step.name}: {why}" if why else step.name, fields=fields)
        if job is not None:
            of_job = {"JobId": new("JobIdDataType", Id=job.id)}
            if target in EXECUTING:
                await self._emitter.emit("JobStartedEventType", f"Job {job.id} has started.", fields=of_job)
            elif target is Vision.READY:
                await self._emitter.emit("ReadyEventType", f"Ready after job {job.id}.", fields=of_job)
        if target not in EXECUTING:
            self._job = None
        if target is Vision.ERROR:
            problem = self.control.problem
            text = str(problem) if problem else "The line has failed."
            await self._emitter.emit("ErrorEventType", text, severity=ERROR, fields=fields)
            if "alarm" not in self._options.sends:
                await self._report_failure()
        elif step.source is Vision.ERROR:
            await self._emitter.emit("ErrorResolvedEventType", step.name, severity=WARNING, fields=fields)

    # What a client asks for.

    async def select_mode_automatic(self) -> None:
        """Preoperational -> Initialized, and on to Ready where a recipe is loaded."""
        async with self._lock:
            self._require("SelectModeAutomatic")
            await self._move(Vision.INITIALIZED, "SelectModeAutomatic")
            await self._settle()

    async def halt(self, why: str) -> None:
        """Any state -> Halted; parts in flight still get their verdicts."""
        async with self._lock:
            self._require("Halt")
            self.control.stop()
            await self._move(Vision.HALTED, "Halt", why)
            await self._settle()

    async def reset(self, why: str) -> None:
        """Any state -> Preoperational; a line that has failed tries again."""
        async with self._lock:
            self._require("Reset")
            if self.control.state is LineState.FAILED:
                self.control.reset()
            else:
                self.control.stop()
            self._withdrawn = False
            await self._move(Vision.PREOPERATIONAL, "Reset", why)
            await self._settle()

    async def start_single(self, *, meas: str, part: str, recipe: str, product: str, encoder: int | None) -> Job:
        """One part: Ready -> SingleExecution, and back when its result is out."""
        async with self._lock:
            self._require("StartSingleJob")
            self._check_ids(recipe, product)
            end = time.monotonic() + DRAINED
            while self.control.state is LineState.DRAINING and time.monotonic() < end:
                await asyncio.sleep(0.002)
            job = self._new_job(single=True, meas=meas)
            try:
                self.control.start()
                job.number = self.control.trigger(part=part or None, lot=meas or None, encoder=encoder)
            except NotReady as error:
                await self._settle()
                raise Refused(ua.StatusCodes.BadInvalidState) from error
            except ConfigInvalid:  # frames find their part by its serial, and the client gave none
                self.control.stop()
                await self._settle()
                raise
            self._job = self._single[job.number] = job
            while len(self._single) > JOBS_KEPT:
                self._single.popitem(last=False)
            await self._move(Vision.SINGLE, "StartSingleJob")
            return job

    async def start_continuous(self, *, meas: str, recipe: str, product: str) -> Job:
        """Ready -> ContinuousExecution: every trigger of the line becomes a part."""
        async with self._lock:
            self._require("StartContinuous")
            self._check_ids(recipe, product)
            end = time.monotonic() + DRAINED
            while self.control.state is LineState.DRAINING and time.monotonic() < end:
                await asyncio.sleep(0.002)
            try:
                self.control.start()
            except NotReady as error:
                await self._settle()
                raise Refused(ua.StatusCodes.BadInvalidState) from error
            self._job = job = self._new_job(single=False, meas=meas)
            await self._move(Vision.CONTINUOUS, "StartContinuous")
            await self._settle()
            return job

    async def stop(self) -> None:
        """No new parts; Ready when those in flight have their verdicts."""
        async with self._lock:
            self._require("Stop")
            if self._job is not None:
                self._job.ended_by = "Stop"
            self.control.stop()
            await self._settle()

    async def abort(self, why: str) -> None:
        """Ready at once. Parts in flight still get their verdicts: none is ever lost."""
        async with self._lock:
            self._require("Abort")
            self.control.stop()
            await self._move(Vision.READY, "Abort", why)
            await self._settle()

    async def prepare(self, recipe: RecipeInfo, method: str = "PrepareRecipe") -> tuple[bool, int]:
        """Changes over to a recipe: whether it has taken over already, and the error (0: none, -1: it does not load).

        One that takes longer than `PATIENCE` goes on by itself: RecipePreparedEventType says when it has taken over,
        a condition says when it could not.
        """
        async with self._lock:
            self._require(method)
            if self._preparing is not None and not self._preparing.done():
                raise Refused(ua.StatusCodes.BadInvalidState)
            done = in_thread("opcua-change-over", lambda: self.control.change_over(recipe.id, wait=True))
            self._preparing = done
        task = asyncio.create_task(self._prepared(done, method))
        try:
            return True, await asyncio.wait_for(asyncio.shield(task), PATIENCE)
        except TimeoutError:
            return False, 0

    async def _prepared(self, done: asyncio.Future[None], method: str) -> int:
        try:
            await done
        except InspectionError as error:
            async with self._lock:
                await self._conditions.report(error.code, str(error))
            return -1
        async with self._lock:
            self._withdrawn = False
            if self.state is Vision.INITIALIZED and self.control.recipe is not None:
                await self._move(Vision.READY, method)
            await self._settle()
        return 0

    async def unprepare(self, recipe: RecipeInfo, method: str = "UnprepareRecipe") -> None:
        """Ready -> Initialized: no job until a recipe is prepared."""
        async with self._lock:
            self._require(method)
            if self.control.recipe is None or recipe.id != self.control.recipe.id:
                raise Refused(ua.StatusCodes.BadInvalidArgument)
            self._withdrawn = True
            await self._move(Vision.INITIALIZED, method)
            await self._settle()

    def find_recipe(self, *ids: tuple[str, bytes | None]) -> RecipeInfo:
        """The recipe that all given ids and hashes name; empty ids name none. Raises Refused."""
        named = [(name, digest) for name, digest in ids if name]
        for recipe in self.control.recipes():
            matches = [
                name == recipe.id and (not digest or recipe.hash is None or digest.hex() == recipe.hash)
                for name, digest in named
            ]
            if matches and all(matches):
                return recipe
        raise Refused(ua.StatusCodes.BadInvalidArgument)

    def find_product(self, product: str) -> RecipeInfo:
        """The recipe for a product: the running one if it judges it, otherwise the first by index. Raises Refused."""
        running = self.control.recipe
        if running is not None and running.product == product:
            return running
        found = next((recipe for recipe in self.control.recipes() if recipe.product == product), None)
        if found is None:
            raise Refused(ua.StatusCodes.BadInvalidArgument)
        return found

    def is_prepared(self, recipe: RecipeInfo) -> bool:
        """Whether parts are judged by it."""
        running = self.control.recipe
        return running is not None and running.id == recipe.id and not self._withdrawn

    def _require(self, method: str) -> None:
        if self.state not in ALLOWED[method]:
            raise Refused(ua.StatusCodes.BadInvalidState)

    def _check_ids(self, recipe: str, product: str) -> None:
        running = self.control.recipe
        if running is None or recipe not in ("", running.id) or product not in ("", running.product):
            raise Refused(ua.StatusCodes.BadInvalidArgument)

    def _new_job(self, *, single: bool, meas: str = "") -> Job:
        self._jobs += 1
        return Job(id=f"{self._boot}-{self._jobs}", single=single, meas=meas)
