"""Figures of merit against scikit-learn and against slow direct references."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage
from sklearn.metrics import f1_score, roc_auc_score
from sklearn.metrics import precision_recall_curve as pixel_curve

from training.metrics import (
    PixelCounts,
    auroc,
    average_precision,
    f1_max,
    precision_recall_curve,
    roc_curve,
)

pytestmark = pytest.mark.train

few = st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=25)


@given(few, few)
def test_auroc_is_how_often_a_bad_one_lies_above_a_good_one(good: list[float], bad: list[float]) -> None:
    wins = [(b > g) + 0.5 * (b == g) for g in good for b in bad]
    assert auroc(good, bad) == pytest.approx(np.mean(wins))


@given(few, few)
def test_f1_max_is_the_best_that_any_threshold_gives(good: list[float], bad: list[float]) -> None:
    truth = [0] * len(good) + [1] * len(bad)
    every = np.array(good + bad)
    direct = max(f1_score(truth, every >= t) for t in every)
    found = f1_max(good, bad)
    assert found is not None
    assert found[0] == pytest.approx(direct)
    assert f1_score(truth, every >= found[1]) == pytest.approx(direct)


@given(few, few)
def test_average_precision_sums_precision_over_the_steps_of_recall(good: list[float], bad: list[float]) -> None:
    total, recall_before = 0.0, 0.0
    for t in sorted({*good, *bad}, reverse=True):
        hits, false = sum(b >= t for b in bad), sum(g >= t for g in good)
        total += (hits / len(bad) - recall_before) * hits / (hits + false)
        recall_before = hits / len(bad)
    assert average_precision(good, bad) == pytest.approx(total)


def test_a_set_with_one_kind_of_part_has_no_figure_rather_than_a_wrong_one() -> None:
    assert auroc([1, 2], []) is average_precision([], [1]) is f1_max([], [1]) is roc_curve([], [1]) is None
    assert precision_recall_curve([1.0], []) is None


def _images(seed: int, count: int = 6) -> list[tuple[NDArray[np.float32], NDArray[np.bool_]]]:
    draw = np.random.default_rng(seed)
    made = []
    for index in range(count):
        mask = np.zeros((40, 52), np.bool_)
        for _ in range(index % 4):
            y, x, h, w = draw.integers(0, 30), draw.integers(0, 40), draw.integers(1, 10), draw.integers(1, 12)
            mask[y : y + h, x : x + w] = True
        values = ndimage.gaussian_filter(draw.normal(size=mask.shape), 1) * 3 + mask * draw.uniform(0, 2)
        made.append((values.astype(np.float32), mask))
    return made


def _direct_pro(images: list[tuple[NDArray[np.float32], NDArray[np.bool_]]], limit: float) -> float:
    """By its definition: every distinct value is a threshold, every connected region is looked at on its own."""
    regions = []
    for values, mask in images:
        labels, count = ndimage.label(mask, np.ones((3, 3)))
        regions += [values[labels == index] for index in range(1, count + 1)]
    sound = np.concatenate([values[~mask] for values, mask in images])
    x, y = [0.0], [0.0]
    for t in np.unique(np.concatenate([values.ravel() for values, _ in images]))[::-1]:
        x.append(float((sound >= t).mean()))
        y.append(float(np.mean([(region >= t).mean() for region in regions])))
    grid = np.concatenate([[p for p in x if p < limit], [limit]])
    heights = np.concatenate([[q for p, q in zip(x, y, strict=True) if p < limit], [np.interp(limit, x, y)]])
    return float(np.trapezoid(heights, grid)) / limit


@pytest.mark.parametrize("seed", range(3))
def test_pixel_figures_agree_with_a_slow_direct_reference(seed: int) -> None:
    images = _images(seed)
    counts = PixelCounts()
    for values, mask in images:
        counts.add(values, mask)
    figures = counts.figures()
    every = np.concatenate([values.ravel() for values, _ in images])
    truth = np.concatenate([mask.ravel() for _, mask in images])
    assert figures.auroc == pytest.approx(roc_auc_score(truth, every), abs=1e-4)
    assert figures.pro == pytest.approx(_direct_pro(images, 0.3), abs=2e-3)
    precision, recall, _ = pixel_curve(truth, every)
    assert figures.f1_max == pytest.approx((2 * precision * recall / (precision + recall + 1e-9)).max(), abs=1e-3)
    assert figures.threshold is not None
    assert f1_score(truth, every >= figures.threshold) == pytest.approx(figures.f1_max, abs=1e-9)
    assert counts.threshold() == figures.threshold


def test_a_small_defect_weighs_as_much_as_a_large_one_in_pro() -> None:
    mask = np.zeros((64, 64), np.bool_)
    mask[2:42, 2:42] = True
    mask[60, 60] = True
    found_large, found_small = mask.astype(np.float32), mask.astype(np.float32)
    found_large[60, 60], found_small[2:42, 2:42] = -1, -1
    results = []
    for values in (found_large, found_small):
        counts = PixelCounts()
        counts.add(values, mask)
        results.append(counts.figures().pro)
    assert results == [pytest.approx(0.5, abs=1e-6)] * 2


def test_perfect_maps_score_one_whatever_their_scale() -> None:
    for scale in (1e-6, 1.0, -3.0, 1e9):
        counts = PixelCounts()
        for _, mask in _images(4):
            counts.add(np.where(mask, 1.0 + abs(scale), -abs(scale)).astype(np.float32) * np.float32(abs(scale)), mask)
        figures = counts.figures()
        assert (figures.auroc, figures.pro, figures.f1_max) == (1.0, pytest.approx(1.0), 1.0)


def test_without_masks_the_threshold_is_what_one_good_pixel_in_a_thousand_exceeds() -> None:
    draw = np.random.default_rng(5)
    maps = [draw.normal(3, 2, (100, 100)).astype(np.float32) for _ in range(5)]
    counts = PixelCounts()
    for values in maps:
        counts.add(values)
    threshold = counts.threshold()
    assert counts.figures().auroc is None
    assert threshold == pytest.approx(np.quantile(maps, 0.999), rel=2e-3)
    assert np.mean(np.array(maps) >= threshold) <= 0.001


def test_no_image_gives_no_threshold() -> None:
    assert PixelCounts().threshold() is None


def test_maps_that_are_nan_or_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        PixelCounts().add(np.full((3, 3), np.nan, np.float32))
    with pytest.raises(ValueError, match="cannot be compared"):
        PixelCounts().add(np.zeros((3, 3), np.float32), np.zeros((4, 3), np.bool_))
