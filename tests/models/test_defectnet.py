"""What defectnet learns from each kind of knowledge."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import models
from inspection.modelfile import InputSpec
from models.defectnet import DefectNet
from models.network import Targets
from models.options import DefectNetOptions
from tests.models.contract import images, step, targets, with_defects

pytestmark = pytest.mark.train

SPEC = InputSpec(height=64, width=96, channels=1)


def defectnet(classes: tuple[str, ...] = (), **options: object) -> DefectNet:
    network = models.build(DefectNetOptions(width=16, **options), SPEC, classes)  # type: ignore[arg-type]
    assert isinstance(network, DefectNet)
    return network


def fit(network: DefectNet, pixels: torch.Tensor, known: Targets, steps: int = 40) -> DefectNet:
    torch.manual_seed(0)
    optimiser = torch.optim.AdamW(network.parameter_groups(3e-3), lr=3e-3)
    for _ in range(steps):
        step(network, pixels, known)
        optimiser.step()
    network.eval()
    return network


def test_the_map_shows_the_defect() -> None:
    bad, mask = with_defects(images(SPEC, 3, seed=1), SPEC)
    known = targets(
        SPEC,
        6,
        defective=torch.tensor([0.0, 0.0, 0.0, 1.0, 1.0, 1.0]),
        mask=torch.cat([torch.zeros_like(mask), mask]),
        mask_known=torch.tensor([False, False, False, True, True, True]),
    )
    network = fit(defectnet(tune_backbone="yes"), torch.cat([images(SPEC, 3), bad]), known)
    unseen, where = with_defects(images(SPEC, 3, seed=8), SPEC)
    maps = network(unseen).map
    cells = F.adaptive_max_pool2d(where[:, None], maps.shape[1:])[:, 0] > 0
    for one, inside in zip(maps, cells, strict=True):
        assert one[inside].mean() > one[~inside].mean() + 0.5
        assert inside.flatten()[one.argmax()]


def test_a_defect_of_unknown_place_lights_up_its_map() -> None:
    bad, _ = with_defects(images(SPEC, 3, seed=1), SPEC)
    known = targets(SPEC, 6, defective=torch.tensor([0.0, 0.0, 0.0, 1.0, 1.0, 1.0]))
    pixels = torch.cat([images(SPEC, 3), bad])
    highest = fit(defectnet(tune_backbone="yes"), pixels, known)(pixels).map.amax((1, 2))
    assert highest[3:].min() > highest[:3].max()


def test_kinds_are_told_apart() -> None:
    bright, _ = with_defects(images(SPEC, 2, seed=1), SPEC)
    dark = images(SPEC, 2, seed=2)
    dark[:, 40:54, 50:70] = 0
    known = targets(SPEC, 6, defective=torch.tensor([0.0, 0, 1, 1, 1, 1]), kind=torch.tensor([-1, -1, 0, 0, 1, 1]))
    network = fit(defectnet(("bright", "dark"), tune_backbone="yes"), torch.cat([images(SPEC, 2), bright, dark]), known)
    assert network(torch.cat([bright, dark])).classes.argmax(1).tolist() == [0, 0, 1, 1]


def test_one_kind_alone_is_no_choice() -> None:
    network = defectnet(("scratch",)).eval()
    assert network.classes == ()
    assert network(images(SPEC, 1)).classes is None


def test_with_good_images_alone_the_pretrained_backbone_stays_as_it_is() -> None:
    network = defectnet()
    before = {key: value.clone() for key, value in network.backbone.state_dict().items()}
    fit(network, images(SPEC, 4), targets(SPEC, 4, defective=torch.zeros(4)), steps=3)
    assert all(torch.equal(value, before[key]) for key, value in network.backbone.state_dict().items())


def test_a_tuned_backbone_learns_more_slowly_and_keeps_its_statistics() -> None:
    network = defectnet(tune_backbone="yes", backbone_rate=0.1)
    rates = {id(p): group["lr"] for group in network.parameter_groups(1.0) for p in group["params"]}  # type: ignore[attr-defined]
    assert {rates[id(p)] for p in network.backbone.parameters()} == {0.1}
    before = {key: value.clone() for key, value in network.backbone.state_dict().items()}
    fit(network, images(SPEC, 4), targets(SPEC, 4, defective=torch.zeros(4)), steps=2)
    after = network.backbone.state_dict()
    assert all(torch.equal(after[key], before[key]) for key in after if "running" in key)
    assert any(not torch.equal(after[key], before[key]) for key in after if key.endswith("weight"))


def test_with_good_images_alone_the_score_is_the_highest_cell_and_else_a_head_decides() -> None:
    pixels = images(SPEC, 3)
    alone = defectnet().eval()(pixels)
    assert torch.equal(alone.score, alone.map.amax((1, 2)))
    for options in ({"tune_backbone": "yes"}, {"decision_head": "yes"}):
        decided = defectnet(**options).eval()(pixels)
        assert not torch.allclose(decided.score, decided.map.amax((1, 2)))


def test_an_image_of_which_nothing_is_known_teaches_nothing() -> None:
    network = defectnet(tune_backbone="yes")
    parts = step(network, images(SPEC, 2), targets(SPEC, 2))
    assert all(part.item() == 0 for part in parts.values())
