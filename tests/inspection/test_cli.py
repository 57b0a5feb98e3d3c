"""The command line: exit codes, messages without tracebacks, and what is said when torch is not there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from inspection import cli, errors
from tests.support import graphs

BLOCK = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "torchvision", "lightning_fabric"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Block())
from inspection.cli import main
sys.argv = ["inspection", *sys.argv[1:]]
main()
"""


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Runs the command line in this process and gives its exit code."""
    monkeypatch.setattr(sys, "argv", ["inspection", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return int(caught.value.code or 0)


def without_torch(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", BLOCK, *arguments], capture_output=True, text=True, env=os.environ | {"COLUMNS": "200"}
    )


def test_without_torch_the_whole_help_is_there() -> None:
    shown = without_torch("--help")
    assert shown.returncode == 0
    for name, _, _ in cli.COMMANDS:
        assert name in shown.stdout


def test_without_torch_training_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "good").mkdir()
    shown = without_torch("train", str(tmp_path), "--out", str(tmp_path / "run"))
    assert shown.returncode == errors.MissingExtra.exit_code == 7
    assert "pip install 'lightsout-inspection[train]'" in shown.stderr
    assert "Traceback" not in shown.stderr
    assert shown.stdout == ""


def test_without_torch_images_are_judged(tmp_path: Path) -> None:
    model = graphs.model_file(tmp_path / "m.onnx")
    (tmp_path / "part.bmp").write_bytes(_bmp())
    shown = without_torch("judge", str(model), str(tmp_path / "part.bmp"))
    assert shown.returncode == 0, shown.stderr
    assert "OK" in shown.stdout


def _bmp() -> bytes:
    import cv2
    import numpy as np

    return bytes(cv2.imencode(".bmp", np.zeros((16, 16, 3), np.uint8))[1])


def test_a_missing_package_that_is_no_extra_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise ModuleNotFoundError("No module named 'fastapi'", name="fastapi")

    monkeypatch.setattr(cli, "build", lambda: lambda standalone_mode: broken())
    monkeypatch.setattr(sys, "argv", ["inspection"])
    with pytest.raises(ModuleNotFoundError):
        cli.main()


def all_errors() -> list[type[errors.InspectionError]]:
    found, left = [], [errors.InspectionError]
    while left:
        kind = left.pop()
        found.append(kind)
        left += kind.__subclasses__()
    return [kind for kind in found if kind.__module__ == "inspection.errors"]


@pytest.mark.parametrize("kind", all_errors(), ids=lambda kind: kind.__name__)
def test_every_error_is_one_message_with_its_own_code(
    kind: type[errors.InspectionError], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def failing() -> None:
        raise kind("this is [bold]wrong[/bold].", where="file[1].yaml:3", hint="Do [this] instead.")

    monkeypatch.setattr(cli, "build", lambda: lambda standalone_mode: failing())
    assert run(monkeypatch) == kind.exit_code != 0
    shown = capsys.readouterr()
    assert shown.out == ""
    assert f"[{kind.code}] this is [bold]wrong[/bold]." in shown.err
    assert "where: file[1].yaml:3" in shown.err
    assert "mend:  Do [this] instead." in shown.err


def test_codes_are_one_for_each_error() -> None:
    codes = [kind.code for kind in all_errors()]
    assert len(codes) == len(set(codes))


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (["judge"], 2, "Missing argument"),
        (["juge", "x"], 2, "No such command"),
        (["judge", "m.onnx", "x", "--colour"], 2, "No such option"),
        (["judge", "m.onnx", "x", "--batch", "0"], 2, "--batch"),
        (["info", "nothing.onnx"], 4, "No such file"),
    ],
)
def test_a_wrong_command_line_is_said_without_a_traceback(
    arguments: list[str], code: int, word: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, *arguments) == code
    shown = capsys.readouterr().err
    assert word in shown
    assert "Traceback" not in shown


def test_stopping_by_hand_is_no_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def stopped() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "build", lambda: lambda standalone_mode: stopped())
    assert run(monkeypatch) == 130
    assert "stopped" in capsys.readouterr().err


def test_a_reader_that_goes_away_gets_no_traceback_and_no_success(tmp_path: Path) -> None:
    """`inspection judge ... --json | head -1`: exit code 0 would say that all is OK."""
    model = graphs.model_file(tmp_path / "m.onnx")
    for index in range(40):
        (tmp_path / f"{index}.bmp").write_bytes(_bmp())
    command = f"{sys.executable} -m inspection judge {model} {tmp_path} --json | head -n 1"
    shown = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True)
    assert shown.returncode == 1
    assert "Traceback" not in shown.stderr
    assert "Exception" not in shown.stderr
    assert len(shown.stdout.splitlines()) == 1


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from inspection.cli import build; build();"
        "heavy = {'torch', 'cv2', 'onnxruntime', 'pyarrow', 'fastapi'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
