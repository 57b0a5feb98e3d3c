"""An OPC UA client for tests: asyncua's, with the companion specification's names."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from asyncua import Client, ua

URI = "http://opcfoundation.org/UA/MachineVision"
PATIENCE = 20.0

MACHINE = "VisionStateMachine"
AUTOMATIC = f"{MACHINE}.AutomaticModeStateMachine"
# Numbers of the companion specification's types of events.
RESULT_READY, STATE_CHANGED, JOB_STARTED, READY, ACQUIRED = 1024, 1018, 1013, 1023, 1025
RECIPE_PREPARED, ERROR_EVENT, WARNING_CONDITION, ERROR_CONDITION = 1022, 1019, 1034, 1035


def ident(kind: str, name: str = "", **more: Any) -> Any:
    """A structure that is an id: `ident("PartIdDataType", "p1")`."""
    return getattr(ua, kind)(Id=name, **more)


def int32(value: int) -> ua.Variant:
    return ua.Variant(value, ua.VariantType.Int32)


def uint32(value: int) -> ua.Variant:
    return ua.Variant(value, ua.VariantType.UInt32)


def parameters(*values: Any) -> ua.Variant:
    return ua.Variant([ua.Variant(value) for value in values], ua.VariantType.Variant, is_array=True)


CAUSE = (int32(7), "because the test says so")

# Where each method is, and what it is called with.
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


def start_arguments(
    part: str = "", meas: str = "", recipe: str = "", product: str = "", given: ua.Variant | None = None
) -> tuple[Any, ...]:
    return (
        ident("MeasIdDataType", meas),
        ident("PartIdDataType", part),
        ident("RecipeIdExternalDataType", recipe),
        ident("ProductIdDataType", product),
        given if given is not None else parameters(),
    )


def recipe_arguments(external: str = "", internal: str = "", **more: Any) -> tuple[Any, Any]:
    return ident("RecipeIdExternalDataType", external, **more), ident("RecipeIdInternalDataType", internal)


class Peer:
    """A connected client; `async with Peer(url) as peer`."""

    def __init__(
        self, url: str, *, user: str | None = None, password: str | None = None, security: str | None = None
    ) -> None:
        self.client = Client(url, timeout=PATIENCE)
        self.client.application_uri = "urn:inspection:test"
        self._security = security
        self._index = 0
        self.events: list[Any] = []
        self._arrived = asyncio.Event()
        if user is not None:
            self.client.set_user(user)
            self.client.set_password(password or "")

    async def __aenter__(self) -> Self:
        if self._security is not None:
            await self.client.set_security_string(self._security)
        await self.client.connect()
        await self.learn()
        return self

    async def learn(self) -> None:
        self._index = await self.client.get_namespace_index(URI)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.client.disconnect()

    def node(self, path: str) -> Any:
        """The node at a path below VisionSystem."""
        return self.client.get_node(ua.NodeId(f"VisionSystem.{path}" if path else "VisionSystem", 1))

    def type_id(self, number: int) -> ua.NodeId:
        return ua.NodeId(number, self._index)

    async def browse(self, *names: str) -> Any:
        """The node at a path of browse names of the companion specification below VisionSystem."""
        return await self.node("").get_child([ua.QualifiedName(name, self._index) for name in names])

    async def call(self, path: str, *arguments: Any) -> Any:
        """Calls a method by its path."""
        parent = path.rpartition(".")[0]
        return await self.node(parent).call_method(self.node(path).nodeid, *arguments)

    async def state(self) -> str:
        """The state, that inside Operational by its own name."""
        machine = "VisionStateMachine"
        end = time.monotonic() + PATIENCE
        while True:  # two reads, between which the machine may have moved on; but only for a moment
            outer = (await self.node(f"{machine}.CurrentState").read_value()).Text
            inner = (await self.node(f"{machine}.AutomaticModeStateMachine.CurrentState").read_value()).Text
            if (outer == "Operational") == bool(inner):
                return str(inner or outer)
            assert time.monotonic() < end, f"{outer} with {inner} inside"

    async def until_state(self, wanted: str) -> None:
        """Waits for the state."""
        end = time.monotonic() + PATIENCE
        while (found := await self.state()) != wanted:
            assert time.monotonic() < end, f"{found}, never {wanted}"
            await asyncio.sleep(0.005)

    async def listen(self, *types: int, at_server: bool = False) -> Any:
        """Subscribes to events of these types of the companion specification; they come into `events`."""
        source = self.client.nodes.server if at_server else self.node("")
        subscription = await self.client.create_subscription(10, self)
        await subscription.subscribe_events(source, [self.client.get_node(self.type_id(number)) for number in types])
        return subscription

    def event_notification(self, event: Any) -> None:
        self.events.append(event)
        self._arrived.set()

    async def until(self, wanted: Callable[[Any], bool]) -> Any:
        """Waits for an event, those that came already included."""
        end = time.monotonic() + PATIENCE
        while True:
            self._arrived.clear()
            found = next((event for event in self.events if wanted(event)), None)
            if found is not None:
                return found
            await asyncio.wait_for(self._arrived.wait(), end - time.monotonic())

    async def result_of(self, part: str) -> Any:
        """Waits for the ResultReadyEvent of a part."""
        return await self.until(lambda event: getattr(event, "PartId", None) is not None and event.PartId.Id == part)


async def do(peer: Peer, method: str) -> Any:
    """Calls a method of `METHODS` with arguments that it accepts."""
    folder, given = METHODS[method]
    if method.endswith("Recipe"):
        given = recipe_arguments(*given)
    elif method.endswith("Product"):
        given = (ident("ProductIdDataType", *given),)
    elif method.startswith("Start"):
        given = start_arguments()
    return await peer.call(f"{folder}.{method}", *given)


async def home(url: str) -> None:
    """Leads the machine of a line that is stopped to Preoperational, with no alarm open."""
    async with Peer(url) as peer:
        if await peer.state() not in ("Preoperational", "Halted"):
            await peer.call(f"{MACHINE}.Halt", *CAUSE)
        if await peer.state() == "Halted":
            await peer.call(f"{MACHINE}.Reset", *CAUSE)
        await peer.call(f"{MACHINE}.ConfirmAll", ua.LocalizedText(""))
