"""Judging many images, and images larger than the network's input."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from inspection import Inspector, Tiling, Verdict
from inspection.engine import Engine, Outputs
from inspection.errors import ConfigInvalid, InferenceFailed
from tests.inspection.conftest import plain
from tests.support import graphs


@pytest.mark.parametrize("batch", [1, 3, 8])
@pytest.mark.parametrize("count", [0, 1, 3, 17])
def test_many_images_come_back_in_order_and_as_if_each_were_alone(inspector: Inspector, batch: int, count: int) -> None:
    rng = np.random.default_rng(3)
    images = [rng.integers(0, 255, (rng.integers(20, 90), rng.integers(20, 90), 3)).astype(np.uint8)] * 0
    for index in range(count):
        images.append(rng.integers(0, 1 + 15 * index, (20 + 3 * index, 90 - 2 * index, 3)).astype(np.uint8))
    many = list(inspector.inspect_many(((f"part {i}", image) for i, image in enumerate(images)), batch=batch))
    assert [result.name for result in many] == [f"part {i}" for i in range(count)]
    for image, result in zip(images, many, strict=True):
        alone = inspector.inspect(image)
        assert result.score == pytest.approx(alone.score, abs=1e-6)
        assert (result.verdict, result.defects, result.size) == (alone.verdict, alone.defects, alone.size)


def test_one_bad_item_costs_only_itself(inspector: Inspector, tmp_path: Path) -> None:
    good = tmp_path / "good.png"
    cv2.imwrite(str(good), plain(10))
    (tmp_path / "broken.png").write_bytes(good.read_bytes()[:40])
    items: list[Any] = [
        good,
        tmp_path / "broken.png",
        plain(10),
        tmp_path / "missing.png",
        ("mono", plain(10, (64, 64))),
        str(good),
        plain(10).astype(np.float32),
        None,
        ("nothing", None),
        ("empty", np.zeros((0, 5, 3), np.uint8)),
        ("one", plain(10), "too many"),
        good,
    ]
    results = list(inspector.inspect_many(items, batch=4))
    codes = [result.code for result in results]
    assert codes == [
        None,
        "image-unreadable",
        None,
        "image-unreadable",
        "input-mismatch",
        None,
        "input-mismatch",
        "input-mismatch",
        "input-mismatch",
        "input-mismatch",
        "input-mismatch",
        None,
    ]
    for result in results:
        assert (result.verdict is Verdict.ERROR) == (result.code is not None)
        assert (result.reason is not None) == (result.code is not None)
    assert results[1].name == str(tmp_path / "broken.png")
    assert results[2].name == "image 2"
    assert results[4].name == "mono"


class FailsOn(Engine):
    """The real engine, on a device that gives up whenever a batch holds an image of this value."""

    value = 77
    runs: list[int]

    def run(self, batch: Any) -> Outputs:
        self.runs.append(len(batch))
        if (batch == self.value).any():
            raise InferenceFailed("out of memory.")
        return super().run(batch)


def test_a_batch_that_fails_is_run_again_one_by_one(colours: Path) -> None:
    with Inspector(colours, threads=1) as made:
        assert made._engine is not None
        made._engine.__class__ = FailsOn
        made._engine.runs = []  # type: ignore[attr-defined]
        results = list(made.inspect_many([plain(10), plain(77), plain(250)], batch=3))
        assert made._engine.runs == [3, 1, 1, 1]  # type: ignore[attr-defined]
        assert [result.verdict for result in results] == [Verdict.OK, Verdict.ERROR, Verdict.NG]
        assert results[1].code == "inference-failed"
        with pytest.raises(InferenceFailed):
            made.inspect(plain(77))


def test_no_more_images_are_taken_than_are_needed_ahead(inspector: Inspector) -> None:
    taken = 0

    def endless() -> Iterator[Any]:
        nonlocal taken
        while True:
            taken += 1
            yield plain(10)

    results = inspector.inspect_many(endless(), batch=4)
    for seen in range(1, 30):
        next(results)
        assert taken <= seen + 3 * 4
    results.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("decode")]


def test_decoding_runs_beside_the_network(colours: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the network is held in a run, the next batch is read all the same."""
    with Inspector(colours, threads=1) as made:
        assert made._engine is not None
        second_read = threading.Event()
        original_prepare, original_run = made._prepare, made._engine.run

        def prepare_and_tell(image: Any, name: str | None) -> Any:
            if name == "6":
                second_read.set()
            return original_prepare(image, name)

        def wait_and_run(batch: Any) -> Outputs:
            assert second_read.wait(10), "nobody read ahead"
            return original_run(batch)

        monkeypatch.setattr(made, "_prepare", prepare_and_tell)
        monkeypatch.setattr(made._engine, "run", wait_and_run)
        results = list(made.inspect_many([(str(index), plain(10)) for index in range(8)], batch=4))
    assert [result.verdict for result in results] == [Verdict.OK] * 8


def test_an_error_of_the_source_itself_is_not_hidden(inspector: Inspector) -> None:
    def breaking() -> Iterator[Any]:
        yield plain(1)
        raise OSError("camera gone")

    with pytest.raises(OSError, match="camera gone"):
        list(inspector.inspect_many(breaking()))


def test_a_batch_of_none_is_refused(inspector: Inspector) -> None:
    with pytest.raises(ConfigInvalid):
        list(inspector.inspect_many([plain(0)], batch=0))


def test_several_threads_may_judge_at_once(inspector: Inspector) -> None:
    scores: dict[int, list[float]] = {}

    def work(value: int) -> None:
        scores[value] = [inspector.inspect(plain(value)).score for _ in range(20)]

    threads = [threading.Thread(target=work, args=(value,)) for value in (10, 100, 200, 250)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for value, found in scores.items():
        assert found == [pytest.approx(value / 255, abs=1e-5)] * 20


# --- tiles ----------------------------------------------------------------------------------------------------------


def test_a_small_defect_in_a_large_image_is_found_by_tiles_alone(colours: Path) -> None:
    image = plain(0, (640, 800, 3))
    image[304:312, 400:408] = 255
    with Inspector(colours, threads=1) as whole, Inspector(colours, threads=1, tiling=Tiling(overlap=0.25)) as tiled:
        assert whole.inspect(image).verdict is Verdict.OK
        for result in (tiled.inspect(image), *tiled.inspect_many([image])):
            assert result.verdict is Verdict.NG
            assert [defect.box for defect in result.defects] == [(400, 304, 8, 8)]
            assert result.size == (800, 640)
            assert result.map is not None
            assert result.map.full().shape == (640, 800)
            assert result.score == pytest.approx(1.0)


def test_tiles_of_a_resized_image_are_boxed_in_the_original(colours: Path) -> None:
    image = plain(0, (320, 400, 3))
    image[160:192, 208:240] = 255
    for scale in (0.5, 2.0):
        with Inspector(colours, threads=1, tiling=Tiling(overlap=0.5, scale=scale)) as made:
            assert [defect.box for defect in made.inspect(image).defects] == [(208, 160, 32, 32)]


def test_the_cards_tiling_is_used_unless_told_otherwise(tmp_path: Path) -> None:
    path = graphs.model_file(tmp_path / "m.onnx", tiling=Tiling(overlap=0))
    image = plain(0, (256, 256, 3))
    image[0:8, 0:8] = 255
    with Inspector(path, threads=1) as made:
        assert made.tiling == Tiling(overlap=0)
        assert made.inspect(image).verdict is Verdict.NG


def test_kinds_are_those_of_the_worst_tile(colours: Path) -> None:
    image = plain(0, (64, 640, 3))
    image[:, :64, 0] = 100
    image[:, 576:, 2] = 250  # the last of ten tiles, in the second micro-batch
    with Inspector(colours, threads=1, tiling=Tiling(overlap=0)) as made:
        assert made.inspect(image).kind == "blue"
