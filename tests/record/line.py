"""A line that makes verdicts: values for the tests, and a process that can be killed.

    python -m tests.record.line FOLDER COUNT [--images] [--database URL]

prints `number hash` for each verdict after the record has it, as fast as it goes; each third part stays in flight while
the next two are judged.
"""

from __future__ import annotations

import argparse
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from inspection.parts import Frame, PartResult, Trigger, ViewResult
from inspection.record.options import KeepImages, RecordOptions
from inspection.record.record import Record
from inspection.results import Defect, Inspection, ScoreMap, Verdict

WALL = 1_764_000_000.0  # 2025-11-24 16:00 UTC
NO_IMAGES = KeepImages(ok=0, ng=0, review=0, error=0)


class Alarms:
    """Remembers what was alarmed."""

    def __init__(self) -> None:
        self.all: list[tuple[str, str]] = []

    def __call__(self, code: str, sentence: str) -> None:
        self.all.append((code, sentence))

    @property
    def codes(self) -> list[str]:
        return [code for code, _ in self.all]


def trigger(number: int, *, wall: float | None = None, part: str | None = None, lot: str | None = "L1") -> Trigger:
    return Trigger(
        number=number,
        part=part or f"SN{number:06d}",
        product="phone" if number % 2 else "watch",
        at=float(number),
        wall=WALL + number if wall is None else wall,
        lot=lot,
    )


def result(made: Trigger, verdict: Verdict = Verdict.OK, *, views: int = 2, score: float = 0.25) -> PartResult:
    defects = (Defect(kind="scratch", score=score, box=(1, 2, 3, 4), area=7),) if verdict is Verdict.NG else ()
    score_map = ScoreMap(values=np.full((4, 6), score, np.float32), region=(0.0, 0.0, 48.0, 32.0), size=(48, 32))
    return PartResult(
        trigger=made,
        verdict=verdict,
        views=tuple(
            ViewResult(
                view=f"view{n}",
                verdict=verdict,
                inspections=(
                    Inspection(
                        name="f", verdict=verdict, score=score - n, size=(48, 32), defects=defects, map=score_map
                    ),
                ),
                defects=defects,
                frame=made.number,
                seconds={"received": 0.1, "judged": 0.3},
            )
            for n in range(views)
        ),
        decided=made.at + 0.4,
        deadline=made.at + 1,
        recipe="phone",
        recipe_hash="ab" * 32,
        models={f"view{n}": "cd" * 32 for n in range(views)},
        kind="scratch" if defects else None,
        seconds={"decided": 0.4},
    )


def frame(number: int, *, seed: int = 0, shape: tuple[int, ...] = (32, 48), dtype: Any = np.uint8) -> Frame:
    top = 4096 if dtype is np.uint16 else 256  # a 12-bit camera
    pixels = np.random.default_rng(seed + number).integers(0, top, shape).astype(dtype)
    return Frame(pixels=pixels, number=number, received=float(number), pixel_format="Mono8")


def frames(number: int, views: int = 2) -> dict[str, Frame]:
    return {f"view{n}": frame(number, seed=n) for n in range(views)}


def wait_until(what: Any, seconds: float = 60.0) -> None:
    """Waits for a condition, and fails when it does not come."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "this did not come to pass in time"
        time.sleep(0.01)


@contextmanager
def running(folder: Path, alarms: Alarms | None = None, **options: Any) -> Iterator[Record]:
    """A record without images unless `images` says otherwise, closed at the end."""
    options = {"images": NO_IMAGES} | options
    record = Record(RecordOptions(folder=folder, **options), line="line1", alarm=alarms or Alarms())
    try:
        yield record
    finally:
        record.close()


def judge(record: Record, count: int, verdict: Verdict = Verdict.OK, *, views: int = 2, **more: Any) -> list[str]:
    """So many parts, one after the other; the hashes."""
    hashes = []
    for _ in range(count):
        made = trigger(record.next_number, **more)
        record.triggered(made)
        hashes.append(record.decided(result(made, verdict, views=views), frames(made.number)))
    return hashes


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("count", type=int)
    arguments.add_argument("--images", action="store_true")
    arguments.add_argument("--database")
    given = arguments.parse_args()
    images = KeepImages(ok=2, free=1, age=None) if given.images else NO_IMAGES
    options = RecordOptions(folder=given.folder, database=given.database, images=images)
    record = Record(options, line="line1", alarm=lambda *_: None)
    print("interrupted", *(body["number"] for body in record.interrupted), flush=True)
    printing = threading.Lock()
    in_flight: deque[Trigger] = deque()
    for _ in range(given.count):
        made = trigger(record.next_number)
        record.triggered(made)
        in_flight.append(made)
        if len(in_flight) < 3:
            continue
        judged = in_flight.popleft()
        hash_ = record.decided(
            result(judged, Verdict.NG if judged.number % 7 == 0 else Verdict.OK), frames(judged.number)
        )
        with printing:
            print(judged.number, hash_, flush=True)
    while in_flight:
        judged = in_flight.popleft()
        print(judged.number, record.decided(result(judged), {}), flush=True)
    record.close()


if __name__ == "__main__":
    main()
