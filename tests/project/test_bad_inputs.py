"""Every bad input gets one clear error that says what, where and the mend, and nothing is half written."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.project.bad_inputs import CASES
from tests.project.cases import Case, answer

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, id=case.what, marks=[pytest.mark.train] if case.train else []) for case in CASES],
)
def test_a_bad_input_gets_one_clear_error(case: Case, tmp_path: Path) -> None:
    got = answer(case, tmp_path)
    assert got.code == case.code, got.err + got.out
    assert "Traceback" not in got.err + got.out
    if case.code != "OK":
        assert got.exit_code not in (0, 1)
        assert got.said
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".onnx", ".csv") and path.name.startswith(".")]


def test_the_page_of_bad_inputs_tells_what_is_so() -> None:
    page = (ROOT / "docs" / "bad-inputs.md").read_text()
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| ")]
    told = {row[0].removeprefix("| "): row[3].strip("`") for row in rows if len(row) > 3}
    assert {case.what: told.get(case.what) for case in CASES} == {case.what: case.code for case in CASES}
