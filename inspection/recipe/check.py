"""What an integrator gets wrong at night: everything in a recipe that can be found before the line runs.

An error means that the line cannot do what the recipe says, or would call every part the same; a warning, that it can,
and that somebody should know. Nothing is connected to, and no network is run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from inspection.config import mistakes, nearest, read_yaml
from inspection.errors import InspectionError, ModelInvalid
from inspection.modelfile import ModelCard, read_card
from inspection.recipe.load import Loaded, load, recipes_in
from inspection.recipe.recipe import Recipe
from inspection.recipe.rules import Tolerance

LIMITS = ("max_area", "max_area_mm2", "max_length", "max_length_mm", "max_count", "max_score")


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing that is wrong, or that somebody should know.

    Attributes:
        key: by its path in the recipe, `views.top.model`; empty: it is about the whole file.
        where: `file:line`.
    """

    level: Literal["error", "warning"]
    what: str
    key: str
    where: str
    mend: str | None = None


class Report:
    """Findings about one recipe, each with the line of its key."""

    def __init__(self, loaded: Loaded) -> None:
        self.loaded = loaded
        self.findings: list[Finding] = []

    def error(self, key: tuple[int | str, ...], what: str, mend: str | None = None) -> None:
        """The line cannot do this."""
        self._add("error", key, what, mend)

    def warning(self, key: tuple[int | str, ...], what: str, mend: str | None = None) -> None:
        """It can, and somebody should know."""
        self._add("warning", key, what, mend)

    def failed(self, key: tuple[int | str, ...], error: InspectionError) -> None:
        """A file that the recipe names cannot be used."""
        where = f"{error.where}: " if error.where else ""
        self._add("error", key, f"{where}{error.what}", error.hint)

    def _add(self, level: Literal["error", "warning"], key: tuple[int | str, ...], what: str, mend: str | None) -> None:
        dotted = ".".join(str(part) for part in key)
        self.findings.append(Finding(level=level, what=what, key=dotted, where=self.loaded.where(*key), mend=mend))


def check(loaded: Loaded) -> list[Finding]:
    """Everything that can be said against a recipe, errors first, each with the line and the mend."""
    from inspection.recipe.check_line import check_line
    from inspection.recipe.check_views import check_views

    report = Report(loaded)
    cards = read_cards(loaded, report)
    check_views(loaded.recipe, cards, report)
    _rule(loaded.recipe, cards, report)
    check_line(loaded.recipe, cards, report)
    return sorted(report.findings, key=lambda one: one.level)  # `error` before `warning`, else as found


def check_file(path: str | Path) -> list[Finding]:
    """The findings on a recipe's file, also on one that cannot be loaded; another recipe's index beside it counts."""
    path = Path(path)
    try:
        findings = check(load(path))
    except InspectionError as error:
        found: Sequence[InspectionError]
        try:
            found = mistakes(read_yaml(path), Recipe) or [error]  # all of them, not the first alone
        except InspectionError:
            found = [error]
        return [_of(one, path) for one in found]
    same = recipes_in(path.absolute().parent).broken.get(path.absolute())
    return [*([] if same is None else [_of(same, path)]), *findings]


def _of(error: InspectionError, path: Path) -> Finding:
    return Finding(level="error", what=error.what, key="", where=error.where or str(path), mend=error.hint)


def read_cards(loaded: Loaded, report: Report | None = None) -> dict[str, ModelCard]:
    """The card of each view's model, read once for each file; views whose model cannot be read are missing.

    Raises:
        ModelInvalid: without a report to write it into.
    """
    read: dict[Path, ModelCard | ModelInvalid] = {}
    cards: dict[str, ModelCard] = {}
    for name, view in loaded.recipe.views.items():
        if view.model not in read:
            try:
                read[view.model] = read_card(view.model)
            except ModelInvalid as error:
                if report is None:
                    raise
                read[view.model] = error
        found = read[view.model]
        if isinstance(found, ModelCard):
            cards[name] = found
        elif report is not None:
            report.failed(("views", name, "model"), found)
    return cards


def _rule(recipe: Recipe, cards: dict[str, ModelCard], report: Report) -> None:
    rule, views = recipe.rule, recipe.views
    if rule.ng_views > len(views):
        report.error(
            ("rule", "ng_views"),
            f"no part can ever be NG: {rule.ng_views} views must be, and there {_are(len(views))}.",
            f"Give at most {len(views)}.",
        )
    if all(view.optional for view in views.values()):
        report.error(
            ("views",), "every view is optional: a part could be judged by none.", "Take `optional` from one view."
        )
    for index, tolerance in enumerate(rule.tolerances):
        key = ("rule", "tolerances", index)
        named = list(_named(recipe, tolerance))
        _known(report, (*key, "views"), "view", tolerance.views, list(views))
        if not named:
            continue
        _known(
            report,
            (*key, "zones"),
            "zone",
            tolerance.zones,
            sorted({zone for name in named for zone in views[name].zones}),
        )
        if all(name in cards for name in named):
            kinds = sorted({kind for name in named for kind in (cards[name].classes or ["defect"])})
            _known(report, (*key, "kinds"), "kind of defect", tolerance.kinds, kinds)
        for name in named:
            point = views[name].operating_point or (cards[name].operating_point if name in cards else None)
            if name in cards and (point is None or point.pixel_above is None):
                say = report.error if tolerance.views is not None else report.warning
                say(
                    key,
                    f"view `{name}` finds no single defects, so nothing in it can be tolerated: its model has no "
                    "`pixel_above`.",
                    "Use a model with a map, or name the other views in `views`.",
                )
            for limit in ("max_area_mm2", "max_length_mm"):
                if getattr(tolerance, limit) is not None and views[name].mm_per_pixel is None:
                    report.error(
                        (*key, limit),
                        f"view `{name}` has no scale, so nothing in it can be measured in millimetres.",
                        f"Write `mm_per_pixel` into `views.{name}`.",
                    )
        if all(getattr(tolerance, limit) is None for limit in LIMITS):
            report.warning(
                key, "has no limit: such a defect of any size is tolerated.", f"Add one of {', '.join(LIMITS)}."
            )
        for before in range(index):
            if _covers(rule.tolerances[before], tolerance):
                report.error(
                    key,
                    f"is never reached: `rule.tolerances.{before}` stands before it and names all that it names.",
                    "Put the one that names less first.",
                )
                break
    used = {zone for tolerance in rule.tolerances for zone in tolerance.zones or ()}
    for name, view in views.items():
        for zone in view.zones:
            if zone not in used:
                report.warning(
                    ("views", name, "zones", zone), "no tolerance names this zone: it is only written beside defects."
                )


def _named(recipe: Recipe, tolerance: Tolerance) -> Iterator[str]:
    """The views that a tolerance is about."""
    for name, view in recipe.views.items():
        if tolerance.views is not None and name not in tolerance.views:
            continue
        if tolerance.zones is None or tolerance.views is not None or set(tolerance.zones) & set(view.zones):
            yield name
            continue


def _covers(first: Tolerance, second: Tolerance) -> bool:
    """Whether all that the second names is named by the first."""
    pairs = ((first.views, second.views), (first.zones, second.zones), (first.kinds, second.kinds))
    return all(a is None or (b is not None and set(b) <= set(a)) for a, b in pairs)


def _known(
    report: Report, key: tuple[int | str, ...], what: str, given: tuple[str, ...] | None, known: list[str]
) -> None:
    for index, name in enumerate(given or ()):
        if name not in known:
            report.error((*key, index), f"there is no {what} `{name}`.", nearest(name, known, f"{what}s"))


def _are(count: int) -> str:
    return "is 1" if count == 1 else f"are {count}"
