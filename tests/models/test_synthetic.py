"""Synthetic defects: inside the image, where their mask says, and the same for the same seed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from models import synthetic

pytestmark = pytest.mark.train


def good(count: int, channels: int, height: int = 64, width: int = 96, white: float = 255) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return (0.4 + 0.05 * torch.randn(count, channels, height, width, generator=generator)).clamp(0, 1) * white


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("white", [255.0, 4095.0, 65535.0])
def test_pixels_stay_in_range_and_change_where_the_mask_says(channels: int, white: float) -> None:
    torch.manual_seed(0)
    images = good(24, channels, white=white)
    spoiled, masks = synthetic.spoil(images, images, white)
    assert spoiled.shape == images.shape
    assert masks.shape == (24, 64, 96)
    assert set(masks.unique().tolist()) <= {0.0, 1.0}
    assert 0 <= spoiled.min() <= spoiled.max() <= white
    change = (spoiled - images).abs().amax(1)
    inside = torch.stack([c[m > 0].mean() for c, m in zip(change, masks, strict=True) if m.any()])
    outside = torch.stack([c[m == 0].mean() for c, m in zip(change, masks, strict=True)])
    assert inside.min() > 0.01 * white
    assert outside.max() < 0.02 * white
    assert masks.any(2).any(1).float().mean() > 0.8  # nearly all are to be seen
    assert masks.mean() < 0.2


def test_one_seed_gives_one_defect() -> None:
    images = good(4, 1)
    results = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        results.append(synthetic.spoil(images, images, 255)[0])
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


@pytest.mark.parametrize(("height", "width"), [(8, 8), (4, 40), (128, 128)])
def test_regions_are_never_empty_and_cover_what_was_asked(height: int, width: int) -> None:
    torch.manual_seed(0)
    found = synthetic.regions(50, height, width, (0.02, 0.2))
    assert found.shape == (50, height, width)
    assert found.amax((1, 2)).min() >= 0.5
    share = (found > 0.5).float().mean((1, 2))
    assert share.max() < 0.3


def test_a_scratch_is_thin() -> None:
    torch.manual_seed(0)
    lines = torch.stack([synthetic.scratch(128, 128) for _ in range(30)])
    assert (lines > 0.5).float().mean() < 0.03
    assert (lines > 0.5).flatten(1).any(1).float().mean() > 0.9
