"""Evaluation: figures from verdicts, warnings about leaks, the results on disk, and the commands."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from datasets import open_dataset
from inspection.cli import main
from inspection.errors import ConfigInvalid, DataInvalid
from inspection.inspector import Inspector
from inspection.modelfile import Bound
from inspection.results import Verdict
from tests.support.images import save, surface
from training.evaluate import evaluate, judge, leaks
from training.figures import (
    Evaluation,
    Row,
    by_kind,
    by_lot,
    by_session,
    contradictions,
    figures_of,
    named_kinds,
    spread,
)
from training.run import Run

pytestmark = pytest.mark.train

COMMAND = str(Path(sys.executable).with_name("inspection"))
OK, NG, REVIEW, ERROR = Verdict.OK, Verdict.NG, Verdict.REVIEW, Verdict.ERROR


def row(truth: Any, verdict: Verdict, score: float | None = 0.0, **more: Any) -> Row:
    fields: dict[str, Any] = {"kind": None, "lot": None, "seen": None, "said": None, "reason": None, **more}
    path = fields.pop("path", f"{truth}{verdict}{score}{more}")
    return Row(path=path, part=fields.pop("part", path), truth=truth, verdict=verdict, score=score, **fields)


def test_escape_and_overkill_are_counted_with_exact_bounds_and_review_apart() -> None:
    rows = [row("bad", NG, float(i), path=f"b{i}") for i in range(17)]
    rows += [row("bad", OK, -1.0, path="e"), row("bad", REVIEW, 0.1, path="r"), row("bad", ERROR, None, path="x")]
    rows += [row("good", OK, -2.0 - i, path=f"g{i}") for i in range(37)]
    rows += [row("good", NG, 5.0, path=f"o{i}") for i in range(3)]
    found = figures_of(rows)
    assert (found.bad.ok, found.bad.review, found.bad.ng, found.bad.error) == (1, 1, 17, 1)
    assert (found.good.ok, found.good.ng) == (37, 3)
    assert found.escape is not None
    assert found.overkill is not None
    assert found.escape.upper == pytest.approx(stats.beta.ppf(0.95, 2, 19))
    assert found.overkill.upper == pytest.approx(stats.beta.ppf(0.95, 4, 37))
    assert found.accuracy == pytest.approx((17 + 37) / 60)


def test_a_part_with_several_images_counts_once_by_its_gravest_verdict() -> None:
    rows = [
        row("good", OK, 0.0, part="a", path="1"),
        row("bad", NG, 5.0, part="a", path="2"),
        row("bad", OK, 0.0, part="b", path="3"),
        row("good", OK, 0.0, part="b", path="4"),
        row("good", OK, 0.0, part="c", path="5"),
        row("good", REVIEW, 1.0, part="c", path="6"),
        row("good", NG, 9.0, part="d", path="7"),
        row("good", ERROR, None, part="d", path="8"),
    ]
    found = figures_of(rows)
    assert (found.bad.ng, found.bad.ok, found.bad.total) == (1, 1, 2)
    assert (found.good.review, found.good.error, found.good.total) == (1, 1, 2)
    assert found.images == 8


def test_a_split_with_one_kind_of_part_has_no_areas_and_no_bound_for_the_other() -> None:
    found = figures_of([row("good", OK, float(i), path=str(i)) for i in range(5)])
    assert (found.escape, found.auroc, found.f1_max) == (None, None, None)
    assert found.overkill is not None
    assert figures_of([row(None, OK)]).accuracy is None


def test_each_kind_is_told_from_all_good_parts_and_lots_stand_alone() -> None:
    rows = [row("good", OK, 0.0, lot="monday", seen=True, path=f"g{i}") for i in range(4)]
    rows += [row("bad", NG, 3.0, kind="scratch", lot="monday", seen=True, path="s")]
    rows += [row("bad", OK, -1.0, kind="stain", lot="tuesday", seen=False, path="t")]
    kinds = {slice_.name: slice_.figures for slice_ in by_kind(rows, (), 0.95)}
    assert (kinds["scratch"].auroc, kinds["stain"].auroc) == (1.0, 0.0)
    assert kinds["stain"].good.total == 4
    lots = {slice_.name: slice_.figures for slice_ in by_lot(rows, (), 0.95)}
    assert (lots["monday"].images, lots["tuesday"].bad.ok) == (5, 1)
    sessions = {slice_.name: slice_.figures.images for slice_ in by_session(rows, (), 0.95)}
    assert sessions == {"lot seen in training": 5, "lot not seen in training": 1}


def test_kinds_are_compared_with_what_the_network_named() -> None:
    rows = [
        row("bad", NG, kind="scratch", said="scratch", path="1"),
        row("bad", NG, kind="scratch", said="stain", path="2"),
        row("good", OK, said="fine", path="3"),
        row("bad", NG, kind="never learnt", said="stain", path="4"),
    ]
    found = named_kinds(rows, ["fine", "scratch", "stain"], "fine")
    assert found is not None
    assert found.counts == [[1, 0, 0], [0, 1, 1], [0, 0, 0]]
    assert (found.right, found.total) == (2, 3)
    assert named_kinds(rows, []) is None


def test_a_test_set_that_speaks_against_the_promise_is_called_out() -> None:
    asked = [Bound(kind="escape", errors=0, total=300, upper=0.01, confidence=0.95, asked=0.01, held=True)]
    rows = [row("bad", OK if i < 8 else NG, float(i), path=str(i)) for i in range(100)]
    (sentence,) = contradictions(figures_of(rows, asked))
    assert "8 of 100" in sentence
    assert contradictions(figures_of(rows[6:], asked)) == []  # 2 of 94: nothing unusual at 1 %


def test_the_spread_over_seeds_is_the_sample_s() -> None:
    found = spread("AUROC", [0.9, 0.92, 0.97])
    assert found is not None
    assert (found.mean, found.sd) == (pytest.approx(0.93), pytest.approx(0.036056, rel=1e-4))
    assert spread("PRO", [0.9, None]) is None


def test_images_of_lots_that_were_trained_on_are_called_out(commutators: Path) -> None:
    dataset = open_dataset(commutators)
    first = dataset.samples[0]
    learnt = dataset.with_samples(replace(s, split="train" if s.lot == first.lot else "test") for s in dataset)
    assert leaks(learnt.of("test").samples, learnt) == []
    mixed = dataset.with_samples(replace(s, split="train" if s is first else "test") for s in dataset)
    (sentence,) = leaks(mixed.of("test").samples, mixed)
    assert sentence.startswith("3 of 79 images come from 1 lots or parts")
    assert any("are those of training" in sentence for sentence in leaks(learnt.samples, learnt))


def test_copies_of_trained_images_under_other_names_are_called_out(tmp_path: Path) -> None:
    for index in range(6):
        save(tmp_path / "good" / f"{index}.png", surface(index))
    save(tmp_path / "scratch" / "0.png", surface(99))
    shutil.copy(tmp_path / "good" / "0.png", tmp_path / "good" / "copy.png")
    dataset = open_dataset(tmp_path)
    split = dataset.with_samples(
        replace(s, split="test" if s.path.name == "copy.png" else "train", lot=None, part=None) for s in dataset
    )
    (sentence,) = leaks(split.of("test").samples, split)
    assert "1 of 1 images are, byte for byte, copies" in sentence


@pytest.fixture(scope="module")
def judged(exported: Path, trained: Run) -> Evaluation:
    return judge(exported, trained.dataset(), learnt=trained.dataset(), provider="cpu")


def test_every_image_of_the_split_is_judged_as_the_line_would(judged: Evaluation, exported: Path, trained: Run) -> None:
    samples = trained.dataset().of("test").samples
    assert [Path(r.path) for r in judged.rows] == [sample.path for sample in samples]
    with Inspector(exported, provider="cpu") as inspector:
        for r in judged.rows[:6]:
            inspection = inspector.inspect(r.path)
            assert r.score == pytest.approx(inspection.score, abs=1e-5)
            assert r.verdict is inspection.verdict
    assert judged.figures.images == len(samples)
    assert judged.pixels is not None
    assert 0 <= judged.pixels.pro <= 1
    assert judged.pixels.regions >= sum(sample.label == "defect" for sample in samples)
    assert {r.seen for r in judged.rows} == {False}  # lots never straddle
    assert judged.warnings == [] or all("asked" in warning for warning in judged.warnings)


def test_an_image_that_does_not_open_is_an_error_and_costs_no_other(
    exported: Path, trained: Run, tmp_path: Path
) -> None:
    dataset = trained.dataset()
    samples = list(dataset.of("test").samples)
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"not an image")
    samples[1] = replace(samples[1], path=broken)
    found = judge(exported, dataset.with_samples(samples), provider="cpu")
    assert [r.verdict is ERROR for r in found.rows].index(True) == 1
    assert found.rows[1].score is None
    assert found.figures.good.error + found.figures.bad.error == 1


def test_an_empty_split_is_refused(exported: Path, trained: Run) -> None:
    train_only = trained.dataset().of("train")
    with pytest.raises(DataInvalid, match="no image in the split `test`"):
        judge(exported, train_only)


def test_a_model_file_without_images_and_seeds_without_a_run_are_refused(exported: Path, commutators: Path) -> None:
    with pytest.raises(ConfigInvalid, match="no images to be judged on"):
        evaluate(exported)
    with pytest.raises(ConfigInvalid, match="other seeds need a run"):
        evaluate(exported, commutators, seeds=3)


def test_a_model_file_and_a_folder_without_splits_are_judged_whole_with_a_warning(
    exported: Path, commutators: Path, tmp_path: Path
) -> None:
    told: list[str] = []
    found = evaluate(exported, commutators, out=tmp_path / "out", provider="cpu", say=told.append)
    assert found.figures.images == 80
    assert "too good" in found.warnings[0]
    assert told[0].startswith("WARNING")
    values = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert Evaluation.model_validate(values) == found
    assert (tmp_path / "out" / "report.html").stat().st_size > 10_000


@pytest.mark.slow
def test_the_commands_export_and_evaluate_a_run_over_seeds_and_go_on_where_they_stopped(trained: Run) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([COMMAND, "evaluate", *arguments], capture_output=True, text=True, check=False)

    first = run(str(trained.path), "--seeds", "2", "--provider", "cpu")
    assert first.returncode == 0, first.stderr
    assert first.stdout.startswith("Of ")
    assert "over 2 seeds" in first.stdout
    stamp = (trained.path / "seeds" / "1" / "model.onnx").stat().st_mtime_ns
    again = run(str(trained.path), "--seeds", "2", "--provider", "cpu", "--json")
    assert (trained.path / "seeds" / "1" / "model.onnx").stat().st_mtime_ns == stamp
    seeds = Evaluation.model_validate_json(again.stdout).seeds
    assert seeds is not None
    assert seeds.seeds == [0, 1]
    assert "Over 2 seeds" in (trained.path / "evaluation" / "report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["export", "RUN", "--out", "x.onnx", "--precision", "fp8"], 2, "no precision"),
        (["export", "RUN", "--out", "x.onnx", "--max-escape", "lots"], 2, "max_escape"),
        (["export", "nowhere", "--out", "x.onnx"], 5, "this is no run"),
        (["evaluate", "RUN", "--split", "tset"], 2, "no split"),
        (["evaluate", "nowhere"], 5, "no such run or model file"),
    ],
)
def test_the_command_line_says_what_is_wrong(
    arguments: list[str],
    code: int,
    text: str,
    trained: Run,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = [str(trained.path) if word == "RUN" else word for word in arguments]
    monkeypatch.setattr(sys, "argv", ["inspection", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == code
    assert text in capsys.readouterr().err
