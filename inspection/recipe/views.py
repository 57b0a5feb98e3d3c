"""From a frame to its regions, and from the judgement of the regions to the view's.

The view's verdict is that of its worst region: NG before ERROR before REVIEW before OK. NG comes first because a region
that is known to be bad stays so, whatever became of the others; both reject the part.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from inspection.errors import InferenceFailed, InputMismatch, InspectionError
from inspection.judging import find_defects, verdict_of
from inspection.modelfile import InputSpec, OperatingPoint
from inspection.parts import Frame, ViewResult
from inspection.pixels import Pixels, read_mask
from inspection.recipe.geometry import Mask, cells_within, inside, shift, zone_of, zone_points
from inspection.recipe.recipe import Region, View
from inspection.results import Inspection, ScoreMap, Verdict

WORST = (Verdict.NG, Verdict.ERROR, Verdict.REVIEW, Verdict.OK)  # worst first; see above
# A network whose score is its map's highest value gives both alike but for rounding.
SAME = 1e-4
SIZES = 16  # of frames, for which masks are kept
_FORMAT = re.compile(r"(Mono|Bayer(?:RG|GR|GB|BG)|RGBa?|BGRa?)(8|10|12|14|16)(?!\d)")


def worst(inspections: Sequence[Inspection]) -> Inspection:
    """The region that decides; of equals the one with the highest score, then the first."""
    return min(inspections, key=lambda one: (WORST.index(one.verdict), -one.score if math.isfinite(one.score) else 0.0))


def depth_of(pixel_format: str) -> int | None:
    """The bits of a pixel by its name in the PFNC (`Mono12p`: 12); None where the name does not say."""
    found = _FORMAT.match(pixel_format)
    return int(found[2]) if found else None


def is_mono(pixel_format: str) -> bool | None:
    """Whether a format of the PFNC is mono; None where the name does not say."""
    found = _FORMAT.match(pixel_format)
    return found[1] == "Mono" if found else None


class ViewJudge:
    """What the recipe says of one view, ready to be applied to its frames. May be used by several threads.

    Args:
        name: the view's name in the recipe.
        view: as `load` gives it, with paths that can be opened.
        point: the thresholds that are in force: the view's own, or those of its model's card.
        spec: what its model takes.

    Raises:
        ImageUnreadable: the mask of places to ignore.
    """

    def __init__(self, name: str, view: View, *, point: OperatingPoint | None, spec: InputSpec) -> None:
        self.name = name
        self.view = view
        self.point = view.operating_point or point
        self.spec = spec
        self._mask = None if view.ignore_mask is None else read_mask(view.ignore_mask)
        # By frame size, which a running camera does not change; two threads that fill one at once write the same.
        self._ignored: dict[tuple[int, int], Mask | None] = {}
        self._zones: dict[tuple[int, int], dict[str, Mask]] = {}
        self._cells: dict[tuple[object, ...], Mask] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """What the regions are called: the view's name, with the region's number as in the recipe's `regions`."""
        return tuple(f"{self.name}.{index}" for index in range(len(self.view.regions))) or (self.name,)

    def cut(self, frame: Frame) -> list[tuple[str, Pixels]]:
        """The regions that are judged: name and pixels of each, in the recipe's order. Nothing is copied.

        Raises:
            InputMismatch: the frame is not whole, has another bit depth than the model takes, or another size than the
                recipe's regions and masks were made for.
        """
        if frame.pixels is None or frame.damage is not None:
            raise InputMismatch(
                f"the frame is not whole: {frame.damage or 'it has no pixels'}.",
                where=self.name,
                hint="Look at the camera's counters, cable and network.",
            )
        depth = self.view.bit_depth or depth_of(frame.pixel_format)
        if depth is not None and depth != self.spec.bit_depth:
            raise InputMismatch(
                f"the frame has {depth} bit and the model takes {self.spec.bit_depth} bit.",
                where=self.name,
                hint=f"Set the camera's pixel format to {self.spec.bit_depth} bit, or `bit_depth` where the format's "
                "name does not say how many bits are used.",
            )
        size = _size(frame.pixels)
        self._ignored_in(size)
        if not self.view.regions:
            return [(self.name, frame.pixels)]
        return [
            (name, _cut(frame.pixels, region, f"{self.name}, regions.{index}"))
            for index, (name, region) in enumerate(zip(self.names, self.view.regions, strict=True))
        ]

    def conclude(self, frame: Frame, inspections: Sequence[Inspection]) -> ViewResult:
        """The view's result from those of its regions, which are in pixels of the region and in the recipe's order.

        They are judged by `point`. A region for which there is none counts as ERROR. Places to ignore are applied, and
        everything that leaves is in pixels of the frame. Tolerances come later, in `join`.

        Raises:
            InputMismatch: the frame is not the one that `cut` took.
        """
        if frame.pixels is None:
            raise InputMismatch("the frame has no pixels.", where=self.name)
        size = _size(frame.pixels)
        regions = self.view.regions or (Region(x=0, y=0, width=size[0], height=size[1]),)
        judged: list[Inspection] = []
        for index, (name, region) in enumerate(zip(self.names, regions, strict=True)):
            if index < len(inspections):
                judged.append(self._conclude(inspections[index], region, size))
            else:
                judged.append(_unjudged(name, size))
        decisive = worst(judged)
        return ViewResult(
            view=self.name,
            verdict=decisive.verdict,
            inspections=tuple(judged),
            defects=tuple(defect for one in judged for defect in one.defects),
            frame=frame.number,
            reason=decisive.reason,
            code=decisive.code,
        )

    def failed(self, error: InspectionError, frame: Frame | None = None) -> ViewResult:
        """The result of a view that could not be judged at all."""
        return ViewResult(
            view=self.name,
            verdict=Verdict.ERROR,
            frame=None if frame is None else frame.number,
            reason=f"{error.what} {error.hint or ''}".strip(),
            code=error.code,
        )

    def _conclude(self, inspection: Inspection, region: Region, size: tuple[int, int]) -> Inspection:
        corner = (region.x, region.y)
        if inspection.verdict is not Verdict.ERROR:
            ignored = self._ignored_in(size)
            if ignored is not None:
                inspection = self._without_ignored(inspection, ignored, corner)
        placed = shift(inspection, corner, size)
        zones = self._zones_in(size) if placed.defects else {}
        if not zones:
            return placed
        return replace(
            placed, defects=tuple(replace(defect, zone=zone_of(defect.box, zones)) for defect in placed.defects)
        )

    def _without_ignored(self, inspection: Inspection, ignored: Mask, corner: tuple[int, int]) -> Inspection:
        """The inspection by those cells of its map alone that are not ignored. Never from ERROR to anything else.

        A cell is ignored when it lies wholly in places to ignore: what nobody marked is never left out.
        """
        scores = inspection.map
        above = None if self.point is None else self.point.pixel_above
        if scores is None or above is None or not inspection.defects:
            return inspection  # no cell says where the score comes from, so no place can excuse it
        values = np.where(self._cells_ignored(ignored, scores, corner), -np.inf, scores.values).astype(np.float32)
        rest = ScoreMap(values=values, region=scores.region, size=scores.size)
        defects = find_defects(rest, above, inspection.kind or "defect")
        inspection = replace(inspection, defects=defects)
        if defects or inspection.verdict is Verdict.OK:
            return inspection
        highest = float(values.max())
        if math.isclose(inspection.score, float(scores.values.max()), rel_tol=SAME) and math.isfinite(highest):
            # The score is the map's highest value: then what is left has a score of its own, and is judged by it.
            verdict, reason = verdict_of(highest, self.point)
            if verdict is not Verdict.OK:
                return replace(inspection, verdict=verdict, reason=reason)
        return replace(
            inspection, verdict=Verdict.OK, reason=f"every place from {above:.6g} on lies where defects are ignored."
        )

    def _cells_ignored(self, ignored: Mask, scores: ScoreMap, corner: tuple[int, int]) -> Mask:
        key = (scores.values.shape, scores.region, scores.size, corner, ignored.shape)
        if key not in self._cells:
            self._cells[key] = cells_within(ignored, scores, corner)
        return self._cells[key]

    def _ignored_in(self, size: tuple[int, int]) -> Mask | None:
        """Pixels of a frame of `size` that are ignored; None: nothing is. Raises InputMismatch for another size."""
        if self._mask is None and not self.view.ignore:
            return None
        if size not in self._ignored:
            self._make_room()
            width, height = size
            mask = np.zeros((height, width), dtype=np.bool_)
            if self._mask is not None:
                if self._mask.shape != mask.shape:
                    raise InputMismatch(
                        f"the frame is {width} x {height}, and the mask of places to ignore is "
                        f"{self._mask.shape[1]} x {self._mask.shape[0]}.",
                        where=self.name,
                        hint="Draw the mask on a frame of this camera as it is set now.",
                    )
                mask |= self._mask
            for points in self.view.ignore:
                mask |= inside(points, size)
            self._ignored[size] = mask
        return self._ignored[size]

    def _make_room(self) -> None:
        """Frames that somebody sends may be of any size; masks are kept for some sizes only."""
        if max(len(self._ignored), len(self._zones)) >= SIZES:
            self._ignored.clear()
            self._zones.clear()
            self._cells.clear()

    def _zones_in(self, size: tuple[int, int]) -> dict[str, Mask]:
        if size not in self._zones:
            self._make_room()
            self._zones[size] = {name: inside(zone_points(zone), size) for name, zone in self.view.zones.items()}
        return self._zones[size]


def _size(pixels: Pixels) -> tuple[int, int]:
    return pixels.shape[1], pixels.shape[0]


def _cut(pixels: Pixels, region: Region, where: str) -> Pixels:
    width, height = _size(pixels)
    right, bottom = region.x + region.width, region.y + region.height
    if right > width or bottom > height:
        raise InputMismatch(
            f"the region ends at {right} x {bottom}, and the frame is {width} x {height}.",
            where=where,
            hint="Mend the region, or set the camera to the size that the recipe was made for.",
        )
    return pixels[region.y : bottom, region.x : right]


def _unjudged(name: str, size: tuple[int, int]) -> Inspection:
    return Inspection(
        name=name,
        verdict=Verdict.ERROR,
        score=math.nan,
        size=size,
        reason="this region was not judged.",
        code=InferenceFailed.code,
    )
