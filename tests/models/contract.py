"""What every network must keep; each inherits it with its own options (tests/models/test_networks.py)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import Tensor

import models
from inspection.modelfile import InputSpec
from models.graph import to_onnx
from models.network import Network, Targets
from models.options import ModelOptions

SPECS = {
    "uint8 mono": InputSpec(height=64, width=96, channels=1),
    "uint8 RGB": InputSpec(height=64, width=64, channels=3),
    "uint16 mono": InputSpec(height=71, width=64, channels=1, bit_depth=12),  # 71: odd at every stride
}
# Highest difference between torch and onnxruntime at fp32, relative to the largest value of the output.
TOLERANCE = {"score": 2e-5, "map": 5e-5, "classes": 2e-5}


def images(spec: InputSpec, count: int, seed: int = 0) -> Tensor:
    """`[count, H, W, C]`: an even texture with some noise, in the lower half of the range."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[: spec.height, : spec.width]
    base = 0.25 + 0.05 * np.sin(x / 3) * np.cos(y / 4)
    pixels = base[None, :, :, None] + generator.normal(0, 0.01, (count, spec.height, spec.width, spec.channels))
    return torch.from_numpy((pixels.clip(0, 1) * spec.white).astype(spec.dtype))


def with_defects(pixels: Tensor, spec: InputSpec) -> tuple[Tensor, Tensor]:
    """The same with a bright square, and its mask `[N, H, W]`."""
    spoiled = pixels.numpy().copy()
    mask = np.zeros(spoiled.shape[:3], np.float32)
    for index in range(len(spoiled)):
        top, left = 8 + 8 * (index % 3), 12 + 9 * (index % 3)
        spoiled[index, top : top + 14, left : left + 14] = int(0.9 * spec.white)
        mask[index, top : top + 14, left : left + 14] = 1
    return torch.from_numpy(spoiled), torch.from_numpy(mask)


def targets(spec: InputSpec, count: int, **known: Tensor) -> Targets:
    """Targets of which nothing is known but what is given."""
    unknown = {
        "defective": torch.full((count,), torch.nan),
        "kind": torch.full((count,), -1),
        "mask": torch.zeros(count, spec.height, spec.width),
        "mask_known": torch.zeros(count, dtype=torch.bool),
    }
    return Targets(**{**unknown, **known})


def step(network: Network, pixels: Tensor, known: Targets) -> dict[str, Tensor]:
    """The loss's parts, after their gradients were taken."""
    network.train().zero_grad()
    parts = network.loss(pixels, known)
    torch.stack(list(parts.values())).sum().backward()  # type: ignore[no-untyped-call]
    return parts


class Contract(ABC):
    """The contract; a subclass names its options and classes."""

    classes: ClassVar[tuple[str, ...]] = ()
    rate: ClassVar[float] = 3e-3

    @property
    @abstractmethod
    def options(self) -> ModelOptions:
        """Options that make a network in well under a second."""

    @abstractmethod
    def known(self, spec: InputSpec, mask: Tensor) -> Targets:
        """What this network is told of two good images followed by the two defective ones of `mask` [2, H, W]."""

    def network(self, spec: InputSpec, seed: int = 0) -> Network:
        """A network that has seen some good images, so that its scores mean something."""
        network = models.build(self.options, spec, self.classes, seed)
        if network.learns == "bank":
            network.remember(images(spec, 4))
            network.settle()
        return network.eval()

    @pytest.fixture(params=SPECS, ids=lambda name: name.replace(" ", "-"))
    def spec(self, request: pytest.FixtureRequest) -> InputSpec:
        return SPECS[request.param]

    def test_one_score_for_each_image_and_a_map_over_it(self, spec: InputSpec) -> None:
        network = self.network(spec)
        outputs = network(images(spec, 3))
        assert outputs.score.shape == (3,)
        assert outputs.score.dtype == outputs.map.dtype == torch.float32
        assert outputs.map.ndim == 3
        rows, columns = outputs.map.shape[1:]
        assert rows / columns == pytest.approx(spec.height / spec.width, rel=0.4)
        if network.classes:
            assert outputs.classes.shape == (3, len(network.classes))
        else:
            assert outputs.classes is None

    def test_the_same_image_gets_the_same_score_every_time_and_in_any_company(self, spec: InputSpec) -> None:
        network = self.network(spec)
        good = images(spec, 2)
        bad, _ = with_defects(images(spec, 2, seed=1), spec)
        alone = network(good[:1])
        again = network(good[:1])
        assert torch.equal(alone.score, again.score)
        beside = network(torch.from_numpy(np.concatenate([good, bad])))
        torch.testing.assert_close(beside.score[:1], alone.score, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(beside.map[:1], alone.map, rtol=1e-4, atol=1e-4)

    def test_building_twice_with_one_seed_gives_one_network_and_leaves_the_callers_chance_alone(self) -> None:
        spec = SPECS["uint8 mono"]
        torch.manual_seed(3)
        expected = torch.rand(1)
        torch.manual_seed(3)
        first, second = self.network(spec, seed=5), self.network(spec, seed=5)
        assert torch.equal(torch.rand(1), expected)
        assert torch.equal(first(images(spec, 1)).score, second(images(spec, 1)).score)

    def test_defective_images_come_to_score_above_good_ones(self) -> None:
        spec = SPECS["uint8 mono"]
        good, (bad, mask) = images(spec, 2), with_defects(images(spec, 2, seed=1), spec)
        pixels = torch.cat([good, bad])
        network = self.network(spec)
        if network.learns == "gradient":
            torch.manual_seed(0)
            optimiser = torch.optim.AdamW(network.parameter_groups(self.rate), lr=self.rate)
            known = self.known(spec, mask)
            for _ in range(40):
                step(network, pixels, known)
                optimiser.step()
        scores = network.eval()(pixels).score
        assert scores[2:].min() > scores[:2].max(), scores.tolist()

    @pytest.mark.slow
    def test_the_exported_graph_says_what_the_network_says(self, spec: InputSpec, tmp_path: Path) -> None:
        network = self.network(spec)
        path = tmp_path / "model.onnx"
        to_onnx(network, path)
        session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
        assert [entry.name for entry in session.get_inputs()] == ["pixels"]
        names = [entry.name for entry in session.get_outputs()]
        for count in (1, 5):
            last, _ = with_defects(images(spec, 1, seed=2), spec)
            pixels = torch.from_numpy(np.concatenate([images(spec, count)[1:], last]))
            with torch.no_grad():
                expected = {name: value for name, value in network(pixels)._asdict().items() if value is not None}
            assert names == list(expected)
            for name, got in zip(names, session.run(None, {"pixels": pixels.numpy()}), strict=True):
                wanted = expected[name].numpy()
                assert got.dtype == np.float32
                assert got.shape == wanted.shape
                np.testing.assert_allclose(got, wanted, rtol=0, atol=TOLERANCE[name] * max(1.0, np.abs(wanted).max()))

    def test_every_trainable_parameter_learns(self) -> None:
        spec = SPECS["uint8 RGB"]
        network = self.network(spec)
        if network.learns == "bank":
            assert not [name for name, parameter in network.named_parameters() if parameter.requires_grad]
            return
        bad, mask = with_defects(images(spec, 2, seed=1), spec)
        torch.manual_seed(0)
        step(network, torch.cat([images(spec, 2), bad]), self.known(spec, mask))
        trained = {name: p for name, p in network.named_parameters() if p.requires_grad}
        without = [name for name, p in trained.items() if p.grad is None or not torch.any(p.grad != 0)]
        assert trained
        assert not without
        grouped = [id(p) for group in network.parameter_groups(0.1) for p in group["params"]]  # type: ignore[attr-defined]
        assert sorted(grouped) == sorted(id(p) for p in trained.values())

    def test_a_saved_network_scores_the_same_when_it_is_loaded(self, tmp_path: Path) -> None:
        spec = SPECS["uint8 mono"]
        network = self.network(spec)
        torch.save(network.state_dict(), tmp_path / "state.pt")
        other = models.build(self.options, spec, self.classes, seed=99, pretrained=False)
        other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
        assert torch.equal(other.eval()(images(spec, 2)).score, network(images(spec, 2)).score)

    def test_whatever_is_known_of_a_batch_the_loss_is_finite(self) -> None:
        spec = SPECS["uint8 mono"]
        network = self.network(spec)
        if network.learns == "bank":
            pytest.skip("has no loss")
        bad, mask = with_defects(images(spec, 2, seed=1), spec)
        pixels = torch.cat([images(spec, 2), bad])
        full = torch.cat([torch.zeros_like(mask), mask])
        nan = torch.nan
        torch.manual_seed(0)
        for known in (
            targets(spec, 4),
            targets(spec, 4, defective=torch.zeros(4)),
            targets(spec, 4, defective=torch.ones(4)),
            targets(spec, 4, defective=torch.tensor([0.0, nan, 1.0, nan])),
            targets(spec, 4, defective=torch.tensor([0.0, 0.33, 0.67, 1.0])),
            targets(spec, 4, defective=torch.tensor([0.0, 0.0, 1.0, nan]), mask=full, mask_known=full.any(2).any(1)),
            targets(spec, 4, kind=torch.tensor([-1, 1, 0, -1])),
        ):
            parts = step(network, pixels, known)
            assert all(torch.isfinite(part) and part.ndim == 0 for part in parts.values()), parts
            gradients = [p.grad for p in network.parameters() if p.grad is not None]
            assert all(torch.isfinite(gradient).all() for gradient in gradients)

    def test_training_is_repeatable_from_the_global_seed(self) -> None:
        spec = SPECS["uint8 mono"]
        if self.network(spec).learns == "bank":
            pytest.skip("is not trained")
        bad, mask = with_defects(images(spec, 2, seed=1), spec)
        losses = []
        for _ in range(2):
            network = self.network(spec)
            torch.manual_seed(7)
            losses.append(step(network, torch.cat([images(spec, 2), bad]), self.known(spec, mask)))
        assert losses[0] == losses[1]
