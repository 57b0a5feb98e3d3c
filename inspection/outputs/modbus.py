"""The PLC's handshake over Modbus TCP: a way out for results, and a door in for triggers and commands.

Whatever a PLC reads in one request belongs together: registers change under one lock, and a request is answered under
it. Commands act on the rising edge of a bit that only the PLC lowers again, so that a request that is repeated, by a
PLC that writes in every cycle or by one that missed the answer, makes no second part.
"""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from inspection.control import Alarm, Control, LineState, NotReady
from inspection.errors import ConfigInvalid, InspectionError
from inspection.outputs.modbus_map import (
    COMMANDS,
    NO_RESULT,
    ORDER,
    OUTCOMES,
    READ_ONLY,
    REGISTERS,
    STATES,
    VERSION,
    WRITABLE,
    Command,
    Refusal,
    Status,
    Written,
    code_number,
    result_values,
)
from inspection.outputs.modbus_tcp import Fault, ModbusFault, ModbusServer
from inspection.outputs.options import ModbusOptions
from inspection.outputs.sink import DeliveryFailed, Message
from inspection.results import Verdict

_U16, _U32 = 0xFFFF, 0xFFFFFFFF


class ModbusSink:
    """Serves the registers of docs/modbus.md. Implements `Sink`; also a `Memory` for its server.

    Args:
        control: the line that the PLC commands. line: its name, for the thread's.
        alarm: told of results that the PLC did not acknowledge, of a PLC whose heartbeat stopped, and of faults here.
    """

    def __init__(self, options: ModbusOptions, control: Control, line: str, alarm: Alarm) -> None:
        self._options = options
        self._control = control
        self._line = line
        self._alarm = alarm
        self._server: ModbusServer | None = None
        # Of all that follows. `control` and `alarm` are never called under it: they may wait for a `deliver`.
        self._changed = threading.Condition()
        self._closed = False
        self._registers = [0] * WRITABLE.stop
        self._outcome = Status(0)  # of the result that stands in the registers
        self._ready = False
        self._published: tuple[object, ...] | None = None  # the message of that result
        self._flags = Status(0)  # ALARM, REFUSED, PLC_LOST
        self._encoder: int | None = None  # unwrapped
        self._recipes: dict[str, int] = {}  # index by id, of those that were current
        self._plc_seen = time.monotonic()
        self._counts = dict.fromkeys(("heartbeat", "alarms", "refused", "unacknowledged"), 0)
        self._put("version", VERSION)
        for name, value in NO_RESULT.items():
            self._put(name, value)

    @property
    def port(self) -> int:
        """Where it listens; 0: it does not."""
        return self._server.port if self._server else 0

    # The way out.

    def open(self) -> None:
        """Listens; nothing happens when it does already. What stands in the registers outlives `close`."""
        if self._server is not None:
            return
        where = f"{self._options.host}:{self._options.port}"
        self._closed = False
        self._plc_seen = time.monotonic()
        server = ModbusServer(
            self,
            units={0, 255, self._options.unit},
            limit=self._options.connections,
            tick=self._tick,
            every=self._options.heartbeat,
            failed=lambda what: self._alarm("modbus-failed", f"The Modbus server at {where} failed: {what}."),
            name=f"modbus-{self._line}",
        )
        self._refresh()
        try:
            server.start(self._options.host, self._options.port)
        except OSError as error:
            server.stop()
            if error.errno == errno.EACCES:
                raise ConfigInvalid(
                    "may not listen there.",
                    where=where,
                    hint="Ports below 1024 want a right: give the service CAP_NET_BIND_SERVICE, or take another port.",
                ) from error
            raise DeliveryFailed(
                f"cannot listen: {error.strerror or error}.",
                where=where,
                hint="Is another line or program at this port, and is the address one of this machine?",
            ) from error
        self._server = server

    def deliver(self, message: Message) -> None:
        """A result stands in the registers, and with `acknowledge` the PLC has read it.

        Raises:
            DeliveryFailed: the PLC did not acknowledge it in time, holds ACKNOWLEDGE, or its heartbeat stands still.
        """
        if message.kind == "alarm":
            with self._changed:
                self._put("alarm", code_number(message.body.get("code")))
                self._flags |= Status.ALARM
                self._count("alarms")
        elif message.kind == "result":
            self._deliver_result(message)
        # `state` stands in the registers already: they are fetched from the line at every read.

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            server, self._server = self._server, None
        if server is not None:
            server.stop()

    def _deliver_result(self, message: Message) -> None:
        judged_by = self._recipe_index(message.body["recipe"])
        values = result_values(message.body, self._options.classes) | {"judged_by": judged_by}
        patience = self._options.acknowledge
        until = time.monotonic() + (patience or 0.0)
        if self._options.gate and message.deadline is not None:
            until = min(until, message.deadline)  # the next part must not be late too

        def wait(done: Callable[[], bool], what: str) -> None:
            if not self._changed.wait_for(lambda: done() or self._closed, until - time.monotonic()) or self._closed:
                raise DeliveryFailed(what, where=f"part {message.body['number']}")

        replaced: Written | None = None
        try:
            with self._changed:
                if self._flags & Status.PLC_LOST:
                    raise DeliveryFailed("the PLC's heartbeat stands still.", where=f"part {message.body['number']}")
                if self._published != _identity(message):  # else it is tried again
                    if patience is not None:
                        # A slow PLC would not see RESULTS_READY fall and rise again, and wait for ever.
                        wait(lambda: not self._commands() & Command.ACKNOWLEDGE, "the PLC never lowers ACKNOWLEDGE.")
                    if self._ready:
                        self._count("unacknowledged")
                        replaced = self._get("number")
                    self._publish(values, message)
                if patience is not None:
                    wait(lambda: not self._ready, f"the PLC has not acknowledged it within {patience:g} s.")
        finally:
            if replaced is not None and patience is not None:
                self._alarm("result-unacknowledged", f"The PLC never acknowledged the result of part {replaced}.")

    def _recipe_index(self, recipe: str) -> int:
        self._refresh()  # it is the current one, or was when somebody last looked
        if recipe not in self._recipes:  # seldom: the line reads all recipes' files to answer
            self._recipes |= {one.id: one.index for one in self._control.recipes()}
        return self._recipes.get(recipe, -1)

    def _publish(self, values: Mapping[str, Written], message: Message) -> None:
        sequence = int(self._get("sequence")) % _U16 + 1
        for name, value in values.items():
            self._put(name, value)
        self._put("sequence", sequence)
        self._put("sequence_again", sequence)
        self._outcome = OUTCOMES[Verdict(message.body["verdict"])]
        self._ready = True
        self._published = _identity(message)

    # What the PLC asks: all from the server's thread.

    def read(self, address: int, count: int) -> Sequence[int]:
        """See `Memory`."""
        wanted = range(address, address + count)
        if not any(wanted.start in area and wanted.stop <= area.stop for area in (READ_ONLY, WRITABLE)):
            raise ModbusFault(Fault.ADDRESS)
        if address in READ_ONLY:
            self._refresh()
        with self._changed:
            return self._registers[wanted.start : wanted.stop]

    def read_coils(self, address: int, count: int) -> Sequence[bool]:
        """See `Memory`."""
        return self._bits(REGISTERS["command"].address, len(Command), address, count)

    def read_inputs(self, address: int, count: int) -> Sequence[bool]:
        """See `Memory`."""
        return self._bits(REGISTERS["status"].address, len(Status), address, count)

    def _bits(self, register: int, known: int, address: int, count: int) -> list[bool]:
        if address + count > known:
            raise ModbusFault(Fault.ADDRESS)
        word = self.read(register, 1)[0]
        return [bool(word >> bit & 1) for bit in range(address, address + count)]

    def write_coils(self, address: int, values: Sequence[bool]) -> None:
        """See `Memory`."""
        if address + len(values) > len(Command):
            raise ModbusFault(Fault.ADDRESS)
        word = int(self._commands())
        for bit, value in enumerate(values, start=address):
            word = word | 1 << bit if value else word & ~(1 << bit)
        self.write(REGISTERS["command"].address, [word])

    def write(self, address: int, values: Sequence[int]) -> None:
        """See `Memory`. Commands are carried out after everything else that the request wrote, whatever the order."""
        start, end = address, address + len(values)
        if start not in WRITABLE or end > WRITABLE.stop:
            raise ModbusFault(Fault.ADDRESS)
        before = self._registers[WRITABLE.start : WRITABLE.stop]  # nobody else writes there
        after = list(before)
        after[start - WRITABLE.start : end - WRITABLE.start] = values
        written: dict[str, Written] = {}
        for register in COMMANDS:
            if register.end <= start or end <= register.address:
                continue
            whole = start <= register.address and register.end <= end
            if register.kind == "text" and start <= register.address:
                # What an earlier, longer text left behind this one goes.
                for index in range(max(end, register.address), register.end):
                    after[index - WRITABLE.start] = 0
            elif register.kind != "text" and not whole:
                raise ModbusFault(Fault.VALUE)  # half of a number, with the other half of an older one
            try:
                value = register.decode(after[register.address - WRITABLE.start : register.end - WRITABLE.start])
            except ValueError as error:
                raise ModbusFault(Fault.VALUE) from error
            written[register.name] = value
        if int(written.get("command", 0)) >> len(Command):
            raise ModbusFault(Fault.VALUE)
        old, beat = self._commands(), self._get("plc_heartbeat")
        with self._changed:
            self._registers[WRITABLE.start : WRITABLE.stop] = after
            if "plc_heartbeat" in written and written["plc_heartbeat"] != beat:
                self._plc_seen = time.monotonic()
            self._changed.notify_all()
        if "encoder_in" in written:
            self._turn(int(written["encoder_in"]))
        self._carry_out(self._commands() & ~old)
        with self._changed:
            self._put("echo", int(self._commands()))

    def _turn(self, count: int) -> None:
        """The PLC's count wraps at 32 bits; the line's does not."""
        step = 0 if self._encoder is None else (count - self._encoder + (1 << 31)) % (1 << 32) - (1 << 31)
        self._encoder = count if self._encoder is None else self._encoder + step
        self._control.turn(self._encoder)

    def _carry_out(self, rising: Command) -> None:
        if not rising:
            return
        refusal = Refusal.NONE
        for command in ORDER:
            if command in rising and (reason := self._do(command)):
                refusal = reason
        with self._changed:
            self._put("refusal", refusal)
            if refusal:
                self._flags |= Status.REFUSED
                self._count("refused")
            else:
                self._flags &= ~Status.REFUSED

    def _do(self, command: Command) -> Refusal:
        try:
            match command:
                case Command.TRIGGER:
                    self._trigger()
                case Command.ACKNOWLEDGE:
                    return self._acknowledge()
                case Command.START:
                    self._control.start()
                case Command.STOP:
                    self._control.stop()
                case Command.RESET:
                    self._reset()
                case Command.CHANGE:
                    return self._change_over()
        except NotReady:
            return Refusal.NOT_READY
        except InspectionError as error:
            self._alarm(error.code, f"The PLC's {command.name} was refused: {error}")
            return Refusal.OTHER
        return Refusal.NONE

    def _trigger(self) -> None:
        part, lot = str(self._get("serial_in")), str(self._get("lot_in"))
        number = self._control.trigger(part=part or None, lot=lot or None, encoder=self._encoder)
        with self._changed:
            self._put("accepted", number & _U32)

    def _acknowledge(self) -> Refusal:
        with self._changed:
            if not self._ready:
                return Refusal.NOTHING_TO_ACKNOWLEDGE
            if self._get("acknowledge") not in (0, self._get("sequence")):
                return Refusal.OTHER_RESULT
            self._ready = False
            self._changed.notify_all()
        return Refusal.NONE

    def _reset(self) -> None:
        with self._changed:
            self._flags &= ~Status.ALARM
            self._put("alarm", 0)
        if self._control.state is LineState.FAILED:
            self._control.reset()

    def _change_over(self) -> Refusal:
        wanted = self._get("recipe_in")
        recipe = next((one for one in self._control.recipes() if one.index == wanted), None)
        if recipe is None:
            return Refusal.NO_SUCH_RECIPE
        try:
            self._control.change_over(recipe.id)
        except ConfigInvalid as error:
            self._alarm(error.code, f"The PLC asked for the recipe `{recipe.id}`: {error}")
            return Refusal.RECIPE_INVALID
        return Refusal.NONE

    # Inside.

    def _tick(self) -> None:
        """One beat of the heart; it asks the line for its state, so that a line that hangs has none."""
        self._refresh()
        patience = self._options.watchdog
        with self._changed:
            self._count("heartbeat")
            before = self._flags
            self._flags &= ~Status.PLC_LOST
            if patience is not None and time.monotonic() - self._plc_seen > patience:
                self._flags |= Status.PLC_LOST
            lost = self._flags & ~before & Status.PLC_LOST
        if lost:
            self._alarm("plc-lost", f"The PLC's heartbeat register has not changed for {patience:g} s.")

    def _refresh(self) -> None:
        """Fetches the line's state and counters."""
        control = self._control
        state, problem, recipe, coming = control.state, control.problem, control.recipe, control.changing_to
        counters = control.counters()["line"]
        status = Status(0)
        if state is LineState.RUNNING:
            status |= Status.TRIGGER_READY
        if state is LineState.FAILED:
            status |= Status.FAULT
        if counters["in_flight"]:
            status |= Status.BUSY
        if coming:
            status |= Status.CHANGING
        with self._changed:
            if self._ready:
                status |= Status.RESULTS_READY
            self._put("status", status | self._outcome | self._flags)
            self._put("state", STATES[state])
            self._put("recipe", recipe.index if recipe else -1)
            if recipe:
                self._recipes[recipe.id] = recipe.index
            self._put("changing_to", coming.index if coming else -1)
            self._put("problem", code_number(problem.code if problem else None))
            for name in ("triggers", "in_flight"):
                self._put(name, counters[name] & _U32)
            for verdict in Verdict:
                self._put(verdict.value.lower(), counters[verdict.value] & _U32)

    def _commands(self) -> Command:
        return Command(self._registers[REGISTERS["command"].address])

    def _get(self, name: str) -> Written:
        register = REGISTERS[name]
        return register.decode(self._registers[register.address : register.end])

    def _put(self, name: str, value: Written) -> None:
        register = REGISTERS[name]
        self._registers[register.address : register.end] = register.encode(value)

    def _count(self, name: str) -> None:
        self._counts[name] += 1
        self._put(name, self._counts[name] & (_U16 if REGISTERS[name].kind == "u16" else _U32))


def _identity(message: Message) -> tuple[object, ...]:
    """One result's for ever: sequences begin anew with the line, while an earlier run's come from the spool."""
    return message.wall, message.sequence, message.body["number"]
