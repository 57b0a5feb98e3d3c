"""What `inspection export` and `inspection evaluate` say on the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from inspection.modelfile import ModelCard
from inspection.progress import console
from training.evaluate import REPORT
from training.figures import Evaluation
from training.report import figure, headline
from training.summary import spoken_bound


def say(text: str) -> None:
    """One sentence for who waits, on stderr."""
    console.print(text, markup=False, soft_wrap=True)


def model_lines(card: ModelCard, out: Path) -> Iterator[str]:
    """What the new model file is, promises and proves."""
    yield f"model        {out}, {out.stat().st_size / 1e6:.1f} MB, {card.precision}"
    if card.operating_point is None:
        yield "thresholds   none: every verdict will be REVIEW"
    else:
        yield f"thresholds   OK below {card.operating_point.ok_below:.6g}, NG from {card.operating_point.ng_above:.6g}"
    for bound in card.calibration.bounds if card.calibration else ():
        yield f"{bound.kind:<12} {spoken_bound(bound)}"
    for parity in card.certificate.parities if card.certificate else ():
        yield (
            f"certificate  {parity.provider}: {parity.images} images, {parity.flips} verdicts flip, scores move by "
            f"at most {parity.max_difference:.1e} ({parity.tolerance:.0e} allowed)"
        )
    yield f"next         inspection judge {out} IMAGE..."


def evaluation_lines(found: Evaluation, folder: Path) -> Iterator[str]:
    """The counts first, then the figures, then what to beware of."""
    yield headline(found)
    f = found.figures
    if f.auroc is not None:
        yield (
            f"image        AUROC {figure(f.auroc)}, AP {figure(f.average_precision)}, F1-max {figure(f.f1_max)}, "
            f"accuracy {figure(f.accuracy)}"
        )
    if found.pixels is not None:
        pixels = found.pixels
        yield f"pixel        AUROC {figure(pixels.auroc)}, PRO {figure(pixels.pro)}, F1-max {figure(pixels.f1_max)}"
    for slice_ in found.sessions:
        one = slice_.figures
        yield f"{slice_.name}: escape {one.bad.ok} of {one.bad.total}, overkill {one.good.ng} of {one.good.total}"
    for spread in found.seeds.spreads if found.seeds else ():
        yield f"{spread.name:<20} {spread.mean:.3f} +- {spread.sd:.3f} over {len(spread.values)} seeds"
    for warning in found.warnings:
        yield f"WARNING      {warning}"
    yield f"report       {folder / REPORT}"
