"""Sparkplug B 3.0 over MQTT: an edge node whose device is the line, for SCADA and MES that discover it by its birth.

Data are published with QoS 0, as the specification asks. So that nothing is lost with a connection, each message is
followed by a subscription that the broker must acknowledge: it works off one connection in order, and so has the data.
Not implemented: waiting for a primary host (STATE); metrics by alias; templates and data sets.
"""

from __future__ import annotations

import contextlib
import math
import secrets
import threading
import time
from typing import Any

from inspection.control import Alarm, Control
from inspection.errors import ConfigInvalid, InspectionError
from inspection.outputs.mqtt import Broker, Will
from inspection.outputs.options import MqttOptions
from inspection.outputs.sink import DeliveryFailed, Message
from inspection.outputs.sparkplug_payload import DataType, Metric, decode, encode

Values = dict[str, tuple[DataType, str | int | float | bool | None]]

_NAMES_SHOWN, _LONGEST_NAME = 3, 80  # of commands that are not known
_REBIRTH = "Node Control/Rebirth"
_PART: Values = {
    "Number": (DataType.INT64, None),
    "Part": (DataType.STRING, None),
    "Lot": (DataType.STRING, None),
    "Product": (DataType.STRING, None),
    "Verdict": (DataType.STRING, None),
    "Score": (DataType.DOUBLE, None),
    "Kind": (DataType.STRING, None),
    "Reason": (DataType.STRING, None),
    "Code": (DataType.STRING, None),
    "Triggered": (DataType.DATETIME, None),
    "Recipe": (DataType.STRING, None),
}
_LINE: Values = {
    "Line/State": (DataType.STRING, None),
    "Line/Recipe": (DataType.STRING, None),
    "Alarm/Code": (DataType.STRING, None),
    "Alarm/Text": (DataType.STRING, None),
}
_COUNTERS = ("triggers", "OK", "NG", "REVIEW", "ERROR", "in_flight")


class SparkplugSink:
    """`spBv1.0/GROUP/NBIRTH/NODE`, `.../DBIRTH/NODE/DEVICE`, a `DDATA` for each message, `NDEATH` as the last will.

    A command `Node Control/Rebirth` is answered by new births; other commands are alarmed (`sparkplug-command`).
    What was stored while the broker was away is marked `is_historical`.

    Raises:
        ConfigInvalid: an id that cannot be a level of a topic, or no `sparkplug` options.
    """

    def __init__(self, options: MqttOptions, control: Control, line: str, alarm: Alarm) -> None:
        ids = options.sparkplug
        if ids is None:
            raise ConfigInvalid("`sparkplug` is missing.", hint="Give `group`, `node` and `device`.")
        for name, value in ids:
            if not value or set(value) & set("/+#\0"):
                raise ConfigInvalid(f"`{value}` cannot be a Sparkplug id.", where=f"sparkplug.{name}")
        self._control = control
        self._alarm = alarm
        self._node = ("spBv1.0/" + ids.group + "/{}/" + ids.node).format
        self._device = ("spBv1.0/" + ids.group + "/{}/" + ids.node + "/" + ids.device).format
        self._lock = threading.Lock()  # over `_seq`: numbers leave in their order
        self._seq = 0
        # Any number but the one of the run before: a will that comes late then does not end this birth.
        self._bd_seq = secrets.randbelow(256)
        self._values: Values = {**_PART, **_LINE}
        self._born_at = 0
        self._broker = Broker(
            options,
            client_id=f"inspection-{line}-{options.name or 'sparkplug'}",
            will=self._next_will,
            born=self._born,
            heard=self._heard,
        )

    def open(self) -> None:
        """See `Sink`."""
        self._broker.open()

    def deliver(self, message: Message) -> None:
        """See `Sink`."""
        client = self._broker.ready(message)
        stamp = round(message.wall * 1000)
        stored = stamp < self._born_at  # before this connection
        values = self._values_of(message) if stored else {**self._values_of(message), **self._counters()}
        with self._lock:
            unknown = values.keys() - self._values.keys()
            self._values.update(values)
            if unknown:  # a view that this device has not announced: another recipe
                self._publish_device("DBIRTH", self._metrics(self._values))
            self._publish_device("DDATA", self._metrics(values, stamp, historical=stored))
            asked = self._broker.subscribe(self._node("NCMD"))
        self._broker.await_answer(client, asked, message)

    def close(self) -> None:
        """See `Sink`."""
        if self._broker.connected:
            with contextlib.suppress(DeliveryFailed), self._lock:  # then the broker publishes the will
                self._publish_device("DDEATH", [])
                self._broker.publish(self._node("NDEATH"), self._death(), qos=1)
        self._broker.close()

    # -- births and deaths -----------------------------------------------------------------------------------------

    def _next_will(self) -> Will:
        self._bd_seq = (self._bd_seq + 1) % 256
        return self._node("NDEATH"), self._death(), False

    def _death(self) -> bytes:
        return encode([self._birth_number()], timestamp=_now(), seq=None)

    def _birth_number(self) -> Metric:
        return Metric(name="bdSeq", kind=DataType.INT64, value=self._bd_seq, timestamp=_now())

    def _born(self) -> None:
        """NBIRTH and DBIRTH; runs on the connection's thread."""
        self._broker.subscribe(self._node("NCMD"))
        with self._lock:
            self._values.update(self._line_values())
            self._born_at = _now()
            rebirth = Metric(name=_REBIRTH, kind=DataType.BOOLEAN, value=False, timestamp=_now())
            self._seq = 0
            birth = encode([self._birth_number(), rebirth], timestamp=_now(), seq=0)
            self._broker.publish(self._node("NBIRTH"), birth, qos=0)
            self._publish_device("DBIRTH", self._metrics(self._values))

    def _heard(self, _topic: str, payload: bytes) -> None:
        """A command to the node; runs on the connection's thread, which no command may end."""
        try:
            commands = decode(payload)
            if unknown := sorted(commands.keys() - {_REBIRTH}):
                self._alarm("sparkplug-command", _unknown(unknown))
            if commands.get(_REBIRTH) is True:
                self._born()
        except DeliveryFailed:
            pass  # the connection is gone, and its next birth comes with the next
        except InspectionError as error:
            self._alarm("sparkplug-command", str(error))

    def _publish_device(self, what: str, metrics: list[Metric]) -> None:
        self._seq = (self._seq + 1) % 256
        self._broker.publish(self._device(what), encode(metrics, timestamp=_now(), seq=self._seq), qos=0)

    # -- metrics ---------------------------------------------------------------------------------------------------

    def _metrics(self, values: Values, stamp: int | None = None, *, historical: bool = False) -> list[Metric]:
        stamp = _now() if stamp is None else stamp
        return [
            Metric(name=name, kind=kind, value=value, timestamp=stamp, historical=historical)
            for name, (kind, value) in values.items()
        ]

    def _values_of(self, message: Message) -> Values:
        body = message.body
        if message.kind == "alarm":
            return {
                "Alarm/Code": (DataType.STRING, _text(body.get("code"))),
                "Alarm/Text": (DataType.STRING, _text(body.get("what"))),
            }
        if message.kind == "state":
            return {
                "Line/State": (DataType.STRING, _text(body.get("state"))),
                "Line/Recipe": (DataType.STRING, _text(body.get("recipe"))),
            }
        views = body.get("views", [])
        scores = [view["score"] for view in views if view.get("score") is not None]
        part: dict[str, Any] = {
            **{name: body.get(name.lower()) for name in _PART},
            "Score": max(scores, default=None),
            "Triggered": round(body["triggered"] * 1000) if body.get("triggered") is not None else None,
        }
        values: Values = {
            name: (kind, _text(part[name]) if kind is DataType.STRING else part[name])
            for name, (kind, _) in _PART.items()
        }
        for view in views:
            values[f"Views/{view['view']}/Verdict"] = (DataType.STRING, view["verdict"])
            values[f"Views/{view['view']}/Score"] = (DataType.DOUBLE, view["score"])
        return values

    def _line_values(self) -> Values:
        recipe = self._control.recipe
        return {
            "Line/State": (DataType.STRING, self._control.state.value),
            "Line/Recipe": (DataType.STRING, recipe.id if recipe is not None else None),
            **self._counters(),
        }

    def _counters(self) -> Values:
        line = self._control.counters().get("line", {})
        return {f"Counters/{name}": (DataType.INT64, line.get(name, 0)) for name in _COUNTERS}


def _unknown(names: list[str]) -> str:
    """One sentence however many and however long they are: they come from outside."""
    shown = ", ".join(repr(name[:_LONGEST_NAME]) for name in names[:_NAMES_SHOWN])
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return f"The command {shown}{more} is not one of this node."


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _now() -> int:
    """Milliseconds since 1970, for the people who read it."""
    return math.floor(time.time() * 1000)
