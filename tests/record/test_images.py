"""Images: what the policy names is kept whole and lossless; the rest gives way before verdicts do."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inspection.parts import Frame
from inspection.pixels import read_image
from inspection.record import images as module
from inspection.record.images import ImageKeeper, chosen
from inspection.record.options import KeepImages
from inspection.record.shelf import HIDDEN, Shelf
from inspection.results import Verdict
from tests.record.line import WALL, Alarms, frame, frames, judge, result, running, trigger, wait_until

FOREVER = 1e12


def keep(**more: Any) -> KeepImages:
    return KeepImages(**({"free": 1, "age": FOREVER} | more))


def parts(folder: Path) -> list[str]:
    """The folders of parts that stand in their place."""
    walked = os.walk(folder / "images")  # unlike glob it bears folders that go meanwhile
    found = [Path(root).name for root, _, files in walked if "part.json" in files]
    return sorted(name for name in found if not name.startswith(HIDDEN))


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((30, 40), np.uint8),
        ((30, 40), np.uint16),
        ((30, 40, 3), np.uint8),
        ((30, 40, 3), np.uint16),
        ((1, 1), np.uint8),
    ],
)
def test_a_kept_frame_is_the_frame_to_the_bit(tmp_path: Path, shape: tuple[int, ...], dtype: Any) -> None:
    shot = frame(1, shape=shape, dtype=dtype)
    with running(tmp_path, images=keep(ok=1)) as record:
        made = trigger(1)
        record.triggered(made)
        record.decided(result(made, views=1), {"view0": shot})
    (path,) = (tmp_path / "images").rglob("view0.png")
    pixels = read_image(path)
    assert pixels.dtype == dtype
    assert shot.pixels is not None
    assert np.array_equal(pixels, shot.pixels)


def test_a_map_is_kept_raw_and_as_a_picture_and_the_json_beside_says_what_they_are(tmp_path: Path) -> None:
    with running(tmp_path, images=keep(ok=1)) as record:
        made = trigger(1)
        record.triggered(made)
        verdict = result(made)
        scores = verdict.views[0].inspections[0].map
        assert scores is not None
        scores.values[1, 2] = 9.5
        hash_ = record.decided(verdict, frames(1))
    folder = tmp_path / "images" / "2025-11-24" / "16" / "000000001-OK"
    with np.load(folder / "view0.0.map.npz", allow_pickle=False) as raw:
        assert np.array_equal(raw["values"], scores.values)
        assert raw["values"].dtype == np.float32
        assert tuple(raw["region"]) == scores.region
        assert tuple(raw["size"]) == scores.size
    picture = read_image(folder / "view0.0.map.png")
    assert (picture.dtype, picture[1, 2], picture[0, 0]) == (np.uint16, 65535, 0)
    about = json.loads((folder / "part.json").read_text())
    assert about["hash"] == hash_
    assert about["views"]["view0"]["maps"][0]["white"] == 9.5
    assert set(about["views"]["view0"]["files"]) == {"view0.png", "view0.0.map.npz", "view0.0.map.png"}


def test_a_frame_that_is_not_whole_has_its_damage_in_the_json(tmp_path: Path) -> None:
    with running(tmp_path, images=keep()) as record:
        made = trigger(1)
        record.triggered(made)
        torn = Frame(pixels=None, number=9, received=0.0, damage="3 packets are missing.")
        record.decided(result(made, Verdict.ERROR), {"view0": torn, "view1": frame(1)})
    (about,) = (tmp_path / "images").rglob("part.json")
    assert json.loads(about.read_text())["views"]["view0"]["frame"]["damage"] == "3 packets are missing."
    assert not (about.parent / "view0.png").exists()
    assert (about.parent / "view1.png").exists()


@given(st.integers(1, 50), st.integers(1, 10**12), st.sampled_from(Verdict))
def test_one_in_n_is_kept_spread_evenly_and_not_in_step_with_the_line(n: int, first: int, verdict: Verdict) -> None:
    policy = KeepImages(ok=n, ng=n, review=n, error=n)
    run = [chosen(number, verdict, policy) for number in range(first, first + 100 * n)]
    assert abs(sum(run) - 100) <= 3
    every_fourth = [chosen(number, verdict, policy) for number in range(first, first + 1600 * n, 4)]
    assert abs(sum(every_fourth) - 400) <= 40


def test_a_policy_of_none_keeps_none() -> None:
    policy = KeepImages(ok=0)
    assert not any(chosen(number, Verdict.OK, policy) for number in range(1000))


def test_bad_parts_are_kept_all_and_good_ones_by_the_policy(tmp_path: Path) -> None:
    policy = keep(ok=10, queue=1000)
    with running(tmp_path, images=policy) as record:
        judge(record, 100)
        judge(record, 5, Verdict.NG)
        judge(record, 2, Verdict.REVIEW)
        judge(record, 3, Verdict.ERROR)
    expected = [f"{n:09d}-OK" for n in range(1, 101) if chosen(n, Verdict.OK, policy)]
    expected += [f"{n:09d}-NG" for n in range(101, 106)] + ["000000106-REVIEW", "000000107-REVIEW"]
    expected += [f"{n:09d}-ERROR" for n in range(108, 111)]
    assert parts(tmp_path) == sorted(expected)
    assert record.counters()["images_parts"] == len(expected)


def test_when_the_queue_is_full_a_bad_part_takes_the_place_of_a_good_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()
    real = module.png

    def slow(pixels: Any) -> bytes:  # a disk that has stopped
        assert gate.wait(60)
        return real(pixels)

    monkeypatch.setattr(module, "png", slow)
    with running(tmp_path, images=keep(ok=1, queue=4)) as record:
        judge(record, module.THREADS)
        wait_until(lambda: record._images._writing == module.THREADS)
        judge(record, 6)  # four wait, two are left out
        assert record.counters()["images_skipped"] == 2
        judge(record, 4, Verdict.NG)  # they take the places
        assert record.counters()["images_skipped"] == 6
        judge(record, 1, Verdict.NG)  # and then there is none
        counters = record.counters()
        assert (counters["images_skipped"], counters["decided"]) == (7, 13)
        gate.set()
    assert parts(tmp_path) == [f"{n:09d}-OK" for n in (1, 2)] + [f"{n:09d}-NG" for n in range(9, 13)]


def test_beyond_the_quota_the_oldest_good_parts_go_first_and_then_the_oldest(tmp_path: Path) -> None:
    with running(tmp_path, images=keep(ok=1, queue=1000)) as record:
        judge(record, 2, Verdict.NG)
        judge(record, 6)
        wait_until(lambda: record.counters()["images_parts"] == 8)
        each = record.counters()["images_on_disk"] // 8
        assert record.counters()["images_on_disk"] == 8 * each  # they are of one size
    with running(tmp_path, images=keep(ok=1, queue=1000, quota=5 * each)) as record:
        wait_until(lambda: record.counters()["images_on_disk"] == 5 * each)
        assert parts(tmp_path) == ["000000001-NG", "000000002-NG"] + [f"{n:09d}-OK" for n in (6, 7, 8)]
        judge(record, 4, Verdict.NG)
        wait_until(lambda: record.counters()["images_parts"] == 4)
    assert parts(tmp_path) == ["000000002-NG"] + [f"{n:09d}-NG" for n in range(9, 13)]


def test_old_images_go_by_themselves_with_their_empty_folders(tmp_path: Path) -> None:
    import time

    now = time.time()
    with running(tmp_path, images=keep(ok=1, age=10 * 86400.0)) as record:
        judge(record, 2, wall=now - 20 * 86400)
        judge(record, 2, wall=now - 5 * 86400)
    with running(tmp_path, images=keep(ok=1, age=10 * 86400.0)) as record:
        wait_until(lambda: len(parts(tmp_path)) == 2)
        wait_until(lambda: len(list((tmp_path / "images").iterdir())) == 1)
    assert parts(tmp_path) == ["000000003-OK", "000000004-OK"]


def test_without_enough_free_space_verdicts_alone_are_kept_and_it_is_alarmed_once(tmp_path: Path) -> None:
    alarms = Alarms()
    with running(tmp_path, alarms, images=keep(ok=1, free=10**18)) as record:
        judge(record, 20, Verdict.NG)
        wait_until(lambda: record.counters()["stored"] == 20)
        assert record.counters()["images_skipped"] == 20
    assert alarms.codes == ["record-disk-full"]
    assert parts(tmp_path) == []


def test_images_that_cannot_be_written_are_counted_and_alarmed_once(tmp_path: Path) -> None:
    alarms = Alarms()
    (tmp_path / "images").write_text("a file where the folder should be")
    with running(tmp_path, alarms, images=keep(ok=1)) as record:
        judge(record, 3)
        wait_until(lambda: record.counters()["images_failed"] == 3)
        wait_until(lambda: record.counters()["stored"] == 3)
    assert set(alarms.codes) == {"record-images"}


def test_a_kill_leaves_no_half_image_and_no_leftover_after_the_next_start(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.record.line", str(tmp_path), "100000", "--images"]
    line = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert line.stdout is not None
    try:
        wait_until(lambda: line.stdout.readline() and len(parts(tmp_path)) >= 20)  # type: ignore[union-attr]
    finally:
        line.send_signal(signal.SIGKILL)
        line.stdout.read()
        line.stdout.close()
        line.wait()
    kept = parts(tmp_path)
    with running(tmp_path, images=keep(ok=0, ng=0)) as record:
        wait_until(lambda: record._images.shelf.parts == len(kept))
        wait_until(lambda: not list((tmp_path / "images").glob(f"{HIDDEN}*")))
    assert parts(tmp_path) == kept
    for about in (tmp_path / "images").rglob("part.json"):
        for view in json.loads(about.read_text())["views"].values():
            for name in view["files"]:
                if name.endswith(".png"):
                    read_image(about.parent / name)


def test_the_account_of_the_folder_is_the_same_after_a_restart(tmp_path: Path) -> None:
    with running(tmp_path, images=keep(ok=1, queue=100)) as record:
        judge(record, 9)
        wait_until(lambda: record.counters()["images_parts"] == 9)
        before = record.counters()["images_on_disk"]
    shelf = Shelf(tmp_path / "images")
    shelf.sweep()
    assert (shelf.bytes, shelf.parts) == (before, 9)


def test_a_place_in_the_queue_that_is_given_back_can_be_taken_again(tmp_path: Path) -> None:
    keeper = ImageKeeper(tmp_path, keep(ok=1, queue=1), alarm=Alarms(), wall=lambda: WALL)
    one = result(trigger(1))
    assert keeper.reserve(one, frames(1)) is not None
    assert keeper.reserve(one, frames(1)) is None
    keeper.release()
    assert keeper.reserve(one, frames(1)) is not None
