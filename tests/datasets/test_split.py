"""Splits keep groups together and give every split its share."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets import SPLITS, Dataset, Sample
from datasets.split import assign, straddling, stratum
from inspection.errors import ConfigInvalid


def dataset(samples: list[Sample]) -> Dataset:
    return Dataset(name="x", root=Path("/x"), layout="manifest", samples=tuple(samples))


def sample(index: int, **known: object) -> Sample:
    return Sample(path=Path(f"/x/{index:05}.png"), **known)  # type: ignore[arg-type]


groups = st.lists(
    st.tuples(st.none() | st.integers(0, 12), st.sampled_from(["good", "defect", None])), min_size=1, max_size=60
)
shares = st.tuples(*[st.floats(0, 1)] * 3).filter(lambda s: sum(s) > 0.1)


@settings(max_examples=150, deadline=None)
@given(rows=groups, share=shares, seed=st.integers(0, 99))
def test_groups_never_straddle_and_every_sample_gets_a_split(
    rows: list[tuple[int | None, str | None]], share: tuple[float, float, float], seed: int
) -> None:
    data = dataset([sample(i, lot=None if g is None else f"lot{g}", label=label) for i, (g, label) in enumerate(rows)])
    fractions = {name: value / sum(share) for name, value in zip(SPLITS, share, strict=True)}
    done = assign(data, fractions, seed=seed)
    assert [s.path for s in done] == [s.path for s in data]
    assert all(s.split for s in done)
    assert straddling(done) == {}
    assert {s.split for s in done} <= {name for name, value in fractions.items() if value > 0}
    assert assign(data, fractions, seed=seed) == done


@settings(max_examples=40, deadline=None)
@given(good=st.integers(50, 300), bad=st.integers(10, 60), seed=st.integers(0, 9))
def test_single_images_are_dealt_to_within_one_of_what_was_asked(good: int, bad: int, seed: int) -> None:
    data = dataset([sample(i, label="good" if i < good else "defect") for i in range(good + bad)])
    done = assign(data, seed=seed)
    for label, total in (("good", good), ("defect", bad)):
        counts = Counter(s.split for s in done if s.label == label)
        for split, share in (("train", 0.6), ("calibration", 0.2), ("test", 0.2)):
            assert abs(counts[split] - share * total) <= 2


def test_lots_of_eight_come_near_the_shares_with_defects_in_every_split() -> None:
    """As KolektorSDD: 48 lots of 8, each with about one defect."""
    data = dataset([sample(i, lot=f"lot{i // 8}", label="defect" if i % 8 == 0 else "good") for i in range(384)])
    counts = assign(data, seed=1).counts()
    for split, share in (("train", 0.6), ("calibration", 0.2), ("test", 0.2)):
        assert abs(sum(counts[split].values()) - share * 384) <= 8, "to within one lot"
    assert all(row["defect"] >= 9 for row in counts.values())


def test_kinds_strata_and_probabilities_are_spread_evenly() -> None:
    rows = [
        sample(i, label="defect", kind=f"kind{i % 3}", stratum="mono" if i % 2 else "poly", probability=(i % 4) / 3)
        for i in range(480)
    ]
    done = assign(dataset(rows), seed=3)
    for key in {stratum(s) for s in rows}:
        counts = Counter(s.split for s in done if stratum(s) == key)
        total = sum(counts.values())
        assert abs(counts["train"] - 0.6 * total) <= 2
        assert abs(counts["test"] - 0.2 * total) <= 2


def test_other_seeds_give_other_splits() -> None:
    data = dataset([sample(i, label="good") for i in range(100)])
    assert assign(data, seed=1) != assign(data, seed=2)


def test_given_splits_stand_and_calibration_comes_out_of_train_by_group() -> None:
    rows = [sample(i, lot=f"lot{i // 5}", label="good", split="train") for i in range(100)]
    rows += [sample(200 + i, label="defect" if i % 2 else "good", split="test") for i in range(40)]
    done = assign(dataset(rows), seed=0)
    assert Counter(s.split for s in done) == {"train": 75, "calibration": 25, "test": 40}
    assert all(after.split == "test" for before, after in zip(rows, done, strict=True) if before.split == "test")
    assert straddling(done) == {}


def test_all_three_splits_given_are_left_alone() -> None:
    rows = [sample(i, label="good", split=SPLITS[i % 3]) for i in range(30)]
    assert assign(dataset(rows), seed=5) == dataset(rows)


def test_images_without_a_split_go_where_their_lot_is() -> None:
    rows = [sample(0, lot="a", split="test"), sample(1, lot="a"), sample(2, lot="b", split="train"), sample(3, lot="b")]
    assert [s.split for s in assign(dataset(rows))] == ["test", "test", "train", "train"]


@pytest.mark.parametrize("fractions", [{"train": 0.5}, {"train": 1.5, "test": -0.5}, {"train": 0.5, "tset": 0.5}])
def test_shares_that_make_no_sense_are_refused(fractions: dict[str, float]) -> None:
    with pytest.raises(ConfigInvalid):
        assign(dataset([sample(0)]), fractions)  # type: ignore[arg-type]
