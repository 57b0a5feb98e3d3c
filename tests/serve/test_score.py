"""A batch through the command line: one row for each image, whatever happens."""

from __future__ import annotations

import csv
import json
import os
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from inspection import Inspector
from inspection.cli import main
from inspection.errors import ConfigInvalid, DataInvalid
from serve import inputs, score, table
from tests.serve.conftest import COLOURS, INSPECTION
from tests.support import graphs
from tests.support.images import save, surface

Rows = list[dict[str, Any]]


def read(path: Path) -> Rows:
    return list(pyarrow.parquet.read_table(path).to_pylist())


def steady(rows: Rows) -> Rows:
    """Rows without what differs from run to run."""
    return [{**row, "seconds": None} for row in rows]


def command(*arguments: object) -> list[str]:
    return [*INSPECTION, "score", *map(str, arguments), "--threads", "1"]


def run(*arguments: object, **kwargs: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=120, **kwargs)


Cli = Callable[..., tuple[int, str]]


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """The command line in this process, which saves half a second: its exit code, and what it says on stderr."""

    def call(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["inspection", "score", *map(str, arguments), "--threads", "1"])
        with pytest.raises(SystemExit) as end:
            main()
        return int(end.value.code or 0), capsys.readouterr().err

    return call


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """37 images of many greys in two folders, and 3 files that are none."""
    root = tmp_path_factory.mktemp("pictures")
    for index in range(37):
        value = 7 * index
        image = np.full((60, 80, 3), min(255, value), np.uint8)
        image[:, :, 0] = min(255, value + index % 3)
        save(root / ("a" if index % 2 else "b/inner") / f"{index:03}.png", image)
    (root / "a" / "text.png").write_text("no image")
    (root / "a" / "empty.jpg").write_bytes(b"")
    save(root / "b" / "mono.png", surface(1))
    return root


def test_every_input_has_one_row_and_the_rows_are_the_inspectors(pictures: Path, models: Path, tmp_path: Path) -> None:
    done = run(models / "colour.onnx", pictures, "--out", tmp_path / "r.parquet", "--json")
    assert done.returncode == 3, done.stderr  # some could not be judged
    summary = json.loads(done.stdout)
    rows = read(tmp_path / "r.parquet")
    assert summary["total"] == summary["judged"] == len(rows) == 40
    assert summary["errors"] == {"image-unreadable": 2, "input-mismatch": 1}
    assert [row["path"] for row in rows] == [str(path) for path in sorted(pictures.rglob("*.*"))]
    by_name = {Path(row["path"]).name: row for row in rows}
    assert by_name["empty.jpg"]["error_code"] == "image-unreadable"
    assert by_name["empty.jpg"]["reason"] == "the file is empty."
    assert by_name["mono.png"]["error_code"] == "input-mismatch"
    with Inspector(models / "colour.onnx", threads=1) as inspector:
        for row in rows:
            if row["verdict"] == "ERROR":
                assert row["score"] is row["width"] is None
                continue
            wanted = inspector.inspect(row["path"])
            assert row["verdict"] == wanted.verdict.value
            assert row["score"] == pytest.approx(wanted.score, rel=1e-6)
            assert (row["width"], row["height"]) == (80, 60)
            assert json.loads(row["defects"]) == [
                {**d.to_dict(), "score": pytest.approx(d.score, rel=1e-6)} for d in wanted.defects
            ]
            assert set(json.loads(row["classes"])) == set(COLOURS)
            assert row["model"] == inspector.model_hash
            assert row["seconds"] > 0
    assert list(tmp_path.iterdir()) == [tmp_path / "r.parquet"]  # no journal, no leftovers


def test_csv_and_parquet_hold_the_same(pictures: Path, models: Path, tmp_path: Path) -> None:
    for name in ("r.csv", "r.parquet"):
        score.run(models / "colour.onnx", [pictures], tmp_path / name, threads=1)
    with (tmp_path / "r.csv").open(newline="") as file:
        from_csv = list(csv.DictReader(file))
    assert list(from_csv[0]) == table.SCHEMA.names
    for text, row in zip(from_csv, read(tmp_path / "r.parquet"), strict=True):
        for key, value in row.items():
            if key != "seconds":
                assert text[key] == ("" if value is None else str(value))


def test_a_red_image_stays_red(models: Path, tmp_path: Path) -> None:
    red = np.zeros((64, 64, 3), np.uint8)
    red[..., 0] = 255
    save(tmp_path / "red.png", red)
    assert run(models / "colour.onnx", tmp_path / "red.png", "--out", tmp_path / "r.parquet").returncode == 0
    (row,) = read(tmp_path / "r.parquet")
    assert row["kind"] == "red"
    assert json.loads(row["classes"]) == {"red": 1.0, "green": 0.0, "blue": 0.0}


def test_a_16_bit_image_keeps_its_depth(models: Path, tmp_path: Path) -> None:
    image = np.full((64, 64), 384, np.uint16)
    save(tmp_path / "deep.tiff", image)
    assert run(models / "deep.onnx", tmp_path, "--out", tmp_path / "r.parquet").returncode == 0
    assert read(tmp_path / "r.parquet")[0]["score"] == pytest.approx(384 / 65535, rel=1e-6)


def test_what_is_ng_or_review_is_drawn_and_nothing_else(pictures: Path, models: Path, tmp_path: Path) -> None:
    overlays = tmp_path / "overlays"
    done = run(models / "colour.onnx", pictures, "--out", tmp_path / "r.parquet", "--overlays", overlays)
    assert done.returncode == 3
    rows = read(tmp_path / "r.parquet")
    drawn = {row["overlay"]: row for row in rows if row["overlay"]}
    assert {row["verdict"] for row in drawn.values()} == {"NG", "REVIEW"}
    assert set(drawn) == {str(path) for path in overlays.rglob("*.jpg")}
    assert len(drawn) == sum(row["verdict"] in ("NG", "REVIEW") for row in rows)
    for path, row in drawn.items():
        assert Path(path).parent.name == row["verdict"]
        assert cv2.imread(path).shape == (60, 80, 3)


def test_overlays_inside_the_folder_are_not_judged_the_next_time(models: Path, tmp_path: Path) -> None:
    save(tmp_path / "bright.png", np.full((64, 64, 3), 250, np.uint8))
    for _ in range(2):
        summary = score.run(
            models / "colour.onnx", [tmp_path], tmp_path / "r.csv", overlays=tmp_path / "seen", threads=1
        )
        assert summary.total == 1
    assert len(list((tmp_path / "seen").rglob("*.jpg"))) == 1


# ---------------------------------------------------------------- stopped and started again


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("many")
    for index in range(60):
        save(root / f"{index:03}.png", surface(index, 64, 64, channels=3))
    (root / "030-broken.png").write_bytes(b"x")
    return root


@pytest.fixture(scope="module")
def heavy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that takes some 20 ms for an image, and gives not quite the same score in another micro-batch."""
    path = tmp_path_factory.mktemp("heavy") / "heavy.onnx"
    return graphs.model_file(path, graphs.spec(height=64, width=64), layers=100)


def lines(journal: Path) -> int:
    return journal.read_bytes().count(b"\n") - 1 if journal.exists() and journal.stat().st_size else 0


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_with_the_rows_of_an_undisturbed_run(
    many: Path, heavy: Path, tmp_path: Path
) -> None:
    undisturbed, out = tmp_path / "whole.parquet", tmp_path / "r.parquet"
    assert run(heavy, many, "--out", undisturbed, "--batch", 4).returncode == 3
    journal = score.journal_of(out)
    killed_at = []
    for target in (1, 9, 22, 40):
        process = subprocess.Popen(command(heavy, many, "--out", out, "--batch", 4), stderr=subprocess.DEVNULL)
        while lines(journal) < target and process.poll() is None:
            time.sleep(0.001)
        process.kill()
        process.wait()
        assert not out.exists()  # never a part of a table
        killed_at.append(lines(journal))
    assert killed_at == sorted(killed_at)
    assert 0 < killed_at[0] < killed_at[-1] < 61
    done = run(heavy, many, "--out", out, "--batch", 4, "--json")
    assert done.returncode == 3
    # Nothing that the journal held is judged again, but for the rest of a micro-batch.
    assert json.loads(done.stdout)["judged"] == 61 - killed_at[-1] // 4 * 4
    assert steady(read(out)) == steady(read(undisturbed))
    assert not journal.exists()


@pytest.mark.slow
def test_ctrl_c_stops_it_cleanly_and_says_how_to_go_on(many: Path, heavy: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.csv"
    process = subprocess.Popen(command(heavy, many, "--out", out), stderr=subprocess.PIPE, text=True)
    while lines(score.journal_of(out)) < 8 and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "goes on after them" in said
    assert "Traceback" not in said
    kept = lines(score.journal_of(out))
    assert f"{kept} of 61 images" in said
    done = run(heavy, many, "--out", out)
    assert f"going on after {kept} of 61" in done.stderr
    assert done.returncode == 3


def interrupted(model: Path, many: Path, out: Path, rows: int) -> Path:
    """The journal of a run that was stopped after `rows` rows, left beside `out`."""
    journal = score.journal_of(out)
    whole = out.with_name("all.parquet")
    keep = score.Journal.remove
    try:
        score.Journal.remove = lambda _: None  # type: ignore[method-assign]
        score.run(model, [many], out, threads=1, batch=4)
    finally:
        score.Journal.remove = keep  # type: ignore[method-assign]
    out.rename(whole)
    kept = journal.read_bytes().splitlines(keepends=True)[: rows + 1]
    journal.write_bytes(b"".join(kept))
    return journal


@pytest.mark.parametrize(
    "damage",
    [
        b'{"path":"/torn',
        b'{"path":"x","verdict":"OK"}\n',  # a whole line, of another image
        b"\x00" * 500,  # what a power cut may leave
        b"\x00" * 500 + b"\n",
    ],
    ids=["torn", "foreign", "zeros", "zeros and a line end"],
)
def test_a_damaged_end_of_the_journal_is_dropped(many: Path, models: Path, tmp_path: Path, damage: bytes) -> None:
    out = tmp_path / "r.parquet"
    journal = interrupted(models / "colour.onnx", many, out, 16)
    journal.write_bytes(journal.read_bytes() + damage)
    summary = score.run(models / "colour.onnx", [many], out, threads=1, batch=4)
    assert summary.judged == 61 - 16
    assert steady(read(out)) == steady(read(tmp_path / "all.parquet"))


@pytest.mark.parametrize("size", [0, 1, 50])
def test_a_journal_that_died_in_its_first_line_begins_anew(many: Path, models: Path, tmp_path: Path, size: int) -> None:
    out = tmp_path / "r.parquet"
    journal = interrupted(models / "colour.onnx", many, out, 8)
    os.truncate(journal, size)
    assert score.run(models / "colour.onnx", [many], out, threads=1, batch=4).judged == 61
    assert steady(read(out)) == steady(read(tmp_path / "all.parquet"))


def test_rows_of_another_model_or_other_images_do_not_mix(many: Path, models: Path, tmp_path: Path, cli: Cli) -> None:
    out = tmp_path / "r.parquet"
    journal = interrupted(models / "colour.onnx", many, out, 16)
    before = journal.read_bytes()
    changed = tmp_path / "changed"
    shutil.copytree(many, changed)
    fewer = tmp_path / "fewer.csv"
    fewer.write_text("path\n" + "\n".join(str(path) for path in sorted(many.iterdir())[:20]))
    for model, pictures, batch, says in (
        ("plain.onnx", many, 4, "differs in: model"),
        ("colour.onnx", changed, 4, "differs in: images"),
        ("colour.onnx", fewer, 4, "differs in: images"),
        ("colour.onnx", many, 5, "differs in: batch"),
    ):
        code, said = cli(models / model, pictures, "--out", out, "--batch", batch)
        assert code == 2
        assert says in said
        assert "--restart" in said
        assert journal.read_bytes() == before
        assert not out.exists()
    assert cli(models / "plain.onnx", many, "--out", out, "--restart")[0] == 3
    assert len({row["model"] for row in read(out)}) == 1


def test_two_runs_into_one_table_do_not_mix(many: Path, models: Path, tmp_path: Path, cli: Cli) -> None:
    out = tmp_path / "r.parquet"
    interrupted(models / "colour.onnx", many, out, 8)
    about = json.loads(score.journal_of(out).read_text().splitlines()[0])
    step = about.pop("batch")
    about.pop("format")
    with score.Journal(score.journal_of(out), about, [], step=step):
        code, said = cli(models / "colour.onnx", many, "--out", out, "--batch", 4)
    assert code == 2
    assert "another process" in said


def test_a_full_disk_is_one_clear_error_and_loses_nothing(many: Path, models: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.parquet"
    limit = 15_000  # bytes that one file may have: the system refuses the rest as it does on a full disk

    def small_disk() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    done = run(models / "colour.onnx", many, "--out", out, "--batch", 4, preexec_fn=small_disk)
    assert done.returncode == 6
    assert "Traceback" not in done.stderr
    assert "images are kept" in done.stderr
    assert not out.exists()
    kept = lines(score.journal_of(out))
    assert kept > 4
    summary = json.loads(run(models / "colour.onnx", many, "--out", out, "--batch", 4, "--json").stdout)
    assert summary["judged"] == 61 - kept // 4 * 4
    assert len(read(out)) == 61


# ---------------------------------------------------------------- what is given


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["nowhere", "--out", "r.csv"], 5, "no such file"),
        (["empty", "--out", "r.csv"], 5, "no image"),
        (["list.csv", "--out", "r.csv"], 5, "no column `path`"),
        (["one.png", "--out", "r.xlsx"], 2, ".parquet or a .csv"),
        (["one.png", "--out", "empty"], 2, ".parquet or a .csv"),
        (["one.png", "--out", "/proc/r.csv"], 6, "cannot write"),
        (["one.png", "--out", "one.png/r.csv"], 6, "cannot write"),
        (["one.png", "--out", "r.csv", "--provider", "cuda"], 4, "provider-unavailable"),
    ],
)
def test_what_cannot_be_done_is_one_clear_error(
    models: Path, tmp_path: Path, arguments: list[str], code: int, says: str, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "list.csv").write_text("file\na.png\n")
    save(tmp_path / "one.png", surface(0, channels=3))
    assert (answer := cli(models / "colour.onnx", *arguments))[0] == code, answer
    assert says in answer[1]
    assert not list(tmp_path.glob("r.*"))  # nothing half made is left


def test_a_list_gives_its_paths_in_its_order_and_missing_files_a_row(models: Path, tmp_path: Path) -> None:
    for name in ("b.png", "a.png"):
        save(tmp_path / "images" / name, surface(0, 64, 64, channels=3))
    (tmp_path / "list.csv").write_text("label,path\ngood,images/b.png\n,images/gone.png\n,images/a.png\n", "utf-8-sig")
    pyarrow.parquet.write_table(
        pyarrow.table({"path": ["images/b.png", "images/gone.png", "images/a.png"]}), tmp_path / "list.parquet"
    )
    for listed in ("list.csv", "list.parquet"):
        score.run(models / "colour.onnx", [tmp_path / listed], tmp_path / "r.parquet", threads=1)
        rows = read(tmp_path / "r.parquet")
        assert [Path(row["path"]).name for row in rows] == ["b.png", "gone.png", "a.png"]
        assert [row["error_code"] for row in rows] == [None, "image-unreadable", None]


def test_an_image_named_twice_is_judged_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = save(tmp_path / "x" / "one.png", surface(0))
    monkeypatch.chdir(tmp_path)
    assert inputs.find([one, tmp_path / "x", Path("x"), Path("x/../x/one.png")]) == [one]


def test_hidden_files_and_other_endings_in_a_folder_are_left_alone(tmp_path: Path) -> None:
    wanted = [save(tmp_path / name, surface(0)) for name in ("A.PNG", "b.jpg", "c/d.tiff")]
    for name in ("._b.jpg", "notes.txt", ".cache/e.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert inputs.find([tmp_path]) == wanted
    assert inputs.find([tmp_path], leave_out=[tmp_path / "c"]) == wanted[:2]
    (tmp_path / "texts").mkdir()
    with pytest.raises(DataInvalid, match="no image"):
        inputs.find([tmp_path / "texts"])


def test_a_name_that_is_no_text_still_has_its_row(models: Path, tmp_path: Path) -> None:
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/odd-\xff.png")
    shutil.copy(save(tmp_path / "one.png", np.full((64, 64, 3), 255, np.uint8)), odd)
    summary = score.run(
        models / "colour.onnx", [Path(odd)], tmp_path / "r.parquet", threads=1, overlays=tmp_path / "seen"
    )
    assert summary.counts["NG"] == 1
    assert read(tmp_path / "r.parquet")[0]["path"].endswith("odd-\ufffd.png")


def test_an_unknown_ending_is_found_before_anything_is_judged(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match=r"r\.parquet"):
        score.run(tmp_path / "no-model.onnx", [tmp_path], tmp_path / "r")
