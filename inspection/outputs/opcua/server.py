"""The OPC UA server: put together, started, fed and stopped, all in one event loop."""

from __future__ import annotations

import asyncio
import datetime
import socket
from importlib import metadata

from asyncua import Server, ua
from asyncua.crypto import uacrypto

from inspection.control import Alarm, Control
from inspection.errors import ConfigInvalid, InspectionError
from inspection.outputs.opcua.events import Conditions, Emitter
from inspection.outputs.opcua.machine import Machine
from inspection.outputs.opcua.methods import Methods
from inspection.outputs.opcua.results import SOFTWARE
from inspection.outputs.opcua.security import Gate, application_uri, own_certificate, read_certificates
from inspection.outputs.opcua.space import Space
from inspection.outputs.options import OpcUaOptions
from inspection.outputs.sink import DeliveryFailed, Message

POLICIES = {
    "none": ua.SecurityPolicyType.NoSecurity,
    "sign": ua.SecurityPolicyType.Basic256Sha256_Sign,
    "encrypt": ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt,
}
FOLLOW_EVERY = 0.25  # seconds; messages tell of most changes at once
STOP_WITHIN = 3.0  # seconds until clients that do not read are cut off
LARGEST_MESSAGE = 16 * 2**20  # bytes; a list of 1000 results with 100 defects each stays below it
EXPIRES_SOON = datetime.timedelta(days=30)


class VisionServer:
    """One server for one line. `url`: where it listens."""

    def __init__(self, options: OpcUaOptions, control: Control, line: str, alarm: Alarm) -> None:
        self.url = ""
        self._options = options
        self._control = control
        self._line = line
        self._alarm = alarm
        self._server: Server | None = None
        self._machine: Machine | None = None
        self._following: asyncio.Task[None] | None = None
        self._told: set[str] = set()

    async def start(self) -> None:
        """Listens. Raises DeliveryFailed (the address is taken), ConfigInvalid, OutputUnwritable."""
        options = self._options
        self._try_address()
        gate = Gate(options, self._alarm)
        certificate, key = own_certificate(options, f"urn:{SOFTWARE}:{self._line}")
        uri = application_uri(certificate)
        if options.trusted is not None:
            read_certificates(options.trusted)  # a folder that cannot be read is found now, not by the first client
        server = Server(iserver=gate)
        await server.init()
        server.set_server_name(f"{SOFTWARE} {self._line}")
        await server.set_application_uri(uri)
        try:
            await server.load_certificate(certificate)
            await server.load_private_key(key)
        except (OSError, ValueError, TypeError) as error:
            raise ConfigInvalid(f"the server's certificate or key cannot be read: {error}.", where=str(key)) from error
        version = metadata.version(SOFTWARE)
        now = datetime.datetime.now(datetime.UTC)
        await server.set_build_info(f"urn:{SOFTWARE}", SOFTWARE, SOFTWARE, version, "", now)
        server.limits.max_message_size = LARGEST_MESSAGE
        server.limits.max_chunk_count = LARGEST_MESSAGE // server.limits.max_recv_buffer + 1
        server.set_security_policy([POLICIES[name] for name in options.security])
        host = f"[{options.host}]" if ":" in options.host else options.host
        server.set_endpoint(f"opc.tcp://{host}:{options.port}/inspection")

        space = Space(server)
        await space.build()
        emitter = Emitter(server, space.id(""), space.types)
        conditions = Conditions(server, emitter)
        self._machine = Machine(self._control, options, space, emitter, conditions, self._behind)
        Methods(server, space, self._machine, conditions).link()
        await self._machine.start()
        try:
            await server.start()
        except OSError as error:
            raise self._taken(error) from error
        self._server = server
        assert server.bserver is not None
        self.url = f"opc.tcp://{host}:{server.bserver.port}/inspection"
        self._warn(server)
        self._following = asyncio.create_task(self._follow())

    def _try_address(self) -> None:
        """Finds a taken address before seconds go into the address space: the courier tries again and again."""
        try:
            family = socket.getaddrinfo(self._options.host, None, type=socket.SOCK_STREAM)[0][0]
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((self._options.host, self._options.port))
        except OSError as error:
            raise self._taken(error) from error

    def _taken(self, error: OSError) -> DeliveryFailed:
        return DeliveryFailed(
            f"cannot listen: {error.strerror or error}.",
            where=f"{self._options.host}:{self._options.port}",
            hint="Is another server there? Is it an address of this machine?",
        )

    async def take(self, message: Message) -> None:
        """Publishes a message."""
        assert self._machine is not None
        await self._machine.take(message)

    async def stop(self) -> None:
        """Closes every connection; one that hangs is cut off after `STOP_WITHIN` seconds."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
        server, self._server = self._server, None
        if server is None:
            return
        # What waits for a subscription's next beat goes now: the last verdicts, and that the line is closed. There is
        # nothing to be done for a client that is gone, or asks for nothing.
        subscriptions = list(server.iserver.subscription_service.subscriptions.values())
        await asyncio.gather(*(one.publish_results() for one in subscriptions), return_exceptions=True)
        transports = list(server.iserver.asyncio_transports)
        stopping = asyncio.create_task(server.stop())
        done, _ = await asyncio.wait([stopping], timeout=STOP_WITHIN)
        for transport in transports:
            transport.abort()
        if not done:
            await asyncio.wait([stopping], timeout=STOP_WITHIN)

    async def _follow(self) -> None:
        assert self._machine is not None
        while True:
            await asyncio.sleep(FOLLOW_EVERY)
            try:
                await self._machine.follow_line()
            except Exception as error:  # noqa: BLE001 - whatever it was: the next look may succeed
                self._behind(error)

    def _behind(self, error: Exception) -> None:
        """An alarm, once for each text."""
        text = str(error) if isinstance(error, InspectionError) else f"{type(error).__name__}: {error}"
        if text not in self._told:
            self._told.add(text)
            self._alarm("opcua-behind", f"OPC UA: clients do not see what the line does as long as this lasts: {text}")

    def _warn(self, server: Server) -> None:
        if weakness := self._options.unprotected:
            self._alarm("opcua-unprotected", f"OPC UA at {self.url} {weakness}.")
        certificate = uacrypto.x509_from_der(uacrypto.der_from_x509(server.iserver.certificate))
        ends = certificate.not_valid_after_utc
        if ends - datetime.datetime.now(datetime.UTC) < EXPIRES_SOON:
            self._alarm("opcua-certificate", f"OPC UA: the server's certificate is valid until {ends:%Y-%m-%d} only.")
