"""Training, from a folder of images to a run folder, with kills on the way."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import training.gradient
from datasets import open_dataset
from inspection.errors import ConfigInvalid, DataInvalid, ImageUnreadable, InspectionError, OutputUnwritable
from tests.support.images import class_folders, mvtec, pairs
from training.calibration import networks_compared
from training.config import TrainConfig, read_config
from training.fit import fit
from training.gradient import Learner
from training.run import Run
from training.summary import summary

pytestmark = pytest.mark.train

COMMAND = str(Path(sys.executable).with_name("inspection"))
SMALL: dict[str, Any] = {
    "input.width": 64,
    "input.height": 64,
    "batch": 4,
    "steps": 30,
    "evaluations": 2,
    "hardware.threads": 1,
    "hardware.accelerator": "cpu",
    "model.kind": "defectnet",
    "model.width": 16,
}


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 good and 24 scratched parts."""
    return class_folders(tmp_path_factory.mktemp("parts"), good=48, bad=24, height=64, width=64)


@pytest.fixture(scope="module")
def whole(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that nothing disturbed."""
    return fit(_small(), open_dataset(parts), tmp_path_factory.mktemp("runs") / "whole")


def _small(**changes: Any) -> TrainConfig:
    return read_config(None, {**SMALL, **changes})


def _weights(run: Run) -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = torch.load(run.path / "best.pt", weights_only=True)["weights"]
    return weights


def _equal(one: Run, other: Run) -> bool:
    ours, theirs = _weights(one), _weights(other)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def _rows(run: Run) -> list[dict[str, str]]:
    with (run.path / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


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
    losses = [float(row["loss"]) for row in _rows(run)]
    assert losses[-1] < 0.9 * losses[0]
    assert run.record.calibration["auroc"] > 0.9


def test_the_curves_have_one_row_for_each_tenth_step_and_evaluation(whole: Run) -> None:
    assert [int(row["step"]) for row in _rows(whole)] == [10, 15, 20, 30]
    assert [bool(row["auroc"]) for row in _rows(whole)] == [False, True, False, True]


def test_the_summary_says_what_was_made_and_what_to_do_next(whole: Run) -> None:
    text = "\n".join(summary(whole))
    assert "defectnet" in text
    assert "AUROC" in text
    assert "bad parts; at most" in text
    assert f"inspection export {whole.path}" in text


def test_the_same_seed_gives_the_same_weights_whatever_the_number_of_workers(
    whole: Run, parts: Path, tmp_path: Path
) -> None:
    again = fit(_small(**{"hardware.workers": 3}), open_dataset(parts), tmp_path / "again")
    assert _equal(whole, again)
    other = fit(_small(seed=1), open_dataset(parts), tmp_path / "other")
    assert not _equal(whole, other)


class _Stopped(Exception):
    pass


@pytest.mark.parametrize("at", [3, 15, 16, 29])
def test_a_run_that_was_stopped_ends_with_the_same_weights(
    whole: Run, parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    step = Learner._step

    def stopping(self: Learner, number: int, *rest: Any) -> Any:
        if number == at:
            raise _Stopped
        return step(self, number, *rest)

    config = _small(checkpoint_every=0.001)
    with monkeypatch.context() as patch:
        patch.setattr(Learner, "_step", stopping)
        with pytest.raises(_Stopped):
            fit(config, open_dataset(parts), tmp_path / "run")
    said: list[str] = []
    run = fit(config, open_dataset(parts), tmp_path / "run", say=said.append)
    assert said[0].startswith("Going on with")
    assert _equal(whole, run)
    assert run.record.calibration == whole.record.calibration
    assert run.record.best == whole.record.best
    assert [row["step"] for row in _rows(run)] == [row["step"] for row in _rows(whole)]
    assert [row["loss"] for row in _rows(run)] == [row["loss"] for row in _rows(whole)]


def test_a_finished_run_is_left_as_it_is(whole: Run, parts: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in whole.path.rglob("*")}
    said: list[str] = []
    again = fit(_small(), open_dataset(parts), whole.path, say=said.append)
    assert again.record == whole.record
    assert "finished already" in said[0]
    assert {file: file.stat().st_mtime_ns for file in whole.path.rglob("*")} == before


def test_a_run_with_other_settings_is_not_touched(whole: Run, parts: Path) -> None:
    with pytest.raises(DataInvalid, match=r"optimiser\.rate: 0\.001 there, 0\.01 now") as caught:
        fit(_small(**{"optimiser.rate": 0.01}), open_dataset(parts), whole.path)
    assert "--restart" in str(caught.value.hint)


def test_a_run_on_other_data_is_not_touched(whole: Run, tmp_path: Path) -> None:
    other = class_folders(tmp_path / "other", good=48, bad=23, height=64, width=64)
    with pytest.raises(DataInvalid, match="the images, or what is known of them"):
        fit(_small(), open_dataset(other), whole.path)


def test_a_run_with_other_splits_is_not_touched(whole: Run, parts: Path) -> None:
    from dataclasses import replace

    moved = {"train": "test", "test": "train", "calibration": "calibration"}
    dataset = whole.dataset()
    swapped = dataset.with_samples(replace(s, split=moved[str(s.split)]) for s in dataset)  # type: ignore[arg-type]
    with pytest.raises(DataInvalid, match="splits"):
        fit(_small(), swapped, whole.path)


def test_restart_trains_anew_and_keeps_what_is_not_of_the_run(parts: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    fit(_small(steps=2), open_dataset(parts), out)
    (out / "notes.txt").write_text("mine")
    run = fit(_small(steps=3), open_dataset(parts), out, restart=True)
    assert run.record.schedule is not None
    assert run.record.schedule.steps == 3
    assert (out / "notes.txt").read_text() == "mine"


def test_a_budget_plans_the_steps_and_is_kept_roughly(parts: Path, tmp_path: Path) -> None:
    started = time.monotonic()
    run = fit(_small(budget="8s", steps=None), open_dataset(parts), tmp_path / "run")
    assert run.record.schedule is not None
    assert run.record.schedule.seconds_per_step is not None
    assert run.record.schedule.steps >= 10
    assert time.monotonic() - started < 24  # the machine may be busy with other things in the meantime


def test_measuring_the_speed_leaves_no_trace_in_the_weights(parts: Path, tmp_path: Path, whole: Run) -> None:
    limited = fit(_small(budget="10m"), open_dataset(parts), tmp_path / "run")  # the 30 steps end before the budget
    assert limited.record.schedule is not None
    assert limited.record.schedule.steps == 30
    if limited.record.schedule.evaluate_at == [15, 30]:
        assert _equal(limited, whole)


def test_good_images_alone_keep_the_last_weights_and_bound_overkill_only(tmp_path: Path) -> None:
    root = mvtec(tmp_path / "data", train=20, good=0, bad=0, height=64, width=64)
    run = fit(_small(steps=10), open_dataset(root), tmp_path / "run")
    assert run.record.best is not None
    assert run.record.best.value is None
    assert "no good and bad" in run.record.best.criterion
    calibrated = run.calibrated()
    assert calibrated is not None
    assert calibrated.calibration.bad == []
    assert "escape       unknown" in "\n".join(summary(run))


def test_masks_and_lots_go_through(tmp_path: Path) -> None:
    root = pairs(tmp_path / "data", lots=10, parts=4, height=64, width=64)
    run = fit(_small(steps=10), open_dataset(root), tmp_path / "run")
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
    assert _equal(run, again)
    assert run.record.calibration["auroc"] > 0.9
    assert run.network()(torch.zeros(1, 64, 64, 1, dtype=torch.uint8)).score.shape == (1,)


def test_kinds_alone_are_told_apart(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "data", good=0, bad=12, kinds=("dent", "scratch"), height=64, width=64)
    config = _small(steps=4).model_copy(update={"model": None})
    run = fit(config, open_dataset(root, "folders"), tmp_path / "run")
    assert (run.record.network, run.record.task, run.classes) == ("classifier", "kinds", ("dent", "scratch"))
    assert set(run.record.calibration) == {"balanced_accuracy"}
    assert run.calibrated() is None


def test_the_last_weights_are_kept_when_asked(parts: Path, tmp_path: Path) -> None:
    run = fit(_small(steps=6, keep="last"), open_dataset(parts), tmp_path / "run")
    assert run.record.best is not None
    assert run.record.best.step == 6
    assert networks_compared(run.record) == 1


def test_without_an_average_the_weights_themselves_are_kept(parts: Path, tmp_path: Path) -> None:
    plain = fit(_small(steps=6, **{"optimiser.average": 0}), open_dataset(parts), tmp_path / "plain")
    averaged = fit(_small(steps=6), open_dataset(parts), tmp_path / "averaged")
    assert not _equal(plain, averaged)


def test_a_damaged_image_is_named_before_the_first_step(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "data", good=12, bad=6, height=64, width=64)
    victim = root / "good" / "003.png"
    victim.write_bytes(victim.read_bytes()[:-200])
    with pytest.raises(ImageUnreadable) as caught:
        fit(_small(), open_dataset(root), tmp_path / "run")
    assert str(victim) in str(caught.value)


def test_a_loss_that_diverges_is_an_error_that_says_the_mend(parts: Path, tmp_path: Path) -> None:
    config = _small(**{"optimiser.rate": 1e12, "optimiser.clip": None, "optimiser.warmup": 0})
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
        fit(_small(**changes), open_dataset(parts), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_file_in_the_way_of_the_run_folder_is_an_error(parts: Path, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("not a folder")
    with pytest.raises(OutputUnwritable):
        fit(_small(), open_dataset(parts), tmp_path / "run")


def test_a_run_that_has_not_finished_gives_no_network(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any) -> None:
        raise _Stopped

    monkeypatch.setattr(Learner, "_step", stop)
    with pytest.raises(_Stopped):
        fit(_small(), open_dataset(parts), tmp_path / "run")
    with pytest.raises(DataInvalid, match="not finished"):
        Run(tmp_path / "run").network()


@pytest.mark.parametrize(("name", "content"), [("best.pt", b""), ("run.json", b"{}"), ("config.yaml", b"batch: x")])
def test_a_damaged_run_is_an_error_that_names_the_file(whole: Run, tmp_path: Path, name: str, content: bytes) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(whole.path, copy)
    (copy / name).write_bytes(content)
    with pytest.raises(InspectionError, match=name):
        Run(copy).network()


def test_a_folder_that_is_no_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataInvalid, match=r"no run\.json"):
        Run(tmp_path)


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


def _command(parts: Path, out: Path, *more: str) -> list[str]:
    settings = [f"--set={key}={value}" for key, value in SMALL.items()]
    return [COMMAND, "train", str(parts), "--out", str(out), *settings, *more]


def _environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.mark.slow
def test_a_run_killed_twice_ends_with_the_same_weights_to_the_bit(whole: Run, parts: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = _command(parts, out, "--set=checkpoint_every=0.001")
    kills = 0
    for seen in (10, 20):
        process = subprocess.Popen(command, env=_environment(), stderr=subprocess.DEVNULL)
        metrics = out / "metrics.csv"
        while process.poll() is None:
            # Killed while steps run, at no moment in particular.
            if metrics.exists() and f"\n{seen}," in metrics.read_text():
                process.send_signal(signal.SIGKILL)
                process.wait()
                kills += 1
                break
            time.sleep(0.01)
    assert kills == 2
    assert json.loads((out / "run.json").read_text())["status"] == "running"
    done = subprocess.run(command, env=_environment(), check=True, capture_output=True, text=True)
    assert "inspection export" in done.stdout
    assert "Going on with" in done.stderr
    assert _equal(whole, Run(out))
    assert [row["step"] for row in _rows(Run(out))] == ["10", "15", "20", "30"]
    assert not list(out.glob(".*"))  # what the kills left half written is gone


@pytest.mark.slow
def test_two_processes_train_one_network_together(whole: Run, parts: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = _command(parts, out, "--set=hardware.devices=2")
    done = subprocess.run(command, env=_environment(), check=True, capture_output=True, text=True, timeout=300)
    run = Run(out)
    assert run.finished
    assert run.record.machine["devices"] == 2
    # The same images from the same weights; only batch statistics and synthetic defects are each process's own.
    assert float(_rows(run)[0]["loss"]) == pytest.approx(float(_rows(whole)[0]["loss"]), rel=0.15)
    assert done.stdout.count("trained ") == 1  # only the first process speaks
    assert [int(row["step"]) for row in _rows(run)] == [10, 15, 20, 30]


def test_a_wrong_setting_ends_with_its_code_and_no_traceback(parts: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [COMMAND, "train", str(parts), "--out", str(tmp_path / "run"), "--set", "optimizer.rate=1"],
        env=_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "Did you mean `optimiser`?" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_two_processes_refuse_another_run_together_and_once(whole: Run, parts: Path) -> None:
    before = (whole.path / "run.json").read_bytes()
    command = _command(parts, whole.path, "--set=hardware.devices=2")
    done = subprocess.run(command, env=_environment(), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == DataInvalid.exit_code
    assert done.stderr.count("hardware.devices: 1 there, 2 now") == 1
    assert "Traceback" not in done.stderr
    assert (whole.path / "run.json").read_bytes() == before


def test_without_evaluations_the_last_weights_are_kept(parts: Path, tmp_path: Path) -> None:
    run = fit(_small(steps=3, evaluations=0), open_dataset(parts), tmp_path / "run")
    assert run.record.schedule is not None
    assert run.record.schedule.evaluate_at == []
    assert run.record.best is not None
    assert (run.record.best.step, run.record.best.value) == (3, None)
    assert run.record.calibration["auroc"] >= 0
    assert networks_compared(run.record) == 1
