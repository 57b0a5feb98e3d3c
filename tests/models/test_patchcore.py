"""The bank: what it keeps, within which budget, and that its distances are right."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors

import models
from inspection.errors import DataInvalid
from inspection.modelfile import InputSpec
from models.coreset import BLOCK, SLACK, Coreset, nearest
from models.options import PatchCoreOptions
from models.patchcore import NEIGHBOURS, PatchCore
from tests.models.contract import images, with_defects

pytestmark = pytest.mark.train

SPEC = InputSpec(height=64, width=96, channels=1)


def patchcore(**options: float) -> PatchCore:
    network = models.build(PatchCoreOptions(**options), SPEC, ())  # type: ignore[arg-type]
    assert isinstance(network, PatchCore)
    return network


def filled(**options: float) -> PatchCore:
    network = patchcore(**options)
    for seed in range(3):
        network.remember(images(SPEC, 4, seed=seed))
    network.settle()
    return network


def test_distances_are_those_of_an_independent_search() -> None:
    network = filled(rows=100)
    bad, _ = with_defects(images(SPEC, 2, seed=9), SPEC)
    patches = network._patches(bad).movedim(1, 3).flatten(0, 2)
    search = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(network.bank.double().numpy())
    wanted = search.kneighbors(patches.double().numpy())[0].reshape(2, 8, 12)
    outputs = network(bad)
    np.testing.assert_allclose(outputs.map, wanted, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(outputs.score, wanted.reshape(2, -1).max(1), rtol=1e-4)


def test_a_remembered_image_is_at_distance_zero() -> None:
    network = patchcore(rows=5000)
    network.remember(images(SPEC, 2))
    network.settle()
    bad, mask = with_defects(images(SPEC, 1), SPEC)
    assert network(images(SPEC, 2)).map.max() < 0.02 * network(bad).score
    where = network(bad).map[0].argmax()
    assert mask[0, int(where) // 12 * 8 : int(where) // 12 * 8 + 8].any()


def test_the_papers_factor_lowers_scores_by_the_density_around() -> None:
    plain, weighted = filled(rows=100), filled(rows=100, reweight=True)
    bad, _ = with_defects(images(SPEC, 2, seed=9), SPEC)
    patches = plain._patches(bad).movedim(1, 3).flatten(1, 2).double()
    bank = plain.bank.double()
    for index, rows in enumerate(patches):
        distances = torch.cdist(rows, bank)
        worst = distances.amin(1).argmax()
        closest = bank[distances[worst].argmin()]
        around = torch.cdist(closest[None], bank)[0].topk(NEIGHBOURS, largest=False).indices
        s = distances.amin(1).max()
        factor = 1 - torch.exp(s) / torch.exp(torch.cdist(rows[worst][None], bank[around])).sum()
        assert weighted(bad).score[index].item() == pytest.approx(float(s * factor), rel=1e-3)


def test_an_empty_bank_is_refused() -> None:
    network = patchcore(rows=100)
    with pytest.raises(DataInvalid, match="bank is empty"):
        network(images(SPEC, 1))
    with pytest.raises(DataInvalid, match="nothing to remember"):
        network.settle()


def test_the_budget_is_said_before_and_kept() -> None:
    network = patchcore(rows=200_000, memory_mb=16)
    assert network.rows * network.dims * 4 * (SLACK + 1) <= 16_000_000
    assert f"{network.rows} patches" in network.budget
    assert "16.0 MB while it is built" in network.budget


def test_the_bank_is_the_same_whatever_the_size_of_the_batches() -> None:
    one, other = patchcore(rows=1000), patchcore(rows=1000)
    pixels = images(SPEC, 6)
    one.remember(pixels)
    for part in pixels.split(2):
        other.remember(part)
    one.settle()
    other.settle()
    apart = torch.cdist(one.bank + one.centre, other.bank + other.centre, compute_mode="donot_use_mm_for_euclid_dist")
    assert len(one.bank) == len(other.bank)
    assert apart.amin(0).max() < 1e-3
    assert apart.amin(1).max() < 1e-3


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40), st.integers(1, 6), st.integers(0, 2000), st.integers(0, 2**31))
def test_a_coreset_never_holds_more_than_it_may_and_chooses_only_what_it_saw(
    rows: int, dims: int, shown: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    stream = torch.randn(shown, dims, generator=generator)
    coreset = Coreset(rows, dims)
    for part in stream.split(300):
        coreset.add(part)
        assert len(coreset.held) <= SLACK * rows + BLOCK
    if shown == 0:
        return
    chosen = coreset.chosen()
    assert 1 <= len(chosen) <= rows
    assert len(chosen) == min(rows, len(coreset.held))
    shown_rows = {tuple(row) for row in stream.tolist()}
    assert all(tuple(row) in shown_rows for row in chosen.tolist())


def test_every_row_that_was_shown_has_one_nearby_and_the_rare_ones_survive() -> None:
    generator = torch.Generator().manual_seed(0)
    common = torch.randn(20_000, 8, generator=generator)
    rare = torch.randn(5, 8, generator=generator) + 30
    stream = torch.cat([common[:7000], rare, common[7000:]])
    coreset = Coreset(200, 8)
    coreset.add(stream)
    chosen = coreset.chosen()
    assert nearest(rare, chosen).max() < 5
    # All in memory at once, the greedy choice is within twice the best possible radius; the stream costs a little more.
    whole = Coreset(200, 8)
    whole._pool = stream.clone()
    whole._count = len(stream)
    assert nearest(stream, chosen).max() < 1.5 * nearest(stream, whole.chosen()).max()


def test_a_coreset_of_equal_rows_comes_to_an_end() -> None:
    coreset = Coreset(50, 4)
    coreset.add(torch.ones(5000, 4))
    assert 1 <= len(coreset.chosen()) <= 50
