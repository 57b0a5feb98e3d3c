"""Losses on raw scores; all in float32, whatever the network computed in."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

GAMMA = 2.0


def focal(logits: Tensor, target: Tensor) -> Tensor:
    """Focal loss (Lin et al., arXiv 1708.02002) of each element; `target` in 0..1."""
    logits = logits.float()
    loss = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return loss * (torch.sigmoid(logits) - target).abs() ** GAMMA


def dice(logits: Tensor, target: Tensor) -> Tensor:
    """One less the overlap of each image (Milletari et al., arXiv 1606.04797), `[N]`; for `[N, h, w]`."""
    p = torch.sigmoid(logits.float())
    both = (p * target).sum((1, 2))
    return 1 - (2 * both + 1) / ((p**2).sum((1, 2)) + (target**2).sum((1, 2)) + 1)


def balanced(losses: Tensor, bad: Tensor) -> Tensor:
    """The mean over the bad and the mean over the others, in equal parts, however many there are of each."""
    parts = [losses[which].mean() for which in (bad, ~bad) if which.any()]
    return torch.stack(parts).mean() if parts else losses.sum()


def highest(maps: Tensor, share: float) -> Tensor:
    """Mean of the highest cells of each map `[N, h, w]`, at least one: `[N]`."""
    cells = maps.float().flatten(1)
    return cells.topk(max(1, round(share * cells.shape[1])), dim=1).values.mean(1)
