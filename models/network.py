"""The contract that every network keeps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from inspection.modelfile import InputSpec


class Outputs(NamedTuple):
    """What a network says of a batch. Raw: monotone and unclamped, higher is worse."""

    score: Tensor  # float32 [N]
    map: Tensor | None = None  # float32 [N, h, w]
    classes: Tensor | None = None  # float32 [N, K]


@dataclass(frozen=True, kw_only=True, slots=True)
class Targets:
    """What is known of a batch."""

    defective: Tensor  # float32 [N], probability 0..1; NaN: not known
    kind: Tensor  # int64 [N], index into the network's classes; -1: not known
    mask: Tensor  # float32 [N, H, W], 1 where a defect is
    mask_known: Tensor  # bool [N]; false: `mask` says nothing


class Network(nn.Module, ABC):
    """Pixels in, scores out, in one pure path: training, evaluation and the exported graph run the same `forward`.

    `forward` takes `pixels` as they are (`[N, H, W, C]`, uint8 or uint16, of `spec`) and does cast, normalisation and
    layout itself.
    """

    name: ClassVar[str]
    learns: ClassVar[Literal["gradient", "bank"]]  # by steps of an optimiser, or by remembering good images

    def __init__(self, spec: InputSpec, classes: tuple[str, ...]) -> None:
        super().__init__()
        self.spec = spec
        self.classes = classes  # names in the order of Outputs.classes; empty: no such output

    @abstractmethod
    def forward(self, pixels: Tensor) -> Outputs:
        """Scores a batch."""

    def loss(self, pixels: Tensor, targets: Targets) -> dict[str, Tensor]:
        """Named parts of the loss (scalars); their sum is minimised. For `learns == "gradient"`."""
        raise NotImplementedError

    def parameter_groups(self, rate: float) -> list[dict[str, object]]:
        """Optimiser groups; parts that start from pretrained weights may learn more slowly than `rate`."""
        return [{"params": [p for p in self.parameters() if p.requires_grad], "lr": rate}]

    def remember(self, pixels: Tensor) -> None:
        """Takes good images into the bank. For `learns == "bank"`."""
        raise NotImplementedError

    def settle(self) -> None:
        """Ends remembering: the bank is reduced to its budget. For `learns == "bank"`."""
        raise NotImplementedError


def scaled(pixels: Tensor, spec: InputSpec) -> Tensor:
    """`[N, H, W, C]` integers to `[N, C, H, W]` float32 in 0..1, by the stated bit depth and never by the values."""
    return pixels.permute(0, 3, 1, 2).to(torch.float32) / spec.white
