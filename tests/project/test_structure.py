"""The house rules that a machine can hold: style, types, arrows between rooms, and a tree free of strangers."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("inspection", "models", "datasets", "training", "serve")


def tracked(ending: str) -> list[Path]:
    listing = subprocess.run(["git", "ls-files", f"*{ending}"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / line for line in listing.stdout.splitlines() if (ROOT / line).exists()]


def test_inspection_and_serve_load_neither_torch_nor_the_rooms_that_train() -> None:
    code = (
        "import sys, inspection, inspection.cli, inspection.inspector, serve.app, serve.score\n"
        "inspection.cli.build()\n"
        "print([m for m in ('torch', 'models', 'albumentations', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("room", [*ROOMS, "tests"])
def test_a_file_does_one_thing_and_stays_short(room: str) -> None:
    long = {p.name: n for p in (ROOT / room).rglob("*.py") if (n := len(p.read_text().splitlines())) > 450}
    assert not long


def test_images_are_decoded_in_one_place_only() -> None:
    decoders = re.compile(r"cv2\.(imread|imdecode)|Image\.open|imageio|decode_image\(torch|torchvision\.io")
    offenders = [
        f"{path.relative_to(ROOT)}: {found.group()}"
        for room in ROOMS
        for path in (ROOT / room).rglob("*.py")
        if path.name not in ("pixels.py", "header.py") and (found := decoders.search(path.read_text()))
    ]
    assert not offenders


def test_nothing_that_is_delivered_is_a_pickle() -> None:
    loads = [
        str(path.relative_to(ROOT))
        for room in ROOMS
        for path in (ROOT / room).rglob("*.py")
        if re.search(r"pickle\.(load|dump)|weights_only=False|allow_pickle=True", path.read_text())
    ]
    assert not loads


def test_no_document_names_a_file_that_is_not_there() -> None:
    missing = [
        f"{page.relative_to(ROOT)} -> {link}"
        for page in tracked(".md")
        for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())
        if not (page.parent / link).exists()
    ]
    assert not missing
