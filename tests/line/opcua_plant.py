"""A line that an OPC UA client leads: recipes, models, record and server are those of a plant; the camera is one of the
tests'."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from inspection.line.line import Line
from tests.line.plant import until
from tests.line.rig import Scene, balanced, one_view, streaming
from tests.outputs.conftest import free_port
from tests.outputs.opcua_client import (
    AUTOMATIC,
    RECIPE_PREPARED,
    Peer,
    ident,
    int32,
    recipe_arguments,
    start_arguments,
    uint32,
)

PATTERN = [False, True, True, False, True, False, False, True]  # a verdict on another part's frame would show
STRICT = {"ok_below": 0.05, "ng_above": 0.06, "pixel_above": 0.06}  # every image is NG by it: the darkest has 0.08


@dataclass
class Plant:
    """The line, what lies before its camera, and where its server listens."""

    line: Line
    scene: Scene
    url: str
    tried: Counter[str] = field(default_factory=Counter)  # the line's account at the test's beginning

    def account(self) -> dict[str, int]:
        """What the line has counted since the test began, after all accounts were held against each other."""
        now = balanced(self.line)["line"]
        return {key: now[key] - self.tried[key] for key in now}


def recipes(folder: Path, **changes: Any) -> tuple[Path, int]:
    """`screen`, and `strict` by which every image is NG and a network run hangs after 0.6 s; the server's port."""
    port = free_port()
    screen = one_view(folder, outputs=[{"kind": "opcua", "port": port}], **changes)
    values = yaml.safe_load(screen.read_text())
    values["product"] = "strict parts"
    values["views"]["top"]["operating_point"] = STRICT
    values["work"]["hang"] = 0.6
    (folder / "strict.yaml").write_text(yaml.safe_dump(values))
    return screen, port


def opened(screen: Path, port: int, scene: Scene) -> Plant:
    line = Line(screen, name="press 3", camera=scene.camera)
    line.open()
    courier = line.outlets.couriers["opcua"]
    until(lambda: streaming(line) and courier.state == "connected", seconds=60.0, what="server and camera")
    return Plant(line, scene, f"opc.tcp://127.0.0.1:{port}/inspection")


async def when(condition: Callable[[], bool], what: str = "") -> None:
    """Waits for something that the line does, while the client goes on listening."""
    await asyncio.to_thread(until, condition, what=what)


def of_type(peer: Peer, *types: int) -> list[Any]:
    """What came of these types of events, in its order."""
    wanted = [peer.type_id(number) for number in types]
    return [event for event in peer.events if event.EventType in wanted]


def verdict(event: Any) -> str:
    """The verdict in a result's event, which is the same in its document and in its state."""
    document, told, _, part = (variant.Value for variant in event.ResultContent)
    body = json.loads(document)
    assert (told, part) == (body["verdict"], body["part"])
    assert part == event.PartId.Id
    assert event.ResultState == (4 if told == "ERROR" else 1)
    return str(told)


def code(event: Any) -> str | None:
    return json.loads(event.ResultContent[0].Value)["code"]  # type: ignore[no-any-return]


async def single(plant: Plant, peer: Peer, part: str, *, bad: bool, fault: str | None = None) -> Any:
    """One part by StartSingleJob, before a camera that streams; its result's event."""
    await when(lambda: streaming(plant.line), "camera")
    plant.scene.bad = bad
    if fault is not None:
        plant.scene.faults[plant.scene.exposures + 1] = fault
    job, error = await peer.call(f"{AUTOMATIC}.StartSingleJob", *start_arguments(part))
    assert error == 0
    event = await peer.result_of(part)
    assert event.JobId.Id == job.Id
    return event


async def prepare(plant: Plant, peer: Peer, recipe: str) -> Any:
    """PrepareRecipe; returns the event that says that the recipe has taken over."""
    before = len(of_type(peer, RECIPE_PREPARED))
    internal, completed, error = await peer.call("RecipeManagement.PrepareRecipe", *recipe_arguments(recipe))
    assert (internal.Id, error) == (recipe, 0)
    await peer.until(lambda _: len(of_type(peer, RECIPE_PREPARED)) > before)
    if not completed:  # the machine is slow: the next change-over is refused until this one has tidied up
        await when(lambda: plant.line.changing_to is None, "change-over")
    return of_type(peer, RECIPE_PREPARED)[-1]


async def exposed(plant: Plant, part: str, *, bad: bool) -> int:
    """A part of the running line, when its frame has been taken; returns its number."""
    plant.scene.bad = bad
    before = plant.scene.exposures
    number = plant.line.trigger(part=part)
    await when(lambda: plant.scene.exposures > before, "exposure")
    return number


async def results_of_job(peer: Peer, job: str) -> list[Any]:
    """What GetResultListFiltered gives for a job, oldest first."""
    kinds = ("MeasIdDataType", "PartIdDataType", "RecipeIdExternalDataType", "RecipeIdInternalDataType",
             "ConfigurationIdDataType", "ConfigurationIdDataType", "ProductIdDataType")  # fmt: skip
    complete, _, _, found, error = await peer.call(
        "ResultManagement.GetResultListFiltered", int32(0), *map(ident, kinds), ident("JobIdDataType", job),
        uint32(0), uint32(0), int32(0),
    )  # fmt: skip
    assert (complete, error) == (True, 0)
    return list(reversed(found))
