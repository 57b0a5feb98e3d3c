"""JSON over MQTT, through a real mosquitto to an independent subscriber."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest

pytest.importorskip("paho.mqtt")

from paho.mqtt import client as paho

from inspection.errors import ConfigInvalid
from inspection.outputs.courier import Courier
from inspection.outputs.mqtt import MqttSink, topic
from inspection.outputs.options import MqttOptions
from inspection.outputs.sink import DeliveryFailed, DeliveryRefused, Message
from inspection.results import Verdict
from tests.outputs.brokers import Certificates, Mosquitto, SlowProxy, Subscriber
from tests.outputs.conftest import accounted, message, result, wait_for

pytestmark = pytest.mark.line


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    one = Mosquitto(tmp_path)
    yield one
    one.kill()


@pytest.fixture
def reader(broker: Mosquitto) -> Iterator[Subscriber]:
    one = Subscriber(broker.port)
    yield one
    one.close()


def options(port: int, **changes: Any) -> MqttOptions:
    return MqttOptions(kind="mqtt", **{"host": "127.0.0.1", "port": port, "timeout": 20.0, **changes})


@pytest.mark.parametrize("version", ["3.1.1", "5"])
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_verdict_arrives_as_json(
    broker: Mosquitto, reader: Subscriber, version: Literal["3.1.1", "5"], qos: Literal[0, 1, 2]
) -> None:
    sink = MqttSink(options(broker.port, version=version, qos=qos), "line 1")
    sink.open()
    sent = result(7, verdict=Verdict.NG)
    sink.deliver(sent)
    wait_for(lambda: reader.on("inspection/line 1/result"))
    assert [json.loads(payload) for payload in reader.on("inspection/line 1/result")] == [sent.body]
    sink.close()
    wait_for(lambda: reader.on("inspection/line 1/status") == [b"online", b"offline"])


def test_a_connection_whose_thread_has_died_is_made_anew(broker: Mosquitto, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = MqttSink(options(broker.port, qos=1, timeout=5.0), "line 1")
    sink.open()
    died = threading.Event()
    monkeypatch.setattr(threading, "excepthook", lambda _: died.set())
    with monkeypatch.context() as broken:
        broken.setattr(paho.Client, "_reconnect_wait", lambda _: 1 / 0)  # after the connection has gone
        broker.kill()
        assert died.wait(30)
    with pytest.raises(DeliveryFailed, match="cannot connect"):
        sink.deliver(message(1))
    broker.start()
    sink.deliver(message(2))  # the broker has acknowledged it
    sink.close()


def test_a_verdict_whose_deadline_goes_by_while_the_connection_is_made_is_not_sent(
    broker: Mosquitto, reader: Subscriber
) -> None:
    sink = MqttSink(options(broker.port, gate=True, timeout=10.0), "line 1")
    now = time.monotonic()
    with pytest.raises(DeliveryFailed, match="deadline"):
        sink.deliver(result(1, at=now - 1, deadline=now - 0.01))
    on_time = result(2, at=now, deadline=now + 60)
    sink.deliver(on_time)
    wait_for(lambda: reader.on("inspection/line 1/result"))
    assert [json.loads(payload) for payload in reader.on("inspection/line 1/result")] == [on_time.body]
    sink.close()


def test_the_topic_tells_product_verdict_and_part() -> None:
    sent = Message(kind="result", sequence=1, wall=0.0, body={"product": "M8/bolt", "verdict": "NG", "part": "a+#"})
    assert topic("p/{line}/{kind}/{product}/{verdict}/{part}", sent, "L1") == "p/L1/result/M8_bolt/NG/a__"
    assert topic("p/{part}", message(1), "L1") == "p/-"


@pytest.mark.parametrize("template", ["p/{parts}", "p/#", "p/{part", ""])
def test_a_topic_that_cannot_be_published_to_is_refused_before_the_line_runs(template: str) -> None:
    with pytest.raises(ConfigInvalid):
        MqttSink(options(1, topic=template), "line")


def test_a_password_comes_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    passwords = tmp_path / "passwords"
    subprocess.run(["mosquitto_passwd", "-b", "-c", str(passwords), "line", "secret"], check=True)
    broker = Mosquitto(tmp_path, "allow_anonymous false", f"password_file {passwords}")
    try:
        asked = options(broker.port, username="line", password_env="BROKER_PASSWORD", timeout=5.0)
        with pytest.raises(ConfigInvalid, match="BROKER_PASSWORD"):
            MqttSink(asked, "line")
        monkeypatch.setenv("BROKER_PASSWORD", "wrong")
        with pytest.raises(DeliveryFailed, match=r"Bad user name or password|Not authorized"):
            MqttSink(asked, "line").open()
        monkeypatch.setenv("BROKER_PASSWORD", "secret")
        sink = MqttSink(asked, "line")
        sink.open()
        sink.deliver(message(1))
        sink.close()
    finally:
        broker.kill()


def test_tls_checks_the_broker_and_shows_the_lines_own_certificate(tmp_path: Path) -> None:
    own = Certificates(tmp_path)
    (tmp_path / "foreign").mkdir()
    foreign = Certificates(tmp_path / "foreign")
    broker = Mosquitto(
        tmp_path,
        f"cafile {own.ca}",
        f"certfile {own.server}",
        f"keyfile {own.server_key}",
        "require_certificate true",
        "use_identity_as_username true",
    )
    try:
        sink = MqttSink(options(broker.port, ca=own.ca, certificate=own.client, key=own.client_key), "line")
        sink.open()
        sink.deliver(message(1))
        sink.close()
        with pytest.raises(DeliveryFailed, match="certificate verify failed"):
            MqttSink(options(broker.port, ca=foreign.ca, certificate=own.client, key=own.client_key), "line").open()
        with pytest.raises(DeliveryFailed):
            MqttSink(options(broker.port, ca=own.ca, timeout=5.0), "line").open()
        with pytest.raises(ConfigInvalid, match="certificates cannot be read"):
            MqttSink(options(broker.port, ca=tmp_path / "none.pem"), "line")
    finally:
        broker.kill()


def test_a_message_that_the_broker_will_never_take_is_refused(tmp_path: Path) -> None:
    broker = Mosquitto(tmp_path, "allow_anonymous true", "max_packet_size 2000")
    try:
        sink = MqttSink(options(broker.port), "line")
        sink.open()
        with pytest.raises(DeliveryRefused, match="more than the broker takes"):
            sink.deliver(Message(kind="state", sequence=1, wall=0.0, body={"text": "x" * 3000}))
        sink.deliver(message(2))
        sink.close()
    finally:
        broker.kill()


@pytest.mark.slow
def test_a_broker_that_is_killed_and_started_again_loses_no_verdict_and_no_order(
    broker: Mosquitto, tmp_path: Path
) -> None:
    reader = Subscriber(broker.port, "inspection/line/result")
    alarms: list[str] = []
    asked = options(broker.port, retry_after=0.05, retry_at_most=0.5, timeout=5.0, breaker=3)
    there = threading.Event()
    there.set()

    class Sink(MqttSink):
        """A broker that was killed has forgotten its reader: it counts as away until that one has subscribed again."""

        def deliver(self, message: Message) -> None:
            if not there.is_set():
                raise DeliveryFailed("the reader is not back")
            super().deliver(message)

    courier = Courier(
        asked, Sink(asked, "line"), name="mqtt", spool=tmp_path / "spool", alarm=lambda code, _: alarms.append(code)
    )
    courier.start()
    for number in range(1, 201):
        courier.put(result(number))
        if number == 80:
            wait_for(lambda: courier.counters()["delivered"] >= 40)
            broker.kill()
        if number == 160:
            wait_for(lambda: courier.state == "away")
            there.clear()
            reader.subscribed.clear()
            broker.start()
            assert reader.subscribed.wait(30)
            there.set()
        time.sleep(0.002)
        assert accounted(courier.counters())
    wait_for(lambda: courier.counters()["delivered"] == 200, timeout=60)
    wait_for(lambda: any(json.loads(payload)["number"] == 200 for _, payload in list(reader.messages)))
    courier.close(1.0)
    reader.close()
    numbers = [json.loads(payload)["number"] for _, payload in reader.messages]
    first = list(dict.fromkeys(numbers))
    assert first == sorted(first)
    assert len(numbers) - len(first) <= 1  # only what was being delivered may come twice
    missing = set(range(1, 201)) - set(first)
    # The broker may have acknowledged one that it had not passed on when it was killed.
    assert len(missing) <= 1, missing
    assert alarms == ["output-away", "output-back"]
    assert courier.counters()["dropped"] == courier.counters()["refused"] == 0


def test_a_broker_that_answers_nothing_gets_the_message_again_and_the_line_shows_offline(
    broker: Mosquitto, reader: Subscriber
) -> None:
    asked = options(broker.port, retry_after=0.05, retry_at_most=0.2, timeout=1.0)
    courier = Courier(asked, MqttSink(asked, "line"), name="mqtt", spool=None, alarm=lambda *_: None)
    courier.start()
    courier.put(result(1))
    wait_for(lambda: courier.counters()["delivered"] == 1)
    broker.pause(signal.SIGSTOP)
    courier.put(result(2))
    wait_for(lambda: courier.counters()["failed"] >= 2)
    broker.pause(signal.SIGCONT)
    wait_for(lambda: courier.counters()["delivered"] == 2)
    wait_for(lambda: reader.on("inspection/line/status")[-1] == b"online")
    assert b"offline" in reader.on("inspection/line/status")
    numbers = [json.loads(payload)["number"] for payload in reader.on("inspection/line/result")]
    assert list(dict.fromkeys(numbers)) == [1, 2]
    courier.close(1.0)
    wait_for(lambda: reader.on("inspection/line/status")[-1] == b"offline")


@pytest.mark.parametrize("qos", [1, 2])
def test_a_connection_that_is_given_up_while_it_is_made_sends_nothing_more_and_ends(
    tmp_path: Path, qos: Literal[1, 2]
) -> None:
    """A verdict was sent, the connection broke, and the next one hangs in its TLS handshake when it is too late."""
    own = Certificates(tmp_path)
    files = (f"cafile {own.ca}", f"certfile {own.server}", f"keyfile {own.server_key}", "allow_anonymous true")
    broker = Mosquitto(tmp_path, *files)
    proxy = SlowProxy(broker.port)
    reader = Subscriber(broker.port, ca=own.ca)
    sink = MqttSink(options(proxy.port, ca=own.ca, qos=qos, timeout=60.0), "line")
    failed: list[DeliveryFailed] = []

    def deliver_the_second() -> None:
        try:
            sink.deliver(result(2, verdict=Verdict.NG))
        except DeliveryFailed as error:
            failed.append(error)

    def connections() -> list[str]:
        return [thread.name for thread in threading.enumerate() if thread.name.startswith("mqtt-")]

    others = [threading.Thread(target=deliver_the_second), threading.Thread(target=sink.close)]
    try:
        sink.open()
        sink.deliver(result(1))
        proxy.stop()
        others[0].start()
        wait_for(lambda: proxy.stopped == 1)  # the verdict is on its way
        proxy.cut()
        wait_for(lambda: proxy.stopped == 2)  # the next connection waits for the broker's side of the handshake
        others[1].start()
        wait_for(lambda: failed)
        proxy.go_on()
        wait_for(lambda: not connections())
        for other in others:
            other.join(30)
        sink.open()
        sink.deliver(result(3))
        wait_for(lambda: len(reader.on("inspection/line/result")) >= 2)
        sink.close()
        wait_for(lambda: reader.on("inspection/line/status")[-1] == b"offline")
        numbers = [json.loads(payload)["number"] for payload in reader.on("inspection/line/result")]
        assert numbers == [1, 3]
        assert connections() == []
    finally:
        proxy.close()
        sink.close()
        reader.close()
        broker.kill()


def test_a_verdict_that_was_counted_late_for_the_gate_is_not_sent_by_a_connection_that_comes_up_later(
    tmp_path: Path,
) -> None:
    own = Certificates(tmp_path)
    files = (f"cafile {own.ca}", f"certfile {own.server}", f"keyfile {own.server_key}", "allow_anonymous true")
    broker = Mosquitto(tmp_path, *files)
    proxy = SlowProxy(broker.port)
    reader = Subscriber(broker.port, "inspection/line/result", ca=own.ca)
    asked = options(proxy.port, ca=own.ca, gate=True, timeout=60.0, retry_after=0.05, retry_at_most=0.1)
    courier = Courier(asked, MqttSink(asked, "line"), name="mqtt", spool=None, alarm=lambda *_: None)
    courier.start()
    try:
        courier.put(result(1, deadline=time.monotonic() + 60))
        wait_for(lambda: courier.counters()["delivered"] == 1)
        proxy.stop()
        courier.put(result(2, deadline=time.monotonic() + 4))
        wait_for(lambda: proxy.stopped >= 1 or courier.counters()["late"] == 1)
        proxy.cut()
        wait_for(lambda: courier.counters()["late"] == 1)
        courier.put(result(3, deadline=time.monotonic() + 60))
        proxy.go_on()
        wait_for(lambda: courier.counters()["delivered"] == 2)
        wait_for(lambda: len(reader.messages) >= 2)
    finally:
        courier.close(5.0)
        proxy.close()
        reader.close()
        broker.kill()
    assert [json.loads(payload)["number"] for _, payload in reader.messages] == [1, 3]
    assert accounted(courier.counters())
    wait_for(lambda: not [one for one in threading.enumerate() if one.name.startswith("mqtt-")])


def test_a_line_that_dies_is_offline_by_its_last_will(broker: Mosquitto, reader: Subscriber) -> None:
    sink = MqttSink(options(broker.port), "line")
    sink.open()
    wait_for(lambda: reader.on("inspection/line/status") == [b"online"])
    sink._broker.break_off()  # the connection ends without a word, as by a kill
    wait_for(lambda: reader.on("inspection/line/status") == [b"online", b"offline"])
