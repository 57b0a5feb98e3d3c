"""The line commanded by the methods of OPC UA for Machine Vision, through a real client on loopback."""

from __future__ import annotations

import asyncio

import pytest

pytest.importorskip("asyncua")

from asyncua import ua

from inspection.control import LineState, RecipeInfo
from inspection.errors import ModelInvalid
from tests.outputs.opcua_client import (
    AUTOMATIC,
    MACHINE,
    METHODS,
    RECIPE_PREPARED,
    RESULT_READY,
    STATE_CHANGED,
    WARNING_CONDITION,
    Peer,
    do,
    ident,
    int32,
    parameters,
    recipe_arguments,
    start_arguments,
    uint32,
)
from tests.outputs.scripted_line import ScriptedLine

pytestmark = [pytest.mark.line, pytest.mark.slow]

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
                if method == "Stop":
                    await peer.until_state(target)  # once the line's word that it has stopped is here
                    line.open_gate.set()
                    await peer.until_state("Ready")
                else:
                    assert await peer.state() == target, method

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
