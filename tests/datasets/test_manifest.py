"""The manifest: what is written is read back, and a wrong line is named."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets import SPLITS, Box, Dataset, Sample, open_dataset
from datasets.knowledge import settled
from inspection.errors import ConfigInvalid, DataInvalid
from tests.support.images import mvtec, pairs, save, surface

text = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=8)
number = st.floats(-1e6, 1e6)
polygon = st.lists(number, min_size=6, max_size=8).filter(lambda values: len(values) % 2 == 0).map(tuple)
box = st.builds(
    Box,
    kind=text,
    x=number,
    y=number,
    width=number,
    height=number,
    outline=st.lists(polygon, max_size=2).map(tuple),
)
maybe = st.none() | text


@st.composite
def samples(draw: Any, root: Path) -> Sample:
    good = draw(st.booleans())
    return settled(
        Sample(
            path=root / "images" / f"{draw(st.integers(0, 10**9))}.png",
            label=draw(st.sampled_from(["good", None])) if good else draw(st.sampled_from(["defect", None])),
            kind=None if good else draw(maybe),
            mask=None if good else draw(st.sampled_from([None, root / "masks/m.png", Path("/elsewhere/m.png")])),
            boxes=draw(st.sampled_from([None, ()])) if good else draw(st.none() | st.lists(box, max_size=3).map(tuple)),
            probability=draw(st.none() | st.floats(0, 1)),
            part=draw(maybe),
            lot=draw(maybe),
            view=draw(maybe),
            stratum=draw(maybe),
            split=draw(st.none() | st.sampled_from(SPLITS)),
        ),
        "here",
    )


@settings(max_examples=60, deadline=None)
@given(data=st.data(), ending=st.sampled_from(["csv", "parquet"]))
def test_what_is_written_is_read_back(data: st.DataObject, ending: str) -> None:
    with TemporaryDirectory() as folder:
        root = Path(folder)
        rows = data.draw(st.lists(samples(root), min_size=1, max_size=5, unique_by=lambda s: s.path))
        save(rows[0].path, surface(1))  # one image must be there
        dataset = Dataset(
            name="x", root=root, layout="manifest", samples=tuple(sorted(rows, key=lambda s: str(s.path)))
        )
        dataset.write(root / f"manifest.{ending}")
        assert open_dataset(root).samples == dataset.samples
        assert open_dataset(root / f"manifest.{ending}").samples == dataset.samples


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_every_layout_goes_into_a_manifest_and_back(tmp_path: Path, ending: str) -> None:
    for make in (mvtec, pairs):
        dataset = open_dataset(make(tmp_path / make.__name__))
        dataset.write(tmp_path / f"out.{ending}")
        assert open_dataset(tmp_path / f"out.{ending}").samples == dataset.samples


def test_images_below_the_manifest_may_be_moved_with_it(tmp_path: Path) -> None:
    root = mvtec(tmp_path / "here")
    open_dataset(root).write(root / "manifest.csv")
    (tmp_path / "here").rename(tmp_path / "there")
    dataset = open_dataset(tmp_path / "there")
    assert dataset.layout == "manifest"
    assert dataset.counts() == {"train": {"good": 6}, "test": {"good": 3, "defect with mask": 3}}
    assert all(sample.path.exists() for sample in dataset)


def manifest(root: Path, text: str) -> Path:
    for name in ("a", "b"):
        save(root / f"{name}.png", surface(1))
    (root / "m.csv").write_text(text, encoding="utf-8")
    return root / "m.csv"


def test_a_table_from_a_spreadsheet_opens(tmp_path: Path) -> None:
    """Semicolons, byte order mark, words for good and bad, a column of one's own."""
    file = manifest(tmp_path, "\ufeffPath;Label;split;operator\na.png;OK;val;Kim\nb.png;NG;test;Lee\n\n")
    assert [(s.label, s.split) for s in open_dataset(file)] == [("good", "calibration"), ("defect", "test")]


@pytest.mark.parametrize(
    ("table", "says", "where"),
    [
        ("path,label\na.png,good\nb.png,scratch\n", "neither good nor defect", ":3"),
        ("path,split\na.png,holdout\n", "none of train", ":2"),
        ("path,probability\na.png,often\n", "no number", ":2"),
        ("path,probability\na.png,1.5\n", "not within 0 to 1", ":2"),
        ("path,boxes\na.png,[1]\n", "malformed", ":2"),
        (
            'path,boxes\na.png,"[{""kind"": ""x"", ""x"": 1, ""y"": 1, ""width"": 1, ""heigth"": 1}]"\n',
            "malformed",
            ":2",
        ),
        ("path,label,kind\na.png,good,dent\n", "called good", ":2"),
        ("path,label\na.png\n", "1 cells", ":2"),
        ("path,label\n,good\n", "`path` is empty", ":2"),
        ("path,labell\na.png,good\n", "`labell` is unknown", "m.csv"),
        ("image,label\na.png,good\n", "no column `path`", "m.csv"),
        ("path,path\na.png,b.png\n", "stands twice", "m.csv"),
        ("path,label\na.png,good\na.png,good\n", "listed twice", "a.png"),
        ("path,label\nx/a.png,good\n", "none of the 1 images is there", "a.png"),
        ('path,label\n"a.png,good\n', "no CSV", "m.csv"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, table: str, says: str, where: str) -> None:
    with pytest.raises(DataInvalid, match=says) as caught:
        open_dataset(manifest(tmp_path, table))
    assert str(caught.value.where).endswith(where)


def test_a_damaged_parquet_file_and_another_ending_are_refused(tmp_path: Path) -> None:
    (tmp_path / "m.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(DataInvalid, match="no Parquet"):
        open_dataset(tmp_path / "m.parquet")
    dataset = open_dataset(mvtec(tmp_path / "data"))
    with pytest.raises(ConfigInvalid, match=r"ends in \.csv"):
        dataset.write(tmp_path / "m.xlsx")
    assert not (tmp_path / "m.xlsx").exists()


def test_the_fingerprint_follows_contents_and_nothing_else(tmp_path: Path) -> None:
    root = mvtec(tmp_path / "one")
    dataset = open_dataset(root)
    before = dataset.fingerprint()
    root.rename(tmp_path / "two")
    moved = open_dataset(tmp_path / "two")
    assert moved.fingerprint() == before
    assert moved.with_samples(reversed(moved.samples)).fingerprint() == before
    save(tmp_path / "two/ground_truth/scratch/000_mask.png", surface(1) > 100)
    changed = open_dataset(tmp_path / "two").fingerprint()
    assert changed != before
    save(tmp_path / "two/train/good/000.png", surface(77))
    assert open_dataset(tmp_path / "two").fingerprint() not in (before, changed)
