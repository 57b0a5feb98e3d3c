"""A folder that somebody writes images into is a camera."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inspection.cameras.camera import CameraLost
from inspection.cameras.folder import FolderCamera, move
from inspection.cameras.options import FolderOptions
from inspection.config import parse
from inspection.errors import ConfigInvalid
from inspection.parts import Frame
from tests.support.images import Array, save, surface

LONG = 30.0  # seconds; only what hangs takes them
RED = np.full((8, 10, 3), (250, 10, 20), np.uint8)
DEEP = np.arange(80, dtype=np.uint16).reshape(8, 10) * 800


def camera(path: Path, **options: Any) -> FolderCamera:
    """Whole files are moved in, unless a test says otherwise."""
    return FolderCamera(FolderOptions(kind="folder", path=path, **{"settled": 0, **options}), "top")


def put(folder: Path, name: str, image: Array = RED, *, at: float | None = None) -> Path:
    """Moves a whole image in; `at` is its time of change."""
    hidden = save(folder / f".{name}", image)
    if at is not None:
        os.utime(hidden, (at, at))
    return hidden.rename(folder / name)


def take(source: FolderCamera) -> Frame:
    frame = source.frame(LONG)
    assert frame is not None
    return frame


def all_of(source: FolderCamera) -> list[Frame]:
    frames = []
    while (frame := source.frame(0.05)) is not None:
        frames.append(frame)
    return frames


def test_a_red_image_arrives_red_and_a_deep_one_deep(tmp_path: Path) -> None:
    put(tmp_path, "a.png", RED)
    put(tmp_path, "b.png", DEEP)
    source = camera(tmp_path)
    source.start()
    for image, name in ((RED, "RGB8"), (DEEP, "Mono16")):
        frame = take(source)
        assert frame.pixels is not None
        assert frame.pixels.dtype == image.dtype
        assert frame.pixels.flags.c_contiguous
        assert frame.pixel_format == name
        assert frame.damage is None
        np.testing.assert_array_equal(frame.pixels, image)


@settings(max_examples=25, deadline=None)
@given(st.dictionaries(st.from_regex(r"[a-c]{1,3}\.png", fullmatch=True), st.integers(10**9, 10**9 + 3), max_size=6))
def test_files_come_by_time_of_change_then_name_and_each_once(files: dict[str, int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name, at in files.items():
            put(Path(folder), name, at=at)
        source = camera(Path(folder))
        source.start()
        frames = all_of(source)
        assert [frame.name for frame in frames] == sorted(files, key=lambda name: (files[name], name))
        assert [frame.number for frame in frames] == list(range(1, len(files) + 1))


def test_a_file_that_still_grows_is_not_taken_before_it_stands_still(tmp_path: Path) -> None:
    data = save(tmp_path / "elsewhere" / "a.png", surface(1)).read_bytes()
    watched = tmp_path / "in"
    watched.mkdir()
    source = camera(watched, settled=1.5)
    source.start()
    with (watched / "a.png").open("wb", buffering=0) as file:
        for piece in np.array_split(np.frombuffer(data, np.uint8), 4):
            file.write(piece.tobytes())
            assert source.frame(0.02) is None
    frame = take(source)
    assert frame.damage is None
    np.testing.assert_array_equal(frame.pixels, surface(1))


def test_nothing_comes_twice_across_a_stop_and_a_start(tmp_path: Path) -> None:
    put(tmp_path, "a.png", at=1)
    put(tmp_path, "b.png", at=2)
    source = camera(tmp_path)
    source.start()
    assert take(source).name == "a.png"
    source.stop()
    assert source.frame(LONG) is None
    put(tmp_path, "c.png", at=3)
    source.start()
    assert [(frame.name, frame.number) for frame in all_of(source)] == [("b.png", 2), ("c.png", 3)]


def test_a_file_that_is_written_anew_is_a_new_frame(tmp_path: Path) -> None:
    put(tmp_path, "latest.png", RED, at=1)
    source = camera(tmp_path)
    source.start()
    assert take(source).number == 1
    put(tmp_path, "latest.png", DEEP, at=2)
    frame = take(source)
    assert frame.number == 2
    np.testing.assert_array_equal(frame.pixels, DEEP)
    assert source.frame(0.05) is None


def test_what_lies_there_at_the_start_can_be_left_out_but_not_what_came_while_it_was_stopped(tmp_path: Path) -> None:
    put(tmp_path, "old.png")
    source = camera(tmp_path, existing=False)
    source.start()
    assert source.frame(0.05) is None
    source.stop()
    put(tmp_path, "new.png")
    source.start()
    assert [frame.name for frame in all_of(source)] == ["new.png"]


@pytest.mark.parametrize(
    ("expression", "name", "wanted"),
    [
        (r"_(\w+)$", "top_SN42.png", ("SN42", None, None)),
        (r"(?P<lot>L\d+)-(?P<part>\w+)-(?P<trigger>\d+)", "L7-A1-0012.png", ("A1", "L7", 12)),
        (r"SN(\d+)_L(?P<lot>\d+)", "SN42_L7.png", ("42", "7", None)),
        (r"(?P<lot>L\d+)_(\w+)", "L7_A1.png", ("A1", "L7", None)),
        (r"(?P<trigger>\d+)_(?P<view>[a-z]+)_(\w+)", "12_top_A1.png", ("A1", None, 12)),
        (r"(?P<lot>L\d+)_(?P<serial>\w+)", "L7_A1.png", ("A1", "L7", None)),
        (r"(?P<trigger>\d+)", "12.png", (None, None, 12)),
        (r"_(\w+)$", "nothing.png", (None, None, None)),
        (None, "top_SN42.png", (None, None, None)),
    ],
)
def test_the_serial_is_read_from_the_name(
    tmp_path: Path, expression: str | None, name: str, wanted: tuple[str | None, str | None, int | None]
) -> None:
    put(tmp_path, name)
    source = camera(tmp_path, part=expression)
    source.start()
    frame = take(source)
    assert (frame.part, frame.lot, frame.trigger) == wanted
    assert source.facts()["unnamed"] == (expression is not None and wanted == (None, None, None))


@pytest.mark.parametrize(
    ("expression", "name"), [(r"(?P<lot>L\d+)(?:_(?P<part>\w+))?", "L7.png"), (r"(?P<lot>L\d+)_(\w*)", "L7_.png")]
)
def test_a_name_that_matches_and_has_no_serial_is_counted(tmp_path: Path, expression: str, name: str) -> None:
    put(tmp_path, name)
    source = camera(tmp_path, part=expression)
    source.start()
    frame = take(source)
    assert (frame.part, frame.lot) == (None, "L7")
    assert source.facts()["unnamed"] == 1


def test_a_trigger_that_is_no_number_damages_the_frame(tmp_path: Path) -> None:
    put(tmp_path, "t12x.png")
    source = camera(tmp_path, part=r"t(?P<trigger>\w+)")
    source.start()
    frame = take(source)
    assert frame.trigger is None
    assert "12x" in (frame.damage or "")


@pytest.mark.parametrize("expression", ["top_.*", "(top"])
def test_an_expression_that_finds_no_serial_is_refused_with_its_key(expression: str) -> None:
    with pytest.raises(ConfigInvalid, match=r"part.*(group|expression)"):
        parse({"kind": "folder", "path": "in", "part": expression}, FolderOptions, source="recipe.yaml")


def test_files_are_moved_after_they_were_handed_out_and_replace_nobodys(tmp_path: Path) -> None:
    watched, done = tmp_path / "in", tmp_path / "in" / "done"
    mine = put(watched, "a.png")
    save(done / "a.png", DEEP)
    source = camera(watched, done=done)
    source.start()
    take(source)
    assert mine.exists()  # a kill now shows it once more, instead of never
    assert source.frame(0.05) is None
    assert not mine.exists()
    put(watched, "a.png", at=5)
    take(source)
    source.stop()
    assert sorted(path.name for path in done.iterdir()) == ["a-2.png", "a-3.png", "a.png"]
    assert sorted(path.name for path in watched.iterdir()) == ["done"]
    fresh = camera(done)
    fresh.start()
    depths = {frame.name: frame.pixel_format for frame in all_of(fresh)}
    assert depths == {"a.png": "Mono16", "a-2.png": "RGB8", "a-3.png": "RGB8"}


def test_an_image_that_took_the_place_of_a_judged_one_is_not_moved_unseen(tmp_path: Path) -> None:
    put(tmp_path / "in", "a.png", RED, at=1)
    source = camera(tmp_path / "in", done=tmp_path / "done")
    source.start()
    take(source)
    put(tmp_path / "in", "a.png", DEEP, at=2)
    assert take(source).pixel_format == "Mono16"


def test_files_are_moved_to_another_file_system(tmp_path: Path) -> None:
    memory = Path("/dev/shm")
    if not memory.is_dir() or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system here")
    with tempfile.TemporaryDirectory(dir=memory) as done:
        source = put(tmp_path, "a.png", DEEP)
        data = source.read_bytes()
        assert move(source, Path(done)).read_bytes() == data
        assert not source.exists()


def test_what_cannot_be_moved_is_counted_and_judging_goes_on(tmp_path: Path) -> None:
    watched, done = tmp_path / "in", tmp_path / "done"
    put(watched, "a.png", at=1)
    put(watched, "b.png", at=2)
    source = camera(watched, done=done)
    source.start()
    shutil.rmtree(done)
    done.write_text("a file now")
    assert [frame.name for frame in all_of(source)] == ["a.png", "b.png"]
    assert source.facts()["not_moved"] == 2
    assert "b.png" in str(source.facts()["not_moved_why"])


def test_a_file_that_is_no_sound_image_is_a_damaged_frame_and_is_moved_too(tmp_path: Path) -> None:
    watched = tmp_path / "in"
    whole = put(watched, "cut.png", surface(2), at=1)
    whole.write_bytes(whole.read_bytes()[:200])
    (watched / "text.png").write_text("no image")
    (watched / "empty.png").touch()
    source = camera(watched, done=tmp_path / "done")
    source.start()
    frames = all_of(source)
    assert {frame.name for frame in frames} == {"cut.png", "text.png", "empty.png"}
    assert all(frame.pixels is None and frame.damage for frame in frames)
    assert source.facts()["damaged"] == 3
    assert len(list((tmp_path / "done").iterdir())) == 3


def test_a_file_that_vanished_before_it_was_read_is_a_damaged_frame(tmp_path: Path) -> None:
    put(tmp_path, "a.png", at=1)
    gone = put(tmp_path, "b.png", at=2)
    source = camera(tmp_path)
    source.start()
    assert take(source).damage is None
    gone.unlink()
    frame = take(source)
    assert frame.name == "b.png"
    assert frame.pixels is None
    assert "read" in (frame.damage or "")


def test_hidden_temporary_and_other_files_are_left_alone(tmp_path: Path) -> None:
    for name in (".a.png", "a.png~", "a.png.tmp", "a.png.PART", "a.filepart", "Thumbs.db", "notes.txt"):
        (tmp_path / name).write_text("x")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "broken.png").symlink_to(tmp_path / "nowhere")
    put(tmp_path, "b.png")
    source = camera(tmp_path, pattern="*.p*")
    source.start()
    assert [frame.name for frame in all_of(source)] == ["b.png"]


def test_a_folder_that_vanishes_is_a_lost_camera_until_it_is_there_again(tmp_path: Path) -> None:
    watched = tmp_path / "in"
    source = camera(watched)
    with pytest.raises(CameraLost, match=re.escape(str(watched))):
        source.start()
    put(watched, "a.png")
    source.start()
    assert take(source).number == 1
    shutil.rmtree(watched)
    with pytest.raises(CameraLost):
        source.frame(LONG)
    source.stop()
    put(watched, "b.png")
    source.start()
    assert take(source).number == 2


def test_a_share_that_is_unmounted_leaves_another_folder_and_is_a_lost_camera(tmp_path: Path) -> None:
    share, mounted_on = tmp_path / "share", tmp_path / "in"
    put(share, "a.png", at=1)
    mounted_on.symlink_to(share)
    (tmp_path / "empty").mkdir()
    source = camera(mounted_on)
    source.start()
    assert take(source).name == "a.png"
    mounted_on.unlink()
    mounted_on.symlink_to(tmp_path / "empty")
    with pytest.raises(CameraLost):
        source.frame(LONG)
    source.start()
    assert source.frame(0.05) is None
    mounted_on.unlink()
    mounted_on.symlink_to(share)
    source.start()
    assert source.frame(0.05) is None  # a.png was judged


def test_stop_wakes_a_camera_that_waits(tmp_path: Path) -> None:
    source = camera(tmp_path, settled=5)
    source.start()
    got: list[Frame | None] = []
    thread = threading.Thread(target=lambda: got.append(source.frame(600.0)))
    thread.start()
    source.stop()
    source.stop()
    thread.join(LONG)
    assert got == [None]


def test_the_folder_for_judged_files_must_not_be_the_watched_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match="done"):
        camera(tmp_path, done=tmp_path / "x" / "..")
