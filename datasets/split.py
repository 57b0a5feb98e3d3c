"""Splits: images of one group stay together, and every split holds its share of what there is."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from datasets.sample import SPLITS, Dataset, Sample, Split
from inspection.errors import ConfigInvalid

FRACTIONS: dict[Split, float] = {"train": 0.6, "calibration": 0.2, "test": 0.2}
CALIBRATION_SHARE = 0.25  # of the training images, where a data set comes with train and test alone


def assign(
    dataset: Dataset,
    fractions: Mapping[Split, float] | None = None,
    *,
    seed: int = 0,
    calibration_share: float = CALIBRATION_SHARE,
) -> Dataset:
    """Gives every sample a split; a group (lot, else part, else image) is never parted by it.

    Splits that are given are kept. Where all samples have one and none is for calibration, `calibration_share` of the
    training images becomes it. Else what has no split yet is dealt out by `fractions` (default `FRACTIONS`), except
    that it goes along with members of its group that have one. Label, kind, stratum and the annotators' probability are
    spread evenly, as far as groups allow: groups are dealt largest first, each to where it lowers Pearson's chi-square
    between the counts there are and the counts there should be the most (after Sechidis et al., "On the stratification
    of multi-label data", ECML 2011). The same seed gives the same splits.

    Raises:
        ConfigInvalid: fractions that are negative or do not add up to 1.
    """
    if any(sample.split is None for sample in dataset):
        shares = dict(FRACTIONS if fractions is None else fractions)
        _check(shares)
        return dataset.with_samples(_deal(dataset.samples, shares, seed))
    present = {sample.split for sample in dataset}
    if "train" in present and "calibration" not in present:
        shares = {"train": 1 - calibration_share, "calibration": calibration_share}
        _check(shares)
        train = [replace(sample, split=None) for sample in dataset if sample.split == "train"]
        dealt = {sample.path: sample for sample in _deal(train, shares, seed)}
        return dataset.with_samples(dealt.get(sample.path, sample) for sample in dataset)
    return dataset


def straddling(dataset: Dataset) -> dict[str, list[Split]]:
    """Groups whose images are in more than one split, with these splits."""
    found: defaultdict[str, set[Split]] = defaultdict(set)
    for sample in dataset:
        if sample.split:
            found[sample.group].add(sample.split)
    return {group: [s for s in SPLITS if s in splits] for group, splits in found.items() if len(splits) > 1}


def stratum(sample: Sample) -> tuple[str, ...]:
    """What a split should hold its share of."""
    sure = "" if sample.probability is None else str(min(int(sample.probability * 4), 3))  # quarters
    return (sample.label or "", sample.kind or "", sample.stratum or "", sure)


def _check(fractions: Mapping[Split, float]) -> None:
    unknown = set(fractions) - set(SPLITS)
    if unknown:
        raise ConfigInvalid(f"there is no split `{sorted(unknown)[0]}`.", hint=f"Known: {', '.join(SPLITS)}.")
    if min(fractions.values(), default=0) < 0 or abs(sum(fractions.values()) - 1) > 1e-6:
        raise ConfigInvalid(
            f"the shares {', '.join(f'{name} {share:g}' for name, share in fractions.items())} do not add up to 1.",
            hint="For example: train 0.6, calibration 0.2, test 0.2.",
        )


def _deal(samples: tuple[Sample, ...] | list[Sample], shares: Mapping[Split, float], seed: int) -> list[Sample]:
    """Gives a split to the samples that have none."""
    splits = [split for split in SPLITS if shares.get(split, 0) > 0]
    strata = {key: index for index, key in enumerate(sorted({stratum(sample) for sample in samples}))}
    # The last column counts images, so that the shares hold overall and not only stratum by stratum.
    counts: dict[str, NDArray[np.float64]] = {}
    given: defaultdict[str, Counter[Split]] = defaultdict(Counter)
    have = np.zeros((len(splits), len(strata) + 1))
    for sample in samples:
        row = have[splits.index(sample.split)] if sample.split in splits else None
        if sample.split:
            given[sample.group][sample.split] += 1
        else:
            row = counts.setdefault(sample.group, np.zeros(len(strata) + 1))
        if row is not None:
            row[strata[stratum(sample)]] += 1
            row[-1] += 1

    fate = {group: given[group].most_common(1)[0][0] for group in counts if group in given}
    for group, split in fate.items():
        if split in splits:
            have[splits.index(split)] += counts[group]
    free = sorted(group for group in counts if group not in fate)
    np.random.default_rng(seed).shuffle(free)
    free.sort(key=lambda group: -counts[group][-1])  # stable: equals stay shuffled

    total = have.sum(axis=0) + sum((counts[group] for group in free), np.zeros(len(strata) + 1))
    wanted = np.outer([shares[split] for split in splits], total)
    weight = 1 / np.maximum(wanted, 1e-12)
    for group in free:
        seen = np.flatnonzero(counts[group])
        add = counts[group][seen]
        gain = (add * (2 * (wanted[:, seen] - have[:, seen]) - add) * weight[:, seen]).sum(axis=1)
        best = int(np.argmax(np.round(gain, 9)))
        fate[group] = splits[best]
        have[best, seen] += add
    return [sample if sample.split else replace(sample, split=fate[sample.group]) for sample in samples]
