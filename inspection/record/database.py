"""The tables of the record, the same in SQLite and PostgreSQL."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy as sql
from sqlalchemy.engine import URL, make_url
from sqlalchemy.engine.interfaces import Dialect

from inspection.errors import ConfigInvalid, MissingExtra
from inspection.record.chain import GENESIS, Entry, RecordInvalid, RecordUnavailable

SCHEMA = 1
FILE = "verdicts.sqlite"


class Moment(sql.types.TypeDecorator[datetime]):
    """A moment in UTC: `timestamptz` in PostgreSQL, ISO text in SQLite, which has no such type."""

    impl = sql.DateTime(timezone=True)
    cache_ok = True

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        return value.replace(tzinfo=UTC) if value is not None and value.tzinfo is None else value


Whole = sql.BigInteger()
tables = sql.MetaData()
schema = sql.Table("inspection_schema", tables, sql.Column("version", sql.Integer, nullable=False))
lines = sql.Table(
    "lines",
    tables,
    sql.Column("line", sql.Text, primary_key=True),
    # Up to here verdicts were deleted because of their age; what follows hangs on this hash.
    sql.Column("deleted_to", Whole, nullable=False, default=0),
    sql.Column("deleted_head", sql.Text, nullable=False, default=GENESIS),
)
verdicts = sql.Table(
    "verdicts",
    tables,
    sql.Column("line", sql.Text, primary_key=True),
    sql.Column("sequence", Whole, primary_key=True, autoincrement=False),  # place in the chain, from 1
    sql.Column("number", Whole, nullable=False),  # of the trigger
    sql.Column("part", sql.Text, nullable=False),
    sql.Column("lot", sql.Text),
    sql.Column("product", sql.Text, nullable=False),
    sql.Column("verdict", sql.Text, nullable=False),
    sql.Column("kind", sql.Text),
    sql.Column("score", sql.Double),  # the worst view's
    sql.Column("reason", sql.Text),
    sql.Column("code", sql.Text),
    sql.Column("triggered", Moment, nullable=False),
    sql.Column("decided", sql.Double),  # seconds after the trigger
    sql.Column("recipe", sql.Text, nullable=False),
    sql.Column("recipe_hash", sql.Text, nullable=False),
    sql.Column("images", sql.Text),  # folder below the record's `images`
    sql.Column("previous", sql.Text, nullable=False),
    sql.Column("hash", sql.Text, nullable=False),
    sql.Index("verdicts_number", "line", "number"),
    sql.Index("verdicts_verdict", "line", "verdict", "number"),
    sql.Index("verdicts_part", "part", "line", "number"),
    sql.Index("verdicts_lot", "lot", "line", "number"),
    sql.Index("verdicts_triggered", "triggered"),
    sql.Index("verdicts_hash", "hash"),
)
# Apart, because it is ten times as long as the rest: a summary over all verdicts need not read it.
bodies = sql.Table(
    "bodies",
    tables,
    sql.Column("line", sql.Text, primary_key=True),
    sql.Column("sequence", Whole, primary_key=True, autoincrement=False),
    sql.Column("body", sql.Text, nullable=False),  # JSON, exactly as it was hashed: views, defects, models, timings
)


@dataclass(frozen=True, slots=True)
class End:
    """The last verdict of a line that the database has; sequence 0: none."""

    sequence: int = 0
    number: int = 0
    hash: str = GENESIS


def columns(body: dict[str, Any]) -> dict[str, Any]:
    """The columns of `verdicts` that repeat what the body says, so that it can be searched."""
    scores = [view["score"] for view in body["views"] if view.get("score") is not None]
    row: dict[str, Any] = {name: _text(body.get(name) or "") for name in ("part", "product", "recipe", "recipe_hash")}
    row |= {name: _text(body.get(name)) for name in ("lot", "kind", "reason", "code", "images")}
    return row | {
        "number": body["number"],
        "verdict": body["verdict"],
        "score": max(scores, default=None),
        "triggered": moment(body["triggered"]),
        "decided": body["seconds"].get("decided"),
    }


def moment(seconds: float) -> datetime:
    """Seconds since 1970 as UTC; a clock that is out of every calendar is brought to its nearest end."""
    return datetime.fromtimestamp(min(max(seconds, 0.0), 253_402_300_799.0), UTC)


def locate(record: str | Path, *, database: str | None = None) -> URL:
    """Where the database of a record folder is; `database` is what the recipe says. Raises ConfigInvalid."""
    if database is None:
        return URL.create("sqlite", database=str(Path(record) / FILE))
    try:
        url = make_url(database)
    except sql.exc.ArgumentError as error:
        raise ConfigInvalid("this is no database URL.", where=_hidden(database), hint=_URL_HINT) from error
    if url.get_backend_name() == "postgres":
        url = url.set(drivername="postgresql")
    if url.get_backend_name() == "postgresql":
        return url.set(drivername="postgresql+psycopg")
    if url.get_backend_name() == "sqlite" and url.database:
        return url.set(drivername="sqlite")
    raise ConfigInvalid("this kind of database is not supported.", where=_hidden(database), hint=_URL_HINT)


class Database:
    """One connection to the tables; used by one thread at a time.

    Every method raises RecordUnavailable when the database does not answer, and RecordInvalid when its schema is newer.
    """

    def __init__(self, url: URL, *, write: bool, timeout: float = 2.0) -> None:
        """Connects at first use.

        Args:
            write: makes the tables where they are missing. timeout: seconds to wait for a lock, or to connect.
        """
        self.url, self._write = url, write
        self._sqlite = url.get_backend_name() == "sqlite"
        self._timeout = timeout
        self._inode = 0
        self._ready = False
        self.engine = self._engine()

    def end(self, line: str) -> End:
        """The last verdict of this line."""
        query = sql.select(verdicts.c.sequence, verdicts.c.number, verdicts.c.hash).where(verdicts.c.line == line)
        top = sql.select(sql.func.max(verdicts.c.number)).where(verdicts.c.line == line)
        with self.begin() as connection:
            row = connection.execute(query.order_by(verdicts.c.sequence.desc()).limit(1)).first()
            if row is None:
                gone = connection.execute(sql.select(lines).where(lines.c.line == line)).first()
                return End(gone.deleted_to, 0, gone.deleted_head) if gone else End()
            return End(row.sequence, connection.execute(top).scalar_one(), row.hash)

    def judged(self, line: str, numbers: Sequence[int]) -> set[int]:
        """Those of the trigger numbers that have a verdict."""
        query = sql.select(verdicts.c.number).where(verdicts.c.line == line, verdicts.c.number.in_(numbers))
        with self.begin() as connection:
            return set(connection.execute(query).scalars())

    def store(self, line: str, entries: Sequence[Entry], parsed: Sequence[dict[str, Any]]) -> None:
        """Adds verdicts, all or none; when it returns they are on the disk."""
        rows = [
            columns(body) | {"line": line, "sequence": entry.sequence, "previous": entry.previous, "hash": entry.hash}
            for entry, body in zip(entries, parsed, strict=True)
        ]
        texts = [{"line": line, "sequence": entry.sequence, "body": entry.body} for entry in entries]
        with self.begin() as connection:
            if connection.execute(sql.select(lines.c.line).where(lines.c.line == line)).first() is None:
                connection.execute(lines.insert(), {"line": line})
            connection.execute(verdicts.insert(), rows)
            connection.execute(bodies.insert(), texts)

    def forget(self, line: str, before: datetime, *, at_most: int = 5000) -> int:
        """Deletes the oldest verdicts as long as they are from before that moment; how many.

        Only from the front, and the hash of the last one is noted: the rest of the chain can still be proven.
        """
        own = verdicts.c.line == line
        with self.begin() as connection:
            first = connection.execute(
                sql.select(verdicts.c.sequence, verdicts.c.triggered, verdicts.c.hash)
                .where(own)
                .order_by(verdicts.c.sequence)
                .limit(at_most)
            ).all()
            old = []
            for row in first:
                if row.triggered >= before:
                    break
                old.append(row)
            if not old:
                return 0
            last = old[-1]
            connection.execute(bodies.delete().where(bodies.c.line == line, bodies.c.sequence <= last.sequence))
            connection.execute(verdicts.delete().where(own, verdicts.c.sequence <= last.sequence))
            noted = {"deleted_to": last.sequence, "deleted_head": last.hash}
            connection.execute(lines.update().where(lines.c.line == line).values(**noted))
            return len(old)

    @contextmanager
    def begin(self) -> Iterator[sql.Connection]:
        """A transaction; the reader's is a snapshot, whatever a line writes meanwhile."""
        try:
            self._prepare()
        except (sql.exc.SQLAlchemyError, OSError) as error:
            raise self._unavailable(error) from error
        try:
            with self.engine.begin() as connection:
                yield connection
        except sql.exc.SQLAlchemyError as error:
            raise self._unavailable(error) from error

    @contextmanager
    def snapshot(self) -> Iterator[sql.Connection]:
        """`begin`, and `close` at the end."""
        try:
            with self.begin() as connection:
                yield connection
        finally:
            self.close()

    def close(self) -> None:
        """Lets go of the connection."""
        self.engine.dispose()

    def _engine(self) -> sql.Engine:
        if self._sqlite:
            path = quote(str(Path(self.url.database or "").absolute()))
            mode = {"mode": "rwc" if self._write else "ro", "uri": "true"}
            engine = sql.create_engine(
                URL.create("sqlite", database=f"file:{path}", query=mode),
                poolclass=sql.pool.StaticPool,
                connect_args={"timeout": self._timeout, "check_same_thread": False},
            )
            sql.event.listen(engine, "connect", self._set_up)
            # pysqlite begins a transaction only before it writes; a reader's snapshot must span all that it reads.
            start = "BEGIN IMMEDIATE" if self._write else "BEGIN"
            sql.event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(start))
            return engine
        try:
            import psycopg  # noqa: F401
        except ImportError as error:
            raise MissingExtra(
                "PostgreSQL needs the package `psycopg`.",
                hint="Install it with: pip install 'lightsout-inspection[postgres]'",
            ) from error
        limits: dict[str, Any] = {  # a server that is switched off must not hold a thread for the kernel's 15 minutes
            "connect_timeout": max(2, round(self._timeout)),
            "keepalives_idle": 5,
            "keepalives_interval": 2,
            "keepalives_count": 3,
            "tcp_user_timeout": 10_000,
        }
        if self._write:
            limits["options"] = "-c statement_timeout=30000 -c lock_timeout=5000"
        return sql.create_engine(
            self.url,
            connect_args=limits,
            pool_size=1,
            max_overflow=0,
            isolation_level="READ COMMITTED" if self._write else "REPEATABLE READ",
        )

    def _set_up(self, connection: Any, _: object) -> None:
        connection.isolation_level = None
        if self._write:
            # FULL: when a commit returns the rows are on the disk, so the journal's lines may go.
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")

    def _prepare(self) -> None:
        if self._sqlite:
            path = Path(self.url.database or "")
            if not self._write and not path.exists():
                raise RecordInvalid("there is no record here.", where=str(path), hint="Name the folder of a record.")
            inode = path.stat().st_ino if path.exists() else 0
            if inode != self._inode:  # somebody has put another file there, or taken it away
                self.engine.dispose()
                self._ready = False
        if self._ready:
            return
        with self.engine.begin() as connection:
            if self._write and not sql.inspect(connection).has_table(schema.name):
                tables.create_all(connection)
                connection.execute(schema.insert(), {"version": SCHEMA})
            version = connection.execute(sql.select(schema.c.version)).scalar_one()
        if version > SCHEMA:
            raise RecordInvalid(
                f"the record is of version {version}, and this program reads up to {SCHEMA}.",
                where=self.url.render_as_string(hide_password=True),
                hint="Use the newer version of the program that wrote it.",
            )
        if self._sqlite:
            self._inode = Path(self.url.database or "").stat().st_ino
        self._ready = True

    def _unavailable(self, error: Exception) -> RecordUnavailable:
        # A connection that failed may be in any state: the next use makes another one.
        self.engine.dispose()
        self._ready = False
        cause = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        return RecordUnavailable(
            f"the database does not answer: {cause}.",
            where=self.url.render_as_string(hide_password=True),
            hint="Nothing is lost: verdicts wait in the journal. Look whether it is running, locked, or its disk full.",
        )


_URL_HINT = "Write postgresql://user@host/name, or leave it out for SQLite in the record's folder."


def _text(value: str | None) -> str | None:
    """Text as every database takes it: a barcode may hold anything, PostgreSQL no NUL and neither lone surrogates."""
    if value is None:
        return None
    return value.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\x00")


def _hidden(url: str) -> str:
    return re.sub(r"(//[^:/@]*):[^@]*@", r"\1:***@", url)
