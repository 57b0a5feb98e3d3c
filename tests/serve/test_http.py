"""The service over real sockets."""

from __future__ import annotations

import base64
import concurrent.futures
import json
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inspection import Inspector
from inspection.overlay import map_png
from inspection.pixels import decode_image
from serve.app import Judged
from serve.problems import Problem
from tests.serve.conftest import INSPECTION, Running, Start
from tests.support import graphs
from tests.support.images import scratched

MAX_BYTES = 300_000


@pytest.fixture(scope="module")
def service(start: Start, models: Path) -> Running:
    return start(models / "colour.onnx", "--max-bytes", str(MAX_BYTES), "--max-pixels", "250000")


def encoded(pixels: np.ndarray[Any, Any], ending: str = ".png") -> bytes:
    stored = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR) if pixels.ndim == 3 else pixels
    done, data = cv2.imencode(ending, stored)
    assert done
    return data.tobytes()


def plain(value: int, size: int = 64) -> bytes:
    return encoded(np.full((size, size, 3), value, np.uint8))


def refused(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Asserts that the response is a whole problem document of this kind."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = Problem.model_validate(response.json(), extra="forbid")
    assert (problem.status, problem.code) == (status, code)
    assert problem.type.endswith(code)
    assert problem.detail.endswith(".")
    assert problem.request_id == response.headers["x-request-id"]
    return dict(response.json())


@pytest.mark.parametrize("ending", [".png", ".bmp", ".tiff", ".jpg"])
def test_a_red_image_arrives_red(service: Running, ending: str) -> None:
    red = np.zeros((64, 64, 3), np.uint8)
    red[..., 0] = 255
    answer = service.inspect(encoded(red, ending)).json()
    assert answer["kind"] == "red"
    assert answer["classes"]["red"] == pytest.approx(1, abs=0.01)
    assert answer["classes"]["green"] == pytest.approx(0, abs=0.01)
    assert answer["classes"]["blue"] == pytest.approx(0, abs=0.01)


def test_a_16_bit_image_keeps_its_depth(start: Start, models: Path) -> None:
    of = graphs.spec(channels=1, bit_depth=16)
    image = np.full((64, 64), 384, np.uint16)  # 1 of 255 once its low byte is lost
    image[8:16, 8:16] = 40_001
    service = start(models / "deep.onnx")
    answer = service.inspect(encoded(image)).json()
    assert answer["score"] == pytest.approx(graphs.expected(image, of)[0], rel=1e-6)
    refused(service.inspect(plain(7)), 422, "input-mismatch")


def test_raw_form_and_python_give_the_same_answer_to_the_bit(service: Running, models: Path) -> None:
    pixels, _ = scratched(3, 300, 200, channels=3)
    pixels[100:160, 50:90] = 250
    data = encoded(pixels)
    with Inspector(models / "colour.onnx", threads=1) as inspector:
        wanted = inspector.inspect(decode_image(data), name="part-7")
    raw = service.inspect(data, params={"name": "part-7", "map": "png"}).json()
    form = service.client.post("/v1/inspect", files={"image": ("part-7", data)}, params={"map": "png"}).json()
    for answer in (raw, form):
        assert {**answer, "seconds": None} == {
            **wanted.to_dict(),
            "seconds": None,
            "map": {"png": answer["map"]["png"], "low": answer["map"]["low"], "high": answer["map"]["high"]},
            "model": {"name": "brightness", "hash": inspector.model_hash},
            "version": answer["version"],
            "request_id": answer["request_id"],
        }
        assert base64.b64decode(answer["map"]["png"]) == map_png(wanted)
    assert wanted.defects  # the comparison above was of something


def test_the_map_comes_alone_as_a_picture_with_its_scale(service: Running, models: Path) -> None:
    pixels, _ = scratched(4, 90, 120, channels=3)
    with Inspector(models / "colour.onnx", threads=1) as inspector:
        scores = inspector.inspect(pixels).map
    assert scores is not None
    response = service.inspect(encoded(pixels), headers={"Accept": "image/png"})
    values = cv2.imdecode(np.frombuffer(response.content, np.uint8), cv2.IMREAD_UNCHANGED)
    assert response.headers["content-type"] == "image/png"
    assert values.shape == (90, 120)
    assert values.dtype == np.uint16
    low, high = (float(response.headers[f"inspection-map-{end}"]) for end in ("low", "high"))
    assert response.headers["inspection-verdict"] == "NG"
    assert high == float(response.headers["inspection-score"])  # this graph's score is its map's highest cell
    step = (high - low) / 65535
    np.testing.assert_allclose(low + values * step, scores.full(), atol=0.51 * step)


def test_a_model_without_a_map_says_so(start: Start, models: Path) -> None:
    service = start(models / "plain.onnx")
    assert service.inspect(plain(9), params={"map": "png"}).json()["map"] is None
    refused(service.inspect(plain(9), headers={"Accept": "image/png"}), 406, "no-map")
    counts = service.counts()
    assert counts["inspection_refused_total/no-map"] == 1
    assert counts["inspection_verdicts_total/OK"] == 1


def test_the_bytes_decide_what_it_is_and_not_the_content_type(service: Running) -> None:
    for kind in ("image/jpeg", "application/octet-stream", "application/x-www-form-urlencoded", "image/x-raw"):
        response = service.inspect(plain(200), headers={"Content-Type": kind})
        assert response.json()["verdict"] == "NG"
    refused(
        service.inspect(b'{"image": ""}', headers={"Content-Type": "application/json"}), 415, "media-type-unsupported"
    )


def test_what_was_judged_without_a_number_is_an_error_and_not_ok(start: Start, models: Path) -> None:
    service = start(models / "poisoned.onnx")
    response = service.inspect(plain(0))
    answer = response.json()
    assert response.status_code == 200
    assert answer["verdict"] == "ERROR"
    assert answer["score"] is None
    assert answer["reason"]
    assert service.counts()["inspection_verdicts_total/ERROR"] == 1


def test_the_answer_is_as_the_openapi_document_says(service: Running) -> None:
    document = service.client.get("/openapi.json").json()
    post = document["paths"]["/v1/inspect"]["post"]
    content = post["requestBody"]["content"]
    assert content["image/jpeg"]["schema"] == {"type": "string", "format": "binary"}
    assert content["multipart/form-data"]["schema"]["properties"]["image"]["format"] == "binary"
    for status in ("406", "408", "413", "415", "422", "500", "503"):
        assert list(post["responses"][status]["content"]) == ["application/problem+json"]
    for params in ({}, {"map": "png"}):
        Judged.model_validate_json(service.inspect(plain(90), params=params).content, strict=True)


def test_a_request_id_is_kept_where_it_is_a_plain_word(service: Running) -> None:
    assert service.inspect(plain(1), headers={"X-Request-ID": "line1.part-77"}).json()["request_id"] == "line1.part-77"
    odd = service.inspect(plain(1), headers={"X-Request-ID": "a b<script>"})
    assert len(odd.json()["request_id"]) == 32
    assert odd.headers["x-request-id"] == odd.json()["request_id"]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("GET", "/nothing", b"", 404, "not-found"),
        ("GET", "/v1/inspect/", b"", 404, "not-found"),
        ("GET", "/v1/inspect", b"", 405, "method-not-allowed"),
        ("DELETE", "/metrics", b"", 405, "method-not-allowed"),
        ("POST", "/v1/inspect", b"", 422, "image-unreadable"),
        ("POST", "/v1/inspect", b"not an image", 422, "image-unreadable"),
        ("POST", "/v1/inspect", plain(5)[:90], 422, "image-unreadable"),
        ("POST", "/v1/inspect", encoded(np.zeros((9, 9), np.uint8)), 422, "input-mismatch"),
        ("POST", "/v1/inspect", plain(5, 501), 413, "image-too-large"),  # few bytes, too many pixels
        ("POST", "/v1/inspect", b"x" * (MAX_BYTES + 1), 413, "image-too-large"),
        ("POST", "/v1/inspect?maps=png", plain(5), 422, "request-invalid"),
        ("POST", "/v1/inspect?map=jpg", plain(5), 422, "request-invalid"),
        ("POST", "/v1/inspect?name=" + "x" * 300, plain(5), 422, "request-invalid"),
    ],
)  # fmt: skip
def test_every_refusal_is_a_problem_document(
    service: Running, method: str, path: str, body: bytes, status: int, code: str
) -> None:
    refused(service.client.request(method, path, content=body), status, code)
    assert service.inspect(plain(5)).status_code == 200  # and the next request is none the worse


def test_an_unknown_parameter_names_its_neighbour(service: Running) -> None:
    assert service.inspect(plain(5), params={"maps": "png"}).json()["hint"] == "Did you mean `map`?"


@pytest.mark.parametrize(
    "files",
    [
        {"picture": ("a.png", plain(5))},
        [("image", ("a.png", plain(5))), ("image", ("b.png", plain(6)))],
    ],
    ids=["other field", "two images"],
)
def test_a_form_without_exactly_one_image_is_refused(service: Running, files: Any) -> None:
    problem = refused(service.client.post("/v1/inspect", files=files), 422, "request-invalid")
    assert "`image`" in problem["detail"]


def test_a_form_that_is_cut_off_is_refused(service: Running) -> None:
    whole = httpx.Request("POST", "http://x", files={"image": ("a.png", plain(5))})
    body = whole.read()
    for length in (0, 10, len(body) // 2, len(body) - 8):
        response = service.inspect(body[:length], headers={"Content-Type": whole.headers["content-type"]})
        refused(response, 422, "request-invalid")
    refused(service.inspect(body, headers={"Content-Type": "multipart/form-data"}), 422, "request-invalid")


def test_a_chunked_body_cannot_pass_the_limit(service: Running) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(100):
            sent += 50_000
            yield b"x" * 50_000

    refused(service.client.post("/v1/inspect", content=endless()), 413, "image-too-large")
    assert service.inspect(plain(5)).status_code == 200

    whole = plain(200)
    chunks = (whole[at : at + 7] for at in range(0, len(whole), 7))
    assert service.client.post("/v1/inspect", content=chunks).json()["verdict"] == "NG"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=st.binary(max_size=400) | st.binary(max_size=40).map(lambda tail: plain(3)[:-30] + tail),
    kind=st.sampled_from(
        ["image/png", "", "multipart/form-data; boundary=b", "multipart/form-data", "text/html", "image/"]
    ),
    query=st.sampled_from(["", "?map=png", "?name=%00%ff", "?map=png&map=none"]),
)
def test_whatever_is_sent_gets_an_answer_or_a_problem(service: Running, body: bytes, kind: str, query: str) -> None:
    response = service.client.post(f"/v1/inspect{query}", content=body, headers={"Content-Type": kind})
    assert response.status_code in (200, 413, 415, 422), response.text
    if response.status_code != 200:
        refused(response, response.status_code, response.json()["code"])


def test_images_sent_at_once_get_their_own_answers_and_the_metrics_add_up(start: Start, models: Path) -> None:
    service = start(models / "colour.onnx", "--concurrency", "3", "--queue", "100")
    values = [index * 5 for index in range(50)]
    bodies = [plain(value) for value in values] + [b"garbage"] * 7 + [b""] * 3

    def send(body: bytes) -> httpx.Response:
        return httpx.post(f"{service.url}/v1/inspect", content=body, timeout=30)

    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        responses = list(pool.map(send, bodies))
    for value, response in zip(values, responses, strict=False):
        assert response.json()["score"] == pytest.approx(value / 255, abs=1e-6)
    assert [response.status_code for response in responses[50:]] == [422] * 10

    counts = service.counts()
    verdicts = [response.json()["verdict"] for response in responses[:50]]
    for verdict in ("OK", "NG", "REVIEW", "ERROR"):
        assert counts[f"inspection_verdicts_total/{verdict}"] == verdicts.count(verdict)
    assert counts["inspection_requests_total"] == 60
    assert counts["inspection_refused_total/image-unreadable"] == 10
    assert counts["inspection_in_flight"] == 0
    assert counts["inspection_problems_total/image-unreadable/422"] == 10
    for stage in ("receive", "queue", "decode", "prepare", "network", "postprocess", "whole"):
        assert counts[f"inspection_stage_seconds_count/{stage}"] == 50


def test_a_client_that_goes_away_is_counted(service: Running) -> None:
    before = service.counts()
    address = httpx.URL(service.url)
    with socket.create_connection((address.host, address.port or 80)) as connection:
        connection.sendall(b"POST /v1/inspect HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nhalf")
        wait_until(lambda: service.counts()["inspection_in_flight"] == 1)
    wait_until(lambda: service.counts()["inspection_in_flight"] == 0)
    after = service.counts()
    assert after["inspection_requests_total"] - before["inspection_requests_total"] == 1
    assert after["inspection_refused_total/client-gone"] - before.get("inspection_refused_total/client-gone", 0) == 1


def test_a_full_queue_is_refused_at_once_and_told_when_to_come_again(start: Start, models: Path) -> None:
    service = start(models / "slow.onnx", "--concurrency", "1", "--queue", "1")
    body = plain(100, 256)

    def send(_: int) -> tuple[httpx.Response, float]:
        started = time.monotonic()
        return httpx.post(f"{service.url}/v1/inspect", content=body, timeout=60), time.monotonic() - started

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        done = list(pool.map(send, range(6)))
    judged = [response for response, _ in done if response.status_code == 200]
    turned_away = [response for response, _ in done if response.status_code != 200]
    assert len(judged) == 2
    for response in turned_away:
        refused(response, 503, "overloaded")
        assert response.headers["retry-after"] == "1"
    assert service.counts()["inspection_refused_total/overloaded"] == len(turned_away) == 4


def test_told_to_stop_it_answers_what_it_has_and_takes_nothing_new(start: Start, models: Path) -> None:
    service = start(models / "slow.onnx", "--concurrency", "1", "--queue", "8")
    body = plain(100, 256)
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(httpx.post, f"{service.url}/v1/inspect", content=body, timeout=60) for _ in range(3)]
        wait_until(lambda: service.counts()["inspection_in_flight"] == 3)
        service.process.terminate()
        time.sleep(0.25)
        refused(httpx.get(f"{service.url}/health/ready"), 503, "not-ready")
        refused(service.inspect(plain(3)), 503, "not-ready")
        assert httpx.get(f"{service.url}/health/live").status_code == 200
        assert [future.result().status_code for future in waiting] == [200, 200, 200]
    assert service.process.wait(timeout=10) == 0


def test_health_and_card(service: Running, models: Path) -> None:
    assert service.client.get("/health/live").json() == {"status": "live"}
    model = service.client.get("/v1/model").json()
    assert service.client.get("/health/ready").json() == {"status": "ready", "model": model["hash"]}
    assert model["card"]["input"]["width"] == 64
    assert model["operating_point"] == {"ok_below": 0.4, "ng_above": 0.6, "pixel_above": 0.6}
    assert service.counts()["inspection_ready"] == 1


@pytest.mark.parametrize(
    ("model", "options", "code", "says"),
    [
        ("nothing.onnx", [], 4, "model-invalid"),
        ("colour.onnx", ["--provider", "cuda"], 4, "provider-unavailable"),
        ("colour.onnx", ["--provider", "gpu"], 2, "config-invalid"),
        ("colour.onnx", ["--host", "256.0.0.1"], 2, "cannot listen"),
    ],
)
def test_a_service_that_cannot_start_says_why(
    models: Path, model: str, options: list[str], code: int, says: str
) -> None:
    done = subprocess.run(
        [*INSPECTION, "serve", models / model, "--port", "0", *options], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == code
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_a_taken_port_is_one_clear_error(service: Running, models: Path) -> None:
    port = str(httpx.URL(service.url).port)
    done = subprocess.run(
        [*INSPECTION, "serve", models / "colour.onnx", "--port", port], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert "already in use" in done.stderr
    assert "--port" in done.stderr
    assert "Traceback" not in done.stderr


def wait_until(condition: Any, seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_json_is_json(service: Running) -> None:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    for path in ("/v1/model", "/openapi.json"):
        json.loads(service.client.get(path).text, parse_constant=refuse)
