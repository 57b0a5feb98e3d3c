"""How views become the verdict on a part: tolerances for single defects, and how many views may be bad."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from inspection.modelfile import Value
from inspection.quantities import Count

Points = Annotated[tuple[tuple[float, float], ...], Field(min_length=3)]
Positive = Annotated[float, Field(gt=0)]


class Zone(Value):
    """A named place of a view, in pixels of the whole frame; give a rectangle (x, y, width, height) or a polygon."""

    rectangle: tuple[float, float, Positive, Positive] | None = None
    polygon: Points | None = None


class Tolerance(Value):
    """Defects that may pass. A defect belongs to the first tolerance that names its view, zone and kind.

    Attributes:
        views, zones, kinds: where and what it is about; None: any. A defect lies in the zone that holds most of its
            box.
        max_area: square pixels; max_area_mm2: square millimetres (the view needs `mm_per_pixel`).
        max_length, max_length_mm: of the box's diagonal.
        max_count: how many such defects one part may have.
        max_score: raw score; a defect above it is never tolerated.
    """

    views: tuple[str, ...] | None = None
    zones: tuple[str, ...] | None = None
    kinds: tuple[str, ...] | None = None
    max_area: Positive | None = None
    max_area_mm2: Positive | None = None
    max_length: Positive | None = None
    max_length_mm: Positive | None = None
    max_count: Count | None = None
    max_score: float | None = None


class Rule(Value):
    """From views to the part.

    A view that could not be judged makes the part `ERROR`, whatever the others say, unless it is NG without it.

    Attributes:
        ng_views: the part is NG when so many views are NG; with fewer it is REVIEW.
        tolerances: tried in this order; defects that none names count.
    """

    ng_views: Count = 1
    tolerances: tuple[Tolerance, ...] = ()
