"""Results as an OPC UA client gets them: as events, and asked for by id or by list."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import math
import subprocess
import sys
import time
from typing import Any

import pytest

pytest.importorskip("asyncua")

from asyncua import ua

from inspection.control import LineState
from inspection.outputs.opcua import OpcUaSink
from inspection.outputs.sink import Message
from tests.outputs.opcua_client import (
    ACQUIRED,
    AUTOMATIC,
    JOB_STARTED,
    READY,
    RESULT_READY,
    Peer,
    do,
    ident,
    int32,
    start_arguments,
    uint32,
)
from tests.outputs.scripted_line import ScriptedLine

pytestmark = [pytest.mark.line, pytest.mark.slow]


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
