"""The OPC UA server as an output: a thread with an event loop, between `open` and `close`."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
from typing import TYPE_CHECKING

from inspection.control import Alarm, Control
from inspection.errors import InspectionError, MissingExtra
from inspection.outputs.options import OpcUaOptions
from inspection.outputs.sink import DeliveryFailed, Message

if TYPE_CHECKING:
    from inspection.outputs.opcua.server import VisionServer

START_WITHIN = 120.0  # seconds; 3 s on a quiet core, most of it asyncua's own address space
CLOSE_WITHIN = 10.0


class OpcUaSink:
    """Publishes results, alarms and states by OPC 40100-1, and takes its methods as commands for the line.

    Args:
        control: the line that methods command.
        line: its name. alarm: tells a person of refused logins and of a server without protection.
    """

    def __init__(self, options: OpcUaOptions, control: Control, line: str, alarm: Alarm) -> None:
        self._options = options
        self._control = control
        self._line = line
        self._alarm = alarm
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._server: VisionServer | None = None

    @property
    def url(self) -> str:
        """Where it listens; empty while it does not."""
        server = self._server
        return server.url if server is not None else ""

    def open(self) -> None:
        """Listens; nothing to do if it does already.

        Raises:
            DeliveryFailed: the address is taken. ConfigInvalid, OutputUnwritable, MissingExtra.
        """
        try:
            from inspection.outputs.opcua.server import VisionServer
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] not in ("asyncua", "cryptography"):
                raise
            raise MissingExtra(
                "The output `opcua` needs the package asyncua.",
                hint="Install it with: pip install 'lightsout-inspection[opcua]'",
            ) from error
        with self._lock:
            if self._thread is not None:
                return
            server = VisionServer(self._options, self._control, self._line, self._alarm)
            started: concurrent.futures.Future[None] = concurrent.futures.Future()
            self._thread = threading.Thread(
                target=self._run, args=(server, started), name=f"opcua-{self._options.port}", daemon=True
            )
            self._thread.start()
        try:
            started.result(START_WITHIN)
        except BaseException:
            self.close()
            raise
        self._server = server

    def deliver(self, message: Message) -> None:
        """Publishes the message: it is in the address space, and on its way to every client that listens.

        Raises:
            DeliveryFailed: the server is not open, or was closed meanwhile.
        """
        server, loop = self._server, self._loop
        if server is None or loop is None:
            raise DeliveryFailed("the OPC UA server is not open.", where=self._options.host)
        taking = server.take(message)
        try:
            taken = asyncio.run_coroutine_threadsafe(taking, loop)
        except RuntimeError as error:
            taking.close()
            raise DeliveryFailed("the OPC UA server was closed.", where=self._options.host) from error
        try:
            taken.result(self._options.timeout)
        except (concurrent.futures.CancelledError, concurrent.futures.TimeoutError) as error:
            taken.cancel()
            raise DeliveryFailed(
                "the OPC UA server was closed, or did not take the message in time.", where=self._options.host
            ) from error

    def close(self) -> None:
        """Ends all connections and the thread."""
        with self._lock:
            thread, self._thread, self._server = self._thread, None, None
            loop, stop = self._loop, self._stop
        if thread is None:
            return
        if loop is not None and stop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended by itself
                loop.call_soon_threadsafe(stop.set)
        if thread is not threading.current_thread():
            thread.join(CLOSE_WITHIN)

    def _run(self, server: VisionServer, started: concurrent.futures.Future[None]) -> None:
        asyncio.run(self._serve(server, started))

    async def _serve(self, server: VisionServer, started: concurrent.futures.Future[None]) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        try:
            await server.start()
        except BaseException as error:  # noqa: BLE001 - raised again by `open`
            await server.stop()
            started.set_exception(_known(error))
            return
        started.set_result(None)
        await self._stop.wait()
        await server.stop()


def _known(error: BaseException) -> BaseException:
    """A failed start is the plant's to mend where it is one of ours; anything else keeps what it was as its cause."""
    if isinstance(error, InspectionError):
        return error
    failure = RuntimeError("the OPC UA server does not start")
    failure.__cause__ = error
    return failure
