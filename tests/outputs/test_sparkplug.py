"""A Sparkplug B edge node as an independent host (pysparkplug) sees it, through a real mosquitto."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("paho.mqtt")

from inspection.errors import ConfigInvalid
from inspection.outputs.courier import Courier
from inspection.outputs.options import MqttOptions, Sparkplug
from inspection.outputs.sink import Message
from inspection.outputs.sparkplug import SparkplugSink
from inspection.outputs.sparkplug_payload import DataType, Metric, PayloadInvalid, decode, encode
from inspection.results import Verdict
from tests.outputs.brokers import Mosquitto, Subscriber
from tests.outputs.conftest import accounted, result, wait_for
from tests.outputs.scripted_line import ScriptedLine

pytestmark = [pytest.mark.line, pytest.mark.slow]

PEER = "pysparkplug==0.6.1"


@pytest.fixture(scope="session")
def peer() -> Path:
    """Python with pysparkplug, which needs paho < 2 and so an environment of its own."""
    folder = Path(tempfile.gettempdir()) / f"inspection-{PEER.replace('==', '-')}"
    python = folder / "bin" / "python"
    try:
        if not (folder / "complete").exists():
            subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True, capture_output=True)
            subprocess.run([str(python), "-m", "pip", "install", "-q", PEER], check=True, capture_output=True)
            (folder / "complete").touch()
    except (OSError, subprocess.CalledProcessError) as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"{PEER} cannot be installed: {error}")
    return python


class Host:
    """What the host has seen, as it printed it."""

    def __init__(self, python: Path, port: int) -> None:
        program = Path(__file__).with_name("sparkplug_host.py")
        self._process = subprocess.Popen(
            [str(python), str(program), str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        self.seen: list[dict[str, Any]] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        wait_for(lambda: self.of("READY"))

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.seen.append(json.loads(line))

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [one for one in list(self.seen) if one["type"] == kind]

    def say(self, command: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._thread.join()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    one = Mosquitto(tmp_path)
    yield one
    one.kill()


@pytest.fixture
def host(peer: Path, broker: Mosquitto) -> Iterator[Host]:
    one = Host(peer, broker.port)
    yield one
    one.close()


@pytest.fixture
def line() -> Iterator[ScriptedLine]:
    with ScriptedLine(running=True) as one:
        yield one


def asked(port: int, **changes: Any) -> MqttOptions:
    ids = Sparkplug(group="plant", node="cell", device="line 1")
    return MqttOptions(kind="mqtt", host="127.0.0.1", port=port, sparkplug=ids, timeout=20.0, **changes)


def sink_for(port: int, line: ScriptedLine) -> SparkplugSink:
    return SparkplugSink(asked(port), line, "line 1", lambda *_: None)


def values(seen: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, (_, value) in seen["metrics"].items()}


def test_a_host_sees_birth_data_and_death(broker: Mosquitto, host: Host, line: ScriptedLine) -> None:
    sink = sink_for(broker.port, line)
    sink.open()
    wait_for(lambda: host.of("DBIRTH"))
    node, device = host.of("NBIRTH")[0], host.of("DBIRTH")[0]
    assert (node["seq"], device["seq"]) == (0, 1)
    assert node["metrics"]["Node Control/Rebirth"] == ["BOOLEAN", False]
    assert (device["node"], device["device"]) == ("cell", "line 1")
    types = {name: kind for name, (kind, _) in device["metrics"].items()}
    assert types["Verdict"] == types["Part"] == types["Lot"] == types["Product"] == types["Kind"] == "STRING"
    assert (types["Number"], types["Score"], types["Triggered"]) == ("INT64", "DOUBLE", "DATETIME")
    assert values(device)["Line/State"] == "running"

    sent = result(12, verdict=Verdict.NG)
    sink.deliver(sent)
    sink.deliver(Message(kind="alarm", sequence=13, wall=2e9, body={"code": "camera-lost", "what": "top is gone"}))
    wait_for(lambda: len(host.of("DDATA")) == 2)
    data, alarm = (values(one) for one in host.of("DDATA"))
    expected = {"Number": 12, "Part": "P12", "Lot": "L7", "Product": "bolt", "Verdict": "NG", "Kind": "scratch"}
    assert {name: data[name] for name in expected} == expected
    assert data["Views/top/Verdict"] == "NG"
    assert data["Views/side/Verdict"] == "OK"
    assert alarm["Alarm/Code"] == "camera-lost"
    announced = {name for birth in host.of("DBIRTH") for name in birth["metrics"]}
    assert announced >= data.keys()  # a host may ignore what no birth has announced
    assert all(one["qos"] == 0 and not one["retain"] for one in host.of("DDATA"))

    sink.close()
    wait_for(lambda: host.of("NDEATH"))
    assert values(host.of("NDEATH")[0]) == {"bdSeq": values(node)["bdSeq"]}
    assert [one["type"] for one in host.seen if one["type"] in ("DDEATH", "NDEATH")] == ["DDEATH", "NDEATH"]


def test_sequence_numbers_wrap_at_255_without_a_gap(broker: Mosquitto, host: Host, line: ScriptedLine) -> None:
    sink = sink_for(broker.port, line)
    sink.open()
    for number in range(300):
        sink.deliver(result(number))
    wait_for(lambda: len(host.of("DDATA")) == 300)
    numbers = [one["seq"] for one in host.seen if one["type"] in ("NBIRTH", "DBIRTH", "DDATA")]
    assert numbers == [index % 256 for index in range(len(numbers))]
    assert [values(one)["Number"] for one in host.of("DDATA")] == list(range(300))
    sink.close()


def test_a_node_that_dies_is_dead_by_its_will_and_is_born_again_with_the_next_number(
    broker: Mosquitto, host: Host, line: ScriptedLine
) -> None:
    sink = sink_for(broker.port, line)
    sink.open()
    wait_for(lambda: host.of("DBIRTH"))
    sink._broker.break_off()  # the connection ends without a word, as by a kill
    wait_for(lambda: host.of("NDEATH"))
    sink.deliver(result(1))
    wait_for(lambda: host.of("DDATA"))
    births = [values(one)["bdSeq"] for one in host.of("NBIRTH")]
    assert values(host.of("NDEATH")[0])["bdSeq"] == births[0]
    assert births[1] == (births[0] + 1) % 256
    sink.close()


def test_a_rebirth_is_answered_and_another_command_is_alarmed(
    broker: Mosquitto, host: Host, line: ScriptedLine
) -> None:
    alarms: list[tuple[str, str]] = []
    sink = SparkplugSink(asked(broker.port), line, "line 1", lambda code, text: alarms.append((code, text)))
    sink.open()
    sink.deliver(result(3))
    host.say("rebirth")
    wait_for(lambda: len(host.of("NBIRTH")) == 2)
    wait_for(lambda: values(host.of("DBIRTH")[-1])["Part"] == "P3")
    first, again = host.of("NBIRTH")
    assert again["seq"] == 0
    assert values(first)["bdSeq"] == values(again)["bdSeq"]
    assert host.of("DBIRTH")[-1]["seq"] == 1
    host.say("Node Control/Reboot")
    wait_for(lambda: alarms)
    assert alarms[0][0] == "sparkplug-command"
    assert "Reboot" in alarms[0][1]
    sink.close()


def test_no_command_from_outside_ends_the_connections_thread(broker: Mosquitto, line: ScriptedLine) -> None:
    alarms: list[tuple[str, str]] = []
    sink = SparkplugSink(asked(broker.port), line, "line 1", lambda code, text: alarms.append((code, text)))
    reader = Subscriber(broker.port, "spBv1.0/plant/#")
    command = "spBv1.0/plant/NCMD/cell"
    births = "spBv1.0/plant/NBIRTH/cell"

    def asks(*names: str) -> bytes:
        return encode(
            (Metric(name=n, kind=DataType.BOOLEAN, value=True, timestamp=1) for n in names), timestamp=1, seq=1
        )

    def threads() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread.name.startswith("mqtt-")]

    try:
        sink.open()
        wait_for(lambda: len(reader.on(births)) == 1)
        before = threads()
        assert len(before) == 1
        not_utf8 = asks("XXXX", "Node Control/Reboot", "Node Control/Rebirth").replace(b"XXXX", b"\xff\xfe\x00\x80")
        reader.publish(command, not_utf8)
        wait_for(lambda: len(reader.on(births)) == 2)
        reader.publish(command, b"\xff\xff\xff")
        reader.publish(command, asks(*(f"{number}" * 500 for number in range(1000))))
        wait_for(lambda: len(alarms) == 3)
        reader.publish(command, asks("Node Control/Rebirth"))
        wait_for(lambda: len(reader.on(births)) == 3)
        assert threads() == before
        sink.deliver(result(1))
    finally:
        sink.close()
        reader.close()
    assert [code for code, _ in alarms] == ["sparkplug-command"] * 3  # one for each message, however much it holds
    assert "Node Control/Reboot" in alarms[0][1]
    assert "\\xff" in alarms[0][1]
    assert len(alarms[2][1]) < 500


def test_what_was_stored_while_the_broker_was_away_arrives_in_order_and_is_marked_historical(
    broker: Mosquitto, peer: Path, line: ScriptedLine, tmp_path: Path
) -> None:
    broker.kill()
    options = asked(broker.port, retry_after=0.05, retry_at_most=0.2)
    sink = SparkplugSink(options, line, "line 1", lambda *_: None)
    courier = Courier(options, sink, name="spb", spool=tmp_path / "spool", alarm=lambda *_: None)
    for number in range(1, 31):
        courier.put(result(number))
    broker.start()
    host = Host(peer, broker.port)
    courier.start()
    wait_for(lambda: len(host.of("DDATA")) == 30)
    assert [values(one)["Number"] for one in host.of("DDATA")] == list(range(1, 31))
    assert all("Verdict" in one["historical"] for one in host.of("DDATA"))
    assert accounted(courier.counters())
    courier.close(5.0)
    host.close()


@pytest.mark.parametrize("group", ["a/b", "a+", "#", ""])
def test_an_id_that_cannot_stand_in_a_topic_is_refused(group: str, line: ScriptedLine) -> None:
    options = MqttOptions(kind="mqtt", host="h", sparkplug=Sparkplug(group=group, node="n", device="d"))
    with pytest.raises(ConfigInvalid):
        SparkplugSink(options, line, "line", lambda *_: None)


def test_numbers_below_zero_and_null_survive_and_foreign_bytes_are_told_apart() -> None:
    metrics = [
        Metric(name="a", kind=DataType.INT64, value=-5, timestamp=1),
        Metric(name="b", kind=DataType.STRING, value=None, timestamp=1),
        Metric(name="c", kind=DataType.DOUBLE, value=0.25, timestamp=1),
    ]
    assert decode(encode(metrics, timestamp=1, seq=3)) == {"a": 2**64 - 5, "b": None, "c": 0.25}
    with pytest.raises(PayloadInvalid):
        decode(b"\xff\xff\xff")
