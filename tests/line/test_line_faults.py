"""A running line whose camera, model or sink fails: the part is ERROR in time, and the next ones are right."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from inspection.control import LineState, NotReady
from inspection.line import feeder, watchdog
from inspection.line.line import Line
from inspection.line.plan import Job, Whole
from inspection.line.setup import Setup
from inspection.parts import PartResult, ViewResult
from inspection.record import journal
from inspection.results import Inspection, Verdict
from tests.line.plant import until
from tests.line.rig import Scene, balanced, codes, inspect, one_view, opened, streaming

PATTERN = [False, True, True, False, True, False, False, True]  # a verdict on another part's frame would show


@pytest.fixture(autouse=True)
def _quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeder, "RETRY", 0.05)


def verdicts(results: Sequence[PartResult]) -> list[str]:
    return [one.verdict.value for one in results]


def expected(pattern: Sequence[bool], errors: set[int]) -> list[str]:
    """The verdicts of these parts; `errors` are the places (from 1) of those that cannot be judged."""
    return ["ERROR" if place in errors else "NG" if bad else "OK" for place, bad in enumerate(pattern, start=1)]


# -- cameras -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "code", "alarm"),
    [
        ("lost", "camera-lost", "camera-lost"),
        ("broken", "camera-lost", "camera-lost"),
        ("hung", "camera-lost", "camera-hung"),
        ("silent", "camera-lost", "camera-lost"),
    ],
)
def test_a_camera_that_fails_costs_one_part_and_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, code: str, alarm: str
) -> None:
    monkeypatch.setattr(feeder, "HANG", 1.0)
    scene = Scene({3: fault})
    with Line(one_view(tmp_path, camera={"silence": 0.3}), camera=scene.camera) as line:
        opened(line)
        results = [inspect(line, scene, bad=bad) for bad in PATTERN]
        assert verdicts(results) == expected(PATTERN, {3})
        assert results[2].code == results[2].views[0].code == code
        assert results[2].decided < results[2].deadline
        assert codes(line)[alarm] == 1
        assert balanced(line)["line"]["triggers"] == len(PATTERN)


def test_a_damaged_frame_is_never_judged(tmp_path: Path) -> None:
    scene = Scene({3: "damaged"})
    with Line(one_view(tmp_path), camera=scene.camera) as line:
        opened(line)
        results = [inspect(line, scene, bad=bad) for bad in PATTERN]
        assert verdicts(results) == expected(PATTERN, {3})
        assert (results[2].code, results[2].reason) == ("frame-incomplete", "top: 2 packets lost.")
        assert balanced(line)["view top"]["incomplete"] == 1


def test_a_frame_that_comes_twice_is_judged_once(tmp_path: Path) -> None:
    scene = Scene({3: "doubled"})
    with Line(one_view(tmp_path), camera=scene.camera) as line:
        opened(line)
        results = [inspect(line, scene, bad=bad) for bad in PATTERN]
        assert verdicts(results) == expected(PATTERN, set())
        until(lambda: balanced(line)["view top"]["duplicate"] == 1, what="the second one")


def test_a_frame_that_comes_out_of_order_still_finds_its_part(tmp_path: Path) -> None:
    scene = Scene({3: "late"})
    with Line(one_view(tmp_path), camera=scene.camera) as line:
        opened(line)
        numbers = []
        for bad in PATTERN:
            scene.bad = bad
            numbers.append(line.trigger())
            until(lambda: scene.exposures == len(numbers))
        until(lambda: balanced(line)["view top"]["judged"] == len(PATTERN) - 1, what="all others")
        assert scene.rig is not None
        scene.rig.release()
        results = [line.wait(number, 30.0) for number in numbers]
        assert verdicts([one for one in results if one is not None]) == expected(PATTERN, set())
        balanced(line)


def test_a_lost_frame_is_named_by_its_number_when_the_parts_time_is_up(tmp_path: Path) -> None:
    scene = Scene({2: "dropped"})
    results: list[PartResult] = []
    with Line(one_view(tmp_path, takt=1.5, deadline=1.5), camera=scene.camera) as line:
        line.listeners.append(results.append)
        opened(line)
        inspect(line, scene, bad=True)
        number = line.trigger()
        until(lambda: scene.exposures == 2)
        line.trigger()
        got = line.wait(number, 30.0)
        assert got is not None
        assert (got.verdict, got.code, got.views[0].frame) == (Verdict.ERROR, "frame-lost", 2)
        balanced(line)


def test_a_camera_that_begins_to_count_anew_shifts_no_frame_to_another_part(tmp_path: Path) -> None:
    scene = Scene({3: "restarted"})
    with Line(one_view(tmp_path, takt=0.7, deadline=0.7), camera=scene.camera) as line:
        opened(line)
        results = [inspect(line, scene, bad=bad) for bad in PATTERN]
        wrong = [
            (one.verdict.value, right)
            for one, right in zip(results, expected(PATTERN, set()), strict=True)
            if one.verdict.value not in (right, "ERROR")
        ]
        assert not wrong
        assert results[0].verdict is not Verdict.ERROR
        assert results[2].verdict is Verdict.ERROR
        balanced(line)


def test_a_frame_that_comes_after_its_parts_time_is_late_and_changes_nothing(tmp_path: Path) -> None:
    scene = Scene({1: "late"})
    with Line(one_view(tmp_path, takt=0.5, deadline=0.5), camera=scene.camera) as line:
        opened(line)
        result = inspect(line, scene, bad=False)
        assert (result.verdict, result.code) == (Verdict.ERROR, "frame-missing")
        assert scene.rig is not None
        scene.rig.release()
        until(lambda: balanced(line)["view top"]["received"] == 1, what="frame")
        counts = balanced(line)
        assert counts["view top"]["unmatched"] + counts["view top"]["late"] == 1
        assert counts["line"]["OK"] == 0
        assert line.wait(result.trigger.number, 0.0) is result


def test_a_frame_without_a_trigger_is_counted_and_given_to_no_part(tmp_path: Path) -> None:
    scene = Scene()
    with Line(one_view(tmp_path), camera=scene.camera) as line:
        opened(line)
        scene.bad = True
        scene.expose()
        until(lambda: balanced(line)["view top"]["unmatched"] == 1, what="frame")
        results = [inspect(line, scene, bad=bad) for bad in PATTERN]
        assert verdicts(results) == expected(PATTERN, set())
        balanced(line)


# -- models ------------------------------------------------------------------------------------------------------------


def test_a_network_run_that_breaks_off_costs_its_part_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene, judge, runs = Scene(), Setup.judge, []

    def breaking(self: Setup, jobs: Sequence[Job]) -> list[Inspection]:
        runs.append(len(jobs))
        if len(runs) == 3:
            raise MemoryError("the device has none left")
        if len(runs) == 5:
            return []
        return judge(self, jobs)

    monkeypatch.setattr(Setup, "judge", breaking)
    with Line(one_view(tmp_path), camera=scene.camera) as line:
        opened(line)
        results = [inspect(line, scene, bad=bad) for bad in PATTERN]
        assert verdicts(results) == expected(PATTERN, {3, 5})
        assert {one.code for one in results if one.code} == {"judging-failed"}
        assert "the device has none left" in (results[2].reason or "")
        counts = balanced(line)
        assert counts["judging"] == {"hung": 0, "broke": 2}
        assert counts["view top"]["failed"] == 2


def test_a_result_that_cannot_be_made_costs_its_part_and_no_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene, conclude, runs = Scene(), Setup.conclude, []

    def breaking(self: Setup, whole: Whole) -> ViewResult:
        runs.append(whole.part)
        if len(runs) == 3:
            raise ZeroDivisionError("no such map")
        return conclude(self, whole)

    monkeypatch.setattr(Setup, "conclude", breaking)
    with Line(one_view(tmp_path, takt=2.0, deadline=2.0), camera=scene.camera) as line:
        opened(line)
        results = [inspect(line, scene, bad=bad) for bad in PATTERN]
        assert verdicts(results) == expected(PATTERN, {3})
        assert results[2].code == "judging-failed"
        balanced(line)


class Hanging:
    """`Setup.judge` that hangs while `hang` is set, until the test lets it go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.hang = False
        self.let_go = threading.Event()
        self.setups: list[Setup] = []
        judge = Setup.judge

        def hanging(setup: Setup, jobs: Sequence[Job]) -> list[Inspection]:
            self.setups.append(setup)
            if self.hang:
                self.let_go.wait(60.0)
            return judge(setup, jobs)

        monkeypatch.setattr(Setup, "judge", hanging)


WORK: dict[str, Any] = {"provider": "cpu", "workers": 1, "threads": 1, "hang": 0.6}


def test_a_network_run_that_hangs_is_given_up_and_the_session_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene, hanging = Scene(), Hanging(monkeypatch)
    with Line(one_view(tmp_path, work=WORK), camera=scene.camera) as line:
        opened(line)
        results = [inspect(line, scene, bad=bad) for bad in PATTERN[:3]]
        hanging.hang = True
        results.append(inspect(line, scene, bad=PATTERN[3]))
        assert (results[3].verdict, results[3].code) == (Verdict.ERROR, "judging-failed")
        hanging.hang = False
        results += [inspect(line, scene, bad=bad) for bad in PATTERN[4:]]
        assert verdicts(results) == expected(PATTERN, {4})
        until(lambda: codes(line)["judging-hung"] == 1, what="alarm")
        until(lambda: inspect(line, scene, bad=False) and hanging.setups[-1] is not hanging.setups[0], what="renewal")
        assert hanging.setups[-1].inspectors["top"] is not hanging.setups[0].inspectors["top"]
        before = balanced(line)["line"]
        hanging.let_go.set()  # the one that hung says something now: nobody listens
        inspect(line, scene, bad=True)
        assert balanced(line)["line"]["NG"] == before["NG"] + 1
        assert line.wait(results[3].trigger.number, 0.0) is results[3]
        assert line.counters()["judging"]["hung"] == 1


def test_a_line_whose_networks_hang_again_and_again_fails_and_a_reset_makes_it_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "MOST_HUNG", 1)
    scene, hanging = Scene(), Hanging(monkeypatch)
    with Line(one_view(tmp_path, work=WORK), camera=scene.camera) as line:
        opened(line)
        hanging.hang = True
        assert inspect(line, scene, bad=False).code == "judging-failed"
        assert inspect(line, scene, bad=False).code == "judging-failed"
        until(lambda: line.state is LineState.FAILED, what="failure")
        assert line.problem is not None
        assert "hang" in line.problem.what
        assert codes(line)["line-failed"] == 1
        with pytest.raises(NotReady):
            line.trigger()
        hanging.hang = False
        line.reset()
        until(lambda: line.state is LineState.STOPPED, what="reset")
        assert line.problem is None
        line.start()
        assert inspect(line, scene, bad=True).verdict is Verdict.NG
        balanced(line)
        hanging.let_go.set()


# -- too much, too slow ------------------------------------------------------------------------------------------------


def test_what_cannot_be_judged_in_time_is_given_up_and_the_rest_is_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene, judge, gate = Scene(), Setup.judge, threading.Event()

    def slow(self: Setup, jobs: Sequence[Job]) -> list[Inspection]:
        gate.wait(60.0)
        return judge(self, jobs)

    monkeypatch.setattr(Setup, "judge", slow)
    work = {"provider": "cpu", "workers": 1, "threads": 1, "waiting": 2}
    with Line(one_view(tmp_path, work=work), camera=scene.camera) as line:
        opened(line)
        numbers = []
        for _ in range(10):
            before = scene.exposures
            numbers.append(line.trigger())
            until(lambda before=before: scene.exposures > before)  # type: ignore[misc]
            until(lambda: balanced(line)["view top"]["received"] == len(numbers))
            if len(numbers) == 1:
                until(lambda: line.floor.tracker.queued == 0, what="the worker")
        assert balanced(line)["line"]["in_flight"] == 10 or balanced(line)["line"]["ERROR"] == 0
        gate.set()
        results = [line.wait(number, 30.0) for number in numbers]
        assert [one and (one.verdict.value, one.code) for one in results] == [("OK", None)] * 3 + [
            ("ERROR", "overload")
        ] * 7
        counts = balanced(line)["view top"]
        assert (counts["judged"], counts["dropped"], counts["waiting"]) == (3, 7, 0)


def test_a_judge_slower_than_the_deadline_gives_errors_before_it_and_never_an_ok_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene, judge, gate, done = Scene(), Setup.judge, threading.Event(), threading.Semaphore(0)

    def slow(self: Setup, jobs: Sequence[Job]) -> list[Inspection]:
        gate.wait(60.0)
        try:
            return judge(self, jobs)
        finally:
            done.release()

    monkeypatch.setattr(Setup, "judge", slow)
    # A gate that nobody listens at: what matters is its lead, the time that the verdict must be there before it is due.
    gate_output = {"kind": "modbus", "port": 0, "gate": True, "lead": 0.5, "sends": ["result"]}
    path = one_view(tmp_path, takt=1.0, deadline=1.0, outputs=[gate_output])
    with Line(path, camera=scene.camera) as line:
        opened(line)
        result = inspect(line, scene, bad=False)
        assert (result.verdict, result.code) == (Verdict.ERROR, "deadline-missed")
        assert result.decided < result.deadline
        gate.set()
        assert done.acquire(timeout=30.0)
        assert inspect(line, scene, bad=True).verdict is Verdict.NG
        assert line.wait(result.trigger.number, 0.0) is result
        counts = balanced(line)
        assert counts["view top"]["late"] == 1
        assert (counts["line"]["OK"], counts["line"]["ERROR"], counts["line"]["NG"]) == (0, 1, 1)


# -- clocks ------------------------------------------------------------------------------------------------------------


def test_a_clock_that_is_set_back_changes_no_verdict_and_no_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene, told, wall = Scene(), [], time.time
    with Line(one_view(tmp_path), camera=scene.camera) as line:
        line.listeners.append(lambda result: told.append(result.trigger.number))
        opened(line)
        results = [inspect(line, scene, bad=bad) for bad in PATTERN[:4]]
        monkeypatch.setattr(time, "time", lambda: wall() - 3600.0)
        results += [inspect(line, scene, bad=bad) for bad in PATTERN[4:]]
        assert verdicts(results) == expected(PATTERN, set())
        assert told == sorted(told)
        assert results[4].trigger.wall < results[3].trigger.wall
        assert results[4].trigger.at > results[3].trigger.at
        assert streaming(line)
        balanced(line)


# -- what must be told -----------------------------------------------------------------------------------------------


def test_a_verdict_that_cannot_be_told_stops_the_line_and_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = Scene()
    with Line(one_view(tmp_path), camera=scene.camera) as line:
        opened(line)
        with monkeypatch.context() as broken:
            broken.setattr(line.record, "decided", lambda *_: 1 / 0)
            line.trigger(part="P1")
            until(lambda: line.state is LineState.FAILED)
        assert "part P1 could not be told" in str(line.problem)
        with pytest.raises(NotReady):
            line.trigger(part="P2")
        line.reset()
        until(lambda: line.state is LineState.STOPPED)
        line.start()
        result = line.wait(line.trigger(part="P3"), 20.0)
        assert result is not None
        assert result.verdict is Verdict.OK
        balanced(line)


def test_a_disk_that_does_not_answer_holds_up_no_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = threading.Event()
    write = os.pwrite

    def stalled(file: int, data: bytes, offset: int) -> int:
        answers.wait(60.0)
        return write(file, data, offset)

    scene = Scene()
    with Line(one_view(tmp_path), camera=scene.camera) as line:
        opened(line)
        inspect(line, scene, bad=False)
        monkeypatch.setattr(journal.os, "pwrite", stalled)
        for bad in PATTERN:
            result = inspect(line, scene, bad=bad)
            assert result.verdict is (Verdict.NG if bad else Verdict.OK)
            assert result.seconds["decided"] < 2.0  # the disk would have taken a minute
        assert line.record.counters()["buffered"] > 0
        assert codes(line)["record-journal"] == 1
        answers.set()
        until(lambda: line.record.counters()["stored"] == 1 + len(PATTERN))
        assert line.record.counters()["buffered"] == 0
