"""The record in a real PostgreSQL: the same verdicts, the same proof, also when the server goes away and comes back."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("psycopg")

from inspection.record.chain import RecordUnavailable
from inspection.record.database import locate
from inspection.record.history import History, Wanted
from inspection.record.options import RecordOptions
from inspection.record.record import Record
from inspection.record.verify import Proof, verify
from inspection.results import Verdict
from tests.record.line import NO_IMAGES, Alarms, judge, result, running, trigger, wait_until
from tests.record.postgres import Server, programs

pytestmark = [pytest.mark.line, pytest.mark.slow]


@pytest.fixture(scope="module")
def running_server() -> Iterator[Server]:
    found = programs()
    if found is None:
        if os.environ.get("CI"):
            pytest.fail("there is no PostgreSQL")
        pytest.skip("there is no PostgreSQL: .ci/run installs it")
    server = Server(found)
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture
def server(running_server: Server) -> Server:
    """The server with an empty database."""
    import psycopg

    with psycopg.connect(running_server.url, autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
    return running_server


def prove(server: Server, folder: Path | None, head: str | None = None) -> Proof:
    (proof,) = verify(locate(".", database=server.url), folder, head=head)
    assert proof.problems == []
    return proof


def test_verdicts_are_kept_proven_and_found(server: Server, tmp_path: Path) -> None:
    with running(tmp_path, database=server.url) as record:
        hashes = judge(record, 30) + judge(record, 3, Verdict.NG, lot="L2")
        made = trigger(record.next_number, part="nul\0 \ud800 漢")
        record.triggered(made)
        hashes.append(record.decided(result(made), {}))
    assert prove(server, None, hashes[0]).after_head == 33
    with History(server.url) as history, History(str(tmp_path)) as by_folder:
        wanted = Wanted(verdict=Verdict.NG)
        assert [row["number"] for row in history.verdicts(wanted)] == [33, 32, 31]
        assert by_folder.verdicts(wanted) == history.verdicts(wanted)
        assert history.part("SN000032")[0]["views"][0]["defects"][0]["kind"] == "scratch"
        assert [(row["lot"], row["NG"], row["total"]) for row in history.summary(Wanted(), by="lot")] == [
            ("L1", 0, 31),
            ("L2", 3, 3),
        ]
        assert [row["hour"] for row in history.summary(Wanted(), by="hour")] == ["2025-11-24 16:00"]
        out = tmp_path / "x.parquet"
        assert history.export(Wanted(), out) == 34


def test_a_server_that_is_stopped_and_started_again_has_every_verdict(server: Server, tmp_path: Path) -> None:
    alarms = Alarms()
    with running(tmp_path, alarms, database=server.url) as record:
        judge(record, 50)
        wait_until(lambda: record.counters()["stored"] > 0)
        server.stop()
        judge(record, 50)
        wait_until(lambda: "record-database" in alarms.codes)
        judge(record, 50)
        server.start()
        wait_until(lambda: record.counters()["waiting"] == 0)
        hashes = judge(record, 1)
    assert prove(server, None, hashes[0]).verdicts == 151
    assert alarms.codes == ["record-database"]


def test_a_line_that_is_killed_while_the_server_is_away_loses_nothing(server: Server, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.record.line", str(tmp_path), "100000", "--database", server.url]
    line = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert line.stdout is not None
    try:
        said = [line.stdout.readline() for _ in range(200)]
        server.stop()
        said += [line.stdout.readline() for _ in range(200)]
        line.kill()
        said += line.stdout.read().splitlines()
    finally:
        line.kill()
        line.wait()
        line.stdout.close()
        with_server_off = Record(
            RecordOptions(folder=tmp_path, database=server.url, images=NO_IMAGES), line="line1", alarm=Alarms()
        )
        first = with_server_off.next_number
        judge(with_server_off, 1)
        with_server_off.close(timeout=0.1)
        server.start()
    with running(tmp_path, database=server.url) as record:
        assert record.next_number == first + 1
        wait_until(lambda: record.counters()["waiting"] == 0)
    assert prove(server, None).verdicts == first
    with History(server.url) as history:
        kept = {(row["number"], row["hash"]) for row in history.verdicts(Wanted())}
    told = {(int(number), hash_) for number, hash_ in (text.split() for text in said[1:])}
    assert told <= kept


def test_a_new_record_whose_server_is_away_is_refused(server: Server, tmp_path: Path) -> None:
    server.stop()
    try:
        with pytest.raises(RecordUnavailable, match="Nothing is lost"):
            Record(RecordOptions(folder=tmp_path, database=server.url), line="line1", alarm=Alarms())
    finally:
        server.start()


def test_a_record_goes_on_from_the_server_when_its_folder_was_lost(server: Server, tmp_path: Path) -> None:
    with running(tmp_path / "one", database=server.url) as record:
        hashes = judge(record, 5)
    with running(tmp_path / "two", database=server.url) as record:
        assert (record.next_number, record.head) == (6, hashes[-1])
        judge(record, 1)
    assert prove(server, tmp_path / "two").verdicts == 6


def test_two_folders_of_one_name_are_told_apart(server: Server, tmp_path: Path) -> None:
    alarms = Alarms()
    with running(tmp_path / "one", database=server.url) as record:
        judge(record, 5)
        with running(tmp_path / "two", alarms, database=server.url) as other:
            judge(record, 2)
            wait_until(lambda: record.counters()["waiting"] == 0)
            judge(other, 1)
            wait_until(lambda: "record-database" in alarms.codes)
            wait_until(lambda: "record-conflict" in alarms.codes)
    assert prove(server, tmp_path / "one").verdicts == 7


def test_lines_share_one_server_each_with_its_own_chain(server: Server, tmp_path: Path) -> None:
    options = [RecordOptions(folder=tmp_path / name, database=server.url, images=NO_IMAGES) for name in "ab"]
    records = [Record(one, line=f"line-{n}", alarm=Alarms()) for n, one in enumerate(options)]
    for _ in range(10):
        for record in records:
            judge(record, 1)
    for record in records:
        record.close()
    proofs = verify(locate(".", database=server.url), None)
    assert [(proof.line, proof.verdicts, proof.problems) for proof in proofs] == [
        ("line-0", 10, []),
        ("line-1", 10, []),
    ]
    with History(server.url) as history:
        assert len(history.verdicts(Wanted(line="line-1"), limit=7)) == 7
        assert [row["total"] for row in history.summary(Wanted(), by="line")] == [10, 10]
