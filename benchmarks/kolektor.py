"""Cracks in commutators (KolektorSDD) by how much is known of the training images: masks, labels, or good images alone.

python -m benchmarks.kolektor FOLDER [--budget 10m] [--out runs/kolektor]

FOLDER holds kosNN/PartK.jpg with masks (CC BY-NC-SA 4.0; Tabernik et al. 2020, arXiv 1903.08554). Split by item: all
eight surfaces of a commutator are on one side. One split, by the seed; the same test images for all three rows.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.road import machine, walk
from datasets import open_dataset
from datasets.sample import Dataset, Sample, Split
from datasets.split import assign
from training.config import parse_change, read_config

SHARES: dict[Split, float] = {"train": 0.50, "calibration": 0.15, "test": 0.35}
ROWS = ["masks", "labels", "good"]
SETTINGS: dict[str, Any] = {"input.width": 256, "input.height": 640, "batch": 8, "steps": 300, "evaluations": 5}


def main() -> None:
    """Trains, exports and judges for each kind of knowledge, and prints the table."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--budget", default="10m", help="wall time of training for each row")
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--threads", type=int, default=None, help="of torch")
    arguments.add_argument(
        "--rows", nargs="+", default=["masks", "labels", "good"], choices=["masks", "labels", "good"]
    )
    arguments.add_argument("--out", type=Path, default=Path("runs/kolektor"))
    arguments.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="other settings of training")
    given = arguments.parse_args()
    items = open_dataset(given.folder)
    # kos39 shows the commutator of kos38 again (its Part K is Part K-2 there): `inspection data check` names the pairs.
    items = items.with_samples(replace(s, lot="kos38") if s.lot == "kos39" else s for s in items)
    dataset = assign(items, SHARES, seed=given.seed)
    print(machine())
    print(
        f"{'known':<8} {'network':<10} {'AP':>7} {'AUROC':>7} "
        f"{'escapes':>9} {'overkill':>9} {'review':>7} {'train s':>8}"
    )
    figures: dict[str, Any] = {"machine": machine(), "budget": given.budget, "seed": given.seed}
    for known in given.rows:
        changes = {**SETTINGS, "budget": given.budget, "seed": given.seed, "hardware.threads": given.threads}
        changes |= dict(parse_change(text) for text in given.set)
        judged = walk(_only(dataset, known), read_config(None, changes), given.out / known)
        figures[known] = {name: getattr(judged, name) for name in judged.__slots__}
        print(
            f"{known:<8} {judged.network:<10} {judged.ap:>7.4f} {judged.auroc:>7.4f} "
            f"{f'{judged.escapes}/{judged.bad}':>9} {f'{judged.overkill}/{judged.good}':>9} {judged.review:>7} "
            f"{judged.wall_seconds:>8.0f}",
            flush=True,
        )
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "kolektor.json").write_text(json.dumps(figures, indent=2) + "\n")


def _only(dataset: Dataset, known: str) -> Dataset:
    """The dataset with no more known of its images to learn from than `known` says; the test split stays as it is."""
    if known == "masks":
        return dataset
    if known == "labels":
        return dataset.with_samples(s if s.split == "test" else replace(s, mask=None) for s in dataset)

    def stays(sample: Sample) -> bool:
        return sample.split == "test" or sample.label == "good"

    return dataset.with_samples(sample for sample in dataset if stays(sample))


if __name__ == "__main__":
    main()
