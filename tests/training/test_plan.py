"""What the data allows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datasets import open_dataset
from datasets.sample import Dataset
from inspection.errors import ConfigInvalid, DataInvalid
from inspection.modelfile import Resize
from models.options import DefectNetOptions
from tests.support.images import class_folders, pairs, save, surface
from training.config import TrainConfig, read_config
from training.plan import plan

pytestmark = pytest.mark.train


def _all_train(root: Path) -> Dataset:
    dataset = open_dataset(root, "folders" if any(root.glob("*/000.png")) else None)
    return dataset.with_samples(replace(sample, split="train") for sample in dataset)


def _planned(root: Path, **changes: Any) -> Any:
    return plan(read_config(None, changes), _all_train(root))


@pytest.mark.parametrize(
    ("good", "bad", "network", "tuned"),
    [(6, 4, "defectnet", "yes"), (60, 0, "patchcore", None), (6, 0, "patchcore", None)],
)
def test_the_default_network_follows_from_what_is_known(
    tmp_path: Path, good: int, bad: int, network: str, tuned: str | None
) -> None:
    made = _planned(class_folders(tmp_path, good=good, bad=bad))
    assert made.config.model.kind == network
    assert made.task == "defect"
    assert f"{good} good" in made.sentence
    if isinstance(made.config.model, DefectNetOptions):
        assert made.config.model.tune_backbone == tuned


def test_defectnet_on_good_images_alone_leaves_the_backbone_as_it_is(tmp_path: Path) -> None:
    made = _planned(class_folders(tmp_path, good=6, bad=0), **{"model.kind": "defectnet"})
    assert isinstance(made.config.model, DefectNetOptions)
    assert made.config.model.tune_backbone == "no"


def test_kinds_without_good_images_are_told_apart(tmp_path: Path) -> None:
    made = _planned(class_folders(tmp_path, good=0, kinds=("dent", "scratch")))
    assert (made.config.model.kind, made.task, made.classes) == ("classifier", "kinds", ("dent", "scratch"))


def test_a_classifier_of_good_and_bad_has_a_good_class(tmp_path: Path) -> None:
    made = _planned(class_folders(tmp_path), **{"model.kind": "classifier"})
    assert made.classes == ("good", "scratch")


def test_defects_that_nobody_named_are_one_class(tmp_path: Path) -> None:
    dataset = _all_train(pairs(tmp_path))
    nameless = dataset.with_samples(replace(sample, kind=None) for sample in dataset)
    made = plan(read_config(None, {"model.kind": "classifier"}), nameless)
    assert made.classes == ("good", "defect")


@pytest.mark.parametrize(
    ("good", "kinds", "network", "error"),
    [
        (6, (), "classifier", "two classes"),
        (0, ("dent",), "classifier", "two classes"),
        (0, ("dent",), "patchcore", "no"),
        (0, ("dent",), "defectnet", "needs good images"),
    ],
)
def test_a_network_that_these_images_cannot_teach_is_refused(
    tmp_path: Path, good: int, kinds: tuple[str, ...], network: str, error: str
) -> None:
    with pytest.raises(ConfigInvalid, match=error):
        _planned(class_folders(tmp_path, good=good, kinds=kinds), **{"model.kind": network})


def test_one_kind_of_defect_and_nothing_else_teaches_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataInvalid, match="nothing to tell apart"):
        _planned(class_folders(tmp_path, good=0))


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        (300, 300, (288, 288)),  # native, rounded
        (1260, 500, (640, 256)),  # shrunk to the budget in its own proportions
        (96, 96, (256, 256)),  # enlarged
        (40, 4000, (64, 4000)),  # never thinner than two strides of 32
    ],
)
def test_the_input_keeps_the_proportions_within_the_budget(
    tmp_path: Path, height: int, width: int, expected: tuple[int, int]
) -> None:
    spec = _planned(class_folders(tmp_path, height=height, width=width)).spec
    assert spec.height == expected[0]
    assert spec.width % 32 == 0
    assert abs(spec.width - expected[1]) <= 16
    assert spec.resize is Resize.STRETCH


def test_a_size_that_is_asked_for_is_taken(tmp_path: Path) -> None:
    spec = _planned(class_folders(tmp_path), **{"input.width": 96, "input.height": 64}).spec
    assert (spec.width, spec.height) == (96, 64)


def test_images_of_other_proportions_are_letterboxed(tmp_path: Path) -> None:
    root = class_folders(tmp_path)
    save(root / "good" / "wide.png", surface(99, 48, 96))
    assert _planned(root).spec.resize is Resize.LETTERBOX


def test_depth_and_colour_are_those_of_the_files(tmp_path: Path) -> None:
    deep = _planned(class_folders(tmp_path / "deep", dtype=np.uint16)).spec
    assert (deep.channels, deep.bit_depth) == (1, 16)
    colour = _planned(class_folders(tmp_path / "colour", channels=3)).spec
    assert (colour.channels, colour.bit_depth) == (3, 8)
    stated = _planned(class_folders(tmp_path / "stated", dtype=np.uint16), **{"input.bit_depth": 12}).spec
    assert stated.bit_depth == 12


def test_a_plan_of_its_own_result_is_the_same(tmp_path: Path) -> None:
    dataset = _all_train(class_folders(tmp_path))
    once = plan(TrainConfig(), dataset)
    assert plan(once.config, dataset).config == once.config
