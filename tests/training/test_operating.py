"""Thresholds with a promise: against scipy, against published figures, and by drawing many calibration sets."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from inspection.errors import ConfigInvalid, DataInvalid
from inspection.modelfile import Bound, Calibration, OperatingPoint
from training.operating import Costs, band_bound, by_part, choose, errors_at, parts_needed, upper_bound

pytestmark = pytest.mark.train

numbers = st.floats(allow_nan=False, width=32)
few = st.integers(-3, 3).map(float)  # many ties
scores = st.lists(st.one_of(numbers, few), max_size=60)
some_scores = st.lists(st.one_of(numbers, few), min_size=1, max_size=60)
rates = st.one_of(st.none(), st.floats(0.001, 0.9))


def sides(calibration: Calibration) -> tuple[Bound, Bound]:
    escape, overkill = calibration.bounds
    assert (escape.kind, overkill.kind) == ("escape", "overkill")
    return escape, overkill


@pytest.mark.parametrize(
    ("parts", "rate"), [(20, 0.139), (59, 0.05), (110, 0.027), (299, 0.01), (2995, 0.001), (29956, 0.0001)]
)
def test_zero_misses_prove_what_the_table_says(parts: int, rate: float) -> None:
    assert upper_bound(0, parts) == pytest.approx(rate, rel=0.01)
    if parts > 110:
        assert parts_needed(rate) == parts


@given(st.integers(1, 3000), st.data(), st.floats(0.5, 0.999))
def test_the_bound_is_the_rate_at_which_so_few_errors_are_just_too_lucky(n: int, data: st.DataObject, c: float) -> None:
    errors = data.draw(st.integers(0, n - 1))
    assert stats.binom.cdf(errors, n, upper_bound(errors, n, c)) == pytest.approx(1 - c, rel=1e-6)
    assert stats.binomtest(errors, n, alternative="less").proportion_ci(c, "exact").high == pytest.approx(
        upper_bound(errors, n, c)
    )


@given(st.floats(0.0005, 0.5), st.floats(0.5, 0.99), st.integers(0, 5))
def test_the_parts_needed_are_the_fewest_that_prove_the_rate(rate: float, confidence: float, errors: int) -> None:
    needed = parts_needed(rate, confidence, errors)
    assert upper_bound(errors, needed, confidence) <= rate
    assert needed == errors + 1 or upper_bound(errors, needed - 1, confidence) > rate


def test_sets_that_do_not_overlap_get_one_threshold_between_them_and_the_counts_decide_the_promise() -> None:
    good, bad = np.linspace(0, 1, 200), np.linspace(3, 4, 70)
    point, calibration = choose(good, bad, max_escape=0.05, max_overkill=0.02)
    # 70 bad parts prove 5 % with none wrong, 200 good ones 2 % with one wrong (not with two): worked out by scipy.
    assert stats.binom.cdf(0, 70, 0.05) <= 0.05 < stats.binom.cdf(1, 70, 0.05)
    assert stats.binom.cdf(0, 200, 0.02) <= 0.05 < stats.binom.cdf(1, 200, 0.02)
    assert point.ok_below == point.ng_above == pytest.approx(2.0)
    assert [(b.errors, b.total, b.held, b.needed) for b in calibration.bounds] == [(0, 70, True, 0), (0, 200, True, 0)]
    assert json.loads(calibration.model_dump_json())["good"] == good.tolist()


def test_sets_that_overlap_get_a_review_band_and_both_promises_hold() -> None:
    draw = np.random.default_rng(0)
    good, bad = draw.normal(0, 1, 1000), draw.normal(1, 1, 1000)
    point, calibration = choose(good, bad, max_escape=0.01, max_overkill=0.01)
    assert point.ok_below < point.ng_above
    # k by its definition, independent of the code: the most errors that are unlikely enough at the asked rate
    k = max(k for k in range(1000) if stats.binom.cdf(k, 1000, 0.01) <= 0.05)
    escape, overkill = sides(calibration)
    assert escape.errors == int((bad < point.ok_below).sum()) == k
    assert overkill.errors == int((good >= point.ng_above).sum()) == k
    assert (escape.held, overkill.held) == (True, True)
    assert escape.upper == pytest.approx(stats.beta.ppf(0.95, k + 1, 1000 - k))
    counts = errors_at(point, good, bad)
    assert counts["escape"] == k
    assert counts["good_review"] + counts["bad_review"] > 0


def test_too_few_parts_give_the_safest_threshold_and_the_number_that_is_missing() -> None:
    point, calibration = choose([0.0, 0.1, 0.2], [1.0, 2.0], max_escape=0.005, max_overkill=0.02)
    escape, overkill = sides(calibration)
    assert 0.2 < point.ok_below <= 1.0
    assert (escape.held, escape.needed, overkill.held, overkill.needed) == (False, 598 - 2, False, 149 - 3)
    assert escape.upper == pytest.approx(1 - 0.05**0.5)


def test_the_missing_parts_once_added_do_prove_it() -> None:
    _, calibration = choose(np.zeros(5), np.arange(1, 11), max_escape=0.05)
    needed = sides(calibration)[0].needed
    for extra, held in ((needed - 1, False), (needed, True)):
        _, again = choose(np.zeros(5), np.concatenate([np.arange(1, 11), np.full(extra, 20.0)]), max_escape=0.05)
        assert sides(again)[0].held is held


def test_good_parts_alone_bound_overkill_and_say_that_escape_is_unknown() -> None:
    good = np.random.default_rng(1).normal(5, 1, 400)
    point, calibration = choose(good, [])
    escape, overkill = sides(calibration)
    assert point.ok_below == point.ng_above
    assert (escape.total, escape.upper, escape.held) == (0, 1.0, None)
    assert "escape: unknown" in calibration.method
    assert overkill.errors == 3  # binom.cdf(3, 400, .02) = 4.1 %, cdf(4) = 9.7 %
    assert overkill.upper <= 0.02
    _, asked = choose(good, [], max_escape=0.01)
    assert sides(asked)[0].held is False
    assert sides(asked)[0].needed == 299


def test_few_good_parts_alone_are_all_below_the_threshold_with_room() -> None:
    point, _ = choose([1.0, 2.0, 3.0], [])
    assert point.ng_above == pytest.approx(3.05)
    point, _ = choose([7.0], [])
    assert point.ng_above > 7.1


def test_the_asked_side_alone_gives_the_other_side_all_the_room_that_costs_no_part() -> None:
    good, bad = np.arange(100.0), np.arange(200.0, 260.0)
    escape_only, _ = choose(good, bad, max_escape=0.05)
    overkill_only, _ = choose(good, bad, max_overkill=0.05)
    assert escape_only.ok_below == escape_only.ng_above == pytest.approx((99 + 200) / 2)
    # 100 good parts prove 5 % with one wrong: the threshold may go down to 98, but only as far as bad parts gain
    assert overkill_only.ng_above == pytest.approx((98 + 99) / 2, abs=51)
    assert overkill_only.ok_below == overkill_only.ng_above


def test_nothing_asked_takes_the_lowest_balanced_error_in_its_widest_gap() -> None:
    point, calibration = choose([0, 1, 2, 3, 10], [2.5, 7, 8, 9, 11])
    # by hand: at 2 < t < 2.5 two of ten are wrong, and so are at 3 < t < 7; nothing is better, and 3 to 7 is wider
    assert point.ok_below == point.ng_above == pytest.approx(5)
    assert [(b.errors, b.asked, b.held) for b in calibration.bounds] == [(1, None, None), (1, None, None)]
    assert "lowest balanced error" in calibration.method


def test_costs_move_the_threshold_to_the_dear_side() -> None:
    draw = np.random.default_rng(2)
    good, bad = draw.normal(0, 1, 300), draw.normal(2, 1, 300)
    dear_escape, _ = choose(good, bad, costs=Costs(escape=100, overkill=1))
    dear_overkill, _ = choose(good, bad, costs=Costs(escape=1, overkill=100))
    assert dear_escape.ok_below < 0 < 2 < dear_overkill.ok_below
    # Two normal densities of equal spread and number cross, weighted by 1 and 100, at 1 -+ log(100) / 2.
    assert dear_escape.ok_below == pytest.approx(1 - math.log(100) / 2, abs=0.2)
    assert dear_overkill.ok_below == pytest.approx(1 + math.log(100) / 2, abs=0.2)


def _counted(good: NDArray[np.float64], bad: NDArray[np.float64], costs: Costs) -> float:
    """The threshold of lowest cost on the very parts, by a slow direct search."""
    every = np.concatenate([good, bad])
    return float(min(every, key=lambda t: costs.escape * (bad < t).sum() + costs.overkill * (good >= t).sum()))


def _normal(draw: np.random.Generator, n: int, kind: float) -> NDArray[np.float64]:
    return draw.normal(2 * kind, 1, n)


def _mislabelled(draw: np.random.Generator, n: int, kind: float) -> NDArray[np.float64]:
    """Log-odds of parts of which a seventh is labelled wrongly; a logistic fit costs four times the counted."""
    wrong = draw.random(n) < 1 / 7
    return draw.normal(np.where(wrong, 1 - kind, kind) * 6 - 3, 1.5, n)


@pytest.mark.parametrize("sample", [_normal, _mislabelled])
@pytest.mark.parametrize("costs", [Costs(escape=1, overkill=1), Costs(escape=20, overkill=1)])
def test_costs_of_the_parts_to_come_are_lower_than_by_counting(
    sample: Callable[[np.random.Generator, int, float], NDArray[np.float64]], costs: Costs
) -> None:
    draw = np.random.default_rng(5)
    goods, bads = np.sort(sample(draw, 100_000, 0)), np.sort(sample(draw, 50_000, 1))

    def price(threshold: float) -> float:
        escaped, scrapped = np.searchsorted(bads, threshold), goods.size - np.searchsorted(goods, threshold)
        return float(costs.escape * escaped + costs.overkill * scrapped) / (goods.size + bads.size)

    least = min(price(threshold) for threshold in np.linspace(goods[0], bads[-1], 2000))
    chosen, counted = [], []
    for _ in range(60):
        good, bad = sample(draw, 200, 0), sample(draw, 100, 1)
        chosen.append(price(choose(good, bad, costs=costs)[0].ok_below) - least)
        counted.append(price(_counted(good, bad, costs)) - least)
    assert np.mean(chosen) < 0.7 * np.mean(counted)


def test_costs_where_nothing_can_be_smoothed_are_counted() -> None:
    even = Costs(escape=1, overkill=1)
    apart, _ = choose([0.0, 1.0], [5.0, 100.0], costs=even)  # no part is judged wrongly: the widest gap
    assert apart.ok_below == pytest.approx(3.0)
    turned, _ = choose([5.0, 6.0, 7.0], [1.0, 2.0], costs=even)  # good parts score higher: the two bad ones are lost
    assert turned.ok_below > 7
    alike, _ = choose([1.0, 1.0], [1.0], costs=even)
    assert alike.ok_below > 1
    one_kind, calibration = choose([0.0, 1.0], [], costs=even)
    assert one_kind.ok_below > 1
    assert sides(calibration)[0].upper == 1.0


@given(some_scores, some_scores, st.floats(1e-3, 1e3), st.floats(1e-3, 1e3))
def test_whatever_the_scores_and_costs_the_bounds_are_those_of_the_counts(
    good: list[float], bad: list[float], escape: float, overkill: float
) -> None:
    point, calibration = choose(good, bad, costs=Costs(escape=escape, overkill=overkill))
    assert math.isfinite(point.ok_below)
    assert point.ok_below == point.ng_above
    counts = errors_at(point, calibration.good, calibration.bad)
    for bound, seen in zip(calibration.bounds, (bad, good), strict=True):
        assert (bound.errors, bound.total) == (counts[bound.kind], len(seen))
        assert bound.upper == band_bound(bound.errors, bound.total)


def _always(draw: np.random.Generator, n: int) -> NDArray[np.float64]:
    return draw.normal(size=n)


def _ties(draw: np.random.Generator, n: int) -> NDArray[np.float64]:
    return draw.integers(0, 30, n) / 30


@pytest.mark.parametrize("sample", [_always, _ties], ids=["continuous", "ties"])
@pytest.mark.parametrize("asked", [0.02, 0.05, 0.2])
def test_the_promise_holds_as_often_as_it_says(
    sample: Callable[[np.random.Generator, int], NDArray[np.float64]], asked: float
) -> None:
    """Draws 400 calibration sets, and looks up the true rates of each threshold in a population of 200,000."""
    draw = np.random.default_rng(7)
    bad_population, good_population = np.sort(sample(draw, 200_000) + 1), np.sort(sample(draw, 200_000))
    broken = {"escape": 0, "overkill": 0}
    sets, confidence = 400, 0.9
    for _ in range(sets):
        good, bad = draw.choice(good_population, 150), draw.choice(bad_population, 150)
        point, calibration = choose(good, bad, max_escape=asked, max_overkill=asked, confidence=confidence)
        escape, overkill = sides(calibration)
        broken["escape"] += np.searchsorted(bad_population, point.ok_below) / 200_000 > escape.upper
        broken["overkill"] += 1 - np.searchsorted(good_population, point.ng_above) / 200_000 > overkill.upper
    for count in broken.values():
        assert stats.binomtest(count, sets, 1 - confidence, alternative="greater").pvalue > 0.001
    if sample is _always and asked > 0.02:  # and it is exact, not merely safe
        assert broken["escape"] > 0.04 * sets


@pytest.mark.parametrize("costs", [None, Costs(escape=1, overkill=1)])
def test_the_bound_of_a_threshold_picked_by_its_errors_holds_where_the_plain_one_breaks(costs: Costs | None) -> None:
    draw = np.random.default_rng(11)
    sets, confidence, n = 400, 0.8, 40
    broken = plain = 0
    for _ in range(sets):
        good, bad = draw.uniform(0, 1, n), draw.uniform(0, 1, n)  # no signal: the pick follows chance alone
        point, calibration = choose(good, bad, costs=costs, confidence=confidence)
        escape, overkill = sides(calibration)
        true_escape, true_overkill = np.clip(point.ok_below, 0, 1), 1 - np.clip(point.ng_above, 0, 1)
        broken += true_escape > escape.upper or true_overkill > overkill.upper
        plain += true_escape > upper_bound(escape.errors, n, confidence) or true_overkill > upper_bound(
            overkill.errors, n, confidence
        )
    assert stats.binomtest(broken, sets, 2 * (1 - confidence), alternative="greater").pvalue > 0.001
    assert plain > broken
    assert plain > 1.1 * 2 * (1 - confidence) * sets * 0.5  # the plain bound visibly pays for the picking


def test_the_other_sides_bound_holds_when_only_one_rate_was_asked() -> None:
    draw = np.random.default_rng(13)
    sets, confidence, broken = 400, 0.8, 0
    for _ in range(sets):
        good, bad = draw.uniform(0, 1, 60), draw.uniform(0.3, 1.3, 40)
        point, calibration = choose(good, bad, max_escape=0.1, confidence=confidence)
        broken += 1 - np.clip(point.ng_above, 0, 1) > sides(calibration)[1].upper
    assert stats.binomtest(broken, sets, 1 - confidence, alternative="greater").pvalue > 0.001


def test_taking_the_best_of_several_networks_on_the_same_parts_does_not_break_the_promise() -> None:
    """Five useless networks; the one whose threshold passes most good parts is taken. Shared risk keeps the promise."""
    draw = np.random.default_rng(17)
    sets, confidence, networks = 300, 0.8, 5
    broken = {1: 0, networks: 0}
    for _ in range(sets):
        tries = [(draw.uniform(0, 1, 50), draw.uniform(0, 1, 50)) for _ in range(networks)]
        for compared in broken:
            points = [
                choose(good, bad, max_escape=0.1, confidence=confidence, compared=compared)[0] for good, bad in tries
            ]
            broken[compared] += max(point.ok_below for point in points) > 0.1
    assert stats.binomtest(broken[networks], sets, 1 - confidence, alternative="greater").pvalue > 0.001
    assert stats.binomtest(broken[1], sets, 1 - confidence, alternative="greater").pvalue < 1e-6  # it does break else


@given(st.integers(1, 2000), st.data())
def test_the_band_is_never_below_the_plain_bound_and_rises_with_the_errors(n: int, data: st.DataObject) -> None:
    errors = data.draw(st.integers(0, n))
    assert band_bound(errors, n) >= upper_bound(errors, n)
    assert errors == 0 or band_bound(errors, n) >= band_bound(errors - 1, n)


@given(scores, scores, rates, rates, st.floats(0.5, 0.99))
@settings(max_examples=300)
def test_whatever_the_scores_the_thresholds_keep_what_they_say(
    good: list[float], bad: list[float], escape_rate: float | None, overkill_rate: float | None, confidence: float
) -> None:
    if not good and not bad:
        with pytest.raises(DataInvalid):
            choose(good, bad)
        return
    point, calibration = choose(good, bad, max_escape=escape_rate, max_overkill=overkill_rate, confidence=confidence)
    assert math.isfinite(point.ok_below)
    assert math.isfinite(point.ng_above)
    assert point.ok_below <= point.ng_above
    goods, bads = (np.clip(np.array(x, float), -3.4028235e38, 3.4028235e38) for x in (good, bad))
    for bound, wrong, total in zip(
        calibration.bounds,
        ((bads < point.ok_below).sum(), (goods >= point.ng_above).sum()),
        (len(bad), len(good)),
        strict=True,
    ):
        assert (bound.errors, bound.total) == (wrong, total)
        assert bound.upper >= (upper_bound(int(wrong), total, confidence) if total else 1.0) - 1e-12
        if bound.held:
            assert bound.asked is not None
            assert bound.upper <= bound.asked
        if bound.held is False:
            assert bound.needed > 0
            assert upper_bound(0, total + bound.needed, confidence) <= (bound.asked or 0)
    assert OperatingPoint.model_validate_json(point.model_dump_json()) == point
    assert Calibration.model_validate_json(calibration.model_dump_json()) == calibration


@given(some_scores, some_scores, st.floats(0.01, 0.5), st.floats(0.1, 10), st.floats(-5, 5))
def test_another_scale_of_the_scores_changes_no_verdict(
    good: list[float], bad: list[float], rate: float, factor: float, shift: float
) -> None:
    goods, bads = np.round(np.clip(good, -100, 100), 2), np.round(np.clip(bad, -100, 100), 2)
    if np.median(np.abs(np.unique(np.concatenate([goods, bads])) * factor + shift)) > 300:
        return
    point, _ = choose(goods, bads, max_escape=rate, max_overkill=rate)
    moved, _ = choose(goods * factor + shift, bads * factor + shift, max_escape=rate, max_overkill=rate)
    assert errors_at(moved, goods * factor + shift, bads * factor + shift) == errors_at(point, goods, bads)


@given(some_scores, some_scores, rates, rates)
def test_mirrored_scores_swap_escape_and_overkill(
    good: list[float], bad: list[float], escape_rate: float | None, overkill_rate: float | None
) -> None:
    _, one = choose(good, bad, max_escape=escape_rate, max_overkill=overkill_rate)
    _, other = choose([-x for x in bad], [-x for x in good], max_escape=overkill_rate, max_overkill=escape_rate)
    assert [b.upper for b in one.bounds] == [b.upper for b in other.bounds][::-1] or (
        escape_rate is None and overkill_rate is None  # of equal errors the widest gap, which may be another one
    )


def test_a_threshold_is_not_put_where_rounding_decides() -> None:
    """Two computers differ by 1e-6: no calibration part may change its verdict by that."""
    draw = np.random.default_rng(3)
    good, bad = draw.normal(10, 1, 500).astype(np.float32), draw.normal(12, 1, 500).astype(np.float32)
    point, _ = choose(good, bad, max_escape=0.02, max_overkill=0.02)
    every = np.concatenate([good, bad])
    for threshold in (point.ok_below, point.ng_above):
        assert np.abs(every - threshold).min() > 1e-5 * 10


def test_infinite_scores_keep_their_order_and_stay_finite_in_the_file() -> None:
    point, calibration = choose([-math.inf, 0.0, 1.0], [5.0, math.inf], max_escape=0.5)
    assert 1 < point.ok_below < 5
    assert all(math.isfinite(x) for x in calibration.good + calibration.bad)


def test_scores_that_are_nan_are_refused_and_counted() -> None:
    with pytest.raises(DataInvalid, match="2 of 3 bad"):
        choose([0.0], [1.0, math.nan, math.nan])


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_escape": 0.0},
        {"max_overkill": 1.0},
        {"confidence": 1.0},
        {"confidence": 0.3},
        {"max_escape": 0.1, "costs": Costs(escape=1, overkill=1)},
        {"costs": Costs(escape=-1, overkill=1)},
    ],
)
def test_a_wish_that_cannot_be_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigInvalid):
        choose([0.0], [1.0], **wrong)  # type: ignore[arg-type]


def test_a_part_with_several_images_counts_once_with_its_highest_score() -> None:
    good, bad = by_part(
        [0.1, 0.4, 0.2, 0.9, 0.3, 0.8], ["a", "a", "b", "b", None, None], [False, False, False, True, False, True]
    )
    assert good.tolist() == [0.3, 0.4]
    assert bad.tolist() == [0.8, 0.9]
    assert by_part([], [], [])[0].size == 0


def test_a_part_with_one_nan_image_is_nan() -> None:
    good, _ = by_part([0.1, math.nan, 0.3], ["a", "a", "a"], [False] * 3)
    assert np.isnan(good).all()
