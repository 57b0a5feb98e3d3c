"""Run folders that are there already: a training that was stopped or killed goes on, any other is not touched."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from datasets import open_dataset
from inspection.errors import DataInvalid, InspectionError, OutputUnwritable
from tests.support.images import class_folders
from tests.training.runs import Stopped, command, environment, equal, rows, small
from training.fit import fit
from training.gradient import Learner
from training.run import Run

pytestmark = pytest.mark.train


@pytest.mark.parametrize("at", [3, 15, 16, 29])
def test_a_run_that_was_stopped_ends_with_the_same_weights(
    whole: Run, parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    step = Learner._step

    def stopping(self: Learner, number: int, *rest: Any) -> Any:
        if number == at:
            raise Stopped
        return step(self, number, *rest)

    config = small(checkpoint_every=0.001)
    with monkeypatch.context() as patch:
        patch.setattr(Learner, "_step", stopping)
        with pytest.raises(Stopped):
            fit(config, open_dataset(parts), tmp_path / "run")
    said: list[str] = []
    run = fit(config, open_dataset(parts), tmp_path / "run", say=said.append)
    assert said[0].startswith("Going on with")
    assert equal(whole, run)
    assert run.record.calibration == whole.record.calibration
    assert run.record.best == whole.record.best
    assert [row["step"] for row in rows(run)] == [row["step"] for row in rows(whole)]
    assert [row["loss"] for row in rows(run)] == [row["loss"] for row in rows(whole)]


@pytest.mark.slow
def test_a_run_killed_twice_ends_with_the_same_weights_to_the_bit(whole: Run, parts: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train = command(parts, out, "--set=checkpoint_every=0.001")
    kills = 0
    for seen in (10, 20):
        process = subprocess.Popen(train, env=environment(), stderr=subprocess.DEVNULL)
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
    done = subprocess.run(train, env=environment(), check=True, capture_output=True, text=True)
    assert "inspection export" in done.stdout
    assert "Going on with" in done.stderr
    assert equal(whole, Run(out))
    assert [row["step"] for row in rows(Run(out))] == ["10", "15", "20", "30"]
    assert not list(out.glob(".*"))  # what the kills left half written is gone


def test_a_finished_run_is_left_as_it_is(whole: Run, parts: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in whole.path.rglob("*")}
    said: list[str] = []
    again = fit(small(), open_dataset(parts), whole.path, say=said.append)
    assert again.record == whole.record
    assert "finished already" in said[0]
    assert {file: file.stat().st_mtime_ns for file in whole.path.rglob("*")} == before


def test_a_run_with_other_settings_is_not_touched(whole: Run, parts: Path) -> None:
    with pytest.raises(DataInvalid, match=r"optimiser\.rate: 0\.001 there, 0\.01 now") as caught:
        fit(small(**{"optimiser.rate": 0.01}), open_dataset(parts), whole.path)
    assert "--restart" in str(caught.value.hint)


def test_a_run_on_other_data_is_not_touched(whole: Run, tmp_path: Path) -> None:
    other = class_folders(tmp_path / "other", good=48, bad=23, height=64, width=64)
    with pytest.raises(DataInvalid, match="the images, or what is known of them"):
        fit(small(), open_dataset(other), whole.path)


def test_a_run_with_other_splits_is_not_touched(whole: Run, parts: Path) -> None:
    from dataclasses import replace

    moved = {"train": "test", "test": "train", "calibration": "calibration"}
    dataset = whole.dataset()
    swapped = dataset.with_samples(replace(s, split=moved[str(s.split)]) for s in dataset)  # type: ignore[arg-type]
    with pytest.raises(DataInvalid, match="splits"):
        fit(small(), swapped, whole.path)


@pytest.mark.slow
def test_two_processes_refuse_another_run_together_and_once(whole: Run, parts: Path) -> None:
    before = (whole.path / "run.json").read_bytes()
    train = command(parts, whole.path, "--set=hardware.devices=2")
    done = subprocess.run(train, env=environment(), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == DataInvalid.exit_code
    assert done.stderr.count("hardware.devices: 1 there, 2 now") == 1
    assert "Traceback" not in done.stderr
    assert (whole.path / "run.json").read_bytes() == before


def test_restart_trains_anew_and_keeps_what_is_not_of_the_run(parts: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    fit(small(steps=2), open_dataset(parts), out)
    (out / "notes.txt").write_text("mine")
    run = fit(small(steps=3), open_dataset(parts), out, restart=True)
    assert run.record.schedule is not None
    assert run.record.schedule.steps == 3
    assert (out / "notes.txt").read_text() == "mine"


def test_a_file_in_the_way_of_the_run_folder_is_an_error(parts: Path, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("not a folder")
    with pytest.raises(OutputUnwritable):
        fit(small(), open_dataset(parts), tmp_path / "run")


def test_a_run_that_has_not_finished_gives_no_network(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any) -> None:
        raise Stopped

    monkeypatch.setattr(Learner, "_step", stop)
    with pytest.raises(Stopped):
        fit(small(), open_dataset(parts), tmp_path / "run")
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
