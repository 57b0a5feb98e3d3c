"""Where a defect is and whether there is one, learnt from whatever is known of each image."""

from __future__ import annotations

from typing import ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inspection.modelfile import InputSpec
from models import backbones, synthetic
from models.losses import balanced, dice, focal, highest
from models.network import Network, Outputs, Targets
from models.options import DefectNetOptions


class Batch(NamedTuple):
    """Features and what is known of them."""

    features: Tensor  # [N, channels, h, w]
    defective: Tensor  # [N], NaN: not known
    mask: Tensor  # [N, h, w], share of the cell that is defective
    mask_known: Tensor  # bool [N]
    kind: Tensor  # int64 [N], -1: not known


class DefectNet(Network):
    """A segmentation head (`map`) and a decision head (`score`) on fused features of several strides.

    The two heads follow SegDec-Net (arXiv 2104.06064) and SuperSimpleNet (arXiv 2408.03143, 2508.19060). `classes` are
    kinds of defects (never the good one); with fewer than two there is no such output.
    """

    name: ClassVar[str] = "defectnet"
    learns: ClassVar[Literal["gradient", "bank"]] = "gradient"

    def __init__(
        self, options: DefectNetOptions, spec: InputSpec, classes: tuple[str, ...], *, pretrained: bool = True
    ) -> None:
        super().__init__(spec, classes if len(classes) > 1 else ())
        self.options = options
        self.frozen = options.tune_backbone != "yes" and options.weights != "random"
        self.backbone = backbones.build(options, spec, tuple(sorted(options.strides)), pretrained=pretrained)
        self.backbone.requires_grad_(not self.frozen)
        inputs, width = sum(self.backbone.channels), options.width
        # Unit variance of every feature: then neither the noise nor the heads depend on the backbone's scale.
        self.even = nn.BatchNorm2d(inputs, affine=False)
        self.cells = nn.Sequential(_layer(inputs, width, 1), _layer(width, width, 1))
        self.segment = nn.Conv2d(width, 1, 1)
        decides = not self.frozen if options.decision_head == "auto" else options.decision_head == "yes"
        self.decide = Decision(width) if decides else None
        self.name_kind = nn.Linear(width, len(self.classes)) if self.classes else None

    def train(self, mode: bool = True) -> DefectNet:
        """A pretrained backbone keeps its statistics: training batches hold too many defects, real and made."""
        super().train(mode)
        if self.options.weights != "random":
            self.backbone.eval()
        return self

    def forward(self, pixels: Tensor) -> Outputs:
        """Scores a batch; the map has one cell for the smallest stride."""
        return self._heads(self._features(pixels))

    def loss(self, pixels: Tensor, targets: Targets) -> dict[str, Tensor]:
        """Parts: `map` (masks, good images, synthetic defects), `score`, `weak` (defective, unknown where), `kind`."""
        batch = self._prepared(pixels, targets)
        outputs = self._heads(batch.features)
        assert outputs.map is not None
        options = self.options
        parts = {
            "map": options.map_weight * _map_loss(outputs.map, batch),
            "weak": options.weak_weight * _weak_loss(outputs.map, batch, options.top),
        }
        if self.decide is not None:  # pulled at by its highest cell alone, a map becomes worse, not better
            parts["score"] = options.score_weight * _score_loss(outputs.score, batch)
        if outputs.classes is not None:
            known = batch.kind >= 0
            loss = F.cross_entropy(outputs.classes[known], batch.kind[known], reduction="sum")
            parts["kind"] = options.kind_weight * loss / known.sum().clamp(min=1)
        return parts

    def parameter_groups(self, rate: float) -> list[dict[str, object]]:
        """The pretrained backbone learns more slowly than the heads, or not at all."""
        slow = rate if self.options.weights == "random" else rate * self.options.backbone_rate
        heads = nn.ModuleList(module for name, module in self.named_children() if name != "backbone")
        return [*backbones.groups(self.backbone, slow), *backbones.groups(heads, rate)]

    def _features(self, pixels: Tensor) -> Tensor:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            levels = self.backbone(pixels)
        even: Tensor = self.even(backbones.fused(levels))
        return even

    def _heads(self, features: Tensor) -> Outputs:
        hidden = self.cells(features)
        cells = self.segment(hidden)
        score = cells.amax((1, 2, 3)) if self.decide is None else self.decide(hidden, cells)
        kinds = None
        if self.name_kind is not None:
            where = torch.sigmoid(cells)
            kinds = self.name_kind((hidden * where).sum((2, 3)) / (where.sum((2, 3)) + 1e-3)).float()
        return Outputs(score.float(), cells[:, 0].float(), kinds)

    def _prepared(self, pixels: Tensor, targets: Targets) -> Batch:
        """Features of the batch with synthetic defects in some of its good images, and what is then known."""
        options = self.options
        good = targets.defective == 0
        defective, mask = targets.defective.clone(), targets.mask.clone()
        mask[good] = 0
        known = targets.mask_known | good
        spoiled = good & (torch.rand(len(good)) < options.pixel_defects).to(good.device)
        if spoiled.any():
            images = pixels.permute(0, 3, 1, 2).to(torch.float32)
            new, where = synthetic.spoil(images[spoiled], images[good], self.spec.white)
            images[spoiled] = new
            pixels = images.permute(0, 2, 3, 1)
            mask[spoiled] = where
            defective[spoiled] = (where.amax((1, 2)) > 0).float()
        features = self._features(pixels)
        # A cell belongs to a defect when any pixel of it does: one cell is all that a small defect has.
        cells = F.adaptive_max_pool2d(mask[:, None], features.shape[2:])[:, 0]
        batch = Batch(features, defective, cells, known, torch.where(spoiled, -1, targets.kind))
        return self._with_disturbed(batch, defective == 0) if options.feature_defects else batch

    def _with_disturbed(self, batch: Batch, good: Tensor) -> Batch:
        """Adds a copy of the good images with noise within a region of their features."""
        count = int(good.sum())
        if count == 0:
            return batch
        features = batch.features[good]
        height, width = features.shape[2:]
        region = synthetic.regions(count, height, width, (0.05, 0.9)).to(features.device)
        where = (region > 0.5).to(features.dtype)
        noise = torch.randn(features.shape).to(features) * self.options.noise
        return Batch(
            torch.cat([batch.features, features + noise * where[:, None]]),
            torch.cat([batch.defective, torch.ones(count, device=good.device)]),
            torch.cat([batch.mask, where.float()]),
            torch.cat([batch.mask_known, torch.ones_like(good[:count])]),
            torch.cat([batch.kind, batch.kind.new_full((count,), -1)]),
        )


class Decision(nn.Module):
    """One score for the image from what its cells hold and from their map."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.look = _layer(width + 1, 32, 3)
        self.linear = nn.Linear(2 * 32 + 2, 1)

    def forward(self, hidden: Tensor, cells: Tensor) -> Tensor:
        """`[N, width, h, w]` and `[N, 1, h, w]` to `[N]`."""
        seen = self.look(torch.cat([hidden, cells], 1))
        pooled = [value for x in (seen, cells) for value in (x.amax((2, 3)), x.mean((2, 3)))]
        score: Tensor = self.linear(torch.cat(pooled, 1))[:, 0]
        return score


def _layer(inputs: int, outputs: int, kernel: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def _map_loss(maps: Tensor, batch: Batch) -> Tensor:
    """Focal and dice where the mask is known."""
    maps, target = maps[batch.mask_known], batch.mask[batch.mask_known]
    if len(maps) == 0:
        return batch.features.sum() * 0
    bad = target > 0
    cells = focal(maps, target)
    loss = balanced(cells, bad)
    marked = bad.any(2).any(1)
    return loss + dice(maps[marked], target[marked]).mean() if marked.any() else loss


def _score_loss(score: Tensor, batch: Batch) -> Tensor:
    """Cross-entropy to the probability of a defect; good and bad count alike."""
    known = ~batch.defective.isnan()
    target = batch.defective[known]
    return balanced(F.binary_cross_entropy_with_logits(score[known], target, reduction="none"), target > 0.5)


def _weak_loss(maps: Tensor, batch: Batch, share: float) -> Tensor:
    """An image that is defective, unknown where, must light up somewhere (multiple-instance learning)."""
    weak = ~batch.mask_known & (batch.defective > 0.5)
    if not weak.any():
        return maps.sum() * 0
    return F.binary_cross_entropy_with_logits(highest(maps[weak], share), batch.defective[weak])
