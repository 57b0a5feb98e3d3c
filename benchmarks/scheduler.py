"""A million triggers through the scheduler in simulated time: what it costs, and that nothing is lost.

python -m benchmarks.scheduler [--triggers 1000000] [--views 2]

Everything goes wrong now and then (lost, missed, doubled, damaged, late frames, cameras that restart, network runs that
hang or fail); the accounts are checked all the time, and every part must have exactly one verdict. The last column is
the process's memory: it must stay flat.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, field

from benchmarks.road import machine
from benchmarks.world import Faults, World
from inspection.line.capacity import resident
from inspection.line.plan import Closed
from inspection.results import Verdict

FAULTS = Faults(
    lost=0.01,
    missed=0.01,
    strange=0.01,
    doubled=0.01,
    swapped=0.01,
    damaged=0.01,
    restart=0.002,
    slow=0.01,
    failed=0.01,
)


@dataclass
class Counted:
    """Parts as they are closed; prints a line for each tenth."""

    total: int
    done: int = 0
    last: int = 0
    started: float = field(default_factory=time.monotonic)

    def __call__(self, closed: Closed) -> None:
        assert closed.trigger.number != self.last
        self.last = closed.trigger.number
        self.done += 1
        if self.done % (self.total // 10) == 0:
            seconds = time.monotonic() - self.started
            left = seconds / self.done * (self.total - self.done)
            print(
                f"{self.done:>9} parts {seconds:>7.0f} s {seconds / self.done * 1e6:>6.0f} us a part "
                f"{resident() / 1e6:>7.1f} MB {left:>6.0f} s left",
                flush=True,
            )


def main() -> None:
    """Runs the world and prints its account."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--triggers", type=int, default=1_000_000)
    arguments.add_argument("--views", type=int, default=2)
    given = arguments.parse_args()
    print(machine())
    views = tuple(f"view{index}" for index in range(given.views))
    counted = Counted(given.triggers)
    told = World(
        triggers=given.triggers, views=views, faults=FAULTS, stamped=True, on_closed=counted, check_every=20
    ).run()
    verdicts = {verdict.value: told[verdict.value] for verdict in Verdict}
    assert told["triggers"] == sum(verdicts.values()) == counted.done == given.triggers
    print(f"{told['triggers']} triggers = " + " + ".join(f"{count} {name}" for name, count in verdicts.items()))
    frames = {name.removeprefix("frames "): count for name, count in told.items() if name.startswith("frames ")}
    fates = [name for name in frames if name.islower() and name not in ("triggers", "received", "in_flight")]
    print(f"{frames['received']} frames = " + " + ".join(f"{frames[name]} {name}" for name in fates))
    print(f"bad parts called OK: {told['escaped']}; parts judged by another's frame: {told['mixed up']}")


if __name__ == "__main__":
    main()
