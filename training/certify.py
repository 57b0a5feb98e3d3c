"""The certificate: the exported file against the network it came from, on real images, by the runtime of the line.

The network runs in torch on the CPU in float32 on the images that the training's loader prepares; the file runs in
`inspection.Inspector` on the image files themselves. So decoding, resizing and the graph are all under test.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from datasets.load import Loaded, Loader
from datasets.sample import Sample
from inspection import engine
from inspection.errors import PromiseBroken, ProviderUnavailable
from inspection.inspector import Inspector
from inspection.judging import verdict_of
from inspection.modelfile import Golden, OperatingPoint, Parity
from inspection.pixels import Pixels
from inspection.progress import Meter
from inspection.results import Inspection, Verdict
from models.network import Network
from training.scoring import Scores, stream

Precision = Literal["fp32", "fp16", "int8"]

# How far a score may move, relative to max(|score|, median |score|), by precision of the file.
TOLERANCE: dict[Precision, float] = {"fp32": 1e-3, "fp16": 5e-2, "int8": 0.5}
# How far the same file's golden scores may move from machine to machine.
GOLDEN_TOLERANCE: dict[Precision, float] = {"fp32": 1e-3, "fp16": 5e-2, "int8": 5e-2}
CAP = 2000  # images that a certificate is made on, unless told otherwise
GOLDEN_BYTES = 8_000_000  # of all golden images together; the first is kept whatever its size
BATCH = 8


class Said(NamedTuple):
    """What network or file says of one image."""

    score: float
    map: NDArray[np.float32] | None
    kind: str | None


See = Callable[[Loaded, Said, Said], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Compared:
    """Network and file side by side on the same images."""

    samples: Sequence[Sample]
    network: NDArray[np.float64]  # raw scores [n]
    files: dict[str, NDArray[np.float64]]  # by provider
    kinds: dict[str, int]  # by provider: how many images it names another kind for than the network does
    map_differences: dict[str, float | None]  # by provider, relative to the median peak of all maps


def providers(asked: str = "all") -> list[str]:
    """The execution providers to prove: the one asked for, or all that this onnxruntime was built with.

    TensorRT is proven only when asked for: it may build its engine for minutes.

    Raises:
        ProviderUnavailable: this onnxruntime has no such provider.
    """
    here = engine.offered()
    if asked == "all":
        return [name for name in here if name != "tensorrt"]
    if asked not in here:
        raise ProviderUnavailable(
            f"this onnxruntime has no {asked}, only {', '.join(here)}.", where="provider", hint="Ask for one of these."
        )
    return [asked]


def spread_out(samples: Sequence[Sample], cap: int) -> tuple[Sample, ...]:
    """All samples, or `cap` of them evenly over their order."""
    if len(samples) <= cap:
        return tuple(samples)
    return tuple(samples[i] for i in np.linspace(0, len(samples) - 1, cap).astype(int))


def compare(
    network: Network,
    path: Path,
    samples: Sequence[Sample],
    loader: Loader,
    *,
    asked: str = "all",
    see: See | None = None,
) -> Compared:
    """Runs network and file over the same images in step, so that no map is held longer than its batch.

    Args:
        network: the torch network.
        path: the exported file, with a card.
        samples: real images.
        loader: prepares them for the network.
        asked: provider, or `all` that are granted here.
        see: is shown every image with what the network and the first provider say of it.

    Raises:
        PromiseBroken: the file cannot judge an image that the network can.
        ProviderUnavailable: the provider asked for is not granted.
        ImageUnreadable, InputMismatch: an image cannot be used.
    """
    with contextlib.ExitStack() as stack:
        judged: dict[str, Iterator[Inspection]] = {}
        for name in providers(asked):
            try:
                inspector = stack.enter_context(Inspector(path, provider=name, self_test=False))
            except ProviderUnavailable:
                if asked != "all":
                    raise
                continue
            judged[name] = inspector.inspect_many((sample.path for sample in samples), batch=BATCH)
        meter = stack.enter_context(Meter("comparing file and network", len(samples)))
        scores: list[float] = []
        found: dict[str, list[float]] = {name: [] for name in judged}
        moved: dict[str, float] = dict.fromkeys(judged, 0.0)
        renamed: dict[str, int] = dict.fromkeys(judged, 0)
        peaks: list[float] = []
        for part in stream(network, samples, loader, batch=BATCH):
            scores += part.score.tolist()
            said = [_said(network, part, row) for row in range(len(part.samples))]
            peaks += [float(np.abs(ours.map).max()) for ours in said if ours.map is not None]
            for number, (name, source) in enumerate(judged.items()):
                for row, inspection in enumerate(itertools.islice(source, len(part.samples))):
                    _must_judge(inspection, name)
                    found[name].append(inspection.score)
                    ours, values = said[row], None if inspection.map is None else inspection.map.values
                    renamed[name] += ours.kind != inspection.kind
                    if ours.map is not None:
                        moved[name] = max(moved[name], _largest(ours.map, values))
                    if see is not None and number == 0:
                        theirs = Said(inspection.score, values, inspection.kind)
                        see(loader.load(part.samples[row]), ours, theirs)
            meter.step(len(part.samples))
    # A map's size is that of its peaks: most of it lies near zero, where nothing is decided.
    typical = max(float(np.median(peaks)), 1e-12) if peaks else None
    return Compared(
        samples=samples,
        network=np.array(scores),
        files={name: np.array(values) for name, values in found.items()},
        kinds=renamed,
        map_differences={name: None if typical is None else moved[name] / typical for name in judged},
    )


def parities(
    compared: Compared,
    precision: Precision,
    network_point: OperatingPoint | None,
    file_point: OperatingPoint | None,
    *,
    tolerance: float | None = None,
) -> list[Parity]:
    """The proofs, one a provider. Network and file are each judged at the operating point of their own scores.

    At fp32 a verdict that flips, or another kind that is named, breaks the promise. At fp16 and int8, flips are counted
    and stated: a score next to a threshold may cross it, and what must hold then are the counts (`training.export`).

    Raises:
        PromiseBroken: a score moved by more than the tolerance, or a verdict flipped at fp32; names the image.
    """
    allowed = TOLERANCE[precision] if tolerance is None else tolerance
    made = []
    for provider, scores in compared.files.items():
        differences = relative_differences(compared.network, scores)
        verdicts = [
            (verdict_of(ours, network_point)[0], verdict_of(theirs, file_point)[0])
            for ours, theirs in zip(compared.network.tolist(), scores.tolist(), strict=True)
        ]
        flipped = [index for index, (ours, theirs) in enumerate(verdicts) if ours is not theirs]
        worst = int(np.argmax(differences))
        if not differences[worst] <= allowed:
            raise PromiseBroken(
                f"the {precision} file gives {scores[worst]:.6g} and the network {compared.network[worst]:.6g}: "
                f"moved by {differences[worst]:.2g} of its size, and {allowed:.2g} is allowed, by {provider}.",
                where=str(compared.samples[worst].path),
                hint=_MEND[precision],
            )
        if compared.kinds[provider] and precision == "fp32":
            raise PromiseBroken(
                f"the file names another kind than the network for {compared.kinds[provider]} of {len(scores)} images, "
                f"by {provider}.",
                hint=_MEND[precision],
            )
        if flipped and precision == "fp32":
            ours, theirs = verdicts[flipped[0]]
            raise PromiseBroken(
                f"{len(flipped)} of {len(scores)} verdicts flip between network and file, by {provider}; this one is "
                f"{ours} in the network and {theirs} in the file.",
                where=str(compared.samples[flipped[0]].path),
                hint="Its score lies within rounding of a threshold: ask for another rate, or calibrate on more parts.",
            )
        made.append(
            Parity(
                provider=provider,
                precision=precision,
                images=len(scores),
                flips=len(flipped),
                max_difference=float(differences[worst]),
                max_map_difference=compared.map_differences[provider],
                tolerance=allowed,
            )
        )
    return made


def relative_differences(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> NDArray[np.float64]:
    """|ours - theirs| relative to max(|ours|, median |ours|), as `inspection.modelfile.Parity` has it. NaN is inf."""
    size = np.maximum(np.abs(ours), max(float(np.median(np.abs(ours))), 1e-12))
    moved = np.abs(ours - theirs) / size
    return np.where(np.isnan(moved), np.inf, moved)


def goldens(compared: Compared, point: OperatingPoint | None, loader: Loader) -> list[Golden]:
    """A few images that tell most: the extremes of good and bad, and those nearest to the thresholds.

    Their score is the file's by the first provider. Where nothing is known of the images: lowest, highest, middle.
    """
    scores = next(iter(compared.files.values()))
    order = np.argsort(scores, kind="stable")
    labels = [compared.samples[index].label for index in order]
    good = [int(i) for i, label in zip(order, labels, strict=True) if label == "good"]
    bad = [int(i) for i, label in zip(order, labels, strict=True) if label == "defect"]
    # Most telling first, because large images stop at the budget.
    chosen = [some[end] for some, end in ((good, -1), (bad, 0), (good, 0), (bad, -1)) if some]
    if point is not None:
        chosen += [int(np.abs(scores - threshold).argmin()) for threshold in (point.ok_below, point.ng_above)]
    if not good or not bad:
        chosen += [int(order[0]), int(order[-1]), int(order[len(order) // 2])]
    made: list[Golden] = []
    room = GOLDEN_BYTES
    for index in dict.fromkeys(chosen):
        sample = compared.samples[index]
        pixels = png(loader.load(sample).pixels)
        room -= len(pixels)
        if room < 0 and made:
            break
        verdict = verdict_of(float(scores[index]), point)[0]
        name = f"{sample.label or 'unknown'}, {sample.path.name}"
        made.append(Golden(name=name, pixels=pixels, score=float(scores[index]), verdict=verdict.value))
    return made


def png(pixels: Pixels) -> str:
    """A network input (`height x width x channels`, uint8 or uint16, RGB) as base64 of a PNG of the same depth."""
    stored = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR) if pixels.shape[2] == 3 else pixels
    done, data = cv2.imencode(".png", stored)
    assert done  # PNG takes both depths and both channel counts
    return base64.b64encode(data.tobytes()).decode("ascii")


_MEND: dict[Precision, str] = {
    "fp32": "The exported graph computes something else than the network: this is a fault of the export; report it.",
    "fp16": "Some layer of this network leaves the range of float16: export with fp32.",
    "int8": "This network does not bear 8 bits: export with fp32 or fp16.",
}


def _said(network: Network, part: Scores, row: int) -> Said:
    kind = None if part.classes is None else network.classes[int(part.classes[row].argmax())]
    return Said(float(part.score[row]), None if part.map is None else part.map[row], kind)


def _must_judge(inspection: Inspection, provider: str) -> None:
    if inspection.verdict is Verdict.ERROR:
        raise PromiseBroken(
            f"the file cannot judge an image that the network can, by {provider}: {inspection.reason}",
            where=inspection.name,
        )


def _largest(ours: NDArray[np.float32], theirs: NDArray[np.float32] | None) -> float:
    if theirs is None or theirs.shape != ours.shape:
        return math.inf
    return float(np.abs(ours - theirs).max())
