"""The HTTP door: what answers where. Errors are problem+json (`serve.problems`), work is bounded (`serve.service`)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.types import ASGIApp, Scope

from inspection.errors import ImageTooLarge, ImageUnreadable, InferenceFailed, InputMismatch
from serve import problems
from serve.body import FIELD, FORM
from serve.metrics import MEDIA_TYPE, Metrics
from serve.reception import Reception
from serve.service import VERSION, Answer, Service

INSPECT = "/v1/inspect"


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
    app.add_middleware(Inspections, metrics=service.metrics)
    problems.install(app)
    _add_inspect(app, service)
    _add_state(app, service)
    problems.describe(app)
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


class Inspections(Reception):
    """Reception that keeps the account of images."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        super().__init__(app, metrics.problem)
        self.metrics = metrics

    def counts(self, scope: Scope) -> bool:
        """Only what sends an image."""
        return bool(scope["path"] == INSPECT and scope["method"] == "POST")

    def arrived(self) -> None:
        """One more image."""
        self.metrics.arrived()

    def answered(self, state: dict[str, Any]) -> None:
        """Judged or refused."""
        judged: Answer | None = state.get("judged")
        code: str | None = state.get("problem")
        if judged is not None and code is None:
            self.metrics.judged(judged.inspection.verdict, judged.inspection.seconds)
        else:
            self.metrics.refused(code or problems.Internal.code)

    def lost(self, code: str) -> None:
        """Nobody has the answer."""
        self.metrics.refused(code)


def _request_body() -> dict[str, Any]:
    file = {"schema": {"type": "string", "format": "binary"}}
    form = {"type": "object", "properties": {FIELD: {"type": "string", "format": "binary"}}, "required": [FIELD]}
    raw = ("image/png", "image/jpeg", "image/tiff", "image/bmp", "application/octet-stream")
    return {"required": True, "content": dict.fromkeys(raw, file) | {FORM: {"schema": form}}}
