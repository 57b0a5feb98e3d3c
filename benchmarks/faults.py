"""Every fault that a line meets, injected one after the other while it runs, with its counters before and after.

python -m benchmarks.faults [--takt 0.5] [--outage 60] [--out runs/faults]

The plant is that of `benchmarks.plant`: a GigE Vision camera, a PLC over Modbus TCP, mosquitto, a webhook, a disk of
its own, which wants root, Debian's aravis-tools, gir1.2-aravis-0.8, python3-gi and mosquitto, and a C compiler. Every
third part is bad, in one of its two views, and so it is known what each verdict ought to be.

Printed: a row for each fault (parts that came by, their verdicts as the PLC read them, and every counter that moved
more than it does for a good part), and then what the record, the broker and the webhook have of all parts. The exit
code is 1 where a bad part was called OK, a part has no verdict or two, or a part is wrong after a fault is over.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.plant import DEADLINE, DISK, HEIGHT, LINE, WIDTH, Part, Plant, encoded, plant, surface
from inspection.machine import processor, usable_cores
from inspection.record.history import History, Wanted

AFTER = 4  # parts after each fault, which must be right
# What moves with every part that is good or bad; anything else is worth a row.
ORDINARY = {
    *("triggers", "OK", "NG", "received", "judged", "taken", "delivered", "frames", "triggered", "decided", "stored"),
    *("waiting", "in_flight", "images_parts", "images_files", "images_bytes", "images_on_disk", "images_waiting"),
    *("spooled", "images_deleted"),
}
State = dict[str, int]


@dataclass
class Row:
    """What happened while one fault was there, and while it went."""

    fault: str
    parts: list[Part]
    moved: dict[str, int]
    alarms: Counter[str]
    after: list[Part]


def main() -> None:
    """Runs all faults and prints what came of them."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--takt", type=float, default=0.5)
    arguments.add_argument("--outage", type=float, default=60.0, help="seconds without a broker")
    arguments.add_argument("--out", type=Path, default=Path("runs/faults"))
    given = arguments.parse_args()
    day = datetime.now(UTC).date().isoformat()
    print(f"{day}; {usable_cores()} cores {processor()}; lightsout-inspection {version('lightsout-inspection')}")
    print(f"takt {given.takt:g} s, deadline {DEADLINE * given.takt:g} s; disk of {DISK} MB", flush=True)
    shutil.rmtree(given.out, ignore_errors=True)
    with plant(given.out.absolute(), takt=given.takt) as made:
        print("| fault, and parts while it was there | OK | NG | ERROR | not told | what counted it |")
        print("|---|---|---|---|---|---|")
        rows = [one(made) for one in faults(given.outage / given.takt)]
        problems = [text for row in rows for text in wrong(row)] + end(made)
    print(*problems, sep="\n")
    sys.exit(1 if problems else 0)


# -- one fault ---------------------------------------------------------------------------------------------------------


def faults(outage: float) -> Iterator[Callable[[Plant], Row]]:
    """All of them, in turn."""
    good = encoded(surface(), ".jpg")
    cut, white = good[: len(good) // 2], encoded(np.full((HEIGHT, WIDTH), 255, np.uint8))
    yield during("none", 12)
    yield during("camera off", 12, camera_off)
    yield during("0.2 % of the camera's packets lost", 12, packets_lost)
    yield during("a frame cut in its middle", 4, side=cut)
    yield during("trigger without a frame", 4, expose=False)
    yield during("frame without a trigger", 4, before=stray_frame)
    yield during("the model's session raises", 4, side=white)
    yield during("webhook refuses (503)", 8, webhook(answer=503))
    yield during("webhook hangs", 8, webhook(answer="hang"))
    yield during("webhook takes 0.8 s a message", 8, webhook(seconds=0.8))
    yield during("PLC does not acknowledge", 4, acknowledge=False)
    yield during(f"broker away ({outage:.0f} parts)", round(outage), broker_away)
    yield during("disk full", 12, lambda made: made.full_disk())
    yield during("database locked", 12, database_locked)
    yield during("clock set back an hour", 8, clock_set_back)
    yield stopped
    yield killed


Meanwhile = Callable[[Plant], AbstractContextManager[object]]


def during(
    fault: str,
    count: int,
    meanwhile: Meanwhile = lambda _: nullcontext(),
    before: Callable[[Plant], None] = lambda _: None,
    **how: Any,
) -> Callable[[Plant], Row]:
    """So many parts while `meanwhile` is entered, each after `before` and handled as `how` says; then some as ever."""

    def run(made: Plant) -> Row:
        was, alarms, parts = counters(made), alarmed(made), []
        with meanwhile(made):
            for _ in range(count):
                before(made)
                parts.append(inspect(made, **how))
        made.until(lambda: made.streams() and settled(made), "the end of the fault")
        after = [inspect(made) for _ in range(AFTER)]
        made.until(lambda: settled(made), "the end of the fault")
        return told(Row(fault, parts, moved(was, counters(made)), alarmed(made) - alarms, after))

    return run


def inspect(made: Plant, **how: Any) -> Part:
    """The next part; every third is bad."""
    return made.inspect(bad=len(made.parts) % 3 == 2, **how)


@contextmanager
def camera_off(made: Plant) -> Iterator[None]:
    made.camera.off()
    yield
    made.camera.on()


@contextmanager
def packets_lost(made: Plant) -> Iterator[None]:
    made.lost = 2
    yield
    made.lost = 0


def stray_frame(made: Plant) -> None:
    """An exposure that nobody asked for, of a bad part."""
    made.send(encoded(surface(bad=True)))
    time.sleep(made.takt / 5)


def webhook(*, answer: int | str = 200, seconds: float = 0.0) -> Meanwhile:
    @contextmanager
    def fails(made: Plant) -> Iterator[None]:
        made.receiver.answer, made.receiver.seconds = answer, seconds
        yield
        made.receiver.answer, made.receiver.seconds = 200, 0.0
        made.receiver.go_on.set()

    return fails


@contextmanager
def broker_away(made: Plant) -> Iterator[None]:
    made.broker.kill()
    yield
    made.broker.start()


@contextmanager
def database_locked(made: Plant) -> Iterator[None]:
    """By somebody who looks into it with another program, and forgets to let go."""
    other = sqlite3.connect(made.record / "verdicts.sqlite", isolation_level=None, timeout=30.0)
    other.execute("BEGIN EXCLUSIVE")
    yield
    other.execute("ROLLBACK")
    other.close()


@contextmanager
def clock_set_back(made: Plant) -> Iterator[None]:
    made.set_clock(-3600)
    yield
    made.set_clock(0)


def stopped(made: Plant) -> Row:
    """SIGTERM with a part in flight: the record has its verdict before the line ends."""
    return interrupted(made, made.trigger(bad=True), signal.SIGTERM)


def killed(made: Plant) -> Row:
    """SIGKILL with a part in flight: the record says ERROR after the next start."""
    return interrupted(made, made.trigger(bad=False, expose=False), signal.SIGKILL)


def interrupted(made: Plant, part: Part, by: signal.Signals) -> Row:
    """The line is ended with this part in flight, and started again."""
    code = made.end(by)
    made.start()
    after = [inspect(made) for _ in range(AFTER)]
    part = replace(part, told=recorded(made)[part.number])
    fault = f"{by.name}, a part in flight (exit code {code})"
    return told(Row(fault, [part], moved({}, counters(made)), alarmed(made), after))


# -- what is counted ---------------------------------------------------------------------------------------------------


def counters(made: Plant) -> State:
    """All of the line's, by `of what, which`."""
    return {
        f"{account} {name}": count
        for account, counts in made.ask("/v1/line")["counters"].items()
        for name, count in counts.items()
    }


def alarmed(made: Plant) -> Counter[str]:
    """The latest fifty alarms, by code."""
    return Counter(f"{one['code']} {one['wall']}" for one in made.ask("/v1/line")["alarms"])


def settled(made: Plant) -> bool:
    """Whether nothing waits: no part in flight, no message, no verdict that is not in the database."""
    now = counters(made)
    return all(not count for name, count in now.items() if name.endswith((" waiting", " in_flight", " buffered")))


def moved(before: State, after: State) -> dict[str, int]:
    """By how much, of all that is not ordinary."""
    names = [name for name in after if name.rpartition(" ")[2] not in ORDINARY]
    return {name: change for name in names if (change := after[name] - before.get(name, 0))}


def told(row: Row) -> Row:
    """Prints the row."""
    verdicts = Counter(part.told for part in row.parts)
    codes = Counter(name.partition(" ")[0] for name in row.alarms)
    what = [f"{name} +{change}" for name, change in row.moved.items()]
    what += [f"alarm {code}" + (f" x{count}" if count > 1 else "") for code, count in codes.items()]
    counts = " | ".join(str(verdicts[one]) for one in ("OK", "NG", "ERROR", None))
    print(f"| {row.fault}: {len(row.parts)} | {counts} | {', '.join(what)} |", flush=True)
    return row


def wrong(row: Row) -> list[str]:
    """What must not be."""
    right = {True: "NG", False: "OK"}
    return [
        f"{row.fault}: part {part.number}, which is {'bad' if part.bad else 'good'}, was told as {part.told}."
        for part in row.parts
        if part.told == "OK" and part.bad
    ] + [
        f"after `{row.fault}`: part {part.number} should be {right[part.bad]}, and was told as {part.told}."
        for part in row.after
        if part.told != right[part.bad]
    ]


# -- the end -----------------------------------------------------------------------------------------------------------


def recorded(made: Plant) -> dict[int, str]:
    """Verdicts in the record's database, by number."""
    with History(str(made.record)) as history:
        return {int(row["number"]): str(row["verdict"]) for row in history.verdicts(Wanted())}


def end(made: Plant) -> list[str]:
    """Ends the line, and holds what the others have against the parts that came by."""
    made.until(lambda: settled(made), "the last message")
    made.end(signal.SIGTERM)
    record = recorded(made)
    bodies = {
        "broker": [json.loads(text) for text in made.subscriber.on(f"inspection/{LINE}/result")],
        "webhook": [body for text in made.receiver.took if "verdict" in (body := json.loads(text))],
    }
    numbers = {part.number for part in made.parts}
    bad = {part.number for part in made.parts if part.bad}
    problems = []
    counts = ", ".join(f"{count} {verdict}" for verdict, count in sorted(Counter(record.values()).items()))
    print(f"\n{len(numbers)} parts came by, {len(bad)} of them bad. The record has {len(record)} verdicts: {counts}.")
    if set(record) != numbers:
        problems.append(f"record: not the parts that came by: {sorted(set(record) ^ numbers)}.")
    if escaped := [number for number in bad if record.get(number) == "OK"]:
        problems.append(f"bad parts were called OK: {escaped}.")
    if other := [part.number for part in made.parts if part.told not in (None, record.get(part.number))]:
        problems.append(f"the PLC was told another verdict than the record's: {other}.")
    for name, got in bodies.items():
        verdicts = {(int(body["number"]), str(body["verdict"])) for body in got}
        print(f"The {name} has {len(verdicts)} verdicts; {len(got) - len(verdicts)} came twice.")
        if verdicts != set(record.items()):
            problems.append(f"{name}: not the record's verdicts: {sorted(verdicts ^ set(record.items()))}.")
    told_in_time = sum(part.told is not None for part in made.parts)
    print(f"The PLC read {told_in_time} of them before the next part came by. Bad parts called OK: {len(escaped)}.")
    return problems


if __name__ == "__main__":
    main()
