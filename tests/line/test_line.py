"""The running line as its users see it: one verdict for every part, in order, told and recorded."""

from __future__ import annotations

import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from inspection.cameras.camera import Camera
from inspection.cameras.options import AnyCamera, ReplayOptions
from inspection.cameras.replay import ReplayCamera
from inspection.control import LineState, NotReady
from inspection.line.line import Line
from inspection.parts import Frame, PartResult
from inspection.record.folder import find
from inspection.record.history import History
from inspection.record.verify import verify
from inspection.results import Verdict
from tests.line.plant import image, images, ready, recipe, until
from tests.line.rig import Scene, balanced, inspect, one_view, opened

WORK = {"provider": "cpu", "workers": 2, "threads": 1}


class Receiver:
    """A web server that takes what the line posts; `slow` seconds each, and with `status`."""

    def __init__(self) -> None:
        self.status, self.slow = 200, 0.0
        self.bodies: list[dict[str, Any]] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                time.sleep(outer.slow)
                if outer.status == 200:
                    outer.bodies.append(body)
                self.send_response(outer.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self.thread.start()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    one = Receiver()
    yield one
    one.server.shutdown()
    one.server.server_close()
    one.thread.join()


def proven(folder: Path) -> int:
    """How many verdicts the record holds; its chain was recomputed."""
    url, where = find(str(folder))
    proof = verify(url, where)[0]
    assert proof.problems == []
    return proof.verdicts


@pytest.mark.line
def test_every_part_gets_the_verdict_of_its_images_in_order_told_and_recorded(
    tmp_path: Path, receiver: Receiver
) -> None:
    top, side = [False, True, False, False], [False, False, True, False]
    images(tmp_path / "top", top)
    images(tmp_path / "side", side)
    hook = {"kind": "webhook", "url": receiver.url, "sends": ["result"]}
    path = recipe(tmp_path, takt=10.0, deadline=20.0, work=WORK, outputs=[hook])
    told: list[PartResult] = []
    with Line(path) as line:
        line.listeners.append(told.append)
        ready(line)
        numbers = []
        for index in range(4):
            numbers.append(line.trigger(part=f"S{index}", lot="L1"))
            until(lambda: all(balanced(line)[f"view {one}"]["received"] == len(numbers) for one in ("top", "side")))
        results = [line.wait(number, 30.0) for number in numbers]
        assert [one and one.verdict.value for one in results] == ["OK", "NG", "NG", "OK"]
        assert [one.trigger.number for one in told] == numbers == [1, 2, 3, 4]
        second = told[1]
        assert (second.trigger.part, second.trigger.lot, second.recipe) == ("S1", "L1", "screen")
        views = {view.view: view for view in second.views}
        assert {name: (view.verdict.value, view.frame) for name, view in views.items()} == {
            "top": ("NG", 2),
            "side": ("OK", 2),
        }
        assert views["top"].defects
        assert second.recipe_hash == (line.recipe and line.recipe.hash)
        until(lambda: len(receiver.bodies) == 4, what="webhooks")
        counts = balanced(line)
        assert {name: counts["line"][name] for name in ("triggers", "OK", "NG", "in_flight")} == {
            "triggers": 4,
            "OK": 2,
            "NG": 2,
            "in_flight": 0,
        }
        assert line.wait(99, 0.0) is None
    assert proven(tmp_path / "record") == 4
    with History(str(tmp_path / "record")) as history:
        for body, result in zip(receiver.bodies, told, strict=True):
            (kept,) = history.part(result.trigger.part)
            assert kept["hash"] == body["hash"]
            assert (kept["number"], kept["verdict"]) == (result.trigger.number, result.verdict.value)


@pytest.mark.line
@pytest.mark.parametrize("fault", ["slow", "refuses", "hangs"])
def test_a_sink_that_fails_holds_no_verdict_up(tmp_path: Path, receiver: Receiver, fault: str) -> None:
    receiver.slow = {"slow": 0.1, "refuses": 0.0, "hangs": 3.0}[fault]
    receiver.status = 403 if fault == "refuses" else 200
    hook = {"kind": "webhook", "url": receiver.url, "sends": ["result"], "timeout": 0.5 if fault == "hangs" else 5.0}
    scene = Scene()
    line = Line(one_view(tmp_path, outputs=[hook]), camera=scene.camera)
    with line:
        opened(line)
        results = [inspect(line, scene, bad=False) for _ in range(8)]
        assert {one.verdict for one in results} == {Verdict.OK}
        account = balanced(line)["output webhook"]
        if fault != "refuses":
            assert account["delivered"] < 8  # the verdicts were there before it had taken them
        else:
            until(lambda: line.counters()["output webhook"]["refused"] == 8, what="refusals")
        until(lambda: line.counters()["output webhook"]["taken"] == 8)
        line.close(drain=0.5)
        account = line.counters()["output webhook"]
        ended = sum(account[fate] for fate in ("delivered", "refused", "late", "dropped", "waiting"))
        assert account["taken"] + account["recovered"] == ended


def test_a_stopped_line_refuses_triggers_and_counts_them_nowhere(tmp_path: Path) -> None:
    scene = Scene()
    with Line(one_view(tmp_path), camera=scene.camera) as line:
        with pytest.raises(NotReady, match="stopped"):
            line.trigger()
        assert balanced(line)["line"]["triggers"] == 0
        opened(line)
        assert inspect(line, scene, bad=True).trigger.number == 1
        line.stop()
        until(lambda: line.state is LineState.STOPPED)
        with pytest.raises(NotReady):
            line.trigger()
        scene.expose()
        until(lambda: line.counters()["line stopped"]["frames"] == 1, what="a frame that nobody waits for")
        line.start()
        assert inspect(line, scene, bad=False).trigger.number == 2
        assert balanced(line)["line"]["triggers"] == 2


def test_a_line_that_is_stopped_lets_the_parts_in_flight_have_their_verdicts(tmp_path: Path) -> None:
    scene = Scene({1: "late"})
    with Line(one_view(tmp_path), camera=scene.camera) as line:
        opened(line)
        number = line.trigger()
        until(lambda: scene.exposures == 1)
        line.stop()
        assert line.state is LineState.DRAINING
        assert scene.rig is not None
        scene.rig.release()
        result = line.wait(number, 30.0)
        assert result is not None
        assert result.verdict is Verdict.OK
        until(lambda: line.state is LineState.STOPPED, what="stop")


def test_parts_in_flight_when_the_line_is_closed_are_errors_told_and_recorded(tmp_path: Path) -> None:
    scene = Scene({1: "dropped", 2: "dropped"})
    told: list[PartResult] = []
    with Line(one_view(tmp_path), camera=scene.camera) as line:
        line.listeners.append(told.append)
        opened(line)
        line.trigger()
        line.trigger()
        until(lambda: scene.exposures == 2)
        line.close(drain=0.1)
        assert [(one.trigger.number, one.verdict.value, one.code) for one in told] == [
            (1, "ERROR", "stopped"),
            (2, "ERROR", "stopped"),
        ]
        assert line.state is LineState.CLOSED
        balanced(line)
    assert proven(tmp_path / "record") == 2


def test_a_timer_keeps_its_takt_when_the_line_is_stopped_and_started_at_once(tmp_path: Path) -> None:
    images(tmp_path / "top", [False])
    takt = 0.3
    told: list[PartResult] = []
    with Line(one_view(tmp_path, takt=takt, deadline=10.0, trigger={"kind": "timer"})) as line:
        line.listeners.append(told.append)
        ready(line)
        for _ in range(5):
            until(lambda: line.state is LineState.RUNNING and not line.floor.in_flight)
            line.stop()
            until(lambda: line.state is LineState.STOPPED)
            line.start()
        started, before = time.monotonic(), len(told)
        until(lambda: len(told) >= before + 7, what="parts")
        assert told[before + 6].trigger.at - started > 4 * takt


CHILD = """
import sys, time
from inspection.line.line import Line
from tests.line.plant import ready
with Line(sys.argv[1]) as line:
    line.listeners.append(lambda one: print(one.trigger.number, flush=True))
    ready(line)
    time.sleep(60)
"""


def test_a_line_that_is_killed_tells_its_open_parts_as_errors_at_the_next_start(tmp_path: Path) -> None:
    images(tmp_path / "top", [False])
    # The window ends long before the deadline, and frames that nobody pushes never come: parts are open at the kill.
    camera = {"kind": "pushed"}
    views = {"top": {"camera": camera, "model": "model.onnx"}}
    path = recipe(tmp_path, views=views, takt=0.02, deadline=1.0, work=WORK, trigger={"kind": "timer"})
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(path)], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    )
    try:
        assert child.stdout is not None
        told = [int(child.stdout.readline()) for _ in range(5)]
    finally:
        os.kill(child.pid, signal.SIGKILL)
        rest, _ = child.communicate(timeout=30)
    told += [int(line) for line in rest.split()]
    with Line(path) as line:
        open_parts = [body["number"] for body in line.record.interrupted]
        assert open_parts
        assert {body["code"] for body in line.record.interrupted} == {"interrupted"}
        # None is told twice, and none is missing; the last one may have been recorded and not yet printed.
        assert not set(open_parts) & set(told)
        last = open_parts[-1]
        assert last - len(open_parts) - len(told) in (0, 1)
        assert line.record.next_number == last + 1
        ready(line)
        until(lambda: balanced(line)["line"]["ERROR"] > 0, what="the next part")
        assert line.wait(last + 1, 30.0) is not None
    assert proven(tmp_path / "record") >= last + 1


def pushed(folder: Path, *views: str, **changes: Any) -> Path:
    """A recipe whose views are pushed to."""
    all_views = {view: {"camera": {"kind": "pushed"}, "model": "model.onnx"} for view in views}
    return recipe(folder, views=all_views, **({"takt": 10.0, "deadline": 20.0, "work": WORK} | changes))


def frame(number: int, *, bad: bool = False, **changes: Any) -> Frame:
    return Frame(pixels=image(bad=bad), number=number, received=time.monotonic(), **changes)


def test_frames_open_parts_where_nobody_tells_of_them_and_a_gap_opens_the_lost_ones(tmp_path: Path) -> None:
    path = pushed(tmp_path, "top", deadline=1.5, trigger={"kind": "camera", "view": "top"})
    told: list[PartResult] = []
    with Line(path) as line:
        line.listeners.append(told.append)
        ready(line)
        for number, bad in ((1, False), (2, True), (5, False)):
            line.push("top", frame(number, bad=bad))
            until(lambda number=number: balanced(line)["line"]["triggers"] == number)  # type: ignore[misc]
        until(lambda: len(told) == 5, what="verdicts")
        told.sort(key=lambda one: one.trigger.number)
        assert [(one.verdict.value, one.code) for one in told] == [
            ("OK", None),
            ("NG", None),
            ("ERROR", "frame-lost"),
            ("ERROR", "frame-lost"),
            ("OK", None),
        ]
        balanced(line)


@pytest.mark.parametrize("by", ["trigger", "part"])
def test_frames_that_name_their_part_find_it_in_any_order_over_two_views(tmp_path: Path, by: str) -> None:
    with Line(pushed(tmp_path, "top", "side", match={"by": by})) as line:
        ready(line)
        numbers = [line.trigger(part=f"S{index}") for index in range(3)]
        count = 0
        for view, order in (("top", (2, 0, 1)), ("side", (1, 2, 0))):
            for index in order:
                count += 1
                named: dict[str, Any] = {"trigger": numbers[index]} if by == "trigger" else {"part": f"S{index}"}
                line.push(view, frame(count, bad=view == "side" and index == 1, **named))
        results = [line.wait(number, 30.0) for number in numbers]
        assert [one and one.verdict.value for one in results] == ["OK", "NG", "OK"]
        line.push("top", frame(9))
        until(lambda: balanced(line)["view top"]["unmatched"] == 1, what="the frame that names nobody")


def test_nobody_starts_a_line_that_is_closing_even_while_a_camera_hangs(tmp_path: Path) -> None:
    lets_go = threading.Event()

    class Clinging(ReplayCamera):
        def stop(self) -> None:
            lets_go.wait(30.0)
            super().stop()

    def camera(options: AnyCamera, view: str) -> Camera:
        assert isinstance(options, ReplayOptions)
        return Clinging(options, view)

    images(tmp_path / "top", [False])
    line = Line(one_view(tmp_path), camera=camera)
    line.open()
    ready(line)
    closing = threading.Thread(target=line.close, daemon=True)
    closing.start()
    until(lambda: line.state is LineState.STOPPED)
    with pytest.raises(NotReady):
        line.start()
    with pytest.raises(NotReady):
        line.trigger(part="P1")
    closing.join(20.0)
    assert line.state is LineState.CLOSED
    lets_go.set()
