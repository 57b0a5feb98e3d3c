"""What a line saw is on disk, to the bit, and the line never waits for it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from inspection.cameras.recorder import Recorder, RecorderState
from inspection.cameras.recording import (
    FrameEvent,
    LostEvent,
    Recording,
    ResultEvent,
    TriggerEvent,
    is_recording,
    judgement,
)
from inspection.errors import ConfigInvalid, DataInvalid, OutputUnwritable
from inspection.parts import Frame
from tests.support.images import surface
from tests.support.recordings import frame, recorder, result, trigger

RED = np.full((8, 10, 3), (250, 10, 20), np.uint8)
DEEP = np.arange(80, dtype=np.uint16).reshape(8, 10) * 800
LONG = 30.0

TEXT = st.none() | st.text(st.characters(), max_size=5)  # file names may hold any bytes
OFFSETS = st.floats(0, 1e6, allow_nan=False)
PIXELS = st.none() | st.tuples(
    st.sampled_from([np.uint8, np.uint16]), st.sampled_from([(3, 4), (3, 4, 3), (1, 1), (2, 0), (5, 1, 3)])
).flatmap(lambda kind: arrays.arrays(kind[0], kind[1]))
FRAMES = st.builds(
    Frame,
    pixels=PIXELS,
    number=st.integers(0, 2**70),
    received=OFFSETS,
    trigger=st.none() | st.integers(0, 2**40),
    part=TEXT,
    lot=TEXT,
    device_ns=st.none() | st.integers(0, 2**64),
    pixel_format=st.sampled_from(["", "Mono8", "BayerRG8"]),
    damage=TEXT,
    name=TEXT,
)
TRIGGERS = st.builds(
    trigger, st.integers(1, 2**50), OFFSETS, part=st.text(max_size=4), lot=TEXT, encoder=st.none() | st.integers()
)
SEEN = st.lists(
    st.one_of(
        TRIGGERS.map(lambda one: ("trigger", one)),
        st.tuples(st.sampled_from(["top", "side"]), FRAMES).map(lambda one: ("frame", *one)),
        st.builds(result, TRIGGERS, st.floats(allow_nan=True)).map(lambda one: ("result", one)),
        st.tuples(st.just("lost"), st.sampled_from(["top", "side"]), st.text(max_size=9), OFFSETS),
    ),
    max_size=12,
)


def record(folder: Path, seen: list[Any], **options: Any) -> Recorder:
    with recorder(folder, **options) as made:
        for kind, *values in seen:
            getattr(made, kind)(*values)
    return made


def same(one: Frame, other: Frame) -> bool:
    """To the bit."""
    names = [name for name in Frame.__slots__ if name != "pixels"]
    if any(getattr(one, name) != getattr(other, name) for name in names):
        return False
    if one.pixels is None or other.pixels is None:
        return one.pixels is other.pixels
    return one.pixels.dtype == other.pixels.dtype and np.array_equal(one.pixels, other.pixels)


@settings(max_examples=60, deadline=None)
@given(SEEN)
def test_everything_comes_back_in_its_order_and_to_the_bit(seen: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        made = record(Path(folder), seen)
        assert made.state is RecorderState.CLOSED
        read = Recording(folder)
        assert read.state == "closed"
        events = list(read.events())
        assert len(events) == len(seen)
        for event, (kind, *values) in zip(events, seen, strict=True):
            if kind == "trigger":
                assert isinstance(event, TriggerEvent)
                assert event.trigger == values[0]
                assert event.offset == values[0].at
            elif kind == "frame":
                assert isinstance(event, FrameEvent)
                assert event.view == values[0]
                assert same(event.frame, values[1])
                assert event.frame.pixels is None or not event.frame.pixels.flags.writeable
            elif kind == "lost":
                assert event == LostEvent(view=values[0], reason=values[1], offset=values[2])
            else:
                assert isinstance(event, ResultEvent)
                assert json.dumps(event.body) == json.dumps(values[0].to_dict())
        assert read.triggers == [one for kind, *(one, *_) in seen if kind == "trigger"]
        assert len(read.results) == sum(kind == "result" for kind, *_ in seen)
        for view in ("top", "side"):
            wanted = [values[1] for kind, *values in seen if kind == "frame" and values[0] == view]
            assert all(same(*pair) for pair in zip(read.frames(view), wanted, strict=True))


def test_a_red_image_stays_red_a_deep_one_deep_and_one_that_lies_otherwise_in_memory_is_as_it_looks(
    tmp_path: Path,
) -> None:
    turned = DEEP.T[::-1]
    record(tmp_path / "r", [("frame", "top", frame(n, image)) for n, image in enumerate((RED, DEEP, turned))])
    for kept, image in zip(Recording(tmp_path / "r").frames("top"), (RED, DEEP, turned), strict=True):
        assert kept.pixels is not None
        assert kept.pixels.dtype == image.dtype
        assert kept.pixels.flags.c_contiguous
        np.testing.assert_array_equal(kept.pixels, image)


def test_a_recording_that_was_made_before_there_were_losses_is_read(tmp_path: Path) -> None:
    record(tmp_path / "r", [("frame", "top", frame(1, RED))])
    about = tmp_path / "r" / "recording.json"
    about.write_text(json.dumps(json.loads(about.read_text()) | {"format": 1}))
    assert len(list(Recording(tmp_path / "r").events())) == 1


def test_a_recording_says_what_it_is_of(tmp_path: Path) -> None:
    before = time.time()
    Recorder(tmp_path / "r", limit=10**6, about={"line": "L1", "score": np.float32(0.5)}).close()
    read = Recording(tmp_path / "r")
    assert read.about == {"line": "L1", "score": 0.5}
    assert before <= read.started <= time.time()
    assert read.views == ()
    assert read.seconds == 0
    assert is_recording(tmp_path / "r")
    assert not is_recording(tmp_path)


def test_a_recording_is_never_written_over(tmp_path: Path) -> None:
    record(tmp_path, [("trigger", trigger(1))])
    with pytest.raises(ConfigInvalid, match="already"):
        Recorder(tmp_path, limit=10**6)
    assert len(Recording(tmp_path).triggers) == 1
    (tmp_path / "file").touch()
    with pytest.raises(OutputUnwritable):
        Recorder(tmp_path / "file", limit=10**6)


def test_calls_of_many_threads_keep_each_threads_order(tmp_path: Path) -> None:
    with recorder(tmp_path / "r") as made:

        def camera(view: str) -> None:
            for number in range(200):
                made.frame(view, frame(number, DEEP))

        threads = [threading.Thread(target=camera, args=(f"v{n}",)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LONG)
    read = Recording(tmp_path / "r")
    assert read.views == ("v0", "v1", "v2", "v3")
    for view in read.views:
        frames = list(read.frames(view))
        assert [one.number for one in frames] == list(range(200))
        assert all(np.array_equal(one.pixels, DEEP) for one in frames if one.pixels is not None)
    assert made.counters()["frames"] == 800


# Limits


@pytest.mark.parametrize("limit", [1_000, 5_000, 20_000])
def test_at_its_limit_it_ends_with_one_clean_cut(tmp_path: Path, limit: int) -> None:
    seen = [
        (kind, *values)
        for n in range(1, 200)
        for kind, *values in (
            ("trigger", trigger(n)),
            ("frame", "top", frame(n, RED)),
            ("result", result(trigger(n), 1.0)),
        )
    ]
    alarms: list[str] = []
    made = record(tmp_path / "r", seen, limit=limit, alarm=lambda code, _: alarms.append(code))
    assert made.state is RecorderState.FULL
    assert alarms == ["recording-ended"]
    on_disk = sum(file.stat().st_size for file in (tmp_path / "r").iterdir())
    assert on_disk == made.counters()["bytes"] <= limit
    read = Recording(tmp_path / "r")
    assert read.state == "full"
    kinds = [{TriggerEvent: "trigger", FrameEvent: "frame", ResultEvent: "result"}[type(event)] for event in read.index]
    assert kinds == [kind for kind, *_ in seen][: len(kinds)]
    assert len(kinds) >= 3 * (limit // 2_000)
    assert made.counters()["waiting"] == 0


class SlowDisk(Recorder):
    """Writes nothing until it may."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self.may = threading.Event()
        super().__init__(*args, **options)

    def _append(self, name: str, data: bytes | memoryview) -> None:
        assert self.may.wait(LONG)
        super()._append(name, data)


def test_a_slow_disk_never_holds_up_the_line_and_what_it_missed_is_counted_and_shifts_nothing(tmp_path: Path) -> None:
    made = SlowDisk(tmp_path / "r", limit=10**9, waiting=5, clock=lambda: 0.0)
    for number in range(1, 21):
        made.trigger(trigger(number))
        made.frame("top", frame(number, RED, trigger=number))
    assert made.counters()["not_recorded"] == 15
    made.may.set()
    made.close()
    assert made.state is RecorderState.CLOSED
    assert made.counters()["frames"] == 20
    frames = list(Recording(tmp_path / "r").frames("top"))
    assert [one.number for one in frames] == list(range(1, 21))
    whole = [one.pixels is not None for one in frames]
    assert whole == [True] * 5 + [False] * 15
    assert all(one.damage is None if one.pixels is not None else "not recorded" in one.damage for one in frames)  # type: ignore[operator]


def test_a_disk_that_hangs_fills_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inspection.cameras.recorder.LINES", 100)
    made = SlowDisk(tmp_path / "r", limit=10**9, clock=lambda: 0.0)
    for number in range(1, 500):
        made.trigger(trigger(number))
    assert made.state is RecorderState.BEHIND
    assert made.counters()["waiting"] <= 100
    made.may.set()
    made.close()
    read = Recording(tmp_path / "r")
    assert read.state == "behind"
    kept = [one.number for one in read.triggers]
    assert kept == list(range(1, len(kept) + 1))
    assert len(kept) >= 100


WRITES = """
import resource, sys, time
import numpy as np
from tests.support.recordings import frame, recorder, trigger
folder, most, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
if most:
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
made = recorder(folder)
for n in range(1, count):
    made.trigger(trigger(n))
    made.frame("top", frame(n, np.full((100, 100), n % 256, np.uint8), trigger=n))
    if n == 50:
        print("goes on", flush=True)
made.close()
print(made.state, made.problem)
"""


def test_a_full_disk_ends_the_recording_with_the_reason_and_what_was_written_stays(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WRITES, str(tmp_path / "r"), "95000", "60"], capture_output=True, text=True, check=True
    )
    assert "failed" in done.stdout
    assert "cannot write" in done.stdout
    read = Recording(tmp_path / "r")
    assert read.state == "cut off"
    frames = list(read.frames("top"))
    assert [one.number for one in frames] == list(range(1, 10))  # 9 frames of 10,000 bytes
    assert all((one.pixels == one.number).all() for one in frames if one.pixels is not None)


def test_a_kill_in_the_middle_leaves_all_that_was_written(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITES, str(tmp_path / "r"), "0", "100000000"], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    with process, process.stdout:
        process.stdout.readline()
        end = time.monotonic() + LONG
        while not (tmp_path / "r" / "top.pixels").exists() and time.monotonic() < end:
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
    read = Recording(tmp_path / "r")
    assert read.state == "cut off"
    frames = list(read.frames("top"))
    assert [one.number for one in frames] == list(range(1, len(frames) + 1))
    for one in frames:
        assert one.damage is None or "not recorded" in one.damage
        assert one.pixels is None or (one.pixels == one.number % 256).all()
    assert [one.number for one in read.triggers] == list(range(1, len(read.triggers) + 1))
    assert 0 <= len(read.triggers) - len(frames) <= 1


# Damage


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three parts with a frame and a verdict each."""
    folder = tmp_path_factory.mktemp("three") / "r"
    with recorder(folder) as made:
        for n in (1, 2, 3):
            made.trigger(trigger(n, at=n))
            made.frame("top", frame(n, surface(n), at=n + 0.1))
            made.result(result(trigger(n, at=n), n / 3))
    return folder


def test_cut_at_any_byte_it_gives_what_was_whole_before(three: Path, tmp_path: Path) -> None:
    folder = tmp_path / "r"
    shutil.copytree(three, folder)
    data = (three / "events.jsonl").read_bytes()
    whole = list(Recording(three).index)
    for length in range(0, len(data), 7):
        (folder / "events.jsonl").write_bytes(data[:length])
        read = Recording(folder)
        assert read.index == whole[: data[:length].count(b"\n")]
        assert read.state == "cut off"
    (folder / "events.jsonl").write_bytes(data[:-20] + bytes(20))  # what a file system may leave after a power cut
    assert Recording(folder).index == whole


@pytest.mark.parametrize("how", ["cut", "flipped", "gone"])
def test_pixels_that_are_not_those_that_were_written_make_a_damaged_frame(
    three: Path, tmp_path: Path, how: str
) -> None:
    folder = tmp_path / "r"
    shutil.copytree(three, folder)
    file = folder / "top.pixels"
    if how == "gone":
        file.unlink()
    else:
        data = bytearray(file.read_bytes())
        data[-5] ^= 1
        file.write_bytes(data[:-5] if how == "cut" else data)
    read = Recording(folder)
    read.preload()
    for frames in (list(read.frames("top")), list(Recording(folder).frames("top"))):
        assert [one.number for one in frames] == [1, 2, 3]
        assert [one.pixels is None for one in frames] == ([True] * 3 if how == "gone" else [False, False, True])
        assert "damaged" in (frames[-1].damage or "")


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("recording.json", None, "no recording"),
        ("recording.json", "{", "no recording"),
        ("recording.json", "[]", "version"),
        ("recording.json", '{"format": 99}', "version"),
        ("events.jsonl", None, "no recording"),
        ("events.jsonl", "what\n{}\n", "events.jsonl:1"),
        ("events.jsonl", '{"event":"dance","offset":0}\n{}\n', "dance"),
        ("events.jsonl", '{"event":"trigger","offset":0}\n{}\n', "events.jsonl:1"),
        ("events.jsonl", '{"event":"frame","offset":0,"view":"../../x","pixels":null}\n{}\n', "no view's name"),
    ],
)
def test_what_is_no_recording_is_refused_with_its_place(
    three: Path, tmp_path: Path, file: str, content: str | None, words: str
) -> None:
    folder = tmp_path / "r"
    shutil.copytree(three, folder)
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_text(content)
    with pytest.raises(DataInvalid, match=words):
        Recording(folder)


def test_a_view_whose_name_leads_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    with recorder(tmp_path / "r") as made, pytest.raises(ConfigInvalid):
        made.frame("../x", frame(1, RED))


# Memory, and comparing


def test_preloaded_pixels_are_handed_out_without_a_copy_and_nobody_can_change_them(three: Path) -> None:
    read = Recording(three)
    assert read.preload(["top"]) == 3 * 48 * 64
    first, again = (list(read.frames("top"))[0].pixels for _ in range(2))  # noqa: RUF015
    assert first is again
    assert first is not None
    with pytest.raises(ValueError, match="read-only"):
        first[0, 0] = 0


def test_more_than_fits_into_memory_is_refused_with_the_mend(three: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inspection.cameras.recording.memory_bytes", lambda: (10**6, 9_000))
    with pytest.raises(ConfigInvalid, match="preload: false"):
        Recording(three).preload()


def test_verdicts_are_compared_to_the_last_bit_and_without_their_times() -> None:
    score = 0.1 + 0.2
    one = result(trigger(1, at=5.0), score, took=0.1)
    later = result(trigger(1, at=9.0), score, took=0.3)
    other = result(trigger(1, at=5.0), float(np.nextafter(score, 1)), took=0.1)
    assert judgement(one.to_dict()) == judgement(later.to_dict())
    assert judgement(one.to_dict()) == judgement(json.loads(json.dumps(one.to_dict())))
    assert judgement(one.to_dict()) != judgement(other.to_dict())
