"""Frames that somebody sends are a camera."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inspection.cameras.options import PushedOptions
from inspection.cameras.pushed import PushedCamera, QueueFull
from inspection.control import NotReady
from inspection.parts import Frame

PIXELS = np.full((4, 6, 3), (250, 10, 20), np.uint8)


def camera(queue: int = 8) -> PushedCamera:
    return PushedCamera(PushedOptions(kind="pushed", queue=queue), "top")


def sent(number: int = 0, **about: Any) -> Frame:
    return Frame(pixels=PIXELS, number=number, received=time.monotonic(), **about)


def test_frames_come_out_as_they_were_sent_and_in_order() -> None:
    source = camera()
    source.start()
    source.push(sent(part="SN1", lot="L", trigger=7))
    source.push(sent(part="SN2"))
    first, second = source.frame(0), source.frame(0)
    assert first is not None
    assert second is not None
    assert (first.part, first.lot, first.trigger, first.number) == ("SN1", "L", 7, 1)
    assert (second.part, second.number) == ("SN2", 2)
    assert first.pixels is PIXELS
    assert source.frame(0) is None


def test_a_senders_own_numbers_stay_so_that_a_gap_is_seen() -> None:
    source = camera()
    source.start()
    for number in (5, 9, 0):
        source.push(sent(number))
    frames = [source.frame(0) for _ in range(3)]
    assert [frame.number for frame in frames if frame] == [5, 9, 10]


def test_a_frame_beyond_the_queue_is_refused_and_counted() -> None:
    source = camera(queue=2)
    source.start()
    source.push(sent())
    source.push(sent())
    with pytest.raises(QueueFull) as refused:
        source.push(sent())
    assert isinstance(refused.value, NotReady)
    assert refused.value.status == 503
    assert source.frame(0) is not None
    source.push(sent())
    assert source.facts() == {"accepted": 3, "refused": 1, "discarded": 0, "waiting": 2}


def test_a_camera_that_is_stopped_refuses_and_what_waited_is_counted() -> None:
    source = camera()
    with pytest.raises(NotReady):
        source.push(sent())
    source.start()
    source.push(sent())
    source.stop()
    source.stop()
    with pytest.raises(NotReady):
        source.push(sent())
    source.start()
    assert source.frame(0) is None
    source.push(sent())
    frame = source.frame(0)
    assert frame is not None
    assert frame.number == 2  # the discarded one had number 1
    assert source.facts() == {"accepted": 2, "refused": 2, "discarded": 1, "waiting": 0}


def test_a_push_and_a_stop_wake_a_camera_that_waits() -> None:
    source = camera()
    source.start()
    got: list[Frame | None] = []
    thread = threading.Thread(target=lambda: got.extend((source.frame(600.0), source.frame(600.0))))
    thread.start()
    source.push(sent(3))
    while not got and source.facts()["waiting"]:
        time.sleep(0.001)
    source.stop()
    thread.join(30)
    assert [frame and frame.number for frame in got] == [3, None]


@given(st.integers(1, 3), st.lists(st.sampled_from(["push", "take", "stop", "start"]), max_size=40))
def test_no_frame_is_lost_unseen_whatever_happens(queue: int, steps: list[str]) -> None:
    source = camera(queue)
    pushed = refused = 0
    taken: list[int] = []
    for step in steps:
        if step == "push":
            pushed += 1
            try:
                source.push(sent())
            except NotReady:
                refused += 1
        elif step == "take":
            frame = source.frame(0)
            taken += [] if frame is None else [frame.number]
        else:
            getattr(source, step)()
        facts = {name: int(value or 0) for name, value in source.facts().items()}
        assert facts["waiting"] <= queue
        assert facts["refused"] == refused
        assert pushed == len(taken) + facts["waiting"] + facts["discarded"] + facts["refused"]
    assert taken == sorted(set(taken))


def test_frames_from_many_senders_all_arrive_once() -> None:
    source = camera(queue=400)
    source.start()
    senders = [
        threading.Thread(target=lambda who=who: [source.push(sent(part=f"{who}-{n}")) for n in range(50)])  # type: ignore[misc]
        for who in range(8)
    ]
    for sender in senders:
        sender.start()
    frames = [source.frame(30) for _ in range(400)]
    for sender in senders:
        sender.join(30)
    assert [frame.number for frame in frames if frame] == list(range(1, 401))
    parts = [frame.part for frame in frames if frame]
    assert len(set(parts)) == 400
    for who in range(8):
        assert [part for part in parts if part and part.startswith(f"{who}-")] == [f"{who}-{n}" for n in range(50)]
