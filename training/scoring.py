"""Scores of samples by a torch network: the only place that runs one over images without learning."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datasets.load import Loader
from datasets.sample import Sample
from inspection.progress import Meter
from models.network import Network


class Scores(NamedTuple):
    """What the network says of one batch, in the order of `samples`."""

    samples: Sequence[Sample]
    score: NDArray[np.float32]  # [n]
    map: NDArray[np.float32] | None  # [n, h, w]
    classes: NDArray[np.float32] | None  # [n, K]


@dataclass(frozen=True, kw_only=True, slots=True)
class Scored:
    """What the network says of many samples, in their order."""

    samples: tuple[Sample, ...]
    score: NDArray[np.float32]  # [n]
    classes: NDArray[np.float32] | None = None  # [n, K]
    maps: NDArray[np.float32] | None = None  # [n, h, w], where they were asked for and the network has them

    @property
    def good(self) -> NDArray[np.float32]:
        """Scores of the samples that are known to be good."""
        return self.score[[sample.label == "good" for sample in self.samples]]

    @property
    def bad(self) -> NDArray[np.float32]:
        """Scores of the samples that are known to be defective."""
        return self.score[[sample.label == "defect" for sample in self.samples]]


def stream(
    network: Network,
    samples: Sequence[Sample],
    loader: Loader,
    device: torch.device | str = "cpu",
    *,
    batch: int = 16,
    progress: str | None = None,
) -> Iterator[Scores]:
    """Runs the network over samples, batch after batch, in float32; the next batch is read meanwhile.

    Args:
        network: in any mode; it is in evaluation mode while this runs, and then as it was. Moved to `device`.
        samples: what to score.
        loader: gives the network's input for a sample.
        device: where to run.
        batch: images at once.
        progress: label of the progress shown on stderr; None: none.

    Raises:
        ImageUnreadable, InputMismatch: an image cannot be used; names it.
    """
    parts = [samples[first : first + batch] for first in range(0, len(samples), batch)]
    was_training = network.training
    network.to(device).eval()
    meter = Meter(progress, len(samples)) if progress else None
    try:
        with ThreadPoolExecutor(1) as reader:
            waiting = reader.submit(_read, loader, parts[0]) if parts else None
            if meter:
                meter.__enter__()
            for number, part in enumerate(parts):
                assert waiting is not None
                pixels = waiting.result()
                waiting = reader.submit(_read, loader, parts[number + 1]) if number + 1 < len(parts) else None
                with torch.inference_mode():
                    out = network(torch.from_numpy(pixels).to(device))
                yield Scores(part, _plain(out.score), _maybe(out.map), _maybe(out.classes))
                if meter:
                    meter.step(len(part))
    finally:
        network.train(was_training)
        if meter:
            meter.__exit__()


def score(
    network: Network,
    samples: Sequence[Sample],
    loader: Loader,
    device: torch.device | str = "cpu",
    *,
    batch: int = 16,
    maps: bool = False,
    progress: str | None = None,
) -> Scored:
    """As `stream`, gathered. `maps` keeps every map in memory: 4 bytes a cell."""
    parts = stream(network, samples, loader, device, batch=batch, progress=progress)
    return gathered(samples, [part if maps else part._replace(map=None) for part in parts])


def gathered(samples: Sequence[Sample], got: Sequence[Scores]) -> Scored:
    """The parts of a `stream` over `samples` as one."""
    return Scored(
        samples=tuple(samples),
        score=np.concatenate([part.score for part in got]) if got else np.zeros(0, np.float32),
        classes=_joined([part.classes for part in got]),
        maps=_joined([part.map for part in got]),
    )


def _read(loader: Loader, samples: Sequence[Sample]) -> NDArray[Any]:
    return np.stack([loader.load(sample).pixels for sample in samples])


def _plain(tensor: Tensor) -> NDArray[np.float32]:
    return tensor.float().cpu().numpy()


def _maybe(tensor: Tensor | None) -> NDArray[np.float32] | None:
    return None if tensor is None else _plain(tensor)


def _joined(parts: list[NDArray[np.float32] | None]) -> NDArray[np.float32] | None:
    known = [part for part in parts if part is not None]
    return np.concatenate(known) if known else None
