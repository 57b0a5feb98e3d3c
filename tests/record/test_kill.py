"""SIGKILL: the process ends between two instructions, and no verdict that it has told anybody about is missing."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import select

from inspection.record.database import Database, bodies, locate, verdicts
from tests.record.line import running, wait_until


def killed_after(folder: Path, lines: int, *more: str) -> dict[int, str]:
    """Runs a line and kills it once it has told so many verdicts; what it told, hash by number."""
    command = [sys.executable, "-m", "tests.record.line", str(folder), "2000", *more]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    said = [process.stdout.readline() for _ in range(lines)]
    process.send_signal(signal.SIGKILL)
    said += process.stdout.read().splitlines()  # what it wrote before the kernel ended it
    process.stdout.close()
    process.wait()
    whole = [line.split() for line in said]
    return {int(number): hash_ for number, hash_ in whole}


def stored(folder: Path) -> list[tuple[int, str, str, str | None]]:
    database = Database(locate(folder), write=False)
    with database.begin() as connection:
        query = select(verdicts.c.number, verdicts.c.hash, verdicts.c.verdict, verdicts.c.code)
        rows = connection.execute(query.order_by(verdicts.c.sequence)).all()
        assert connection.execute(select(bodies.c.sequence)).all().__len__() == len(rows)
    database.close()
    return [tuple(row) for row in rows]


@pytest.mark.parametrize("told", [1, 40, 1500])
def test_every_verdict_that_was_told_is_in_the_record_after_a_kill(tmp_path: Path, told: int) -> None:
    said = killed_after(tmp_path, told)
    assert len(said) >= told

    with running(tmp_path) as record:
        interrupted = {body["number"] for body in record.interrupted}
        first = record.next_number
        wait_until(lambda: record.counters()["waiting"] == 0)

    rows = stored(tmp_path)
    kept = {number: hash_ for number, hash_, _, code in rows if code is None}
    assert said.items() <= kept.items()
    assert sorted(number for number, *_ in rows) == list(range(1, first))  # each trigger has exactly one verdict
    assert interrupted == {number for number, _, verdict, code in rows if (verdict, code) == ("ERROR", "interrupted")}
    assert 1 <= len(interrupted) <= 3
