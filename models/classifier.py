"""Kinds of defects, or good against bad, by one linear layer on the averaged features, and where the evidence lies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inspection.errors import ConfigInvalid
from inspection.modelfile import InputSpec
from models import backbones
from models.network import Network, Outputs, Targets
from models.options import ClassifierOptions


class Classifier(Network):
    """One linear layer on the averaged last features of a backbone.

    With the good class among the classes, `score` is the log-odds of any defect: log sum exp of the defects' logits
    less the good one's. Without it only kinds are told apart, and `score` is how doubtful the kind is: log sum exp of
    the other logits less the highest one; it is above zero where no kind has more than half of the probability.

    `map` is the class activation map (Zhou et al., arXiv 1512.04150). Averaging and the linear layer commute, so the
    map is the score before it is averaged: its mean over the cells is the score, exactly. Where only kinds are told
    apart it is turned round and shows the evidence for the kind that was found.
    """

    name: ClassVar[str] = "classifier"
    learns: ClassVar[Literal["gradient", "bank"]] = "gradient"

    def __init__(
        self, options: ClassifierOptions, spec: InputSpec, classes: tuple[str, ...], *, pretrained: bool = True
    ) -> None:
        super().__init__(spec, classes)
        if len(classes) < 2 or len(set(classes)) < len(classes):
            raise ConfigInvalid(
                f"the classifier tells two classes or more apart, and was given {list(classes)}.",
                hint="With good images only, take defectnet or patchcore.",
            )
        if options.views == 8 and spec.height != spec.width:
            raise ConfigInvalid(
                f"only a square can be turned by quarters, and the input is {spec.width} x {spec.height}.",
                where="model.views",
                hint="Take 4, or a square input.",
            )
        self.options = options
        self.good = classes.index(options.good_class) if options.good_class in classes else None
        self.backbone = backbones.build(
            options, spec, (), head=True, drop=options.stochastic_depth, pretrained=pretrained
        )
        self.dropout = nn.Dropout(options.dropout)
        self.linear = nn.Linear(self.backbone.channels[-1], len(classes))
        nn.init.zeros_(self.linear.bias)

    def forward(self, pixels: Tensor) -> Outputs:
        """Scores a batch; see the class."""
        features = self.backbone(_views(pixels, self.options.views))[-1]
        logits = self._logits(features)
        cells = F.conv2d(features, self.linear.weight[:, :, None, None], self.linear.bias).float()
        if self.options.views > 1:
            # Not by chunk(): its sizes would fix the batch in the exported graph.
            logits = logits.reshape(self.options.views, -1, *logits.shape[1:]).mean(0)
            cells = torch.stack(_undone(cells.reshape(self.options.views, -1, *cells.shape[1:]).unbind())).mean(0)
        score, evidence = self._kinds(logits, cells) if self.good is None else self._defects(logits, cells, self.good)
        return Outputs(score, evidence, logits)

    def loss(self, pixels: Tensor, targets: Targets) -> dict[str, Tensor]:
        """Cross-entropy to the kind where it is known, and to the probability of a defect where that is all."""
        logits = self._logits(self.backbone(pixels)[-1])
        total = logits.sum() * 0  # a batch of which nothing is known still has a gradient
        kinds = targets.kind >= 0
        soft = ~kinds & ~targets.defective.isnan()
        if self.good is not None:
            # An annotator's doubt counts: with two classes the probability is the target, also where the kind is known.
            if len(self.classes) == 2:
                soft = ~targets.defective.isnan()
                kinds = kinds & ~soft
            soft = soft | (~kinds & (targets.defective == 0))
        count = kinds.sum() + (soft.sum() if self.good is not None else 0)
        if kinds.any():
            smooth = self.options.label_smoothing
            total = total + F.cross_entropy(logits[kinds], targets.kind[kinds], label_smoothing=smooth, reduction="sum")
        if self.good is not None and soft.any():
            odds = _odds(logits[soft], self.good)
            wanted = targets.defective[soft]
            wanted = wanted * (1 - self.options.label_smoothing) + self.options.label_smoothing / 2
            total = total + F.binary_cross_entropy_with_logits(odds, wanted, reduction="sum")
        return {"class": total / count.clamp(min=1)}

    def parameter_groups(self, rate: float) -> list[dict[str, object]]:
        """The pretrained backbone learns more slowly than the new layer; what scales or shifts does not decay."""
        slow = rate if self.options.weights == "random" else rate * self.options.backbone_rate
        return [*backbones.groups(self.backbone, slow), *backbones.groups(self.linear, rate)]

    def _logits(self, features: Tensor) -> Tensor:
        logits: Tensor = self.linear(self.dropout(features.mean((2, 3))))
        return logits.float()

    def _defects(self, logits: Tensor, cells: Tensor, good: int) -> tuple[Tensor, Tensor]:
        score = _odds(logits, good)
        rest = [index for index in range(len(self.classes)) if index != good]
        return score, _evidence(logits[:, rest], cells[:, rest]) - cells[:, good]

    def _kinds(self, logits: Tensor, cells: Tensor) -> tuple[Tensor, Tensor]:
        first = F.one_hot(logits.argmax(1), len(self.classes)).bool()
        others = logits.masked_fill(first, -1e9)
        found = (cells * first[:, :, None, None]).sum(1)
        return others.logsumexp(1) - logits.amax(1), found - _evidence(others, cells)


def _views(pixels: Tensor, count: int) -> Tensor:
    """`[N, H, W, C]` and its mirrored and turned copies, one after another: `[count * N, H, W, C]`."""
    views = [pixels]
    if count > 1:
        views += [pixels.flip(2), pixels.flip(1), pixels.flip(1, 2)]
    if count > 4:
        views += [view.transpose(1, 2) for view in views]
    return torch.cat(views)


def _undone(views: Sequence[Tensor]) -> list[Tensor]:
    """Maps `[N, K, h, w]` of `_views`, turned back."""
    upright = [view.transpose(2, 3) for view in views[4:]]
    return [
        part
        for four in (list(views[:4]), upright)
        if four
        for part in (four[0], four[1].flip(3), four[2].flip(2), four[3].flip(2, 3))
    ]


def _odds(logits: Tensor, good: int) -> Tensor:
    """Log-odds of any defect, `[N]`."""
    rest = [index for index in range(logits.shape[1]) if index != good]
    return logits[:, rest].logsumexp(1) - logits[:, good]


def _evidence(logits: Tensor, cells: Tensor) -> Tensor:
    """log sum exp of `logits` [N, K] before the average over the cells [N, K, h, w], as `[N, h, w]`.

    log sum exp z = sum p z + entropy(p) with p = softmax z, and the sum is linear in the cells.
    """
    p = logits.softmax(1)
    entropy = -(p * logits.log_softmax(1).clamp(min=-1e4)).sum(1)
    return (p[:, :, None, None] * cells).sum(1) + entropy[:, None, None]
