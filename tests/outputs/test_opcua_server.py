"""The OPC UA server: its address space, the alarms that stand in it, how it follows the line, and how it ends."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from pathlib import Path

import pytest

pytest.importorskip("asyncua")

from asyncua import ua

from inspection.control import RecipeInfo
from inspection.errors import ConfigInvalid, ModelInvalid
from inspection.outputs.opcua import OpcUaSink
from inspection.outputs.opcua.server import FOLLOW_EVERY
from inspection.outputs.options import OpcUaOptions
from inspection.outputs.sink import DeliveryFailed, Message
from tests.outputs.opcua_client import (
    AUTOMATIC,
    ERROR_CONDITION,
    ERROR_EVENT,
    MACHINE,
    PATIENCE,
    RESULT_READY,
    WARNING_CONDITION,
    Peer,
    do,
    ident,
    int32,
    start_arguments,
    uint32,
)
from tests.outputs.scripted_line import ScriptedLine

pytestmark = [pytest.mark.line, pytest.mark.slow]


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


def test_closing_ends_within_seconds_though_clients_hang_on_and_the_line_goes_on(tmp_path: Path) -> None:
    with ScriptedLine(running=True) as line:
        before = set(threading.enumerate())
        options = OpcUaOptions(kind="opcua", port=0, store=tmp_path, results=3)
        sink = OpcUaSink(options, line, line.name, line.alarm)
        line.attach(sink)

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
