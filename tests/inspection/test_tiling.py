"""Cutting into tiles and joining without seams."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inspection.modelfile import InputSpec, Tiling
from inspection.tiling import cut, join, plan, starts

sizes = st.tuples(st.integers(1, 300), st.integers(1, 300))
tilings = st.builds(Tiling, overlap=st.floats(0, 0.89), scale=st.sampled_from([1.0, 1.0, 0.5, 1.7]))


def spec(height: int = 64, width: int = 48, channels: int = 1) -> InputSpec:
    return InputSpec(height=height, width=width, channels=channels)  # type: ignore[arg-type]


@settings(max_examples=200, deadline=None)
@given(length=st.integers(1, 3000), tile=st.integers(32, 400), overlap=st.floats(0, 0.89))
def test_every_pixel_is_covered_and_every_tile_lies_inside(length: int, tile: int, overlap: float) -> None:
    found = starts(length, tile, overlap)
    assert found[0] == 0
    assert list(found) == sorted(set(found))
    assert found[-1] + tile == max(length, tile)
    assert all(after - before <= tile for before, after in itertools.pairwise(found))
    if overlap > 0 and len(found) > 1:  # what was asked for, or more
        assert all(tile - (after - before) >= int(tile * overlap) for before, after in itertools.pairwise(found))


@settings(max_examples=60, deadline=None)
@given(size=sizes, tiling=tilings, channels=st.sampled_from([1, 3]))
def test_tiles_are_the_networks_input_and_hold_the_images_pixels(
    size: tuple[int, int], tiling: Tiling, channels: int
) -> None:
    wanted = spec(channels=channels)
    shape = (size[1], size[0]) if channels == 1 else (size[1], size[0], 3)
    image = np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)
    grid = plan(size, wanted, tiling)
    tiles = list(cut(image, grid))
    assert len(tiles) == len(grid)
    assert {tile.shape for tile in tiles} == {(64, 48, channels)}
    if tiling.scale == 1:
        corner = tiles[0][: size[1], : size[0]]
        np.testing.assert_array_equal(corner, image.reshape(size[1], size[0], channels)[:64, :48])


@settings(max_examples=60, deadline=None)
@given(size=sizes, overlap=st.floats(0, 0.89))
def test_joining_what_was_cut_gives_the_image_back(size: tuple[int, int], overlap: float) -> None:
    """The network whose map is its input."""
    image = np.random.default_rng(1).integers(0, 255, (size[1], size[0])).astype(np.uint8)
    grid = plan(size, spec(), Tiling(overlap=overlap))
    joined, extent = join([tile[..., 0].astype(np.float32) for tile in cut(image, grid)], grid)
    assert extent == (joined.shape[1], joined.shape[0]) == (max(48, size[0]), max(64, size[1]))
    np.testing.assert_allclose(joined[: size[1], : size[0]], image, atol=1e-3)


@settings(max_examples=100, deadline=None)
@given(size=sizes, tiling=tilings, cells=st.tuples(st.integers(1, 64), st.integers(1, 48)))
def test_the_weights_of_all_tiles_sum_to_one_everywhere(
    size: tuple[int, int], tiling: Tiling, cells: tuple[int, int]
) -> None:
    """Tiles that all say one give one: at any grid of cells, whether it fits the tile or not."""
    grid = plan(size, spec(), tiling)
    joined, _ = join([np.ones(cells, np.float32)] * len(grid), grid)
    np.testing.assert_allclose(joined, 1, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(size=sizes, tiling=tilings, cells=st.sampled_from([(8, 6), (16, 12), (64, 48), (7, 5)]))
def test_a_joined_value_never_leaves_the_range_of_its_tiles(
    size: tuple[int, int], tiling: Tiling, cells: tuple[int, int]
) -> None:
    grid = plan(size, spec(), tiling)
    rng = np.random.default_rng(2)
    maps = [rng.uniform(-3, 5, cells).astype(np.float32) for _ in range(len(grid))]
    joined, _ = join(maps, grid)
    assert joined.min() >= min(values.min() for values in maps) - 1e-4
    assert joined.max() <= max(values.max() for values in maps) + 1e-4


def mean_of_cells(tile: Any, cell: int) -> Any:
    """A network that does not care where it is: the brightness of each cell."""
    height, width = tile.shape[:2]
    return tile.astype(np.float32).reshape(height // cell, cell, width // cell, cell).mean(axis=(1, 3))


@pytest.mark.parametrize("cell", [4, 8, 16])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5])
def test_no_seam_is_seen_by_a_network_that_does_not_care_where_it_is(cell: int, overlap: float) -> None:
    size = (512, 384)  # tiles begin on cells; a tile shifted inward lands on them too
    y, x = np.mgrid[: size[1], : size[0]]
    image = (127 + 60 * np.sin(x / 37) + 60 * np.cos(y / 23)).astype(np.uint8)
    grid = plan(size, spec(128, 128), Tiling(overlap=overlap))
    assert len(grid) > 4
    joined, _ = join([mean_of_cells(tile[..., 0], cell) for tile in cut(image, grid)], grid)
    np.testing.assert_allclose(joined, mean_of_cells(image, cell), atol=1e-3)


def test_an_edge_between_tiles_that_disagree_becomes_a_ramp() -> None:
    grid = plan((96, 64), spec(64, 64), Tiling(overlap=0.5))
    assert grid.lefts == (0, 32)
    joined, _ = join([np.zeros((64, 64), np.float32), np.ones((64, 64), np.float32)], grid)
    np.testing.assert_allclose(joined[0, :32], 0)
    np.testing.assert_allclose(joined[0, 32:64], (np.arange(32) + 0.5) / 32, atol=1e-6)
    np.testing.assert_allclose(joined[0, 64:], 1)


def test_an_image_smaller_than_a_tile_is_continued_by_its_border() -> None:
    image = np.array([[10, 20], [30, 40]], np.uint8)
    grid = plan((2, 2), spec(), Tiling())
    (tile,) = cut(image, grid)
    np.testing.assert_array_equal(tile[:2, :2, 0], image)
    assert (tile[2:, 2:, 0] == 40).all()
    assert (tile[0, 2:, 0] == 20).all()


@settings(max_examples=60, deadline=None)
@given(size=st.tuples(st.integers(70, 300), st.integers(70, 300)), tiling=tilings)
def test_a_joined_map_lies_where_its_pixels_were(size: tuple[int, int], tiling: Tiling) -> None:
    """The extent of the map reaches the end of the image, to half a cell."""
    grid = plan(size, spec(), tiling)
    joined, extent = join([np.zeros((8, 6), np.float32)] * len(grid), grid)
    x, y, width, height = grid.placement.region(extent[1], extent[0])
    assert (x, y) == (0, 0)
    assert width * grid.placement.scale_x >= size[0] * grid.placement.scale_x - 4 - 1e-6
    assert height * grid.placement.scale_y >= size[1] * grid.placement.scale_y - 4 - 1e-6
    assert extent == (joined.shape[1] * 8, joined.shape[0] * 8)
