"""From views to the verdict on the part: never silently OK, whatever comes in whatever order."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inspection.judging import MAX_DEFECTS
from inspection.parts import ViewResult
from inspection.recipe.joining import join
from inspection.recipe.recipe import Recipe
from inspection.results import Defect, Inspection, Verdict

OK, NG, REVIEW, ERROR = Verdict.OK, Verdict.NG, Verdict.REVIEW, Verdict.ERROR
HOW_BAD = {OK: 0, REVIEW: 1, NG: 2, ERROR: 2}  # of a part: NG and ERROR are both rejected


def recipe(names: str = "abc", *, optional: str = "", mm: float | None = None, **rule: Any) -> Recipe:
    camera = {"kind": "pushed"}
    views = {
        name: {"camera": camera, "model": "m.onnx", "optional": name in optional, "mm_per_pixel": mm} for name in names
    }
    return Recipe.model_validate(
        {
            "product": "cell",
            "takt": 1,
            "deadline": 1,
            "trigger": {"kind": "timer"},
            "views": views,
            "rule": rule,
        }
    )


def defect(score: float = 1.0, *, side: int = 10, kind: str = "scratch", zone: str | None = None, x: int = 0) -> Defect:
    return Defect(kind=kind, score=score, box=(x, 0, side, side), area=side * side, zone=zone)


def region(verdict: Verdict, *defects: Defect, kind: str | None = "scratch", score: float = 1.0) -> Inspection:
    failed = verdict is ERROR
    return Inspection(
        name="r",
        verdict=verdict,
        score=math.nan if failed else score,
        size=(100, 100),
        defects=defects,
        kind=kind,
        reason="said" if verdict in (REVIEW, ERROR) else None,
        code="inference-failed" if failed else None,
    )


def view(name: str, *regions: Inspection) -> ViewResult:
    order = [NG, ERROR, REVIEW, OK]
    decisive = min(regions, key=lambda one: order.index(one.verdict))
    return ViewResult(
        view=name,
        verdict=decisive.verdict,
        inspections=regions,
        defects=tuple(found for one in regions for found in one.defects),
        frame=1,
        reason=decisive.reason,
        code=decisive.code,
    )


def plain(name: str, verdict: Verdict) -> ViewResult:
    return view(name, region(verdict))


@pytest.mark.parametrize(
    ("verdicts", "needed", "part"),
    [
        ([OK, OK, OK], 1, OK),
        ([OK, NG, OK], 1, NG),
        ([OK, NG, OK], 2, REVIEW),
        ([NG, NG, OK], 2, NG),
        ([NG, NG, OK], 3, REVIEW),
        ([OK, REVIEW, OK], 1, REVIEW),
        ([REVIEW, NG, OK], 1, NG),
        ([REVIEW, NG, OK], 2, REVIEW),
        ([OK, ERROR, OK], 1, ERROR),
        ([NG, ERROR, OK], 1, NG),
        ([NG, ERROR, OK], 2, ERROR),
        ([NG, ERROR, NG], 2, NG),
        ([REVIEW, ERROR, OK], 1, ERROR),
    ],
)
def test_the_rule_joins_views_into_the_part(verdicts: list[Verdict], needed: int, part: Verdict) -> None:
    joined = join([plain(name, one) for name, one in zip("abc", verdicts, strict=True)], recipe(ng_views=needed))
    assert joined.verdict is part
    assert (joined.reason is None) == (part is OK)
    assert (joined.code is None) == (part is not ERROR)
    assert [one.view for one in joined.views] == ["a", "b", "c"]


def test_a_view_without_a_result_makes_the_part_an_error() -> None:
    joined = join([plain("a", OK), plain("c", OK)], recipe())
    assert (joined.verdict, joined.code) == (ERROR, "view-missing")
    assert "b: this view has no result" in str(joined.reason)
    assert join([], recipe()).verdict is ERROR


def test_a_known_bad_view_rejects_the_part_as_ng_though_another_is_missing() -> None:
    assert join([plain("a", NG)], recipe()).verdict is NG


def test_an_optional_view_may_be_missing_but_not_all_of_them() -> None:
    assert join([plain("a", OK), plain("b", OK)], recipe(optional="c")).verdict is OK
    assert join([plain("a", OK), plain("b", OK), plain("c", ERROR)], recipe(optional="c")).verdict is OK
    assert join([plain("a", OK), plain("b", OK), plain("c", NG)], recipe(optional="c")).verdict is NG
    assert join([plain("a", ERROR)], recipe("ab", optional="ab")).verdict is ERROR
    assert join([plain("a", ERROR), plain("c", OK)], recipe("abc", optional="c")).verdict is ERROR


def test_a_view_that_comes_twice_or_from_another_recipe_is_an_error_and_never_ok() -> None:
    three = [plain(name, OK) for name in "abc"]
    assert join([*three, plain("x", OK)], recipe()).verdict is ERROR
    assert join([*three, plain("a", OK)], recipe()).verdict is ERROR
    assert join([*three, plain("a", NG)], recipe()).verdict is NG
    assert join([plain("a", NG), *three[::-1]], recipe()).verdict is NG


VERDICTS = st.sampled_from([OK, REVIEW, NG, ERROR])
PARTS = st.lists(VERDICTS, min_size=1, max_size=6)


@given(PARTS, st.integers(1, 7), st.data())
def test_making_a_view_worse_never_brings_the_part_nearer_to_ok(
    verdicts: list[Verdict], needed: int, data: st.DataObject
) -> None:
    names = "abcdef"[: len(verdicts)]
    of = recipe(names, ng_views=needed)
    which = data.draw(st.integers(0, len(verdicts) - 1))
    order = [OK, REVIEW, NG, ERROR]
    worse = list(verdicts)
    worse[which] = data.draw(st.sampled_from(order[order.index(verdicts[which]) :]))
    before = join([plain(*pair) for pair in zip(names, verdicts, strict=True)], of)
    after = join([plain(*pair) for pair in zip(names, worse, strict=True)], of)
    assert HOW_BAD[after.verdict] >= HOW_BAD[before.verdict]


@given(PARTS, st.integers(1, 7), st.data())
def test_only_a_part_whose_every_view_is_ok_is_ok(verdicts: list[Verdict], needed: int, data: st.DataObject) -> None:
    names = "abcdef"[: len(verdicts)]
    given_views = [plain(*pair) for pair in zip(names, verdicts, strict=True)]
    missing = data.draw(st.sets(st.integers(0, len(verdicts) - 1)))
    there = [one for index, one in enumerate(given_views) if index not in missing]
    joined = join(there, recipe(names, ng_views=needed))
    assert (joined.verdict is OK) == (not missing and set(verdicts) == {OK})
    if ERROR in verdicts or missing:
        assert joined.verdict in (NG, ERROR)


DEFECTS = st.builds(
    defect,
    st.sampled_from([0.5, 1.0, 2.0]),
    side=st.integers(1, 30),
    kind=st.sampled_from(["scratch", "dent"]),
    zone=st.sampled_from([None, "edge", "middle"]),
    x=st.integers(0, 3),
)
REGIONS = st.builds(lambda verdict, found: region(verdict, *found), VERDICTS, st.lists(DEFECTS, max_size=4))
TOLERANCES = st.fixed_dictionaries(
    {},
    optional={
        "views": st.sampled_from([("a",), ("a", "b")]),
        "zones": st.sampled_from([("edge",), ("middle", "edge")]),
        "kinds": st.sampled_from([("scratch",), ("dent",)]),
        "max_area": st.sampled_from([50, 200]),
        "max_length": st.sampled_from([5, 20]),
        "max_area_mm2": st.just(1.0),
        "max_count": st.sampled_from([1, 2]),
        "max_score": st.sampled_from([0.5, 1.0]),
    },
)
VIEWS = st.lists(st.lists(REGIONS, min_size=1, max_size=3), min_size=3, max_size=3)


@given(VIEWS, st.lists(TOLERANCES, max_size=3), st.integers(1, 3), st.permutations(range(3)))
def test_the_order_in_which_views_arrive_changes_nothing(
    regions: list[list[Inspection]], tolerances: list[dict[str, Any]], needed: int, order: list[int]
) -> None:
    of = recipe(ng_views=needed, tolerances=tolerances, mm=0.1)
    views = [view(name, *some) for name, some in zip("abc", regions, strict=True)]
    assert repr(join([views[index] for index in order], of)) == repr(join(views, of))


@given(VIEWS, st.lists(TOLERANCES, max_size=3), st.integers(1, 3))
def test_tolerances_lose_no_defect_and_excuse_only_what_was_measured(
    regions: list[list[Inspection]], tolerances: list[dict[str, Any]], needed: int
) -> None:
    of = recipe(ng_views=needed, tolerances=tolerances, mm=0.1)
    views = [view(name, *some) for name, some in zip("abc", regions, strict=True)]
    joined = join(views, of)
    for before, after in zip(views, joined.views, strict=True):
        assert sorted(map(repr, before.defects)) == sorted(map(repr, after.defects + after.tolerated))
        assert after.inspections == before.inspections  # what the network said stays as it was
        if before.verdict is ERROR:
            assert after.verdict is ERROR
        if before.verdict is not OK and after.verdict is OK:
            assert not [one for one in after.inspections if one.verdict is ERROR]
            assert all(one.defects for one in after.inspections if one.verdict is not OK)
            assert after.tolerated
    assert joined.verdict is not OK or all(one.verdict is OK for one in joined.views)


def one_view(*defects: Defect, verdict: Verdict = NG, mm: float | None = None, **tolerance: Any) -> ViewResult:
    of = recipe("a", tolerances=[tolerance], mm=mm)
    return join([view("a", region(verdict, *defects))], of).views[0]


def test_a_view_all_of_whose_defects_are_tolerated_is_ok_and_says_so() -> None:
    after = one_view(defect(), defect(x=20), max_area=100)
    assert (after.verdict, after.defects, len(after.tolerated)) == (OK, (), 2)
    assert "2 defects tolerated" in str(after.reason)
    assert one_view(defect(), verdict=REVIEW, max_area=100).verdict is OK


def test_a_defect_beyond_a_limit_is_ng_even_where_the_score_was_ok() -> None:
    for verdict in (OK, REVIEW, NG):
        after = one_view(defect(side=11), verdict=verdict, max_area=100)
        assert (after.verdict, after.tolerated) == (NG, ())
        assert "121 square pixels, and 100 is allowed" in str(after.reason)


def test_a_defect_that_no_tolerance_names_counts() -> None:
    assert one_view(defect(), defect(kind="dent", x=9), kinds=["scratch"]).verdict is NG
    assert one_view(defect(), defect(kind="dent", x=9), verdict=OK, kinds=["scratch"]).verdict is OK
    assert one_view(defect(), views=["a"], zones=["edge"]).verdict is NG
    assert one_view(defect(zone="edge"), views=["a"], zones=["edge"]).verdict is OK


@pytest.mark.parametrize(
    ("limits", "within"),
    [
        ({"max_area": 100}, True),
        ({"max_area": 99}, False),
        ({"max_area_mm2": 1.0}, True),  # 100 square pixels of 0.1 mm x 0.1 mm
        ({"max_area_mm2": 0.99}, False),
        ({"max_length": 14.2}, True),  # the diagonal of 10 x 10 is 14.142
        ({"max_length": 14.1}, False),
        ({"max_length_mm": 1.42}, True),
        ({"max_length_mm": 1.41}, False),
        ({"max_score": 1.0}, True),
        ({"max_score": 0.99}, False),
        ({"max_area": 100, "max_length": 14.1}, False),
        ({}, True),
    ],
)
def test_areas_and_lengths_are_measured_in_pixels_and_millimetres(limits: dict[str, float], within: bool) -> None:
    assert (one_view(defect(), mm=0.1, **limits).verdict is OK) == within


@given(st.integers(1, 2000), st.floats(0.001, 10))
def test_millimetres_are_pixels_times_the_scale(side: int, mm: float) -> None:
    area, length = (side * mm) ** 2, math.hypot(side * mm, side * mm)
    assert one_view(defect(side=side), mm=mm, max_area_mm2=area * 1.001, max_length_mm=length * 1.001).verdict is OK
    assert one_view(defect(side=side), mm=mm, max_area_mm2=area * 0.999).verdict is NG
    assert one_view(defect(side=side), mm=mm, max_length_mm=length * 0.999).verdict is NG


def test_a_limit_in_millimetres_excuses_nothing_without_a_scale() -> None:
    assert one_view(defect(), max_area_mm2=1e9).verdict is NG


def test_of_more_defects_than_may_be_the_lowest_scores_are_tolerated_over_the_whole_part() -> None:
    of = recipe("ab", tolerances=[{"max_count": 2}])
    a, b = view("a", region(NG, defect(3.0), defect(1.0))), view("b", region(NG, defect(2.0)))
    joined = join([a, b], of)
    assert [one.verdict for one in joined.views] == [NG, OK]
    assert [[one.score for one in each.tolerated] for each in joined.views] == [[1.0], [2.0]]
    assert "more than 2" in str(joined.reason)


def test_the_first_tolerance_that_names_a_defect_owns_it() -> None:
    strict, loose = {"zones": ["edge"], "max_area": 50}, {"max_area": 1000}
    views = [view("a", region(NG, defect(zone="edge"), defect(zone="middle")))]
    assert join(views, recipe("a", tolerances=[strict, loose])).views[0].defects == (defect(zone="edge"),)
    assert join(views, recipe("a", tolerances=[loose, strict])).verdict is OK


def test_a_bad_region_without_a_defect_is_not_excused_by_another_regions_defects() -> None:
    of = recipe("a", tolerances=[{"max_area": 1000}])
    assert join([view("a", region(NG, defect()), region(NG))], of).verdict is NG
    assert join([view("a", region(NG, defect()), region(REVIEW))], of).verdict is REVIEW
    assert join([view("a", region(NG, defect()), region(OK))], of).verdict is OK


def test_a_region_that_failed_comes_to_light_when_the_bad_one_is_tolerated() -> None:
    of = recipe("a", tolerances=[{"max_area": 1000}])
    assert join([view("a", region(NG, defect()), region(ERROR))], recipe("a")).verdict is NG
    joined = join([view("a", region(NG, defect()), region(ERROR))], of)
    assert (joined.verdict, joined.code) == (ERROR, "inference-failed")


def test_more_defects_than_are_listed_are_not_excused_by_those_that_are() -> None:
    many = [defect(x=index) for index in range(MAX_DEFECTS)]
    assert one_view(*many, max_area=1000).verdict is NG
    assert one_view(*many[:-1], max_area=1000).verdict is OK


def test_the_kind_is_that_of_the_highest_defect_that_counts() -> None:
    of = recipe("a", tolerances=[{"kinds": ["stain"]}])
    found = region(NG, defect(9.0, kind="stain"), defect(1.0, kind="dent"), defect(2.0), kind="stain")
    assert join([view("a", found)], of).kind == "scratch"
    assert join([view("a", replace(found, defects=()))], of).kind == "stain"
    assert join([view("a", replace(found, kind=None))], of).kind is None
    assert join([view("a", region(OK))], of).kind is None
