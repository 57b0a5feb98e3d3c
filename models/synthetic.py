"""Defects that nobody has seen yet, put into good images so that a network can learn from good images alone.

In pixels, after CutPaste (arXiv 2104.04015) and DRAEM (arXiv 2108.07610): pieces of other images, stains, scratches,
lost texture, displaced structure. In features, after SuperSimpleNet (arXiv 2408.03143): noise within a region.
All chance comes from torch's global generator on the CPU, so a resumed training makes the same defects on any device.
"""

from __future__ import annotations

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor


def regions(count: int, height: int, width: int, cover: tuple[float, float]) -> Tensor:
    """Random regions, `[count, height, width]` in 0..1 with soft edges about one pixel wide; none is empty.

    Smooth noise is cut at the level that leaves a share of the area between `cover`'s bounds (drawn uniformly in its
    logarithm: defects are more often small). The noise is coarser in one direction than in the other, so regions are
    round or long.
    """
    found = []
    low, high = (math.log(bound) for bound in cover)
    for _ in range(count):
        cells = [max(2, min(size, int(2 ** _uniform(1, 5)))) for size in (height, width)]
        noise = smooth_noise(1, cells, (height, width))[0, 0]
        level = noise.flatten().kthvalue(max(1, int((1 - math.exp(_uniform(low, high))) * noise.numel())))[0]
        slope = noise.std() * max(cells) / max(height, width)  # about the change from one pixel to the next
        region = ((noise - level) / slope.clamp(min=1e-6) + 0.5).clamp(0, 1)
        # A window keeps the noise from always lighting up in several places at once.
        found.append(region * _window(height, width) if _uniform(0, 1) < 0.5 else region)
        if found[-1].max() < 0.5:
            found[-1] = region
    return torch.stack(found) if found else torch.zeros(0, height, width)


def smooth_noise(channels: int, cells: list[int], size: tuple[int, int]) -> Tensor:
    """Normal noise on a grid of `cells`, interpolated to `[1, channels, *size]`."""
    return F.interpolate(torch.randn(1, channels, *cells), size=size, mode="bicubic", align_corners=True)


def scratch(height: int, width: int) -> Tensor:
    """One thin bent line, `[height, width]` in 0..1."""
    length = _uniform(0.08, 0.6) * max(height, width)
    angle, x, y = _uniform(0, math.pi), _uniform(0.1, 0.9) * width, _uniform(0.1, 0.9) * height
    along = torch.tensor([math.cos(angle), math.sin(angle)])
    across = torch.tensor([-along[1], along[0]])
    bend = _uniform(-0.3, 0.3) * length
    t = torch.linspace(-0.5, 0.5, 9)[:, None]
    bow = t * length * along + (1 - 4 * t**2) * bend * across
    points = torch.tensor([x, y]) + bow + torch.randn(9, 2) * length / 60
    grid_y, grid_x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    nearest = torch.full((height, width), torch.inf)
    for start, end in itertools.pairwise(points):
        dx, dy = (end - start).tolist()
        share = (((grid_x - start[0]) * dx + (grid_y - start[1]) * dy) / max(dx * dx + dy * dy, 1e-6)).clamp(0, 1)
        square = (grid_x - start[0] - share * dx) ** 2 + (grid_y - start[1] - share * dy) ** 2
        nearest = torch.minimum(nearest, square)
    half = _uniform(0.5, 0.5 + max(height, width) / 150)
    return (half + 0.5 - nearest.sqrt()).clamp(0, 1)


def spoil(images: Tensor, donors: Tensor, white: float) -> tuple[Tensor, Tensor]:
    """Puts one synthetic defect into each image.

    Args:
        images: `[N, C, H, W]` float32 in pixel units, good.
        donors: `[M, C, H, W]`, images that pieces are taken from.
        white: the highest pixel value.

    Returns:
        The spoiled images, and `[N, H, W]` float32: 1 where a pixel was changed so much that it can be seen.
    """
    spoiled, masks = [], []
    for image in images:
        height, width = image.shape[1:]
        line = _uniform(0, 1) < 0.25
        choice = [scratch(height, width) if line else regions(1, height, width, (0.001, 0.1))[0] for _ in range(2)]
        # Of two places the one with more structure: that is more often the part than what lies around it.
        edges = (image[:, 1:, 1:] - image[:, :-1, :-1]).abs().sum(0).cpu()
        region = max(choice, key=lambda r: float((edges * r[1:, 1:]).sum() / r.sum().clamp(min=1))).to(image.device)
        donor = donors[int(torch.randint(len(donors), ()))]
        changed = _fill(image, donor, white, flat=line)
        new = (image + region * (changed - image)).clamp(0, white)
        # What cannot be seen must not be learnt: the change around a pixel has to exceed a part of the image's spread.
        change = F.avg_pool2d((new - image).abs().amax(0)[None, None], 5, 1, 2, count_include_pad=False)[0, 0]
        seen = change > max(0.02 * white, 0.25 * float(image.std()))
        spoiled.append(new)
        masks.append((seen & (region > 0.3)).float())
    return torch.stack(spoiled), torch.stack(masks)


def _fill(image: Tensor, donor: Tensor, white: float, *, flat: bool) -> Tensor:
    """What the inside of the region looks like, `[C, H, W]`."""
    channels, height, width = image.shape
    spread = max(float(image.std()), 0.03 * white)
    kind = int(torch.randint(2 if flat else 6, ()))
    if kind <= 1:  # a stain: darker, lighter or of another colour; even or mottled
        amount = torch.randn(1, 1, 1) + 0.5 * torch.randn(channels, 1, 1)
        amount = amount.sign() * (amount.abs() + 0.5) * _uniform(0.5, 2) * spread
        if kind == 0:
            return image + amount.to(image.device)
        cells = [max(2, min(64, int(size / 2 ** _uniform(1, 5)))) for size in (height, width)]
        return image + (amount * (0.5 + smooth_noise(1, cells, (height, width))[0])).to(image.device)
    if kind == 2:  # lost texture
        size = 2 * int(_uniform(2, max(3.0, min(height, width) / 12))) + 1
        return F.avg_pool2d(image[None], size, 1, size // 2, count_include_pad=False)[0]
    if kind == 3:  # displaced structure
        reach = max(2, min(height, width) // 12)
        step = [int(_uniform(-reach, reach)) or reach for _ in range(2)]
        return image.roll(step, (1, 2))
    # A piece from elsewhere, turned and shifted.
    piece = donor.roll([int(torch.randint(size, ())) for size in (height, width)], (1, 2))
    flips = [axis for axis in (1, 2) if _uniform(0, 1) < 0.5]
    piece = piece.flip(flips) if flips else piece
    share = _uniform(0.4, 1.0) if kind == 4 else 1.0
    return image + share * (piece - image)


def _window(height: int, width: int) -> Tensor:
    """A soft disc of random place and size."""
    y, x = _uniform(0, 1), _uniform(0, 1)
    radius = _uniform(0.1, 0.5)
    grid_y, grid_x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    return ((radius - ((grid_y - y) ** 2 + (grid_x - x) ** 2).sqrt()) * min(height, width) + 0.5).clamp(0, 1)


def _uniform(low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand(()))
