"""Figures of merit, for images and for pixels, from raw scores (higher is worse).

Image figures are scikit-learn's. Pixel figures are streamed: each map is put into a histogram and let go, so that a
test set of large images needs no more memory than one image and three histograms.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn import metrics as sk

Curve = tuple[NDArray[np.float64], NDArray[np.float64]]

# The bins are the leading bits of the float32 itself: its sign, exponent and 13 bits of its mantissa. They order like
# the numbers, need no range known beforehand, and two values fall together only within 1.2e-4 of each other.
BITS = 22
PRO_LIMIT = 0.3  # false positive rate up to which the per-region overlap is integrated (Bergmann et al., CVPR 2019)
GOOD_QUANTILE = 0.999  # without masks, a pixel is marked when it exceeds all but one in a thousand of good parts


def auroc(good: ArrayLike, bad: ArrayLike) -> float | None:
    """Area under the ROC curve: how often a bad one scores above a good one. None when either is missing."""
    labels, scores = _joined(good, bad)
    return float(sk.roc_auc_score(labels, scores)) if _both(labels) else None


def average_precision(good: ArrayLike, bad: ArrayLike) -> float | None:
    """Average precision with bad as the positive class. None when either is missing."""
    labels, scores = _joined(good, bad)
    return float(sk.average_precision_score(labels, scores)) if _both(labels) else None


def f1_max(good: ArrayLike, bad: ArrayLike) -> tuple[float, float] | None:
    """The highest F1 over all thresholds and the threshold (bad where score >= it). None when either is missing."""
    labels, scores = _joined(good, bad)
    if not _both(labels):
        return None
    precision, recall, thresholds = sk.precision_recall_curve(labels, scores)
    f1 = 2 * precision[:-1] * recall[:-1] / np.maximum(precision[:-1] + recall[:-1], 1e-12)
    best = int(f1.argmax())
    return float(f1[best]), float(thresholds[best])


def roc_curve(good: ArrayLike, bad: ArrayLike) -> Curve | None:
    """Share of good ones called bad, and of bad ones called bad, over all thresholds. None when either is missing."""
    labels, scores = _joined(good, bad)
    if not _both(labels):
        return None
    false_positive, true_positive, _ = sk.roc_curve(labels, scores)
    return false_positive, true_positive


def precision_recall_curve(good: ArrayLike, bad: ArrayLike) -> Curve | None:
    """Recall and precision over all thresholds, recall ascending. None when either is missing."""
    labels, scores = _joined(good, bad)
    if not _both(labels):
        return None
    precision, recall, _ = sk.precision_recall_curve(labels, scores)
    return recall[::-1], precision[::-1]


@dataclass(frozen=True, kw_only=True, slots=True)
class PixelFigures:
    """What maps are worth against masks; all None where no mask or no sound pixel was seen.

    Attributes:
        auroc: over all pixels of all images.
        pro: per-region overlap, area under its curve up to a false positive rate of 0.3, scaled to 1. Every connected
            defect counts alike, however small (Bergmann et al., CVPR 2019).
        f1_max: highest F1 over all thresholds, and the threshold (defect where map >= it).
    """

    auroc: float | None
    pro: float | None
    f1_max: float | None
    threshold: float | None


class PixelCounts:
    """Histograms of map values on defective and on sound pixels, fed one image at a time."""

    def __init__(self) -> None:
        self.images = 0
        self.regions = 0
        self._sound = np.zeros(1 << BITS, np.int64)
        self._defective = np.zeros(1 << BITS, np.int64)
        self._overlap = np.zeros(1 << BITS, np.float64)  # of each region's pixels: 1 / its area

    def add(self, values: NDArray[np.float32], mask: NDArray[np.bool_] | None = None) -> None:
        """Takes a map (float32 HxW) and its mask (bool HxW; None: all sound). Raises ValueError on NaN or shapes."""
        if mask is not None and mask.shape != values.shape:
            raise ValueError(f"a map of {values.shape} and a mask of {mask.shape} cannot be compared.")
        bins = _bins(values)
        self.images += 1
        if mask is None or not mask.any():
            self._sound += np.bincount(bins.ravel(), minlength=1 << BITS)
            return
        self._sound += np.bincount(bins[~mask], minlength=1 << BITS)
        inside = bins[mask]
        self._defective += np.bincount(inside, minlength=1 << BITS)
        count, regions = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
        which = regions[mask]
        self._overlap += np.bincount(inside, weights=1 / np.bincount(which)[which], minlength=1 << BITS)
        self.regions += count - 1

    def figures(self) -> PixelFigures:
        """The figures over all images so far."""
        sound, defective = _from_the_top(self._sound), _from_the_top(self._defective)
        if not self.regions or not sound[-1]:
            return PixelFigures(auroc=None, pro=None, f1_max=None, threshold=None)
        false_positive = sound / sound[-1]
        f1 = 2 * defective[1:] / (sound[1:] + defective[1:] + defective[-1])
        best = int(f1.argmax())
        overlap = _from_the_top(self._overlap) / self.regions
        return PixelFigures(
            auroc=float(np.trapezoid(defective / defective[-1], false_positive)),
            pro=_area_up_to(false_positive, overlap, PRO_LIMIT) / PRO_LIMIT,
            f1_max=float(f1[best]),
            threshold=_lower_edge((1 << BITS) - 1 - best),
        )

    def threshold(self) -> float | None:
        """Where a map value belongs to a defect: of highest pixel F1 with masks, else a high quantile of good parts.

        The quantile, 99.9 %, is that of all pixels given without a defect. None when no pixel was given.
        """
        if (figures := self.figures()).threshold is not None:
            return figures.threshold
        total = int(self._sound.sum())
        if not total:
            return None
        above = _from_the_top(self._sound)[1:] > (1 - GOOD_QUANTILE) * total
        highest = (1 << BITS) - 1 - int(above.argmax())
        return _lower_edge(min(highest + 1, (1 << BITS) - 1))


def _bins(values: NDArray[np.float32]) -> NDArray[np.int64]:
    if np.isnan(values).any():
        raise ValueError("a map holds NaN.")
    bits = (np.ascontiguousarray(values, dtype=np.float32) + np.float32(0)).view(np.uint32)  # -0 becomes 0
    ordered = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))
    return (ordered >> (32 - BITS)).astype(np.int64)


def _lower_edge(index: int) -> float:
    """The smallest float32 that falls into bin `index`."""
    ordered = np.uint32(index << (32 - BITS))
    bits = ordered ^ np.uint32(1 << 31) if ordered >> 31 else ~ordered
    return float(np.array(bits, np.uint32).view(np.float32))


def _from_the_top(histogram: NDArray[np.int64] | NDArray[np.float64]) -> NDArray[np.float64]:
    """How much lies at or above each bin, from the highest bin down; a zero stands before."""
    return np.concatenate([[0.0], np.cumsum(histogram[::-1], dtype=np.float64)])


def _area_up_to(x: NDArray[np.float64], y: NDArray[np.float64], limit: float) -> float:
    """The area under a rising curve from 0 to `limit`, by trapezoids; the last one is cut at `limit`."""
    end = int(np.searchsorted(x, limit, side="right"))
    if end < len(x):
        before, after = end - 1, end
        cut = y[before] + (y[after] - y[before]) * (limit - x[before]) / (x[after] - x[before])
        x, y = np.append(x[:end], limit), np.append(y[:end], cut)
    return float(np.trapezoid(y, x))


def _joined(good: ArrayLike, bad: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    goods, bads = np.asarray(good, np.float64).ravel(), np.asarray(bad, np.float64).ravel()
    return np.repeat(np.array([0, 1]), [goods.size, bads.size]), np.concatenate([goods, bads])


def _both(labels: NDArray[np.int64]) -> bool:
    return bool(labels.size) and 0 < int(labels.sum()) < labels.size
