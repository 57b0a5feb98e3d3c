"""docs/data.md says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from datasets.augment import AugmentOptions
from datasets.check import MENDS
from datasets.duplicates import NEAR
from datasets.manifest import COLUMNS
from datasets.naming import BAD, GOOD, SPLIT, plain
from datasets.opening import LAYOUTS
from tests.support.images import class_folders

PAGE = Path(__file__).parents[2] / "docs" / "data.md"


def row(name: str) -> str:
    return next(line for line in PAGE.read_text().splitlines() if line.startswith("|") and f"`{name}`" in line)


def test_every_check_column_layout_and_option_stands_there() -> None:
    text = PAGE.read_text()
    for layout in LAYOUTS:
        assert f"**`{layout.name}`**" in text or layout.name == "manifest"
    for name in (*MENDS, *COLUMNS, *AugmentOptions.model_fields):
        assert row(name)
    assert f"may differ ({NEAR})" in text
    for name in ("rotation", "scale", "shift", "blur", "noise", "blur_share", "noise_share"):
        assert f"{AugmentOptions.model_fields[name].default:g}" in row(name)


def test_the_words_for_good_bad_and_splits_stand_there() -> None:
    said = plain(PAGE.read_text().partition("## Layouts")[0].replace("(s)", "").replace("(ed)", ""))
    for word in (*GOOD, *BAD, *SPLIT):
        stem = re.sub(r"(?<=defect)s$|(?<=fail)ed$|(?<=reject)ed$|(?<=anomal)ies$", "", word)
        assert stem in said, word


@pytest.mark.train
def test_the_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    class_folders(tmp_path / "parts")
    code = PAGE.read_text().partition("```python\n")[2].partition("```")[0]
    names: dict[str, object] = {}
    exec(code, names)
    assert (tmp_path / "parts.csv").exists()
    assert names["loaded"].pixels.shape == (224, 288, 1)  # type: ignore[attr-defined]
