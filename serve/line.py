"""The line's HTTP door: triggers and frames in, verdicts and accounts out. Errors are problem+json."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Body, FastAPI, Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from inspection.cameras.folder import pixel_format
from inspection.cameras.pushed import QueueFull
from inspection.control import LineState, RecipeInfo
from inspection.control import NotReady as LineNotReady
from inspection.errors import ConfigInvalid, ImageTooLarge, ImageUnreadable
from inspection.line.line import Line
from inspection.parts import Frame, PartResult
from inspection.pixels import decode_image
from serve import body, problems
from serve.limits import Limits
from serve.line_metrics import LineMetrics
from serve.metrics import MEDIA_TYPE
from serve.reception import Reception
from serve.service import VERSION

Name = Annotated[str, Field(min_length=1, max_length=256)]
Wait = Annotated[float, Query(ge=0, le=300, description="seconds to wait for the verdict; 0: do not")]


class Came(BaseModel):
    """A part that comes by."""

    model_config = ConfigDict(extra="forbid")

    part: Name | None = None
    lot: Name | None = None
    encoder: int | None = None


class Sent(BaseModel):
    """What is known of a frame."""

    model_config = ConfigDict(extra="forbid")

    part: Name | None = None
    lot: Name | None = None
    trigger: Annotated[int | None, Field(ge=1, description="number of the trigger it belongs to")] = None
    number: Annotated[int, Field(ge=0, description="the camera's count of exposures; 0: counted here")] = 0


class Chosen(BaseModel):
    """A recipe to change over to."""

    model_config = ConfigDict(extra="forbid")

    id: Name
    wait: Annotated[bool, Field(description="answer when it has taken over")] = False


class Turned(BaseModel):
    """The belt's encoder."""

    model_config = ConfigDict(extra="forbid")

    count: int


def create_line_app(line: Line, limits: Limits = Limits(queue=64)) -> FastAPI:
    """The application that serves one line; whoever calls it opens and closes the line.

    Args:
        limits: of pushed frames; more than `concurrency + queue` bodies at once are refused.
    """
    metrics = LineMetrics(lambda: accounts(line), lambda: line.outlets.alarms, lambda: line.state.value)
    verdicts = Verdicts(line)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        verdicts.loop = asyncio.get_running_loop()
        listeners = (metrics.told, verdicts.told)
        line.listeners.extend(listeners)
        try:
            yield
        finally:
            for listener in listeners:
                line.listeners.remove(listener)

    app = FastAPI(title="Inspection line", version=VERSION, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.router.redirect_slashes = False
    app.add_middleware(Reception, problem=metrics.problem)
    problems.install(app)
    _add_parts(app, line, verdicts)
    _add_frames(app, line, limits)
    _add_control(app, line)
    _add_state(app, line, metrics)
    problems.describe(app)
    return app


class Verdicts:
    """Waits for verdicts on the event loop: a waiting request holds no thread."""

    def __init__(self, line: Line) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self._line = line
        self._asked: dict[int, list[asyncio.Future[PartResult]]] = {}

    def told(self, result: PartResult) -> None:
        """On the thread that closes parts."""
        if self.loop is not None and result.trigger.number in self._asked:
            self.loop.call_soon_threadsafe(self._settle, result)

    async def of(self, number: int, seconds: float) -> PartResult | None:
        """The verdict on a part; None when there is none within `seconds`."""
        future: asyncio.Future[PartResult] = asyncio.get_running_loop().create_future()
        # Asked first and looked for then: one that is told in between is found by the look.
        self._asked.setdefault(number, []).append(future)
        try:
            found = self._line.wait(number, 0.0)
            return found if found is not None or seconds <= 0 else await asyncio.wait_for(future, seconds)
        except TimeoutError:
            return None
        finally:
            asked = self._asked.get(number, [])
            if future in asked:
                asked.remove(future)
            if not asked:
                self._asked.pop(number, None)

    def _settle(self, result: PartResult) -> None:
        for future in self._asked.get(result.trigger.number, ()):
            if not future.done():
                future.set_result(result)


def accounts(line: Line) -> dict[str, dict[str, int]]:
    """The line's counters; none before it was opened, because the record is not read yet."""
    return line.counters() if line.opened else {}


def _add_parts(app: FastAPI, line: Line, verdicts: Verdicts) -> None:
    refusals = problems.described(ConfigInvalid, LineNotReady, problems.RequestInvalid)

    @app.post("/v1/triggers", summary="A part comes by", status_code=202, responses=refusals)
    async def trigger(came: Annotated[Came, Body()] = Came(), wait: Wait = 0.0) -> JSONResponse:
        """202 with the part's `number`; with `wait`, 200 with its verdict where that comes in time."""
        number = await run_in_threadpool(line.trigger, part=came.part, lot=came.lot, encoder=came.encoder)
        result = await verdicts.of(number, wait) if wait else None
        if result is None:
            return JSONResponse({"number": number}, status_code=202)
        return JSONResponse(result.to_dict())

    @app.get(
        "/v1/parts/{number}",
        summary="The verdict on a recent part",
        responses=problems.described(problems.PartUnknown, problems.RequestInvalid),
    )
    async def part(number: int, wait: Wait = 0.0) -> JSONResponse:
        result = await verdicts.of(number, wait)
        if result is None:
            flying = number in line.floor.in_flight
            what = f"part {number} has no verdict yet." if flying else f"no recent part has the number {number}."
            hint = "Ask with `?wait=`." if flying else "Older ones are in the record: `inspection history part`."
            raise problems.PartUnknown(what, where="number", hint=hint)
        return JSONResponse(result.to_dict())

    @app.post("/v1/encoder", summary="The belt's encoder stands at this count", status_code=204)
    async def encoder(turned: Turned) -> None:
        line.turn(turned.count)


def _add_frames(app: FastAPI, line: Line, limits: Limits) -> None:
    taken = 0

    @app.post(
        "/v1/views/{view}/frames",
        summary="A frame of a view whose camera is of the kind `pushed`",
        status_code=202,
        responses=problems.described(
            ConfigInvalid, LineNotReady, QueueFull, ImageUnreadable, ImageTooLarge, problems.MediaTypeUnsupported,
            problems.BodyTooSlow, problems.Overloaded, problems.RequestInvalid,
        ),
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
            }
        },
    )  # fmt: skip
    async def frames(view: str, request: Request, sent: Annotated[Sent, Query()]) -> dict[str, str]:
        """The body is the bytes of one PNG, JPEG, TIFF or BMP file. One that cannot be decoded is answered 422, and its
        part is ERROR at once: the frame counts as damaged, so that no later one goes to its part."""
        nonlocal taken
        most = limits.concurrency + limits.queue
        if taken >= most:
            raise problems.Overloaded(f"{most} frames are being received already.", where=view, hint="Send it again.")
        taken += 1
        try:
            data = await body.read(request, limits)
            await run_in_threadpool(_push, line, view, data, sent, time.monotonic(), limits.max_pixels)
        finally:
            taken -= 1
        return {"view": view}


def _push(line: Line, view: str, data: bytes, sent: Sent, received: float, most: int) -> None:
    known = {"number": sent.number, "received": received, "part": sent.part, "lot": sent.lot, "trigger": sent.trigger}
    try:
        pixels = decode_image(data, max_pixels=most)
    except ImageUnreadable as error:
        line.push(view, Frame(pixels=None, damage=error.what, **known))  # type: ignore[arg-type]
        raise
    line.push(view, Frame(pixels=pixels, pixel_format=pixel_format(pixels), **known))  # type: ignore[arg-type]


def _add_control(app: FastAPI, line: Line) -> None:
    refusals = problems.described(ConfigInvalid, LineNotReady, problems.RequestInvalid)

    @app.post("/v1/line/start", summary="Take parts", responses=refusals)
    def start() -> dict[str, str]:
        line.start()
        return {"state": line.state.value}

    @app.post("/v1/line/stop", summary="Take no more parts; those in flight get their verdicts")
    def stop() -> dict[str, str]:
        line.stop()
        return {"state": line.state.value}

    @app.post("/v1/line/reset", summary="Try again after `failed`")
    def reset() -> dict[str, str]:
        line.reset()
        return {"state": line.state.value}

    @app.post("/v1/recipe", summary="Change over between two parts", status_code=202, responses=refusals)
    def recipe(chosen: Chosen) -> JSONResponse:
        """202 when it is being loaded; with `wait`, 200 when it has taken over."""
        line.change_over(chosen.id, wait=chosen.wait)
        about = {"recipe": _info(line.recipe), "changing_to": _info(line.changing_to)}
        return JSONResponse(about, status_code=200 if chosen.wait else 202)

    @app.get("/v1/recipes", summary="What can be changed over to")
    def recipes() -> dict[str, Any]:
        return {"recipes": [_info(one) for one in line.recipes()]}


def _add_state(app: FastAPI, line: Line, metrics: LineMetrics) -> None:
    @app.get("/v1/line", summary="What the line is doing, and all its accounts")
    def about() -> dict[str, Any]:
        problem = line.problem
        return {
            "name": line.name,
            "state": line.state.value,
            "recipe": _info(line.recipe),
            "changing_to": _info(line.changing_to),
            "problem": problem and {"code": problem.code, "what": str(problem)},
            "counters": accounts(line),
            "cameras": line.cameras.facts(),
            "seconds": line.times.summary(),
            "alarms": line.outlets.last_alarms,
        }

    @app.get("/health/live", summary="Whether the process answers")
    async def live() -> dict[str, str]:
        return {"status": "live"}

    @app.get("/health/ready", summary="Whether parts can be judged", responses=problems.described(problems.NotReady))
    async def ready() -> dict[str, str]:
        """200 only while the line runs or is stopped, its models are loaded, and every camera streams."""
        away = [view for view, facts in line.cameras.facts().items() if facts["state"] != "streaming"]
        if line.state not in (LineState.RUNNING, LineState.STOPPED):
            raise problems.NotReady(f"the line is {line.state}.", where=line.name)
        if away:
            raise problems.NotReady(f"cameras do not stream: {', '.join(away)}.", where=line.name)
        return {"status": "ready", "state": line.state.value}

    @app.get("/metrics", summary="Counters for Prometheus", response_class=Response)
    def prometheus() -> Response:
        return Response(metrics.text(), media_type=MEDIA_TYPE)


def _info(info: RecipeInfo | None) -> dict[str, Any] | None:
    if info is None:
        return None
    return {"id": info.id, "index": info.index, "product": info.product, "hash": info.hash}
