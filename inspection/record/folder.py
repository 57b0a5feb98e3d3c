"""What a record's folder says of itself: whose it is, and where its database is."""

from __future__ import annotations

import json
import os
from pathlib import Path

from sqlalchemy.engine import URL, make_url

from inspection.files import write_text
from inspection.modelfile import Value
from inspection.record.chain import RecordInvalid
from inspection.record.database import FILE, locate

SIGN = "record.json"
FORMAT = 1


class Sign(Value):
    """The file `record.json` in a record's folder; `database` is the URL without its password, or None for SQLite."""

    record: int = FORMAT
    line: str
    database: str | None = None


def read_sign(folder: str | os.PathLike[str]) -> Sign | None:
    """None: the folder is no record, or not yet. Raises RecordInvalid."""
    path = Path(folder) / SIGN
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        version = values.get("record", 0)
        if version > FORMAT:
            raise RecordInvalid(
                f"the record is of version {version}, and this program reads up to {FORMAT}.",
                where=str(path),
                hint="Use the newer version of the program that wrote it.",
            )
        return Sign.model_validate(values)
    except FileNotFoundError:
        return None
    except (ValueError, AttributeError) as error:
        raise RecordInvalid(
            "this file of the record is damaged.",
            where=str(path),
            hint="Delete it, and start the line once: it is written anew.",
        ) from error


def write_sign(folder: str | os.PathLike[str], sign: Sign) -> None:
    """Writes it where it says something else. Raises OutputUnwritable."""
    if sign.database is not None:
        open_url = make_url(sign.database).set(password=None).render_as_string()
        sign = sign.model_copy(update={"database": open_url})
    if read_sign(folder) != sign:
        write_text(Path(folder) / SIGN, sign.model_dump_json(indent=1) + "\n")


def find(record: str) -> tuple[URL, Path | None]:
    """What a command's RECORD means: the database, and the folder where there is one.

    Raises:
        RecordInvalid: there is no record. ConfigInvalid: no URL of a database.
    """
    if "://" in record:
        return locate(".", database=record), None
    folder = Path(record)
    if folder.name == FILE:
        folder = folder.parent
    sign = read_sign(folder)
    if sign is None:
        raise RecordInvalid(
            "there is no record here.",
            where=str(folder),
            hint="Name the folder that the recipe's `record.folder` names, or the URL of a database.",
        )
    return locate(folder, database=sign.database), folder
