"""The chain: whoever changes the record afterwards is found out, and the first such place is named."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inspection.record.chain import GENESIS, Entry, canonical, link, read_entry
from inspection.record.database import locate
from inspection.record.journal import segments
from inspection.record.verify import Proof, verify
from inspection.results import Verdict
from tests.record.line import judge, running, wait_until


def prove(folder: Path, head: str | None = None) -> Proof:
    (proof,) = verify(locate(folder), folder, head=head)
    return proof


@pytest.fixture
def ten(tmp_path: Path) -> tuple[Path, list[str]]:
    """A record of ten verdicts, of which the fourth is NG, and their hashes."""
    with running(tmp_path) as record:
        hashes = judge(record, 3) + judge(record, 1, Verdict.NG) + judge(record, 6)
    return tmp_path, hashes


def change(folder: Path, statement: str) -> None:
    connection = sqlite3.connect(folder / "verdicts.sqlite")
    with connection:
        assert connection.execute(statement).rowcount > 0
    connection.close()


def test_an_untouched_record_is_proven_to_its_last_verdict(ten: tuple[Path, list[str]]) -> None:
    folder, hashes = ten
    proof = prove(folder)
    assert (proof.verdicts, proof.first, proof.last, proof.head, proof.problems) == (10, 1, 10, hashes[-1], [])


def test_anybody_can_check_the_chain_with_sha256_alone(ten: tuple[Path, list[str]]) -> None:
    folder, hashes = ten
    previous = "0" * 64
    rows = sqlite3.connect(folder / "verdicts.sqlite").execute("SELECT body FROM bodies ORDER BY sequence")
    for (body,), expected in zip(rows, hashes, strict=True):
        previous = hashlib.sha256((previous + body).encode()).hexdigest()
        assert previous == expected


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        (
            'UPDATE bodies SET body = replace(body, \'"verdict":"NG"\', \'"verdict":"OK"\') WHERE sequence = 4',
            "verdict 4 (trigger 4) was altered: it does not give its hash.",
        ),
        (
            "UPDATE verdicts SET verdict = 'OK' WHERE sequence = 4",
            "verdict 4 (trigger 4) was altered: its column `verdict` is 'OK', and the body that was hashed says 'NG'.",
        ),
        ("UPDATE verdicts SET score = score / 2 WHERE sequence = 4", "its column `score` is 0.125"),
        ("UPDATE verdicts SET triggered = '2020-01-01 00:00:00.000000' WHERE sequence = 4", "its column `triggered`"),
        ("DELETE FROM verdicts WHERE sequence = 4", "verdict 4 is missing."),
        ("DELETE FROM verdicts WHERE sequence IN (4, 5, 6)", "verdict 4 to 6 is missing."),
        ("DELETE FROM verdicts WHERE sequence < 4", "verdict 1 to 3 is missing."),
        ("DELETE FROM bodies WHERE sequence = 4", "verdict 4 (trigger 4) has lost its body."),
        ("UPDATE verdicts SET number = 5 WHERE sequence = 4", "its column `number` is 5"),
        ("UPDATE verdicts SET previous = hash WHERE sequence = 4", "verdict 4 (trigger 4) does not follow"),
    ],
)
def test_what_was_changed_afterwards_is_named(ten: tuple[Path, list[str]], statement: str, said: str) -> None:
    folder, _ = ten
    change(folder, statement)
    problems = prove(folder).problems
    assert said in problems[0]


def test_a_verdict_that_was_forged_with_its_own_hash_does_not_fit_the_next_one(ten: tuple[Path, list[str]]) -> None:
    folder, _ = ten
    connection = sqlite3.connect(folder / "verdicts.sqlite")
    body, previous = connection.execute(
        "SELECT body, previous FROM bodies JOIN verdicts USING (line, sequence) WHERE sequence = 4"
    ).fetchone()
    forged = body.replace('"verdict":"NG"', '"verdict":"OK"')
    with connection:
        connection.execute("UPDATE bodies SET body = ? WHERE sequence = 4", (forged,))
        connection.execute("UPDATE verdicts SET verdict = 'OK', hash = ? WHERE sequence = 4", (link(previous, forged),))
    connection.close()
    assert prove(folder).problems[0] == (
        "verdict 5 (trigger 5) does not follow from the one before it: one of them was replaced."
    )


def test_an_end_that_was_forged_with_all_its_hashes_is_found_by_the_journal(ten: tuple[Path, list[str]]) -> None:
    folder, _ = ten
    connection = sqlite3.connect(folder / "verdicts.sqlite")
    rows = connection.execute(
        "SELECT sequence, body, previous FROM bodies JOIN verdicts USING (line, sequence) WHERE sequence >= 4"
    ).fetchall()
    previous = rows[0][2]
    with connection:
        for sequence, body, _ in rows:
            forged = body.replace('"verdict":"NG"', '"verdict":"OK"')
            hash_ = link(previous, forged)
            connection.execute("UPDATE bodies SET body = ? WHERE sequence = ?", (forged, sequence))
            connection.execute(
                "UPDATE verdicts SET verdict = 'OK', previous = ?, hash = ? WHERE sequence = ?",
                (previous, hash_, sequence),
            )
            previous = hash_
    connection.close()
    assert prove(folder).problems[0] == "verdict 4 (trigger 4) was altered: the journal has another one."


def test_a_cut_off_end_is_found_by_a_hash_that_was_kept_elsewhere(ten: tuple[Path, list[str]]) -> None:
    folder, hashes = ten
    assert prove(folder, hashes[6]).after_head == 3
    change(folder, "DELETE FROM verdicts WHERE sequence > 7")
    change(folder, "DELETE FROM bodies WHERE sequence > 7")
    assert prove(folder).journaled == 3  # the journal still has them
    for segment in segments(folder / "journal"):
        segment.unlink()
    assert prove(folder).problems == []  # nobody can know without a hash from elsewhere
    assert "the end was cut off" in prove(folder, hashes[-1]).problems[0]
    assert prove(folder, hashes[6]).problems == []


def test_verdicts_that_the_database_does_not_have_yet_are_proven_from_the_journal(tmp_path: Path) -> None:
    with running(tmp_path) as record:
        judge(record, 5)
        wait_until(lambda: record.counters()["waiting"] == 0)
        lock = sqlite3.connect(tmp_path / "verdicts.sqlite", isolation_level=None)
        lock.execute("BEGIN IMMEDIATE")
        hashes = judge(record, 4)
        proof = prove(tmp_path, hashes[0])
        assert (proof.verdicts, proof.journaled, proof.after_head, proof.problems) == (9, 4, 3, [])
        lock.execute("ROLLBACK")
        lock.close()


def test_a_record_is_proven_while_a_line_writes_it(tmp_path: Path) -> None:
    line = subprocess.Popen(
        [sys.executable, "-m", "tests.record.line", str(tmp_path), "3000"], stdout=subprocess.PIPE, text=True
    )
    assert line.stdout is not None
    try:
        line.stdout.readline()
        seen = []
        while line.stdout.readline() and len(seen) < 8:
            for _ in range(150):
                line.stdout.readline()
            (proof,) = verify(locate(tmp_path), tmp_path) if (tmp_path / "verdicts.sqlite").exists() else ([],)
            assert not proof or proof.problems == []
            seen.append(proof.verdicts if proof else 0)
        assert seen == sorted(seen)
        assert seen[-1] > 0
    finally:
        line.stdout.read()
        line.stdout.close()
        assert line.wait() == 0


def test_old_verdicts_are_deleted_and_the_rest_is_still_proven(tmp_path: Path) -> None:
    with running(tmp_path) as record:
        judge(record, 20, wall=1_000_000_000.0)  # 2001
        hashes = judge(record, 5, wall=4_000_000_000.0)  # 2096
    with running(tmp_path, age=86400.0) as record:
        wait_until(lambda: record.counters()["deleted"] == 20)
        judge(record, 1)
    proof = prove(tmp_path, hashes[-1])
    assert (proof.deleted, proof.verdicts, proof.first, proof.after_head, proof.problems) == (20, 6, 21, 1, [])


def test_numbers_and_head_go_on_when_all_verdicts_were_deleted_by_age(tmp_path: Path) -> None:
    with running(tmp_path, age=86400.0) as record:
        hashes = judge(record, 3, wall=1_000_000_000.0)
        wait_until(lambda: record.counters()["waiting"] == 0)
    gone = record.counters()["deleted"]  # it may have found them already
    with running(tmp_path, age=86400.0) as record:
        wait_until(lambda: gone + record.counters()["deleted"] == 3)
        assert (record.next_number, record.head) == (4, hashes[-1])


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), json_values, max_size=5))
def test_a_body_is_one_text_whatever_it_holds_and_comes_back_from_the_journal(body: dict[str, Any]) -> None:
    text = canonical(body)
    assert text == canonical(json.loads(text))
    assert text.isascii()
    assert "\n" not in text
    entry = Entry(number=1, body=text, sequence=1, previous=GENESIS, hash=link(GENESIS, text))
    assert read_entry(entry.line()[:-1]) == entry


@settings(max_examples=200)
@given(st.data())
def test_a_verdict_line_with_any_byte_changed_is_refused(data: st.DataObject) -> None:
    text = canonical({"number": 7, "verdict": "NG", "part": "a"})
    entry = Entry(number=7, body=text, sequence=1, previous=GENESIS, hash=link(GENESIS, text))
    line = bytearray(entry.line()[:-1])
    at = data.draw(st.integers(line.index(b'"verdict":') + 10, len(line) - 2))
    line[at] ^= data.draw(st.integers(1, 127))
    assert read_entry(bytes(line)) is None


def test_the_commands_tell_a_proof_from_a_break_by_their_exit_code(ten: tuple[Path, list[str]]) -> None:
    folder, hashes = ten

    def run(*more: str) -> subprocess.CompletedProcess[str]:
        program = (
            "from inspection.record.commands import app; import inspection.cli as c; c.build = lambda: app; c.main()"
        )
        command = [sys.executable, "-c", program, "verify", str(folder), *more]
        return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "COLUMNS": "400"})

    good = run("--head", hashes[-1])
    assert (good.returncode, "10 verdicts" in good.stdout) == (0, True)
    change(folder, "DELETE FROM verdicts WHERE sequence = 4")
    broken = run()
    assert broken.returncode == 8
    assert "verdict 4 is missing." in broken.stderr
    assert run("--head", "0" * 63 + "1").returncode == 8
