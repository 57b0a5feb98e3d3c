"""A run is recorded and replayed: the same verdicts to the bit, and a changed threshold shows."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from inspection.cameras.recorder import Recorder
from inspection.cameras.recording import Recording
from inspection.errors import ConfigInvalid
from inspection.line import feeder
from inspection.line.again import Replay
from inspection.line.line import Line
from tests.line.rig import Scene, balanced, inspect, one_view, opened

PATTERN = [False, True, False, True, True, False]


@pytest.fixture
def run(tmp_path: Path) -> tuple[Path, Recording]:
    """A recipe, and the recording of a run by it: one frame is damaged, and there is one that nobody asked for."""
    scene = Scene({3: "damaged"})
    path = one_view(tmp_path)
    recorder = Recorder(tmp_path / "run", limit=10**8)
    with Line(path, camera=scene.camera, recorder=recorder) as line:
        opened(line)
        for bad in PATTERN:
            inspect(line, scene, bad=bad)
        balanced(line)
    return path, Recording(tmp_path / "run")


@pytest.mark.parametrize("speed", [None, 4.0])
def test_a_recorded_run_gives_the_same_verdicts_to_the_bit(run: tuple[Path, Recording], speed: float | None) -> None:
    path, recording = run
    replay = Replay(path, recording, speed=speed)
    replay.run()
    assert replay.differences() == []
    verdicts = [one.verdict.value for one in replay.results]
    assert verdicts == ["OK", "NG", "ERROR", "NG", "NG", "OK"]
    assert [one.views[0].score for one in replay.results if one.code is None] == [
        body["views"][0]["score"] for body in recording.results if body["code"] is None
    ]


def test_a_run_whose_camera_went_and_came_back_gives_the_same_verdicts_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeder, "RETRY", 0.05)
    scene = Scene({2: "lost", 5: "lost"})
    path = one_view(tmp_path)
    recorder = Recorder(tmp_path / "run", limit=10**8)
    with Line(path, camera=scene.camera, recorder=recorder) as line:
        opened(line)
        seen = [inspect(line, scene, bad=bad) for bad in PATTERN]
        assert [one.code for one in seen] == [None, "camera-lost", None, None, "camera-lost", None]
    assert recorder.counters()["losses"] >= 4  # each time that it went, and that it was back
    recording = Recording(tmp_path / "run")
    for speed in (None, None, 4.0):
        replay = Replay(path, recording, speed=speed)
        replay.run()
        assert replay.differences() == []
        assert [(one.verdict, one.code) for one in replay.results] == [(one.verdict, one.code) for one in seen]


def test_a_changed_threshold_shows_which_parts_it_would_have_judged_differently(run: tuple[Path, Recording]) -> None:
    path, recording = run
    values = yaml.safe_load(path.read_text())
    values["views"]["top"]["operating_point"] = {"ok_below": 0.05, "ng_above": 0.1, "pixel_above": 0.1}
    path.write_text(yaml.safe_dump(values))
    replay = Replay(path, recording)
    replay.run()
    changed = [line for line in replay.differences() if "NG, and OK in the recording" in line]
    assert len(changed) == PATTERN.count(False) - 1  # one of the good ones had the damaged frame


def test_a_replay_on_a_clock_of_its_own_tells_no_output(run: tuple[Path, Recording]) -> None:
    with pytest.raises(ConfigInvalid, match="machine's time"):
        Replay(*run, outputs=True)


def test_a_replay_leaves_the_record_of_the_real_parts_alone(run: tuple[Path, Recording]) -> None:
    path, recording = run
    before = {file.name: file.read_bytes() for file in (path.parent / "record" / "journal").iterdir()}
    Replay(path, recording).run()
    assert {file.name: file.read_bytes() for file in (path.parent / "record" / "journal").iterdir()} == before
    assert (path.parent / "record-replayed").is_dir()
