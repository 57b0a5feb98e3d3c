"""The workers that judge, and what becomes of one that hangs.

A thread cannot be killed. A worker whose network run takes longer than `hang` is left to itself: its jobs get an ERROR,
another worker takes its place, and whatever it says when it comes back is not listened to.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence

from inspection.errors import InspectionError
from inspection.line.plan import Job
from inspection.results import Inspection, Verdict

Judge = Callable[[Sequence[Job]], list[Inspection]]


class JudgingFailed(InspectionError):
    """A network run hung or broke off; the part that it was for is ERROR."""

    code = "judging-failed"
    exit_code = 4


class Worker:
    """One thread that takes jobs, judges them and tells."""

    def __init__(self, crew: Crew, name: str) -> None:
        self.crew = crew
        self.jobs: list[Job] = []
        self.since: float | None = None  # when it took them; None: it waits
        self.left = False  # nobody listens to it any more
        self.thread = threading.Thread(target=self._work, name=name, daemon=True)

    def _work(self) -> None:
        crew = self.crew
        while True:
            jobs = crew.take()
            if jobs is None:
                return
            with crew.lock:
                self.jobs, self.since = jobs, time.monotonic()
            try:
                found = crew.judge(jobs)
                if len(found) != len(jobs):
                    raise JudgingFailed(f"the network answered {len(found)} of {len(jobs)} regions.")
            except Exception as error:  # noqa: BLE001 - whatever it is, these parts are ERROR and the next are judged
                found = [failed(job, error) for job in jobs]
                crew.broke += 1
            with crew.lock:
                if self.left:
                    return
                self.jobs, self.since = [], None
            for job, inspection in zip(jobs, found, strict=True):
                crew.done(job, inspection)


class Crew:
    """Workers that judge.

    Args:
        size: how many.
        take: blocks until there is something to judge; None: there never will be.
        judge: one inspection for each job, in their order.
        done: told of each job, with its inspection, in no order.
        hang: seconds after which a network run is given up.
    """

    def __init__(
        self,
        size: int,
        *,
        take: Callable[[], list[Job] | None],
        judge: Judge,
        done: Callable[[Job, Inspection], None],
        hang: float,
    ) -> None:
        self.take, self.judge, self.done, self.hang = take, judge, done, hang
        self.lock = threading.Lock()
        self.hung = 0  # network runs that were given up
        self.broke = 0  # network runs that raised what they must not
        self._size = size
        self._workers: list[Worker] = []

    def start(self) -> None:
        """Starts all workers."""
        for index in range(self._size):
            self._hire(index)

    def check(self) -> list[Job]:
        """Gives up what hangs and replaces its worker; the jobs that were given up."""
        given_up: list[Job] = []
        now = time.monotonic()
        for index, worker in enumerate(self._workers):
            with self.lock:
                if worker.since is None or now - worker.since < self.hang:
                    continue
                worker.left = True
                jobs = worker.jobs
            self.hung += 1
            for job in jobs:
                self.done(job, failed(job, JudgingFailed(f"the network did not answer within {self.hang:g} s.")))
            given_up += jobs
            self._hire(index)
        return given_up

    def join(self, timeout: float) -> bool:
        """Waits for workers that have been told to end (`take` gives None); False where one did not."""
        end = time.monotonic() + timeout
        for worker in self._workers:
            worker.thread.join(max(0.0, end - time.monotonic()))
        return not any(worker.thread.is_alive() for worker in self._workers)

    def _hire(self, index: int) -> None:
        worker = Worker(self, f"judge-{index}")
        if index < len(self._workers):
            self._workers[index] = worker
        else:
            self._workers.append(worker)
        worker.thread.start()


def failed(job: Job, error: Exception) -> Inspection:
    """What is said of a region that could not be judged."""
    known = error if isinstance(error, InspectionError) else JudgingFailed(f"{type(error).__name__}: {error}")
    pixels = job.frame.pixels
    return Inspection(
        name=job.view,
        verdict=Verdict.ERROR,
        score=math.nan,
        size=(0, 0) if pixels is None else (pixels.shape[1], pixels.shape[0]),
        reason=f"{known.what} {known.hint or ''}".strip(),
        code=known.code,
    )
