"""A line that looks through real GigE Vision cameras: other options while parts come by, power cuts, lost packets."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
import yaml

pytest.importorskip("viva_genicam")

from inspection.line import feeder
from inspection.line.line import Line
from inspection.parts import PartResult
from inspection.results import Verdict
from tests.line.plant import ready, recipe, until
from tests.line.rig import balanced, codes, streaming
from tests.support.cameras import ADDRESS, OwnImages
from tests.support.graphs import model_file, spec
from tests.support.namespaces import cameras_behind_a_switch

pytestmark = [pytest.mark.line, pytest.mark.slow]

WIDTH, HEIGHT = 128, 128
TAKT = 0.07  # seconds
PAUSE = (
    0.5  # and at most so many more for a busy machine: two triggers that reach the fake camera at once are one to it
)
FAST = {"AcquisitionFrameRate": 500.0}  # it looks so often whether it was triggered
PATTERN = [False, True, True, False, True, False, False, True]  # a verdict on another part's frame would show
# By its score every judged part shows which options its image was taken with: the lower half of each image is grey.
DARK, GREY = 40, 128
LOW = {"ok_below": 0.3, "ng_above": 0.35, "pixel_above": 0.35}  # grey is NG by it
HIGH = {"ok_below": 0.7, "ng_above": 0.75, "pixel_above": 0.75}
WHOLE, UPPER = GREY / 255, DARK / 255  # scores of a good part


def surface(*, bad: bool) -> bytes:
    """What the camera sees: dark above, grey below, and a white band across a bad part."""
    pixels = np.full((HEIGHT, WIDTH), DARK, np.uint8)
    pixels[HEIGHT // 2 :] = GREY
    if bad:
        pixels[16:48] = 255
    return pixels.tobytes()


def write(folder: Path, name: str, *, height: int, point: dict[str, float]) -> Path:
    """A recipe whose view `top` reads out so many lines of the camera. Its windows are long: a busy machine must not
    make a frame late."""
    if not (folder / "model.onnx").exists():
        model_file(folder / "model.onnx", spec(channels=1))
    options = {
        "kind": "genicam",
        "address": ADDRESS,
        "pixel_format": "Mono8",
        "width": WIDTH,
        "height": height,
        "packet_size": 1500,
        "features": FAST,
    }
    return recipe(
        folder,
        name=name,
        views={"top": {"camera": options, "model": "model.onnx", "operating_point": point}},
        takt=TAKT,
        match={"window": 20.0},
        deadline=20.0,
        work={"provider": "cpu", "workers": 1, "threads": 1},
    )


@pytest.fixture
def camera(gvcp: None, tmp_path: Path) -> Iterator[OwnImages]:
    """Sends the image of a good part (0) or of a bad one (1), as it is shown."""
    made = OwnImages(tmp_path, [surface(bad=False), surface(bad=True)], scene=True)
    yield made
    made.off()


class Belt:
    """Parts that come by in a takt; good and bad ones in a pattern.

    What lies before the camera is exchanged only while no part is in flight, so that it is known what each was.
    """

    def __init__(self, line: Line, camera: OwnImages) -> None:
        self.line, self.camera = line, camera
        self.bad: dict[int, bool] = {}
        self.results: list[PartResult] = []
        self.lost = 0  # of a thousand packets
        self._turns = 0
        line.listeners.append(self.results.append)

    def part(self) -> int:
        """The next part; returns its number when its takt is over."""
        due = time.monotonic() + TAKT
        if not self.line.floor.in_flight:
            self._turns += 1
            self.camera.show(int(self.now), lost=self.lost)
        number = self.line.trigger()
        self.bad[number] = self.now
        time.sleep(max(0.0, due - time.monotonic()))
        if self.line.changing_to is None and streaming(self.line):
            self.line.wait(number, PAUSE)
        return number

    @property
    def now(self) -> bool:
        """Whether a bad part lies before the camera."""
        return PATTERN[self._turns % len(PATTERN)]

    def run(self, parts: int) -> None:
        """So many parts, in their takt."""
        for _ in range(parts):
            self.part()

    def judged(self, parts: int) -> None:
        """So many parts, each of which is waited for: none of them may be ERROR."""
        for _ in range(parts):
            result = self.line.wait(self.part(), 30.0)
            assert result is not None
            assert result.verdict is not Verdict.ERROR, result.reason

    def finish(self) -> list[PartResult]:
        """Everything that came by, when all of it has its verdict: exactly one each, right or ERROR."""
        self.line.stop()
        until(lambda: len(self.results) >= len(self.bad), what="verdicts")
        account = balanced(self.line)["line"]
        results = sorted(self.results, key=lambda one: one.trigger.number)
        assert [one.trigger.number for one in results] == list(self.bad)
        assert Counter(one.verdict.value for one in results) == +Counter(
            {verdict: account[verdict] for verdict in ("OK", "NG", "REVIEW", "ERROR")}
        )
        assert (account["triggers"], account["in_flight"]) == (len(self.bad), 0)
        for one in results:
            if one.verdict is not Verdict.ERROR:
                right = Verdict.NG if self.bad[one.trigger.number] else Verdict.OK
                assert one.verdict is right, (one.trigger.number, one.recipe, one.views[0].score)
        return results


def errors(results: list[PartResult]) -> list[PartResult]:
    return [one for one in results if one.verdict is Verdict.ERROR]


def runs(results: list[PartResult]) -> list[str]:
    """The recipes, in the order in which they judged."""
    return [name for name, _ in groupby(one.recipe for one in results)]


def test_a_recipe_with_other_camera_options_takes_over_at_full_rate(tmp_path: Path, camera: OwnImages) -> None:
    first = write(tmp_path, "whole", height=HEIGHT, point=HIGH)
    write(tmp_path, "upper", height=HEIGHT // 2, point=LOW)
    with Line(first) as line:
        belt = Belt(ready(line), camera)
        belt.run(15)
        meanwhile: set[int] = set()
        for name in ("upper", "whole"):
            before = len(belt.bad)
            line.change_over(name)
            until(lambda: belt.part() > 0 and line.changing_to is None and streaming(line), what="change-over")
            meanwhile.update(range(before, len(belt.bad) + 1))  # with the one before it, which may be in flight
            assert line.recipe is not None
            assert line.recipe.id == name
            belt.judged(2)
            belt.run(15)
        results = belt.finish()
        alarms = codes(line)
    assert runs(results) == ["whole", "upper", "whole"]
    assert len({(one.recipe, one.recipe_hash, one.trigger.product) for one in results}) == 2
    # Only while the camera is set up anew parts are ERROR: one run of them at each change-over.
    lost = errors(results)
    assert {one.code for one in lost} <= {"camera-lost"}
    assert {one.trigger.number for one in lost} <= meanwhile
    gaps = sum(ended for ended, _ in groupby(one.verdict is Verdict.ERROR for one in results))
    assert gaps <= 2
    for recipe_id in ("whole", "upper"):  # good and bad parts were judged before and after, and by both
        assert {one.verdict for one in results if one.recipe == recipe_id} >= {Verdict.OK, Verdict.NG}
    # None was judged on an image that was taken with the other recipe's options.
    for one in results:
        if one.verdict is Verdict.OK:
            assert one.views[0].score == pytest.approx(WHOLE if one.recipe == "whole" else UPPER, abs=0.01)
    assert not alarms


def test_a_recipe_with_the_same_camera_options_takes_over_without_an_error(tmp_path: Path, camera: OwnImages) -> None:
    first = write(tmp_path, "whole", height=HEIGHT, point=HIGH)
    strict = yaml.safe_load(first.read_text())
    strict["views"]["top"]["operating_point"] = {"ok_below": 0.6, "ng_above": 0.65, "pixel_above": 0.65}
    (tmp_path / "strict.yaml").write_text(yaml.safe_dump(strict))
    with Line(first) as line:
        belt = Belt(ready(line), camera)
        belt.run(10)
        for name in ("strict", "whole"):
            line.change_over(name)
            until(lambda: belt.part() > 0 and line.changing_to is None, what="change-over")
            belt.run(10)
        results = belt.finish()
        assert line.cameras.counters()["camera top"] == {"restarts": 0, "hung": 0}
        assert not codes(line)
    assert runs(results) == ["whole", "strict", "whole"]
    assert not errors(results)


def test_a_camera_without_power_costs_the_parts_until_it_is_back_and_no_other(
    tmp_path: Path, camera: OwnImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeder, "RETRY", 0.1)
    monkeypatch.setattr(feeder, "RETRY_AT_MOST", 0.2)
    with Line(write(tmp_path, "whole", height=HEIGHT, point=HIGH)) as line:
        belt = Belt(ready(line), camera)
        belt.run(15)
        camera.off()
        until(lambda: belt.part() > 0 and codes(line)["camera-lost"] > 0, what="alarm")
        belt.run(8)
        camera.on()
        until(lambda: belt.part() > 0 and codes(line)["camera-back"] > 0, what="camera")
        belt.judged(2)
        belt.run(15)
        results = belt.finish()
        alarms = codes(line)
    lost = errors(results)
    assert {one.code for one in lost} == {"camera-lost"}
    assert len(lost) >= 8
    numbers = [one.trigger.number for one in lost]
    assert numbers == list(range(numbers[0], numbers[-1] + 1))  # no part in between was judged, none later is ERROR
    assert alarms == {"camera-lost": 1, "camera-back": 1}


def test_frames_with_lost_packets_are_errors_and_the_next_whole_one_is_judged_right(
    tmp_path: Path, camera: OwnImages
) -> None:
    with Line(write(tmp_path, "whole", height=HEIGHT, point=HIGH)) as line:
        belt = Belt(ready(line), camera)
        belt.judged(8)
        belt.lost = 100  # a frame has 14 packets: three of four frames miss one
        until(lambda: belt.part() > 0 and balanced(line)["view top"]["incomplete"] >= 6, what="damaged frames")
        belt.lost = 0
        until(lambda: belt.part() > 0 and whole(belt, 8), what="whole frames")
        belt.judged(8)
        results = belt.finish()
        account = balanced(line)["view top"]
    damaged = [one for one in errors(results) if one.code == "frame-incomplete"]
    assert account["incomplete"] == len(damaged) >= 6
    assert all("packet" in (one.reason or "") or "end of the frame" in (one.reason or "") for one in damaged)
    assert {one.code for one in errors(results)} <= {"frame-incomplete", "frame-lost"}  # all packets of one lost


def whole(belt: Belt, count: int) -> bool:
    """Whether the last parts all were judged: by chance, while packets are lost, so many never are."""
    last = belt.results[-count:]
    return not any(one.verdict is Verdict.ERROR for one in last)


# As a line would run on its computer: `tests` are where this is run from.
TWO_VIEWS = """
import json, sys, time
from inspection.line.line import Line
from tests.line.plant import ready
from tests.line.rig import balanced

takt, pause, parts = float(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
with Line(sys.argv[1]) as line:
    ready(line)
    numbers = []
    for _ in range(parts):
        numbers.append(line.trigger())
        time.sleep(takt)
        line.wait(numbers[-1], pause)
    results = [line.wait(number, 30.0) for number in numbers]
    line.stop()
    print(json.dumps({"results": [one.to_dict() for one in results], "counters": balanced(line)}))
"""


def test_two_cameras_behind_a_switch_give_one_verdict_for_each_part(tmp_path: Path) -> None:
    patterns = {"top": [False, True, True], "side": [False, False, True, False]}  # together they repeat after 12 parts
    frames = [[surface(bad=bad) for bad in pattern] for pattern in patterns.values()]
    with cameras_behind_a_switch(2, frames=frames, folder=tmp_path / "cameras") as network:
        values = yaml.safe_load(write(tmp_path, "whole", height=HEIGHT, point=HIGH).read_text())
        top = values["views"]["top"]
        values["views"] = {
            view: {**top, "camera": {**top["camera"], "address": address, "packet_size": None}}
            for view, address in zip(patterns, network.addresses, strict=True)
        }
        (tmp_path / "whole.yaml").write_text(yaml.safe_dump(values))
        told = json.loads(network.python(TWO_VIEWS, str(tmp_path / "whole.yaml"), str(TAKT), str(PAUSE), "24"))
    for view, pattern in patterns.items():
        seen = [next(one["verdict"] for one in result["views"] if one["view"] == view) for result in told["results"]]
        assert seen == ["NG" if pattern[index % len(pattern)] else "OK" for index in range(24)], view
    bad = [any(pattern[index % len(pattern)] for pattern in patterns.values()) for index in range(24)]
    assert [result["verdict"] for result in told["results"]] == ["NG" if one else "OK" for one in bad]
    assert told["counters"]["line"]["triggers"] == 24
    assert told["counters"]["line"]["NG"] == sum(bad)
