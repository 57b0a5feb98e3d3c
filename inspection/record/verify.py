"""Proves that a record is what was written: every verdict there, none altered, none added, in its order."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC
from pathlib import Path
from typing import Any

import sqlalchemy as sql
from sqlalchemy.engine import URL

from inspection.errors import InspectionError
from inspection.progress import Meter
from inspection.record.chain import GENESIS, Entry, link
from inspection.record.database import Database, bodies, columns, lines, verdicts
from inspection.record.folder import read_sign
from inspection.record.journal import Segment, segments

STEP = 1000  # rows between two steps of the progress
RECENT = 50_000  # verdicts; a journal that the database keeps up with holds one or two segments, some thousands


class ChainBroken(InspectionError):
    """The record is not what was written."""

    code = "chain-broken"
    exit_code = 8
    status = 500


@dataclass(kw_only=True)
class Proof:
    """What was found of one line.

    Attributes:
        verdicts: how many were checked; of them `journaled` are not in the database yet. deleted: how many were deleted
            before the first because of their age. first, last: their trigger numbers. head: the hash of the last.
        after_head: verdicts after the head that was asked for; None: it is not in this chain.
        problems: one sentence each, the first one first.
    """

    line: str
    verdicts: int = 0
    journaled: int = 0
    deleted: int = 0
    first: int | None = None
    last: int | None = None
    head: str = ""
    after_head: int | None = None
    problems: list[str] = field(default_factory=list)


def verify(url: URL, folder: Path | None, *, head: str | None = None) -> list[Proof]:
    """Recomputes the chain of every line in the database, and of what its journal in `folder` has beyond it.

    A line that writes meanwhile is not disturbed: what it adds after the start is left out.

    Raises:
        RecordUnavailable, RecordInvalid: the database cannot be read.
    """
    proofs = []
    # The journal is opened first: whatever it gives up from now on was in the database before the snapshot.
    with _journal(folder) as (own, entries), Database(url, write=False).snapshot() as connection:
        known = {row.line: row for row in connection.execute(sql.select(lines))}
        total = connection.execute(sql.select(sql.func.count()).select_from(verdicts)).scalar_one()
        with Meter("verify", total) as meter:
            for line in sorted({*known, *([own] if own is not None else [])}):
                proof = Proof(line=line)
                checker = _Checker(proof, head)
                if line in known:
                    checker.start(known[line].deleted_to, known[line].deleted_head)
                    _check_database(connection, line, checker, meter)
                if line == own:
                    _check_journal(entries, checker)
                _check_numbers(connection, proof)
                proofs.append(checker.end())
    if head is not None and all(proof.after_head is None for proof in proofs):
        for proof in proofs:
            proof.problems.append(
                f"no verdict has the hash {head}: the end was cut off, or replaced, or it is of another record."
            )
    return proofs


class _Checker:
    """Follows one chain."""

    def __init__(self, proof: Proof, head: str | None) -> None:
        self.proof, self._head = proof, head
        self.sequence, self.hash = 0, GENESIS
        self.recent: dict[int, str] = {}  # hashes of the last verdicts, which the journal has too

    def start(self, sequence: int, hash_: str) -> None:
        self.proof.deleted = self.sequence = sequence
        self.hash = hash_
        if hash_ == self._head:
            self.proof.after_head = 0

    def take(self, sequence: int, number: int, previous: str, hash_: str, body: str | None) -> None:
        """One more verdict; the words say which verdict it is by its place and its trigger."""
        proof, name = self.proof, f"verdict {sequence} (trigger {number})"
        if sequence > self.sequence + 1:
            gone = f"{self.sequence + 1}" + (f" to {sequence - 1}" if sequence > self.sequence + 2 else "")
            proof.problems.append(f"verdict {gone} is missing.")
        elif previous != self.hash:
            proof.problems.append(f"{name} does not follow from the one before it: one of them was replaced.")
        if body is None:
            proof.problems.append(f"{name} has lost its body.")
        elif not body.isascii() or link(previous, body) != hash_:
            proof.problems.append(f"{name} was altered: it does not give its hash.")
        self.sequence, self.hash = sequence, hash_
        self.recent[sequence] = hash_
        if len(self.recent) > RECENT:
            del self.recent[next(iter(self.recent))]
        proof.verdicts += 1
        proof.first = number if proof.first is None else proof.first
        proof.last = number
        if proof.after_head is not None:
            proof.after_head += 1
        if hash_ == self._head:
            proof.after_head = 0

    def end(self) -> Proof:
        self.proof.head = self.hash
        return self.proof


def _check_database(connection: sql.Connection, line: str, checker: _Checker, meter: Meter) -> None:
    both = verdicts.outerjoin(
        bodies, sql.and_(bodies.c.line == verdicts.c.line, bodies.c.sequence == verdicts.c.sequence)
    )
    query = (
        sql.select(*verdicts.c, bodies.c.body)
        .select_from(both)
        .where(verdicts.c.line == line)
        .order_by(verdicts.c.sequence)
        .execution_options(yield_per=STEP)
    )
    for rows in connection.execute(query).partitions():
        for row in rows:
            before = len(checker.proof.problems)
            checker.take(row.sequence, row.number, row.previous, row.hash, row.body)
            if len(checker.proof.problems) == before:
                _check_columns(row._mapping, checker.proof)
        meter.step(len(rows))


def _check_columns(row: Mapping[Any, Any], proof: Proof) -> None:
    """The columns that people search by must say what the proven body says."""
    for name, value in columns(json.loads(row["body"])).items():
        kept = row[name]
        if name == "triggered":
            kept = kept.astimezone(UTC)
        if kept != value:
            proof.problems.append(
                f"verdict {row['sequence']} (trigger {row['number']}) was altered: its column `{name}` is {kept!r}, "
                f"and the body that was hashed says {value!r}."
            )
            return


def _check_numbers(connection: sql.Connection, proof: Proof) -> None:
    twice = (
        sql.select(verdicts.c.number)
        .where(verdicts.c.line == proof.line)
        .group_by(verdicts.c.number)
        .having(sql.func.count() > 1)
        .limit(1)
    )
    if (number := connection.execute(twice).scalar()) is not None:
        proof.problems.append(f"trigger {number} has more than one verdict.")


def _check_journal(entries: Iterator[Entry], checker: _Checker) -> None:
    """What the database lacks goes on with the chain; what both have must be the same."""
    for entry in entries:
        if entry.trigger is not None:
            continue
        if entry.sequence > checker.sequence:
            checker.take(entry.sequence, entry.number, entry.previous, entry.hash, entry.body)
            checker.proof.journaled += 1
        elif checker.recent.get(entry.sequence, entry.hash) != entry.hash:
            checker.proof.problems.append(
                f"verdict {entry.sequence} (trigger {entry.number}) was altered: the journal has another one."
            )


@contextmanager
def _journal(folder: Path | None) -> Iterator[tuple[str | None, Iterator[Entry]]]:
    """The line whose journal is in `folder`, and its lines, also those of files that are deleted meanwhile."""
    sign = read_sign(folder) if folder is not None else None
    if folder is None or sign is None:
        yield None, iter(())
        return
    with ExitStack() as stack:
        opened = []
        for path in segments(folder / "journal"):
            try:
                opened.append(Segment(path))
            except FileNotFoundError:
                continue  # the database has just got the last of it
            stack.callback(opened[-1].close)
        yield sign.line, (entry for segment in opened for entry in segment.read())
