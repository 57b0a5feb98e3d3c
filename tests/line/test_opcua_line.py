"""A PLC leads the real line by OPC UA: recipes, models, record and server are those of a plant; the camera is one of
the tests'. Each part's verdict arrives exactly once, whatever the client, the camera or the line does meanwhile."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("asyncua")

from asyncua import ua

from inspection.control import LineState, NotReady
from inspection.line import feeder, watchdog
from inspection.line.plan import Job
from inspection.line.setup import Setup
from inspection.results import Inspection
from tests.line.opcua_plant import (
    PATTERN,
    Plant,
    code,
    exposed,
    of_type,
    opened,
    prepare,
    recipes,
    results_of_job,
    single,
    verdict,
    when,
)
from tests.line.plant import until
from tests.line.rig import Scene, balanced, codes, streaming
from tests.outputs.opcua_client import (
    ACQUIRED,
    AUTOMATIC,
    ERROR_CONDITION,
    ERROR_EVENT,
    JOB_STARTED,
    READY,
    RECIPE_PREPARED,
    RESULT_READY,
    STATE_CHANGED,
    WARNING_CONDITION,
    Peer,
    do,
    home,
    ident,
    int32,
    recipe_arguments,
    start_arguments,
    uint32,
)

pytestmark = [pytest.mark.line, pytest.mark.slow]


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    with pytest.MonkeyPatch.context() as quick:
        quick.setattr(feeder, "RETRY", 0.05)
        plant = opened(*recipes(tmp_path_factory.mktemp("plant")), Scene())
        yield plant
        plant.line.close()


@pytest.fixture
def plant(started: Plant) -> Plant:
    """The line stopped with the recipe `screen`, and the machine in Preoperational, whatever the test before did."""
    line = started.line
    line.reset()
    until(lambda: line.state is not LineState.STARTING, what="reset")
    line.stop()
    until(lambda: line.state is LineState.STOPPED, what="stop")
    line.change_over("screen", wait=True)
    until(lambda: streaming(line), what="camera")
    asyncio.run(home(started.url))
    started.tried = Counter(balanced(line)["line"])
    return started


def test_a_plc_leads_the_line_from_power_on_through_two_recipes_to_halt(plant: Plant) -> None:
    async def run() -> None:
        async with Peer(plant.url) as peer:
            await peer.listen(STATE_CHANGED, RECIPE_PREPARED, RESULT_READY)
            assert await peer.state() == "Preoperational"
            await do(peer, "SelectModeAutomatic")
            assert await peer.state() == "Ready"
            _, _, _, listed, _ = await peer.call(
                "RecipeManagement.GetRecipeListFiltered", *recipe_arguments()[:1], ident("ProductIdDataType"),
                int32(2), uint32(0), uint32(0), int32(0),
            )  # fmt: skip
            assert [(one.Id, one.Description.Text) for one in listed] == [
                ("screen", "screen"), ("strict", "strict parts")
            ]  # fmt: skip
            modified = await peer.node("RecipeManagement.Recipes.screen.LastModified").read_value()

            assert verdict(await single(plant, peer, "walk-1", bad=False)) == "OK"
            await peer.until_state("Ready")
            prepared = await prepare(plant, peer, "strict")
            assert plant.line.recipe is not None
            assert prepared.InternalId.Hash.hex() == plant.line.recipe.hash
            event = await single(plant, peer, "walk-2", bad=False)
            assert (verdict(event), event.ProductId.Id, event.InternalRecipeId.Id) == ("NG", "strict parts", "strict")
            assert event.InternalRecipeId.Hash == prepared.InternalId.Hash
            await peer.until_state("Ready")

            await peer.call("RecipeManagement.UnprepareRecipe", *recipe_arguments("strict"))
            with pytest.raises(ua.uaerrors.BadInvalidState):
                await do(peer, "StartSingleJob")
            await prepare(plant, peer, "screen")
            await peer.until_state("Ready")
            # It was not changed, only not loaded for a while.
            assert await peer.node("RecipeManagement.Recipes.screen.LastModified").read_value() == modified
            await do(peer, "StartContinuous")
            await exposed(plant, "walk-3", bad=True)
            assert verdict(await peer.result_of("walk-3")) == "NG"
            await do(peer, "Stop")
            await peer.until_state("Ready")
            await do(peer, "Halt")
            await do(peer, "Reset")
            await peer.until(
                lambda e: e.EventType == peer.type_id(STATE_CHANGED) and e.ToState.Text == "Preoperational"
            )
            assert [event.Transition.Text for event in of_type(peer, STATE_CHANGED)] == [
                "PreoperationalToInitialized", "InitializedToReadyAuto",
                "ReadyToSingleExecution", "SingleExecutionToReadyAuto",
                "ReadyToSingleExecution", "SingleExecutionToReadyAuto",
                "ReadyToInitializedRecipe", "InitializedToReadyRecipe",
                "ReadyToContinuousExecution", "ContinuousExecutionToReadyStop",
                "OperationalToHalted", "HaltedToPreoperational",
            ]  # fmt: skip
            assert len(of_type(peer, RESULT_READY)) == 3

    asyncio.run(run())
    assert plant.account() == {"triggers": 3, "OK": 1, "NG": 2, "REVIEW": 0, "ERROR": 0, "in_flight": 0}


def test_single_jobs_tell_each_verdict_once_and_that_of_a_part_whose_camera_failed(plant: Plant) -> None:
    faults = {2: "lost", 5: "damaged"}  # by the part's place in the pattern, from 0
    before = codes(plant.line)

    async def run() -> None:
        async with Peer(plant.url) as peer:
            await peer.listen(JOB_STARTED, ACQUIRED, RESULT_READY, READY)
            listening = await peer.listen(WARNING_CONDITION, ERROR_CONDITION)
            await do(peer, "SelectModeAutomatic")
            events = []
            for place, bad in enumerate(PATTERN):
                events.append(await single(plant, peer, f"single-{place}", bad=bad, fault=faults.get(place)))
                await peer.until(lambda _, jobs=len(events): len(of_type(peer, READY)) == jobs)
            assert [verdict(event) for event in events] == [
                "ERROR" if place in faults else "NG" if bad else "OK" for place, bad in enumerate(PATTERN)
            ]
            assert [code(event) for event in events if code(event)] == ["camera-lost", "frame-incomplete"]
            names = {JOB_STARTED: "started", ACQUIRED: "acquired", RESULT_READY: "result", READY: "ready"}
            told = [(names[one.EventType.Identifier], one.JobId.Id) for one in of_type(peer, *names)]
            assert told == [
                (name, event.JobId.Id)
                for place, event in enumerate(events)
                for name in ("started", "acquired", "result", "ready")
                if not (name == "acquired" and place == 2)  # a frame that never came was not taken
            ]
            # Every alarm of the line is a condition, and stays one until somebody confirms it.
            await peer.until(lambda event: getattr(event, "ConditionName", "") == "camera-back")
            raised = codes(plant.line) - before
            assert raised["camera-lost"] == 1
            conditions = of_type(peer, WARNING_CONDITION, ERROR_CONDITION)
            assert Counter(one.ConditionName for one in conditions) == raised
            await listening.delete()

    asyncio.run(run())
    assert plant.account() == {"triggers": 8, "OK": 3, "NG": 3, "REVIEW": 0, "ERROR": 2, "in_flight": 0}


def test_a_job_that_finds_no_recipe_or_serial_starts_nothing(tmp_path: Path, plant: Plant) -> None:
    async def run() -> None:
        async with Peer(plant.url) as peer:
            await do(peer, "SelectModeAutomatic")
            for arguments in (start_arguments(recipe="strict"), start_arguments(product="strict parts")):
                for method in ("StartSingleJob", "StartContinuous"):
                    with pytest.raises(ua.uaerrors.BadInvalidArgument):
                        await peer.call(f"{AUTOMATIC}.{method}", *arguments)
                    assert (await peer.state(), plant.line.state) == ("Ready", LineState.STOPPED)

    asyncio.run(run())
    assert plant.account()["triggers"] == 0


def test_a_stop_is_over_when_the_last_verdicts_in_flight_are_told(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge, gate = Setup.judge, threading.Event()

    def held(self: Setup, jobs: Sequence[Job]) -> list[Inspection]:
        gate.wait(60.0)
        return judge(self, jobs)

    async def run() -> None:
        async with Peer(plant.url) as peer:
            await peer.listen(RESULT_READY, READY)
            await do(peer, "SelectModeAutomatic")
            job, error = await peer.call(f"{AUTOMATIC}.StartContinuous", *start_arguments(meas="shift 3"))
            assert error == 0
            monkeypatch.setattr(Setup, "judge", held)
            numbers = [await exposed(plant, f"stop-{place}", bad=bad) for place, bad in enumerate(PATTERN * 3)]
            await do(peer, "Stop")
            assert (await peer.state(), plant.line.state) == ("ContinuousExecution", LineState.DRAINING)
            with pytest.raises(NotReady):
                plant.line.trigger()
            gate.set()
            await peer.until(lambda event: event.EventType == peer.type_id(READY))
            *results, ready = peer.events
            assert ready.EventType == peer.type_id(READY)
            assert [int(event.ResultId.Id) for event in results] == numbers
            assert [verdict(event) for event in results] == ["NG" if bad else "OK" for bad in PATTERN * 3]
            assert {(event.JobId.Id, event.MeasId.Id) for event in results} == {(job.Id, "shift 3")}
            kept = await results_of_job(peer, job.Id)
            assert [int(one.ResultId.Id) for one in kept] == numbers
            assert await peer.state() == "Ready"

    asyncio.run(run())
    assert plant.account() == {"triggers": 24, "OK": 12, "NG": 12, "REVIEW": 0, "ERROR": 0, "in_flight": 0}


def test_a_change_over_at_full_rate_loses_no_part_and_each_is_judged_by_one_recipe(plant: Plant) -> None:
    triggered: list[int] = []

    def belt() -> None:
        """A part every 20 ms until the line takes none."""
        plant.scene.bad = False
        rest = threading.Event()
        try:
            while not rest.wait(0.02):
                triggered.append(plant.line.trigger(part=f"belt-{len(triggered)}"))
        except NotReady:
            return

    async def run() -> list[Any]:
        async with Peer(plant.url) as peer:
            await peer.listen(RESULT_READY)
            await do(peer, "SelectModeAutomatic")
            job, _ = await peer.call(f"{AUTOMATIC}.StartContinuous", *start_arguments())
            running = threading.Thread(target=belt, name="belt", daemon=True)
            running.start()
            await peer.until(lambda _: len(peer.events) >= 20)
            answers = []
            for method, *arguments in (
                ("PrepareProduct", ident("ProductIdDataType", "strict parts")),
                ("Recipes.screen.Prepare",),
                ("PrepareRecipe", *recipe_arguments("strict")),
            ):
                answers.append(await peer.call(f"RecipeManagement.{method}", *arguments))
                await when(lambda: plant.line.changing_to is None, "change-over")
                seen = len(peer.events)
                await peer.until(lambda _, seen=seen: len(peer.events) >= seen + 20)
                assert await peer.state() == "ContinuousExecution"
            assert [answer[-1] for answer in answers] == [0, 0, 0]
            await do(peer, "Stop")
            await when(lambda: not running.is_alive(), "the belt's end")
            await peer.until_state("Ready")
            await peer.until(lambda _: len(peer.events) >= len(triggered))
            assert {event.JobId.Id for event in peer.events} == {job.Id}
            return list(peer.events)

    events = asyncio.run(run())
    assert [int(event.ResultId.Id) for event in events] == triggered
    assert [event.PartId.Id for event in events] == [f"belt-{place}" for place in range(len(triggered))]
    judged = [(one.InternalRecipeId.Id, one.ProductId.Id, verdict(one)) for one in events]
    assert set(judged) == {("screen", "screen", "OK"), ("strict", "strict parts", "NG")}
    assert len({(one.InternalRecipeId.Id, one.InternalRecipeId.Hash) for one in events}) == 2
    assert [new[0] for old, new in itertools.pairwise(judged) if new[0] != old[0]] == ["strict", "screen", "strict"]
    told = Counter(one[2] for one in judged)
    counts = plant.account()
    assert {name: counts[name] for name in ("triggers", "OK", "NG", "ERROR")} == {
        "triggers": len(triggered), "OK": told["OK"], "NG": told["NG"], "ERROR": 0
    }  # fmt: skip
    output = plant.line.counters()["output opcua"]
    assert (output["taken"], output["refused"], output["late"], output["dropped"]) == (output["delivered"], 0, 0, 0)


def test_a_line_that_cannot_tell_a_verdict_shows_as_error_and_goes_on_after_reset(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        async with Peer(plant.url) as peer:
            await peer.listen(STATE_CHANGED, ERROR_EVENT, RESULT_READY, WARNING_CONDITION, ERROR_CONDITION)
            await do(peer, "SelectModeAutomatic")
            await do(peer, "StartContinuous")
            with monkeypatch.context() as broken:
                broken.setattr(plant.line.record, "decided", lambda *_: 1 / 0)
                await exposed(plant, "untold", bad=False)
                await peer.until_state("Error")
            error = await peer.until(lambda event: event.EventType == peer.type_id(ERROR_EVENT))
            assert "part untold could not be told" in error.Message.Text
            # One condition says it, as an error, and no second one as a warning.
            condition = await peer.until(lambda event: getattr(event, "ConditionName", "") == "line-failed")
            assert (condition.EventType, condition.Retain) == (peer.type_id(ERROR_CONDITION), True)
            assert "part untold could not be told" in condition.Message.Text
            assert (await peer.node("SystemState").read_value()).StateDescription == "failed"
            for method in ("StartSingleJob", "StartContinuous", "SelectModeAutomatic", "Stop"):
                with pytest.raises(ua.uaerrors.BadInvalidState):
                    await do(peer, method)
            await do(peer, "Reset")
            assert await peer.state() == "Preoperational"
            await do(peer, "SelectModeAutomatic")
            await peer.until_state("Ready")  # when the models are loaded
            assert verdict(await single(plant, peer, "told", bad=True)) == "NG"
            assert [event.PartId.Id for event in of_type(peer, RESULT_READY)] == ["told"]
            assert [one.ConditionName for one in of_type(peer, WARNING_CONDITION, ERROR_CONDITION)] == ["line-failed"]
            assert [event.Transition.Text for event in of_type(peer, STATE_CHANGED)][2:5] == [
                "ReadyToContinuousExecution", "OperationalToErrorAuto", "ErrorToPreoperational"
            ]  # fmt: skip
            await peer.until_state("Ready")

    asyncio.run(run())
    assert plant.account()["triggers"] == 2


def test_a_line_whose_network_hangs_shows_as_error_and_judges_again_after_reset(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "MOST_HUNG", 0)
    judge, hang, let_go = Setup.judge, threading.Event(), threading.Event()
    hang.set()

    def hanging(self: Setup, jobs: Sequence[Job]) -> list[Inspection]:
        if hang.is_set():
            let_go.wait(60.0)
        return judge(self, jobs)

    async def run() -> None:
        async with Peer(plant.url) as peer:
            await peer.listen(STATE_CHANGED, RESULT_READY, RECIPE_PREPARED, WARNING_CONDITION, ERROR_CONDITION)
            await do(peer, "SelectModeAutomatic")
            await prepare(plant, peer, "strict")  # it gives a run up after 0.6 s
            monkeypatch.setattr(Setup, "judge", hanging)
            event = await single(plant, peer, "hung", bad=False)
            assert (verdict(event), code(event)) == ("ERROR", "judging-failed")
            await peer.until_state("Error")
            condition = await peer.until(lambda event: getattr(event, "ConditionName", "") == "line-failed")
            assert condition.EventType == peer.type_id(ERROR_CONDITION)
            assert "1 calls hang in this process" in condition.Message.Text
            hang.clear()
            await do(peer, "Reset")
            await do(peer, "SelectModeAutomatic")
            await peer.until_state("Ready")
            event = await single(plant, peer, "judged again", bad=False)
            assert (verdict(event), event.InternalRecipeId.Id) == ("NG", "strict")
            assert [event.PartId.Id for event in of_type(peer, RESULT_READY)] == ["hung", "judged again"]
            await peer.until_state("Ready")

    try:
        asyncio.run(run())
    finally:
        let_go.set()
    assert plant.account() == {"triggers": 2, "OK": 0, "NG": 1, "REVIEW": 0, "ERROR": 1, "in_flight": 0}


def test_what_waits_for_a_subscriptions_beat_is_sent_before_a_closing_line_hangs_up(tmp_path: Path) -> None:
    plant = opened(*recipes(tmp_path), Scene())

    async def run() -> None:
        peer = Peer(plant.url)
        await peer.__aenter__()
        beat = await peer.client.create_subscription(60_000, peer)
        types = [peer.client.get_node(peer.type_id(number)) for number in (RESULT_READY, STATE_CHANGED)]
        await beat.subscribe_events(peer.node(""), types)
        await do(peer, "SelectModeAutomatic")
        await do(peer, "StartContinuous")
        for place, bad in enumerate(PATTERN):
            await exposed(plant, f"last-{place}", bad=bad)
        await asyncio.to_thread(plant.line.close)
        await peer.until(
            lambda event: event.EventType == peer.type_id(STATE_CHANGED) and event.ToState.Text == "Halted"
        )
        told = of_type(peer, RESULT_READY)
        assert [event.PartId.Id for event in told] == [f"last-{place}" for place in range(len(PATTERN))]
        assert [verdict(event) for event in told] == ["NG" if bad else "OK" for bad in PATTERN]

    try:
        asyncio.run(run())
    finally:
        plant.line.close()
