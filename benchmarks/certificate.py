"""Whether the exported file judges like the network: every network on every data set, over all calibration and test
images. The networks are trained for a minute only: parity is a matter of the graph and its weights, not of quality.

python -m benchmarks.certificate FOLDER... [--budget 45s] [--out runs/certificate]

Each FOLDER is a data set in any layout that `inspection train` reads; `elpv` is the installed package.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from benchmarks.road import machine, walk
from datasets import open_dataset
from training.config import read_config

NETWORKS = ("defectnet", "classifier", "patchcore")


def main() -> None:
    """Trains, exports and compares, and prints the table."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("data", nargs="+", help="data sets")
    arguments.add_argument("--budget", default="45s", help="wall time of training for each row")
    arguments.add_argument("--threads", type=int, default=None, help="of torch")
    arguments.add_argument("--out", type=Path, default=Path("runs/certificate"))
    given = arguments.parse_args()
    print(machine())
    print(f"{'data':<16} {'network':<10} {'images':>7} {'flips':>6} {'scores move':>12}   (relative; 1e-3 allowed)")
    for path in given.data:
        dataset = open_dataset(path)
        for network in NETWORKS:
            settings: dict[str, Any] = {"model.kind": network, "budget": given.budget, "evaluations": 1}
            settings["hardware.threads"] = given.threads
            if network == "classifier" and not any(s.label == "defect" and s.split != "test" for s in dataset):
                print(f"{dataset.name:<16} {network:<10} has no defect to learn from", flush=True)
                continue
            judged = walk(dataset, read_config(None, settings), given.out / f"{dataset.name}-{network}")
            images = judged.good + judged.bad
            print(
                f"{dataset.name:<16} {network:<10} {images:>7} {judged.flips:>6} {judged.difference:>12.1e}", flush=True
            )


if __name__ == "__main__":
    main()
