"""States and faults of the service that a healthy process does not show from outside."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import cv2
import httpx
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from inspection import Inspector
from inspection.errors import ModelInvalid
from serve import service as service_module
from serve.app import create_app
from serve.body import image_in_form
from serve.limits import Limits
from serve.problems import RequestInvalid
from serve.service import Service, State

PART = cv2.imencode(".png", np.full((64, 64, 3), 200, np.uint8))[1].tobytes()


def talk(service: Service, conversation: Callable[[httpx.AsyncClient], Awaitable[None]]) -> None:
    """Runs the application in this process and talks to it, past the socket."""

    async def run() -> None:
        transport = httpx.ASGITransport(create_app(service))
        async with service.running(), httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            await conversation(client)

    asyncio.run(run())


async def until(service: Service, state: State) -> None:
    async with asyncio.timeout(20):
        while service.state is not state:
            await asyncio.sleep(0.005)


def test_while_the_model_loads_it_is_alive_but_not_ready(models: Path) -> None:
    may_load = threading.Event()

    def load() -> Inspector:
        assert may_load.wait(20)
        return Inspector(models / "colour.onnx", threads=1)

    service = Service(load)

    async def conversation(client: httpx.AsyncClient) -> None:
        assert (await client.get("/health/live")).status_code == 200
        for path in ("/health/ready", "/v1/model"):
            response = await client.get(path)
            assert (response.status_code, response.json()["code"]) == (503, "not-ready")
            assert response.headers["retry-after"] == "1"
        assert (await client.post("/v1/inspect", content=PART)).json()["code"] == "not-ready"
        may_load.set()
        await until(service, State.READY)
        assert (await client.get("/health/ready")).status_code == 200
        assert (await client.post("/v1/inspect", content=PART)).json()["verdict"] == "NG"

    talk(service, conversation)
    assert service.state is State.STOPPING


def test_a_model_that_fails_its_self_test_never_becomes_ready(tmp_path: Path) -> None:
    from tests.support import graphs

    of = graphs.spec()
    wrong = graphs.golden(np.full((64, 64, 3), 50, np.uint8), of, score=0.9)
    path = graphs.model_file(tmp_path / "m.onnx", certificate=graphs.certificate([wrong]))
    service = Service(lambda: Inspector(path, threads=1))

    async def conversation(client: httpx.AsyncClient) -> None:
        await until(service, State.FAILED)
        assert (await client.get("/health/ready")).status_code == 503
        assert (await client.post("/v1/inspect", content=PART)).status_code == 503

    talk(service, conversation)
    assert getattr(service.failure, "code", None) == "certificate-mismatch"


def test_an_unforeseen_fault_is_logged_counted_and_tells_the_client_nothing_of_the_inside(
    models: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("secret of the inside")

    monkeypatch.setattr(service_module, "decode_image", broken)
    service = Service(lambda: Inspector(models / "colour.onnx", threads=1))

    async def conversation(client: httpx.AsyncClient) -> None:
        await until(service, State.READY)
        with caplog.at_level(logging.ERROR):
            response = await client.post("/v1/inspect", content=PART)
        assert response.status_code == 500
        assert response.headers["content-type"] == "application/problem+json"
        assert response.json()["code"] == "internal"
        assert "secret" not in response.text
        record = next(record for record in caplog.records if response.json()["request_id"] in record.getMessage())
        assert record.exc_info is not None
        assert record.exc_info[0] is ZeroDivisionError
        metrics = (await client.get("/metrics")).text
        assert 'inspection_refused_total{code="internal",model="model"} 1.0' in metrics
        assert 'inspection_problems_total{code="internal",status="500"} 1.0' in metrics
        assert 'inspection_in_flight{model="model"} 0.0' in metrics

    talk(service, conversation)


def test_a_body_that_does_not_come_to_its_end_is_given_up(models: Path) -> None:
    service = Service(lambda: Inspector(models / "colour.onnx", threads=1), Limits(body_seconds=0.2, concurrency=1))

    async def dripping() -> AsyncIterator[bytes]:
        for byte in PART:
            yield bytes([byte])
            await asyncio.sleep(0.05)

    async def conversation(client: httpx.AsyncClient) -> None:
        await until(service, State.READY)
        slow = asyncio.create_task(client.post("/v1/inspect", content=dripping()))
        await asyncio.sleep(0.02)
        # One slow sender does not hold up the only turn.
        assert (await client.post("/v1/inspect", content=PART)).status_code == 200
        assert not slow.done()
        response = await slow
        assert (response.status_code, response.json()["code"]) == (408, "body-too-slow")

    talk(service, conversation)


def test_told_to_stop_while_it_loads_it_does_not_become_ready(models: Path) -> None:
    may_load = threading.Event()

    def load() -> Inspector:
        assert may_load.wait(20)
        return Inspector(models / "colour.onnx", threads=1)

    service = Service(load)

    async def conversation(client: httpx.AsyncClient) -> None:
        service.stop()
        may_load.set()
        assert "stopping" in (await client.get("/health/ready")).json()["detail"]

    talk(service, conversation)
    assert service.state is State.STOPPING


def test_what_breaks_while_loading_is_kept_for_whoever_started_it(tmp_path: Path) -> None:
    service = Service(lambda: Inspector(tmp_path / "nothing.onnx"))

    async def conversation(_: httpx.AsyncClient) -> None:
        await until(service, State.FAILED)

    talk(service, conversation)
    assert isinstance(service.failure, ModelInvalid)


HEAD = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n'


@given(st.binary(max_size=200) | st.binary(max_size=80).map(lambda tail: HEAD + tail))
@example(HEAD + b"Content-Transfer-Encoding: base64\r\n\r\n!!!!\r\n--b--\r\n")
@example(b"--b\r\n\r\nx\r\n--b--\r\n")
@example(b'--b\r\nContent-Disposition: form-data; name="image"\r\n\r\n\r\n--b--\r\n')
def test_any_bytes_as_a_form_are_an_image_or_a_refusal(body: bytes) -> None:
    try:
        data, _ = image_in_form("multipart/form-data; boundary=b", body)
    except RequestInvalid:
        return
    assert isinstance(data, bytes)


@given(st.binary(max_size=2000), st.text(alphabet="abc ü.png", min_size=1, max_size=12))
def test_a_form_gives_back_the_bytes_that_went_in(data: bytes, name: str) -> None:
    request = httpx.Request("POST", "http://x", files={"image": (name, data), "note": b"hello"})
    assert image_in_form(request.headers["content-type"], request.read()) == (data, name)
