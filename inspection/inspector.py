"""Judges images with one model file."""

from __future__ import annotations

import base64
import binascii
import copy
import itertools
import math
import statistics
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np

from inspection.engine import Engine, Outputs
from inspection.errors import (
    CertificateMismatch,
    ConfigInvalid,
    InferenceFailed,
    InputMismatch,
    InspectionError,
    ModelInvalid,
)
from inspection.judging import find_defects, verdict_of
from inspection.machine import usable_cores
from inspection.modelfile import Certificate, ModelCard, OperatingPoint, Tiling, parse_card, read_model
from inspection.pixels import Pixels, Placement, check_fits, decode_image, prepare, read_image
from inspection.results import Defect, Inspection, ScoreMap, Verdict
from inspection.tiling import Grid, cut, join, plan

Item = Pixels | str | Path | tuple[str, Pixels]
TILE_BATCH = 8  # tiles of one image that the network sees at once


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """One image on its way to the network."""

    name: str
    pixels: Pixels  # the network's input; with a grid, the whole image
    placement: Placement
    grid: Grid | None
    seconds: dict[str, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What the network says of one image, tiles joined."""

    score: float
    map: np.ndarray[Any, np.dtype[np.float32]] | None
    extent: tuple[float, float]  # width, height of the map in pixels of the network's input
    classes: np.ndarray[Any, np.dtype[np.float32]] | None


class Inspector:
    """Judges images with one model file. Ready when made: the model is loaded, warm, and has passed its self-test.

    May be called from several threads.

    Args:
        model: the model file.
        provider: the device: `cpu`, `cuda`, `tensorrt`, `openvino`, or `auto` for the best that is granted.
        threads: processor threads for one network run; None: one for each core that this process may use.
        tiling: cut large images into tiles instead of resizing them; None: as the model's card says.
        operating_point: other thresholds than the card's; None: the card's.
        self_test: score the golden images of the certificate, and refuse to start when a score moved.
        warmup: network runs on a black image before the first real one.

    Attributes:
        card: what the model file says of itself.
        model_hash: SHA-256 of the model file, hex.
        provider: the granted device.
        operating_point, tiling: what is in force.
        start_seconds: where the start took its time: `read`, `session`, `self_test`, `warmup`.

    Raises:
        ModelInvalid: no model file of this project, or a damaged one.
        ProviderUnavailable: the device that was asked for is not granted.
        CertificateMismatch: a golden image gets another score than at export.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        provider: str = "auto",
        threads: int | None = None,
        tiling: Tiling | None = None,
        operating_point: OperatingPoint | None = None,
        self_test: bool = True,
        warmup: int = 1,
    ) -> None:
        clock = time.perf_counter
        started = clock()
        data = read_model(model)  # once: card, hash and session are of the same bytes, whatever happens to the file
        self.name = str(model)
        self.card: ModelCard = parse_card(data, name=self.name)
        self.model_hash = sha256(data).hexdigest()
        self.start_seconds = {"read": clock() - started}
        self.tiling = tiling if tiling is not None else self.card.tiling
        self.operating_point = operating_point if operating_point is not None else self.card.operating_point
        self._engine: Engine | None = Engine(data, self.card, name=self.name, provider=provider, threads=threads)
        self.provider = self._engine.provider
        self.threads = self._engine.threads
        self.start_seconds["session"] = self._engine.start_seconds
        started = clock()
        if self_test and self.card.certificate is not None:
            self._self_test(self.card.certificate)
        self.start_seconds["self_test"] = clock() - started
        started = clock()
        spec = self.card.input
        black: Any = np.zeros((1, spec.height, spec.width, spec.channels), dtype=spec.dtype)
        for _ in range(warmup):
            self._engine.run(black)
        self.start_seconds["warmup"] = clock() - started

    def inspect(self, image: Pixels | str | Path, *, name: str | None = None) -> Inspection:
        """Judges one image.

        Args:
            image: `HxW` or `HxWx3` RGB, uint8 or uint16, as the card says; or an image file.
            name: what to call it in the result; a file's path by default.

        Raises:
            ImageUnreadable, ImageTooLarge: the file is no sound image.
            InputMismatch: a sound image that the model was not made for.
            InferenceFailed: the network could not be run.
        """
        prepared = self._prepare(image, name)
        started = time.perf_counter()
        if prepared.grid is None:
            answer = _answer(self._running.run(prepared.pixels[None]), 0, self.card)
        else:
            answer = self._run_tiles(prepared.pixels, prepared.grid)
        return self._judge(prepared, answer, time.perf_counter() - started)

    def inspect_many(self, images: Iterable[Item], *, batch: int = 8) -> Iterator[Inspection]:
        """Judges images in their order, `batch` at a time; the next ones are decoded while the network runs.

        An image that cannot be judged becomes an inspection with `Verdict.ERROR` and its reason, and costs no other
        one. At most `3 * batch` prepared images are held.

        Args:
            images: arrays, image files, or (name, array).
            batch: images that the network sees at once; tiled images go one by one, their tiles in batches.
        """
        if batch < 1:
            raise ConfigInvalid(f"a batch of {batch} images holds none.", where="batch", hint="Give 1 or more.")
        source = enumerate(images)
        with ThreadPoolExecutor(min(2, usable_cores()), thread_name_prefix="decode") as readers:
            waiting: deque[Future[Prepared | Inspection]] = deque()
            try:
                while True:
                    for index, item in itertools.islice(source, 2 * batch - len(waiting)):
                        waiting.append(readers.submit(self._prepare_safely, index, item))
                    if not waiting:
                        return
                    ready = [waiting.popleft().result() for _ in range(min(batch, len(waiting)))]
                    # What is left in `waiting` is decoded while the network runs.
                    yield from self._judge_batch(ready)
            finally:
                for future in waiting:
                    future.cancel()

    def judge(self, images: Sequence[tuple[str, Pixels]]) -> list[Inspection]:
        """Judges some images at once: one network run for all that are not tiled.

        An image that cannot be judged becomes an inspection with `Verdict.ERROR` and its reason; nothing is raised
        for it, and it costs no other one.

        Args:
            images: name and pixels (`HxW` or `HxWx3` RGB, uint8 or uint16) of each.
        """
        return list(self._judge_batch([self._prepare_safely(index, item) for index, item in enumerate(images)]))

    def sharing(self, *, tiling: Tiling | None = None, operating_point: OperatingPoint | None = None) -> Inspector:
        """Another inspector on the same loaded model, with a tiling and thresholds of its own; None: the card's."""
        other = copy.copy(self)
        other.tiling = tiling if tiling is not None else self.card.tiling
        other.operating_point = operating_point if operating_point is not None else self.card.operating_point
        return other

    def close(self) -> None:
        """Frees the session and its memory. The inspector cannot be used afterwards."""
        self._engine = None

    def __enter__(self) -> Inspector:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def _running(self) -> Engine:
        if self._engine is None:
            raise InspectionError("this inspector is closed.", where=self.name, hint="Make a new one.")
        return self._engine

    def _prepare(self, image: Pixels | str | Path, name: str | None) -> Prepared:
        clock = time.perf_counter
        started = clock()
        seconds: dict[str, float] = {}
        if isinstance(image, (str, Path)):
            name = str(image) if name is None else name
            image = read_image(image)
            seconds["decode"] = clock() - started
            started = clock()
        elif not isinstance(image, np.ndarray):
            raise InputMismatch(
                f"a {type(image).__name__} is no image.", where=name, hint="Give a numpy array or the path of a file."
            )
        spec = self.card.input
        try:
            if self.tiling is None:
                pixels, placement = prepare(image, spec)
                grid = None
            else:
                check_fits(image, spec)
                pixels = image
                grid = plan((image.shape[1], image.shape[0]), spec, self.tiling)
                placement = grid.placement
        except InputMismatch as error:
            raise InputMismatch(error.what, where=name or error.where, hint=error.hint) from error
        seconds["prepare"] = clock() - started
        return Prepared(name=name or "image", pixels=pixels, placement=placement, grid=grid, seconds=seconds)

    def _prepare_safely(self, index: int, item: Item) -> Prepared | Inspection:
        name: str | None = None
        try:
            if isinstance(item, tuple) and len(item) == 2:
                name, pixels = item
                return self._prepare(pixels, name)
            name = str(item) if isinstance(item, (str, Path)) else f"image {index}"
            return self._prepare(item, name)
        except (InspectionError, MemoryError, cv2.error) as error:
            return _failed(name or f"image {index}", (0, 0), error)

    def _judge_batch(self, items: list[Prepared | Inspection]) -> Iterator[Inspection]:
        """One micro-batch in order: one network run for all that are not tiled, and, if it fails, one for each."""
        together = [item for item in items if isinstance(item, Prepared) and item.grid is None]
        started = time.perf_counter()
        outputs: Outputs | None = None
        if len(together) > 1:
            try:
                outputs = self._running.run(np.stack([item.pixels for item in together]))  # type: ignore[arg-type]
            except InspectionError:  # by itself each one may still get through, and the one that does not says why
                outputs = None
        network = time.perf_counter() - started
        row = 0
        for item in items:
            if isinstance(item, Inspection):
                yield item
            elif outputs is not None and item.grid is None:
                yield self._judge(item, _answer(outputs, row, self.card), network)
                row += 1
            else:
                yield self._judge_alone(item)

    def _judge_alone(self, item: Prepared) -> Inspection:
        started = time.perf_counter()
        try:
            if item.grid is None:
                answer = _answer(self._running.run(item.pixels[None]), 0, self.card)
            else:
                answer = self._run_tiles(item.pixels, item.grid)
        except (InspectionError, MemoryError) as error:
            return _failed(item.name, item.placement.size, error)
        return self._judge(item, answer, time.perf_counter() - started)

    def _run_tiles(self, image: Pixels, grid: Grid) -> Answer:
        tiles = cut(image, grid)
        runs: list[Outputs] = []
        while some := list(itertools.islice(tiles, TILE_BATCH)):
            runs.append(self._running.run(np.stack(some)))  # type: ignore[arg-type]
        scores = np.concatenate([run.score for run in runs])
        # The image is as bad as its worst tile; a tile without a number is no reason to trust the others.
        worst = int(np.argmax(np.where(np.isnan(scores), np.inf, scores)))
        classes = runs[worst // TILE_BATCH].classes
        answer_map, extent = None, (0.0, 0.0)
        if runs[0].map is not None:
            answer_map, extent = join([m for run in runs if run.map is not None for m in run.map], grid)
        return Answer(
            score=float(scores[worst]),
            map=answer_map,
            extent=extent,
            classes=None if classes is None else classes[worst % TILE_BATCH],
        )

    def _judge(self, prepared: Prepared, answer: Answer, network: float) -> Inspection:
        started = time.perf_counter()
        verdict, reason = verdict_of(answer.score, self.operating_point)
        peak = 0.0 if answer.map is None else float(answer.map.max())
        if verdict is not Verdict.ERROR and not math.isfinite(peak):
            verdict, reason = Verdict.ERROR, f"the network's map holds {peak}, which says nothing."
        classes, kind = None, None
        if answer.classes is not None and np.isfinite(answer.classes).all():
            classes = dict(zip(self.card.classes, answer.classes.tolist(), strict=True))
            kind = max(classes, key=classes.__getitem__)
        elif answer.classes is not None and verdict is not Verdict.ERROR:
            verdict, reason = Verdict.ERROR, "the network's class scores hold no numbers, which says nothing."
        scores = None
        if answer.map is not None:
            place = prepared.placement
            scores = ScoreMap(
                values=answer.map, region=place.region(answer.extent[1], answer.extent[0]), size=place.size
            )
        defects: tuple[Defect, ...] = ()
        above = None if self.operating_point is None else self.operating_point.pixel_above
        if scores is not None and above is not None and peak >= above:
            defects = find_defects(scores, above, kind or "defect")
        return Inspection(
            name=prepared.name,
            verdict=verdict,
            score=answer.score if verdict is not Verdict.ERROR else math.nan,
            size=prepared.placement.size,
            defects=defects,
            classes=classes,
            kind=kind,
            map=scores,
            reason=reason,
            code=InferenceFailed.code if verdict is Verdict.ERROR else None,
            seconds={**prepared.seconds, "network": network, "postprocess": time.perf_counter() - started},
        )

    def _self_test(self, certificate: Certificate) -> None:
        spec = self.card.input
        shape = (spec.height, spec.width, spec.channels)
        typical = statistics.median(abs(golden.score) for golden in certificate.goldens) if certificate.goldens else 0.0
        for golden in certificate.goldens:
            where = f"{self.name}, golden image {golden.name}"
            try:
                pixels = decode_image(base64.b64decode(golden.pixels, validate=True), name=where)
            except (binascii.Error, InspectionError) as error:
                raise ModelInvalid(f"a golden image is damaged: {error}", where=self.name) from error
            if pixels.size != math.prod(shape) or pixels.dtype != spec.dtype:
                raise ModelInvalid("a golden image is not of the model's own input size and depth.", where=where)
            score = float(self._running.run(pixels.reshape((1, *shape))).score[0])
            moved = abs(score - golden.score) / max(abs(golden.score), typical, 1e-12)
            if not moved <= certificate.golden_tolerance:  # written so that NaN fails
                raise CertificateMismatch(
                    f"the score is {score:.6g} and was {golden.score:.6g} at export: moved by {moved:.2g} of it, and "
                    f"{certificate.golden_tolerance:.2g} is allowed, with the provider {self.provider}.",
                    where=where,
                    hint="Try the provider `cpu`; if that differs too, export the model again on a machine like this.",
                )


def _answer(outputs: Outputs, row: int, card: ModelCard) -> Answer:
    return Answer(
        score=float(outputs.score[row]),
        map=None if outputs.map is None else outputs.map[row],
        extent=(float(card.input.width), float(card.input.height)),
        classes=None if outputs.classes is None else outputs.classes[row],
    )


def _failed(name: str, size: tuple[int, int], error: Exception) -> Inspection:
    known = error if isinstance(error, InspectionError) else InferenceFailed(str(error) or type(error).__name__)
    return Inspection(
        name=name,
        verdict=Verdict.ERROR,
        score=math.nan,
        size=size,
        reason=f"{known.what} {known.hint or ''}".strip(),
        code=known.code,
    )
