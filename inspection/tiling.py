"""Large images as overlapping tiles of the network's input size, and the tiles' maps as one map again.

An image is first resized by `Tiling.scale`. An axis shorter than a tile is padded at its end by repeating the border.
The last tile of an axis is shifted inward, so that every tile lies on real pixels. Joined maps are a mean of the tiles'
maps with weights that ramp linearly over the overlap and sum to one everywhere: no seam where tiles meet.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from inspection.modelfile import InputSpec, Tiling
from inspection.pixels import Pixels, Placement, resize

# Tiles start at multiples of this many pixels, where the stride allows it: then the cells of their maps (strides 4 to
# 32 in common networks) lie on one grid, and the network sees every object at the same phase in both tiles.
GRAIN = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class Grid:
    """Where the tiles lie in the resized image."""

    tops: tuple[int, ...]
    lefts: tuple[int, ...]
    height: int  # of a tile
    width: int
    placement: Placement

    def __len__(self) -> int:
        return len(self.tops) * len(self.lefts)


def starts(length: int, tile: int, overlap: float) -> tuple[int, ...]:
    """First pixels of the tiles along an axis of `length`, ascending; they cover it."""
    if length <= tile:
        return (0,)
    stride = max(1, int(tile * (1 - overlap)))
    if stride >= GRAIN:
        stride -= stride % GRAIN
    last = length - tile
    return (*range(0, last, stride), last)


def plan(size: tuple[int, int], spec: InputSpec, tiling: Tiling) -> Grid:
    """The tiles for an image of `size` (width, height)."""
    width, height = (max(1, round(length * tiling.scale)) for length in size)
    return Grid(
        tops=starts(height, spec.height, tiling.overlap),
        lefts=starts(width, spec.width, tiling.overlap),
        height=spec.height,
        width=spec.width,
        placement=Placement(scale_x=width / size[0], scale_y=height / size[1], offset_x=0.0, offset_y=0.0, size=size),
    )


def cut(image: Pixels, grid: Grid) -> Iterator[Pixels]:
    """The tiles, `height x width x channels`, row by row; cut when asked for: they need not all be in memory."""
    place = grid.placement
    image = resize(image, round(place.size[0] * place.scale_x), round(place.size[1] * place.scale_y))
    short_y, short_x = max(0, grid.height - image.shape[0]), max(0, grid.width - image.shape[1])
    if short_y or short_x:
        image = cv2.copyMakeBorder(image, 0, short_y, 0, short_x, cv2.BORDER_REPLICATE)  # type: ignore[assignment]
    if image.ndim == 2:
        image = image[:, :, None]
    for top in grid.tops:
        for left in grid.lefts:
            yield image[top : top + grid.height, left : left + grid.width]


def join(maps: Sequence[NDArray[np.float32]], grid: Grid) -> tuple[NDArray[np.float32], tuple[float, float]]:
    """One map from the tiles' maps (each `h x w` over a whole tile), and its extent (width, height) in resized pixels.

    The cells are those of the tiles' maps. A tile that does not start on a cell is put on the nearest one.
    """
    rows, columns = maps[0].shape
    tops, weights_y = _axis(grid.tops, grid.height, rows)
    lefts, weights_x = _axis(grid.lefts, grid.width, columns)
    joined = np.zeros((tops[-1] + rows, lefts[-1] + columns), dtype=np.float32)
    tiles = iter(maps)
    for top, weight_y in zip(tops, weights_y, strict=True):
        for left, weight_x in zip(lefts, weights_x, strict=True):
            weight = weight_y[:, None] * weight_x[None, :]
            joined[top : top + rows, left : left + columns] += weight * next(tiles)
    extent = (joined.shape[1] * grid.width / columns, joined.shape[0] * grid.height / rows)
    return joined, extent


def _axis(begins: tuple[int, ...], tile: int, cells: int) -> tuple[list[int], list[NDArray[np.float32]]]:
    """First cells of the tiles along one axis, and each tile's weights; at every cell the weights sum to one."""
    first = [int(begin * cells / tile + 0.5) for begin in begins]  # not round(): half to even would open gaps
    raw = []
    centre = np.arange(cells) + 0.5
    for index, begin in enumerate(first):
        before = first[index - 1] + cells - begin if index else 0  # cells shared with the tile before
        after = begin + cells - first[index + 1] if index + 1 < len(first) else 0
        ramp = np.ones(cells)
        if before > 0:
            ramp = np.minimum(ramp, centre / before)
        if after > 0:
            ramp = np.minimum(ramp, (cells - centre) / after)
        raw.append(ramp)
    total = np.zeros(first[-1] + cells)
    for begin, ramp in zip(first, raw, strict=True):
        total[begin : begin + cells] += ramp
    return first, [
        (ramp / total[begin : begin + cells]).astype(np.float32) for begin, ramp in zip(first, raw, strict=True)
    ]
