"""The table of a batch: one row for every image, as Parquet or CSV with the same columns (docs/batch.md)."""

from __future__ import annotations

import csv
import itertools
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from inspection.errors import ConfigInvalid
from inspection.files import writing
from inspection.results import Inspection

SCHEMA = pyarrow.schema(
    [
        ("path", pyarrow.string()),
        ("verdict", pyarrow.string()),
        ("score", pyarrow.float64()),
        ("kind", pyarrow.string()),
        ("classes", pyarrow.string()),  # JSON: raw score by class
        ("defects", pyarrow.string()),  # JSON: list of {kind, score, box, area}
        ("width", pyarrow.int32()),
        ("height", pyarrow.int32()),
        ("error_code", pyarrow.string()),
        ("reason", pyarrow.string()),
        ("overlay", pyarrow.string()),
        ("model", pyarrow.string()),
        ("seconds", pyarrow.float64()),
    ]
)
AT_ONCE = 10_000  # rows in memory
ENDINGS = (".parquet", ".csv")


def row(path: str, inspection: Inspection, model_hash: str, overlay: str | None = None) -> dict[str, Any]:
    """One row of plain values, ready for JSON."""
    plain = inspection.to_dict()
    width, height = inspection.size
    return {
        "path": path,
        "verdict": plain["verdict"],
        "score": plain["score"],
        "kind": plain["kind"],
        "classes": None if plain["classes"] is None else _json(plain["classes"]),
        "defects": _json(plain["defects"]),
        "width": width or None,  # an image that could not be read has no size
        "height": height or None,
        "error_code": plain["code"],
        "reason": plain["reason"],
        "overlay": overlay,
        "model": model_hash,
        "seconds": math.fsum(inspection.seconds.values()),
    }


def check_ending(out: Path) -> None:
    """Raises ConfigInvalid unless `write` knows the ending."""
    if out.suffix.lower() not in ENDINGS or out.is_dir():
        raise ConfigInvalid(
            "a table is a .parquet or a .csv file.",
            where=f"--out {out}",
            hint=f"Try --out {out.with_suffix('.parquet')}",
        )


def write(out: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Writes rows to `out` in one step, a bounded number in memory. Raises OutputUnwritable."""
    rows = iter(rows)
    with writing(out) as temporary:
        if out.suffix.lower() == ".csv":
            with temporary.open("w", newline="", encoding="utf-8") as file:
                lines = csv.DictWriter(file, SCHEMA.names)
                lines.writeheader()
                lines.writerows(rows)
        else:
            with pyarrow.parquet.ParquetWriter(temporary, SCHEMA, compression="zstd") as writer:
                while some := list(itertools.islice(rows, AT_ONCE)):
                    writer.write_table(pyarrow.Table.from_pylist(some, schema=SCHEMA))


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)
