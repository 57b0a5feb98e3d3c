"""Scores of samples: order, batches and what is kept."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from datasets import open_dataset
from datasets.load import Loader
from datasets.sample import Sample
from inspection.errors import ImageUnreadable
from inspection.modelfile import InputSpec
from models.network import Network, Outputs, scaled
from tests.support.images import class_folders
from training.scoring import score, stream
from training.selection import criterion, figures, spoken

pytestmark = pytest.mark.train
SPEC = InputSpec(width=64, height=64, channels=1)


class Brightest(Network):
    """Score: the brightest of 8 x 8 cells; classes: mean and its negative."""

    name: ClassVar[str] = "brightest"
    learns: ClassVar[Literal["gradient", "bank"]] = "gradient"

    def forward(self, pixels: Tensor) -> Outputs:
        """Scores a batch."""
        image = scaled(pixels, self.spec)
        cells = torch.nn.functional.avg_pool2d(image, 8)[:, 0]
        mean = image.mean((1, 2, 3))
        return Outputs(cells.amax((1, 2)), cells, torch.stack([-mean, mean], 1))


@pytest.fixture
def samples(tmp_path: Path) -> tuple[Sample, ...]:
    """11 images, so that the last batch is not full."""
    return open_dataset(class_folders(tmp_path, good=7, bad=4, height=64, width=64)).samples


def _expected(samples: tuple[Sample, ...]) -> np.ndarray:
    loaded = [Loader(SPEC).load(sample).pixels[..., 0] / 255 for sample in samples]
    return np.array([image.reshape(8, 8, 8, 8).mean(axis=(1, 3)).max() for image in loaded])


@pytest.mark.parametrize("batch", [1, 4, 16])
def test_scores_come_in_the_order_of_the_samples_whatever_the_batch(samples: tuple[Sample, ...], batch: int) -> None:
    for order in (samples, samples[::-1]):
        scored = score(Brightest(SPEC, ("dark", "bright")), order, Loader(SPEC), batch=batch, maps=True)
        assert scored.score == pytest.approx(_expected(order), abs=1e-6)
        assert scored.maps is not None
        assert scored.maps.max(axis=(1, 2)) == pytest.approx(scored.score)
        assert len(scored.good) == 7
        assert len(scored.bad) == 4


def test_maps_are_only_kept_when_asked_for(samples: tuple[Sample, ...]) -> None:
    assert score(Brightest(SPEC, ()), samples, Loader(SPEC)).maps is None


def test_the_network_is_given_back_in_the_mode_it_came_in(samples: tuple[Sample, ...]) -> None:
    network = Brightest(SPEC, ()).train()
    for _ in stream(network, samples, Loader(SPEC), batch=4):
        assert not network.training
    assert network.training


def test_no_samples_give_no_scores() -> None:
    scored = score(Brightest(SPEC, ()), [], Loader(SPEC))
    assert scored.score.shape == (0,)
    assert figures(scored, (), None) == {}


def test_an_image_that_cannot_be_read_is_named(samples: tuple[Sample, ...]) -> None:
    samples[5].path.write_bytes(b"no image")
    with pytest.raises(ImageUnreadable) as caught:
        score(Brightest(SPEC, ()), samples, Loader(SPEC), batch=2)
    assert str(samples[5].path) in str(caught.value)


def test_stopping_early_reads_no_further(samples: tuple[Sample, ...]) -> None:
    loader = Loader(SPEC)
    parts: Iterator[object] = stream(Brightest(SPEC, ()), samples, loader, batch=1)
    next(parts)
    parts.close()  # type: ignore[attr-defined]
    assert loader.used <= 3 * 64 * 64 * 2


def test_weights_are_compared_by_what_the_task_is(samples: tuple[Sample, ...]) -> None:
    found = figures(score(Brightest(SPEC, ("good", "scratch")), samples, Loader(SPEC)), ("good", "scratch"), "good")
    by = criterion(found, "defect")
    assert by is not None
    assert by[1] == pytest.approx((found["auroc"] + found["average_precision"]) / 2)
    kinds = criterion(found, "kinds")
    assert kinds is not None
    assert kinds[1] == found["balanced_accuracy"]
    assert criterion({}, "defect") is None
    assert criterion({}, "kinds") is None
    assert spoken({"auroc": 0.5, "average_precision": 0.25}) == "AUROC 0.500, AP 0.250"
