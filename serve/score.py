"""Judges many images into one table, and goes on where it was stopped."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2

from inspection.errors import InspectionError, OutputUnwritable
from inspection.files import write_bytes
from inspection.inspector import Inspector
from inspection.overlay import draw
from inspection.pixels import read_image
from inspection.progress import Meter, console
from inspection.results import Inspection, Verdict
from serve import inputs, table
from serve.journal import Journal, Row

DRAWN = (Verdict.NG, Verdict.REVIEW)


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """What a batch came to.

    Attributes:
        out: the table. total: its rows. judged: of them, in this run; the others were there from an interrupted one.
        counts: rows by verdict. errors: rows by error code.
        seconds: of this run's judging.
    """

    out: Path
    total: int
    judged: int
    counts: dict[str, int]
    errors: dict[str, int]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "out": str(self.out),
            "total": self.total,
            "judged": self.judged,
            "counts": self.counts,
            "errors": self.errors,
            "seconds": self.seconds,
            "images_per_second": self.judged / self.seconds if self.judged else None,
        }


def run(
    model: Path,
    pictures: Sequence[Path],
    out: Path,
    *,
    overlays: Path | None = None,
    batch: int = 8,
    provider: str = "auto",
    threads: int | None = None,
    restart: bool = False,
) -> Summary:
    """Judges `pictures` with `model` and writes `out`, one row for each image (columns: docs/batch.md).

    While it works, what is judged lies in a journal beside `out`; after a kill the same call goes on from there and
    ends with the same rows. The table appears whole, at the end.

    Args:
        model: the model file.
        pictures: image files, folders, or lists (`serve.inputs.find`).
        out: `.parquet` or `.csv`.
        overlays: folder for a picture with map and boxes of each image that is NG or REVIEW.
        batch: images that the network sees at once.
        provider, threads: as of `Inspector`.
        restart: forget an interrupted run.

    Raises:
        ConfigInvalid: another ending, or the journal is of another batch.
        DataInvalid: nothing to judge.
        ModelInvalid, ProviderUnavailable, CertificateMismatch: as `Inspector`.
        OutputUnwritable: read-only folder, full disk; the journal keeps what was judged.
    """
    table.check_ending(out)
    images = inputs.find(pictures, leave_out=[overlays] if overlays else [])
    names = [inputs.shown(image) for image in images]
    with Inspector(model, provider=provider, threads=threads) as inspector:
        about = _about(inspector, images, overlays)
        with Journal(journal_of(out), about, names, step=batch, restart=restart) as journal:
            resumed = journal.done
            if resumed:
                console.print(f"going on after {resumed:,} of {len(images):,} images", soft_wrap=True)
            started = time.perf_counter()
            try:
                _judge(inspector, images, names, journal, batch, overlays)
            except KeyboardInterrupt:
                kept = f"{journal.done:,} of {len(images):,} images are judged and kept"
                console.print(f"{kept}; the same command goes on after them.", soft_wrap=True)
                raise
            seconds = time.perf_counter() - started
            verdicts: Counter[str] = Counter()
            errors: Counter[str] = Counter()
            _write(out, journal, _counting(journal.rows(), verdicts, errors))
            journal.remove()
    return Summary(
        out=out,
        total=len(images),
        judged=len(images) - resumed,
        counts={verdict.value: verdicts[verdict.value] for verdict in Verdict},
        errors=dict(errors.most_common()),
        seconds=seconds,
    )


def journal_of(out: Path) -> Path:
    """Where the journal of the table `out` lies."""
    return out.with_name(out.name + ".journal")


def _about(inspector: Inspector, images: Sequence[Path], overlays: Path | None) -> dict[str, Any]:
    """All that decides the rows; an interrupted batch goes on only where nothing of it has changed."""
    point, tiling = inspector.operating_point, inspector.tiling
    return {
        "model": inspector.model_hash,
        # As text: a threshold may be infinite, which JSON cannot hold.
        "operating_point": None if point is None else repr(point),
        "tiling": None if tiling is None else repr(tiling),
        "provider": inspector.provider,
        "images": inputs.fingerprint(images),
        "overlays": None if overlays is None else str(overlays),
    }


def _judge(
    inspector: Inspector,
    images: Sequence[Path],
    names: Sequence[str],
    journal: Journal,
    batch: int,
    overlays: Path | None,
) -> None:
    """Judges what the journal does not hold yet, micro-batch by micro-batch."""
    first = journal.done
    counts: Counter[str] = Counter()
    inspections = inspector.inspect_many(images[first:], batch=batch)
    numbers = iter(range(first, len(images)))
    with Meter("score", len(images), done=first) as meter:
        while some := list(itertools.islice(zip(numbers, inspections, strict=False), batch)):
            rows = []
            for number, inspection in some:
                overlay = None
                if overlays is not None and inspection.verdict in DRAWN:
                    overlay = _draw(overlays, number, images[number], inspection, inspector)
                rows.append(table.row(names[number], inspection, inspector.model_hash, overlay))
                counts[inspection.verdict.value] += 1
            journal.append(rows)
            note = ", ".join(f"{verdict.value} {counts[verdict.value]}" for verdict in Verdict if counts[verdict.value])
            meter.step(len(rows), note)


def _draw(folder: Path, number: int, image: Path, inspection: Inspection, inspector: Inspector) -> str | None:
    """Writes the picture of one judged image to a folder of its verdict; None where the file is gone meanwhile."""
    try:
        pixels = read_image(image)  # again: only few are drawn, and keeping every image would cost memory
    except InspectionError:
        return None
    point = inspector.operating_point
    above = None if point is None else point.pixel_above
    picture = draw(pixels, inspection, above, white=inspector.card.input.white)
    path = folder / inspection.verdict.value / f"{number + 1:06d}-{inputs.shown(Path(image.stem))}.jpg"
    done, data = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])
    assert done
    write_bytes(path, data.tobytes())
    return str(path)


def _counting(rows: Iterator[Row], verdicts: Counter[str], errors: Counter[str]) -> Iterator[Row]:
    for row in rows:
        verdicts[row["verdict"]] += 1
        if row["error_code"]:
            errors[row["error_code"]] += 1
        yield row


def _write(out: Path, journal: Journal, rows: Iterator[Row]) -> None:
    try:
        table.write(out, rows)
    except OutputUnwritable as error:
        raise OutputUnwritable(
            error.what,
            where=error.where,
            hint=f"Make room, then run the same command again: all {journal.done:,} images are judged and kept in "
            f"{journal.path.name}.",
        ) from error
