"""From the views to the verdict on the part: tolerances for single defects, then the rule.

How far a verdict is from OK: OK < REVIEW < NG = ERROR. Making any view worse never brings the part nearer to OK, no
part with a view that was not judged is OK (but for views that the recipe calls optional), and the order in which views
arrive changes nothing. tests/recipe/test_joining.py holds that for arbitrary views.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from inspection.errors import InspectionError
from inspection.judging import MAX_DEFECTS
from inspection.parts import ViewResult
from inspection.recipe.recipe import Recipe, View
from inspection.recipe.rules import Tolerance
from inspection.recipe.views import WORST, worst
from inspection.results import Defect, Verdict

ROUNDING = 1e-9  # relative


class ViewMissing(InspectionError):
    """A view of the part has no result: no frame, or not in time."""

    code = "view-missing"
    exit_code = 9


@dataclass(frozen=True, kw_only=True, slots=True)
class Joined:
    """The verdict on a part.

    Attributes:
        kind: of the highest defect of the view that decides, or that view's class; None where no kind is known.
        reason: one sentence, set unless all is well.
        code: of the error, with `ERROR` alone.
        views: after tolerances, in the recipe's order.
    """

    verdict: Verdict
    kind: str | None = None
    reason: str | None = None
    code: str | None = None
    views: tuple[ViewResult, ...] = ()


def join(views: Sequence[ViewResult], recipe: Recipe) -> Joined:
    """The verdict on a part from the results of its views, in any order.

    A view of the recipe that has no result counts as ERROR; so does one that has two, or that the recipe does not know.
    """
    results, strange = _by_name(views, recipe)
    results = tolerate(results, recipe)
    ordered = tuple(results.values())
    judged = [one for one in ordered if not (one.verdict is Verdict.ERROR and recipe.views[one.view].optional)]
    bad = [one for one in judged if one.verdict is Verdict.NG]
    failed = [one for one in judged if one.verdict is Verdict.ERROR]
    unsure = [one for one in judged if one.verdict is Verdict.REVIEW]
    needed = recipe.rule.ng_views
    if len(bad) >= needed:
        return Joined(verdict=Verdict.NG, kind=_kind(bad), reason=_reason(bad), views=ordered)
    if strange is not None:
        return Joined(verdict=Verdict.ERROR, reason=strange, code=ViewMissing.code, views=ordered)
    if failed or not judged:
        blamed = failed or list(ordered)
        return Joined(
            verdict=Verdict.ERROR,
            kind=_kind(bad),
            reason=_reason(blamed),
            code=next((one.code for one in blamed if one.code), ViewMissing.code),
            views=ordered,
        )
    if bad:
        few = f"{len(bad)} view{'s' if len(bad) > 1 else ''} NG, and the rule asks for {needed}: {_reason(bad)}"
        return Joined(verdict=Verdict.REVIEW, kind=_kind(bad), reason=few, views=ordered)
    if unsure:
        return Joined(verdict=Verdict.REVIEW, kind=_kind(unsure), reason=_reason(unsure), views=ordered)
    return Joined(verdict=Verdict.OK, views=ordered)


def tolerate(results: Mapping[str, ViewResult], recipe: Recipe) -> dict[str, ViewResult]:
    """The views after the recipe's tolerances.

    A defect belongs to the first tolerance that names its view, zone and kind. Within all its limits it is tolerated
    (of more than `max_count` in one part the lowest scores); a region all of whose defects are tolerated is OK. A
    defect beyond a stated limit makes its view NG, whatever its score. Views that are ERROR stay as they are.
    """
    if not recipe.rule.tolerances:
        return dict(results)
    allowed: dict[tuple[str, int, int], bool] = {}  # view, region, defect -> within its tolerance's limits
    why: dict[str, str] = {}  # view -> what goes beyond a limit
    for tolerance, owned in _owned(results, recipe):
        counted = 0
        # Lowest first; equal ones by place and view, so that the order of the views decides nothing.
        for defect, key in sorted(owned, key=lambda one: (one[0].score, one[0].area, one[0].box, one[1])):
            beyond = _beyond(defect, tolerance, recipe.views[key[0]])
            if beyond is None:
                counted += 1
                if tolerance.max_count is not None and counted > tolerance.max_count:
                    beyond = f"more than {tolerance.max_count} such defects on one part"
            allowed[key] = beyond is None
            if beyond is not None:
                why[key[0]] = f"{defect.kind}{f' in zone {defect.zone}' if defect.zone else ''}: {beyond}."
    return {name: _after(view, allowed, why.get(name)) for name, view in results.items()}


def _by_name(views: Sequence[ViewResult], recipe: Recipe) -> tuple[dict[str, ViewResult], str | None]:
    """One result for each view of the recipe, in its order, and what is wrong with those that were given."""
    strange = None
    given: dict[str, ViewResult] = {}
    for one in sorted(views, key=lambda view: (view.view, WORST.index(view.verdict))):
        if one.view not in recipe.views:
            strange = f"the recipe has no view `{one.view}`."
        elif one.view in given:
            strange = f"the view `{one.view}` has two results."
        given.setdefault(one.view, one)
    results = {
        name: given.get(name)
        or ViewResult(view=name, verdict=Verdict.ERROR, reason="this view has no result.", code=ViewMissing.code)
        for name in recipe.views
    }
    return results, strange


def _owned(
    results: Mapping[str, ViewResult], recipe: Recipe
) -> Iterator[tuple[Tolerance, list[tuple[Defect, tuple[str, int, int]]]]]:
    """Each tolerance with the defects that belong to it."""
    owned: list[list[tuple[Defect, tuple[str, int, int]]]] = [[] for _ in recipe.rule.tolerances]
    for name, view in results.items():
        if view.verdict is Verdict.ERROR:
            continue
        for region, inspection in enumerate(view.inspections):
            for index, defect in enumerate(inspection.defects):
                for place, tolerance in enumerate(recipe.rule.tolerances):
                    if _names(tolerance, name, defect):
                        owned[place].append((defect, (name, region, index)))
                        break
    return zip(recipe.rule.tolerances, owned, strict=True)


def _names(tolerance: Tolerance, view: str, defect: Defect) -> bool:
    return (
        (tolerance.views is None or view in tolerance.views)
        and (tolerance.zones is None or defect.zone in tolerance.zones)
        and (tolerance.kinds is None or defect.kind in tolerance.kinds)
    )


def _beyond(defect: Defect, tolerance: Tolerance, view: View) -> str | None:
    """Which limit a defect goes beyond; None: it is within all of them."""
    length = math.hypot(defect.box[2], defect.box[3])
    scale = view.mm_per_pixel
    measured = (
        (defect.area, tolerance.max_area, "square pixels"),
        (None if scale is None else defect.area * scale**2, tolerance.max_area_mm2, "mm2"),
        (length, tolerance.max_length, "pixels long"),
        (None if scale is None else length * scale, tolerance.max_length_mm, "mm long"),
        (defect.score, tolerance.max_score, "in score"),
    )
    for value, limit, unit in measured:
        if limit is None:
            continue
        if value is None:
            return f"a limit in {unit}, and the view has no `mm_per_pixel`"
        # 100 pixels of 0.1 mm are 1 mm2 but for float noise. Written so that NaN is beyond.
        if not value <= limit + ROUNDING * abs(limit):
            return f"{value:.6g} {unit}, and {limit:.6g} is allowed"
    return None


def _after(view: ViewResult, allowed: Mapping[tuple[str, int, int], bool], why: str | None) -> ViewResult:
    """One view after tolerances: each region by itself, then the worst of them."""
    if view.verdict is Verdict.ERROR or not view.inspections:
        return view
    tolerated: list[Defect] = []
    left: list[Defect] = []
    regions = []
    for region, inspection in enumerate(view.inspections):
        verdicts = [allowed.get((view.view, region, index)) for index in range(len(inspection.defects))]
        for defect, fine in zip(inspection.defects, verdicts, strict=True):
            (tolerated if fine else left).append(defect)
        if inspection.verdict is Verdict.ERROR:
            regions.append(inspection)
        elif False in verdicts:
            regions.append(replace(inspection, verdict=Verdict.NG, reason=why))
        # At MAX_DEFECTS there may be more of them, which nobody measured.
        elif verdicts and all(verdicts) and len(verdicts) < MAX_DEFECTS and inspection.verdict is not Verdict.OK:
            count = len(verdicts)
            said = f"{count} defect{'s' if count > 1 else ''} tolerated by the recipe."
            regions.append(replace(inspection, verdict=Verdict.OK, reason=said))
        else:
            regions.append(inspection)
    decisive = worst(regions)
    return replace(
        view,
        verdict=decisive.verdict,
        defects=tuple(left),
        tolerated=tuple(tolerated),
        reason=decisive.reason,
        code=decisive.code,
    )


def _reason(views: Sequence[ViewResult]) -> str:
    """What the views say, in one sentence: `top: too dark; side: NG`."""
    return "; ".join(f"{one.view}: {(one.reason or one.verdict.value).rstrip('.')}" for one in views) + "."


def _kind(views: Sequence[ViewResult]) -> str | None:
    """The kind of the highest defect, or else the class, of the first view whose network tells kinds apart."""
    for view in views:  # one view alone: scores of two networks do not compare
        known = [one for one in view.inspections if one.kind is not None]
        if known:
            return max(view.defects, key=lambda defect: defect.score).kind if view.defects else worst(known).kind
    return None
