"""What the process may use of its machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from inspection import machine


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ({"cpu/cpu.cfs_quota_us": "400000", "cpu/cpu.cfs_period_us": "100000"}, 4.0),
        ({"cpu.max": "nonsense"}, None),
        ({}, None),
    ],
)
def test_a_containers_quota_is_read(files: dict[str, str], cores: float | None, tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert machine._quota(tmp_path) == cores


@pytest.mark.parametrize(("quota", "cores"), [(None, 2), (0.2, 1), (1.0, 1), (64.0, 2)])
def test_cores_are_the_fewer_of_affinity_and_quota(
    quota: float | None, cores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr(machine, "_quota", lambda: quota)
    assert machine.usable_cores() == cores


def test_an_affinity_of_one_core_is_one_core() -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert machine.usable_cores() == 1
    finally:
        os.sched_setaffinity(0, before)


def test_memory_and_processor_are_named() -> None:
    memory = machine.memory_bytes()
    assert memory is not None
    assert 0 < memory[1] <= memory[0]
    assert machine.processor()
    assert set(machine.cpu_features()) <= set(machine.CPU_FEATURES)
