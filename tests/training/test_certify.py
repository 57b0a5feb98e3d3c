"""The proof itself: what counts as moved, what counts as flipped, and which images are kept."""

from __future__ import annotations

import base64
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from datasets.load import Loader
from datasets.sample import Sample
from inspection.errors import PromiseBroken
from inspection.modelfile import InputSpec, OperatingPoint
from inspection.pixels import decode_image
from tests.support.images import save, surface
from training import certify
from training.certify import Compared, goldens, parities, png, relative_differences, spread_out

pytestmark = pytest.mark.train

POINT = OperatingPoint(ok_below=1.0, ng_above=2.0)


def compared(network: list[float], file: list[float], samples: list[Sample] | None = None, kinds: int = 0) -> Compared:
    made = samples or [Sample(path=Path(f"{index}.png")) for index in range(len(network))]
    return Compared(
        samples=made,
        network=np.array(network),
        files={"cpu": np.array(file)},
        kinds={"cpu": kinds},
        map_differences={"cpu": None},
    )


def test_a_difference_is_relative_to_the_score_but_a_score_near_zero_to_the_typical_one() -> None:
    found = relative_differences(np.array([100.0, 1.0, 0.0, -2.0]), np.array([101.0, 1.0, 0.015, -2.2]))
    np.testing.assert_allclose(found, [1 / 100, 0, 0.015 / 1.5, 0.2 / 2])


def test_a_score_that_is_nan_has_moved_infinitely() -> None:
    assert relative_differences(np.array([1.0]), np.array([np.nan]))[0] == np.inf
    with pytest.raises(PromiseBroken):
        parities(compared([1.0, 2.0], [1.0, np.nan]), "int8", None, None)


@pytest.mark.parametrize(("precision", "moved"), [("fp32", 2e-3), ("fp16", 0.1), ("int8", 0.9)])
def test_a_score_that_moves_by_more_than_its_precision_allows_is_refused_by_name(
    precision: certify.Precision, moved: float
) -> None:
    with pytest.raises(PromiseBroken) as caught:
        parities(compared([5.0, 6.0, 7.0], [5.0, 6.0 * (1 + moved), 7.0]), precision, POINT, POINT)
    assert caught.value.where == "1.png"


def test_at_fp32_one_flipped_verdict_is_enough_however_small_the_difference() -> None:
    with pytest.raises(PromiseBroken, match="1 of 3 verdicts flip") as caught:
        parities(compared([0.5, 0.9999999, 3.0], [0.5, 1.0000001, 3.0]), "fp32", POINT, POINT)
    assert caught.value.where == "1.png"


def test_at_lower_precision_flips_are_counted_at_each_one_s_own_thresholds() -> None:
    shifted = OperatingPoint(ok_below=1.1, ng_above=2.1)
    network, file = [0.95, 1.5, 2.05], [1.05, 1.6, 2.15]  # a shift of all scores moves thresholds, not verdicts
    assert parities(compared(network, file), "int8", POINT, shifted)[0].flips == 0
    (parity,) = parities(compared(network, file), "int8", POINT, POINT)
    assert (parity.flips, parity.images) == (1, 3)
    assert parity.max_difference == pytest.approx(0.1 / 1.5)


def test_a_file_that_names_another_kind_is_refused_at_fp32() -> None:
    with pytest.raises(PromiseBroken, match="another kind than the network for 1 of 2"):
        parities(compared([1.0, 2.0], [1.0, 2.0], kinds=1), "fp32", None, None)


def test_without_an_operating_point_every_verdict_is_review_and_none_flips() -> None:
    assert parities(compared([1.0, 2.0], [1.0, 2.0]), "fp32", None, None)[0].flips == 0


@pytest.mark.parametrize(("channels", "depth"), [(1, 8), (3, 8), (1, 16), (3, 16)])
def test_a_golden_image_comes_back_to_the_bit(channels: int, depth: int) -> None:
    dtype = np.uint8 if depth == 8 else np.uint16
    pixels: NDArray[np.uint8] = np.random.default_rng(0).integers(0, 1 << depth, (32, 40, channels)).astype(dtype)
    back = decode_image(base64.b64decode(png(pixels)))
    assert back.dtype == dtype
    np.testing.assert_array_equal(back.reshape(pixels.shape), pixels)


def _files(folder: Path, labels: list[str]) -> list[Sample]:
    return [
        Sample(path=save(folder / f"{index}.png", surface(index, 32, 32)), label=label)  # type: ignore[arg-type]
        for index, label in enumerate(labels)
    ]


def test_goldens_are_the_extremes_and_the_neighbours_of_the_thresholds_each_once(tmp_path: Path) -> None:
    samples = _files(tmp_path, ["good"] * 5 + ["defect"] * 3)
    scores = [0.1, 0.2, 0.95, 0.3, 1.2, 1.9, 3.0, 4.0]
    found = goldens(compared(scores, scores, samples), POINT, Loader(InputSpec(height=32, width=32, channels=1)))
    assert [golden.score for golden in found] == [1.2, 1.9, 0.1, 4.0, 0.95]
    assert [golden.verdict for golden in found] == ["REVIEW", "REVIEW", "OK", "NG", "OK"]
    first = cv2.imdecode(np.frombuffer(base64.b64decode(found[0].pixels), np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(first, surface(4, 32, 32))


def test_images_of_which_nothing_is_known_give_goldens_too(tmp_path: Path) -> None:
    samples = [Sample(path=sample.path) for sample in _files(tmp_path, ["good"] * 5)]
    loader = Loader(InputSpec(height=32, width=32, channels=1))
    found = goldens(compared([3.0, 1.0, 2.0, 5.0, 4.0], [3.0, 1.0, 2.0, 5.0, 4.0], samples), None, loader)
    assert [golden.score for golden in found] == [1.0, 5.0, 3.0]


def test_large_golden_images_stop_at_the_budget_but_one_is_always_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = _files(tmp_path, ["good", "good", "defect", "defect"])
    loader = Loader(InputSpec(height=32, width=32, channels=1))
    whole = goldens(compared([0, 1, 2, 3], [0, 1, 2, 3], samples), POINT, loader)
    monkeypatch.setattr(certify, "GOLDEN_BYTES", len(whole[0].pixels) + len(whole[1].pixels) + 10)
    assert len(goldens(compared([0, 1, 2, 3], [0, 1, 2, 3], samples), POINT, loader)) == 2
    monkeypatch.setattr(certify, "GOLDEN_BYTES", 1)
    assert len(goldens(compared([0, 1, 2, 3], [0, 1, 2, 3], samples), POINT, loader)) == 1


def test_a_cap_takes_images_from_the_whole_set() -> None:
    samples = [Sample(path=Path(f"{index}.png")) for index in range(100)]
    assert spread_out(samples, 1000) == tuple(samples)
    chosen = spread_out(samples, 10)
    assert len(set(chosen)) == 10
    assert (chosen[0], chosen[-1]) == (samples[0], samples[-1])
