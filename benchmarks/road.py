"""The whole road once, for a benchmark: fit, export with certificate, judge the test split with the file."""

from __future__ import annotations

import platform
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from datasets.sample import Dataset
from inspection import Inspector
from inspection.allocator import keep_buffers
from inspection.machine import processor, usable_cores
from inspection.results import Verdict
from training.config import TrainConfig
from training.export import export
from training.fit import fit
from training.metrics import auroc, average_precision
from training.run import Run


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """What came out on the test split."""

    network: str
    good: int
    bad: int
    escapes: int  # bad, called OK
    overkill: int  # good, called NG
    review: int
    accuracy: float  # share of right verdicts; REVIEW is not right
    auroc: float
    ap: float
    flips: int  # verdicts in which the file differs from the network
    difference: float  # largest difference of scores, as in the certificate
    wall_seconds: float  # of training
    cpu_seconds: float
    judged_per_second: float


def say(text: str) -> None:
    """What a benchmark does goes to stderr, its table to stdout."""
    print(text, file=sys.stderr, flush=True)


def walk(dataset: Dataset, config: TrainConfig, out: Path, *, cap: int = 100_000) -> Judged:
    """Trains into `out` (goes on where it stopped), exports beside it, judges all test images once."""
    keep_buffers()  # as the command line does
    run = fit(config, dataset, out, say=say)
    return judge(run, out.with_suffix(".onnx"), cap=cap)


def judge(run: Run, model: Path, *, cap: int = 100_000) -> Judged:
    """Exports with the certificate over all calibration and test images, and judges the test split with the file."""
    card = export(run, model, cap=cap, say=say)
    samples = [sample for sample in run.dataset().of("test") if sample.label is not None]
    with Inspector(model) as inspector:
        started = time.perf_counter()
        found = list(inspector.inspect_many(sample.path for sample in samples))
        seconds = time.perf_counter() - started
    failed = [one for one in found if one.verdict is Verdict.ERROR]
    assert not failed, failed[0].reason
    good = [one for one, sample in zip(found, samples, strict=True) if sample.label == "good"]
    bad = [one for one, sample in zip(found, samples, strict=True) if sample.label == "defect"]
    right = sum(one.verdict is Verdict.OK for one in good) + sum(one.verdict is Verdict.NG for one in bad)
    scores = [one.score for one in good], [one.score for one in bad]
    parities = card.certificate.parities if card.certificate else []
    return Judged(
        network=card.network,
        good=len(good),
        bad=len(bad),
        escapes=sum(one.verdict is Verdict.OK for one in bad),
        overkill=sum(one.verdict is Verdict.NG for one in good),
        review=sum(one.verdict is Verdict.REVIEW for one in found),
        accuracy=right / len(found),
        auroc=auroc(*scores) or 0.0,
        ap=average_precision(*scores) or 0.0,
        flips=sum(parity.flips for parity in parities),
        difference=max((parity.max_difference for parity in parities), default=0.0),
        wall_seconds=run.record.wall_seconds,
        cpu_seconds=run.record.cpu_seconds,
        judged_per_second=len(found) / seconds,
    )


def machine() -> str:
    """One line: when, where and with what."""
    packages = ("lightsout-inspection", "torch", "onnxruntime", "opencv-python-headless")
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    day = datetime.now(UTC).date().isoformat()
    return f"{day}; {usable_cores()} cores {processor()}; Python {platform.python_version()}, {versions}"
