"""The line's HTTP door: a real line behind a real server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import httpx
import pytest

from inspection.line.line import Line
from serve.run import door
from serve.server import bind
from tests.line.plant import image, ready, recipe, until

PUSHED = {view: {"camera": {"kind": "pushed", "queue": 8}, "model": "model.onnx"} for view in ("top", "side")}


@pytest.fixture
def plant(tmp_path: Path) -> Iterator[tuple[Line, httpx.Client]]:
    file = recipe(tmp_path, views=PUSHED, match={"by": "part"})
    recipe(tmp_path, name="other", views=PUSHED, match={"by": "part"})
    listener = bind("127.0.0.1", 0)
    with Line(file) as line, door(line, listener):
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with httpx.Client(base_url=url, timeout=30) as client:
            until(lambda: _alive(client), what="the door")
            yield ready(line), client


def _alive(client: httpx.Client) -> bool:
    try:
        return client.get("/health/ready").status_code == 200
    except httpx.TransportError:
        return False


def png(*, bad: bool = False) -> bytes:
    return cv2.imencode(".png", image(bad=bad))[1].tobytes()


def push(client: httpx.Client, view: str, body: bytes, **known: Any) -> httpx.Response:
    return client.post(f"/v1/views/{view}/frames", content=body, params=known)


def test_pushed_frames_of_two_views_find_their_part(plant: tuple[Line, httpx.Client]) -> None:
    _, client = plant
    numbers = {part: client.post("/v1/triggers", json={"part": part}).json()["number"] for part in ("A", "B")}
    for view, part, bad in (("side", "B", True), ("top", "A", False), ("top", "B", False), ("side", "A", False)):
        assert push(client, view, png(bad=bad), part=part).status_code == 202
    verdicts = {part: client.get(f"/v1/parts/{one}", params={"wait": 20}).json() for part, one in numbers.items()}
    assert {part: body["verdict"] for part, body in verdicts.items()} == {"A": "OK", "B": "NG"}
    text = client.get("/metrics").text
    types = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(types) == len(set(types))  # of two views too: the format allows a name's TYPE once
    assert 'inspection_parts_total{verdict="OK"} 1.0' in text
    assert "inspection_triggers_total 2.0" in text
    counts = client.get("/v1/line").json()["counters"]["line"]
    assert counts["triggers"] == counts["OK"] + counts["NG"] == 2


def test_a_body_that_is_no_image_makes_its_part_an_error(plant: tuple[Line, httpx.Client]) -> None:
    _, client = plant
    number = client.post("/v1/triggers", json={"part": "A"}).json()["number"]
    assert push(client, "top", png(), part="A").status_code == 202
    refused = push(client, "side", b"no image", part="A")
    assert (refused.status_code, refused.json()["code"]) == (422, "image-unreadable")
    assert client.get(f"/v1/parts/{number}", params={"wait": 20}).json()["verdict"] == "ERROR"


def test_what_the_line_does_not_know_is_a_problem(plant: tuple[Line, httpx.Client]) -> None:
    _, client = plant
    assert push(client, "bottom", png(), part="A").json()["code"] == "config-invalid"
    assert client.get("/v1/parts/77").status_code == 404
    assert client.post("/v1/triggers", json={"serial": "A"}).status_code == 422
    assert client.post("/v1/recipe", json={"id": "none"}).status_code == 400


def test_it_stops_starts_and_changes_its_recipe(plant: tuple[Line, httpx.Client]) -> None:
    line, client = plant
    changed = client.post("/v1/recipe", json={"id": "other", "wait": True})
    assert (changed.status_code, changed.json()["recipe"]["id"]) == (200, "other")
    client.post("/v1/line/stop")
    until(lambda: line.state == "stopped")
    refused = client.post("/v1/triggers", json={"part": "A"})
    assert (refused.status_code, refused.json()["code"]) == (409, "not-ready")
    assert client.post("/v1/line/start").json() == {"state": "running"}


def test_no_part_is_lost_while_the_recipe_changes(plant: tuple[Line, httpx.Client]) -> None:
    line, client = plant
    assert client.post("/v1/recipe", json={"id": "other"}).status_code == 202
    numbers = []
    while not numbers or line.changing_to is not None:
        part = f"P{len(numbers)}"
        numbers.append(client.post("/v1/triggers", json={"part": part}).json()["number"])
        for view in ("top", "side"):
            assert push(client, view, png(), part=part).status_code == 202
    verdicts = [client.get(f"/v1/parts/{one}", params={"wait": 20}).json()["verdict"] for one in numbers]
    assert verdicts == ["OK"] * len(numbers)
    assert client.get("/v1/line").json()["recipe"]["id"] == "other"
