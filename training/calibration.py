"""From scored images to an operating point: parts, thresholds, pixel threshold. The one way for training and export."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from datasets.load import Loaded
from datasets.sample import Sample
from inspection.modelfile import InputSpec
from training.config import Asks
from training.metrics import PixelCounts
from training.operating import Costs, by_part, choose
from training.run import Calibrated, RunRecord


class Calibrator:
    """Takes the calibration images one by one, and then chooses the operating point.

    Args:
        spec: the network's input; pixel thresholds are found on its grid.
    """

    def __init__(self, spec: InputSpec) -> None:
        self._size = (spec.width, spec.height)
        self._scores: list[float] = []
        self._samples: list[Sample] = []
        self._drawn = PixelCounts()  # good images and those with a mask
        self._good = PixelCounts()

    def add(self, loaded: Loaded, score: float, values: NDArray[np.float32] | None = None) -> None:
        """Takes one image with its raw score and, where the network has one, its map (any grid over the whole input).

        Images that nobody judged say nothing and are passed over.
        """
        sample = loaded.sample
        if sample.label is None:
            return
        self._scores.append(score)
        self._samples.append(sample)
        if values is None or not np.isfinite(values).all():
            return
        exact = loaded.mask is not None and not loaded.coarse
        if sample.label != "good" and not exact:
            return
        full = np.asarray(cv2.resize(values, self._size, interpolation=cv2.INTER_LINEAR), dtype=np.float32)
        self._drawn.add(full, loaded.mask)
        if sample.label == "good":
            self._good.add(full)

    def parts(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Scores of good and of bad parts, ascending."""
        return by_part(
            self._scores,
            [sample.part for sample in self._samples],
            [sample.label == "defect" for sample in self._samples],
        )

    def result(self, asks: Asks, compared: int = 1) -> Calibrated | None:
        """Thresholds that keep what is asked; None where no image was known to be good or bad.

        Args:
            asks: the highest rates, or costs, that are accepted.
            compared: see `training.operating.choose`.

        Raises:
            ConfigInvalid, DataInvalid: as `training.operating.choose`.
        """
        if not self._scores:
            return None
        costs = None
        if asks.escape_cost is not None or asks.overkill_cost is not None:
            costs = Costs(escape=asks.escape_cost or 1.0, overkill=asks.overkill_cost or 1.0)
        good, bad = self.parts()
        point, calibration = choose(
            good,
            bad,
            max_escape=asks.max_escape,
            max_overkill=asks.max_overkill,
            confidence=asks.confidence,
            costs=costs,
            compared=compared,
        )
        above = self._drawn.threshold() if self._drawn.regions else self._good.threshold()
        return Calibrated(operating_point=point.model_copy(update={"pixel_above": above}), calibration=calibration)


def networks_compared(record: RunRecord) -> int:
    """Among how many sets of weights the run took the best on the very calibration images; 1: it did not choose."""
    if record.best is None or record.best.value is None or record.schedule is None:
        return 1
    return max(1, len(record.schedule.evaluate_at))
