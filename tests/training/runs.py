"""Runs of seconds, from Python and from the shell, and what two of them are compared by."""

from __future__ import annotations

import csv
import os
import sys
from pathlib import Path
from typing import Any

import torch

from training.config import TrainConfig, read_config
from training.run import Run

COMMAND = str(Path(sys.executable).with_name("inspection"))
SMALL: dict[str, Any] = {
    "input.width": 64,
    "input.height": 64,
    "batch": 4,
    "steps": 30,
    "evaluations": 2,
    "hardware.threads": 1,
    "hardware.accelerator": "cpu",
    "model.kind": "defectnet",
    "model.width": 16,
}


def small(**changes: Any) -> TrainConfig:
    """30 steps of a small network on small images, with `changes`."""
    return read_config(None, {**SMALL, **changes})


def weights(run: Run) -> dict[str, torch.Tensor]:
    loaded: dict[str, torch.Tensor] = torch.load(run.path / "best.pt", weights_only=True)["weights"]
    return loaded


def equal(one: Run, other: Run) -> bool:
    """Whether the weights are the same, to the bit."""
    ours, theirs = weights(one), weights(other)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def rows(run: Run) -> list[dict[str, str]]:
    """The rows of the run's curves."""
    with (run.path / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


class Stopped(Exception):
    """What a test stops a training with."""


def command(parts: Path, out: Path, *more: str) -> list[str]:
    """The words that train like `small` from a shell, with `more`."""
    settings = [f"--set={key}={value}" for key, value in SMALL.items()]
    return [COMMAND, "train", str(parts), "--out", str(out), *settings, *more]


def environment() -> dict[str, str]:
    """One thread, as `small` has, so that the sums are the same."""
    return {**os.environ, "OMP_NUM_THREADS": "1"}
