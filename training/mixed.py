"""bfloat16 on the CPU where it is fast, and not where it is slow."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor, nn


def spare_depthwise(network: nn.Module) -> None:
    """Lets convolutions of groups run in float32 under bfloat16 on the CPU; changes `network` in place.

    Their gradient in bfloat16 has no fast kernel there and takes three quarters of a step: with it bfloat16 is hardly
    faster than float32, without it twice as fast (benchmarks/precision.py). In float32 and on a GPU nothing changes.
    The instances are changed, not their class: do not copy the network afterwards.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.groups > 1:
            module.forward = functools.partial(_spared, module.forward)  # type: ignore[method-assign]


def _spared(convolve: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    if not (torch.is_autocast_enabled("cpu") and torch.is_grad_enabled()):  # forward alone is fast
        return convolve(x)
    with torch.autocast("cpu", enabled=False):
        return convolve(x.float()).to(torch.get_autocast_dtype("cpu"))
