"""`make demo`, with a training of seconds: every step runs and everything that it promises is there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.train, pytest.mark.slow, pytest.mark.timeout(1200)]


def test_the_demo_leaves_model_report_table_and_pictures(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "training.demo", "--out", str(tmp_path / "demo"), "--budget", "10s"],
        capture_output=True,
        text=True,
        env=os.environ | {"COLUMNS": "200"},
    )
    assert done.returncode == 0, done.stderr[-4000:]
    for name in ("model.onnx", "report/report.html", "report/evaluation.json", "judged.png", "results.parquet"):
        assert (tmp_path / "demo" / name).stat().st_size > 1000
    told = done.stderr[done.stderr.index("What was made") :]
    assert "with 95 % confidence the true rate is at most" in told
    assert "inspection train  FOLDER --out run" in told
