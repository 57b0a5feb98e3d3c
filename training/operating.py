"""Thresholds with a promise: what escapes and what is scrapped is bounded, from finite counts and exactly.

A promise "at most a share `a` of bad parts is called OK, with confidence `1 - d`" is kept by the threshold at the
(k+1)-th smallest score of n bad calibration parts, where k is the largest count whose exact upper bound (Clopper and
Pearson, Biometrika 1934), the Beta(k+1, n-k) quantile at 1 - d, is at most `a`. The same number is the one-sided
distribution-free tolerance limit (Wilks, Ann. Math. Stat. 1941): k depends on n, a and d alone, never on the scores,
so choosing the threshold on the parts that prove it costs nothing. Any lower threshold keeps the promise too.

Where costs are given, they are counted as if every part's score were spread a little (Horowitz, "A smoothed maximum
score estimator", Econometrica 1992). The lowest plain count on a few hundred parts lies where luck left a gap: its
error shrinks with the cube root of their number only (Kim and Pollard, Ann. Stat. 1990). A logistic fit would be
steadier still, and wrong where labels are: it has no place for parts that score low and are called bad.

A threshold that was picked by looking at the parts (lowest error, lowest cost, or the side for which nothing was
asked) has no such fixed k, and Clopper-Pearson at the count it happens to have would promise too much. Its bound comes
from a band that holds for all thresholds at once: tolerance limits at a few fixed ranks, two an octave, each at
confidence 1 - d/ranks (Bonferroni), and a count takes the bound of the next rank. See docs/operating-point.md.

All scores are per part and raw: higher is worse. Only numpy and scipy here.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

from inspection.errors import ConfigInvalid, DataInvalid
from inspection.modelfile import Bound, Calibration, OperatingPoint

Scores = NDArray[np.float64]
Kind = Literal["escape", "overkill"]

# With one kind of part alone and nothing asked, the side that can be bounded is: rarely enough not to hurt a line,
# and provable from 149 parts at 95 %.
ONE_SIDED_RATE = 0.02

# Gaps narrower than this share of the typical score are no place for a threshold: two computers' rounding of one image
# differs by about 1e-6, and a verdict must not depend on which of them judges.
NARROW = 2e-5

MOST = 1000  # thresholds that are tried; of more parts, every so many

LARGEST = float(np.finfo(np.float32).max)  # infinite scores become this: same order, and JSON can hold it


@dataclass(frozen=True, kw_only=True, slots=True)
class Costs:
    """What one escaped bad part and one scrapped good part cost, in any one unit."""

    escape: float
    overkill: float


def choose(
    good: ArrayLike,
    bad: ArrayLike,
    *,
    max_escape: float | None = None,
    max_overkill: float | None = None,
    confidence: float = 0.95,
    costs: Costs | None = None,
    compared: int = 1,
) -> tuple[OperatingPoint, Calibration]:
    """Chooses both thresholds from the calibration scores of good and bad parts (one score a part: see `by_part`).

    Args:
        good, bad: raw scores, any order; either may be empty, not both.
        max_escape, max_overkill: the highest rates that are accepted, 0 to 1 (exclusive); each is promised with
            `confidence` on its own.
        confidence: one-sided, 0.5 to 1 (exclusive).
        costs: choose the threshold of lowest expected cost among parts like these instead; not together with a promise.
        compared: how many networks were compared on these very parts before this one was taken (checkpoints, say).
            Each of them may have got lucky, so the risk is shared out among them (Bonferroni) and the promise holds
            for whichever was taken; it costs more parts.

    Returns:
        The thresholds (`pixel_above` is None, see `training.metrics`), and the scores, the bounds and how they came.

    Raises:
        ConfigInvalid: a rate, confidence or cost out of range, or costs together with a promise.
        DataInvalid: no scores at all, or scores that are NaN.
    """
    _check(max_escape, max_overkill, confidence, costs)
    good, bad = _scores(good, "good"), _scores(bad, "bad")
    if not good.size and not bad.size:
        raise DataInvalid(
            "the calibration set holds neither good nor bad parts.", hint="Give some images the split `calibration`."
        )
    strict = 1 - (1 - confidence) / compared
    both = np.unique(np.concatenate([good, bad]))
    # What is asked of a kind of part that nobody has seen cannot place a threshold.
    rate_escape, rate_overkill = max_escape if bad.size else None, max_overkill if good.size else None
    if rate_escape is None and rate_overkill is None and not (good.size and bad.size):
        rate_escape, rate_overkill = (None, ONE_SIDED_RATE) if good.size else (ONE_SIDED_RATE, None)
    allowed: tuple[int | None, int | None] = (None, None)
    if rate_escape is None and rate_overkill is None:
        lower = upper = _cheapest(good, bad, both, costs) if costs else _balanced(good, bad, both)
        how = (
            f"lowest expected cost (escape {costs.escape:g}, overkill {costs.overkill:g})"
            if costs
            else "lowest balanced error"
        )
        method = f"{how}; {_BAND}"
    else:
        allowed = (
            None if rate_escape is None else _rank(bad.size, rate_escape, strict),
            None if rate_overkill is None else _rank(good.size, rate_overkill, strict),
        )
        ceiling = None if allowed[0] is None else float(bad[allowed[0]])
        floor = None if allowed[1] is None else float(good[::-1][allowed[1]])
        lower, upper = _place(ceiling, floor, good, bad, both)
        sides = (("escape", bad.size, allowed[0]), ("overkill", good.size, allowed[1]))
        method = "; ".join(
            f"{side}: {'unknown, no such part was seen' if not seen else _BAND if k is None else _LIMIT}"
            for side, seen, k in sides
        )
    if compared > 1:
        method += f"; risk shared among the {compared} networks that were compared on these parts"
    point = OperatingPoint(ok_below=lower, ng_above=upper)
    bounds = [
        _bound("escape", int((bad < lower).sum()), bad.size, allowed[0], max_escape, confidence, strict),
        _bound("overkill", int((good >= upper).sum()), good.size, allowed[1], max_overkill, confidence, strict),
    ]
    return point, Calibration(good=good.tolist(), bad=bad.tolist(), method=method, bounds=bounds)


_LIMIT = "tolerance limit at a rank fixed beforehand (Wilks 1941, Clopper-Pearson 1934)"
_BAND = "bound from a band over all thresholds (tolerance limits at fixed ranks, Bonferroni)"


def by_part(
    scores: ArrayLike, parts: Sequence[Hashable | None], bad: Sequence[bool] | NDArray[np.bool_]
) -> tuple[Scores, Scores]:
    """Scores of good and of bad parts from scores of images: a part's score is its highest; None is a part of its own.

    A part with one bad image is bad, and its good images (other views of it) count with it.

    Returns:
        Good and bad scores, float64, ascending.
    """
    values = np.asarray(scores, dtype=np.float64)
    if not len(values) == len(parts) == len(bad):
        raise ValueError(f"{len(values)} scores, {len(parts)} parts and {len(bad)} labels: one each is needed.")
    highest: dict[Hashable, float] = {}
    defective: dict[Hashable, bool] = {}
    for index, (score, part, is_bad) in enumerate(zip(values.tolist(), parts, bad, strict=True)):
        key: Hashable = ("image", index) if part is None else ("part", part)
        before = highest.get(key, -math.inf)
        highest[key] = math.nan if math.isnan(score) or math.isnan(before) else max(before, score)
        defective[key] = defective.get(key, False) or bool(is_bad)
    return (
        np.sort([score for key, score in highest.items() if not defective[key]]).astype(np.float64),
        np.sort([score for key, score in highest.items() if defective[key]]).astype(np.float64),
    )


def upper_bound(errors: int, total: int, confidence: float = 0.95) -> float:
    """The exact one-sided upper bound on a rate of which `errors` of `total` were seen (Clopper and Pearson, 1934)."""
    if errors >= total:
        return 1.0
    return float(stats.beta.ppf(confidence, errors + 1, total - errors))


def band_bound(errors: int, total: int, confidence: float = 0.95) -> float:
    """As `upper_bound`, but for a threshold that was chosen by looking at these very errors.

    With probability `confidence` it holds for every threshold at once: each of the fixed ranks 0, 1, 2, 3, 4, 6, 8, 12,
    ... has its exact bound at its share of the risk, and `errors` takes that of the first rank not below it.
    """
    ranks = _ranks(total)
    above = [rank for rank in ranks if rank >= errors]
    return upper_bound(above[0], total, 1 - (1 - confidence) / len(ranks)) if above else 1.0


def parts_needed(rate: float, confidence: float = 0.95, errors: int = 0) -> int:
    """The fewest parts that prove `rate` when `errors` of them are judged wrongly: 59 for 5 % at 95 % without error."""
    low, high = errors, max(errors + 1, 2)
    while upper_bound(errors, high, confidence) > rate:
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if upper_bound(errors, middle, confidence) <= rate else (middle, high)
    return high


def errors_at(point: OperatingPoint, good: ArrayLike, bad: ArrayLike) -> dict[str, int]:
    """Verdicts by truth: `escape` (bad, OK), `overkill` (good, NG), and `good_review`, `bad_review`."""
    goods, bads = np.asarray(good, dtype=np.float64), np.asarray(bad, dtype=np.float64)
    good_ng, bad_ng = goods >= point.ng_above, bads >= point.ng_above
    good_ok, bad_ok = (goods < point.ok_below) & ~good_ng, (bads < point.ok_below) & ~bad_ng
    return {
        "escape": int(bad_ok.sum()),
        "overkill": int(good_ng.sum()),
        "good_review": int(goods.size - good_ok.sum() - good_ng.sum()),
        "bad_review": int(bads.size - bad_ok.sum() - bad_ng.sum()),
    }


def _ranks(total: int) -> list[int]:
    """0, 1, 2, 3, 4, 6, 8, 12, 16, 24, ... below `total`: two an octave, so that the next is never far."""
    ranks = [0, 1, 2]
    while ranks[-1] < total:
        ranks.append(ranks[-1] * 3 // 2 if len(ranks) % 2 else ranks[-2] * 2)
    return [rank for rank in ranks if rank < total]


def _rank(total: int, rate: float, confidence: float) -> int:
    """How many of `total` may be judged wrongly while `rate` is proven; 0 also where nothing can be proven."""
    low, high = -1, total - 1  # upper_bound rises with the count, and is 1 at the last
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if upper_bound(middle, total, confidence) <= rate else (low, middle)
    return max(0, low)


def _bound(
    kind: Kind, errors: int, total: int, rank: int | None, asked: float | None, confidence: float, strict: float
) -> Bound:
    if total == 0:
        upper = 1.0  # nothing is known
    else:
        upper = upper_bound(rank, total, strict) if rank is not None else band_bound(errors, total, strict)
    held = None if asked is None else upper <= asked
    needed = parts_needed(asked, strict) - total if asked is not None and not held else 0
    return Bound(
        kind=kind, errors=errors, total=total, upper=upper, confidence=confidence, asked=asked, held=held, needed=needed
    )


def _place(ceiling: float | None, floor: float | None, good: Scores, bad: Scores, both: Scores) -> tuple[float, float]:
    """ok_below and ng_above for ok_below <= ceiling and ng_above > floor; None: nothing asked on that side."""
    if ceiling is not None and floor is not None and floor >= ceiling:
        return _gap(both, ceiling, down=True), _gap(both, floor, down=False)
    # One threshold does for both. The side for which nothing was asked gives as much room as costs it no part.
    if floor is None:
        assert ceiling is not None
        below = good[good < ceiling]
        if not below.size:
            single = _gap(both, ceiling, down=True)
            return single, single
        floor = float(below[-1])
    elif ceiling is None:
        above = bad[bad > floor]
        if not above.size:
            single = _gap(both, floor, down=False)
            return single, single
        ceiling = float(above[0])
    inside = both[(both >= floor) & (both <= ceiling)]
    middles = ((inside[1:] + inside[:-1]) / 2)[_wide(inside, both)]
    # Every value above `floor` and up to `ceiling` keeps the promises; the middle is farthest from breaking either.
    single = float(middles[np.abs(middles - (floor + ceiling) / 2).argmin()]) if middles.size else ceiling
    return single, single


def _gap(both: Scores, limit: float, *, down: bool) -> float:
    """The middle of the first gap between scores below (`down`) or above `limit` that is no rounding difference."""
    if not down:
        return -_gap(-both[::-1], -limit, down=True)
    under = both[both <= limit]
    wide = np.flatnonzero(_wide(under, both))
    if wide.size:
        return float((under[wide[-1]] + under[wide[-1] + 1]) / 2)
    # Nothing lies below: step outside, by a twentieth of the way to the median, or of the score if all are alike.
    reach = float(np.median(both) - under[0])
    if reach <= NARROW * _typical(both):
        reach = max(abs(float(under[0])), 1e-3)
    return float(under[0]) - reach / 20


def _cheapest(good: Scores, bad: Scores, both: Scores, costs: Costs) -> float:
    """The threshold of lowest expected cost: that of scores spread by a normal density of `_spread`.

    Where no part need be judged wrongly, or all score alike, there is nothing to smooth.
    """
    spread = _spread(np.concatenate([good, bad]))
    if good[-1] < bad[0] or not spread:
        return _fewest(good, bad, both, costs.overkill, costs.escape)
    places, _ = _places(both)
    places = places[np.linspace(0, places.size - 1, min(places.size, MOST)).round().astype(int)]
    true = np.concatenate([[-math.inf], places[1:-1], [math.inf]])  # beyond all scores all parts are judged alike
    cost = [
        costs.escape * special.ndtr((place - bad) / spread).sum()
        + costs.overkill * special.ndtr((good - place) / spread).sum()
        for place in true
    ]
    return float(places[np.argmin(cost)])


def _spread(scores: Scores) -> float:
    """The bandwidth of the normal reference rule (Silverman, "Density Estimation", 1986); 0: all scores are alike."""
    quarter, rest = (float(np.percentile(scores, share)) for share in (25, 75))
    wide = [width for width in (float(scores.std()), (rest - quarter) / 1.349) if width > NARROW * _typical(scores)]
    return min(wide, default=0.0) * math.pow(scores.size, -0.2)


def _balanced(good: Scores, bad: Scores, both: Scores) -> float:
    """The threshold of lowest balanced error on these parts."""
    return _fewest(good, bad, both, 1 / good.size, 1 / bad.size)


def _fewest(good: Scores, bad: Scores, both: Scores, weight_good: float, weight_bad: float) -> float:
    """The threshold of fewest wrong parts, by weight; of several the one in the widest gap."""
    places, widths = _places(both)
    escaped = np.searchsorted(bad, places, side="left")
    scrapped = good.size - np.searchsorted(good, places, side="left")
    cost = weight_bad * escaped + weight_good * scrapped
    best = np.flatnonzero(cost <= cost.min() * (1 + 1e-12))
    return float(places[best[widths[best].argmax()]])


def _places(both: Scores) -> tuple[Scores, Scores]:
    """Where a threshold can be, ascending: below all scores, amid every gap, above all; and the gaps' widths."""
    below, above = _gap(both, float(both[0]), down=True), _gap(both, float(both[-1]), down=False)
    wide = _wide(both, both)
    middles = ((both[1:] + both[:-1]) / 2)[wide]
    return np.concatenate([[below], middles, [above]]), np.concatenate([[0.0], np.diff(both)[wide], [0.0]])


def _wide(ascending: Scores, both: Scores) -> NDArray[np.bool_]:
    """Which gaps in `ascending` can hold a threshold, judged by the size of all scores."""
    widths = np.diff(ascending)
    rounding = 4 * np.spacing(np.abs(ascending).max(initial=0.0))
    return np.asarray(widths > max(NARROW * _typical(both), rounding))


def _typical(scores: Scores) -> float:
    return float(np.median(np.abs(scores)))


def _scores(values: ArrayLike, name: str) -> Scores:
    scores = np.sort(np.asarray(values, dtype=np.float64).ravel())
    missing = int(np.isnan(scores).sum())
    if missing:
        raise DataInvalid(
            f"{missing} of {scores.size} {name} calibration scores are NaN: the network is broken.",
            hint="Train again with a lower learning rate, or with fp32 instead of fp16.",
        )
    return np.clip(scores, -LARGEST, LARGEST)


def _check(max_escape: float | None, max_overkill: float | None, confidence: float, costs: Costs | None) -> None:
    for name, rate in (("max-escape", max_escape), ("max-overkill", max_overkill)):
        if rate is not None and not 0 < rate < 1:
            raise ConfigInvalid(
                f"{name} is {rate:g}, and a rate lies between 0 and 100 %.",
                where=name,
                hint="No finite number of parts proves 0 %; 0.1 % takes 2,995 parts without error at 95 %.",
            )
    if not 0.5 <= confidence < 1:
        raise ConfigInvalid(f"a confidence of {confidence:g} is not between 50 and 100 %.", where="confidence")
    if costs is not None and (max_escape is not None or max_overkill is not None):
        raise ConfigInvalid(
            "costs and highest rates are two ways to choose one threshold.", where="costs", hint="Give one of them."
        )
    if costs is not None and not all(0 < cost < math.inf for cost in (costs.escape, costs.overkill)):
        raise ConfigInvalid("a cost must be a positive number.", where="costs")
