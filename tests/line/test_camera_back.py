"""Parts that come by in the very moment in which a camera is there again."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from inspection.line import feeder
from inspection.line.line import Line
from inspection.results import Verdict
from tests.line.plant import until
from tests.line.rig import Scene, balanced, codes, inspect, one_view, opened

pytestmark = pytest.mark.line


def test_a_part_that_comes_by_while_its_camera_is_declared_back_takes_no_other_part_s_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeder, "RETRY", 0.05)
    lost, numbers, parts = Line.lost, [], []

    def and_a_part(self: Line, view: str, reason: str) -> None:
        lost(self, view, reason)
        if reason == "the camera was not there yet." and parts == ["wanted"]:
            parts.append("came")
            thread = threading.Thread(target=lambda: numbers.append(self.trigger()))
            thread.start()
            thread.join(0.5)  # as long as it may take the other thread to get in between

    monkeypatch.setattr(Line, "lost", and_a_part)
    scene = Scene({2: "lost"})
    with Line(one_view(tmp_path), camera=scene.camera) as line:
        opened(line)
        assert inspect(line, scene, bad=False).verdict is Verdict.OK
        parts.append("wanted")
        scene.bad = True  # the part that comes by as the camera is back is bad
        line.trigger()
        until(lambda: codes(line)["camera-back"] == 1 and len(numbers) == 1, what="camera and part")
        until(lambda: scene.exposures == 3, what="its exposure")
        result = line.wait(numbers[0], 30.0)
        assert result is not None
        assert result.verdict is Verdict.NG
        assert inspect(line, scene, bad=False).verdict is Verdict.OK
        balanced(line)
