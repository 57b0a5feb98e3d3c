"""The manifest: one table, CSV or Parquet, with a row for each image. Every other layout can be written as one."""

from __future__ import annotations

import csv
import difflib
import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from datasets.folder import Folder
from datasets.knowledge import settled
from datasets.naming import is_bad, is_good, split_of
from datasets.sample import Box, Label, Sample, Split
from inspection.errors import ConfigInvalid, DataInvalid
from inspection.files import writing

COLUMNS = (
    "path", "label", "kind", "mask", "boxes", "probability", "part", "lot", "view", "stratum", "split",
)  # fmt: skip


def fits_manifest(folder: Folder) -> bool:
    """manifest.csv or manifest.parquet lies at the top."""
    return _at_top(folder) is not None


def read_manifest(folder: Folder) -> list[Sample]:
    """The manifest at the top of a folder."""
    name = _at_top(folder)
    assert name is not None
    return read(folder.root / name)


def _at_top(folder: Folder) -> str | None:
    return next((name for name in ("manifest.csv", "manifest.parquet") if name in folder.index), None)


def read(file: Path) -> list[Sample]:
    """The samples of a manifest; paths count from its folder. Raises DataInvalid with the line."""
    rows = _parquet(file) if file.suffix.lower() == ".parquet" else _csv(file)
    return [_sample(row, file.parent, where) for where, row in rows]


def write(samples: Sequence[Sample], file: Path) -> None:
    """Writes a manifest; images below its folder get relative paths, so that the two can be moved together."""
    rows = [_row(sample, file.parent) for sample in samples]
    with writing(file) as temporary:
        if file.suffix.lower() == ".parquet":
            import pyarrow as pa
            import pyarrow.parquet as pq

            types = {name: pa.float64() if name == "probability" else pa.string() for name in COLUMNS}
            table = pa.table({name: pa.array([row[name] for row in rows], types[name]) for name in COLUMNS})
            pq.write_table(table, temporary)
        elif file.suffix.lower() == ".csv":
            with temporary.open("w", encoding="utf-8", newline="") as stream:
                writer = csv.writer(stream, lineterminator="\n")
                writer.writerow(COLUMNS)
                writer.writerows(["" if row[name] is None else row[name] for name in COLUMNS] for row in rows)
        else:
            raise ConfigInvalid(
                "a manifest ends in .csv or .parquet.", where=str(file), hint="Give the file such a name."
            )


def _row(sample: Sample, base: Path) -> dict[str, Any]:
    row = {name: getattr(sample, name) for name in COLUMNS}
    row["path"] = _relative(sample.path, base)
    row["mask"] = _relative(sample.mask, base) if sample.mask else None
    row["boxes"] = None if sample.boxes is None else json.dumps([_plain(box) for box in sample.boxes])
    return row


def _plain(box: Box) -> dict[str, Any]:
    known = asdict(box)
    if not box.outline:
        del known["outline"]
    return known


def _relative(path: Path, base: Path) -> str:
    path, base = Path(os.path.abspath(path)), Path(os.path.abspath(base))
    return path.relative_to(base).as_posix() if path.is_relative_to(base) else str(path)


def _csv(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            first = stream.readline()
            # Spreadsheets of half the world write semicolons.
            delimiter = next((mark for mark in ",;\t" if mark in first), ",")
            stream.seek(0)
            reader = csv.reader(stream, delimiter=delimiter, strict=True)
            header = [name.strip().lower() for name in next(reader, [])]
            _check_columns(header, str(file))
            for cells in reader:
                where = f"{file}:{reader.line_num}"
                if not any(cells):
                    continue
                if len(cells) != len(header):
                    raise DataInvalid(f"{len(cells)} cells, and the header has {len(header)}.", where=where)
                yield where, {name: cell or None for name, cell in zip(header, cells, strict=True)}
    except OSError as error:
        raise DataInvalid(f"cannot be read: {error.strerror or error}.", where=str(file)) from error
    except UnicodeDecodeError as error:
        raise DataInvalid("this is no UTF-8 text.", where=str(file), hint="Save as CSV UTF-8.") from error
    except csv.Error as error:
        raise DataInvalid(f"this is no CSV: {error}.", where=str(file)) from error


def _parquet(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(file)
    except (OSError, pa.ArrowException) as error:
        raise DataInvalid("this is no Parquet file, or a damaged one.", where=str(file)) from error
    _check_columns(table.column_names, str(file))
    for number, row in enumerate(table.to_pylist(), start=1):
        yield f"{file}, row {number}", row


def _check_columns(names: Sequence[str], where: str) -> None:
    """Asks for `path`; other columns may stand, unless one looks like a slip of the pen."""
    if len(set(names)) != len(names):
        raise DataInvalid("a column stands twice.", where=where)
    for name in names:
        near = difflib.get_close_matches(name, [column for column in COLUMNS if column not in names], n=1, cutoff=0.75)
        if name not in COLUMNS and near:
            raise DataInvalid(f"the column `{name}` is unknown.", where=where, hint=f"Did you mean `{near[0]}`?")
    if "path" not in names:
        raise DataInvalid("there is no column `path`.", where=where, hint=f"Known columns: {', '.join(COLUMNS)}.")


def _sample(row: dict[str, Any], base: Path, where: str) -> Sample:
    if not row.get("path"):
        raise DataInvalid("`path` is empty.", where=where)
    sample = Sample(
        path=_absolute(row["path"], base),
        label=_label(row.get("label"), where),
        kind=row.get("kind"),
        mask=_absolute(row["mask"], base) if row.get("mask") else None,
        boxes=_boxes(row.get("boxes"), where),
        probability=_number(row.get("probability"), where),
        part=_text(row.get("part")),
        lot=_text(row.get("lot")),
        view=_text(row.get("view")),
        stratum=_text(row.get("stratum")),
        split=_split(row.get("split"), where),
    )
    return settled(sample, where)


def _absolute(text: str, base: Path) -> Path:
    return Path(os.path.abspath(base / text))


def _text(value: Any) -> str | None:
    return None if value is None else str(value)  # Parquet may hold serial numbers as integers


def _label(text: str | None, where: str) -> Label | None:
    if text is None or not str(text).strip():
        return None
    if is_good(str(text)):
        return "good"
    if is_bad(str(text)):
        return "defect"
    raise DataInvalid(
        f"the label `{text}` is neither good nor defect.", where=where, hint="A kind of defect goes into `kind`."
    )


def _split(text: str | None, where: str) -> Split | None:
    if text is None or not text.strip():
        return None
    found = split_of(text)
    if found is None:
        raise DataInvalid(f"the split `{text}` is none of train, calibration (val), test.", where=where)
    return found


def _number(value: Any, where: str) -> float | None:
    if value is None:
        return None
    try:
        number = float(value)
    except ValueError as error:
        raise DataInvalid(f"the probability `{value}` is no number.", where=where) from error
    return None if math.isnan(number) else number  # pandas writes what is missing as NaN


def _boxes(text: str | None, where: str) -> tuple[Box, ...] | None:
    if text is None:
        return None
    try:
        return tuple(_box(entry) for entry in json.loads(text))
    except (ValueError, TypeError, KeyError) as error:
        raise DataInvalid(
            f"`boxes` is malformed: {error}.",
            where=where,
            hint='Write a JSON list such as [{"kind": "scratch", "x": 10, "y": 4, "width": 30, "height": 8}].',
        ) from error


def _box(entry: dict[str, Any]) -> Box:
    known = dict(entry)
    outline = tuple(tuple(float(value) for value in polygon) for polygon in known.pop("outline", ()))
    kind = str(known.pop("kind"))
    x, y, width, height = (float(known.pop(key)) for key in ("x", "y", "width", "height"))
    if known:
        raise ValueError(f"unknown key {next(iter(known))}")
    return Box(kind=kind, x=x, y=y, width=width, height=height, outline=outline)
