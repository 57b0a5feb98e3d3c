"""Which image comes when: pure functions of seed and position."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets import open_dataset
from datasets.augment import AugmentOptions
from datasets.load import Loader
from datasets.sample import Sample
from inspection.modelfile import InputSpec
from tests.support.images import class_folders, pairs
from training.batches import Batches, Draws, ahead, class_of, derived

pytestmark = pytest.mark.train
SPEC = InputSpec(width=64, height=64, channels=1)


@given(st.integers(1, 30), st.integers(1, 30), st.floats(0.05, 0.95), st.integers(0, 1000), st.integers(0, 500))
def test_every_stretch_has_its_share_of_bad_images_to_within_one(
    good: int, bad: int, share: float, seed: int, start: int
) -> None:
    draws = Draws([False] * good + [True] * bad, share, seed)
    length = 64
    found = sum(draws[position] >= good for position in range(start, start + length))
    assert abs(found - share * length) <= 1


@given(st.integers(1, 20), st.integers(1, 20), st.sampled_from([0.25, 0.5, None]), st.integers(0, 1000))
def test_each_pass_shows_every_image_once(good: int, bad: int, share: float | None, seed: int) -> None:
    draws = Draws([False] * good + [True] * bad, share, seed)
    seen = [draws[position] for position in range(400)]
    goods = seen if share is None else [index for index in seen if index < good]
    size = good + bad if share is None else good
    for first in range(0, len(goods) - size, size):
        assert Counter(goods[first : first + size]) == Counter(range(size))


def test_another_seed_gives_another_order() -> None:
    flags = [False] * 50
    assert [Draws(flags, 0.5, 0)[p] for p in range(50)] != [Draws(flags, 0.5, 1)[p] for p in range(50)]


def test_a_position_means_the_same_whatever_was_drawn_before() -> None:
    flags = [False] * 7 + [True] * 3
    forward = Draws(flags, 0.5, 3)
    listed = [forward[p] for p in range(200)]
    assert [Draws(flags, 0.5, 3)[p] for p in reversed(range(200))] == listed[::-1]


def _batches(root: Path, *, rank: int = 0, world: int = 1, soft: bool = False, seed: int = 0) -> Batches:
    dataset = open_dataset(root)
    return Batches(
        dataset.samples,
        Loader(SPEC),
        AugmentOptions(),
        classes=("good", *dataset.kinds),
        good_class="good",
        batch=8,
        bad_share=0.5,
        soft_labels=soft,
        seed=seed,
        rank=rank,
        world=world,
    )


def test_two_devices_share_out_exactly_the_batch_of_one(tmp_path: Path) -> None:
    root = class_folders(tmp_path)
    whole = _batches(root)[5]
    halves = [_batches(root, rank=rank, world=2)[5] for rank in (0, 1)]
    for name in ("pixels", "defective", "kind", "mask", "mask_known"):
        together = torch.cat([getattr(half, name) for half in halves])
        assert torch.equal(together, getattr(whole, name)), name
    assert all(half.defective.sum() == 2 for half in halves)  # each device sees good and bad


def test_a_step_is_augmented_alike_in_every_run_and_differently_in_another_pass(tmp_path: Path) -> None:
    root = class_folders(tmp_path, good=4, bad=4)
    assert torch.equal(_batches(root)[3].pixels, _batches(root)[3].pixels)
    assert not torch.equal(_batches(root, seed=1)[3].pixels, _batches(root)[3].pixels)
    batches = _batches(root)
    assert not torch.equal(batches[0].pixels.sort(0).values, batches[1].pixels.sort(0).values)


def test_what_is_known_arrives_with_the_pixels(tmp_path: Path) -> None:
    batch = _batches(pairs(tmp_path))[0]
    bad = batch.defective == 1
    assert bad.sum() == 4
    assert batch.mask_known.all()
    assert batch.mask[bad].flatten(1).any(1).all()
    assert not batch.mask[~bad].any()
    assert batch.pixels.dtype == torch.uint8
    assert batch.pixels.shape == (8, 64, 64, 1)


def test_the_place_of_a_defect_that_is_only_labelled_is_not_known(tmp_path: Path) -> None:
    batch = _batches(class_folders(tmp_path))[0]
    assert torch.equal(batch.mask_known, batch.defective == 0)
    assert torch.equal(batch.kind, batch.defective.long())  # good is class 0, scratch class 1


@pytest.mark.parametrize(
    ("sample", "expected"),
    [
        (Sample(path=Path("a"), label="good"), 0),
        (Sample(path=Path("a"), label="defect", kind="dent"), 1),
        (Sample(path=Path("a"), label="defect"), 2),
        (Sample(path=Path("a"), label="defect", kind="other"), -1),
        (Sample(path=Path("a")), -1),
    ],
)
def test_the_class_of_a_sample(sample: Sample, expected: int) -> None:
    assert class_of(sample, {"good": 0, "dent": 1, "defect": 2}, "good") == expected


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 4), st.integers(0, 12))
def test_batches_made_ahead_come_in_order_whatever_the_threads(workers: int, count: int) -> None:
    def make(step: int) -> int:
        time.sleep(0.001 * (step % 3))
        return step * step

    assert list(ahead(make, range(count), workers)) == [step * step for step in range(count)]


def test_an_error_while_making_a_batch_comes_at_its_turn() -> None:
    def make(step: int) -> int:
        if step == 3:
            raise ValueError("step 3")
        return step

    made = ahead(make, range(10), 2)
    assert [next(made) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="step 3"):
        next(made)


def test_seeds_for_different_purposes_do_not_meet() -> None:
    seeds = {derived(seed, purpose, step) for seed in range(5) for purpose in range(3) for step in range(200)}
    assert len(seeds) == 5 * 3 * 200
