"""Whether this machine keeps a recipe's takt, what is narrow, and how much more it would carry.

The recipe's whole line runs twice, with simulated cameras: at its own takt, and then with one part more in work than
there are workers, which is as fast as it goes. The record is kept as in earnest, in a folder that is deleted
afterwards; outputs are not told.
"""

from __future__ import annotations

import json
import resource
import tempfile
import threading
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rich.table import Table

from inspection import machine
from inspection.control import NotReady
from inspection.line.line import Line
from inspection.line.simulate import cameras
from inspection.parts import PartResult
from inspection.progress import Meter, stdout
from inspection.recipe.load import Loaded, load
from inspection.recipe.recipe import Match, SignalTrigger
from inspection.results import Verdict

STAGES = {
    "frame": "trigger to frame",
    "wait": "frame waits for a worker",
    "judge": "worker judges a view",
    "verdict": "last frame to verdict",
    "part": "trigger to verdict",
}
READY = 120.0  # seconds that cameras may take to preload
PATIENT = 60.0  # seconds: the deadline while it goes as fast as it can, so that what is judged slowly is judged


@dataclass(frozen=True, kw_only=True, slots=True)
class Capacity:
    """What was measured.

    Attributes:
        stages: seconds by stage at the recipe's takt: p50, p99, p99.9, max.
        missed: parts at the takt that had no verdict before their deadline (ERROR).
        busy: share of the machine's usable cores that the process had at the takt.
        parts_per_second: as fast as it goes. headroom: that over what the takt asks for; below 1 it does not keep it.
        views: views of this kind that one takt has room for. pixels: likewise, in pixels of frames a second.
        narrow: the stage that limits it. memory: bytes, at the end.
    """

    recipe: str
    takt: float
    deadline: float
    seconds: float
    parts: int
    missed: int
    stages: dict[str, dict[str, float]]
    busy: float
    parts_per_second: float
    headroom: float
    views: int
    pixels: float
    narrow: str
    memory: int
    workers: int
    threads: int
    cores: int
    processor: str

    @property
    def keeps(self) -> bool:
        """Whether every part had its verdict in time, with some room left."""
        return self.missed == 0 and self.headroom >= 1


def measure(recipe: Path, *, seconds: float = 30.0, images: Path | None = None, takt: float | None = None) -> Capacity:
    """Runs the recipe's line at its takt and then as fast as it goes, each for `seconds`. Raises what `Line` raises."""
    asked = takt or load(recipe).recipe.takt
    with tempfile.TemporaryDirectory(prefix="inspection-bench-") as folder:
        with _line(recipe, images, Path(folder) / "takt") as line, Meter("at its takt", round(seconds)) as meter:
            _ready(line)
            before, began = _cpu(), time.monotonic()
            _at_takt(line, asked, seconds, meter)
            busy = (_cpu() - before) / (time.monotonic() - began) / machine.usable_cores()
            stages = line.times.summary()
            account = line.counters()["line"]
            memory = resident()
            setup = line.setup
            deadline = setup.deadline
        fast = _line(recipe, images, Path(folder) / "fast", PATIENT)
        with fast as line, Meter("as fast as it goes", round(seconds)) as meter:
            _ready(line)
            rate, pixels = _as_fast_as_it_goes(line, seconds, meter)
    views = len(setup.regions)
    headroom = rate * asked
    return Capacity(
        recipe=setup.info.id,
        takt=asked,
        deadline=deadline,
        seconds=seconds,
        parts=account["triggers"],
        missed=account[Verdict.ERROR],
        stages={name: stages[name] for name in STAGES if name in stages},
        busy=busy,
        parts_per_second=rate,
        headroom=headroom,
        views=int(views * headroom),
        pixels=pixels,
        narrow=_narrow(stages, headroom),
        memory=memory,
        workers=setup.workers,
        threads=next(iter(setup.inspectors.values())).threads,
        cores=machine.usable_cores(),
        processor=machine.processor(),
    )


def show(found: Capacity, *, as_json: bool) -> int:
    """Prints it; 0 where the takt is kept, else 10."""
    code = 0 if found.keeps else 10
    if as_json:
        print(json.dumps(asdict(found) | {"keeps": found.keeps}))
        return code
    out = stdout()
    table = Table("stage", "p50 ms", "p99 ms", "p99.9 ms", "max ms", box=None, pad_edge=False)
    for name, values in found.stages.items():
        table.add_row(STAGES[name], *(f"{values[key] * 1000:.1f}" for key in ("p50", "p99", "p99.9", "max")))
    out.print(table)
    verdict = "keeps" if found.keeps else "does not keep"
    out.print(
        f"This machine {verdict} {found.takt:g} s a part: {found.parts} parts in {found.seconds:g} s, {found.missed} "
        f"without a verdict before the deadline of {found.deadline:g} s; {found.busy:.0%} of {found.cores} cores busy.",
        soft_wrap=True,
    )
    out.print(
        f"As fast as it goes: {found.parts_per_second:.2f} parts a second, {found.headroom:.2f} times the takt; "
        f"{found.views} such views would fit ({found.pixels / 1e6:.1f} million pixels a second).",
        soft_wrap=True,
    )
    out.print(f"Narrow: {found.narrow}. {found.memory / 1e6:.0f} MB of memory. {found.processor}.", soft_wrap=True)
    return code


def _line(recipe: Path, images: Path | None, record: Path, deadline: float = 0.0) -> Line:
    """The recipe's line without its plant; it has at least `deadline` seconds for a part."""

    def transform(loaded: Loaded) -> Loaded:
        longer = max(loaded.recipe.deadline, deadline)
        changes = {
            "trigger": SignalTrigger(kind="signal"),
            "deadline": longer,
            "match": Match(window=longer),
            "outputs": (),
            "record": loaded.recipe.record.model_copy(update={"folder": record, "database": None}),
        }
        return replace(loaded, recipe=loaded.recipe.model_copy(update=changes))

    return Line(recipe, transform=transform, camera=cameras(recipe, images))


def _ready(line: Line) -> None:
    end = time.monotonic() + READY
    while any(facts["state"] != "streaming" for facts in line.cameras.facts().values()):
        if time.monotonic() > end:
            raise NotReady("the simulated cameras did not start.", hint="Name fewer or smaller images.")
        time.sleep(0.01)
    line.start()


def _at_takt(line: Line, takt: float, seconds: float, meter: Meter) -> None:
    began = due = time.monotonic()
    number = 0
    while due < began + seconds:
        number = line.trigger()
        due += takt
        time.sleep(max(0.0, due - time.monotonic()))
        meter.step(max(0, min(round(time.monotonic() - began), meter.total) - meter.done))
    line.wait(number, 60.0)


def _as_fast_as_it_goes(line: Line, seconds: float, meter: Meter) -> tuple[float, float]:
    """Parts a second, and pixels of their frames a second, with one part more in work than there are workers."""
    room = threading.Semaphore(line.setup.workers + 1)
    done: list[PartResult] = []

    def over(result: PartResult) -> None:
        done.append(result)
        room.release()

    line.listeners.append(over)
    began = time.monotonic()
    while (now := time.monotonic()) < began + seconds:
        if room.acquire(timeout=1.0):
            line.trigger()
        meter.step(max(0, min(round(now - began), meter.total) - meter.done))
    judged = [one for one in done if one.verdict is not Verdict.ERROR]
    elapsed = time.monotonic() - began
    pixels = sum(
        inspection.size[0] * inspection.size[1]
        for one in judged
        for view in one.views
        for inspection in view.inspections
    )
    return len(judged) / elapsed, pixels / elapsed


def _narrow(stages: dict[str, dict[str, float]], headroom: float) -> str:
    """What a part spends most of its time on."""
    spent = {name: stages[name]["p50"] for name in ("frame", "wait", "judge") if name in stages}
    if not spent:
        return "no frame was judged"
    longest = max(spent, key=spent.__getitem__)
    if longest == "wait" or (longest == "judge" and headroom < 2):
        return "judging: more or faster cores, a smaller or int8 model, or fewer pixels"
    return {"frame": "the cameras", "judge": "judging, with room left"}[longest]


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def resident() -> int:
    """Bytes of memory that this process holds now."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize()
