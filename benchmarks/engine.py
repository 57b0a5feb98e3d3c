"""What the inspector costs over bare onnxruntime, and what the choices in `inspection/engine.py` are worth.

    python -m benchmarks.engine [--threads 2] [--seconds 5] [--json]

Builds networks of about 2 to 20 ms with the onnx package (`tests/support/graphs.py`) and lets two sides take turns, so
that a machine with other work slows both alike. Times are 10th percentiles: the runs that nobody disturbed.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime

from inspection.bench import in_turn
from inspection.engine import session_options
from inspection.inspector import Inspector
from inspection.machine import processor, usable_cores
from tests.support import graphs

SIZES = ((128, 4), (256, 2), (256, 8))  # height and width, convolutions


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--seconds", type=float, default=5.0, help="for each comparison")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for side, layers in SIZES:
            model = graphs.model_file(
                Path(folder) / f"{side}-{layers}.onnx", graphs.spec(height=side, width=side), layers=layers
            )
            for threads in sorted({1, options.threads}):
                rows += compare(model, side, threads, options.seconds)
    if options.json:
        print(json.dumps({"processor": processor(), "rows": rows}, indent=2))
        return
    print(f"{processor()}, {usable_cores()} cores")
    for row in rows:
        print(
            f"{row['network']:>10}  {row['threads']} threads  {row['what']:<58}"
            f"{row['one']:8.3f} / {row['other']:8.3f} ms = {row['ratio']:.3f}"
        )


def compare(model: Path, side: int, threads: int, seconds: float) -> list[dict[str, Any]]:
    """All comparisons on one network."""
    image = np.full((side, side, 3), 20, np.uint8)
    batch = image[None]
    data = model.read_bytes()
    ours = Inspector(model, threads=threads)
    same = bare(data, session_options(threads))
    spinning = onnxruntime.SessionOptions()
    spinning.intra_op_num_threads = threads
    default = bare(data, spinning)
    binding = same.io_binding()
    value = onnxruntime.OrtValue.ortvalue_from_numpy(batch)
    names = [output.name for output in same.get_outputs()]

    def bound() -> None:
        binding.bind_ortvalue_input("pixels", value)
        for name in names:
            binding.bind_output(name)
        same.run_with_iobinding(binding)
        binding.copy_outputs_to_cpu()

    jpeg = cv2.imencode(".jpg", np.random.default_rng(0).integers(0, 255, (1024, 1024, 3)).astype(np.uint8))[1]
    comparisons: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "Inspector.inspect / onnxruntime with the same options": (
            lambda: ours.inspect(image),
            lambda: same.run(None, {"pixels": batch}),
        ),
        "Inspector.inspect / onnxruntime's defaults (spinning)": (
            lambda: ours.inspect(image),
            lambda: default.run(None, {"pixels": batch}),
        ),
        "run with bound input and outputs / plain run": (bound, lambda: same.run(None, {"pixels": batch})),
        "decode 1 MP after a run: no spinning / spinning": (
            decoding(same, batch, jpeg),
            decoding(default, batch, jpeg),
        ),
    }
    rows = []
    for what, (one, other) in comparisons.items():
        first, second = in_turn(one, other, seconds)
        rows.append(
            {
                "network": f"{side}px x{layers_of(model)}",
                "threads": threads,
                "what": what,
                "one": first.p10,
                "other": second.p10,
                "ratio": first.p10 / second.p10,
            }
        )
    return rows


def decoding(session: Any, batch: Any, jpeg: Any) -> Callable[[], object]:
    """A run and then the decoding of the next image, as on a line: threads that spin after the run take its core."""

    def once() -> None:
        session.run(None, {"pixels": batch})
        cv2.imdecode(jpeg, cv2.IMREAD_UNCHANGED)

    return once


def bare(data: bytes, options: Any) -> Any:
    """A session without anything of ours around it."""
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def layers_of(model: Path) -> str:
    """The number of convolutions, from the file's name."""
    return model.stem.partition("-")[2]


if __name__ == "__main__":
    main()
