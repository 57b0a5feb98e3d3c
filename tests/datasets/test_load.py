"""What a network is fed: pixels as the line prepares them, and masks in the same place."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from datasets import Box, Dataset, Sample
from datasets.load import Loader, place_mask, survey
from inspection.errors import DataInvalid, ImageUnreadable, InputMismatch
from inspection.header import image_header
from inspection.modelfile import InputSpec, Resize
from inspection.pixels import Placement, prepare, read_image
from tests.support.images import save, scratched, surface

SPEC = InputSpec(height=32, width=32, channels=1)


def dataset(root: Path, *paths: Path) -> Dataset:
    return Dataset(name="x", root=root, layout="manifest", samples=tuple(Sample(path=path) for path in paths))


def test_the_pixels_are_those_that_the_line_prepares(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", surface(1, channels=3))
    for resize in Resize:
        spec = InputSpec(height=40, width=96, channels=3, resize=resize)
        loaded = Loader(spec).load(Sample(path=path))
        assert (loaded.pixels == prepare(read_image(path), spec)[0]).all()
        assert (loaded.mask, loaded.coarse) == (None, False)


def test_a_red_image_arrives_red_and_sixteen_bits_arrive_whole(tmp_path: Path) -> None:
    red = np.zeros((32, 32, 3), np.uint8)
    red[..., 0] = 200
    loaded = Loader(InputSpec(height=32, width=32, channels=3)).load(Sample(path=save(tmp_path / "r.png", red)))
    assert (loaded.pixels == red).all()
    deep = surface(1, 32, 32, dtype=np.uint16)
    spec = InputSpec(height=32, width=32, channels=1, bit_depth=16)
    loaded = Loader(spec).load(Sample(path=save(tmp_path / "d.tif", deep)))
    assert loaded.pixels.dtype == np.uint16
    assert (loaded.pixels[..., 0] == deep).all()


@pytest.mark.parametrize("resize", list(Resize))
@pytest.mark.parametrize("size", [(128, 128), (128, 500), (97, 31), (20, 300), (16, 16)])
def test_a_line_one_pixel_wide_does_not_vanish(size: tuple[int, int], resize: Resize) -> None:
    height, width = size
    spec = InputSpec(height=32, width=32, channels=1, resize=resize)
    for row in range(height):
        mask = np.zeros(size, dtype=np.bool_)
        mask[row, width // 4 : width // 2] = True
        pixels = np.where(mask, np.uint8(255), np.uint8(0))
        prepared, placement = prepare(pixels, spec)
        placed = place_mask(mask, placement, spec)
        assert placed.any()
        # Where the defect brightened the prepared image, the mask says so; to a pixel, where an axis was interpolated.
        near = cv2.dilate(placed.astype(np.uint8), np.ones((3, 3), np.uint8)) if min(size) < 32 else placed
        assert near[prepared[..., 0] >= 128].all()


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(8, 150), st.integers(8, 150)),
    box=st.tuples(*[st.floats(0.1, 0.6)] * 2),
    resize=st.sampled_from(list(Resize)),
)
def test_a_large_mask_lies_where_the_defect_lies_to_within_a_pixel(
    size: tuple[int, int], box: tuple[float, float], resize: Resize
) -> None:
    height, width = size
    mask = np.zeros(size, dtype=np.bool_)
    y0, x0 = int(box[0] * height), int(box[1] * width)
    mask[y0 : y0 + height // 3, x0 : x0 + width // 3] = True
    spec = InputSpec(height=48, width=64, channels=1, resize=resize)
    _, placement = prepare(mask.astype(np.uint8), spec)
    placed = place_mask(mask, placement, spec)
    rows, columns = np.nonzero(placed)
    assert abs(rows.min() - (y0 * placement.scale_y + placement.offset_y)) <= 1
    assert abs(rows.max() + 1 - ((y0 + height // 3) * placement.scale_y + placement.offset_y)) <= 1
    assert abs(columns.min() - (x0 * placement.scale_x + placement.offset_x)) <= 1
    assert abs(columns.max() + 1 - ((x0 + width // 3) * placement.scale_x + placement.offset_x)) <= 1


def test_one_pixel_of_a_large_image_survives() -> None:
    mask = np.zeros((2048, 2048), dtype=np.bool_)
    mask[1000, 77] = True
    place = Placement(scale_x=1 / 64, scale_y=1 / 64, offset_x=0, offset_y=0, size=(2048, 2048))
    assert place_mask(mask, place, SPEC).sum() == 1


def test_what_is_known_decides_the_mask(tmp_path: Path) -> None:
    image, mask = scratched(1, 32, 32)
    path, mask_path = save(tmp_path / "a.png", image), save(tmp_path / "m.png", mask)
    loader = Loader(SPEC)
    whole = loader.load(Sample(path=path, label="defect", mask=mask_path))
    assert whole.mask is not None
    assert (whole.mask == mask).all()
    assert not whole.coarse
    good = loader.load(Sample(path=path, label="good"))
    assert good.mask is not None
    assert not good.mask.any()
    assert loader.load(Sample(path=path, label="defect")).mask is None
    box = Box(kind="x", x=3.5, y=4, width=10, height=5)
    boxed = loader.load(Sample(path=path, label="defect", boxes=(box,)))
    assert boxed.coarse
    assert boxed.mask is not None
    assert boxed.mask.sum() == 11 * 5, "all pixels that the box touches"
    hole = Box(
        kind="x", x=2, y=2, width=20, height=20, outline=((2, 2, 22, 2, 22, 22, 2, 22), (8, 8, 16, 8, 16, 16, 8, 16))
    )
    outlined = loader.load(Sample(path=path, label="defect", boxes=(hole,)))
    assert not outlined.coarse
    assert outlined.mask is not None
    assert outlined.mask[4, 4]
    assert not outlined.mask[12, 12]


def test_a_mask_of_another_size_is_refused(tmp_path: Path) -> None:
    sample = Sample(
        path=save(tmp_path / "a.png", surface(1)), label="defect", mask=save(tmp_path / "m.png", np.ones((9, 9), bool))
    )
    with pytest.raises(DataInvalid, match="the mask is 9 x 9, and its image 64 x 48") as caught:
        Loader(SPEC).load(sample)
    assert caught.value.where == str(sample.mask)


def test_an_rgb_image_for_a_mono_model_is_refused_by_name(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", surface(1, channels=3))
    with pytest.raises(InputMismatch, match="RGB") as caught:
        Loader(SPEC).load(Sample(path=path))
    assert caught.value.where == str(path)


def test_the_cache_keeps_to_its_budget_and_gives_the_same(tmp_path: Path) -> None:
    samples = [Sample(path=save(tmp_path / f"{i}.png", surface(i)), label="good") for i in range(4)]
    loader = Loader(SPEC, budget=2 * 32 * 32)
    first = [loader.load(sample) for sample in samples]
    assert loader.used == 2 * 32 * 32
    for sample in samples:
        sample.path.unlink()
    assert loader.load(samples[0]) is first[0]
    with pytest.raises(ImageUnreadable):
        loader.load(samples[3])
    with pytest.raises(ValueError, match="read-only"):
        first[0].pixels[0] = 1


def test_threads_share_a_loader(tmp_path: Path) -> None:
    samples = [Sample(path=save(tmp_path / f"{i}.png", surface(i)), label="good") for i in range(6)]
    loader = Loader(SPEC)
    with ThreadPoolExecutor(8) as pool:
        many = list(pool.map(loader.load, samples * 20))
    alone = Loader(SPEC)
    assert all((loaded.pixels == alone.load(loaded.sample).pixels).all() for loaded in many)
    assert loader.used == 6 * 32 * 32


def written(root: Path) -> list[Path]:
    """One file of each way in which pixels are stored."""
    mono, colour = surface(1), surface(1, channels=3)
    deep, deep_colour = surface(1, dtype=np.uint16), surface(1, channels=3, dtype=np.uint16)
    paths = [save(root / f"mono.{e}", mono) for e in ("png", "jpg", "bmp", "tif")]
    paths += [save(root / f"colour.{e}", colour) for e in ("png", "jpg", "bmp", "tif")]
    paths += [save(root / "deep.png", deep), save(root / "deep.tif", deep)]
    paths += [save(root / "deep_colour.png", deep_colour), save(root / "deep_colour.tif", deep_colour)]
    forms: dict[str, Any] = {
        "bits.png": Image.fromarray(mono > 100),
        "palette.png": Image.fromarray(colour).quantize(16),
        "grey_palette.png": Image.fromarray(mono).convert("P"),
        "palette.bmp": Image.fromarray(colour).quantize(16),
        "alpha.png": Image.fromarray(colour).convert("RGBA"),
        "grey_alpha.png": Image.fromarray(mono).convert("LA"),
    }
    for name, image in forms.items():
        image.save(root / name)
    tifffile.imwrite(root / "other_end.tif", deep, byteorder=">")
    return [*paths, *(root / name for name in forms), root / "other_end.tif"]


def test_the_header_says_what_decoding_gives(tmp_path: Path) -> None:
    for path in written(tmp_path):
        header, pixels = image_header(path), read_image(path)
        assert (header.height, header.width) == pixels.shape[:2], path.name
        assert header.channels == (1 if pixels.ndim == 2 else 3), path.name
        assert header.bit_depth == 8 * pixels.dtype.itemsize, path.name


def test_a_survey_finds_what_the_images_have_in_common(tmp_path: Path) -> None:
    paths = [save(tmp_path / f"{i}.png", surface(i, 300, 150 + 150 * (i > 3))) for i in range(5)]
    seen = survey(dataset(tmp_path, *paths))
    assert (seen.channels, seen.bit_depth) == (1, 8)
    assert seen.sizes == {(150, 300): 4, (300, 300): 1}
    assert (seen.median_size, seen.aspect) == ((150, 300), 0.5)
    fitting = seen.fitting()
    assert (fitting.width, fitting.height, fitting.resize) == (192, 352, Resize.LETTERBOX)
    assert survey(dataset(tmp_path, *paths[:4])).fitting().resize is Resize.STRETCH


@settings(max_examples=60, deadline=None)
@given(width=st.integers(8, 6000), height=st.integers(8, 6000), most=st.integers(40_000, 1_000_000))
def test_the_fitting_input_keeps_to_pixels_and_proportions(width: int, height: int, most: int) -> None:
    from collections import Counter

    from datasets.load import Survey

    if not 0.2 < width / height < 5:
        return
    spec = Survey(channels=1, bit_depth=8, sizes=Counter({(width, height): 1})).fitting(most)
    assert spec.width % 32 == spec.height % 32 == 0
    target = min(max(width * height, 65_536), most)
    assert 0.5 * target <= spec.width * spec.height <= 1.6 * target
    assert abs(np.log(spec.width / spec.height / (width / height))) < 0.45


def test_mono_and_rgb_do_not_mix_and_the_mend_looks_at_the_channels(tmp_path: Path) -> None:
    mono = save(tmp_path / "a.png", surface(1))
    colour = save(tmp_path / "b.png", surface(1, channels=3))
    grey = save(tmp_path / "c.png", np.repeat(surface(2)[:, :, None], 3, axis=2))
    with pytest.raises(DataInvalid, match=r"1 images are mono \(a.png\) and 1 are RGB \(b.png\)") as caught:
        survey(dataset(tmp_path, mono, colour))
    assert "Train on one of the two" in str(caught.value.hint)
    with pytest.raises(DataInvalid) as caught:
        survey(dataset(tmp_path, mono, grey))
    assert "three channels are equal: save these as mono" in str(caught.value.hint)


def test_eight_and_sixteen_bit_do_not_mix_and_a_missing_image_is_named(tmp_path: Path) -> None:
    paths = save(tmp_path / "a.png", surface(1)), save(tmp_path / "b.png", surface(1, dtype=np.uint16))
    with pytest.raises(DataInvalid, match=r"1 images have 8 bit and 1 have 16 bit \(b.png\)"):
        survey(dataset(tmp_path, *paths))
    with pytest.raises(ImageUnreadable, match="No such file") as caught:
        survey(dataset(tmp_path, tmp_path / "gone.png"))
    assert caught.value.where == str(tmp_path / "gone.png")
