"""Questions to the record, answered from its database while a line may be writing it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import sqlalchemy as sql

from inspection.errors import ConfigInvalid
from inspection.files import writing
from inspection.progress import Meter
from inspection.quantities import seconds
from inspection.record.database import Database, bodies, lines, verdicts
from inspection.record.folder import find
from inspection.results import Verdict

By = Literal["lot", "product", "hour", "recipe", "line"]
BATCH = 5000  # rows in memory at once


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """Which verdicts; None: any. `since` is included, `until` is not."""

    verdict: Verdict | None = None
    part: str | None = None
    lot: str | None = None
    product: str | None = None
    line: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def where(self) -> list[sql.ColumnElement[bool]]:
        """As conditions on the table `verdicts`."""
        table = verdicts.c
        given = [
            (table.verdict, self.verdict.value if self.verdict else None),
            (table.part, self.part),
            (table.lot, self.lot),
            (table.product, self.product),
            (table.line, self.line),
        ]
        conditions = [column == value for column, value in given if value is not None]
        if self.since is not None:
            conditions.append(table.triggered >= self.since)
        if self.until is not None:
            conditions.append(table.triggered < self.until)
        return conditions


def when(text: str, *, now: datetime | None = None) -> datetime:
    """`2026-11-25`, `2026-11-25T14:00` (UTC unless it says otherwise), or how long ago: `8h`. Raises ConfigInvalid."""
    ago = seconds(text)
    if isinstance(ago, float):
        return (now or datetime.now(UTC)) - timedelta(seconds=ago)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigInvalid(
            "this is no moment.", where=text, hint="Write 2026-11-25, 2026-11-25T14:00, or 8h for eight hours ago."
        ) from error
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


class History:
    """Reads one record.

    Attributes:
        folder: of the record, where it was named by its folder; images are found there alone.

    Every method raises RecordUnavailable when the database does not answer.
    """

    def __init__(self, record: str) -> None:
        """`record` is a record's folder or the URL of a database. Raises RecordInvalid, ConfigInvalid."""
        url, self.folder = find(record)
        self._database = Database(url, write=False)

    def __enter__(self) -> History:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def verdicts(self, wanted: Wanted, *, limit: int | None = None) -> list[dict[str, Any]]:
        """The columns of the newest verdicts first: by trigger number, which no clock can turn round."""
        with self._database.begin() as connection:
            several = connection.execute(sql.select(sql.func.count()).select_from(lines)).scalar_one() > 1
            if several and wanted.line is None:
                order: tuple[sql.ColumnElement[Any], ...] = (verdicts.c.triggered.desc(), verdicts.c.number.desc())
                conditions = wanted.where()
            else:
                # SQLite and PostgreSQL walk the index backwards only where its first column is fixed.
                only = sql.select(lines.c.line).limit(1).scalar_subquery()
                order = (verdicts.c.number.desc(), verdicts.c.sequence.desc())
                conditions = [*wanted.where(), *([verdicts.c.line == only] if wanted.line is None else [])]
            query = sql.select(verdicts).where(*conditions).order_by(*order).limit(limit)
            return [dict(row._mapping) for row in connection.execute(query)]

    def part(self, part: str) -> list[dict[str, Any]]:
        """All that was said of a part, newest first: its verdicts' bodies, with `hash`, `previous` and image `files`.

        `part` is its serial or barcode, or else the number of a trigger.
        """
        columns = (verdicts.c.hash, verdicts.c.previous, verdicts.c.sequence, bodies.c.body)
        query = sql.select(*columns).select_from(_whole()).order_by(verdicts.c.triggered.desc())
        with self._database.begin() as connection:
            rows = connection.execute(query.where(verdicts.c.part == part)).all()
            if not rows and part.isdecimal():
                rows = connection.execute(query.where(verdicts.c.number == int(part))).all()
        return [
            json.loads(row.body)
            | {"sequence": row.sequence, "previous": row.previous, "hash": row.hash}
            | {"files": self.files(json.loads(row.body).get("images"))}
            for row in rows
        ]

    def files(self, images: str | None) -> list[str]:
        """The image files of a part that are still there."""
        if images is None or self.folder is None:
            return []
        return sorted(str(path) for path in (self.folder / "images" / images).glob("*"))

    def summary(self, wanted: Wanted, *, by: By | None = None) -> list[dict[str, Any]]:
        """Counts of each verdict, `total`, and `yield`: OK of all parts; one row for each lot, product, hour, ..."""
        with self._database.begin() as connection:
            group = self._group(by, connection.dialect.name)
            query = sql.select(group.label("group"), verdicts.c.verdict, sql.func.count().label("count"))
            query = query.where(*wanted.where()).group_by(group, verdicts.c.verdict)
            counts: dict[str | None, dict[str, int]] = {}
            for name, verdict, count in connection.execute(query):
                counts.setdefault(name, dict.fromkeys(Verdict, 0))[verdict] = count
        rows = []
        for name in sorted(counts, key=lambda one: (one is None, one)):
            total = sum(counts[name].values())
            own: dict[str, Any] = {by: name} if by else {}
            own |= {verdict.value: counts[name][verdict] for verdict in Verdict}
            rows.append(own | {"total": total, "yield": counts[name][Verdict.OK] / total})
        return rows

    def export(self, wanted: Wanted, out: Path) -> int:
        """Writes a `.parquet` or `.csv` file, oldest first; how many verdicts. Memory does not grow with them.

        Raises:
            ConfigInvalid: another ending. OutputUnwritable: it cannot be written.
        """
        if out.suffix not in (".parquet", ".csv"):
            raise ConfigInvalid("a table is a .parquet or a .csv file.", where=str(out))
        query = sql.select(*verdicts.c, bodies.c.body).select_from(_whole()).where(*wanted.where())
        query = query.order_by(verdicts.c.line, verdicts.c.sequence).execution_options(yield_per=BATCH)
        count = sql.select(sql.func.count()).select_from(verdicts).where(*wanted.where())
        with writing(out) as temporary, self._database.begin() as connection:
            total = connection.execute(count).scalar_one()
            with _table(temporary) as writer, Meter("export", total) as meter:
                for rows in connection.execute(query).partitions():
                    batch = pa.RecordBatch.from_pylist([dict(row._mapping) for row in rows], schema=SCHEMA)
                    writer.write_batch(batch)
                    meter.step(len(rows))
        return int(total)

    def _group(self, by: By | None, dialect: str) -> sql.ColumnElement[Any]:
        if by is None:
            return sql.literal("")
        if by != "hour":
            return verdicts.c[by]
        if dialect == "sqlite":
            return sql.func.strftime("%Y-%m-%d %H:00", verdicts.c.triggered)
        return sql.func.to_char(sql.func.timezone("UTC", verdicts.c.triggered), "YYYY-MM-DD HH24:00")


SCHEMA = pa.schema(
    [
        (column.name, pa.timestamp("us", tz="UTC") if column.name == "triggered" else kind)
        for column in (*verdicts.c, bodies.c.body)
        for kind in [
            pa.int64() if column.name in ("sequence", "number") else
            pa.float64() if column.name in ("score", "decided") else pa.string()
        ]
    ]
)  # fmt: skip


def _whole() -> sql.FromClause:
    same = sql.and_(bodies.c.line == verdicts.c.line, bodies.c.sequence == verdicts.c.sequence)
    return verdicts.join(bodies, same)


@contextmanager
def _table(path: Path) -> Iterator[Any]:
    if path.suffix == ".csv":
        with pyarrow.csv.CSVWriter(path, SCHEMA) as writer:
            yield writer
    else:
        with pyarrow.parquet.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
            yield writer
