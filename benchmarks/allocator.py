"""What keeping freed memory (`inspection.allocator`) saves: decoding one JPEG again and again in fresh processes.

python -m benchmarks.allocator [--rounds 3]
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time

import cv2
import numpy as np

from inspection.allocator import keep_buffers
from inspection.pixels import decode_image

SIZES = ((1000, 1000), (2000, 2500), (3000, 4000))  # height, width: 1, 5 and 12 megapixels
REPEATS = 20


def decode(height: int, width: int) -> tuple[float, float]:
    """Milliseconds and page faults of decoding one RGB JPEG, mean of many in this process."""
    rng = np.random.default_rng(0)
    grain = cv2.GaussianBlur(rng.integers(0, 255, (height, width, 3), np.uint8), (0, 0), 2)
    data = cv2.imencode(".jpg", grain)[1].tobytes()
    del grain
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    started = time.perf_counter()
    for _ in range(REPEATS):
        decode_image(data)
    seconds = time.perf_counter() - started
    return seconds / REPEATS * 1e3, (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults) / REPEATS


def fresh(height: int, width: int, keep: bool) -> tuple[float, float]:
    """`decode` in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.allocator", "--once", str(height), str(width), str(int(keep))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    milliseconds, faults = json.loads(done.stdout)
    return milliseconds, faults


def main() -> None:
    """Measures and prints a table; medians over the rounds, both ways in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--once", type=int, nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.once:
        height, width, keep = given.once
        if keep and not keep_buffers():
            raise SystemExit("this C library is not glibc, or the environment sets the allocator already")
        print(json.dumps(decode(height, width)))
        return
    print("| RGB JPEG | ms, default | ms, kept | page faults, default | kept |\n|---|---|---|---|---|")
    for height, width in SIZES:
        runs = np.array([[fresh(height, width, keep) for keep in (False, True)] for _ in range(given.rounds)])
        (ms, faults), (kept_ms, kept_faults) = np.median(runs, axis=0)
        print(f"| {height * width / 1e6:.0f} MP | {ms:.1f} | {kept_ms:.1f} | {faults:.0f} | {kept_faults:.0f} |")


if __name__ == "__main__":
    main()
