"""`inspection bench`: where the time goes on this machine, beside bare onnxruntime on the same graph.

Both sides take turns, one run each, so that a machine that slows down or has other work slows both alike. Ratios are of
each side's 10th percentile: on a machine with other work the median tells how often a side was interrupted, and the
undisturbed runs tell what it costs.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
from rich.markup import escape
from rich.table import Table

from inspection import machine
from inspection.engine import PROVIDERS
from inspection.errors import ConfigInvalid, ImageUnreadable
from inspection.inspector import Inspector
from inspection.modelfile import InputSpec, read_model
from inspection.pixels import decode_image, prepare
from inspection.progress import Meter, stdout

MIN_ROUNDS = 20
STAGES = ("decode", "prepare", "network", "postprocess", "whole")


@dataclass(frozen=True, kw_only=True, slots=True)
class Timing:
    """Milliseconds of one thing over `rounds` runs."""

    p10: float
    p50: float
    p99: float
    rounds: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Speed:
    """Images per second through the inspector, and through bare onnxruntime with prepared input, undisturbed (p10)."""

    threads: int
    batch: int
    inspector: float
    bare: float
    ratio: float  # time of the inspector over time of bare onnxruntime


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """All that was measured."""

    model: str
    provider: str
    processor: str
    threads: int  # of `start`, `stages` and `overhead`
    image: str
    verdict: str
    start: dict[str, float]  # seconds
    stages: dict[str, Timing]
    inspect: Timing  # Inspector.inspect on prepared input at batch 1
    bare: Timing  # bare onnxruntime on the same
    overhead: float  # inspect / bare
    speeds: list[Speed]


def measure(model: Path, image: Path | None, provider: str, threads: str, batches: str, seconds: float) -> Report:
    """Runs all measurements; about (2 + threads x batches) * `seconds`.

    Raises:
        ConfigInvalid: a list that cannot be read. And all that `Inspector` and `read_image` raise.
    """
    cores = machine.usable_cores()
    thread_counts = _numbers(threads or f"1..{cores}", "--threads")
    batch_sizes = _numbers(batches, "--batches")
    with Meter("measuring", 2 + len(thread_counts) * len(batch_sizes)) as meter:
        with Inspector(model, provider=provider, threads=max(thread_counts)) as inspector:
            spec = inspector.card.input
            data = _noise(spec) if image is None else _bytes(image)
            meter.note = "stages"
            stages, verdict = _stages(inspector, data, seconds)
            meter.step(note="overhead")
            whole = decode_image(data)
            ready: Any = np.ascontiguousarray(prepare(whole, spec)[0])
            bare_session = _bare(model, inspector.provider, inspector.threads)
            ours, bare = in_turn(
                lambda: inspector.inspect(ready), lambda: bare_session.run(None, {"pixels": ready[None]}), seconds
            )
            meter.step()
            start, granted = dict(inspector.start_seconds), inspector.provider
        speeds = []
        for count in thread_counts:
            with Inspector(model, provider=provider, threads=count, self_test=False) as inspector:
                session = _bare(model, inspector.provider, count)
                for batch in batch_sizes:
                    speeds.append(_speed(inspector, session, ready, batch, seconds))
                    meter.step(note=f"{count} threads, batch {batch}")
    return Report(
        model=str(model),
        provider=granted,
        processor=machine.processor(),
        threads=max(thread_counts),
        image=f"{'noise' if image is None else image}, {whole.shape[1]} x {whole.shape[0]}, {len(data):,} bytes",
        verdict=verdict,
        start=start,
        stages=stages,
        inspect=ours,
        bare=bare,
        overhead=ours.p10 / bare.p10,
        speeds=speeds,
    )


def show(report: Report, *, as_json: bool) -> None:
    """Prints the report."""
    if as_json:
        print(json.dumps(asdict(report), indent=2))
        return
    out = stdout()
    out.print(f"[bold]{escape(report.model)}[/] on {report.provider}, {escape(report.processor)}", soft_wrap=True)
    out.print(f"image: {escape(report.image)}; verdict {report.verdict}", soft_wrap=True)
    start = ", ".join(f"{stage} {seconds * 1e3:.0f} ms" for stage, seconds in report.start.items())
    out.print(f"cold start: {sum(report.start.values()) * 1e3:.0f} ms ({start})", soft_wrap=True)
    table = Table(
        f"one image, {report.threads} threads", "p10 ms", "p50 ms", "p99 ms", "runs", box=None, pad_edge=False
    )
    rows = {
        **report.stages,
        "inspect, input prepared": report.inspect,
        "bare onnxruntime, the same": report.bare,
    }
    for name, timing in rows.items():
        table.add_row(name, f"{timing.p10:.3f}", f"{timing.p50:.3f}", f"{timing.p99:.3f}", str(timing.rounds))
    out.print()
    out.print(table)
    out.print(f"inspect / bare onnxruntime: [bold]{report.overhead:.3f}[/]")
    speeds = Table("threads", "batch", "images/s", "bare images/s", "time ratio", box=None, pad_edge=False)
    for speed in report.speeds:
        speeds.add_row(
            str(speed.threads), str(speed.batch), f"{speed.inspector:.1f}", f"{speed.bare:.1f}", f"{speed.ratio:.3f}"
        )
    out.print()
    out.print(speeds)


def _stages(inspector: Inspector, data: bytes, seconds: float) -> tuple[dict[str, Timing], str]:
    """The stages of one image from its bytes to its verdict, and that verdict."""
    times: dict[str, list[float]] = {stage: [] for stage in STAGES}
    clock = time.perf_counter
    until = clock() + seconds
    while clock() < until or len(times["whole"]) < MIN_ROUNDS:
        started = clock()
        pixels = decode_image(data)
        decoded = clock()
        result = inspector.inspect(pixels)
        ended = clock()
        times["decode"].append(decoded - started)
        times["whole"].append(ended - started)
        for stage in ("prepare", "network", "postprocess"):
            times[stage].append(result.seconds[stage])
    return {stage: _timing(values) for stage, values in times.items()}, result.verdict.value


def _speed(inspector: Inspector, session: Any, ready: Any, batch: int, seconds: float) -> Speed:
    stack = np.ascontiguousarray(np.stack([ready] * batch))
    images = [ready] * (4 * batch)

    def ours() -> None:
        if batch == 1:
            for image in images:
                inspector.inspect(image)
        else:
            for _ in inspector.inspect_many(images, batch=batch):
                pass

    def bare() -> None:
        for _ in range(4):
            session.run(None, {"pixels": stack})

    one, other = in_turn(ours, bare, seconds, least=5)
    return Speed(
        threads=inspector.threads,
        batch=batch,
        inspector=len(images) / one.p10 * 1e3,
        bare=len(images) / other.p10 * 1e3,
        ratio=one.p10 / other.p10,
    )


def in_turn(
    one: Callable[[], object], other: Callable[[], object], seconds: float, least: int = MIN_ROUNDS
) -> tuple[Timing, Timing]:
    """Times both, in turns and each first every other time."""
    clock = time.perf_counter
    pair = (one, other)
    times: tuple[list[float], list[float]] = ([], [])
    for run in pair:  # neither pays for the first touch of memory
        run()
    until = clock() + seconds
    turn = 0
    while clock() < until or turn < least:
        for index in (0, 1) if turn % 2 else (1, 0):
            started = clock()
            pair[index]()
            times[index].append(clock() - started)
        turn += 1
    return _timing(times[0]), _timing(times[1])


def _timing(values: list[float]) -> Timing:
    p10, p50, p99 = np.percentile(np.asarray(values) * 1e3, [10, 50, 99])
    return Timing(p10=float(p10), p50=float(p50), p99=float(p99), rounds=len(values))


def _bare(model: Path, provider: str, threads: int) -> Any:
    """A session as anybody would make it: onnxruntime's defaults, but for the same number of threads."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(read_model(model), options, providers=[PROVIDERS[provider]])


def _noise(spec: InputSpec) -> bytes:
    shape = (spec.height, spec.width) if spec.channels == 1 else (spec.height, spec.width, spec.channels)
    noise: Any = np.random.default_rng(0).integers(0, spec.white, shape, endpoint=True).astype(spec.dtype)
    _, data = cv2.imencode(".png", noise)
    return bytes(data)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ImageUnreadable(f"cannot be read: {error.strerror or error}.", where=str(path)) from error


def _numbers(text: str, option: str) -> list[int]:
    """`1..4` or `1,2,8` as numbers from 1 on."""
    first, dots, last = text.partition("..")
    try:
        numbers = list(range(int(first), int(last) + 1)) if dots else [int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 1:
        raise ConfigInvalid(f"`{text}` is no list of numbers from 1 on.", where=option, hint="Write 1..4 or 1,2,8.")
    return numbers
