"""Another recipe while parts come by: no part is lost, and each is judged by exactly one of the two."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from inspection.control import LineState, NotReady
from inspection.errors import ConfigInvalid
from inspection.line.line import Line
from inspection.line.plan import Job
from inspection.line.recipes import Recipes
from inspection.line.setup import Setup
from inspection.parts import PartResult
from inspection.results import Inspection, Verdict
from tests.line.plant import images, until
from tests.line.rig import Scene, balanced, codes, inspect, one_view, opened

# The model's score is the brightest cell: that of a good image is 0.08 and more, of a bad one 1.
STRICT = {"ok_below": 0.05, "ng_above": 0.06, "pixel_above": 0.06}


def strict(folder: Path, **changes: Any) -> Path:
    """A second recipe in the same folder, by which every image is NG."""
    values = yaml.safe_load((folder / "screen.yaml").read_text())
    values["product"] = "strict"
    values["views"]["top"]["operating_point"] = STRICT
    path = folder / "strict.yaml"
    path.write_text(yaml.safe_dump(values | changes))
    return path


def test_at_full_rate_every_part_is_judged_by_exactly_one_recipe_and_none_is_lost(tmp_path: Path) -> None:
    images(tmp_path / "top", [False] * 4)
    first = one_view(tmp_path, takt=0.02, deadline=10.0, match={"window": 10.0}, trigger={"kind": "timer"})
    strict(tmp_path)
    results: list[PartResult] = []
    with Line(first) as line:
        line.listeners.append(results.append)
        opened(line)
        until(lambda: len(results) >= 20, what="parts")
        for recipe_id in ("strict", "screen", "strict"):
            seen = len(results)
            line.change_over(recipe_id, wait=True)
            assert line.recipe is not None
            assert line.recipe.id == recipe_id
            assert line.state is LineState.RUNNING
            until(lambda seen=seen: len(results) >= seen + 20, what="parts")  # type: ignore[misc]
        line.stop()
        until(lambda: line.state is LineState.STOPPED, what="stop")
        until(lambda: len(results) == balanced(line)["line"]["triggers"], what="verdicts")
    results.sort(key=lambda one: one.trigger.number)
    assert [one.trigger.number for one in results] == list(range(1, len(results) + 1))
    assert {(one.recipe, one.verdict) for one in results} == {("screen", Verdict.OK), ("strict", Verdict.NG)}
    assert len({(one.recipe, one.recipe_hash, one.trigger.product) for one in results}) == 2
    switches = [new.recipe for old, new in itertools.pairwise(results) if new.recipe != old.recipe]
    assert switches == ["strict", "screen", "strict"]


def test_a_part_in_flight_is_judged_by_the_recipe_that_it_came_under(tmp_path: Path) -> None:
    scene = Scene({2: "late"})
    first = one_view(tmp_path)
    strict(tmp_path)
    with Line(first, camera=scene.camera) as line:
        opened(line)
        assert inspect(line, scene, bad=False).verdict is Verdict.OK
        old = line.trigger()
        until(lambda: scene.exposures == 2)
        line.change_over("strict")
        until(lambda: line.recipe is not None and line.recipe.id == "strict", what="change-over")
        new = line.trigger()
        assert scene.rig is not None
        scene.rig.release()
        results = [line.wait(number, 30.0) for number in (old, new)]
        assert [one and (one.recipe, one.verdict.value) for one in results] == [("screen", "OK"), ("strict", "NG")]
        balanced(line)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"takt": "soon"}, "broken"),
        ({"outputs": [{"kind": "modbus", "port": 0}]}, "outputs"),
        ({"record": {"folder": "elsewhere"}}, "record"),
    ],
)
def test_a_recipe_that_cannot_be_carried_out_is_refused_and_the_running_one_goes_on(
    tmp_path: Path, change: dict[str, Any], says: str
) -> None:
    scene = Scene()
    first = one_view(tmp_path)
    strict(tmp_path, **change)
    with Line(first, camera=scene.camera) as line:
        opened(line)
        before = line.recipe
        with pytest.raises(ConfigInvalid, match=says):
            line.change_over("strict", wait=True)
        with pytest.raises(ConfigInvalid, match="no recipe `unheard`"):
            line.change_over("unheard")
        assert (line.recipe, line.changing_to, line.state) == (before, None, LineState.RUNNING)
        assert inspect(line, scene, bad=False).verdict is Verdict.OK
        balanced(line)


def test_a_model_that_does_not_load_is_alarmed_and_the_running_recipe_goes_on(tmp_path: Path) -> None:
    scene = Scene()
    first = one_view(tmp_path)
    path = strict(tmp_path)
    values = yaml.safe_load(path.read_text())
    values["views"]["top"]["model"] = "damaged.onnx"
    path.write_text(yaml.safe_dump(values))
    (tmp_path / "damaged.onnx").write_bytes((tmp_path / "model.onnx").read_bytes()[:1000])
    with Line(first, camera=scene.camera) as line:
        opened(line)
        line.change_over("strict")
        until(lambda: codes(line)["change-over-failed"] == 1, what="alarm")
        assert line.changing_to is None
        result = inspect(line, scene, bad=True)
        assert (result.recipe, result.verdict) == ("screen", Verdict.NG)
        balanced(line)


def test_a_recipe_that_takes_over_while_the_models_are_loaded_anew_is_not_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene, renew, slow, go_on = Scene(), Recipes.renew, threading.Event(), threading.Event()

    def slowly(self: Recipes) -> Setup:
        setup = renew(self)
        slow.set()
        go_on.wait(60.0)
        return setup

    judge, hang = Setup.judge, threading.Event()

    def hanging(self: Setup, jobs: Sequence[Job]) -> list[Inspection]:
        if not hang.is_set() and self.info.id == "screen":
            hang.wait(60.0)
        return judge(self, jobs)

    monkeypatch.setattr(Recipes, "renew", slowly)
    monkeypatch.setattr(Setup, "judge", hanging)
    first = one_view(tmp_path, work={"provider": "cpu", "workers": 1, "threads": 1, "hang": 0.5})
    strict(tmp_path)
    with Line(first, camera=scene.camera) as line:
        opened(line)
        assert inspect(line, scene, bad=False).code == "judging-failed"
        assert slow.wait(30.0)
        line.change_over("strict", wait=True)
        go_on.set()
        until(lambda: scene.exposures == 1)
        for _ in range(3):
            assert inspect(line, scene, bad=False).recipe == "strict"
        line.close()  # ends the thread that renews
        assert line.recipe is not None
        assert line.recipe.id == "strict"
        hang.set()


def test_a_half_saved_recipe_changes_no_other_one_s_index(tmp_path: Path) -> None:
    first = one_view(tmp_path, name="b")
    one_view(tmp_path, name="c")
    one_view(tmp_path, name="a", index=7)
    with Line(first) as line:
        before = {info.id: info.index for info in line.recipes()}
        assert before == {"b": 0, "c": 1, "a": 7}
        whole = (tmp_path / "a.yaml").read_text()
        for torn in ("", whole[: whole.index("index")] + "views: {", "index: 7\n  views: ["):
            (tmp_path / "a.yaml").write_text(torn)
            assert {info.id: info.index for info in line.recipes()} == {"b": 0, "c": 1}
        (tmp_path / "a.yaml").write_text(whole)
        assert {info.id: info.index for info in line.recipes()} == before


def test_a_recipe_whose_frames_find_their_part_otherwise_is_refused(tmp_path: Path) -> None:
    first = one_view(tmp_path)
    one_view(tmp_path, name="named", match={"by": "part"})
    with Line(first) as line, pytest.raises(ConfigInvalid, match="find their part by `part`"):
        line.change_over("named", wait=True)


def test_no_recipe_is_changed_to_before_the_line_is_open_or_after_it_is_closed(tmp_path: Path) -> None:
    line = Line(one_view(tmp_path))
    with pytest.raises(NotReady):
        line.change_over("screen")
    with line:
        line.change_over("screen", wait=True)
    with pytest.raises(NotReady):
        line.change_over("screen")


def test_a_frame_that_came_early_through_the_camera_of_the_old_recipe_is_no_part_of_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene, numbers = Scene(), list[int]()
    first = one_view(tmp_path, match={"window": 5.0, "early": 4.0})
    strict(tmp_path)
    other = yaml.safe_load((tmp_path / "strict.yaml").read_text())
    other["views"]["top"]["camera"]["preload"] = False  # another camera, for all that the line knows
    other["views"]["top"].pop("operating_point")
    (tmp_path / "strict.yaml").write_text(yaml.safe_dump(other))
    with Line(first, camera=scene.camera) as line:
        opened(line)
        assert inspect(line, scene, bad=False).verdict is Verdict.OK
        scene.bad = False
        scene.expose()  # good, and before its trigger
        until(lambda: line.counters()["view top"]["waiting"] == 1, what="early frame")
        use = line.cameras.use

        def after_a_part(cameras: Any) -> None:
            numbers.append(line.trigger())  # the new recipe runs, and its camera does not yet
            use(cameras)

        monkeypatch.setattr(line.cameras, "use", after_a_part)
        line.change_over("strict", wait=True)
        assert inspect(line, scene, bad=True).verdict is Verdict.NG  # by its own frame
        result = line.wait(numbers[0], 30.0)
        assert result is not None
        assert (result.recipe, result.verdict) == ("strict", Verdict.ERROR)
        assert line.counters()["view top"]["unmatched"] == 1
        balanced(line)


def test_a_line_that_is_closed_while_a_recipe_is_loaded_leaves_no_camera_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = Scene()
    first = one_view(tmp_path)
    strict(tmp_path, views={"top": yaml.safe_load(first.read_text())["views"]["top"] | {"camera": {"kind": "pushed"}}})
    load, loading, go_on = Recipes.load, threading.Event(), threading.Event()

    def slowly(self: Recipes, path: Path) -> Setup:
        loading.set()
        go_on.wait(30.0)
        return load(self, path)

    monkeypatch.setattr(Recipes, "load", slowly)
    with Line(first, camera=scene.camera) as line:
        opened(line)
        line.change_over("strict")
        assert loading.wait(30.0)
        closing = threading.Thread(target=line.close)
        closing.start()
        until(lambda: line.state is not LineState.RUNNING, what="stop")
        until(lambda: line.cameras.facts()["top"]["state"] == "stopped", what="camera")
        go_on.set()
        closing.join(30.0)
        assert not closing.is_alive()
        assert line.state is LineState.CLOSED
    until(lambda: line.changing_to is None, what="loader")
    assert line.recipe is not None
    assert line.recipe.id == "screen"
    assert scene.opened == 1
    assert [one.name for one in threading.enumerate() if one.name.startswith("camera-")] == []
