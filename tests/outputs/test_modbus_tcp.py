"""The Modbus server by itself: its functions, units, connections, and what it refuses."""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inspection.outputs import modbus_map
from inspection.outputs.modbus import ModbusSink
from inspection.outputs.modbus_map import Command, Status
from inspection.outputs.modbus_tcp import answer
from inspection.outputs.options import ModbusOptions
from inspection.outputs.sink import DeliveryFailed
from tests.outputs.plc import MAP, WAIT, ModbusTcpClient, Plc, serving, until, value
from tests.outputs.scripted_line import ScriptedLine

pytestmark = pytest.mark.line


def test_one_connection_more_than_allowed_closes_the_one_that_was_silent_for_longest() -> None:
    with ScriptedLine(running=True) as line, serving(line, connections=2) as (sink, plc):
        silent = Plc(sink.port)
        assert silent.get("version") == modbus_map.VERSION
        assert plc.get("version") == modbus_map.VERSION
        third = Plc(sink.port)
        assert third.get("version") == modbus_map.VERSION
        assert silent.client.read_holding_registers(0, 1) is None
        assert plc.client.read_holding_registers(0, 1) == [modbus_map.VERSION]
        silent.client.close()
        third.client.close()


def test_coils_are_the_commands_and_discrete_inputs_the_status() -> None:
    with (
        ScriptedLine(running=True) as line,
        serving(line) as (sink, plc),
        ModbusTcpClient("127.0.0.1", port=sink.port, timeout=WAIT) as client,
    ):
        assert client.read_discrete_inputs(0, count=3).bits[:3] == [True, False, False]
        assert not client.write_coil(0, True).isError()
        assert client.read_coils(0, count=6).bits[:6] == [True] + [False] * 5
        assert plc.get("triggers") == 1
        plc.until(Status.RESULTS_READY)
        assert client.read_discrete_inputs(2, count=2).bits[:2] == [True, True]
        assert not client.write_coils(0, [False, True]).isError()
        assert Status.RESULTS_READY not in plc.status()
        assert not client.write_coils(0, [False, False, False, True]).isError()
        until(lambda: plc.get("state") == 1, "it never stopped")
        both = client.read_input_registers(0, count=105).registers
        assert value("state", both) == 1
        assert value("serial", both) == "1"


def test_masked_writes_and_combined_requests_reach_the_same_registers() -> None:
    with (
        ScriptedLine(running=True) as line,
        serving(line) as (sink, plc),
        ModbusTcpClient("127.0.0.1", port=sink.port, timeout=WAIT) as client,
    ):
        assert not client.mask_write_register(address=200, and_mask=0xFFFE, or_mask=0x0001).isError()
        assert plc.get("accepted") == 1
        assert not client.mask_write_register(address=200, and_mask=0xFFFE, or_mask=0).isError()
        combined = client.readwrite_registers(
            read_address=MAP["accepted"][0], read_count=2, write_address=200, values=[1]
        )
        assert combined.registers == [0, 2]  # the write came first


def test_requests_that_cannot_be_carried_out_get_the_exception_that_the_specification_names() -> None:
    def ask(*fields: int, form: str) -> tuple[int, ...] | None:
        """The exception code; None: the request was carried out."""
        pdu = struct.pack(form, *fields)
        plain.sendall(struct.pack(">HHHB", 9, 0, len(pdu) + 1, 1) + pdu)
        head = stream.read(7)
        transaction, protocol, follows, unit = struct.unpack(">HHHB", head)
        assert (transaction, protocol, unit) == (9, 0, 1)
        body = stream.read(follows - 1)
        return (body[0] - 0x80, body[1]) if body[0] & 0x80 else None

    with (
        ScriptedLine(running=True) as line,
        serving(line) as (sink, plc),
        socket.create_connection(("127.0.0.1", sink.port), timeout=WAIT) as plain,
        plain.makefile("rb") as stream,
    ):
        assert ask(3, 0, 105, form=">BHH") is None
        assert ask(3, 0, 0, form=">BHH") == (3, 3)
        assert ask(3, 0, 126, form=">BHH") == (3, 3)
        assert ask(4, 104, 2, form=">BHH") == (4, 2)
        assert ask(3, 65535, 2, form=">BHH") == (3, 2)
        assert ask(3, 0, form=">BH") == (3, 3)
        assert ask(7, form=">B") == (7, 1)
        assert ask(43, 14, 1, 0, form=">BBBB") == (43, 1)
        assert ask(6, 3, 1, form=">BHH") == (6, 2)  # read only
        assert ask(16, 104, 97, 194, *[0] * 97, form=">BHHB97H") == (16, 2)  # from one area into the other
        assert ask(6, 200, 64, form=">BHH") == (6, 3)  # a bit without a meaning
        assert ask(6, 204, 1, form=">BHH") == (6, 3)  # half of the encoder
        assert ask(16, 203, 2, 4, 9, 9, form=">BHHBHH") == (16, 3)  # likewise, and the heartbeat stays as it was
        assert ask(16, 200, 1, 4, 1, form=">BHHBH") == (16, 3)  # the byte count lies
        assert ask(16, 200, 0, 0, form=">BHHB") == (16, 3)
        assert ask(6, 206, 0x0741, form=">BHH") == (6, 3)  # a control character
        assert ask(5, 0, 0x1234, form=">BHH") == (5, 3)
        assert ask(5, 6, 0xFF00, form=">BHH") == (5, 2)
        assert ask(1, 0, 7, form=">BHH") == (1, 2)
        assert ask(2, 0, 13, form=">BHH") == (2, 2)
        assert ask(15, 0, 2, 2, 3, 0, form=">BHHBBB") == (15, 3)
        assert ask(23, 500, 1, 200, 1, 2, 1, form=">BHHHHBH") == (23, 2)  # cannot be read: nothing is written
        assert ask(22, 204, 0, 1, form=">BHHH") == (22, 3)
        assert plc.read("command", "lot_in") == [0] * 46
        assert (plc.get("triggers"), line.encoder) == (0, None)
        plain.sendall(struct.pack(">HHHBB", 1, 7, 2, 1, 3))  # another protocol: nothing can be read any more
        assert stream.read(1) == b""


def test_only_the_units_of_this_machine_are_answered() -> None:
    with ScriptedLine(running=True) as line, serving(line, unit=17) as (sink, _):
        for unit, error in ((17, 0), (255, 0), (0, 0), (1, 11), (18, 11)):
            plc = Plc(sink.port, unit=unit)
            assert (plc.client.read_holding_registers(0, 1) is None) == (error != 0)
            assert plc.client.last_except == error
            plc.client.close()


def test_a_shorter_text_leaves_nothing_of_the_longer_one_before() -> None:
    with ScriptedLine(running=True) as line, serving(line) as (_, plc):
        plc.put("serial_in", "a long serial number-NG")
        assert plc.client.write_multiple_registers(206, [0x4231])
        plc.command(Command.TRIGGER)
        plc.until(Status.RESULTS_READY)
        assert (plc.get("serial"), plc.get("verdict")) == ("B1", 1)


def test_a_port_that_is_taken_or_not_allowed_says_so() -> None:
    with ScriptedLine() as line, socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        sink = ModbusSink(ModbusOptions(kind="modbus", port=port), line, "line", line.alarm)
        with pytest.raises(DeliveryFailed, match=rf"127\.0\.0\.1:{port}: cannot listen"):
            sink.open()
        taken.close()
        sink.open()
        assert sink.port == port
        sink.close()


@given(st.binary(min_size=1, max_size=253))
def test_whatever_is_asked_has_an_answer_of_its_function_and_does_nothing_when_it_is_refused(request: bytes) -> None:
    class Nothing:
        written: list[Any] = []  # noqa: RUF012

        def read(self, address: int, count: int) -> list[int]:
            return [0] * count

        def write(self, address: int, values: Sequence[int]) -> None:
            self.written.append(values)

        def read_coils(self, address: int, count: int) -> list[bool]:
            return [False] * count

        read_inputs = read_coils

        def write_coils(self, address: int, values: Sequence[bool]) -> None:
            self.written.append(values)

    memory = Nothing()
    memory.written = []
    got = answer(memory, request)
    assert got[0] | 0x80 == request[0] | 0x80
    assert len(got) <= 253
    if got[0] & 0x80:
        assert len(got) == 2
        assert memory.written == []
