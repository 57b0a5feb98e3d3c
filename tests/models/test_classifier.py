"""What the classifier's score and map mean, and what it learns from."""

from __future__ import annotations

import pytest
import torch

import models
from inspection.errors import ConfigInvalid
from inspection.modelfile import InputSpec
from models.classifier import Classifier
from models.network import Outputs
from models.options import ClassifierOptions
from tests.models.contract import images, step, targets

pytestmark = pytest.mark.train

SPEC = InputSpec(height=96, width=64, channels=1)


def classifier(classes: tuple[str, ...], **options: float) -> Classifier:
    network = models.build(ClassifierOptions(**options), SPEC, classes)  # type: ignore[arg-type]
    assert isinstance(network, Classifier)
    torch.nn.init.normal_(network.linear.bias, std=0.5)
    return network.eval()


def judged(network: Classifier, count: int = 4) -> Outputs:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, SPEC.height, SPEC.width, 1), generator=generator, dtype=torch.uint8)
    with torch.no_grad():
        outputs: Outputs = network(pixels)
    return outputs


def test_the_score_is_the_log_odds_of_any_defect() -> None:
    outputs = judged(classifier(("crack", "good", "stain")))
    assert outputs.classes is not None
    p = outputs.classes.softmax(1)
    torch.testing.assert_close(torch.sigmoid(outputs.score), p[:, 0] + p[:, 2])


@pytest.mark.parametrize("classes", [("good", "defect"), ("crack", "good", "stain"), ("a", "b", "c", "d", "good")])
def test_the_map_averages_to_the_score(classes: tuple[str, ...]) -> None:
    outputs = judged(classifier(classes))
    assert outputs.map is not None
    torch.testing.assert_close(outputs.map.mean((1, 2)), outputs.score, atol=1e-4, rtol=1e-4)


def test_without_a_good_class_the_score_says_how_doubtful_the_kind_is() -> None:
    outputs = judged(classifier(("crack", "dent", "stain")))
    assert outputs.classes is not None
    assert outputs.map is not None
    first = outputs.classes.softmax(1).amax(1)
    torch.testing.assert_close(torch.sigmoid(-outputs.score), first)
    torch.testing.assert_close(outputs.map.mean((1, 2)), -outputs.score, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("share", [0.33, 0.67])
def test_annotators_that_disagree_are_matched_in_their_share(share: float) -> None:
    network = classifier(("good", "defect"), dropout=0, stochastic_depth=0, label_smoothing=0)
    pixels = images(SPEC, 2)
    optimiser = torch.optim.Adam(network.linear.parameters(), lr=0.01)
    known = targets(SPEC, 2, defective=torch.tensor([share, share]), kind=torch.tensor([1, 1]))
    for _ in range(100):
        network.zero_grad()
        sum(network.loss(pixels, known).values()).backward()  # type: ignore[union-attr]
        optimiser.step()
    with torch.no_grad():
        p = torch.sigmoid(network(pixels).score)
    assert p.tolist() == pytest.approx([share, share], abs=0.03)


def test_what_is_not_known_teaches_nothing() -> None:
    network = classifier(("crack", "dent"), dropout=0, stochastic_depth=0)
    pixels = images(SPEC, 2)
    parts = step(network, pixels, targets(SPEC, 2, defective=torch.ones(2)))  # defective, but of which kind?
    assert parts["class"].item() == 0
    assert all(p.grad is None or not p.grad.any() for p in network.parameters())


def test_a_good_image_and_a_defect_of_unknown_kind_pull_apart() -> None:
    network = classifier(("crack", "good", "stain"), dropout=0, stochastic_depth=0)
    pixels = torch.cat([images(SPEC, 1), images(SPEC, 1, seed=5) + 60])
    optimiser = torch.optim.Adam(network.linear.parameters(), lr=0.03)
    known = targets(SPEC, 2, defective=torch.tensor([0.0, 1.0]))
    for _ in range(30):
        network.zero_grad()
        network.loss(pixels, known)["class"].backward()
        optimiser.step()
    score = network(pixels).score
    assert score[1] > 0 > score[0]


@pytest.mark.parametrize("classes", [(), ("good",), ("a", "a")])
def test_fewer_than_two_classes_are_refused(classes: tuple[str, ...]) -> None:
    with pytest.raises(ConfigInvalid, match="two classes"):
        models.build(ClassifierOptions(weights="random"), SPEC, classes)


@pytest.mark.parametrize(("views", "turned"), [(4, False), (8, True)])
def test_a_mirrored_or_turned_image_gets_the_same_score_and_the_map_turned_with_it(views: int, turned: bool) -> None:
    spec = InputSpec(height=64, width=64, channels=1)
    network = models.build(ClassifierOptions(views=views), spec, ("good", "crack")).eval()  # type: ignore[arg-type]
    image = torch.randint(0, 256, (1, 64, 64, 1), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    with torch.no_grad():
        plain, mirrored = network(image), network(image.flip(2))
        upright = network(image.transpose(1, 2)) if turned else plain
    assert mirrored.score == pytest.approx(plain.score, abs=1e-4)
    torch.testing.assert_close(mirrored.map.flip(2), plain.map, atol=1e-4, rtol=1e-4)
    if turned:
        assert upright.score == pytest.approx(plain.score, abs=1e-4)
        torch.testing.assert_close(upright.map.transpose(1, 2), plain.map, atol=1e-4, rtol=1e-4)


def test_quarter_turns_of_what_is_no_square_are_refused() -> None:
    with pytest.raises(ConfigInvalid, match="square"):
        classifier(("good", "bad"), views=8)
