"""Signed messages to a real HTTP server that takes, refuses, hangs or trickles."""

from __future__ import annotations

import hashlib
import hmac
import json
import ssl
import time
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("urllib3")

from inspection.errors import ConfigInvalid
from inspection.outputs.courier import Courier
from inspection.outputs.options import WebhookOptions
from inspection.outputs.sink import DeliveryFailed, DeliveryRefused, Message
from inspection.outputs.webhook import WebhookSink
from inspection.results import Verdict
from tests.outputs.brokers import Certificates
from tests.outputs.conftest import accounted, message, result, wait_for
from tests.outputs.receiver import Receiver

pytestmark = pytest.mark.line


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    one = Receiver()
    yield one
    one.close()


def opened(url: str, **changes: Any) -> WebhookSink:
    sink = WebhookSink(WebhookOptions(kind="webhook", url=url, **{"timeout": 20.0, **changes}), "line 1")
    sink.open()
    return sink


def test_a_receiver_can_prove_who_sent_it_and_when(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK_KEY", "geheim")
    sink = opened(receiver.url, secret_env="HOOK_KEY", headers={"Authorization": "Bearer x"})
    sent = result(5, verdict=Verdict.NG)
    sink.deliver(sent)
    sink.close()
    headers, body = receiver.got[0]
    stamp = headers["X-Inspection-Timestamp"]
    expected = hmac.new(b"geheim", f"{stamp}.".encode() + body, hashlib.sha256).hexdigest()
    assert headers["X-Inspection-Signature"] == f"sha256={expected}"
    assert abs(int(stamp) - time.time()) < 60
    assert json.loads(body) == sent.body
    assert (headers["X-Inspection-Kind"], headers["Content-Type"]) == ("result", "application/json")
    assert headers["Authorization"] == "Bearer x"


def test_a_repeated_message_has_the_same_id_and_no_other_message_has_it(receiver: Receiver) -> None:
    sink = opened(receiver.url)
    receiver.answers = [503]
    with pytest.raises(DeliveryFailed):
        sink.deliver(message(1))
    later = Message(kind="state", sequence=1, wall=1.8e9, body={})  # the line was started anew, and counts from 1
    for one in (message(1), message(2), later):
        sink.deliver(one)
    ids = [headers["X-Inspection-Id"] for headers, _ in receiver.got]
    assert ids[0] == ids[1]
    assert len(set(ids)) == 3


@pytest.mark.parametrize("status", [200, 201, 204, 299])
def test_every_2xx_means_delivered(receiver: Receiver, status: int) -> None:
    receiver.answers = [status]
    receiver.body = b""
    opened(receiver.url).deliver(message(1))


@pytest.mark.parametrize("status", [301, 408, 425, 429, 500, 502, 503, 504])
def test_answers_that_may_change_are_tried_again(receiver: Receiver, status: int) -> None:
    receiver.answers = [status]
    with pytest.raises(DeliveryFailed) as raised:
        opened(receiver.url).deliver(message(1))
    assert not isinstance(raised.value, DeliveryRefused)
    assert str(status) in raised.value.what


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
def test_answers_that_will_not_change_are_not(receiver: Receiver, status: int) -> None:
    receiver.answers = [status]
    receiver.body = b"no such part"
    with pytest.raises(DeliveryRefused, match="no such part"):
        opened(receiver.url).deliver(message(1))


@pytest.mark.parametrize(("header", "least", "most"), [("17", 17, 17), ("date", 50, 61), ("soon", None, None)])
def test_a_receiver_says_when_to_try_again(
    receiver: Receiver, header: str, least: float | None, most: float | None
) -> None:
    receiver.answers = [429]
    receiver.headers = {"Retry-After": formatdate(time.time() + 60, usegmt=True) if header == "date" else header}
    with pytest.raises(DeliveryFailed) as raised:
        opened(receiver.url).deliver(message(1))
    asked = raised.value.retry_after
    assert asked is None if least is None or most is None else asked is not None and least <= asked <= most


def test_a_receiver_that_hangs_or_is_not_there_is_given_up(receiver: Receiver) -> None:
    receiver.answers = ["hang"]
    sink = opened(receiver.url, timeout=1.0)
    with pytest.raises(DeliveryFailed, match="timed out"):
        sink.deliver(message(1))
    sink.deliver(message(1))
    receiver.close()
    with pytest.raises(DeliveryFailed, match="no answer"):
        opened(receiver.url, timeout=5.0).deliver(message(2))


def test_no_error_tells_what_is_secret_in_the_url(receiver: Receiver) -> None:
    address = receiver.url.removeprefix("http://").removesuffix("/hook")
    secret = f"http://user:passw0rd@{address}/t0ken/hook?key=s3cret"
    receiver.answers = [503, 404, 302]
    receiver.body = b"Cannot POST /t0ken/hook?key=s3cret"
    receiver.headers = {"Location": "https://user:passw0rd@elsewhere.plant:8443/t0ken/hook?key=s3cret"}
    sink = opened(secret)
    raised = []
    for number in range(3):
        with pytest.raises(DeliveryFailed) as answered:
            sink.deliver(message(number))
        raised.append(answered.value)
    sink.close()
    with pytest.raises(DeliveryFailed) as closed:
        sink.deliver(message(4))
    receiver.close()
    sink.open()
    with pytest.raises(DeliveryFailed) as away:
        sink.deliver(message(5))
    for error in (*raised, closed.value, away.value):
        assert error.where == f"http://{address}"
        for word in ("user", "passw0rd", "t0ken", "s3cret"):
            assert word not in f"{error} {error.hint}"
    assert "https://elsewhere.plant:8443" in str(raised[2].hint)
    assert all("Authorization" not in headers for headers, _ in receiver.got)  # as the page says
    for wrong in ("ftp://user:passw0rd@host/t0ken", "http://user:passw0rd@[::1/t0ken"):
        with pytest.raises(ConfigInvalid) as refused:
            opened(wrong)
        assert "passw0rd" not in str(refused.value)
        assert "t0ken" not in str(refused.value)


def test_a_long_answer_is_not_read_to_its_end(receiver: Receiver) -> None:
    receiver.body = b"x" * 5_000_000
    sink = opened(receiver.url)
    sink.deliver(message(1))
    sink.deliver(message(2))
    assert len(receiver.got) == 2


def test_https_checks_the_receiver(tmp_path: Path) -> None:
    own = Certificates(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own.server, own.server_key)
    receiver = Receiver(context)
    try:
        opened(receiver.url, ca=own.ca).deliver(message(1))
        with pytest.raises(DeliveryFailed, match=r"(?i)certificate.verify.failed"):
            opened(receiver.url).deliver(message(2))
    finally:
        receiver.close()


def test_what_cannot_work_is_said_before_the_line_runs(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match="http"):
        opened("ftp://host/x")
    with pytest.raises(ConfigInvalid, match="HOOK_KEY"):
        opened("http://host/x", secret_env="HOOK_KEY")
    with pytest.raises(ConfigInvalid, match="cannot be read"):
        opened("https://host/x", ca=tmp_path / "none.pem")


def test_a_receiver_that_fails_refuses_and_hangs_gets_every_message_that_it_takes_once_in_order(
    receiver: Receiver, tmp_path: Path
) -> None:
    receiver.answers = [503, 503, 200, "hang", 200, 404, 200, 500, "hang"]
    options = WebhookOptions(kind="webhook", url=receiver.url, timeout=0.5, retry_after=0.01, retry_at_most=0.05)
    sink = WebhookSink(options, "line")
    courier = Courier(options, sink, name="hook", spool=tmp_path, alarm=lambda *_: None)
    courier.start()
    for number in range(1, 21):
        courier.put(message(number))
    wait_for(lambda: courier.counters()["waiting"] == 0)
    courier.close(1.0)
    counters = courier.counters()
    assert accounted(counters)
    assert (counters["delivered"], counters["refused"], counters["failed"]) == (19, 1, 5)
    assert list(dict.fromkeys(json.loads(body)["number"] for _, body in receiver.got)) == list(range(1, 21))


def at_the_gate(url: str) -> Courier:
    options = WebhookOptions(kind="webhook", url=url, gate=True, timeout=50.0, retry_after=0.01, retry_at_most=0.1)
    courier = Courier(options, WebhookSink(options, "line 1"), name="gate", spool=None, alarm=lambda *_: None)
    courier.start()
    return courier


def test_a_receiver_that_hangs_on_an_alarm_costs_no_verdict_at_the_gate(receiver: Receiver) -> None:
    receiver.answers.append("hang")
    courier = at_the_gate(receiver.url)
    courier.put(message(0, "alarm"))
    wait_for(lambda: not receiver.answers)
    now = time.monotonic()
    courier.put(result(1, at=now, deadline=now + 10))
    wait_for(lambda: courier.counters()["delivered"] == 2)
    assert (courier.counters()["late"], courier.counters()["failed"]) == (0, 1)
    assert [headers["X-Inspection-Kind"] for headers, _ in receiver.got] == ["result", "alarm"]
    courier.close(1.0)


def test_a_verdict_that_hangs_costs_no_other_one_at_the_gate(receiver: Receiver) -> None:
    receiver.answers.append("hang")
    courier = at_the_gate(receiver.url)
    now = time.monotonic()
    courier.put(result(1, at=now, deadline=now + 1))
    wait_for(lambda: not receiver.answers)
    courier.put(result(2, at=now, deadline=now + 10))
    wait_for(lambda: courier.counters()["delivered"] == 1)
    assert courier.counters()["late"] == 1
    assert [json.loads(body)["number"] for _, body in receiver.got] == [2]
    courier.close(1.0)
