"""A source that blocks is read by a thread of its own: nobody waits longer than asked, and losses are counted."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import cv2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inspection.cameras.camera import CameraEnded, CameraLost
from inspection.cameras.reader import WAITING, Reader
from inspection.parts import Frame


def frame(number: int) -> Frame:
    return Frame(pixels=None, number=number, received=time.monotonic())


def counted(count: int) -> Iterator[Frame]:
    yield from (frame(number) for number in range(1, count + 1))
    raise CameraEnded("that was all")


def numbers_from(reader: Reader, limit: int | None = None) -> list[int]:
    """What the reader hands out until its end, or until there are so many."""
    numbers: list[int] = []
    while limit is None or len(numbers) < limit:
        try:
            got = reader.get(20)
        except CameraEnded:
            break
        assert got is not None
        numbers.append(got.number)
    return numbers


@settings(max_examples=30, deadline=None)
@given(count=st.integers(0, 40))
def test_a_source_that_waits_loses_nothing(count: int) -> None:
    reader = Reader(lambda stopping: counted(count), "source", live=False)
    assert numbers_from(reader) == list(range(1, count + 1))
    assert reader.dropped == 0
    reader.stop(20)


@settings(max_examples=30, deadline=None)
@given(count=st.integers(0, 40), taken=st.integers(0, 5))
def test_a_live_source_gives_up_its_oldest_and_counts_each(count: int, taken: int) -> None:
    done = threading.Event()

    def source(stopping: threading.Event) -> Iterator[Frame]:
        try:
            yield from (frame(number) for number in range(1, count + 1))
        finally:
            done.set()
        raise CameraEnded("that was all")

    reader = Reader(source, "source", live=True)
    early = numbers_from(reader, taken)
    assert done.wait(20)
    numbers = early + numbers_from(reader)
    assert len(numbers) + reader.dropped == count
    assert numbers == sorted(set(numbers))
    newest = list(range(1, count + 1))[-WAITING:]  # they wait at the end, whatever was lost before
    assert not newest or numbers[-len(newest) :] == newest
    reader.stop(20)


def test_who_waits_is_woken_by_the_stop_although_the_source_hangs() -> None:
    hanging, release = threading.Event(), threading.Event()

    def source(stopping: threading.Event) -> Iterator[Frame]:
        hanging.set()
        release.wait()
        yield frame(1)

    reader = Reader(source, "source", live=True)
    assert hanging.wait(20)
    began = time.monotonic()
    assert reader.get(0.05) is None
    got: list[Frame | None] = []
    waiting = threading.Thread(target=lambda: got.append(reader.get(60)))
    waiting.start()
    reader.stop(0.1)
    waiting.join(20)
    assert got == [None]
    assert time.monotonic() - began < 20
    release.set()


def test_what_ended_the_source_is_said_each_time() -> None:
    def source(stopping: threading.Event) -> Iterator[Frame]:
        yield frame(1)
        raise CameraLost("gone")

    reader = Reader(source, "source", live=True)
    assert reader.get(20) is not None
    for _ in range(3):
        with pytest.raises(CameraLost, match="gone"):
            reader.get(20)
    reader.stop(20)


@pytest.mark.parametrize("error", [ValueError("bad shape"), MemoryError("no room"), cv2.error("assertion failed")])
def test_a_source_that_fails_in_a_way_that_nobody_foresaw_is_a_lost_camera(error: Exception) -> None:
    def source(stopping: threading.Event) -> Iterator[Frame]:
        yield frame(1)
        raise error

    reader = Reader(source, "device top", live=True)
    assert reader.get(20) is not None
    for _ in range(3):
        with pytest.raises(CameraLost, match=str(error)) as caught:
            reader.get(20)
        assert type(error).__name__ in caught.value.what
        assert caught.value.where == "device top"
        assert caught.value.__cause__ is error
    reader.stop(20)


def test_a_source_that_ends_without_a_reason_is_a_lost_camera_unless_it_was_stopped() -> None:
    reader = Reader(lambda stopping: iter([frame(1)]), "device top", live=False)
    assert reader.get(20) is not None
    for _ in range(3):
        with pytest.raises(CameraLost, match="without a reason"):
            reader.get(20)
    reader.stop(20)
    assert reader.get(20) is None


@settings(max_examples=30, deadline=None)
@given(count=st.integers(0, 12), taken=st.integers(0, 5), live=st.booleans())
def test_every_frame_is_handed_out_or_dropped_or_discarded_at_the_stop(count: int, taken: int, live: bool) -> None:
    given = 0

    def source(stopping: threading.Event) -> Iterator[Frame]:
        nonlocal given
        for number in range(1, count + 1):
            given += 1
            yield frame(number)
        stopping.wait(60)

    reader = Reader(source, "source", live=live)
    if not live:  # which frames a live source gives up depends on the clock
        taken = min(taken, count)
        assert numbers_from(reader, taken) == list(range(1, taken + 1))
    else:
        taken = 0
    reader.stop(20)
    assert taken + reader.dropped + reader.discarded == given
    assert reader.get(0) is None
