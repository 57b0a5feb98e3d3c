"""What is kept, where and for how long."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from inspection.modelfile import Value
from inspection.quantities import Bytes, Count, Seconds


class KeepImages(Value):
    """Which parts' frames and maps are kept: of each verdict one part in N; 1: every one, 0: none."""

    ng: Annotated[int, Field(ge=0)] = 1
    review: Annotated[int, Field(ge=0)] = 1
    error: Annotated[int, Field(ge=0)] = 1
    ok: Annotated[int, Field(ge=0)] = 100
    maps: bool = True  # the score map beside the frame
    quota: Bytes = 50_000_000_000  # of the folder; beyond it the oldest OK images go first, then the oldest of all
    age: Seconds | None = 90 * 86400.0  # older ones are deleted; None: never
    free: Bytes = 1_000_000_000  # with less free space than this on the disk only verdicts are kept, and it is alarmed
    queue: Count = 64  # parts whose images may wait to be written; further ones go without images, and are counted


class RecordOptions(Value):
    """The record of one line.

    Attributes:
        folder: holds the journal, the images and, unless `database` says otherwise, the database.
        database: URL of a PostgreSQL database (`postgresql://user@host/name`, password in PGPASSWORD); None: SQLite in
            `folder` (`verdicts.sqlite`, WAL).
        age: verdicts older than this are deleted from the database; None: never.
    """

    folder: Path = Path("record")
    database: str | None = None
    age: Seconds | None = None
    images: KeepImages = KeepImages()
