"""One model in service: loaded beside the running door, with bounded work and a bounded queue before it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import importlib.metadata
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import numpy as np
from starlette.requests import ClientDisconnect, Request

from inspection.errors import InspectionError
from inspection.inspector import Inspector
from inspection.overlay import map_png, map_scale
from inspection.pixels import decode_image
from inspection.results import Inspection
from serve import body
from serve.limits import Limits
from serve.metrics import Metrics
from serve.problems import NotReady, Overloaded

VERSION = importlib.metadata.version("lightsout-inspection")
log = logging.getLogger("inspection.serve")


class State(StrEnum):
    """Where a service stands; only `READY` judges."""

    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"
    STOPPING = "stopping"


@dataclass(frozen=True, kw_only=True, slots=True)
class MapImage:
    """A score map of the original size as a 16-bit mono PNG; `low` and `high` are the raw scores of 0 and 65535."""

    png: bytes
    low: float
    high: float

    @classmethod
    def of(cls, inspection: Inspection) -> MapImage | None:
        """The map of an inspection; None where it has none, or one with cells that are no numbers."""
        if inspection.map is None or not np.isfinite(inspection.map.values).all():
            return None
        low, high = map_scale(inspection.map)
        return cls(png=map_png(inspection), low=low, high=high)


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """One judged image, and what else the client asked for."""

    inspection: Inspection
    model_name: str
    model_hash: str
    map: MapImage | None = None

    def to_dict(self, request_id: str, *, with_map: bool = False) -> dict[str, Any]:
        """Plain values for JSON."""
        plain = self.inspection.to_dict()
        plain |= {
            "model": {"name": self.model_name, "hash": self.model_hash},
            "version": VERSION,
            "request_id": request_id,
        }
        if with_map:
            plain["map"] = self.map and {
                "png": base64.b64encode(self.map.png).decode(),
                "low": self.map.low,
                "high": self.map.high,
            }
        return plain


class Service:
    """Judges images with one model for any number of clients.

    Args:
        load: makes the inspector; runs in a thread, so that the service is alive while a large model loads. An
            inspector that has proven its golden images and is warm makes the service ready; an error makes it fail.
        limits: what is taken before it is refused.
        name: the label in metrics.
        on_change: called on the event loop when loading has ended, well or not.
    """

    def __init__(
        self,
        load: Callable[[], Inspector],
        limits: Limits = Limits(),
        *,
        name: str = "model",
        on_change: Callable[[Service], None] = lambda _: None,
    ) -> None:
        self.limits = limits
        self.metrics = Metrics(name)
        self.state = State.LOADING
        self.failure: Exception | None = None
        self.inspector: Inspector | None = None
        self.model: dict[str, Any] = {}  # what /v1/model answers
        self._load = load
        self.on_change = on_change
        self._admitted = 0
        self._turn = asyncio.Semaphore(limits.concurrency)
        self._threads = ThreadPoolExecutor(limits.concurrency, thread_name_prefix="judge")

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Loads the model in the background, and closes it at the end."""
        loading = asyncio.create_task(self._start())
        try:
            yield
        finally:
            self.stop()
            await loading
            self._threads.shutdown()
            if self.inspector is not None:
                self.inspector.close()

    def stop(self) -> None:
        """Takes no more images; those that were taken are judged."""
        self.state = State.STOPPING
        self.metrics.ready.set(0)

    def require_ready(self) -> Inspector:
        """The inspector. Raises NotReady, saying why."""
        if self.state is State.READY and self.inspector is not None:
            return self.inspector
        why = {
            State.LOADING: "the model is being loaded and proven.",
            State.STOPPING: "the service is stopping.",
        }.get(self.state, "the model could not be loaded.")
        raise NotReady(why, where="/health/ready", hint="Ask again when /health/ready answers 200.")

    async def inspect(self, request: Request, name: str | None, *, with_map: bool) -> Answer:
        """Judges the image in a request's body.

        Raises:
            NotReady, Overloaded: nothing was read.
            ImageTooLarge, ImageUnreadable, InputMismatch, RequestInvalid, MediaTypeUnsupported, BodyTooSlow: the body.
            ClientDisconnect: nobody waits for the answer any more.
        """
        inspector = self.require_ready()
        with self._admission():
            arrived = time.perf_counter()
            data = await body.read(request, self.limits)
            received = time.perf_counter()
            must_wait = self._turn.locked()
            async with self._turn:
                # A client that gave up while it waited (its takt is over) must not cost those behind it a turn.
                if must_wait and await request.is_disconnected():
                    raise ClientDisconnect
                turn = time.perf_counter()
                answer = await asyncio.get_running_loop().run_in_executor(
                    self._threads, self._judge, inspector, data, request.headers.get("content-type", ""), name, with_map
                )
        seconds = {"receive": received - arrived, "queue": turn - received, **answer.inspection.seconds}
        seconds["whole"] = time.perf_counter() - arrived
        return replace(answer, inspection=replace(answer.inspection, seconds=seconds))

    def _judge(self, inspector: Inspector, data: bytes, content_type: str, name: str | None, with_map: bool) -> Answer:
        """The work of one image; in a thread, where OpenCV and onnxruntime let go of the interpreter."""
        started = time.perf_counter()
        if content_type.partition(";")[0].strip().lower() == body.FORM:
            data, sent_name = body.image_in_form(content_type, data)
            name = name or sent_name
        name = name or "image"
        pixels = decode_image(data, name=name, max_pixels=self.limits.max_pixels)
        decoded = time.perf_counter()
        inspection = inspector.inspect(pixels, name=name)
        inspection = replace(inspection, seconds={"decode": decoded - started, **inspection.seconds})
        return Answer(
            inspection=inspection,
            model_name=inspector.card.name,
            model_hash=inspector.model_hash,
            map=MapImage.of(inspection) if with_map else None,
        )

    @contextlib.contextmanager
    def _admission(self) -> Iterator[None]:
        """Bounds what is held in memory: asked for before a byte of the body is read."""
        if self._admitted >= self.limits.concurrency + self.limits.queue:
            raise Overloaded(
                f"{self.limits.concurrency} images are in work and {self.limits.queue} wait already.",
                hint="Send it again later, or start more services.",
            )
        self._admitted += 1
        try:
            yield
        finally:
            self._admitted -= 1

    async def _start(self) -> None:
        try:
            inspector = await asyncio.get_running_loop().run_in_executor(self._threads, self._load)
        except Exception as error:
            self.failure = error
            if self.state is State.LOADING:
                self.state = State.FAILED
            if not isinstance(error, InspectionError):
                log.exception("the model could not be loaded")
            self.on_change(self)
            return
        self.inspector = inspector
        # As text and back: a threshold that is infinite becomes null, and nothing else would be JSON.
        without = {"certificate": {"goldens": {"__all__": {"pixels"}}}}
        point = inspector.operating_point
        self.model = {
            "name": inspector.card.name,
            "hash": inspector.model_hash,
            "provider": inspector.provider,
            "threads": inspector.threads,
            "operating_point": point and json.loads(point.model_dump_json()),
            "version": VERSION,
            "card": json.loads(inspector.card.model_dump_json(exclude=without)),
        }
        self.metrics.loaded(inspector.card.name, inspector.model_hash, inspector.provider, VERSION)
        if self.state is State.LOADING:  # not told to stop meanwhile
            self.state = State.READY
            self.metrics.ready.set(1)
            self.on_change(self)
