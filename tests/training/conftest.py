"""A small run and its model file, made once for all tests that only look at them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.images import class_folders, pairs

SMALL: dict[str, Any] = {
    "input.width": 64,
    "input.height": 64,
    "batch": 8,
    "steps": 80,
    "evaluations": 2,
    "hardware.threads": 1,
    "hardware.accelerator": "cpu",
    "hardware.precision": "32-true",
    "model": {"kind": "defectnet", "width": 16},
    "asks.max_escape": "40%",
    "asks.max_overkill": "30%",
}

Train = Callable[..., Any]


@pytest.fixture(scope="session")
def train_small(tmp_path_factory: pytest.TempPathFactory) -> Train:
    """`train_small(folder, **settings)` trains for a few steps and gives the run."""
    from datasets import open_dataset
    from training.config import read_config
    from training.fit import fit

    def train(data: Path, **changes: Any) -> Any:
        dataset = open_dataset(data)
        config = read_config(None, {**SMALL, **changes})
        return fit(config, dataset, tmp_path_factory.mktemp("runs") / "run")

    return train


@pytest.fixture(scope="session")
def commutators(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 lots of 4 images, 64 x 64; the first of each lot has a scratch and a mask."""
    return pairs(tmp_path_factory.mktemp("commutators"), lots=20, parts=4, height=64, width=64)


@pytest.fixture(scope="session")
def trained(train_small: Train, commutators: Path) -> Any:
    """A finished run of a defectnet with masks."""
    return train_small(commutators)


@pytest.fixture(scope="session")
def exported(trained: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model file of `trained`, fp32."""
    from training.export import export

    path = tmp_path_factory.mktemp("models") / "model.onnx"
    export(trained, path)
    return path


@pytest.fixture(scope="session")
def colours16(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """16-bit RGB images: good, and two kinds of defects."""
    return class_folders(
        tmp_path_factory.mktemp("colours16"),
        good=20,
        bad=10,
        kinds=("scratch", "scrape"),
        height=64,
        width=64,
        channels=3,
        dtype=np.uint16,
    )


@pytest.fixture
def traced_before(exported: Path, monkeypatch: pytest.MonkeyPatch) -> list[Callable[[Any], None]]:
    """Exports in this test take the graph that torch traced for `exported`: tracing takes most of an export's time.

    What is appended to the list is done to that graph (`onnx.ModelProto`) first.
    """
    import onnx

    import training.export

    changes: list[Callable[[Any], None]] = []

    def copy(network: Any, path: Path) -> None:
        model = onnx.load(exported)
        del model.metadata_props[:]
        for change in changes:
            change(model)
        onnx.save(model, path)

    monkeypatch.setattr(training.export, "to_onnx", copy)
    return changes


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 good and 24 scratched parts, 64 x 64."""
    return class_folders(tmp_path_factory.mktemp("parts"), good=48, bad=24, height=64, width=64)


@pytest.fixture(scope="session")
def whole(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The run of `tests.training.runs.small` on `parts` that nothing disturbed."""
    from datasets import open_dataset
    from tests.training.runs import small
    from training.fit import fit

    return fit(small(), open_dataset(parts), tmp_path_factory.mktemp("runs") / "whole")
