"""`inspection history`: what a process engineer asks the record, also while the line runs."""

from __future__ import annotations

import csv
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from typer.testing import CliRunner

from inspection.errors import ConfigInvalid, InspectionError, OutputUnwritable
from inspection.record.chain import RecordInvalid
from inspection.record.commands import app
from inspection.record.history import History, Wanted, when
from inspection.record.options import KeepImages
from inspection.record.record import Record
from inspection.results import Verdict
from tests.record.line import judge, result, running, trigger, wait_until


def run(*arguments: str, code: int = 0) -> str:
    done = CliRunner().invoke(app, list(arguments), standalone_mode=False)
    if isinstance(done.exception, InspectionError):
        raise done.exception
    assert done.exception is None, done.output
    assert (done.return_value or 0) == code
    return done.stdout


def rows(*arguments: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run(*arguments, "--json").splitlines()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 parts of two lots over two hours, one a minute; every tenth is NG, the last one ERROR."""
    folder = tmp_path_factory.mktemp("record")
    with running(folder, images=KeepImages(ok=0, age=None, free=1)) as record:
        for n in range(1, 61):
            fill(record, n)
    return folder


def fill(record: Record, n: int) -> None:
    start = datetime(2026, 3, 1, 22, 30, tzinfo=UTC).timestamp()
    verdict = Verdict.ERROR if n == 60 else Verdict.NG if n % 10 == 0 else Verdict.OK
    made = trigger(n, wall=start + 60 * n, lot="A" if n <= 40 else "B")
    record.triggered(made)
    from tests.record.line import frames

    record.decided(result(made, verdict), frames(n))


def test_the_newest_verdicts_come_first_and_as_many_as_were_asked_for(folder: Path) -> None:
    found = rows("show", str(folder), "--limit", "3")
    assert [row["number"] for row in found] == [60, 59, 58]
    assert found[0]["triggered"] == "2026-03-01T23:30:00+00:00"


@pytest.mark.parametrize(
    ("options", "numbers"),
    [
        (["--verdict", "ng"], [50, 40, 30, 20, 10]),
        (["--verdict", "NG", "--lot", "B"], [50]),
        (["--part", "SN000007"], [7]),
        (["--product", "watch", "--lot", "B", "--limit", "2"], [60, 58]),
        (["--since", "2026-03-01T23:28", "--until", "2026-03-01T23:30"], [59, 58]),
        (["--since", "2026-03-02T00:29:00+01:00"], [60, 59]),
        (["--line", "other"], []),
        (["--since", "1h"], []),
    ],
)
def test_verdicts_are_found_by_what_is_known_of_them(folder: Path, options: list[str], numbers: list[int]) -> None:
    assert [row["number"] for row in rows("show", str(folder), *options)] == numbers


def test_a_table_for_people_says_the_same(folder: Path) -> None:
    text = run("show", str(folder), "--verdict", "NG")
    assert [line.split()[0] for line in text.splitlines()[1:]] == ["50", "40", "30", "20", "10"]
    assert "SN000050" in text


def test_a_part_shows_its_views_its_defects_and_its_images(folder: Path) -> None:
    (found,) = json.loads(run("part", str(folder), "SN000010", "--json"))
    assert (found["verdict"], found["views"][0]["defects"][0]["box"]) == ("NG", [1, 2, 3, 4])
    assert len(found["files"]) == 7
    assert all(Path(file).is_file() for file in found["files"])
    assert found["versions"]["numpy"]
    text = run("part", str(folder), "10")  # by the number of its trigger
    assert "scratch: score 0.25, 3 x 4 at 1, 2, 7 pixels" in text
    assert found["hash"] in text


def test_a_part_that_nobody_saw_is_told_by_the_exit_code(folder: Path) -> None:
    assert "knows no part" in run("part", str(folder), "nobody", code=1)


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        ("lot", [("A", 36, 4, 0, 40), ("B", 18, 1, 1, 20)]),
        ("hour", [("2026-03-01 22:00", 27, 2, 0, 29), ("2026-03-01 23:00", 27, 3, 1, 31)]),
        ("product", [("phone", 30, 0, 0, 30), ("watch", 24, 5, 1, 30)]),
        ("recipe", [("phone", 54, 5, 1, 60)]),
    ],
)
def test_a_summary_counts_each_verdict_once(folder: Path, by: str, expected: list[tuple[Any, ...]]) -> None:
    found = json.loads(run("summary", str(folder), "--by", by, "--json"))
    assert [(row[by], row["OK"], row["NG"], row["ERROR"], row["total"]) for row in found] == expected
    assert found[0]["yield"] == found[0]["OK"] / found[0]["total"]
    assert "90.00%" in run("summary", str(folder))


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_an_export_has_every_verdict_with_its_body(folder: Path, tmp_path: Path, ending: str) -> None:
    out = tmp_path / f"x.{ending}"
    run("export", str(folder), "--out", str(out))
    if ending == "parquet":
        table = pyarrow.parquet.read_table(out)
        assert str(table.schema.field("triggered").type) == "timestamp[us, tz=UTC]"
        found = table.to_pylist()
        assert found[9]["triggered"] == datetime(2026, 3, 1, 22, 40, tzinfo=UTC)
    else:
        found = list(csv.DictReader(out.open(newline="")))
    assert [int(row["number"]) for row in found] == list(range(1, 61))
    assert json.loads(found[9]["body"])["views"][1]["defects"][0]["kind"] == "scratch"


def test_an_export_takes_only_what_was_asked_for(folder: Path, tmp_path: Path) -> None:
    run("export", str(folder), "--out", str(tmp_path / "ng.parquet"), "--verdict", "NG", "--lot", "A")
    assert pyarrow.parquet.read_table(tmp_path / "ng.parquet")["number"].to_pylist() == [10, 20, 30, 40]
    run("export", str(folder), "--out", str(tmp_path / "none.parquet"), "--lot", "none")
    assert pyarrow.parquet.read_table(tmp_path / "none.parquet").num_rows == 0


def test_an_export_that_cannot_be_written_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match=r"\.parquet or a \.csv"):
        run("export", str(folder), "--out", str(tmp_path / "x.xlsx"))
    (tmp_path / "file").touch()
    with pytest.raises(OutputUnwritable):
        run("export", str(folder), "--out", str(tmp_path / "file" / "x.csv"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


def test_questions_are_answered_while_the_line_writes(tmp_path: Path) -> None:
    with running(tmp_path) as record, History(str(tmp_path)) as history:
        for n in (5, 10, 15):
            judge(record, 5)
            wait_until(lambda: record.counters()["waiting"] == 0)
            assert history.verdicts(Wanted())[0]["number"] == n


def test_what_is_no_record_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordInvalid, match="no record here"):
        run("show", str(tmp_path))
    with pytest.raises(ConfigInvalid, match="not supported"):
        run("show", "mysql://somebody:secret@host/x")


def test_the_password_of_a_database_is_never_shown(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        run("show", "mysql://somebody:secret@host/x")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("text", ["yesterday", "2026-13-01", "-3h", ""])
def test_a_moment_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigInvalid):
        when(text)


def test_a_moment_may_be_said_as_how_long_ago() -> None:
    now = datetime(2026, 3, 1, 12, tzinfo=UTC)
    assert when("90m", now=now) == now - timedelta(minutes=90)
