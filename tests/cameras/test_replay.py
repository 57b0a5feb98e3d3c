"""What was seen once is seen again: the same frames, in the same order, when they are due."""

from __future__ import annotations

import hashlib
import re
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from inspection.cameras.camera import CameraEnded, CameraLost
from inspection.cameras.options import AnyCamera, ReplayOptions
from inspection.cameras.recording import FrameEvent, Recording, TriggerEvent
from inspection.cameras.replay import ReplayCamera, events
from inspection.errors import ConfigInvalid, DataInvalid
from inspection.parts import Frame
from tests.support.images import mvtec, save, surface
from tests.support.recordings import frame, recorder, result, trigger

RED = np.full((8, 10, 3), (250, 10, 20), np.uint8)
DEEP = np.arange(80, dtype=np.uint16).reshape(8, 10) * 800
LONG = 30.0


def camera(path: Path, **options: Any) -> ReplayCamera:
    return ReplayCamera(ReplayOptions(kind="replay", path=path, **options), "top")


def take(source: ReplayCamera) -> Frame:
    frame = source.frame(LONG)
    assert frame is not None
    return frame


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Three images, not written in the order of their names."""
    save(tmp_path / "images" / "b" / "2.png", surface(2))
    save(tmp_path / "images" / "a.png", RED)
    save(tmp_path / "images" / "c.tif", DEEP)
    return tmp_path / "images"


# Folders of images


@pytest.mark.parametrize("preload", [True, False])
def test_each_trigger_exposes_the_next_image_in_the_order_of_names(images: Path, preload: bool) -> None:
    source = camera(images, preload=preload)
    assert source.triggered
    source.start()
    assert source.frame(0) is None
    for number, (name, image, pixel_format) in enumerate(
        (("a.png", RED, "RGB8"), ("b/2.png", surface(2), "Mono8"), ("c.tif", DEEP, "Mono16")), start=1
    ):
        source.trigger()
        seen = take(source)
        assert (seen.number, seen.name, seen.pixel_format) == (number, name, pixel_format)
        assert seen.pixels is not None
        assert seen.pixels.dtype == image.dtype
        assert seen.pixels.flags.c_contiguous
        np.testing.assert_array_equal(seen.pixels, image)
        if number < 3:
            assert source.frame(0) is None
    with pytest.raises(CameraEnded, match="loop"):
        source.frame(0)


def test_triggers_that_come_before_their_frames_were_taken_are_all_answered(images: Path) -> None:
    source = camera(images, loop=True)
    source.start()
    for _ in range(7):
        source.trigger()
    assert [take(source).number for _ in range(7)] == [1, 2, 3, 4, 5, 6, 7]
    assert source.frame(0) is None
    assert [source.facts()[name] for name in ("handed_out", "unanswered")] == [7, 0]


def test_preloaded_images_are_handed_out_without_a_copy_and_nobody_can_change_them(images: Path) -> None:
    source = camera(images, loop=True)
    assert source.facts()["preloaded_bytes"] == RED.nbytes + surface(2).nbytes + DEEP.nbytes
    source.start()
    for _ in range(6):
        source.trigger()
    frames = [take(source) for _ in range(6)]
    for first, again in zip(frames[:3], frames[3:], strict=True):
        assert first.pixels is again.pixels
        assert first.pixels is not None
        with pytest.raises(ValueError, match="read-only"):
            first.pixels[0, 0] = 0


def test_images_that_do_not_fit_into_memory_are_refused_with_the_mend(
    images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inspection.cameras.recording.memory_bytes", lambda: (10**6, 100))
    with pytest.raises(ConfigInvalid, match="preload: false"):
        camera(images)
    assert camera(images, preload=False).facts()["preloaded_bytes"] == 0


@pytest.mark.parametrize("preload", [True, False])
def test_a_damaged_image_is_a_damaged_frame(images: Path, preload: bool) -> None:
    (images / "a.png").write_bytes((images / "a.png").read_bytes()[:50])
    source = camera(images, preload=preload)
    source.start()
    source.trigger()
    source.trigger()
    damaged, sound = take(source), take(source)
    assert damaged.pixels is None
    assert damaged.damage
    assert sound.damage is None


def test_a_dataset_is_replayed_whole(tmp_path: Path) -> None:
    root = mvtec(tmp_path / "data", train=2, good=1, bad=1)
    source = camera(root / "test")
    source.start()
    source.trigger()
    source.trigger()
    assert [take(source).name, take(source).name] == ["good/000.png", "scratch/000.png"]


def test_after_a_stop_it_goes_on_with_the_next_image_and_counts_triggers_that_had_none(images: Path) -> None:
    source = camera(images)
    with pytest.raises(CameraLost):
        source.trigger()
    source.start()
    source.trigger()
    assert take(source).number == 1
    source.trigger()
    source.stop()
    source.stop()
    assert source.frame(LONG) is None
    assert source.facts()["unanswered"] == 1
    source.start()
    assert source.frame(0) is None
    source.trigger()
    assert take(source).number == 2


def test_a_trigger_and_a_stop_wake_a_camera_that_waits(images: Path) -> None:
    source = camera(images)
    source.start()
    got: list[Frame | None] = []
    first = threading.Event()

    def run() -> None:
        got.append(source.frame(600.0))
        first.set()
        got.append(source.frame(600.0))

    thread = threading.Thread(target=run)
    thread.start()
    source.trigger()
    assert first.wait(LONG)
    source.stop()
    thread.join(LONG)
    assert [one and one.number for one in got] == [1, None]


def test_nothing_to_replay_is_said_before_the_line_runs(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match="nothing to replay"):
        camera(tmp_path / "nowhere")
    with pytest.raises(DataInvalid, match="no image"):
        camera(tmp_path)


# Recordings


class Time:
    """A clock that only sleeping moves, and sometimes by less than was asked for."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept = 0.0

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        part = seconds if seconds < 1e-3 else seconds * 0.75
        self.now += part
        self.slept += part


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["trigger", "top", "side", "result"]),
        st.floats(0, 100),
        st.integers(0, 255),
        st.sampled_from([np.uint8, np.uint16]),
    ),
    max_size=15,
)


@settings(max_examples=60, deadline=None)
@given(STEPS, st.sampled_from([None, 0.5, 1.0, 3.0]))
def test_whatever_the_interleaving_it_comes_again_in_that_order_with_its_values(
    steps: list[tuple[str, float, int, Any]], speed: float | None
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        with recorder(Path(folder)) as made:
            for count, (kind, at, value, dtype) in enumerate(steps, start=1):
                if kind == "trigger":
                    made.trigger(trigger(count, at))
                elif kind == "result":
                    made.result(result(trigger(count, at), value))
                else:
                    made.frame(kind, frame(count, np.full((2, 3), value, dtype), at, device_ns=value))
        wanted = [(count, *step) for count, step in enumerate(steps, start=1) if step[0] != "result"]
        world = Time()
        due: list[float] = []
        for event, (count, kind, at, value, dtype) in zip(
            events(Recording(folder), speed, clock=world.clock, sleep=world.sleep), wanted, strict=True
        ):
            assert event.offset == at
            if isinstance(event, TriggerEvent):
                assert kind == "trigger"
                assert event.trigger.number == count
                due.append(event.trigger.at)
            else:
                assert isinstance(event, FrameEvent)
                assert event.view == kind
                assert event.frame.number == count
                assert event.frame.device_ns == value
                assert event.frame.pixels is not None
                assert event.frame.pixels.dtype == dtype
                assert (event.frame.pixels == value).all()
                due.append(event.frame.received)
            assert due[-1] <= world.now  # never early
        assert due == sorted(due)
        if speed is None:
            assert world.slept == 0
        elif wanted:
            latest = np.maximum.accumulate([at for _, _, at, _, _ in wanted])
            np.testing.assert_allclose(np.array(due) - 1000.0, latest / speed, atol=1e-9)


def digest(path: Path) -> str:
    """All that a replay gives, without the moments at which it gave it."""
    sums = hashlib.sha256()
    for event in events(Recording(path), None):
        if isinstance(event, TriggerEvent):
            sums.update(f"{event.offset!r} {event.trigger.number} {event.trigger.part}".encode())
        else:
            assert event.frame.pixels is not None
            sums.update(f"{event.offset!r} {event.view} {event.frame.number}".encode() + event.frame.pixels.tobytes())
    return sums.hexdigest()


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """Four parts, one each 0.1 s; of view top frame 3 was lost, and it was seen first by view side."""
    with recorder(tmp_path / "recorded") as made:
        for n in (1, 2, 3, 4):
            at = n / 10
            made.trigger(trigger(n, at))
            made.frame("side", frame(n, np.dstack([surface(n)] * 3), at + 0.01, trigger=n))
            if n != 3:
                made.frame("top", frame(n, RED if n == 1 else DEEP + n, at + 0.02, trigger=n))
    return tmp_path / "recorded"


def test_two_replays_give_the_same(recorded: Path) -> None:
    assert digest(recorded) == digest(recorded)


@pytest.mark.parametrize("preload", [True, False])
def test_one_view_of_a_recording_plays_by_itself(recorded: Path, preload: bool) -> None:
    source = camera(recorded, speed=None, preload=preload)
    assert not source.triggered
    source.start()
    source.trigger()  # it plays at its own takt
    frames = [take(source) for _ in range(3)]
    assert [(one.number, one.trigger) for one in frames] == [(1, 1), (2, 2), (4, 4)]
    for seen, image in zip(frames, (RED, DEEP + 2, DEEP + 4), strict=True):
        assert seen.pixels is not None
        assert seen.pixels.dtype == image.dtype
        np.testing.assert_array_equal(seen.pixels, image)
    with pytest.raises(CameraEnded):
        source.frame(LONG)
    facts = source.facts()
    assert facts["source"] == "recording"
    assert facts["preloaded_bytes"] == (RED.nbytes + 2 * DEEP.nbytes if preload else 0)


@pytest.mark.parametrize("speed", [1.0, 2.0])
def test_frames_come_at_the_recordings_own_takt_or_faster_and_never_early(recorded: Path, speed: float) -> None:
    source = camera(recorded, speed=speed)
    started = time.monotonic()
    source.start()
    assert [take(source).received - started >= offset / speed for offset in (0.12, 0.22, 0.42)] == [True] * 3


def test_frame_returns_within_its_time_when_nothing_is_due(recorded: Path) -> None:
    source = camera(recorded, speed=0.001)
    source.start()
    assert source.frame(0) is None
    assert source.frame(0.01) is None


def test_time_stands_still_while_it_is_stopped(recorded: Path) -> None:
    source = camera(recorded, speed=1e-3)  # the first frame is due after 120 s
    source.start()
    source.stop()
    source.start()
    assert source.frame(0.01) is None
    fast = camera(recorded, speed=None)
    fast.start()
    assert take(fast).number == 1
    fast.stop()
    assert fast.frame(LONG) is None
    fast.start()
    assert take(fast).number == 2


def test_a_recording_that_loops_numbers_its_frames_on_with_its_own_gaps(recorded: Path) -> None:
    source = camera(recorded, speed=1000.0, loop=True)
    source.start()
    assert [take(source).number for _ in range(8)] == [1, 2, 4, 5, 6, 8, 9, 10]


def test_another_view_can_stand_in_and_an_unknown_one_is_refused_with_those_that_are_there(recorded: Path) -> None:
    source = camera(recorded, view="side", speed=None)
    source.start()
    assert take(source).pixels is not None
    with pytest.raises(ConfigInvalid, match="side, top"):
        camera(recorded, view="bottom")


def test_the_cameras_on_the_page_for_integrators_are_valid() -> None:
    page = (Path(__file__).parents[2] / "docs" / "recordings.md").read_text(encoding="utf-8")
    shown = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)]
    assert [TypeAdapter(AnyCamera).validate_python(one).kind for one in shown] == ["folder", "pushed", "replay"]
