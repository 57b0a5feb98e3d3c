"""A run folder: what was asked, what was done, and what came of it.

    run.json         status, seed, versions, data, plan, timings        config.yaml   the whole configuration
    manifest.csv     the samples with their splits, as they were        metrics.csv   curves (also in tensorboard/)
    checkpoint.pt    to go on from after a stop                         best.pt       the weights that are exported
    calibration.json operating point, its scores and bounds

Every file is written in one step. `.pt` files hold tensors and plain values only and load with `weights_only=True`.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import pickle
import platform
import shutil
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from pydantic import Field, ValidationError

from datasets import open_dataset
from datasets.sample import Dataset
from inspection.config import load_yaml
from inspection.errors import DataInvalid, OutputUnwritable
from inspection.files import write_text, writing
from inspection.modelfile import Calibration, DataRecord, InputSpec, OperatingPoint, Value
from models import build
from models.network import Network
from training.config import TrainConfig, write_config

RECORD, CONFIG, MANIFEST, METRICS = "run.json", "config.yaml", "manifest.csv", "metrics.csv"
CHECKPOINT, BEST, CALIBRATION, BOARD = "checkpoint.pt", "best.pt", "calibration.json", "tensorboard"
WRITTEN = [Path(name).stem for name in (RECORD, CONFIG, MANIFEST, METRICS, CHECKPOINT, BEST, CALIBRATION)]
PACKAGES = (
    "lightsout-inspection", "torch", "torchvision", "lightning-fabric", "albumentations", "numpy",
    "opencv-python-headless", "onnx", "onnxruntime",
)  # fmt: skip

Kind = TypeVar("Kind", bound=Value)


class Schedule(Value):
    """How long the run is; fixed before the first step, so that a resumed run goes the same way."""

    steps: int
    evaluate_at: list[int]  # after how many steps
    seconds_per_step: float | None = None  # as measured when a budget was given


class Best(Value):
    """Which weights were kept."""

    step: int
    criterion: str  # what was compared, or why nothing could be
    value: float | None = None


class RunRecord(Value):
    """What a run was and did."""

    status: Literal["running", "finished"] = "running"
    name: str
    network: str
    task: Literal["defect", "kinds"]
    sentence: str  # what was chosen and why
    seed: int
    input: InputSpec
    classes: list[str]
    data: DataRecord
    weights: str  # where the starting weights came from
    weights_licence: str
    versions: dict[str, str]
    machine: dict[str, str | int | bool]  # device, precision, threads, determinism
    schedule: Schedule | None = None
    best: Best | None = None
    calibration: dict[str, float] = Field(default_factory=dict)  # figures of the kept weights on the calibration split
    wall_seconds: float = 0.0  # over all starts; what was lost in a kill is not counted
    cpu_seconds: float = 0.0
    started: str  # ISO 8601, UTC
    finished: str | None = None


class Calibrated(Value):
    """calibration.json: the operating point, and the scores and bounds behind it."""

    operating_point: OperatingPoint
    calibration: Calibration


class Run:
    """A run folder that stands.

    Raises:
        DataInvalid: no run, or a damaged one.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not (self.path / RECORD).is_file():
            raise DataInvalid(
                "this is no run: it has no run.json.", where=str(path), hint="Make one: inspection train DATA --out RUN"
            )
        self.record = read_json(self.path / RECORD, RunRecord)
        self.config = load_yaml(self.path / CONFIG, TrainConfig)

    @property
    def finished(self) -> bool:
        """Whether training came to its end."""
        return self.record.status == "finished"

    @property
    def spec(self) -> InputSpec:
        """What the network takes."""
        return self.record.input

    @property
    def classes(self) -> tuple[str, ...]:
        """Names in the order of the network's class scores."""
        return tuple(self.record.classes)

    def network(self) -> Network:
        """The network with the weights that were kept, on the CPU, in evaluation mode.

        Raises:
            DataInvalid: the run has not finished, or its weights are damaged.
        """
        if not self.finished:
            raise DataInvalid(
                "this run has not finished.",
                where=str(self.path),
                hint="Start the same `inspection train` again: it goes on.",
            )
        assert self.config.model is not None
        network = build(self.config.model, self.spec, self.classes, self.record.seed, pretrained=False)
        network.load_state_dict(load_tensors(self.path / BEST)["weights"])
        return network.eval()

    def dataset(self) -> Dataset:
        """The samples with their splits, as they were when training began."""
        return open_dataset(self.path / MANIFEST)

    def calibrated(self) -> Calibrated | None:
        """The operating point and what is behind it; None where the calibration split could not give one."""
        path = self.path / CALIBRATION
        return read_json(path, Calibrated) if path.is_file() else None


def begin(path: Path, config: TrainConfig, dataset: Dataset, record: RunRecord) -> None:
    """Lays out a new run folder; run.json last, because that is what makes it one. Raises OutputUnwritable."""
    write_config(config, path / CONFIG)
    dataset.write(path / MANIFEST)
    save_record(path, record)


def save_record(path: Path, record: RunRecord) -> None:
    """Writes run.json. Raises OutputUnwritable."""
    write_text(path / RECORD, record.model_dump_json(indent=2) + "\n")


def clear(path: Path) -> None:
    """Removes the run in `path`, and nothing that is no run's.

    Raises:
        OutputUnwritable: the folder cannot be written.
    """
    for name in (RECORD, CONFIG, MANIFEST, METRICS, CHECKPOINT, BEST, CALIBRATION):
        try:
            (path / name).unlink(missing_ok=True)
        except OSError as error:
            raise OutputUnwritable(f"cannot be removed: {error.strerror}.", where=str(path / name)) from error
    shutil.rmtree(path / BOARD, ignore_errors=True)


def save_tensors(path: Path, values: dict[str, Any]) -> None:
    """Writes tensors and plain values. Raises OutputUnwritable."""
    with writing(path) as temporary:
        torch.save(values, temporary)


def load_tensors(path: Path) -> dict[str, Any]:
    """Reads what `save_tensors` wrote, to the CPU. Raises DataInvalid."""
    try:
        values: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, ValueError) as error:
        raise DataInvalid(
            "the file is missing or damaged.", where=str(path), hint="Train again with --restart."
        ) from error
    return values


def read_json(path: Path, kind: type[Kind]) -> Kind:
    """Reads one of the run's JSON files. Raises DataInvalid."""
    try:
        return kind.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise DataInvalid(
            f"cannot be read as {kind.__name__}.", where=str(path), hint="Train again with --restart."
        ) from error


def versions() -> dict[str, str]:
    """What this process runs on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:  # another distribution of the same module, onnxruntime-gpu
            continue
    return found


def now() -> str:
    """ISO 8601, UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def cpu_clock() -> float:
    """CPU seconds of this process and all its threads."""
    times = os.times()
    return times.user + times.system
