"""Disks that fill up, databases that are away, clocks that are set back: judging goes on, and nothing is lost."""

from __future__ import annotations

import os
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inspection.errors import OutputUnwritable
from inspection.record.chain import RecordInUse, RecordInvalid
from inspection.record.database import FILE, locate
from inspection.record.journal import Journal, segments
from inspection.record.options import RecordOptions
from inspection.record.record import Record
from inspection.record.verify import verify
from inspection.results import Verdict
from tests.record.line import NO_IMAGES, Alarms, judge, result, running, trigger, wait_until

MEMORY = Path("/dev/shm")  # hundreds of records, and each waits for its disk


def proven(folder: Path, head: str | None = None) -> int:
    """How many verdicts are proven, in the database alone."""
    (proof,) = verify(locate(folder), folder, head=head)
    assert proof.problems == []
    return proof.verdicts - proof.journaled


def test_a_locked_database_holds_up_nobody_and_has_all_of_it_afterwards(tmp_path: Path) -> None:
    alarms = Alarms()
    with running(tmp_path, alarms) as record:
        judge(record, 5)
        wait_until(lambda: record.counters()["stored"] == 5)
        lock = sqlite3.connect(tmp_path / FILE, isolation_level=None)
        lock.execute("BEGIN EXCLUSIVE")
        judge(record, 100)
        wait_until(lambda: alarms.codes == ["record-database"])
        judge(record, 100)
        assert record.counters()["waiting"] == 200
        assert proven(tmp_path) == 5
        lock.execute("ROLLBACK")
        lock.close()
        wait_until(lambda: record.counters()["waiting"] == 0)
        assert proven(tmp_path) == 205
        assert alarms.codes == ["record-database"]  # told once, however often it was tried


def spoil_with_garbage(path: Path) -> None:
    path.write_bytes(b"this is no database" * 100)


def spoil_with_a_folder(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize("spoil", [spoil_with_garbage, spoil_with_a_folder])
def test_a_start_without_a_usable_database_judges_and_fills_it_when_it_is_back(tmp_path: Path, spoil: object) -> None:
    with running(tmp_path) as record:
        judge(record, 3)
    (tmp_path / FILE).rename(tmp_path / "away")
    spoil(tmp_path / FILE)  # type: ignore[operator]
    alarms = Alarms()
    with running(tmp_path, alarms) as record:
        assert record.next_number == 4
        hashes = judge(record, 20)
        wait_until(lambda: "record-database" in alarms.codes)
        shutil.rmtree(tmp_path / FILE) if (tmp_path / FILE).is_dir() else (tmp_path / FILE).unlink()
        (tmp_path / "away").rename(tmp_path / FILE)
        wait_until(lambda: record.counters()["waiting"] == 0)
    assert proven(tmp_path, hashes[-1]) == 23


def test_verdicts_outlive_a_database_that_was_away_until_the_end_of_the_process(tmp_path: Path) -> None:
    with running(tmp_path) as record:
        judge(record, 1)
    (tmp_path / FILE).rename(tmp_path / "away")
    (tmp_path / FILE).mkdir()
    record = Record(RecordOptions(folder=tmp_path, images=NO_IMAGES), line="line1", alarm=Alarms())
    judge(record, 7)
    record.close(timeout=0.2)
    (tmp_path / FILE).rmdir()
    (tmp_path / "away").rename(tmp_path / FILE)
    with running(tmp_path) as record:
        assert (record.next_number, record.interrupted) == (9, [])
        wait_until(lambda: record.counters()["waiting"] == 0)
    assert proven(tmp_path) == 8


def test_a_database_that_was_taken_away_for_good_is_alarmed_and_the_numbers_go_on(tmp_path: Path) -> None:
    with running(tmp_path) as record:
        judge(record, 4)
    with running(tmp_path):
        wait_until(lambda: len(segments(tmp_path / "journal")) == 1)  # what the database has the journal gives up
    (tmp_path / FILE).unlink()
    alarms = Alarms()
    with running(tmp_path, alarms) as record:
        assert record.next_number == 5
        judge(record, 2)
        wait_until(lambda: record.counters()["stored"] == 6)
    assert alarms.codes == ["record-gap"]
    (proof,) = verify(locate(tmp_path), tmp_path)
    assert proof.problems == ["verdict 1 to 4 is missing."]


def test_two_processes_do_not_write_one_record(tmp_path: Path) -> None:
    with running(tmp_path) as record:
        judge(record, 1)
        with pytest.raises(RecordInUse, match=str(os.getpid())):
            Record(RecordOptions(folder=tmp_path), line="line1", alarm=Alarms())
        command = [sys.executable, "-m", "tests.record.line", str(tmp_path), "1"]
        other = subprocess.run(command, capture_output=True, text=True)
        assert "RecordInUse" in other.stderr
        judge(record, 1)
    assert proven(tmp_path) == 2


def test_a_folder_keeps_to_its_line(tmp_path: Path) -> None:
    with running(tmp_path):
        pass
    with pytest.raises(RecordInvalid, match="`line1`, not of `other`"):
        Record(RecordOptions(folder=tmp_path), line="other", alarm=Alarms())
    with running(tmp_path):
        pass  # the refused one has let go of the folder


def test_a_folder_that_cannot_be_written_is_refused_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputUnwritable):
        Record(RecordOptions(folder=tmp_path / "file" / "record"), line="line1", alarm=Alarms())


def test_a_record_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    with running(tmp_path) as record:
        judge(record, 1)
    connection = sqlite3.connect(tmp_path / FILE)
    with connection:
        connection.execute("UPDATE inspection_schema SET version = 2")
    connection.close()
    with pytest.raises(RecordInvalid, match="version 2"):
        Record(RecordOptions(folder=tmp_path), line="line1", alarm=Alarms())


def test_a_trigger_is_noted_once_and_judged_once(tmp_path: Path) -> None:
    with running(tmp_path) as record:
        made = trigger(1)
        with pytest.raises(RecordInvalid, match="unknown"):
            record.decided(result(made), {})
        record.triggered(made)
        with pytest.raises(RecordInvalid, match="given already"):
            record.triggered(made)
        record.decided(result(made), {})
        with pytest.raises(RecordInvalid, match="has its verdict already"):
            record.decided(result(made, Verdict.NG), {})
    assert proven(tmp_path) == 1


def test_order_is_by_number_when_the_clock_is_set_back(tmp_path: Path) -> None:
    from inspection.record.history import History, Wanted

    with running(tmp_path) as record:
        for wall in (2e9, 1e9, 0.0, -5.0, 1e300, 1.5e9):
            judge(record, 1, wall=wall)
    assert proven(tmp_path) == 6
    with History(str(tmp_path)) as history:
        assert [row["number"] for row in history.verdicts(Wanted())] == [6, 5, 4, 3, 2, 1]


@pytest.mark.parametrize("part", ["\ud800 lone", "nul\0byte", "quote\"'\\", "ü漢😀", "", "x" * 100_000, "a\nb\r\n"])
def test_a_barcode_may_hold_anything(tmp_path: Path, part: str) -> None:
    with running(tmp_path) as record:
        made = trigger(1, part=part or None)
        record.triggered(made)
        record.decided(result(made), {})
        wait_until(lambda: record.counters()["stored"] == 1)
    assert proven(tmp_path) == 1


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A disk of 64 MB of its own."""
    folder = Path(tempfile.mkdtemp())
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if mount.returncode != 0:
        folder.rmdir()
        pytest.skip(f"a disk of its own cannot be mounted here: {mount.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
        folder.rmdir()


def fill(folder: Path) -> None:
    with (folder / "ballast").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return


def test_a_full_disk_costs_no_verdict(small_disk: Path) -> None:
    alarms = Alarms()
    with running(small_disk / "record", alarms) as record:
        judge(record, 50)
        wait_until(lambda: record.counters()["waiting"] == 0)
        fill(small_disk)
        hashes = judge(record, 1200, views=30)  # more than the room that the journal took beforehand
        wait_until(lambda: {"record-journal", "record-database"} <= set(alarms.codes))
        assert record.counters()["buffered"] > 0
        assert record.counters()["lost"] == 0
        (small_disk / "ballast").unlink()
        wait_until(lambda: record.counters()["buffered"] == 0)
        hashes += judge(record, 5)
        wait_until(lambda: record.counters()["waiting"] == 0)
    assert proven(small_disk / "record", hashes[-1]) == 1255
    assert alarms.codes.count("record-journal") == 1


def test_a_journal_that_may_not_grow_keeps_lines_in_memory_and_writes_them_when_it_may(tmp_path: Path) -> None:
    alarms = Alarms()
    with running(tmp_path, alarms) as record:
        judge(record, 10)
        wait_until(lambda: record.counters()["waiting"] == 0)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        (segment,) = segments(tmp_path / "journal")
        # The kernel cuts the next line in its middle, which is what a disk does that fills up.
        resource.setrlimit(resource.RLIMIT_FSIZE, (segment.stat().st_size + 100, hard))
        try:
            hashes = judge(record, 30)
            counters = record.counters()
            assert counters["buffered"] == 60
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        wait_until(lambda: record.counters()["buffered"] == 0)
        wait_until(lambda: record.counters()["waiting"] == 0)
        assert record.counters()["damaged"] == 0
    assert proven(tmp_path, hashes[-1]) == 40


def test_numbers_given_while_no_line_could_be_written_are_not_given_again(tmp_path: Path) -> None:
    with running(tmp_path) as record:
        judge(record, 10)
    limited = (
        "import os, resource, sys\n"
        "from tests.record.line import *\n"
        "record = Record(RecordOptions(folder=sys.argv[1], images=NO_IMAGES), line='line1', alarm=Alarms())\n"
        "judge(record, 3)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64))\n"
        "judge(record, 4)\n"
        "assert record.counters()['buffered'] == 8\n"
        "os.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run([sys.executable, "-c", limited, str(tmp_path)]).returncode == -9
    with running(tmp_path) as record:
        assert [body["number"] for body in record.interrupted] == [14, 15, 16, 17]
        assert record.next_number == 18
        judge(record, 1)
    assert proven(tmp_path) == 18


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_a_journal_cut_at_any_byte_loses_nothing_before_the_cut(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as name:
        folder = Path(name)
        told: list[tuple[int, str]] = []  # bytes of the journal, hash
        for _ in range(data.draw(st.integers(1, 3))):
            # SIGKILL: nothing is closed, nothing drained; the database is not there to help.
            journal = Journal(folder / "journal")
            journal.begin(journal.state)
            head, sequence = journal.state.head, journal.state.sequence
            for _ in range(data.draw(st.integers(0, 6))):
                head, sequence = write_part(journal, head, sequence, open_=data.draw(st.booleans()))
            path = segments(folder / "journal")[-1]
            journal.sync()
            whole = path.read_bytes()
            cut = data.draw(st.integers(0, len(whole)))
            path.write_bytes(whole[:cut])
            kept = [line for line in whole[:cut].split(b"\n")[:-1] if b'"sequence":' in line and b'"verdict":' in line]
            told = [*told, *((len(told), line.split(b'"hash":"')[1][:64].decode()) for line in kept)]
            journal.close()
        with running(folder) as record:
            hashes = judge(record, 2)
            wait_until(lambda: record.counters()["waiting"] == 0)
        connection = sqlite3.connect(folder / FILE)
        chain = [row[0] for row in connection.execute("SELECT hash FROM verdicts ORDER BY sequence")]
        numbers = [row[0] for row in connection.execute("SELECT number FROM verdicts ORDER BY number")]
        connection.close()
        assert chain[: len(told)] == [hash_ for _, hash_ in told]
        assert chain[-2:] == hashes
        assert numbers == list(range(1, len(numbers) + 1))
        proven(folder)


def write_part(journal: Journal, head: str, sequence: int, *, open_: bool) -> tuple[str, int]:
    """A trigger and, unless it stays open, its verdict, as the record writes them."""
    from inspection.record.chain import Entry, canonical, link

    made = trigger(journal.state.number + 1)
    journal.append(Entry(number=made.number, trigger=canonical({"part": made.part, "product": "p", "triggered": 1.0})))
    if open_:
        return head, sequence
    body = canonical(result(made).to_dict() | {"images": None, "line": "line1", "versions": {}})
    hash_ = link(head, body)
    journal.append(Entry(number=made.number, body=body, sequence=sequence + 1, previous=head, hash=hash_))
    return hash_, sequence + 1
