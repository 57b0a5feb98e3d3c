"""Settings of a run: units, files, changes, and what a mistake is told."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from inspection.errors import ConfigInvalid
from training.config import TrainConfig, differences, parse_change, read_config, to_yaml

pytestmark = pytest.mark.train


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("20m", 1200), ("1.5h", 5400), (" 2 m ", 120), (7.5, 7.5)]
)
def test_a_budget_is_given_in_seconds_minutes_or_hours(text: str | float, seconds: float) -> None:
    assert TrainConfig.model_validate({"budget": text}).budget == seconds


@pytest.mark.parametrize("text", ["20 minutes", "-3m", "m", "0s", ""])
def test_a_budget_that_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ConfigInvalid, match="budget"):
        read_config(None, {"budget": text})


@pytest.mark.parametrize(("text", "share"), [("0.5%", 0.005), ("2 %", 0.02), ("0.01", 0.01), (0.3, 0.3)])
def test_a_promise_is_given_in_percent_or_as_a_share(text: str | float, share: float) -> None:
    assert read_config(None, {"asks.max_escape": text}).asks.max_escape == pytest.approx(share)


@pytest.mark.parametrize("text", ["0", "100%", "150%", "little"])
def test_a_promise_that_cannot_be_kept_or_broken_is_refused(text: str) -> None:
    with pytest.raises(ConfigInvalid, match="max_escape"):
        read_config(None, {"asks.max_escape": text})


def test_an_unknown_key_names_its_nearest_neighbour_and_its_line(tmp_path: Path) -> None:
    file = tmp_path / "train.yaml"
    file.write_text("batch: 8\noptimiser:\n  rat: 0.1\n")
    with pytest.raises(ConfigInvalid) as caught:
        read_config(file, {})
    assert caught.value.where == f"{file}:3"
    assert caught.value.hint == "Did you mean `rate`?"


def test_what_is_given_on_the_command_line_goes_before_the_file(tmp_path: Path) -> None:
    file = tmp_path / "train.yaml"
    file.write_text("batch: 8\nmodel: {kind: defectnet, width: 64}\n")
    config = read_config(file, {"batch": 4, "model.width": 32})
    assert config.batch == 4
    assert config.model is not None
    assert config.model.model_dump()["width"] == 32


def test_another_kind_of_network_drops_the_options_of_the_old_one(tmp_path: Path) -> None:
    file = tmp_path / "train.yaml"
    file.write_text("model: {kind: defectnet, width: 64}\n")
    config = read_config(file, {"model.kind": "patchcore"})
    assert config.model is not None
    assert config.model.kind == "patchcore"


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("optimiser.rate=1e-3", "optimiser.rate", 0.001),
        ("batch=8", "batch", 8),
        ("bad_share=null", "bad_share", None),
        ("hardware.precision=16-mixed", "hardware.precision", "16-mixed"),
        ("model.strides=[4, 8]", "model.strides", [4, 8]),
    ],
)
def test_a_setting_on_the_command_line_is_yaml(text: str, key: str, value: object) -> None:
    assert parse_change(text) == (key, value)


@pytest.mark.parametrize("text", ["batch", "=8", "batch=[8"])
def test_a_setting_that_is_no_key_and_value_is_refused(text: str) -> None:
    with pytest.raises(ConfigInvalid):
        parse_change(text)


def test_shares_of_the_split_must_sum_to_one() -> None:
    with pytest.raises(ConfigInvalid, match=r"sum to 1\.1"):
        read_config(None, {"split.train": 0.7})


def test_half_a_size_is_refused() -> None:
    with pytest.raises(ConfigInvalid, match="height and width"):
        read_config(None, {"input.width": 64})


def test_what_is_written_reads_back_equal(tmp_path: Path) -> None:
    config = read_config(None, {"model.kind": "classifier", "budget": "20m", "asks.max_escape": "0.5%"})
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    assert read_config(tmp_path / "config.yaml", {}) == config


def test_differences_name_the_keys() -> None:
    one, other = read_config(None, {}), read_config(None, {"optimiser.rate": 0.1, "seed": 3})
    assert differences(one, one) == []
    assert [line.partition(":")[0] for line in differences(one, other)] == ["optimiser.rate", "seed"]


def test_the_command_prints_its_settings_and_their_schema_without_training() -> None:
    command = [str(Path(sys.executable).with_name("inspection")), "train"]
    shown = subprocess.run(
        [*command, "--print-config", "--budget", "20m"], capture_output=True, text=True, check=True
    ).stdout
    assert yaml.safe_load(shown)["budget"] == 1200
    schema = json.loads(subprocess.run([*command, "--print-schema"], capture_output=True, text=True, check=True).stdout)
    assert {"model", "optimiser", "asks"} <= set(schema["properties"])
