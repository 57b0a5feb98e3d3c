"""Errors over HTTP: each is answered as RFC 9457 problem+json with the code that the command line prints too."""

from __future__ import annotations

import difflib
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from inspection.cameras.pushed import QueueFull
from inspection.errors import InspectionError

MEDIA_TYPE = "application/problem+json"
RETRY_SECONDS = 1


class RequestInvalid(InspectionError):
    """A query parameter or a form that is not as documented."""

    code = "request-invalid"
    exit_code = 2
    status = 422


class MediaTypeUnsupported(InspectionError):
    """The body says that it is neither an image nor a form."""

    code = "media-type-unsupported"
    exit_code = 2
    status = 415


class BodyTooSlow(InspectionError):
    """The body did not arrive in time."""

    code = "body-too-slow"
    status = 408


class NoMap(InspectionError):
    """A map is asked for alone, and the model gives none."""

    code = "no-map"
    status = 406


class Overloaded(InspectionError):
    """As many requests as allowed are waiting already."""

    code = "overloaded"
    status = 503


class NotReady(InspectionError):
    """The model is being loaded, or the service is stopping."""

    code = "not-ready"
    status = 503


class Internal(InspectionError):
    """A fault of the service itself; what happened is in its log, under the request's id."""

    code = "internal"
    status = 500


class PartUnknown(InspectionError):
    """No verdict is kept under this number: there is none yet, or it is long past and only in the record."""

    code = "part-unknown"
    status = 404


class Problem(BaseModel):
    """RFC 9457 problem details."""

    type: str
    title: str
    status: int
    detail: str
    code: str  # short, never changes
    where: str | None = None
    hint: str | None = None  # what to do about it
    instance: str
    request_id: str


def respond(request_id: str, error: InspectionError, *, headers: dict[str, str] | None = None) -> JSONResponse:
    """`error` as a response."""
    return _respond(request_id, error.status, error.code, error.what, error.where, error.hint, headers)


def install(app: FastAPI) -> None:
    """Makes every error of `app` a problem; what is not foreseen goes through to the middleware."""

    def inspection_error(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, InspectionError)
        return _answer(request, error)

    def http_error(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        code = {404: "not-found", 405: "method-not-allowed"}.get(error.status_code, f"http-{error.status_code}")
        hint = f"See {request.app.openapi_url} for what there is."
        request.state.problem = code
        headers = dict(error.headers or {})
        if error.status_code == 405:
            headers["Allow"] = ", ".join(_methods(request))
        what = f"{request.method} {request.url.path}: {error.detail.lower()}."
        return _respond(request.state.id, error.status_code, code, what, None, hint, headers)

    def validation_error(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        place, name = str(first["loc"][0]), str(first["loc"][-1])
        if first["type"] == "extra_forbidden":
            known = _known(request, place)
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
            hint = f"Did you mean `{near[0]}`?" if near else f"Known: {', '.join(known) or 'none'}."
            return _answer(request, RequestInvalid(f"`{name}` is unknown.", where=f"{place} parameter", hint=hint))
        what = f"`{name}`: {first['msg']} (is {str(first['input'])[:80]!r})."
        return _answer(request, RequestInvalid(what, where=f"{place} parameter"))

    app.add_exception_handler(InspectionError, inspection_error)
    app.add_exception_handler(HTTPException, http_error)
    app.add_exception_handler(RequestValidationError, validation_error)


def described(*errors: type[InspectionError]) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may answer with `errors`, for the OpenAPI document."""
    by_status: dict[int, list[type[InspectionError]]] = {}
    for error in errors:
        by_status.setdefault(error.status, []).append(error)
    return {
        status: {
            "description": "; ".join(f"`{error.code}`: {(error.__doc__ or '').splitlines()[0]}" for error in kinds),
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status, kinds in sorted(by_status.items())
    }


def describe(app: FastAPI) -> None:
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


def _answer(request: Request, error: InspectionError) -> JSONResponse:
    request.state.problem = error.code
    headers = {"Retry-After": str(RETRY_SECONDS)} if isinstance(error, Overloaded | NotReady | QueueFull) else None
    return respond(request.state.id, error, headers=headers)


def _known(request: Request, place: str) -> list[str]:
    """The names that the route takes in that place."""
    dependant = request.scope["route"].dependant
    fields = dependant.query_params if place == "query" else dependant.body_params
    models = [field.field_info.annotation for field in fields]
    return sorted(name for model in models for name in getattr(model, "model_fields", {}))


def _methods(request: Request) -> list[str]:
    """What may be done with the path, over all routes: Starlette names only the first route's methods."""
    methods: set[str] = set()
    for route in request.app.routes:
        if getattr(route, "path", None) == request.url.path:
            methods |= getattr(route, "methods", None) or set()
    return sorted(methods)


def _respond(
    request_id: str,
    status: int,
    code: str,
    detail: str,
    where: str | None,
    hint: str | None,
    headers: dict[str, str] | None,
) -> JSONResponse:
    problem = Problem(
        type=f"urn:problem-type:inspection:{code}",
        title=code.replace("-", " ").capitalize(),
        status=status,
        detail=detail,
        code=code,
        where=where,
        hint=hint,
        instance=f"urn:request-id:{request_id}",
        request_id=request_id,
    )
    content = problem.model_dump(exclude_none=True)
    return JSONResponse(content, status_code=status, media_type=MEDIA_TYPE, headers=headers)
