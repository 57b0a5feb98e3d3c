"""A line seen and commanded by OPC UA for Machine Vision, through a real client on loopback."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import math
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("asyncua")

from asyncua import ua

from inspection.control import LineState, RecipeInfo
from inspection.errors import ConfigInvalid, ModelInvalid
from inspection.outputs.opcua import OpcUaSink
from inspection.outputs.opcua.server import FOLLOW_EVERY
from inspection.outputs.options import OpcUaOptions
from inspection.outputs.sink import DeliveryFailed, Message
from tests.outputs.opcua_client import (
    CAUSE,
    PATIENCE,
    Peer,
    ident,
    int32,
    parameters,
    recipe_arguments,
    start_arguments,
    uint32,
)
from tests.outputs.scripted_line import ScriptedLine

pytestmark = [pytest.mark.line, pytest.mark.slow]

MACHINE = "VisionStateMachine"
AUTOMATIC = f"{MACHINE}.AutomaticModeStateMachine"
RESULT_READY, STATE_CHANGED, JOB_STARTED, READY, ACQUIRED = 1024, 1018, 1013, 1023, 1025
RECIPE_PREPARED, ERROR_EVENT, WARNING_CONDITION, ERROR_CONDITION = 1022, 1019, 1034, 1035


def serve(line: ScriptedLine, folder: Path, **options: Any) -> OpcUaSink:
    sink = OpcUaSink(OpcUaOptions(kind="opcua", port=0, store=folder, **options), line, line.name, line.alarm)
    line.attach(sink)
    return sink


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ScriptedLine, OpcUaSink]]:
    with ScriptedLine(broken=["washer"]) as line:
        yield line, serve(line, tmp_path_factory.mktemp("opcua"))


@pytest.fixture
def line(served: tuple[ScriptedLine, OpcUaSink]) -> Iterator[ScriptedLine]:
    """The line, STOPPED with the recipe `bolt` and every part judged, before each test and after it."""
    line, sink = served

    async def home() -> None:
        line.open_gate.set()
        line.warming = 0.01
        line.reset()
        line.stop()
        line.until(LineState.STOPPED)
        line.change_over("bolt", wait=True)
        async with Peer(sink.url) as peer:
            if await peer.state() not in ("Preoperational", "Halted"):
                await peer.call(f"{MACHINE}.Halt", *CAUSE)
            if await peer.state() == "Halted":
                await peer.call(f"{MACHINE}.Reset", *CAUSE)
            await peer.call(f"{MACHINE}.ConfirmAll", ua.LocalizedText(""))

    asyncio.run(home())
    yield line
    asyncio.run(home())


@pytest.fixture
def url(served: tuple[ScriptedLine, OpcUaSink]) -> str:
    return served[1].url


METHODS: dict[str, tuple[str, tuple[Any, ...]]] = {
    "SelectModeAutomatic": (MACHINE, ()),
    "Halt": (MACHINE, CAUSE),
    "Reset": (MACHINE, CAUSE),
    "PrepareRecipe": ("RecipeManagement", ("bolt",)),
    "PrepareProduct": ("RecipeManagement", ("M8 bolt",)),
    "UnprepareRecipe": ("RecipeManagement", ("bolt",)),
    "UnprepareProduct": ("RecipeManagement", ("M8 bolt",)),
    "StartSingleJob": (AUTOMATIC, ()),
    "StartContinuous": (AUTOMATIC, ()),
    "Stop": (AUTOMATIC, CAUSE),
    "Abort": (AUTOMATIC, CAUSE),
}


async def do(peer: Peer, method: str) -> Any:
    folder, given = METHODS[method]
    if method.endswith("Recipe"):
        given = recipe_arguments(*given)
    elif method.endswith("Product"):
        given = (ident("ProductIdDataType", *given),)
    elif method.startswith("Start"):
        given = start_arguments()
    return await peer.call(f"{folder}.{method}", *given)


# Where each method leads from each state; what is not in the table is refused. A single job waits for its verdict.
LEADS = {
    "Preoperational": {"SelectModeAutomatic": "Ready", "Halt": "Halted"},
    "Halted": {"Reset": "Preoperational"},
    "Error": {"Halt": "Halted", "Reset": "Preoperational"},
    "Initialized": {
        "Halt": "Halted", "Reset": "Preoperational", "PrepareRecipe": "Ready", "PrepareProduct": "Ready",
    },
    "Ready": {
        "Halt": "Halted", "Reset": "Preoperational", "PrepareRecipe": "Ready", "PrepareProduct": "Ready",
        "UnprepareRecipe": "Initialized", "UnprepareProduct": "Initialized",
        "StartSingleJob": "SingleExecution", "StartContinuous": "ContinuousExecution",
    },
    "SingleExecution": {
        "Halt": "Halted", "Reset": "Preoperational", "PrepareRecipe": "SingleExecution",
        "PrepareProduct": "SingleExecution", "Stop": "SingleExecution", "Abort": "Ready",
    },
    "ContinuousExecution": {
        "Halt": "Halted", "Reset": "Preoperational", "PrepareRecipe": "ContinuousExecution",
        "PrepareProduct": "ContinuousExecution", "Stop": "Ready", "Abort": "Ready",
    },
}  # fmt: skip
WAYS = {
    "Preoperational": (),
    "Halted": ("Halt",),
    "Error": (),
    "Initialized": ("SelectModeAutomatic", "UnprepareRecipe"),
    "Ready": ("SelectModeAutomatic",),
    "SingleExecution": ("SelectModeAutomatic", "StartSingleJob"),
    "ContinuousExecution": ("SelectModeAutomatic", "StartContinuous"),
}


@pytest.mark.parametrize("state", LEADS)
def test_each_method_leads_where_the_specification_says_and_is_refused_elsewhere(
    line: ScriptedLine, url: str, state: str
) -> None:
    async def reach(peer: Peer) -> None:
        line.open_gate.set()
        line.reset()
        line.stop()
        line.until(LineState.STOPPED)
        if await peer.state() != "Halted":
            await do(peer, "Halt")
        await do(peer, "Reset")
        line.open_gate.clear()
        for method in WAYS[state]:
            await do(peer, method)
        if state == "Error":
            line.fail(ModelInvalid("the model does not load."))
        await peer.until_state(state)

    async def run() -> None:
        async with Peer(url) as peer:
            await reach(peer)
            for method in METHODS:
                if method in LEADS[state]:
                    continue
                with pytest.raises(ua.uaerrors.BadInvalidState):
                    await do(peer, method)
                assert await peer.state() == state, method
            for method, target in LEADS[state].items():
                await reach(peer)
                await do(peer, method)
                assert await peer.state() == target, method
                if method == "Stop":
                    line.open_gate.set()
                    await peer.until_state("Ready")

    asyncio.run(run())


def test_a_hundred_single_jobs_each_give_the_event_that_their_result_can_be_asked_for(
    line: ScriptedLine, url: str
) -> None:
    verdicts = ("OK", "NG", "REVIEW", "ERROR")

    async def run() -> None:
        async with Peer(url) as peer:
            await peer.listen(RESULT_READY, JOB_STARTED, READY, ACQUIRED)
            await do(peer, "SelectModeAutomatic")
            before = line.counters()["line"]
            jobs = []
            for index in range(100):
                verdict = verdicts[index % 4]
                part = f"part{index}-{verdict}"
                job, error = await peer.call(
                    f"{AUTOMATIC}.StartSingleJob", *start_arguments(part, "lot 7", "bolt", "M8 bolt")
                )
                assert error == 0
                jobs.append(job.Id)
                event = await peer.result_of(part)
                handle, result, error = await peer.call("ResultManagement.GetResultById", event.ResultId, int32(1000))
                assert (handle, error) == (0, 0)
                names = [field.name for field in dataclasses.fields(result) if hasattr(event, field.name)]
                assert len(names) == 15, names
                for name in names:
                    asked, told = getattr(result, name), getattr(event, name)
                    if name in ("HasTransferableDataOnFile", "IsSimulated"):
                        continue
                    assert repr(asked) == repr(told), name  # repr: NaN equals no NaN
                document, told_verdict, score, told_part = (variant.Value for variant in event.ResultContent)
                body = json.loads(document)
                assert (told_verdict, told_part) == (verdict, part) == (body["verdict"], body["part"])
                assert math.isnan(score) if verdict == "ERROR" else score == body["views"][0]["score"]
                assert event.ResultState == (4 if verdict == "ERROR" else 1)
                assert (event.JobId.Id, event.MeasId.Id, event.ProductId.Id) == (job.Id, "lot 7", "M8 bolt")
                assert (body["lot"], body["number"]) == ("lot 7", int(event.ResultId.Id))
                assert event.InternalRecipeId.Hash.hex() == body["recipe_hash"]
                assert event.ProcessingTimes.StartTime < event.ProcessingTimes.EndTime == event.CreationTime
                await peer.until_state("Ready")
            after = line.counters()["line"]
            assert {key: after[key] - before[key] for key in after} == {
                "triggers": 100, "OK": 25, "NG": 25, "REVIEW": 25, "ERROR": 25, "in_flight": 0
            }  # fmt: skip
            assert len(set(jobs)) == 100
            await peer.until(lambda e: e.EventType == peer.type_id(READY) and e.JobId.Id == jobs[-1])
            kinds = {RESULT_READY: "result", JOB_STARTED: "started", READY: "ready", ACQUIRED: "acquired"}
            told = [kinds[event.EventType.Identifier] for event in peer.events]
            assert told == ["started", "acquired", "result", "ready"] * 100
            assert [event.JobId.Id for event in peer.events] == [job for job in jobs for _ in range(4)]

    asyncio.run(run())


def test_parts_of_a_running_line_come_as_events_and_lists_of_results_are_filtered(line: ScriptedLine, url: str) -> None:
    async def run() -> None:
        async with Peer(url) as peer:
            await peer.listen(RESULT_READY, at_server=True)  # as clients do that know nothing of the companion nodes
            await do(peer, "SelectModeAutomatic")
            job, error = await peer.call(f"{AUTOMATIC}.StartContinuous", *start_arguments(meas="shift 3"))
            assert (error, await peer.state(), line.state) == (0, "ContinuousExecution", LineState.RUNNING)
            for index in range(30):
                line.trigger(part=f"belt{index}-{'NG' if index % 3 == 0 else 'OK'}")
            last = await peer.result_of("belt29-OK")
            assert [event.PartId.Id for event in peer.events] == [
                f"belt{index}-{'NG' if index % 3 == 0 else 'OK'}" for index in range(30)
            ]  # the order of the belt
            assert {event.JobId.Id for event in peer.events} == {job.Id}
            assert {event.MeasId.Id for event in peer.events} == {"shift 3"}
            await do(peer, "Stop")
            await peer.until_state("Ready")
            assert line.state is LineState.STOPPED

            async def listed(state: int = 0, most: int = 0, start: int = 0, **wanted: str) -> Any:
                kinds = ("MeasId", "PartId", "ExternalRecipeId", "InternalRecipeId", "ExternalConfigurationId",
                         "InternalConfigurationId", "ProductId", "JobId")  # fmt: skip
                types = {
                    "ExternalRecipeId": "RecipeIdExternalDataType",
                    "InternalRecipeId": "RecipeIdInternalDataType",
                    "ExternalConfigurationId": "ConfigurationIdDataType",
                    "InternalConfigurationId": "ConfigurationIdDataType",
                }
                ids = [ident(types.get(kind, f"{kind}DataType"), wanted.get(kind, "")) for kind in kinds]
                return await peer.call(
                    "ResultManagement.GetResultListFiltered", int32(state), *ids, uint32(most), uint32(start), int32(0)
                )

            complete, count, handle, results, error = await listed(JobId=job.Id)
            assert (complete, count, handle, error) == (True, 30, 0, 0)
            assert [one.PartId.Id for one in results] == [event.PartId.Id for event in reversed(peer.events)]
            complete, count, _, results, _ = await listed(JobId=job.Id, most=7, start=21)
            assert (complete, count, results[0].PartId.Id) == (False, 7, "belt8-OK")
            assert (await listed(JobId=job.Id, most=9, start=21))[:2] == [True, 9]
            assert (await listed(PartId="belt3-NG", MeasId="shift 3"))[1] == 1
            assert (await listed(JobId=job.Id, state=4))[1] == 0
            assert (await listed(PartId="belt3-NG", ProductId="M8 nut"))[1] == 0
            assert (await listed(InternalConfigurationId=last.InternalConfigurationId.Id, JobId=job.Id))[1] == 30
            components = await peer.call("ResultManagement.GetResultComponentsById", last.ResultId, int32(0))
            assert len(components) == 17
            assert (components[4], components[6].Id, components[-1]) == (1, "belt29-OK", 0)
            assert components[15][1].Value == "OK"
            with pytest.raises(ua.uaerrors.BadNotFound):
                await peer.call("ResultManagement.GetResultById", ident("ResultIdDataType", "no such"), int32(0))

    asyncio.run(run())


def test_the_line_changes_over_by_prepare_recipe_while_it_runs(line: ScriptedLine, url: str) -> None:
    async def run() -> None:
        async with Peer(url) as peer:
            await peer.listen(RESULT_READY, RECIPE_PREPARED)
            await do(peer, "SelectModeAutomatic")
            await do(peer, "StartContinuous")
            line.trigger(part="before")
            await peer.result_of("before")
            answer = await peer.call("RecipeManagement.PrepareRecipe", *recipe_arguments("nut"))
            assert (answer[0].Id, answer[0].Hash.hex(), answer[1:]) == ("nut", "a1" * 32, [True, 0])
            assert await peer.state() == "ContinuousExecution"
            line.trigger(part="after")
            event = await peer.result_of("after")
            assert (event.InternalRecipeId.Id, event.ProductId.Id) == ("nut", "M8 nut")
            prepared = await peer.until(
                lambda e: e.EventType == peer.type_id(RECIPE_PREPARED) and e.InternalId.Id == "nut"
            )
            assert prepared.ProductId.Id == "M8 nut"

            async def shown() -> list[str]:
                recipes = ("bolt", "nut", "washer")
                nodes = [peer.node(f"RecipeManagement.Recipes.{name}.IsPrepared") for name in recipes]
                return [name for name, node in zip(recipes, nodes, strict=True) if await node.read_value()]

            assert await shown() == ["nut"]
            listed = await peer.call(
                "RecipeManagement.GetRecipeListFiltered", *recipe_arguments()[:1], ident("ProductIdDataType"),
                int32(1), uint32(0), uint32(0), int32(0),
            )  # fmt: skip
            assert (listed[:3], [one.Id for one in listed[3]]) == ([True, 1, 0], ["nut"])
            both = await peer.call(
                "RecipeManagement.GetRecipeListFiltered", *recipe_arguments()[:1], ident("ProductIdDataType"),
                int32(2), uint32(0), uint32(0), int32(0),
            )  # fmt: skip
            assert [one.Id for one in both[3]] == ["bolt", "nut", "washer"]
            # Another door changes over: clients see that too.
            line.change_over("bolt", wait=True)
            await peer.until(lambda e: e.EventType == peer.type_id(RECIPE_PREPARED) and e.InternalId.Id == "bolt")
            assert await shown() == ["bolt"]
            assert (await peer.call("RecipeManagement.Recipes.nut.Prepare")) == [True, 0]
            assert line.recipe is not None
            assert line.recipe.id == "nut"

    asyncio.run(run())


def test_a_recipe_that_takes_long_is_answered_at_once_and_announced_when_it_has_taken_over(
    line: ScriptedLine, url: str
) -> None:
    async def run() -> None:
        line.warming = 2.0
        async with Peer(url) as peer:
            await peer.listen(RECIPE_PREPARED, RESULT_READY)
            await do(peer, "SelectModeAutomatic")
            internal, completed, error = await peer.call("RecipeManagement.PrepareRecipe", *recipe_arguments("nut"))
            assert (internal.Id, completed, error) == ("nut", False, 0)
            with pytest.raises(ua.uaerrors.BadInvalidState):  # one at a time
                await peer.call("RecipeManagement.PrepareRecipe", *recipe_arguments("bolt"))
            await peer.call(f"{AUTOMATIC}.StartSingleJob", *start_arguments("meanwhile"))  # the loop does not stall
            assert (await peer.result_of("meanwhile")).InternalRecipeId.Id == "bolt"
            await peer.until(lambda e: e.EventType == peer.type_id(RECIPE_PREPARED) and e.InternalId.Id == "nut")

    asyncio.run(run())


def test_a_recipe_that_cannot_be_carried_out_is_answered_with_an_error_and_the_running_one_goes_on(
    line: ScriptedLine, url: str
) -> None:
    async def run() -> None:
        async with Peer(url) as peer:
            await peer.listen(WARNING_CONDITION)
            await do(peer, "SelectModeAutomatic")
            internal, completed, error = await peer.call("RecipeManagement.PrepareRecipe", *recipe_arguments("washer"))
            assert (internal.Id, completed, error) == ("washer", False, -1)
            event = await peer.until(lambda e: e.ConditionName == "config-invalid")
            assert "washer" in event.Message.Text
            await peer.call(f"{AUTOMATIC}.StartSingleJob", *start_arguments("still"))
            await peer.until_state("Ready")

    asyncio.run(run())


def test_wrong_arguments_are_refused_and_change_nothing(line: ScriptedLine, url: str) -> None:
    bad = ua.uaerrors
    start, prepare = f"{AUTOMATIC}.StartSingleJob", "RecipeManagement.PrepareRecipe"
    part = ident("PartIdDataType", "p")
    cases = [
        (start, start_arguments("p", recipe="nut"), bad.BadInvalidArgument),  # not the prepared one
        (start, start_arguments("p", product="M8 nut"), bad.BadInvalidArgument),
        (start, start_arguments("p", given=parameters("ten")), bad.BadInvalidArgument),
        (start, start_arguments("p", given=parameters(1, 2)), bad.BadInvalidArgument),
        (start, (part, part, part, part, parameters()), bad.BadInvalidArgument),
        (start, start_arguments("p")[:4], bad.BadArgumentsMissing),
        (start, (*start_arguments("p"), int32(1)), bad.BadTooManyArguments),
        (f"{AUTOMATIC}.StartContinuous", start_arguments("p"), bad.BadInvalidArgument),
        (prepare, recipe_arguments(), bad.BadInvalidArgument),
        (prepare, recipe_arguments("screw"), bad.BadInvalidArgument),
        (prepare, recipe_arguments("bolt", "nut"), bad.BadInvalidArgument),
        (prepare, recipe_arguments("bolt", Hash=b"\1" * 32), bad.BadInvalidArgument),
        ("RecipeManagement.PrepareProduct", (ident("ProductIdDataType", "M9"),), bad.BadInvalidArgument),
        ("RecipeManagement.UnprepareRecipe", recipe_arguments("nut"), bad.BadInvalidArgument),
        (f"{MACHINE}.Halt", (ua.Variant("1", ua.VariantType.String), "x"), bad.BadInvalidArgument),
        ("ConfigurationManagement.ActivateConfiguration", (ident("ConfigurationIdDataType", "x"),),
         bad.BadInvalidArgument),
        ("ConfigurationManagement.GetConfigurationById", (ident("ConfigurationIdDataType", "x"), int32(0)),
         bad.BadNotFound),
        ("RecipeManagement.GetRecipeListFiltered",
         (*recipe_arguments()[:1], ident("ProductIdDataType"), int32(9), uint32(0), uint32(0), int32(0)),
         bad.BadInvalidArgument),
    ]  # fmt: skip

    async def run() -> None:
        async with Peer(url) as peer:
            await do(peer, "SelectModeAutomatic")
            before = line.counters()
            for method, arguments, error in cases:
                with pytest.raises(error):
                    await peer.call(method, *arguments)
                assert (await peer.state(), line.state) == ("Ready", LineState.STOPPED), (method, arguments)
            assert line.counters() == before
            job = await peer.call(f"{AUTOMATIC}.StartSingleJob", *start_arguments(given=parameters(12345)))
            assert job[1] == 0
            await peer.until_state("Ready")
            result = line.wait(line.counters()["line"]["triggers"], 20)
            assert result is not None
            assert result.trigger.encoder == 12345

    asyncio.run(run())


def test_what_the_line_does_by_another_door_moves_the_state_machine(line: ScriptedLine, url: str) -> None:
    async def run() -> None:
        async with Peer(url) as peer:
            await peer.listen(STATE_CHANGED)
            assert await peer.state() == "Preoperational"
            line.start()
            await peer.until_state("ContinuousExecution")
            line.stop()
            await peer.until_state("Ready")
            line.fail(ModelInvalid("the model does not load."))
            await peer.until_state("Error")
            line.reset()
            await peer.until_state("Preoperational")
            await peer.until(lambda e: e.Transition.Text == "ErrorToPreoperationalAuto")
            names = [event.Transition.Text for event in peer.events]
            assert names == [
                "PreoperationalToInitializedAuto", "InitializedToReadyAuto", "ReadyToContinuousExecutionAuto",
                "ContinuousExecutionToReadyAuto", "OperationalToErrorAuto", "ErrorToPreoperationalAuto",
            ]  # fmt: skip
            ends = [(event.FromState.Text, event.ToState.Text) for event in peer.events]
            assert ends[0] == ("Preoperational", "Initialized")
            assert ends[4] == ("Operational", "Error")
            ids = [getattr(peer.events[0], name) for name in ("Transition/Id", "FromState/Id", "ToState/Id")]
            assert [(await peer.client.get_node(one).read_browse_name()).Name for one in ids] == [
                "PreoperationalToInitializedAuto", "Preoperational", "Initialized"
            ]  # fmt: skip

    asyncio.run(run())


def test_alarms_are_conditions_until_somebody_confirms_them(line: ScriptedLine, url: str) -> None:
    async def run() -> None:
        async with Peer(url) as peer:
            subscription = await peer.listen(WARNING_CONDITION, ERROR_CONDITION, ERROR_EVENT)
            await do(peer, "SelectModeAutomatic")
            line.alarm("camera-lost", "The camera `top` does not answer.")
            first = await peer.until(lambda e: getattr(e, "ConditionName", None) == "camera-lost")
            assert (first.Message.Text, first.Retain) == ("The camera `top` does not answer.", True)
            assert [getattr(first, f"{name}/Id") for name in ("EnabledState", "AckedState", "ConfirmedState")] == [
                True, False, False
            ]  # fmt: skip
            condition = peer.client.get_node(first.NodeId)
            acknowledge = ua.NodeId(ua.ObjectIds.AcknowledgeableConditionType_Acknowledge)
            await condition.call_method(acknowledge, first.EventId, ua.LocalizedText("seen"))
            second = await peer.until(lambda e: getattr(e, "AckedState/Id", None) is True)
            assert (second.NodeId, second.Comment.Text, second.Retain) == (first.NodeId, "seen", True)
            with pytest.raises(ua.uaerrors.BadEventIdUnknown):  # that event is not the condition's last any more
                await condition.call_method(acknowledge, first.EventId, ua.LocalizedText("again"))

            line.fail(ModelInvalid("the model does not load."))
            await peer.until_state("Error")
            error = await peer.until(lambda e: e.EventType == peer.type_id(ERROR_CONDITION))
            assert (error.ConditionName, error.StopReaction, error.Retain) == ("model-invalid", True, True)
            await peer.until(lambda e: e.EventType == peer.type_id(ERROR_EVENT))

            # A client that comes later asks for what is open.
            async with Peer(url) as late:
                their = await late.listen(WARNING_CONDITION, ERROR_CONDITION)
                refresh = ua.NodeId(ua.ObjectIds.ConditionType_ConditionRefresh)
                kind = late.client.get_node(ua.NodeId(ua.ObjectIds.ConditionType))
                await kind.call_method(refresh, uint32(their.subscription_id))
                await late.until(lambda e: e.ConditionName == "model-invalid")
                assert {event.ConditionName for event in late.events} == {"camera-lost", "model-invalid"}

            confirm = ua.NodeId(ua.ObjectIds.AcknowledgeableConditionType_Confirm)
            await condition.call_method(confirm, second.EventId, ua.LocalizedText("cable replaced"))
            gone = await peer.until(
                lambda e: getattr(e, "ConditionName", "") == "camera-lost" and getattr(e, "ConfirmedState/Id")
            )
            assert (gone.Retain, gone.Comment.Text) == (False, "cable replaced")
            await peer.call(f"{MACHINE}.ConfirmAll", ua.LocalizedText("all mended"))
            await peer.until(lambda e: getattr(e, "ConditionName", "") == "model-invalid" and e.Retain is False)
            await subscription.delete()

    asyncio.run(run())


def test_the_address_space_holds_what_is_offered_and_nothing_else(line: ScriptedLine, url: str) -> None:
    async def run() -> None:
        async with Peer(url) as peer:
            system = await peer.browse("VisionStateMachine", "AutomaticModeStateMachine", "StartSingleJob")
            assert await system.read_node_class() == ua.NodeClass.Method

            async def names(path: str) -> set[str]:
                return {(await child.read_browse_name()).Name for child in await peer.node(path).get_children()}

            assert await names("") == {
                "ConfigurationManagement", "RecipeManagement", "ResultManagement", "SystemState", "VisionStateMachine"
            }  # fmt: skip
            assert await names("RecipeManagement") == {
                "GetRecipeListFiltered", "PrepareProduct", "PrepareRecipe", "Products", "Recipes", "UnprepareProduct",
                "UnprepareRecipe",
            }  # fmt: skip
            assert await names("ResultManagement") == {
                "GetResultById", "GetResultComponentsById", "GetResultListFiltered"
            }  # fmt: skip
            assert await names("RecipeManagement.Recipes") == {"bolt", "nut", "washer"}
            assert await names("RecipeManagement.Products") == {"M8 bolt", "M8 nut", "M8 washer"}
            assert await names("RecipeManagement.Recipes.nut") == {
                "ExternalId", "InternalId", "IsPrepared", "LastModified", "LinkedProducts", "Prepare", "Unprepare"
            }  # fmt: skip
            assert await names(AUTOMATIC) == {"Abort", "CurrentState", "StartContinuous", "StartSingleJob", "Stop"}
            linked = await peer.node("RecipeManagement.Recipes.nut.LinkedProducts").read_value()
            assert [one.Id for one in linked] == ["M8 nut"]
            # No value can be written, whoever writes.
            for path in ("SystemState", "VisionStateMachine.CurrentState", "RecipeManagement.Recipes.nut.IsPrepared"):
                node = peer.node(path)
                with pytest.raises(ua.uaerrors.BadUserAccessDenied):
                    await node.write_value(await node.read_data_value())
            state = await peer.node("SystemState").read_value()
            assert (int(state.State), state.StateDescription) == (2, "stopped")

    asyncio.run(run())


def test_the_configuration_names_the_software_and_the_models_that_judge(line: ScriptedLine, url: str) -> None:
    async def run() -> None:
        async with Peer(url) as peer:
            await do(peer, "SelectModeAutomatic")
            await peer.call(f"{AUTOMATIC}.StartSingleJob", *start_arguments("one"))
            await peer.until_state("Ready")
            active = await peer.node("ConfigurationManagement.ActiveConfiguration").read_value()
            document = json.loads(active.InternalId.Description.Text)
            assert document["models"] == {"top": "d3" * 32}
            complete, count, _, listed, _ = await peer.call(
                "ConfigurationManagement.GetConfigurationList", uint32(0), uint32(0), int32(0)
            )
            assert (complete, count) == (True, 2)  # before the first result no model is known
            assert listed[0].InternalId.Id == active.InternalId.Id
            assert listed[1].InternalId.Id != active.InternalId.Id
            activate = "ConfigurationManagement.ActivateConfiguration"
            assert await peer.call(activate, active.InternalId) == 0
            with pytest.raises(ua.uaerrors.BadNotSupported):
                await peer.call(activate, listed[1].InternalId)
            got = await peer.call("ConfigurationManagement.GetConfigurationById", active.InternalId, int32(0))
            assert got[1].InternalId == active.InternalId

    asyncio.run(run())


CHILD = """
import asyncio, json, sys
from asyncua import Client, ua
async def main(url, result):
    async with Client(url) as client:
        loaded = await client.load_data_type_definitions()
        index = await client.get_namespace_index("http://opcfoundation.org/UA/MachineVision")
        node = client.get_node(ua.NodeId("VisionSystem.ResultManagement", 1))
        answer = await node.call_method(f"{index}:GetResultById", ua.ResultIdDataType(Id=result), ua.Int32(0))
        found = answer[1]
        print(json.dumps([len(loaded), type(found).__name__, type(found.ExternalRecipeId).__name__,
                          found.PartId.Id, found.ResultContent[1].Value]))
asyncio.run(main(*sys.argv[1:]))
"""


def test_a_client_that_learns_all_types_from_the_server_reads_a_result(line: ScriptedLine, url: str) -> None:
    async def run() -> str:
        async with Peer(url) as peer:
            await peer.listen(RESULT_READY)
            await do(peer, "SelectModeAutomatic")
            await peer.call(f"{AUTOMATIC}.StartSingleJob", *start_arguments("learned-NG"))
            return str((await peer.result_of("learned-NG")).ResultId.Id)

    result = asyncio.run(run())
    done = subprocess.run(
        [sys.executable, "-c", CHILD, url, result], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    loaded, *found = json.loads(done.stdout)
    assert found == ["ResultDataType", "RecipeIdExternalDataType", "learned-NG", "NG"]
    assert loaded >= 20


def test_a_client_that_comes_back_finds_the_line_as_it_stands(line: ScriptedLine, url: str) -> None:
    async def run() -> None:
        async with Peer(url) as peer:
            await do(peer, "SelectModeAutomatic")
            await do(peer, "StartContinuous")
            peer.client.uaclient.protocol.transport.abort()  # the cable is pulled
        for index in range(5):
            line.trigger(part=f"alone{index}")
        async with Peer(url) as peer:
            assert await peer.state() == "ContinuousExecution"
            await peer.listen(RESULT_READY)
            line.trigger(part="seen")
            event = await peer.result_of("seen")
            previous = ident("ResultIdDataType", str(int(event.ResultId.Id) - 1))
            answer = await peer.call("ResultManagement.GetResultById", previous, int32(0))
            assert answer[1].PartId.Id == "alone4"  # what it missed, it can ask for

    asyncio.run(run())


def test_the_same_result_delivered_twice_is_told_once(
    served: tuple[ScriptedLine, OpcUaSink], line: ScriptedLine, url: str
) -> None:
    async def run() -> None:
        async with Peer(url) as peer:
            await peer.listen(RESULT_READY)
            line.start()
            result = line.wait(line.trigger(part="twice"), 20)
            assert result is not None
            again = Message(kind="result", sequence=1, wall=time.time(), body=result.to_dict())
            await peer.result_of("twice")
            await asyncio.to_thread(served[1].deliver, again)
            line.trigger(part="next")
            await peer.result_of("next")
            assert [event.PartId.Id for event in peer.events] == ["twice", "next"]

    asyncio.run(run())


def test_closing_ends_within_seconds_though_clients_hang_on_and_the_line_goes_on(tmp_path: Path) -> None:
    with ScriptedLine(running=True) as line:
        before = set(threading.enumerate())
        sink = serve(line, tmp_path, results=3)

        async def run() -> str:
            peer = Peer(sink.url)
            await peer.__aenter__()
            await peer.listen(RESULT_READY)
            assert await peer.state() == "ContinuousExecution"  # a line that starts by itself
            for index in range(5):
                line.trigger(part=f"p{index}")
            last = await peer.result_of("p4")
            answer = await peer.call("ResultManagement.GetResultById", last.ResultId, int32(0))
            assert answer[1].PartId.Id == "p4"
            with pytest.raises(ua.uaerrors.BadNotFound):  # only so many are kept
                await peer.call("ResultManagement.GetResultById", ident("ResultIdDataType", "1"), int32(0))
            started = time.monotonic()
            await asyncio.to_thread(line.detach, sink)
            assert time.monotonic() - started < 15
            return sink.url

        assert asyncio.run(run()) == ""
        with pytest.raises(DeliveryFailed):
            sink.deliver(Message(kind="state", sequence=1, wall=0.0, body={}))
        sink.close()
        assert set(threading.enumerate()) <= before
        result = line.wait(line.trigger(part="p5"), 20)
        assert result is not None
        # It opens again, as after an outage, and keeps its certificate.
        certificate = (tmp_path / "certificate.der").read_bytes()
        line.attach(sink)
        assert sink.url
        assert (tmp_path / "certificate.der").read_bytes() == certificate
        taken = OpcUaSink(
            OpcUaOptions(kind="opcua", port=int(sink.url.rsplit(":")[-1].split("/")[0]), store=tmp_path),
            line,
            "line",
            line.alarm,
        )
        with pytest.raises(DeliveryFailed, match="cannot listen"):
            taken.open()


def test_a_recipe_that_appears_or_goes_is_shown(line: ScriptedLine, url: str) -> None:
    async def run() -> None:
        async with Peer(url) as peer:
            fresh = RecipeInfo(id="screw", index=3, product="M8 screw")
            line._recipes.append(fresh)
            line.start()
            await peer.until_state("ContinuousExecution")
            assert (await peer.node("RecipeManagement.Recipes.screw.InternalId").read_value()).Id == "screw"
            assert await peer.call("RecipeManagement.Recipes.screw.Prepare") == [True, 0]
            line.change_over("bolt", wait=True)
            line._recipes[:] = [recipe for recipe in line._recipes if recipe.id != "screw"]
            line.stop()
            await peer.until_state("Ready")
            with pytest.raises(ua.uaerrors.BadNodeIdUnknown):
                await peer.node("RecipeManagement.Recipes.screw.InternalId").read_value()

    asyncio.run(run())


class Hiccup(ScriptedLine):
    """A line whose folder of recipes cannot be read while `hiccup` is set."""

    hiccup: Exception | None = None

    def recipes(self) -> list[RecipeInfo]:
        if self.hiccup is not None:
            raise self.hiccup
        return super().recipes()


def test_the_server_follows_the_line_again_after_its_recipes_could_not_be_read(tmp_path: Path) -> None:
    with Hiccup() as line:
        # Not attached: no message tells it of the line, so it has to look.
        sink = OpcUaSink(OpcUaOptions(kind="opcua", port=0, store=tmp_path), line, line.name, line.alarm)
        sink.open()

        async def told(times: int) -> None:
            end = time.monotonic() + PATIENCE
            while len([code for code, _ in line.alarms if code == "opcua-behind"]) < times:
                assert time.monotonic() < end, line.alarms
                await asyncio.sleep(0.01)

        async def run() -> None:
            async with Peer(sink.url) as peer:
                await peer.call(f"{MACHINE}.SelectModeAutomatic")
                line.hiccup = ConfigInvalid("the folder of recipes cannot be read.", where="recipes")
                await told(1)
                # What is delivered meanwhile arrives, and the server is not closed for it.
                await peer.listen(WARNING_CONDITION)
                alarm = Message(kind="alarm", sequence=1, wall=0.0, body={"code": "lamp", "what": "The lamp is dim."})
                await asyncio.to_thread(sink.deliver, alarm)
                await peer.until(lambda event: event.ConditionName == "lamp")
                line.hiccup = OSError("stale file handle")
                await told(2)
                line.hiccup = ConfigInvalid("the folder of recipes cannot be read.", where="recipes")
                await asyncio.sleep(3 * FOLLOW_EVERY)  # several looks, about which nothing new is to be said
                line.hiccup = None
                line.start()
                await peer.until_state("ContinuousExecution")
                line.stop()
                await peer.until_state("Ready")

        try:
            asyncio.run(run())
            texts = [text for code, text in line.alarms if code == "opcua-behind"]
            assert [text.rpartition("lasts: ")[2] for text in texts] == [
                "recipes: the folder of recipes cannot be read.",
                "OSError: stale file handle",
            ]
        finally:
            sink.close()
