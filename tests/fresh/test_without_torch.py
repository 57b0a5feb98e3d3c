"""A line computer: the plain install, in an environment of its own that has no torch, judges, serves and scores."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# All these tests ran already where torch is. Without it a missing import or a missing package would show, and for that
# each module of the runtime has to be used once: what is marked `slow` uses none that the others do not use.
AGAIN = "not train and not line and not slow"
FOLDERS = [f"tests/{name}" for name in ("inspection", "line", "record", "serve")]
pytestmark = [pytest.mark.fresh, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def line_computer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` folder of an environment with the plain install and what its tests need."""
    home = tmp_path_factory.mktemp("line-computer")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", home], check=True)
    options = ["--quiet", "--disable-pip-version-check", "--no-compile", "--constraint", "constraints.txt"]
    subprocess.run([*_pip(home / "bin"), "install", *options, ".[check]"], cwd=ROOT, check=True)
    return home / "bin"


def _pip(folder: Path) -> list[str]:
    """This environment's pip, at work in the other one: that one need not have its own."""
    return [sys.executable, "-m", "pip", "--python", str(folder / "python")]


def test_the_plain_install_brings_no_torch(line_computer: Path) -> None:
    listed = subprocess.run(
        [*_pip(line_computer), "list", "--format", "freeze"], capture_output=True, text=True, check=True
    )
    names = {line.partition("==")[0].lower() for line in listed.stdout.splitlines()}
    assert "onnxruntime" in names
    assert not names & {"torch", "torchvision", "albumentations", "scipy", "lightning-fabric", "asyncua"}


def test_the_plain_install_passes_the_tests_of_inspection_the_line_and_serve(line_computer: Path) -> None:
    done = subprocess.run(
        [line_computer / "python", "-m", "pytest", "-q", "-m", AGAIN, *FOLDERS],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout


def test_a_command_that_needs_torch_says_what_to_install(line_computer: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [line_computer / "inspection", "train", tmp_path, "--out", tmp_path / "run"], capture_output=True, text=True
    )
    assert done.returncode == 7
    assert "lightsout-inspection[train]" in done.stderr
    assert "Traceback" not in done.stderr
