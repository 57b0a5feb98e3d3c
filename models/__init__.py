"""Networks, each found by its name, and the graph that each is exported as.

The package itself loads no torch, so that `models.options` can be read without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from inspection.modelfile import InputSpec
    from models.network import Network
    from models.options import ModelOptions


def names() -> tuple[str, ...]:
    """The kinds of networks that `build` knows."""
    return ("defectnet", "classifier", "patchcore")


def build(
    options: ModelOptions, spec: InputSpec, classes: tuple[str, ...], seed: int = 0, *, pretrained: bool = True
) -> Network:
    """Makes a network.

    Args:
        options: which network, and how.
        spec: the pixels it takes.
        classes: names that it tells apart, in the order of `Outputs.classes`; see each network for what they mean.
        seed: of everything that starts at random. The caller's random state is left as it was.
        pretrained: false leaves the starting weights away and opens no file, for when a state dict is loaded next.

    Raises:
        ConfigInvalid: a backbone, a stride or classes that do not fit; weights that are not there.
    """
    import torch

    from models.classifier import Classifier
    from models.defectnet import DefectNet
    from models.options import ClassifierOptions, DefectNetOptions
    from models.patchcore import PatchCore

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if isinstance(options, DefectNetOptions):
            network: Network = DefectNet(options, spec, classes, pretrained=pretrained)
        elif isinstance(options, ClassifierOptions):
            network = Classifier(options, spec, classes, pretrained=pretrained)
        else:
            network = PatchCore(options, spec, pretrained=pretrained)
    return network.train()  # each network says which of its parts keep to evaluation
