"""The check of a data set as a page: one HTML file with thumbnails in it."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import cv2
import jinja2

from datasets.check import MENDS, Report
from datasets.pictures import drawn
from datasets.sample import Sample
from inspection.errors import InspectionError
from inspection.files import write_text
from inspection.pixels import resize
from inspection.progress import track

THUMBNAIL = 132  # pixels, the longer side
FINDINGS, IMAGES = 30, 8  # shown for each check, and for each finding: a page of a few MB opens at once


def write_page(report: Report, path: str | Path) -> None:
    """Writes the page. Raises OutputUnwritable."""
    samples = {sample.path: sample for sample in report.dataset}
    sections = []
    for code, findings in track(report.by_code().items(), "thumbnails", len(report.by_code())):
        shown = [
            {
                "what": finding.what,
                "pictures": [(report.shown(p), _thumbnail(samples.get(p))) for p in finding.paths[:IMAGES]],
                "more": max(0, len(finding.paths) - IMAGES),
            }
            for finding in findings[:FINDINGS]
        ]
        sections.append(
            {
                "code": code,
                "severity": findings[0].severity.value,
                "mend": MENDS[code],
                "count": len(findings),
                "findings": shown,
                "more": max(0, len(findings) - FINDINGS),
            }
        )
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string((Path(__file__).parent / "check.html").read_text(encoding="utf-8"))
    data: dict[str, Any] = report.to_dict()
    write_text(path, template.render(data=data, sections=sections))


def _thumbnail(sample: Sample | None) -> str | None:
    """Base64 of a JPEG; None for what is no image of the set, or cannot be opened, as the finding says."""
    if sample is None:
        return None
    try:
        picture = drawn(sample)
    except InspectionError:
        return None
    height, width = picture.shape[:2]
    factor = THUMBNAIL / max(height, width)
    small = resize(picture, max(1, round(width * factor)), max(1, round(height * factor)))
    _, data = cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 85])
    return base64.b64encode(data.tobytes()).decode()
