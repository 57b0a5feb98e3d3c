"""Modbus TCP on the server's side, after "MODBUS Application Protocol V1.1b3" and "Messaging on TCP/IP V1.0b".

Written here because a request that gets lost may be a part: pymodbus 3.16.1 as a server answers 2 of 50 requests that
a client sends without waiting (its receive buffer is emptied at each answer), reads of 0 or 126 registers with
function 0x80, a foreign unit with "device failure", and bounds no connections. Here every request of a connection is
carried out once, in its order, and what is wrong with it has the exception code that the specification names.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Container, Sequence
from enum import IntEnum
from typing import Any, Protocol, cast

_HEADER = struct.Struct(">HHHB")  # transaction, protocol (0), bytes that follow, unit
_TWO = struct.Struct(">HH")


class Fault(IntEnum):
    """Exception codes."""

    FUNCTION = 1
    ADDRESS = 2
    VALUE = 3
    NO_SUCH_UNIT = 11  # "gateway target device failed to respond"


class ModbusFault(Exception):
    """A request that is answered by an exception code; nothing of it was carried out."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault)
        self.fault = fault


class Memory(Protocol):
    """What is served. Called from the server's thread alone. Every method raises ModbusFault, and then does nothing."""

    def read(self, address: int, count: int) -> Sequence[int]:
        """`count` holding registers, which are the input registers too, as they stand at one moment."""

    def write(self, address: int, values: Sequence[int]) -> None:
        """All of them or none."""

    def read_coils(self, address: int, count: int) -> Sequence[bool]: ...

    def read_inputs(self, address: int, count: int) -> Sequence[bool]: ...

    def write_coils(self, address: int, values: Sequence[bool]) -> None: ...


def answer(memory: Memory, request: bytes) -> bytes:
    """The answer to a request, both without header: functions 1 to 6, 15, 16, 22 and 23, or an exception."""
    function, data = request[0], request[1:]
    carry_out = _FUNCTIONS.get(function)
    try:
        if carry_out is None:
            raise ModbusFault(Fault.FUNCTION)
        return bytes([function]) + carry_out(memory, data)
    except ModbusFault as error:
        return bytes([function | 0x80, error.fault])


def _two(data: bytes, *, more: bool = False) -> tuple[int, int]:
    if len(data) < 4 or (len(data) > 4 and not more):
        raise ModbusFault(Fault.VALUE)
    first, second = _TWO.unpack_from(data)
    return first, second


def _counted(data: bytes, most: int) -> tuple[int, int]:
    address, count = _two(data)
    if not 1 <= count <= most:
        raise ModbusFault(Fault.VALUE)
    return address, count


def _registers(data: bytes, count: int, most: int) -> tuple[int, ...]:
    """The values behind a byte count; all three must agree."""
    if not 1 <= count <= most or len(data) != 1 + 2 * count or data[0] != 2 * count:
        raise ModbusFault(Fault.VALUE)
    return struct.unpack(f">{count}H", data[1:])


def _packed(values: Sequence[int]) -> bytes:
    return struct.pack(f">B{len(values)}H", 2 * len(values), *values)


def _bits(values: Sequence[bool]) -> bytes:
    size = (len(values) + 7) // 8
    return bytes([size]) + sum(1 << index for index, value in enumerate(values) if value).to_bytes(size, "little")


def _read_coils(memory: Memory, data: bytes) -> bytes:
    return _bits(memory.read_coils(*_counted(data, 2000)))


def _read_inputs(memory: Memory, data: bytes) -> bytes:
    return _bits(memory.read_inputs(*_counted(data, 2000)))


def _read(memory: Memory, data: bytes) -> bytes:
    return _packed(memory.read(*_counted(data, 125)))


def _write_coil(memory: Memory, data: bytes) -> bytes:
    address, value = _two(data)
    if value not in (0x0000, 0xFF00):
        raise ModbusFault(Fault.VALUE)
    memory.write_coils(address, [value != 0])
    return data


def _write_one(memory: Memory, data: bytes) -> bytes:
    address, value = _two(data)
    memory.write(address, [value])
    return data


def _write_coils(memory: Memory, data: bytes) -> bytes:
    address, count = _two(data, more=True)
    size = (count + 7) // 8
    if not 1 <= count <= 1968 or len(data) != 5 + size or data[4] != size:
        raise ModbusFault(Fault.VALUE)
    bits = int.from_bytes(data[5:], "little")
    memory.write_coils(address, [bool(bits >> index & 1) for index in range(count)])
    return data[:4]


def _write(memory: Memory, data: bytes) -> bytes:
    address, count = _two(data, more=True)
    memory.write(address, _registers(data[4:], count, 123))
    return data[:4]


def _mask(memory: Memory, data: bytes) -> bytes:
    if len(data) != 6:
        raise ModbusFault(Fault.VALUE)
    address, keep, put = struct.unpack(">HHH", data)
    before = memory.read(address, 1)[0]
    memory.write(address, [(before & keep) | (put & ~keep & 0xFFFF)])
    return data


def _write_and_read(memory: Memory, data: bytes) -> bytes:
    address, count = _two(data, more=True)
    if not 1 <= count <= 125:
        raise ModbusFault(Fault.VALUE)
    to, amount = _two(data[4:], more=True)
    values = _registers(data[8:], amount, 121)
    memory.read(address, count)  # may it be read at all? Before anything is written.
    memory.write(to, values)
    return _packed(memory.read(address, count))


_FUNCTIONS: dict[int, Callable[[Memory, bytes], bytes]] = {
    1: _read_coils,
    2: _read_inputs,
    3: _read,
    4: _read,
    5: _write_coil,
    6: _write_one,
    15: _write_coils,
    16: _write,
    22: _mask,
    23: _write_and_read,
}


class _Connection(asyncio.Protocol):
    """One client. Its requests are answered as they come, so a client may send the next before it has the answer."""

    def __init__(self, server: ModbusServer) -> None:
        self.server = server
        self.used = 0.0  # loop time
        self.transport: asyncio.Transport | None = None
        self._received = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self.server.admit(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self.server.connections.discard(self)

    def data_received(self, data: bytes) -> None:
        assert self.transport is not None
        self.used = asyncio.get_running_loop().time()
        self._received += data
        while len(self._received) >= _HEADER.size and not self.transport.is_closing():
            transaction, protocol, follows, unit = _HEADER.unpack_from(self._received)
            if protocol != 0 or not 2 <= follows <= 254:
                self.transport.abort()  # no Modbus, and nothing says where a request would begin
                return
            end = 6 + follows
            if len(self._received) < end:
                return
            request = bytes(self._received[_HEADER.size : end])
            del self._received[:end]
            if unit in self.server.units:
                reply = answer(self.server.memory, request)
            else:
                reply = bytes([request[0] | 0x80, Fault.NO_SUCH_UNIT])
            self.transport.write(_HEADER.pack(transaction, 0, 1 + len(reply), unit) + reply)

    def pause_writing(self) -> None:
        """The client asks and does not read: it gets no further turn before it does."""
        assert self.transport is not None
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        assert self.transport is not None
        self.transport.resume_reading()


class ModbusServer:
    """Serves a memory from a thread of its own.

    Args:
        units: unit ids that are answered; any other gets exception 11.
        limit: connections at a time. One more closes the one that was silent for longest, as the messaging guide says:
            a PLC that was switched off leaves connections behind, and must get in again.
        tick: called every `every` seconds in the server's thread.
        failed: told what was raised where nothing may be raised: by the memory, which ends that connection, or by
            `tick`, which goes on. Not told twice in a row of the same.
    """

    def __init__(
        self,
        memory: Memory,
        *,
        units: Container[int],
        limit: int,
        tick: Callable[[], None],
        every: float,
        failed: Callable[[str], None],
        name: str = "modbus",
    ) -> None:
        self.memory = memory
        self.units = units
        self.connections: set[_Connection] = set()
        self.port = 0
        self._limit = limit
        self._tick = tick
        self._every = every
        self._failed = failed
        self._name = name
        self._loop = asyncio.new_event_loop()
        self._thread: threading.Thread | None = None
        self._stopping = asyncio.Event()
        self._told = ""  # what failed last, until a tick succeeds

    def start(self, host: str, port: int) -> None:
        """Listens; raises OSError. Port 0 takes any that is free, and `port` says which."""
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen()
        except OSError:
            listener.close()
            raise
        self.port = listener.getsockname()[1]
        self._thread = threading.Thread(target=self._run, args=(listener,), name=self._name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Closes all connections and ends the thread. May be called twice and from any thread but its own."""
        if self._thread is None:
            self._loop.close()
        elif not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join()

    def admit(self, connection: _Connection) -> None:
        """Called by a connection that was made."""
        connection.used = self._loop.time()
        while len(self.connections) >= self._limit:
            silent = min(self.connections, key=lambda one: one.used)
            self.connections.discard(silent)
            if silent.transport is not None:
                silent.transport.abort()
        self.connections.add(connection)

    def _run(self, listener: socket.socket) -> None:
        try:
            self._loop.run_until_complete(self._serve(listener))
        finally:
            self._loop.close()

    async def _serve(self, listener: socket.socket) -> None:
        self._loop.set_exception_handler(self._report)
        server = await self._loop.create_server(lambda: _Connection(self), sock=listener)
        self._loop.call_soon(self._beat)
        await self._stopping.wait()
        server.close()
        for connection in list(self.connections):
            if connection.transport is not None:
                connection.transport.abort()
        await asyncio.sleep(0)  # the transports close their sockets in the next round

    def _beat(self) -> None:
        self._loop.call_later(self._every, self._beat)
        self._tick()
        self._told = ""

    def _report(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        what = f"{type(error).__name__}: {error}" if error else str(context["message"])
        if what != self._told:  # else it fails again at every beat or read
            self._told = what
            self._failed(what)
