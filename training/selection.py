"""Figures on the calibration split, and which of two sets of weights is better."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import balanced_accuracy_score

from training import metrics
from training.batches import class_of
from training.scoring import Scored

Figures = dict[str, float]


def figures(scored: Scored, classes: tuple[str, ...], good_class: str | None) -> Figures:
    """AUROC and average precision of bad against good, and balanced accuracy of the classes; what can be computed."""
    found: dict[str, float | None] = {
        "auroc": metrics.auroc(scored.good, scored.bad),
        "average_precision": metrics.average_precision(scored.good, scored.bad),
    }
    if scored.classes is not None:
        index = {name: number for number, name in enumerate(classes)}
        truth = np.array([class_of(sample, index, good_class) for sample in scored.samples])
        known = truth >= 0
        if known.any():
            found["balanced_accuracy"] = float(
                balanced_accuracy_score(truth[known], scored.classes[known].argmax(axis=1))
            )
    return {name: value for name, value in found.items() if value is not None}


def criterion(found: Figures, task: str) -> tuple[str, float] | None:
    """What weights are compared by, and its value; None where the calibration split has no contrast.

    Bad against good: the mean of AUROC and average precision, because AUROC alone saturates on few bad images and
    average precision alone jumps with a single one. Kinds only: balanced accuracy.
    """
    if task == "kinds":
        value = found.get("balanced_accuracy")
        return None if value is None else ("balanced accuracy", value)
    if "auroc" not in found:
        return None
    return "mean of AUROC and average precision", (found["auroc"] + found["average_precision"]) / 2


def spoken(found: Figures) -> str:
    """`AUROC 0.981, AP 0.953`."""
    names = {"auroc": "AUROC", "average_precision": "AP", "balanced_accuracy": "balanced accuracy"}
    return ", ".join(f"{names[name]} {value:.3f}" for name, value in found.items())
