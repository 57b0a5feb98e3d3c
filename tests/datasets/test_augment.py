"""Augmentation moves pixels and mask alike, the same way for the same seed, in every depth."""

from __future__ import annotations

import pickle
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from datasets.augment import Augmentation, AugmentOptions
from tests.support.images import scratched, surface

pytestmark = pytest.mark.train

NOTHING = AugmentOptions(
    horizontal_flip=False, vertical_flip=False, quarter_turns=False, rotation=0, scale=0, shift=0,
    brightness=0, contrast=0, gamma=0, blur=0, noise=0,
)  # fmt: skip
FLIPS = NOTHING.model_copy(update={"horizontal_flip": True, "vertical_flip": True})
STRONG = AugmentOptions(quarter_turns=True, rotation=20, scale=0.2, shift=0.1, blur=2, blur_share=1, noise_share=1)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(48, 48), (40, 64), (64, 33)])
def test_shape_and_type_stay_and_the_seed_decides(size: tuple[int, int], channels: int, dtype: type) -> None:
    image, mask = scratched(1, *size, channels=channels, dtype=dtype)
    pixels = image.reshape(*size, channels)
    before = pixels.copy()
    pixels.setflags(write=False)
    augmentation, another = Augmentation(STRONG), Augmentation(STRONG)
    seen = set()
    for seed in range(25):
        changed, moved = augmentation.apply(pixels, mask, seed)
        assert moved is not None
        assert (changed.shape, changed.dtype, moved.shape, moved.dtype) == (pixels.shape, dtype, mask.shape, bool)
        assert changed.flags.writeable
        assert changed.flags.c_contiguous
        again, moved_again = another.apply(pixels, mask, seed)
        assert (again == changed).all()
        assert (moved_again == moved).all()
        seen.add(changed.tobytes())
    assert len(seen) == 25
    assert (pixels == before).all()


def test_the_mask_goes_with_the_pixels() -> None:
    """The scratch is the only white: where the mask is after flips and turns, the image is white, and nowhere else."""
    image, mask = scratched(5, 64, 64)
    image = np.minimum(image, 128)
    image[mask] = 255
    options = FLIPS.model_copy(update={"quarter_turns": True})
    places = set()
    for seed in range(60):
        changed, moved = Augmentation(options).apply(image[:, :, None], mask, seed)
        assert moved is not None
        assert ((changed[..., 0] == 255) == moved).all()
        places.add(moved.tobytes())
    assert len(places) == 8, "all flips and turns of a square"


def test_both_flips_are_drawn_by_themselves() -> None:
    """A seed given to every step alike would flip both ways or not at all."""
    image = np.arange(48 * 64, dtype=np.uint16).reshape(48, 64, 1)
    results = [Augmentation(FLIPS).apply(image, None, seed)[0].tobytes() for seed in range(400)]
    expected = [image, image[::-1], image[:, ::-1], image[::-1, ::-1]]
    shares = [sum(result == np.ascontiguousarray(e).tobytes() for result in results) / 400 for e in expected]
    assert sum(shares) == 1
    assert all(abs(share - 0.25) < 0.09 for share in shares), "4 standard deviations"


def test_small_rotations_keep_the_mask_on_the_defect() -> None:
    image = np.full((64, 64, 1), 50, np.uint8)
    mask = np.zeros((64, 64), bool)
    mask[20:30, 25:45] = True
    image[mask] = 250
    options = NOTHING.model_copy(update={"rotation": 15, "scale": 0.1, "shift": 0.1})
    for seed in range(30):
        changed, moved = Augmentation(options).apply(image, mask, seed)
        assert moved is not None
        bright = changed[..., 0] > 150
        assert (bright & moved).sum() / (bright | moved).sum() > 0.8


def test_nothing_asked_is_nothing_changed() -> None:
    image, mask = surface(1)[:, :, None], surface(1) > 100
    changed, moved = Augmentation(NOTHING).apply(image, mask, 3)
    assert (changed == image).all()
    assert moved is not None
    assert (moved == mask).all()
    assert not np.may_share_memory(changed, image)


@pytest.mark.parametrize("white", [1023, 4095, 65535])
def test_light_changes_by_the_stated_bit_depth_and_never_beyond_it(white: int) -> None:
    """10 bit must change as 8 bit does, and stay 10 bit, or the model refuses it."""
    grey = surface(1, 64, 64)
    options = NOTHING.model_copy(update={"brightness": 0.3, "contrast": 0.3, "gamma": 0.3})
    deep = np.rint(grey.astype(np.float64) / 255 * white).astype(np.uint16)
    highest = 0
    for seed in range(40):
        a, _ = Augmentation(options).apply(grey[:, :, None], None, seed)
        b, _ = Augmentation(options, white).apply(deep[:, :, None], None, seed)
        assert int(b.max()) <= white
        highest = max(highest, int(b.max()))
        assert np.abs(a / 255 - b / white).max() < 0.02
    assert highest == white, "it did reach white"


def test_noise_has_the_strength_that_was_asked() -> None:
    image = np.full((128, 128, 1), 128, np.uint8)
    options = NOTHING.model_copy(update={"noise": 0.04, "noise_share": 1.0})
    spreads = [Augmentation(options).apply(image, None, seed)[0].std() / 255 for seed in range(30)]
    assert min(spreads) > 0.009
    assert 0.03 < max(spreads) < 0.042


def test_threads_and_other_processes_get_the_same() -> None:
    image = surface(1)[:, :, None]
    augmentation = Augmentation(STRONG)
    expected = [augmentation.apply(image, None, seed)[0] for seed in range(40)]
    copy = pickle.loads(pickle.dumps(augmentation))
    with ThreadPoolExecutor(4) as pool:
        for one, two in zip(expected, pool.map(lambda seed: copy.apply(image, None, seed)[0], range(40)), strict=True):
            assert (one == two).all()


def test_it_is_fast_enough_to_feed_a_small_network() -> None:
    """About 0.5 ms at 256 x 256 mono on one core; ten times that would be the bottleneck of training on a CPU."""
    image, mask = scratched(1, 256, 256)
    augmentation = Augmentation(AugmentOptions())
    augmentation.apply(image[:, :, None], mask, 0)
    started = time.perf_counter()
    for seed in range(100):
        augmentation.apply(image[:, :, None], mask, seed)
    assert (time.perf_counter() - started) / 100 < 0.005
