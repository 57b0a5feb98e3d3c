"""What the record costs a line: the hot path, the database, the images, and a question to 200,000 verdicts.

python -m benchmarks.record [--verdicts 20000] [--rows 200000] [--folder DIR]

The hot path stands beside the bare system call that it cannot do without: `os.write` of the same bytes to a file in the
same folder. Parts have six views with a defect on one, images are six frames of 1920 x 1080, textured like metal.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.road import machine
from inspection.parts import Frame, PartResult, Trigger, ViewResult
from inspection.pixels import Pixels
from inspection.record.chain import GENESIS, Entry, canonical, link
from inspection.record.database import Database, locate
from inspection.record.history import By, History, Wanted
from inspection.record.images import PNG
from inspection.record.options import KeepImages, RecordOptions
from inspection.record.record import Record
from inspection.record.verify import verify
from inspection.results import Defect, Inspection, Verdict

VIEWS = 6
NO_IMAGES = KeepImages(ok=0, ng=0, review=0, error=0)
START = 1_760_000_000.0


def main() -> None:
    """Measures, prints the table, and the same as JSON."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--verdicts", type=int, default=20_000)
    arguments.add_argument("--rows", type=int, default=200_000)
    arguments.add_argument("--folder", type=Path, default=None, help="where to write; it is emptied afterwards")
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        folder = Path(name)
        figures: dict[str, Any] = {"machine": machine()}
        figures |= hot_path(folder / "hot", given.verdicts, rate=500.0)
        figures |= store(folder / "store", given.verdicts)
        figures |= images(folder / "images")
        figures |= questions(folder / "questions", given.rows)
    for key, value in figures.items():
        print(f"{key:44} {value if isinstance(value, str) else f'{value:,.4g}'}")
    print(json.dumps(figures))


def part(number: int) -> PartResult:
    """A part as a line of six views makes it; every twentieth is NG."""
    verdict = Verdict.NG if number % 20 == 0 else Verdict.OK
    defects = (Defect(kind="scratch", score=3.2519, box=(410, 220, 64, 12), area=518),) if verdict is Verdict.NG else ()
    made = Trigger(
        number=number, part=f"SN{number:09d}", product="phone", lot=f"L{number // 5000}", at=float(number),
        wall=START + number,
    )  # fmt: skip
    views = tuple(
        ViewResult(
            view=f"view{n}",
            verdict=verdict if n == 0 else Verdict.OK,
            inspections=(Inspection(name="", verdict=Verdict.OK, score=0.1234567 * (n + 1), size=(1920, 1080)),),
            defects=defects if n == 0 else (),
            frame=number,
            seconds={"received": 0.081234, "started": 0.102345, "judged": 0.512345},
        )
        for n in range(VIEWS)
    )
    models = {f"view{n}": "cd" * 32 for n in range(VIEWS)}
    return PartResult(
        trigger=made, verdict=verdict, views=views, decided=number + 0.6, deadline=number + 1.0, recipe="phone",
        recipe_hash="ab" * 32, models=models, seconds={"last_frame": 0.1, "decided": 0.6},
    )  # fmt: skip


def hot_path(folder: Path, count: int, *, rate: float) -> dict[str, float]:
    """`triggered` and `decided` one by one, so many a second, while the database is filled behind them."""
    record = Record(RecordOptions(folder=folder, images=NO_IMAGES), line="bench", alarm=print)
    count = min(count, int(rate * 20))
    triggered, decided = np.empty(count), np.empty(count)
    due = time.perf_counter()
    for n in range(count):
        result = part(n + 1)
        triggered[n] = timed(lambda made=result.trigger: record.triggered(made))  # type: ignore[misc]
        decided[n] = timed(lambda made=result: record.decided(made, {}))  # type: ignore[misc]
        due += 1 / rate
        time.sleep(max(0.0, due - time.perf_counter()))
    lines = sorted((folder / "journal").glob("*.jsonl"))[-1].read_bytes().splitlines(keepends=True)
    record.close()
    line = max(lines[1:], key=len)
    file = os.open(folder / "bare", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    bare = np.empty(count)
    for n in range(count):
        bare[n] = timed(lambda: os.write(file, line))
        if n % 10 == 0:
            time.sleep(0.002)
    os.close(file)
    result = part(20)
    body = np.array([timed(lambda: link(GENESIS, canonical(result.to_dict()))) for _ in range(2000)])
    found = {"bytes of a verdict in the journal": float(len(line))}
    for name, seconds in (
        ("triggered", triggered),
        ("decided", decided),
        ("bare os.write of the same bytes", bare),
        ("body and hash alone", body),
    ):
        for percent in (50, 99, 99.9):
            found[f"{name}, p{percent:g} us"] = float(np.percentile(seconds, percent)) * 1e6
    return found


def store(folder: Path, count: int) -> dict[str, float]:
    """As fast as it goes: verdicts a second into the journal, and until SQLite has them all."""
    record = Record(RecordOptions(folder=folder, images=NO_IMAGES), line="bench", alarm=print)
    parts = [part(n + 1) for n in range(count)]
    started = time.perf_counter()
    for result in parts:
        record.triggered(result.trigger)
        record.decided(result, {})
    journal = time.perf_counter() - started
    while record.counters()["waiting"]:
        time.sleep(0.005)
    both = time.perf_counter() - started
    record.close()
    return {"verdicts/s into the journal": count / journal, "verdicts/s into SQLite": count / both}


def images(folder: Path) -> dict[str, float]:
    """Six frames of 1920 x 1080 of a part, as PNG, through the queue and its threads."""
    rng = np.random.default_rng(0)
    metal = cv2.GaussianBlur(rng.normal(128, 60, (1080, 1920)).astype(np.float32), (0, 0), 2)
    pixels = np.clip(metal + rng.normal(0, 2, metal.shape), 0, 255).astype(np.uint8)
    options = RecordOptions(folder=folder, images=KeepImages(ok=1, ng=1, queue=1000, age=None, free=1))
    record = Record(options, line="bench", alarm=print)
    count = 12
    started = time.perf_counter()
    for n in range(count):
        result = part(n + 1)
        record.triggered(result.trigger)
        record.decided(result, {f"view{v}": Frame(pixels=pixels, number=n, received=0.0) for v in range(VIEWS)})
    while record.counters()["images_waiting"]:
        time.sleep(0.005)
    seconds = time.perf_counter() - started
    record.close()
    ways = {"PNG as the record writes it": PNG, "PNG by OpenCV at level 1": (cv2.IMWRITE_PNG_COMPRESSION, 1)}
    raw = count * VIEWS * pixels.nbytes
    written = record.counters()["images_bytes"]
    return {
        "image MB/s, raw pixels": raw / seconds / 1e6,
        "parts/s with all six images": count / seconds,
        "PNG bytes of raw bytes": written / raw,
        **{f"{name}, {what}": figure for name, how in ways.items() for what, figure in encoded(pixels, how).items()},
    }


def encoded(pixels: Pixels, how: Sequence[int]) -> dict[str, float]:
    """One image as PNG: its time, and its bytes of the raw ones."""
    seconds = [timed(lambda: cv2.imencode(".png", pixels, list(how))) for _ in range(5)]
    return {"ms": min(seconds) * 1000, "of raw bytes": len(cv2.imencode(".png", pixels, list(how))[1]) / pixels.nbytes}


def questions(folder: Path, count: int) -> dict[str, float]:
    """Seconds for what people ask of so many verdicts."""
    Record(RecordOptions(folder=folder, images=NO_IMAGES), line="bench", alarm=print).close()
    database = Database(locate(folder), write=True)
    head = GENESIS
    for first in range(0, count, 5000):
        entries = []
        for n in range(first, min(first + 5000, count)):
            body = part(n + 1).to_dict() | {"line": "bench", "images": None, "versions": {}}
            text = canonical(body)
            entries.append(
                Entry(number=n + 1, body=text, sequence=n + 1, previous=head, hash=(head := link(head, text)))
            )
        database.store("bench", entries, [json.loads(entry.body) for entry in entries])
    database.close()
    found = {
        "rows": float(count),
        "MB of the database": sum(file.stat().st_size for file in folder.glob("verdicts.sqlite*")) / 1e6,
    }
    with History(str(folder)) as history:
        asked: dict[str, Callable[[], Any]] = {
            "show, newest 50": lambda: history.verdicts(Wanted(), limit=50),
            "show, newest 50 NG": lambda: history.verdicts(Wanted(verdict=Verdict.NG), limit=50),
            "show, one part": lambda: history.verdicts(Wanted(part=f"SN{count // 2:09d}")),
            "part": lambda: history.part(f"SN{count // 3:09d}"),
            "show, a lot's NG": lambda: history.verdicts(Wanted(lot="L7", verdict=Verdict.NG), limit=50),
        }
        for by in ("lot", "product", "hour", "recipe"):
            asked[f"summary by {by}"] = lambda by=by: history.summary(Wanted(), by=narrow(by))  # type: ignore[misc]
        asked["export to Parquet"] = lambda: history.export(Wanted(), folder / "x.parquet")
        asked["verify"] = lambda: verify(locate(folder), folder)
        for name, ask in asked.items():
            found[f"{name}, ms"] = timed(ask) * 1e3
    return found


def narrow(by: str) -> By:
    """The same text as the type of what a summary is made by."""
    return by  # type: ignore[return-value]


def timed(call: Callable[[], object]) -> float:
    """Seconds of one call."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
