"""Training, from a folder of images to a run folder."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import training.gradient
from datasets import open_dataset
from inspection.errors import ConfigInvalid, ImageUnreadable
from tests.support.images import class_folders, mvtec, pairs
from tests.training.runs import COMMAND, command, environment, equal, rows, small
from training.calibration import networks_compared
from training.config import read_config
from training.fit import fit
from training.run import Run
from training.summary import summary

pytestmark = pytest.mark.train


def test_the_run_folder_says_what_was_done(whole: Run, parts: Path) -> None:
    record = whole.record
    assert whole.finished
    assert record.network == "defectnet"
    assert record.schedule is not None
    assert (record.schedule.steps, record.schedule.evaluate_at) == (30, [15, 30])
    assert record.data.fingerprint == open_dataset(parts).fingerprint()
    assert record.weights_licence == "Apache-2.0"
    assert record.versions["torch"] == torch.__version__.partition("+")[0]
    assert record.wall_seconds > 0
    assert record.cpu_seconds > 0
    assert networks_compared(record) == 2
    assert not (whole.path / "checkpoint.pt").exists()
    assert list((whole.path / "tensorboard").iterdir())
    counts = {split: len(whole.dataset().of(split)) for split in ("train", "calibration", "test")}
    assert sum(counts.values()) == 72
    assert {split: sum(known.values()) for split, known in record.data.counts.items()} == counts


def test_the_network_of_a_run_scores_as_the_record_says(whole: Run) -> None:
    from datasets.load import Loader
    from training.scoring import score
    from training.selection import figures

    scored = score(whole.network(), whole.dataset().of("calibration").samples, Loader(whole.spec))
    assert figures(scored, whole.classes, None) == pytest.approx(whole.record.calibration)
    calibrated = whole.calibrated()
    assert calibrated is not None
    # The run scored in another memory layout and batch size: float32 sums in another order, 2e-6 seen.
    assert calibrated.calibration.bad == pytest.approx(np.sort(scored.bad).tolist(), rel=1e-5, abs=1e-5)
    assert calibrated.calibration.good == pytest.approx(np.sort(scored.good).tolist(), rel=1e-5, abs=1e-5)


def test_learning_lowers_the_loss_and_tells_bright_scratches_apart(parts: Path, tmp_path: Path) -> None:
    asked = {"input.width": 64, "input.height": 64, "hardware.threads": 1, "hardware.accelerator": "cpu"}
    config = read_config(None, {**asked, "model.kind": "defectnet", "batch": 8, "steps": 60, "evaluations": 3})
    run = fit(config, open_dataset(parts), tmp_path / "run")
    losses = [float(row["loss"]) for row in rows(run)]
    assert losses[-1] < 0.9 * losses[0]
    assert run.record.calibration["auroc"] > 0.9


def test_the_curves_have_one_row_for_each_tenth_step_and_evaluation(whole: Run) -> None:
    assert [int(row["step"]) for row in rows(whole)] == [10, 15, 20, 30]
    assert [bool(row["auroc"]) for row in rows(whole)] == [False, True, False, True]


def test_the_summary_says_what_was_made_and_what_to_do_next(whole: Run) -> None:
    text = "\n".join(summary(whole))
    assert "defectnet" in text
    assert "AUROC" in text
    assert "bad parts; at most" in text
    assert f"inspection export {whole.path}" in text


def test_the_same_seed_gives_the_same_weights_whatever_the_number_of_workers(
    whole: Run, parts: Path, tmp_path: Path
) -> None:
    again = fit(small(**{"hardware.workers": 3}), open_dataset(parts), tmp_path / "again")
    assert equal(whole, again)
    other = fit(small(seed=1), open_dataset(parts), tmp_path / "other")
    assert not equal(whole, other)


def test_a_budget_plans_the_steps_and_is_kept_roughly(parts: Path, tmp_path: Path) -> None:
    started = time.monotonic()
    run = fit(small(budget="8s", steps=None), open_dataset(parts), tmp_path / "run")
    assert run.record.schedule is not None
    assert run.record.schedule.seconds_per_step is not None
    assert run.record.schedule.steps >= 10
    assert time.monotonic() - started < 24  # the machine may be busy with other things in the meantime


def test_measuring_the_speed_leaves_no_trace_in_the_weights(parts: Path, tmp_path: Path, whole: Run) -> None:
    limited = fit(small(budget="10m"), open_dataset(parts), tmp_path / "run")  # the 30 steps end before the budget
    assert limited.record.schedule is not None
    assert limited.record.schedule.steps == 30
    if limited.record.schedule.evaluate_at == [15, 30]:
        assert equal(limited, whole)


def test_good_images_alone_keep_the_last_weights_and_bound_overkill_only(tmp_path: Path) -> None:
    root = mvtec(tmp_path / "data", train=20, good=0, bad=0, height=64, width=64)
    run = fit(small(steps=10), open_dataset(root), tmp_path / "run")
    assert run.record.best is not None
    assert run.record.best.value is None
    assert "no good and bad" in run.record.best.criterion
    calibrated = run.calibrated()
    assert calibrated is not None
    assert calibrated.calibration.bad == []
    assert "escape       unknown" in "\n".join(summary(run))


def test_masks_and_lots_go_through(tmp_path: Path) -> None:
    root = pairs(tmp_path / "data", lots=10, parts=4, height=64, width=64)
    run = fit(small(steps=10), open_dataset(root), tmp_path / "run")
    dataset = run.dataset()
    assert any(sample.mask for sample in dataset.of("train"))
    lots = [{sample.group for sample in dataset.of(split)} for split in ("train", "calibration", "test")]
    assert len(set.union(*lots)) == sum(len(groups) for groups in lots)


def test_a_memory_bank_is_filled_in_one_pass(parts: Path, tmp_path: Path) -> None:
    config = read_config(
        None,
        {"model.kind": "patchcore", "model.rows": 200, "input.width": 64, "input.height": 64, "hardware.threads": 1},
    )
    run = fit(config, open_dataset(parts), tmp_path / "run")
    again = fit(config, open_dataset(parts), tmp_path / "again")
    assert equal(run, again)
    assert run.record.calibration["auroc"] > 0.9
    assert run.network()(torch.zeros(1, 64, 64, 1, dtype=torch.uint8)).score.shape == (1,)


def test_kinds_alone_are_told_apart(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "data", good=0, bad=12, kinds=("dent", "scratch"), height=64, width=64)
    config = small(steps=4).model_copy(update={"model": None})
    run = fit(config, open_dataset(root, "folders"), tmp_path / "run")
    assert (run.record.network, run.record.task, run.classes) == ("classifier", "kinds", ("dent", "scratch"))
    assert set(run.record.calibration) == {"balanced_accuracy"}
    assert run.calibrated() is None


def test_the_last_weights_are_kept_when_asked(parts: Path, tmp_path: Path) -> None:
    run = fit(small(steps=6, keep="last"), open_dataset(parts), tmp_path / "run")
    assert run.record.best is not None
    assert run.record.best.step == 6
    assert networks_compared(run.record) == 1


def test_without_evaluations_the_last_weights_are_kept(parts: Path, tmp_path: Path) -> None:
    run = fit(small(steps=3, evaluations=0), open_dataset(parts), tmp_path / "run")
    assert run.record.schedule is not None
    assert run.record.schedule.evaluate_at == []
    assert run.record.best is not None
    assert (run.record.best.step, run.record.best.value) == (3, None)
    assert run.record.calibration["auroc"] >= 0
    assert networks_compared(run.record) == 1


def test_without_an_average_the_weights_themselves_are_kept(parts: Path, tmp_path: Path) -> None:
    plain = fit(small(steps=6, **{"optimiser.average": 0}), open_dataset(parts), tmp_path / "plain")
    averaged = fit(small(steps=6), open_dataset(parts), tmp_path / "averaged")
    assert not equal(plain, averaged)


def test_the_learning_rate_rises_and_then_falls_to_zero() -> None:
    factors = [training.gradient.rate_factor(step, 100, 0.1) for step in range(100)]
    assert factors[:10] == pytest.approx([0.1 * n for n in range(1, 11)])
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert factors[55] == pytest.approx(0.5)
    assert 0 < factors[-1] < 0.001


def test_the_average_of_the_weights_is_what_the_formula_says(parts: Path, whole: Run) -> None:
    network = whole.network()
    average = training.gradient.Average(network, 0.9)
    name, parameter = next(iter(network.named_parameters()))
    expected = parameter.detach().clone().double()
    for step in range(1, 30):
        with torch.no_grad():
            parameter += 1.0
        average.update(step)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * parameter.detach().double()
    assert torch.allclose(dict(average.network.named_parameters())[name].double(), expected, rtol=1e-5)


@pytest.mark.slow
def test_two_processes_train_one_network_together(whole: Run, parts: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train = command(parts, out, "--set=hardware.devices=2")
    done = subprocess.run(train, env=environment(), check=True, capture_output=True, text=True, timeout=300)
    run = Run(out)
    assert run.finished
    assert run.record.machine["devices"] == 2
    # The same images from the same weights; only batch statistics and synthetic defects are each process's own.
    assert float(rows(run)[0]["loss"]) == pytest.approx(float(rows(whole)[0]["loss"]), rel=0.15)
    assert done.stdout.count("trained ") == 1  # only the first process speaks
    assert [int(row["step"]) for row in rows(run)] == [10, 15, 20, 30]


def test_a_damaged_image_is_named_before_the_first_step(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "data", good=12, bad=6, height=64, width=64)
    victim = root / "good" / "003.png"
    victim.write_bytes(victim.read_bytes()[:-200])
    with pytest.raises(ImageUnreadable) as caught:
        fit(small(), open_dataset(root), tmp_path / "run")
    assert str(victim) in str(caught.value)


def test_a_loss_that_diverges_is_an_error_that_says_the_mend(parts: Path, tmp_path: Path) -> None:
    config = small(**{"optimiser.rate": 1e12, "optimiser.clip": None, "optimiser.warmup": 0})
    with pytest.raises(ConfigInvalid, match="diverged") as caught:
        fit(config, open_dataset(parts), tmp_path / "run")
    assert "optimiser.rate" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"hardware.precision": "16-mixed"}, "needs a CUDA device"),
        ({"hardware.accelerator": "cuda"}, "no CUDA device"),
    ],
)
def test_hardware_that_is_not_there_is_refused(
    parts: Path, tmp_path: Path, changes: dict[str, Any], error: str
) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(ConfigInvalid, match=error):
        fit(small(**changes), open_dataset(parts), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_wrong_setting_ends_with_its_code_and_no_traceback(parts: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [COMMAND, "train", str(parts), "--out", str(tmp_path / "run"), "--set", "optimizer.rate=1"],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "Did you mean `optimiser`?" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()
