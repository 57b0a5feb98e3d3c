"""Which image comes when, and how it is changed: pure functions of the seed and the position.

Nothing is remembered between steps, so a run that is resumed sees exactly the images that it would have seen, whatever
the number of threads, and several devices share out exactly the batch that one would take.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datasets.augment import Augmentation, AugmentOptions
from datasets.load import Loader
from datasets.sample import Sample

T = TypeVar("T")
ORDER, CHANGE, STEP = range(3)  # independent streams of random numbers from one seed


def derived(seed: int, *key: int) -> int:
    """A 63-bit seed for one purpose, independent for each key."""
    return int(np.random.SeedSequence([seed, *key]).generate_state(1, np.uint64)[0] >> 1)


class Draws:
    """An endless sequence of samples; each pass over the good ones, and over the bad ones, is a new permutation.

    With `bad_share` s, position p is bad where floor((p + 1) s) > floor(p s): every batch has its share to within one.
    """

    def __init__(self, bad: Sequence[bool], bad_share: float | None, seed: int) -> None:
        self._seed = seed
        flags = np.asarray(bad, dtype=bool)
        both = flags.any() and not flags.all()
        self._share = bad_share if both else None
        # Without a share there is one stream with everything in it.
        self._streams = (
            [np.flatnonzero(~flags), np.flatnonzero(flags)] if self._share is not None else [np.arange(len(flags))]
        )
        self._permutation = functools.lru_cache(maxsize=8)(self._permute)

    def __getitem__(self, position: int) -> int:
        """Index of the sample at `position`."""
        if self._share is None:
            stream, nth = 0, position
        else:
            before, after = math.floor(position * self._share), math.floor((position + 1) * self._share)
            stream, nth = (1, before) if after > before else (0, position - before)
        indices = self._streams[stream]
        return int(indices[self._permutation(stream, nth // len(indices))[nth % len(indices)]])

    def _permute(self, stream: int, epoch: int) -> NDArray[np.int64]:
        return np.random.default_rng([self._seed, ORDER, stream, epoch]).permutation(len(self._streams[stream]))


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """What one step learns from. Masks are bool, to be small on their way to the device."""

    pixels: Tensor  # uint8 or uint16 [N, H, W, C]
    defective: Tensor  # float32 [N], NaN: not known
    kind: Tensor  # int64 [N], -1: not known
    mask: Tensor  # bool [N, H, W]
    mask_known: Tensor  # bool [N]

    def to(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """The tensors in the order of the fields, on `device`."""
        parts = (self.pixels, self.defective, self.kind, self.mask, self.mask_known)
        return tuple(part.to(device, non_blocking=True) for part in parts)  # type: ignore[return-value]


class Batches:
    """The batches of one process: step n takes positions n * batch and on, and of those the part of `rank`."""

    def __init__(
        self,
        samples: Sequence[Sample],
        loader: Loader,
        augment: AugmentOptions,
        *,
        classes: tuple[str, ...],
        good_class: str | None,
        batch: int,
        bad_share: float | None,
        soft_labels: bool,
        seed: int,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self._samples = samples
        self._loader = loader
        self._augmentation = Augmentation(augment, loader.spec.white)
        self._classes = {name: number for number, name in enumerate(classes)}
        self._good_class = good_class
        self._soft = soft_labels
        self._seed = seed
        self._first, self._count, self._batch = rank * (batch // world), batch // world, batch
        self._draws = Draws([sample.label == "defect" for sample in samples], bad_share, seed)

    def __getitem__(self, step: int) -> Batch:
        """Builds the batch of `step`. Raises what the loader raises."""
        start = step * self._batch + self._first
        pixels, masks, samples, known = [], [], [], []
        for position in range(start, start + self._count):
            sample = self._samples[self._draws[position]]
            loaded = self._loader.load(sample)
            image, mask = self._augmentation.apply(loaded.pixels, loaded.mask, derived(self._seed, CHANGE, position))
            pixels.append(image)
            masks.append(np.zeros(image.shape[:2], bool) if mask is None else mask)
            known.append(mask is not None)
            samples.append(sample)
        return Batch(
            pixels=torch.from_numpy(np.stack(pixels)),
            defective=torch.tensor([self._defective(sample) for sample in samples], dtype=torch.float32),
            kind=torch.tensor([class_of(sample, self._classes, self._good_class) for sample in samples]),
            mask=torch.from_numpy(np.stack(masks)),
            mask_known=torch.tensor(known),
        )

    def _defective(self, sample: Sample) -> float:
        if self._soft and sample.probability is not None:
            return sample.probability
        return math.nan if sample.label is None else float(sample.label == "defect")


UNNAMED = "defect"  # the class of defects that nobody named


def class_of(sample: Sample, classes: dict[str, int], good_class: str | None) -> int:
    """Index of what the sample is, -1 where that is not known or no class. A classifier may have one for good parts."""
    if sample.label == "good":
        return classes.get(good_class or "", -1)
    return classes.get(sample.kind or UNNAMED, -1) if sample.label == "defect" else -1


def ahead(make: Callable[[int], T], steps: range, workers: int) -> Iterator[T]:
    """Yields `make(step)` for each step, in order, each made in one of `workers` threads before it is wanted.

    Raises what `make` raises, at its turn.
    """
    with ThreadPoolExecutor(workers, thread_name_prefix="batches") as pool:
        waiting: list[Future[T]] = []
        try:
            for step in steps:
                waiting.append(pool.submit(make, step))
                if len(waiting) > workers:
                    yield waiting.pop(0).result()
            while waiting:
                yield waiting.pop(0).result()
        finally:
            for future in waiting:
                future.cancel()
