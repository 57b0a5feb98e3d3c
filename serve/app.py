"""The HTTP door: what answers where. Errors are problem+json (`serve.problems`), work is bounded (`serve.service`)."""

from __future__ import annotations

import logging
import re
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Query, Request
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from inspection.errors import ImageTooLarge, ImageUnreadable, InferenceFailed, InputMismatch
from serve import problems
from serve.body import FIELD, FORM
from serve.metrics import MEDIA_TYPE, Metrics
from serve.problems import Problem
from serve.service import VERSION, Answer, Service

INSPECT = "/v1/inspect"
REQUEST_ID = "X-Request-ID"
log = logging.getLogger("inspection.serve")


class Asked(BaseModel):
    """Query of an inspection."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[
        str | None, Field(max_length=256, description="What to call the image in the answer: a part's or frame's id.")
    ] = None
    map: Annotated[
        Literal["none", "png"],
        Field(description="`png`: the answer carries the score map, in original pixels, as a 16-bit PNG in base64."),
    ] = "none"


class Size(BaseModel):
    """Of the original image, in pixels."""

    width: int
    height: int


class DefectFound(BaseModel):
    """One region that the network holds for a defect."""

    kind: str
    score: float | None
    box: Annotated[list[int], Field(min_length=4, max_length=4, description="x, y, width, height in original pixels")]
    area: Annotated[int, Field(description="original pixels above the model's pixel threshold")]


class ModelName(BaseModel):
    """The model that judged."""

    name: str
    hash: Annotated[str, Field(description="SHA-256 of the model file")]


class Map(BaseModel):
    """The score map of the whole image."""

    png: Annotated[str, Field(description="base64 of a 16-bit mono PNG of the original size")]
    low: Annotated[float, Field(description="raw score of the value 0")]
    high: Annotated[float, Field(description="raw score of the value 65535")]


class Judged(BaseModel):
    """One judged image."""

    model_config = ConfigDict(extra="forbid")

    request_id: str
    name: str
    verdict: Annotated[Literal["OK", "NG", "REVIEW", "ERROR"], Field(description="Anything that is not OK is not OK.")]
    score: Annotated[float | None, Field(description="raw: higher is worse, unclamped; null only with ERROR")]
    kind: str | None
    classes: dict[str, float | None] | None
    defects: list[DefectFound]
    size: Size
    reason: Annotated[str | None, Field(description="one sentence, always there for REVIEW and ERROR")]
    code: Annotated[str | None, Field(description="of the error, only with ERROR")]
    seconds: Annotated[dict[str, float], Field(description="by stage")]
    model: ModelName
    version: Annotated[str, Field(description="of this software")]
    map: Annotated[Map | None, Field(description="only where it is asked for; null: there is none")] = None


def create_app(service: Service) -> FastAPI:
    """The application that serves one model.

    The door is open at once and `/health/ready` says when it judges; nothing is fetched from anywhere at run time, so
    there is no page that loads its scripts from elsewhere.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with service.running():
            yield

    app = FastAPI(title="Inspection", version=VERSION, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.router.redirect_slashes = False
    app.add_middleware(Reception, metrics=service.metrics)
    problems.install(app)
    _add_inspect(app, service)
    _add_state(app, service)
    _describe(app)
    return app


def _add_inspect(app: FastAPI, service: Service) -> None:
    refusals = problems.described(
        problems.RequestInvalid, ImageUnreadable, InputMismatch, ImageTooLarge, problems.MediaTypeUnsupported,
        problems.BodyTooSlow, problems.NoMap, problems.NotReady, problems.Overloaded, InferenceFailed,
        problems.Internal,
    )  # fmt: skip

    @app.post(
        INSPECT,
        summary="Judge one image",
        response_model=Judged,
        responses=refusals | {200: {"content": {"image/png": {"schema": {"type": "string", "format": "binary"}}}}},
        openapi_extra={"requestBody": _request_body()},
    )
    async def inspect(request: Request, asked: Annotated[Asked, Query()]) -> Response:
        """Send the bytes of a PNG, JPEG, TIFF or BMP file as they are, or as the field `image` of a form.

        The bytes decide what it is, not the content type. With `Accept: image/png` the answer is the score map alone,
        with the verdict and the score in its headers. A judged image is answered with 200 whatever its verdict; an
        image that could not be judged is a problem, and its part must be treated as `ERROR`.
        """
        alone = request.headers.get("accept", "").partition(",")[0].partition(";")[0].strip().lower() == "image/png"
        with_map = asked.map == "png"
        answer = await service.inspect(request, asked.name, with_map=alone or with_map)
        inspection = answer.inspection
        if alone and answer.map is None:
            raise problems.NoMap("there is no map of this image.", where="Accept", hint="Ask for JSON.")
        request.state.judged = answer
        if alone and answer.map is not None:
            headers = {"Inspection-Verdict": inspection.verdict.value, "Inspection-Score": repr(inspection.score)}
            headers |= {"Inspection-Map-Low": repr(answer.map.low), "Inspection-Map-High": repr(answer.map.high)}
            return Response(answer.map.png, media_type="image/png", headers=headers)
        return JSONResponse(answer.to_dict(request.state.id, with_map=with_map))


def _add_state(app: FastAPI, service: Service) -> None:
    not_ready = problems.described(problems.NotReady)

    @app.get("/health/live", summary="Whether the process answers")
    async def live() -> dict[str, str]:
        return {"status": "live"}

    @app.get("/health/ready", summary="Whether images are judged now", responses=not_ready)
    async def ready() -> dict[str, str]:
        """200 only while a model is loaded, has proven its golden images, is warm, and the service is not stopping."""
        return {"status": "ready", "model": service.require_ready().model_hash}

    @app.get("/v1/model", summary="What the model says of itself", responses=not_ready)
    async def model() -> dict[str, Any]:
        """The model card, with the operating point in force and the device that was granted."""
        service.require_ready()
        return service.model

    @app.get("/metrics", summary="Counters for Prometheus", response_class=Response)
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type=MEDIA_TYPE)


class Reception:
    """Gives every request an id, counts it, and makes a problem (and a traceback in the log) of what nobody foresaw."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        request_id = state["id"] = _request_id(scope)
        is_inspection = scope["path"] == INSPECT and scope["method"] == "POST"
        if is_inspection:
            self.metrics.arrived()
        answered = False

        async def sending(message: Message) -> None:
            nonlocal answered
            if message["type"] == "http.response.start":
                answered = True
                message["headers"] = [*message["headers"], (REQUEST_ID.lower().encode(), request_id.encode())]
                # Before the answer leaves: whoever has it finds it counted.
                code = state.get("problem")
                if code is not None:
                    self.metrics.problem(message["status"], code)
                if is_inspection:
                    self._settle(state.get("judged"), code)
            await send(message)

        try:
            await self.app(scope, receive, sending)
        except ClientDisconnect:
            if is_inspection and not answered:
                self.metrics.refused("client-gone")
        except Exception:
            log.exception("request %s: %s %s failed", request_id, scope["method"], scope["path"])
            if answered:
                raise  # the client sees a broken answer, which is all that can still be said
            state["problem"] = problems.Internal.code
            error = problems.Internal(
                "the service failed on this request.", hint="Its log says what happened, under the request's id."
            )
            await problems.respond(request_id, error)(scope, receive, sending)
        except BaseException:  # cancelled: the server stops by force
            if is_inspection and not answered:
                self.metrics.refused("cancelled")
            raise

    def _settle(self, judged: Answer | None, code: str | None) -> None:
        if judged is not None and code is None:
            self.metrics.judged(judged.inspection.verdict, judged.inspection.seconds)
        else:
            self.metrics.refused(code or problems.Internal.code)


def _request_id(scope: Scope) -> str:
    """The client's own id where it is a plain word, so that its log and ours meet; else a new one."""
    for key, value in scope["headers"]:
        if key == REQUEST_ID.lower().encode() and re.fullmatch(rb"[A-Za-z0-9._-]{1,128}", value):
            return str(value.decode())
    return uuid.uuid4().hex


def _request_body() -> dict[str, Any]:
    file = {"schema": {"type": "string", "format": "binary"}}
    form = {"type": "object", "properties": {FIELD: {"type": "string", "format": "binary"}}, "required": [FIELD]}
    raw = ("image/png", "image/jpeg", "image/tiff", "image/bmp", "application/octet-stream")
    return {"required": True, "content": dict.fromkeys(raw, file) | {FORM: {"schema": form}}}


def _describe(app: FastAPI) -> None:
    """The OpenAPI document, with the problem's schema in the place of FastAPI's own error."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(title=app.title, version=app.version, routes=app.routes, description=app.description)
            schemas = document.setdefault("components", {}).setdefault("schemas", {})
            for unused in ("HTTPValidationError", "ValidationError"):
                schemas.pop(unused, None)
            schemas["Problem"] = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
