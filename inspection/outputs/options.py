"""What a recipe says of an output: one model of options for each kind."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from inspection.modelfile import Value
from inspection.quantities import Bytes, Count, Delay, Seconds

Port = Annotated[int, Field(ge=0, le=65535)]
Kinds = tuple[Literal["result", "alarm", "state"], ...]


class Hold(Value):
    """A verdict is held back until the part reaches the gate.

    Attributes:
        after: seconds after the trigger. encoder: counts of the belt's encoder after the trigger's own count; the
            encoder may wrap at 32 bits. One of the two.
    """

    after: Seconds | None = None
    encoder: Annotated[int, Field(ge=1, lt=2**31)] | None = None

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.after is None) == (self.encoder is None):
            raise ValueError("`hold` wants either `after` or `encoder`")
        return self


class OutputOptions(Value):
    """What all kinds have in common.

    Attributes:
        name: in counters and alarms; None: its kind.
        sends: which kinds of messages.
        queue: messages that may wait in memory.
        gate: this output drives the reject gate: a verdict that it cannot deliver in time is counted and alarmed, and
            not sent late. Without it the output reports: what cannot be delivered is stored and sent later, in order.
        lead: seconds that this output needs itself: verdicts are decided so much before the part's deadline.
        spool: how much a reporting output may keep on disk while the other side is away; the oldest goes first.
        retry_after, retry_at_most: between two tries, doubling from the one to the other; None: 30 s, and 1 s for the
            gate.
        breaker: failures in a row after which the other side counts as away: it is alarmed once, and from then on
            there is one try every `retry_at_most` until one succeeds.
        timeout: one try may take so long; then the sink is closed and opened again.
        hold: results are delivered only when the part reaches the gate; in its order, not before. Alarms and states do
            not wait for them.
    """

    serves: ClassVar[bool] = False  # whether the other side connects to this output, and fetches what it wants

    name: str | None = None
    sends: Kinds = ("result", "alarm", "state")
    queue: Count = 1000
    gate: bool = False
    lead: Delay = 0.0
    spool: Bytes = 100_000_000
    retry_after: Seconds = 0.2
    retry_at_most: Seconds | None = None
    breaker: Count = 5
    timeout: Seconds = 5.0
    hold: Hold | None = None

    @model_validator(mode="after")
    def _only_the_gate_holds(self) -> Self:
        if self.hold is not None and not self.gate:
            raise ValueError("`hold` is for the output that drives the gate: set `gate: true` too")
        return self

    @property
    def longest_wait(self) -> float:
        """Seconds between two tries, at most."""
        return self.retry_at_most or (1.0 if self.gate else 30.0)


class Sparkplug(Value):
    """Ids in the Sparkplug B namespace (`spBv1.0/GROUP/.../NODE/DEVICE`)."""

    group: str
    node: str
    device: str


class MqttOptions(OutputOptions):
    """MQTT 3.1.1 or 5 with JSON or Sparkplug B (extra `mqtt`).

    Attributes:
        topic: of JSON messages, with `{kind}`, `{product}`, `{verdict}`, `{part}`, `{line}` replaced.
        sparkplug: group, node and device ids instead of a topic.
        username, password_env: the password is read from that environment variable. ca, certificate, key: TLS, as PEM.
    """

    kind: Literal["mqtt"]
    host: str
    port: Port | None = None  # None: 1883, or 8883 with TLS
    version: Literal["3.1.1", "5"] = "5"
    qos: Literal[0, 1, 2] = 1
    retain: bool = False
    client_id: str | None = None
    topic: str = "inspection/{line}/{kind}"
    sparkplug: Sparkplug | None = None
    username: str | None = None
    password_env: str | None = None
    tls: bool = False
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    keepalive: Count = 30


class WebhookOptions(OutputOptions):
    """`POST` of JSON to a URL, signed with HMAC-SHA256 (`X-Inspection-Signature`)."""

    kind: Literal["webhook"]
    url: str
    secret_env: str | None = None  # environment variable that holds the key
    headers: dict[str, str] = Field(default_factory=dict)
    ca: Path | None = None


class ModbusOptions(OutputOptions):
    """A Modbus TCP server with the registers of docs/modbus.md, for a PLC to poll and to command.

    Attributes:
        host: the address it listens at. There is no login in Modbus: name the one that faces the PLC.
        port: 502 wants the right to listen below 1024; 0 takes any that is free.
        unit: the unit id that is answered, beside 0 and 255, which mean the machine itself.
        acknowledge: a result counts as delivered when the PLC acknowledged it, which it must do within this time (less
            than `timeout`); the next one waits. None: it is delivered when it stands in the registers, and the next
            one replaces it.
        heartbeat: the counter for the PLC rises every so many seconds.
        watchdog: the PLC's own heartbeat register must change within this time; None: it need not.
        classes: kinds of defect in the order of their numbers for the PLC, from 0.
        connections: at a time; one more closes the one that was silent for longest.
    """

    serves: ClassVar[bool] = True

    kind: Literal["modbus"]
    host: str = "127.0.0.1"
    port: Port = 502
    unit: Annotated[int, Field(ge=0, le=247)] = 1
    acknowledge: Seconds | None = None
    heartbeat: Seconds = 0.5
    watchdog: Seconds | None = None
    classes: tuple[str, ...] = ()
    connections: Count = 8

    @model_validator(mode="after")
    def _acknowledged_in_time(self) -> Self:
        if self.acknowledge is not None and self.acknowledge >= self.timeout:
            raise ValueError(f"`acknowledge` must be shorter than one try may take, `timeout: {self.timeout:g}`")
        return self


class OpcUaOptions(OutputOptions):
    """An OPC UA server with the Machine Vision companion specification, OPC 40100-1 (extra `opcua`).

    Attributes:
        security: endpoints that are offered; without `none` where there is `trusted`. users_env: environment variable
            with `name:password` pairs, separated by commas. certificate, key: of the server; None: made at first start
            and kept in `store`.
        trusted: folder of client certificates that may connect and of users' certificates; None: any client. A client
            on `none` shows no certificate, so the two exclude each other.
        anonymous: whether a client without a user may connect; None: only where there are no users. Where there are
            users, it may read and listen, but call no method.
        results: the latest so many can be asked for by their id.
    """

    serves: ClassVar[bool] = True

    kind: Literal["opcua"]
    host: str = "127.0.0.1"
    port: Port = 4840
    security: Annotated[tuple[Literal["none", "sign", "encrypt"], ...], Field(min_length=1)] = (
        "none",
        "sign",
        "encrypt",
    )
    users_env: str | None = None
    anonymous: bool | None = None
    certificate: Path | None = None
    key: Path | None = None
    store: Path = Path("opcua")
    trusted: Path | None = None
    results: Count = 1000

    @model_validator(mode="before")
    @classmethod
    def _none_is_no_default_beside_trusted(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("trusted") is not None and "security" not in given:
            return {**given, "security": ("sign", "encrypt")}
        return given

    @model_validator(mode="after")
    def _trusted_by_certificate(self) -> Self:
        if self.trusted is not None and "none" in self.security:
            raise ValueError(
                "`security` offers `none`, where clients show no certificate, and `trusted` admits certificates alone: "
                "take `none` or `trusted` out"
            )
        return self

    @property
    def unprotected(self) -> str | None:
        """What others than this machine may do to this server without anybody knowing who they are, in words; None:
        nothing."""
        try:
            loopback = ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            loopback = self.host == "localhost"
        if loopback or self.trusted is not None:
            return None
        if self.users_env is None:
            return (
                "lets any client command the line: whoever is in that network can stop it. Set `trusted` or `users_env`"
            )
        if set(self.security) == {"none"}:
            return (
                "is neither signed nor encrypted: whoever is in that network can read and change what goes over it. "
                "Offer `sign` and `encrypt`"
            )
        return None


AnyOutput = Annotated[
    MqttOptions | WebhookOptions | ModbusOptions | OpcUaOptions,
    Field(discriminator="kind"),
]
