"""Every network keeps the contract."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from inspection.modelfile import InputSpec
from models.network import Targets
from models.options import ClassifierOptions, DefectNetOptions, ModelOptions, PatchCoreOptions
from tests.models.contract import Contract, targets

pytestmark = pytest.mark.train


class TestDefectNetWithMasks(Contract):
    @property
    def options(self) -> ModelOptions:
        return DefectNetOptions(width=16, tune_backbone="yes")

    def known(self, spec: InputSpec, mask: Tensor) -> Targets:
        return targets(
            spec,
            4,
            defective=torch.tensor([0.0, 0.0, 1.0, 1.0]),
            mask=torch.cat([torch.zeros_like(mask), mask]),
            mask_known=torch.tensor([False, False, True, True]),
        )


class TestDefectNetWithLabelsAndKinds(Contract):
    classes = ("dent", "stain")

    @property
    def options(self) -> ModelOptions:
        return DefectNetOptions(width=16, strides=(4, 8, 16), tune_backbone="yes")

    def known(self, spec: InputSpec, mask: Tensor) -> Targets:
        return targets(spec, 4, defective=torch.tensor([0.0, 0.0, 1.0, 1.0]), kind=torch.tensor([-1, -1, 0, 1]))


class TestDefectNetWithGoodImagesAlone(Contract):
    @property
    def options(self) -> ModelOptions:
        return DefectNetOptions(width=16)

    def known(self, spec: InputSpec, mask: Tensor) -> Targets:
        return targets(spec, 4, defective=torch.tensor([0.0, 0.0, torch.nan, torch.nan]))


class TestDefectNetOnATorchvisionBackbone(Contract):
    @property
    def options(self) -> ModelOptions:
        return DefectNetOptions(backbone="shufflenet_v2_x0_5", weights="random", width=16)

    known = TestDefectNetWithMasks.known


class TestClassifierOfGoodAgainstBad(Contract):
    classes = ("good", "defect")
    rate = 1e-3  # its batch statistics follow the images, and lag behind larger steps

    @property
    def options(self) -> ModelOptions:
        return ClassifierOptions(dropout=0.0, stochastic_depth=0.0)

    def known(self, spec: InputSpec, mask: Tensor) -> Targets:
        return targets(spec, 4, defective=torch.tensor([0.0, 0.0, 1.0, 1.0]))


class TestClassifierOfKindsAndGood(Contract):
    classes = ("crack", "good", "stain")
    rate = 1e-3

    @property
    def options(self) -> ModelOptions:
        return ClassifierOptions(dropout=0.0, stochastic_depth=0.0, views=4)

    def known(self, spec: InputSpec, mask: Tensor) -> Targets:
        return targets(spec, 4, defective=torch.tensor([0.0, 0.0, 1.0, 1.0]), kind=torch.tensor([1, 1, 0, 2]))


class TestPatchCore(Contract):
    @property
    def options(self) -> ModelOptions:
        return PatchCoreOptions(rows=64)

    def known(self, spec: InputSpec, mask: Tensor) -> Targets:
        raise NotImplementedError


class TestPatchCoreShortenedAndReweighted(TestPatchCore):
    @property
    def options(self) -> ModelOptions:
        return PatchCoreOptions(rows=64, dims=32, reweight=True)
