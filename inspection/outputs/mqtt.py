"""MQTT 3.1.1 and 5: one JSON message for each verdict, alarm and state (extra `mqtt`)."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import ssl
import string
import threading
import time
from collections.abc import Callable
from typing import Any

from inspection.errors import ConfigInvalid, MissingExtra
from inspection.outputs.options import MqttOptions
from inspection.outputs.sink import DeliveryFailed, DeliveryRefused, Message

try:
    from paho.mqtt import client as paho
    from paho.mqtt.enums import CallbackAPIVersion
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties
    from paho.mqtt.reasoncodes import ReasonCode
except ImportError as missing:
    raise MissingExtra(
        "MQTT needs paho-mqtt.", hint="Install it with: pip install 'lightsout-inspection[mqtt]'"
    ) from missing

_NEVER = {0x87, 0x90, 0x95, 0x99}  # not authorised, topic name invalid, packet too large, payload format invalid
_ANSWERS = 16  # acknowledgements that are kept: of the one packet that is waited for, and of some that nobody awaits
_HEADER = 64  # bytes of a PUBLISH beside topic and payload: fixed header, packet id, properties; generous
Will = tuple[str, bytes, bool]  # topic, payload, retained


class Broker:
    """A connection to a broker that comes back by itself; used by `MqttSink` and `SparkplugSink`.

    paho cannot be called back from inside a connect or a TLS handshake: a client that is given up meanwhile would go on
    to connect, send again what was not acknowledged, and stay. So each step after it asks whether its client is still
    the current one, and ends it if not.

    Args:
        will: asked before each connection; what the broker publishes when this one breaks.
        born: called after each connection, on the connection's thread, before anything else is published.
        heard: topic and payload of what was subscribed to.

    Raises:
        ConfigInvalid: the password's variable is not set, or certificates cannot be read.
    """

    def __init__(
        self,
        options: MqttOptions,
        *,
        client_id: str,
        will: Callable[[], Will],
        born: Callable[[], None],
        heard: Callable[[str, bytes], None] | None = None,
    ) -> None:
        self._options = options
        self._client_id = options.client_id or client_id
        self._will = will
        self._born = born
        self._heard = heard
        self._tls = _tls(options)
        self._password = _password(options)
        self.port = options.port or (8883 if self._tls else 1883)
        self.where = f"{options.host}:{self.port}"
        # Waiting for the connection and for the acknowledgement together stay below the courier's time-out.
        self._patience = options.timeout * 0.4
        self._changed = threading.Condition()
        self._client: paho.Client | None = None
        self._thread: threading.Thread | None = None
        self._connected = False
        self._refusal: str | None = None  # why the broker does not let us in
        self._answers: dict[int, ReasonCode] = {}  # to publications and subscriptions, by packet id
        self._largest = 2**28  # bytes of a packet

    def open(self) -> None:
        """Connects, and returns when the broker has accepted. Raises DeliveryFailed."""
        self.close()
        version = paho.MQTTv5 if self._options.version == "5" else paho.MQTTv311
        client = paho.Client(CallbackAPIVersion.VERSION2, client_id=self._client_id, protocol=version)
        client.connect_timeout = self._patience
        client.reconnect_delay_set(1, max(1, round(self._options.longest_wait)))
        if self._options.username is not None:
            client.username_pw_set(self._options.username, self._password)
        if self._tls is not None:
            client.tls_set_context(self._tls)
        client.on_pre_connect = self._on_pre_connect
        client.on_socket_open = self._on_socket_open
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = lambda one, _u, mid, reason, _p: self._on_answer(one, mid, reason)
        client.on_subscribe = lambda one, _u, mid, reasons, _p: self._on_answer(one, mid, reasons[0])
        client.on_message = self._on_message
        with self._changed:
            self._client, self._refusal = client, None
        try:
            client.connect(self._options.host, self.port, keepalive=self._options.keepalive)
        except (OSError, ValueError) as error:
            self.close()
            raise DeliveryFailed(f"cannot connect: {error}.", where=self.where) from error
        with self._changed:
            if self._client is client:
                name = f"mqtt-{self._client_id}"
                self._thread = threading.Thread(target=client.loop_forever, name=name, daemon=True)
                self._thread.start()
        try:
            self._await_connection(client, self._patience)
        except DeliveryFailed:
            self.close()
            raise

    def ready(self, message: Message) -> paho.Client:
        """The client, once it is connected. Raises DeliveryFailed."""
        client, thread = self._client, self._thread
        if client is None or thread is None or not thread.is_alive():  # what ends paho's thread, it tells nobody
            self.open()
            client = self._client
        if client is None:
            raise DeliveryFailed("the connection was closed.", where=self.where)
        self._await_connection(client, self._time_for(message))
        if self._options.gate and message.deadline is not None and time.monotonic() >= message.deadline:
            raise DeliveryFailed("its deadline went by while the connection was made.", where=self.where)
        return client

    def publish(self, topic: str, payload: bytes, *, qos: int, retain: bool = False, **properties: Any) -> int:
        """Hands a message to the connection; its packet id. Also for `born`.

        Raises:
            DeliveryFailed: not connected. DeliveryRefused: no broker, or this one never, takes such a message.
        """
        if len(payload) + len(topic.encode()) + _HEADER > self._largest:
            raise DeliveryRefused(
                f"{len(payload)} bytes are more than the broker takes ({self._largest}).", where=self.where
            )
        client = self._client
        if client is None:
            raise DeliveryFailed("the connection was closed.", where=self.where)
        try:
            sent = client.publish(topic, payload, qos, retain, _properties(client, properties))
        except ValueError as error:
            raise DeliveryRefused(f"cannot be published: {error}.", where=f"{self.where} {topic}") from error
        if sent.rc != paho.MQTT_ERR_SUCCESS:
            self.break_off()
            raise DeliveryFailed(f"cannot be published: {paho.error_string(sent.rc)}.", where=self.where)
        return sent.mid

    def subscribe(self, topic: str) -> int | None:
        """Subscribes at QoS 1; its packet id, or None where there is no connection. Also for `born`."""
        client = self._client
        return client.subscribe(topic, 1)[1] if client is not None else None

    def await_answer(self, client: paho.Client, mid: int | None, message: Message) -> None:
        """Returns when the broker has acknowledged the packet.

        Raises:
            DeliveryFailed: it has not in time; the connection is given up then, so that nothing of it is sent later.
            DeliveryRefused: it never will.
        """
        end = time.monotonic() + self._time_for(message)
        with self._changed:
            while mid not in self._answers:
                if self._client is not client or not self._changed.wait(end - time.monotonic()):
                    break
            answer = self._answers.pop(mid, None) if mid is not None else None
        if answer is None:
            self.break_off()
            raise DeliveryFailed("the broker has not acknowledged in time.", where=self.where)
        if answer.is_failure:
            kind = DeliveryRefused if answer.value in _NEVER else DeliveryFailed
            raise kind(f"the broker refuses: {answer}.", where=self.where)

    def break_off(self) -> None:
        """Lets go without a word, so that the broker publishes the last will."""
        self._let_go(abruptly=True)

    def close(self) -> None:
        """Lets go, and wakes who waits."""
        self._let_go(abruptly=False)

    def _let_go(self, *, abruptly: bool) -> None:
        with self._changed:
            client, self._client = self._client, None
            thread, self._thread = self._thread, None
            self._connected = False
            self._answers.clear()
            self._changed.notify_all()
        if client is not None:
            if abruptly and isinstance(connection := client.socket(), socket.socket):
                _cut(connection)
            _end(client)
        if thread is not None and thread is not threading.current_thread():
            thread.join(self._patience)

    @property
    def connected(self) -> bool:
        """Whether the broker has accepted, and has not gone since."""
        return self._connected

    def _time_for(self, message: Message) -> float:
        left = self._patience if message.deadline is None else message.deadline - time.monotonic()
        return max(0.0, min(self._patience, left) if self._options.gate else self._patience)

    def _await_connection(self, client: paho.Client, patience: float) -> None:
        end = time.monotonic() + patience
        with self._changed:
            while not self._connected and self._refusal is None and self._client is client:
                if not self._changed.wait(max(0.0, end - time.monotonic())):
                    break
            if self._connected and self._client is client:
                return
            why = self._refusal or "is not connected"
        raise DeliveryFailed(f"the broker {why}.", where=self.where)

    # -- on the connection's thread --------------------------------------------------------------------------------

    def _on_pre_connect(self, client: paho.Client, _user: Any) -> None:
        if client is not self._client:
            _end(client)
            raise ConnectionAbortedError("it was given up")  # as if it could not connect
        topic, payload, retain = self._will()
        client.will_set(topic, payload, qos=1, retain=retain)

    def _on_socket_open(self, client: paho.Client, _user: Any, connection: Any) -> None:
        if client is not self._client:
            _cut(connection)  # before paho writes to it
            _end(client)
            return
        # A packet that follows another one would wait some 40 ms for the first one's acknowledgement (Nagle).
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _on_connect(
        self, client: paho.Client, _user: Any, _flags: Any, reason: ReasonCode, properties: Properties | None
    ) -> None:
        if client is not self._client:
            _end(client)
            return
        if reason.is_failure:
            self._refuse(f"does not let us in: {reason}")
            return
        self._largest = getattr(properties, "MaximumPacketSize", 2**28)
        highest = getattr(properties, "MaximumQoS", 2)
        if highest < self._options.qos:
            self._refuse(f"takes no more than QoS {highest}")
            return
        try:
            self._born()
        except DeliveryFailed as error:
            self._refuse(f"does not take the first messages: {error}")
            return
        with self._changed:
            self._connected, self._refusal = True, None
            self._changed.notify_all()

    def _refuse(self, why: str) -> None:
        with self._changed:
            self._refusal = why
            self._changed.notify_all()

    def _on_disconnect(self, client: paho.Client, _user: Any, _flags: Any, _reason: Any, _properties: Any) -> None:
        with self._changed:
            if client is self._client:
                self._connected = False
                self._changed.notify_all()

    def _on_answer(self, client: paho.Client, mid: int, reason: ReasonCode) -> None:
        with self._changed:
            if client is not self._client:
                return  # every client numbers from 1
            self._answers[mid] = reason
            while len(self._answers) > _ANSWERS:
                del self._answers[next(iter(self._answers))]
            self._changed.notify_all()

    def _on_message(self, client: paho.Client, _user: Any, message: paho.MQTTMessage) -> None:
        if self._heard is not None and client is self._client:
            self._heard(message.topic, bytes(message.payload))


class MqttSink:
    """Publishes each message's body as JSON, and `online` or `offline` (retained, also as the last will) to
    `inspection/LINE/status`.

    With QoS 1 and 2 a message counts as delivered when the broker has acknowledged it; with QoS 0 when it was written
    to the connection, and may then be lost with it.
    """

    def __init__(self, options: MqttOptions, line: str) -> None:
        self._options = options
        self._line = line
        self._status = f"inspection/{_level(line)}/status"
        _check_topic(options.topic)
        self._broker = Broker(
            options,
            client_id=f"inspection-{line}-{options.name or 'mqtt'}",
            will=lambda: (self._status, b"offline", True),
            born=lambda: self._tell("online"),
        )

    def open(self) -> None:
        """See `Sink`."""
        self._broker.open()

    def deliver(self, message: Message) -> None:
        """See `Sink`."""
        client = self._broker.ready(message)
        payload = json.dumps(message.body, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
        mid = self._broker.publish(
            topic(self._options.topic, message, self._line),
            payload,
            qos=self._options.qos,
            retain=self._options.retain,
            ContentType="application/json",
            UserProperty=("sequence", str(message.sequence)),
        )
        self._broker.await_answer(client, mid, message)

    def close(self) -> None:
        """See `Sink`."""
        if self._broker.connected:
            with contextlib.suppress(DeliveryFailed):  # then the broker publishes the will
                self._tell("offline")
        self._broker.close()

    def _tell(self, status: str) -> None:
        self._broker.publish(self._status, status.encode(), qos=1, retain=True)


def topic(template: str, message: Message, line: str) -> str:
    """The topic of a message; `-` stands for what the message does not have."""
    values = {name: message.body.get(name) for name in ("product", "verdict", "part")}
    return template.format(kind=message.kind, line=_level(line), **{k: _level(v) for k, v in values.items()})


def _level(value: object) -> str:
    """A value as one level of a topic, which may hold no `/`, `+`, `#` or NUL."""
    return re.sub(r"[/+#\x00]", "_", str(value)) if value not in (None, "") else "-"


def _end(client: paho.Client) -> None:
    """Its thread ends as soon as it comes out of a connect, and it has nothing left to send again."""
    client.drop_out_messages()
    client.disconnect()


def _cut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def _check_topic(template: str) -> None:
    known = ("kind", "product", "verdict", "part", "line")
    try:
        fields = {field for _text, field, _spec, _conversion in string.Formatter().parse(template)} - {None}
    except ValueError as error:
        raise ConfigInvalid(f"`topic` cannot be read: {error}.", where=template) from error
    if unknown := sorted(str(field) for field in fields - set(known)):
        raise ConfigInvalid(
            f"`topic` holds the unknown {{{unknown[0]}}}.", where=template, hint=f"Known: {', '.join(known)}."
        )
    if re.search(r"[+#\x00]", template) or not template:
        raise ConfigInvalid("`topic` must be a topic to publish to, without `+` and `#`.", where=template)


def _properties(client: paho.Client, properties: dict[str, Any]) -> Properties | None:
    if client.protocol != paho.MQTTv5 or not properties:
        return None
    made = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    for name, value in properties.items():
        setattr(made, name, value)
    return made


def _password(options: MqttOptions) -> str | None:
    if options.password_env is None:
        return None
    if (password := os.environ.get(options.password_env)) is None:
        raise ConfigInvalid(
            f"the environment variable {options.password_env} is not set.",
            where="password_env",
            hint="Set it to the broker's password before the line starts.",
        )
    return password


def _tls(options: MqttOptions) -> ssl.SSLContext | None:
    if not (options.tls or options.ca or options.certificate):
        return None
    try:
        context = ssl.create_default_context(cafile=options.ca)
        if options.certificate is not None:
            context.load_cert_chain(options.certificate, options.key)
    except OSError as error:
        raise ConfigInvalid(
            f"certificates cannot be read: {error}.",
            where=str(options.certificate or options.ca),
            hint="`ca`, `certificate` and `key` are PEM files.",
        ) from error
    return context
