"""The report: one file, the counts first, and nothing in it that a name could break."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from inspection.inspector import Inspector
from inspection.modelfile import Bound, OperatingPoint
from inspection.results import Verdict
from tests.training.test_evaluate import row
from training import charts
from training.evaluate import judge
from training.figures import Evaluation, figures_of
from training.metrics import roc_curve
from training.report import headline, percent, promise, render, worst, write_report
from training.run import Run

pytestmark = pytest.mark.train


@pytest.fixture(scope="module")
def judged(exported: Path, trained: Run) -> Evaluation:
    return judge(exported, trained.dataset(), learnt=trained.dataset(), provider="cpu")


@pytest.fixture(scope="module")
def page(judged: Evaluation, exported: Path, trained: Run, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("report") / "report.html"
    with Inspector(exported, provider="cpu") as inspector:
        write_report(judged, inspector, trained.dataset(), path)
    return path.read_text()


class _Balance(HTMLParser):
    """Fails on a tag that is closed without being open."""

    VOID = frozenset({"meta", "img", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        return

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_report_is_one_file_that_loads_nothing(page: str) -> None:
    assert re.findall(r'(?:src|href)="(?!data:)', page) == []
    assert re.findall(r"url\(|@import|<script|http://|https://", page) == []
    parser = _Balance()
    parser.feed(page)
    assert parser.open == []


def test_the_counts_come_first_in_plain_words(page: str, judged: Evaluation) -> None:
    bad = judged.figures.bad.total
    assert headline(judged).startswith(f"Of {bad} bad part")
    assert page.index('class="headline">Of ') < page.index("<section")


def test_the_images_that_matter_are_inside_with_their_maps(page: str, judged: Evaluation) -> None:
    shown = sum(len(rows) for _, _, rows in worst(judged.rows))
    assert page.count("data:image/jpeg;base64,") == 2 * shown


def test_thresholds_certificate_and_data_are_in_the_report(page: str, judged: Evaluation) -> None:
    assert judged.operating_point is not None
    assert f"{judged.operating_point.ok_below:.6g}" in page
    assert judged.model_hash in page
    assert judged.card.data.fingerprint in page
    assert "golden images" in page


def test_names_with_markup_in_them_stay_text(judged: Evaluation) -> None:
    evil = "<script>alert(1)</script>"
    rows = [*judged.rows, row("bad", Verdict.ERROR, None, path=f"/x/{evil}", kind=evil, reason=evil)]
    page = render(judged.model_copy(update={"rows": rows, "data": evil, "warnings": [evil]}), [])
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_a_report_of_good_parts_alone_says_that_escape_is_unknown(judged: Evaluation) -> None:
    rows = [r for r in judged.rows if r.truth == "good"]
    found = judged.model_copy(update={"rows": rows, "figures": figures_of(rows), "pixels": None})
    assert "nothing is known of escape" in headline(found)
    page = render(found, [])
    assert "<h2>ROC" not in page
    assert "Told apart" not in page


def test_images_of_which_nothing_is_known_are_reported_as_such(judged: Evaluation) -> None:
    rows = [r.model_copy(update={"truth": None}) for r in judged.rows]
    found = judged.model_copy(update={"rows": rows, "figures": figures_of(rows)})
    assert headline(found).startswith(f"{len(rows)} images were judged; none of them is known")
    assert "<h2>Scores" not in render(found, [])


def test_a_promise_that_is_not_proven_says_how_many_parts_it_needs() -> None:
    bound = Bound(kind="escape", errors=0, total=20, upper=0.139, confidence=0.95, asked=0.01, held=False, needed=279)
    found = promise(bound, figures_of([row("bad", Verdict.NG, 1.0)]))
    assert found["held"] == "not proven yet: 279 more bad parts without an error would prove it"
    assert found["proven"] == "at most 13.9 % at 95 % confidence, from 0 of 20 bad parts called OK"
    unknown = promise(bound.model_copy(update={"total": 0, "asked": None, "held": None}), figures_of([]))
    assert "nothing is known" in unknown["proven"]


def test_the_worst_come_first_and_without_any_the_nearest() -> None:
    rows = [row("bad", Verdict.OK, s, path=f"b{s}") for s in (0.3, -2.0, 0.1)]
    rows += [row("good", Verdict.OK, s, path=f"g{s}") for s in (-1.0, -3.0, 0.2, -5.0)]
    escapes, nearest = worst(rows)
    assert [r.score for r in escapes[2]] == [-2.0, 0.1, 0.3]
    assert [r.score for r in nearest[2]] == [0.2, -1.0, -3.0]
    assert "nearest" in nearest[0]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0 %"),
        (0.05, "5 %"),
        (0.0345, "3.5 %"),
        (0.0083, "0.83 %"),
        (0.00002, "20 ppm"),
        (1.0, "100 %"),
        (None, "-"),
    ],
)
def test_rates_are_written_so_that_small_ones_can_be_read(value: float | None, text: str) -> None:
    assert percent(value) == text


@pytest.mark.parametrize("scores", [([0.0], [1.0]), ([5.0, 5.0], [5.0]), ([-1e30, 0.0], [1e30]), ([1e-9], [2e-9])])
def test_histograms_of_any_scores_are_drawn_and_well_formed(scores: tuple[list[float], list[float]]) -> None:
    for point in (None, OperatingPoint(ok_below=0.5, ng_above=0.7)):
        drawn = ET.fromstring(charts.histogram(*scores, point))
        bars = [r for r in drawn.iter("rect") if "zone" not in r.attrib["class"]]
        counts = sum(int((r.findtext("title") or "0").split()[0]) for r in bars)
        assert counts == len(scores[0]) + len(scores[1])
        assert "nan" not in charts.histogram(*scores, point)


def test_a_long_curve_is_thinned_and_keeps_its_ends() -> None:
    draw = np.random.default_rng(0)
    points = roc_curve(draw.normal(0, 1, 20_000), draw.normal(1, 1, 20_000))
    assert points is not None
    drawn = ET.fromstring(charts.curve(points, [("operating point", 0.1, 0.5)], "x", "y"))
    line = next(iter(drawn.iter("polyline"))).attrib["points"].split()
    assert len(line) <= 600
    assert (line[0], line[-1]) == ("46.0,292.0", "326.0,12.0")
