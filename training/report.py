"""The report: one HTML file that a quality engineer can read, keep and print; nothing is loaded from elsewhere."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from numpy.typing import NDArray

from datasets.load import defect_mask
from datasets.sample import Dataset, Sample
from inspection import overlay
from inspection.files import write_text
from inspection.inspector import Inspector
from inspection.modelfile import Bound
from inspection.pixels import read_image
from inspection.progress import track
from inspection.results import Verdict
from training import charts
from training.figures import Confusion, Evaluation, Figures, Row
from training.metrics import precision_recall_curve, roc_curve

PICTURES = 9  # of each kind of error
NEAREST = 3  # where there are none: those that came nearest to it
SIDE = 340  # pixels of a picture's longer side
OUTLINE = (0, 200, 255)  # where the defect is known to be


def write_report(found: Evaluation, inspector: Inspector, dataset: Dataset, path: str | Path) -> None:
    """Writes the report of an evaluation.

    Args:
        found: what was found.
        inspector: the model, to draw the maps of the images that are shown.
        dataset: where the images are from; masks are outlined.
        path: the HTML file.

    Raises:
        OutputUnwritable: `path` cannot be written.
    """
    samples = {str(sample.path): sample for sample in dataset}
    groups = worst(found.rows)
    shown = [row for _, _, rows in groups for row in rows]
    drawn = {row.path: picture(row, inspector, samples[row.path]) for row in track(shown, "drawing", len(shown))}
    write_text(
        path, render(found, [(title, note, [(row, *drawn[row.path]) for row in rows]) for title, note, rows in groups])
    )


def render(found: Evaluation, groups: Sequence[tuple[str, str, list[tuple[Row, str, str]]]]) -> str:
    """The page. `groups` are (title, note, [(row, image as data URI, image with map as data URI)])."""
    environment = Environment(
        loader=PackageLoader("training", "."),
        autoescape=select_autoescape(),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "figure": figure, "name": lambda path: Path(path).name}
    good = [row.score for row in found.rows if row.truth == "good" and row.score is not None]
    bad = [row.score for row in found.rows if row.truth == "bad" and row.score is not None]
    point = found.operating_point
    roc, pr = roc_curve(good, bad), precision_recall_curve(good, bad)
    return environment.get_template("report.html").render(
        e=found,
        card=found.card,
        headline=headline(found),
        promises=[promise(bound, found.figures) for bound in found.promised],
        histogram=charts.histogram(good, bad, point) if good or bad else None,
        roc=charts.curve(roc, _marks(found, good, bad, "roc"), "good called bad", "bad called bad") if roc else None,
        pr=charts.curve(pr, _marks(found, good, bad, "pr"), "recall", "precision") if pr else None,
        bar=charts.bar,
        groups=[group for group in groups if group[2]],
        errors=[row for row in found.rows if row.verdict is Verdict.ERROR],
        lots=sorted(found.lots, key=lambda lot: -_trouble(lot.figures))[:30],
    )


def headline(found: Evaluation) -> str:
    """The counts, in one paragraph of plain words."""
    f, sentences = found.figures, []
    if f.escape is not None:
        sentences.append(f"{_of(f.escape.errors, f.escape.total, 'bad')} called OK (escape {_rate(f.escape)}).")
    if f.overkill is not None:
        sentences.append(
            f"{_of(f.overkill.errors, f.overkill.total, 'good')} called NG (overkill {_rate(f.overkill)})."
        )
    if not sentences:
        sentences.append(f"{f.images} images were judged; none of them is known to be good or bad.")
    if found.named is not None:
        sentences.append(f"{found.named.right} of {found.named.total} images had their kind named rightly.")
    if f.escape is None and f.overkill is not None:
        sentences.append("No bad part was there, so nothing is known of escape.")
    review, error = f.good.review + f.bad.review, f.good.error + f.bad.error
    sentences.append(f"{review or 'No'} part{'' if review == 1 else 's'} went to REVIEW.")
    if error:
        sentences.append(f"{error} part{'' if error == 1 else 's'} could not be judged (ERROR).")
    return " ".join(sentences)


def promise(bound: Bound, figures: Figures) -> dict[str, Any]:
    """One row of the table of promises."""
    word, of = ("called OK", "bad") if bound.kind == "escape" else ("called NG", "good")
    if bound.total == 0:
        proven = f"no {of} part was in the calibration set: nothing is known"
    else:
        proven = (
            f"at most {percent(bound.upper)} at {percent(bound.confidence)} confidence, from {bound.errors} of "
            f"{bound.total} {of} parts {word}"
        )
    if bound.asked is None:
        held = "nothing was asked"
    elif bound.held:
        held = "held"
    else:
        held = f"not proven yet: {bound.needed:,} more {of} parts without an error would prove it"
    seen = figures.escape if bound.kind == "escape" else figures.overkill
    return {
        "kind": bound.kind,
        "asked": "-" if bound.asked is None else f"at most {percent(bound.asked)}",
        "proven": proven,
        "held": held,
        "state": {True: "good", False: "warn", None: ""}[bound.held],
        "seen": "-" if seen is None else f"{seen.errors} of {seen.total} ({percent(seen.errors / seen.total)})",
    }


def worst(rows: Sequence[Row]) -> list[tuple[str, str, list[Row]]]:
    """The images to show: escapes and overkills, worst first; where there are none, what came nearest."""
    bad = sorted((r for r in rows if r.truth == "bad" and r.score is not None), key=lambda r: r.score or 0.0)
    good = sorted((r for r in rows if r.truth == "good" and r.score is not None), key=lambda r: -(r.score or 0.0))
    made = []
    if escapes := [row for row in bad if row.verdict is Verdict.OK]:
        note = f"Called OK: {_images(escapes)} of bad parts; lowest scores first."
        made.append(("Worst escapes", note, escapes[:PICTURES]))
    elif bad:
        made.append(("Bad parts nearest to an escape", "None escaped. These score lowest.", bad[:NEAREST]))
    if overkills := [row for row in good if row.verdict is Verdict.NG]:
        note = f"Called NG: {_images(overkills)} of good parts; highest scores first."
        made.append(("Worst overkills", note, overkills[:PICTURES]))
    elif good:
        made.append(("Good parts nearest to an overkill", "None was called NG. These score highest.", good[:NEAREST]))
    return made


def _images(rows: Sequence[Row]) -> str:
    return f"{len(rows)} image{'' if len(rows) == 1 else 's'}"


def picture(row: Row, inspector: Inspector, sample: Sample) -> tuple[str, str]:
    """The image (the defect outlined where its mask is known) and the image with its map, as data URIs."""
    image = read_image(row.path)
    inspection = inspector.inspect(image, name=row.path)
    white = inspector.card.input.white
    plain = overlay.to_rgb(image, white)
    point = inspector.operating_point
    judged = overlay.draw(image, inspection, None if point is None else point.pixel_above, white=white)
    mask = defect_mask(sample, inspection.size) if sample.label == "defect" else None
    if mask is not None:
        outline, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(plain, outline, -1, OUTLINE, max(1, round(max(plain.shape) / SIDE)))
    return _data_uri(plain), _data_uri(judged)


def percent(value: float | None) -> str:
    """`3.4 %`; parts per million where a percentage would be zeros."""
    if value is None:
        return "-"
    if value and value < 1e-4:
        return f"{value * 1e6:.0f} ppm"
    digits = f"{value * 100:.{2 if 0 < value < 0.01 else 1}f}"
    return f"{digits.removesuffix('.0')} %"


def figure(value: float | None) -> str:
    """Three decimals, or a dash."""
    return "-" if value is None else f"{value:.3f}"


def _of(errors: int, total: int, kind: str) -> str:
    parts = "part" if total == 1 else "parts"
    return f"Of {total:,} {kind} {parts}, {f'{errors:,}' if errors else 'none'} {'was' if errors <= 1 else 'were'}"


def _rate(bound: Bound) -> str:
    return (
        f"{percent(bound.errors / bound.total)}; with {percent(bound.confidence)} confidence the true rate is at most "
        f"{percent(bound.upper)}"
    )


def _trouble(f: Figures) -> float:
    """How badly a lot did, to sort by: escapes before overkills."""

    def share(of: Confusion, count: int) -> float:
        return count / of.total if of.total else 0.0

    return 10 * share(f.bad, f.bad.ok) + share(f.good, f.good.ng) + 0.1 * share(f.good, f.good.review)


def _marks(found: Evaluation, good: Sequence[float], bad: Sequence[float], of: str) -> list[tuple[str, float, float]]:
    point = found.operating_point
    if point is None:
        return []
    goods, bads = np.asarray(good, np.float64), np.asarray(bad, np.float64)
    same = point.ok_below == point.ng_above
    marks = []
    for name, threshold in (("operating point" if same else "OK below", point.ok_below), ("NG from", point.ng_above)):
        hits, false = int((bads >= threshold).sum()), int((goods >= threshold).sum())
        recall = hits / bads.size
        if of == "roc":
            marks.append((name, false / goods.size, recall))
        elif hits + false:
            marks.append((name, recall, hits / (hits + false)))
    return marks[:1] if same else marks


def _data_uri(rgb: NDArray[np.uint8]) -> str:
    factor = SIDE / max(rgb.shape[:2])
    if factor < 1:
        size = max(1, round(rgb.shape[1] * factor)), max(1, round(rgb.shape[0] * factor))
        rgb = np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    done, data = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 85])
    assert done
    return f"data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode('ascii')}"
