"""`inspection judge`: verdicts on image files, for a person or for a script."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import cv2
from rich.markup import escape
from rich.table import Table

from inspection.errors import ConfigInvalid, OutputUnwritable
from inspection.files import find_images, write_bytes
from inspection.inspector import Inspector
from inspection.modelfile import OperatingPoint, Tiling
from inspection.overlay import draw
from inspection.pixels import read_image
from inspection.progress import stdout, track
from inspection.results import Inspection, Verdict

# Worst first: an image that could not be judged is worse news for a script than one that is known to be bad.
EXIT_CODES = {Verdict.ERROR: 12, Verdict.NG: 10, Verdict.REVIEW: 11, Verdict.OK: 0}
STYLES = {Verdict.OK: "green", Verdict.NG: "bold red", Verdict.REVIEW: "yellow", Verdict.ERROR: "bold magenta"}


def judge_files(
    model: Path,
    given: list[Path],
    *,
    as_json: bool,
    overlays: Path | None,
    provider: str,
    threads: int | None,
    batch: int,
    tiling: tuple[float, float] | None,
    ok_below: float | None,
    ng_above: float | None,
) -> int:
    """Judges, prints and draws; returns the exit code. `tiling` is (overlap, scale).

    Raises:
        DataInvalid: a folder without images. ConfigInvalid: thresholds that make no operating point, a tiling that
        cannot be. OutputUnwritable: the overlays. And all that `Inspector` raises.
    """
    images = list(find_images(given, without=overlays))
    counts: Counter[Verdict] = Counter()
    table = Table("image", "verdict", "score", "kind", "defects", "why", box=None, pad_edge=False)
    table.columns[0].overflow = "fold"
    with Inspector(model, provider=provider, threads=threads, tiling=_tiling(tiling)) as inspector:
        inspector.operating_point = _point(inspector.operating_point, ok_below, ng_above)
        taken: set[Path] = set()
        for image, result in zip(
            images, track(inspector.inspect_many(images, batch=batch), "judging", len(images)), strict=True
        ):
            counts[result.verdict] += 1
            if as_json:
                print(json.dumps(result.to_dict()), flush=True)
            else:
                table.add_row(*_row(result))
            if overlays is not None and result.verdict is not Verdict.ERROR:
                above = None if inspector.operating_point is None else inspector.operating_point.pixel_above
                white = inspector.card.input.white
                _save(_name(overlays, image, taken), draw(read_image(image), result, above, white=white))
    if not as_json:
        out = stdout()
        out.print(table)
        out.print(
            f"{len(images)} images: " + ", ".join(f"{counts[verdict]} {verdict}" for verdict in Verdict), soft_wrap=True
        )
        if overlays is not None:
            out.print(f"pictures in {escape(str(overlays))}", soft_wrap=True)
    return max((EXIT_CODES[verdict] for verdict in counts), key=list(EXIT_CODES.values())[::-1].index)


def _tiling(given: tuple[float, float] | None) -> Tiling | None:
    if given is None:
        return None
    overlap, scale = given
    if not 0 < scale <= 8:
        raise ConfigInvalid(f"a scale of {scale} makes no image.", where="--scale", hint="Give more than 0, at most 8.")
    return Tiling(overlap=overlap, scale=scale)


def _point(own: OperatingPoint | None, ok_below: float | None, ng_above: float | None) -> OperatingPoint | None:
    if ok_below is None and ng_above is None:
        return own
    low = ok_below if ok_below is not None else own.ok_below if own else None
    high = ng_above if ng_above is not None else own.ng_above if own else None
    if low is None or high is None:
        raise ConfigInvalid(
            "the model has no operating point, and one threshold alone makes none.",
            where="--ok-below, --ng-above",
            hint="Give both.",
        )
    if low > high:
        raise ConfigInvalid(
            f"a score between {high:.6g} and {low:.6g} would be OK and NG at once.",
            where="--ok-below, --ng-above",
            hint="Give an --ok-below that is not above --ng-above.",
        )
    return OperatingPoint(ok_below=low, ng_above=high, pixel_above=own.pixel_above if own else None)


def _row(result: Inspection) -> list[str]:
    style = STYLES[result.verdict]
    if result.defects:
        worst = result.defects[0]
        x, y, width, height = worst.box
        where = f"{len(result.defects)}, worst {width} x {height} at {x},{y}"
    else:
        where = ""
    return [
        escape(result.name),
        f"[{style}]{result.verdict}[/]",
        "" if result.verdict is Verdict.ERROR else f"{result.score:.4g}",
        escape(result.kind or ""),
        where,
        escape(result.reason or ""),
    ]


def _name(folder: Path, image: Path, taken: set[Path]) -> Path:
    """A file name of its own for each image, also where two folders hold images of one name."""
    path = folder / f"{image.stem}.png"
    count = 2
    while path in taken:
        path = folder / f"{image.stem}-{count}.png"
        count += 1
    taken.add(path)
    return path


def _save(path: Path, rgb: object) -> None:
    done, data = cv2.imencode(".png", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))  # type: ignore[call-overload]
    if not done:
        raise OutputUnwritable("the picture cannot be encoded.", where=str(path))
    write_bytes(path, data.tobytes())
