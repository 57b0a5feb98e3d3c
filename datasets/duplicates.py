"""Images that are the same, or nearly: found by hashes, so that thousands compare in seconds.

A perceptual hash (pHash of the package imagehash: signs of the low frequencies of a cosine transform, 256 bits) hardly
changes when an image is compressed, resized, brightened or a little noisy; the number of bits in which two differ says
how alike they are.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import cv2
import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from inspection.pixels import Pixels
from inspection.progress import Meter

SIDE = 16  # 16 x 16 frequencies: 8 x 8, the usual, calls parts in the same fixture alike
BITS = SIDE * SIDE
# Of 256 bits. JPEG at quality 50, half the size or sensor noise change 4 to 10 in most images; photographs of the same
# part taken twice differ in 6 to 8, and of two parts in the same fixture in 10 and more.
NEAR = 8

Hash = NDArray[np.uint64]


def perceptual_hash(image: Pixels) -> Hash:
    """256 bits as 4 words, for an image of any size, depth and number of channels."""
    grey = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (4 * SIDE, 4 * SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    # The hash takes 8 bits. It does not depend on brightness and contrast, so a dark 12-bit image is stretched first.
    low, high = float(small.min()), float(small.max())
    bright = np.rint((small - low) * (255 / max(high - low, 1e-6))).astype(np.uint8)
    bits = imagehash.phash(Image.fromarray(bright), hash_size=SIDE).hash
    return np.packbits(np.asarray(bits).reshape(-1)).view(np.uint64)


def near_pairs(hashes: Sequence[Hash], most: int = NEAR) -> NDArray[np.int64]:
    """Index pairs `[n, 2]`, first < second, whose hashes differ in at most `most` bits.

    All against all, in blocks of machine words: 10,000 images take about 2 s, 100,000 some minutes.
    """
    if len(hashes) < 2:
        return np.zeros((0, 2), dtype=np.int64)
    words = np.ascontiguousarray(np.stack(hashes).T)  # 4 x n: whole rows of one word
    count = words.shape[1]
    block = max(1, (1 << 21) // count)  # 16 MB at a time
    found = []
    with Meter("comparing images", count) as meter:
        for start in range(0, count, block):
            part = words[:, start : start + block]
            distance = np.zeros((part.shape[1], count - start), dtype=np.uint16)
            for mine, all_ in zip(part, words[:, start:], strict=True):
                distance += np.bitwise_count(mine[:, None] ^ all_[None, :])
            rows, columns = np.nonzero(distance <= most)
            upper = columns > rows
            found.append(np.stack([rows[upper], columns[upper]], axis=1) + start)
            meter.step(part.shape[1])
    return np.concatenate(found).astype(np.int64)


def clusters(pairs: NDArray[np.int64], count: int) -> list[list[int]]:
    """Indices that hang together by pairs, each cluster and the list in ascending order."""
    if not len(pairs):
        return []
    graph = coo_array((np.ones(len(pairs), dtype=np.int8), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    _, names = connected_components(graph, directed=False)
    return same([int(name) for name in names])


def same(keys: Iterable[object]) -> list[list[int]]:
    """Indices with equal keys, where there are two or more; None is equal to nothing."""
    found: defaultdict[object, list[int]] = defaultdict(list)
    for index, key in enumerate(keys):
        if key is not None:
            found[key].append(index)
    return [indices for indices in found.values() if len(indices) > 1]
