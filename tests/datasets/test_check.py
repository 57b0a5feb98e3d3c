"""The check finds each thing that is wrong, names it, and says nothing of what is right."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets import open_dataset
from datasets.check import MENDS, Severity, check
from datasets.duplicates import BITS, NEAR, clusters, near_pairs, perceptual_hash
from datasets.page import write_page
from tests.support.images import class_folders, mvtec, pairs, save, scratched, surface


def codes(root: Path, **options: Any) -> dict[str, str]:
    """code -> severity"""
    return {finding.code: finding.severity.value for finding in check(open_dataset(root), **options).findings}


def clean(root: Path) -> Path:
    class_folders(root, good=24, bad=12)
    return root


def test_a_clean_folder_has_no_findings(tmp_path: Path) -> None:
    report = check(open_dataset(clean(tmp_path)))
    assert report.findings == ()
    assert report.pixels == {"mono uint8": 36}
    assert report.sizes == {(64, 48): 36}


def jpeg_cut(root: Path) -> None:
    save(root / "good/x.jpg", surface(50))
    data = (root / "good/x.jpg").read_bytes()
    (root / "good/x.jpg").write_bytes(data[: len(data) // 2])


def not_an_image(root: Path) -> None:
    (root / "good/x.png").write_text("no image")


def mask_of(value: np.ndarray, image: str = "scratch/000") -> Any:
    return lambda root: save(root / f"{image}_mask.png", value)


def rgb(root: Path) -> None:
    save(root / "good/x.png", surface(60, channels=3))


def grey_as_rgb(root: Path) -> None:
    for path in root.rglob("*.png"):
        save(path, np.repeat(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)[:, :, None], 3, axis=2))


def twelve_bits(root: Path) -> None:
    for path in root.rglob("*.png"):
        save(path, cv2.imread(str(path), cv2.IMREAD_GRAYSCALE).astype(np.uint16) * 16)


def copy(source: str, target: str, change: Any = None) -> Any:
    def do(root: Path) -> None:
        image = cv2.imread(str(root / source), cv2.IMREAD_UNCHANGED)
        save(root / target, change(image) if change else image)

    return do


def brighter(image: np.ndarray) -> np.ndarray:
    return np.clip(image * 1.1 + 8, 0, 255).astype(np.uint8)


CASES = {
    "jpeg cut short": (jpeg_cut, "unreadable", "error"),
    "text called png": (not_an_image, "unreadable", "error"),
    "mask of another size": (mask_of(np.ones((9, 9), bool)), "mask-size", "error"),
    "empty mask of a defect": (mask_of(np.zeros((48, 64), bool)), "mask-empty", "error"),
    "mask on a good image": (mask_of(np.ones((48, 64), bool), "good/000"), "mask-on-good", "error"),
    "mask that is no image": (lambda r: (r / "scratch/000_mask.png").write_text("x"), "mask-unreadable", "error"),
    "one RGB image": (rgb, "mixed-channels", "error"),
    "one 16-bit image": (lambda r: save(r / "good/x.png", surface(61, dtype=np.uint16)), "mixed-depth", "error"),
    "one larger image": (lambda r: save(r / "good/x.png", surface(62, 96, 128)), "mixed-sizes", "note"),
    "one of another shape": (lambda r: save(r / "good/x.png", surface(62, 96, 64)), "mixed-sizes", "warning"),
    "mono saved as RGB": (grey_as_rgb, "grey-as-rgb", "note"),
    "12 bit in 16": (twelve_bits, "depth-unused", "note"),
    "a black frame": (lambda r: save(r / "good/x.png", np.zeros((48, 64), np.uint8)), "blank", "warning"),
    "a copy": (copy("good/001.png", "good/x.png"), "duplicate", "warning"),
    "a copy called a defect": (copy("good/001.png", "scratch/x.png"), "labels-differ", "error"),
    "a copy that is brighter": (copy("good/001.png", "good/x.png", brighter), "near-duplicate", "warning"),
    "a kind with one image": (lambda r: save(r / "dent/1.png", surface(70)), "few-of-kind", "warning"),
}


@pytest.mark.parametrize("name", CASES)
def test_each_thing_that_is_wrong_is_found(tmp_path: Path, name: str) -> None:
    spoil, code, severity = CASES[name]
    spoil(clean(tmp_path))
    found = codes(tmp_path)
    assert found.get(code) == severity
    assert code in MENDS
    allowed = {code, "duplicate"} if code == "labels-differ" else {code}
    assert set(found) <= allowed, "and nothing else"


def test_boxes_outside_the_image_are_found(tmp_path: Path) -> None:
    boxes = [{"kind": "x", "x": x, "y": 2, "width": 10, "height": 5} for x in (54.9, 58, 70)]
    rows = "path,label,boxes\n"
    for index, box in enumerate(boxes):
        save(tmp_path / f"a{index}.png", surface(index))
        cell = json.dumps([box]).replace('"', '""')
        rows += f'a{index}.png,defect,"{cell}"\n'
    (tmp_path / "m.csv").write_text(rows)
    found = [f for f in check(open_dataset(tmp_path / "m.csv")).findings if f.code == "box-outside"]
    assert [(f.severity, f.paths[0].name) for f in found] == [(Severity.ERROR, "a2.png"), (Severity.WARNING, "a1.png")]


def test_copies_across_splits_and_groups_are_told_apart(tmp_path: Path) -> None:
    mvtec(tmp_path / "splits", train=24, good=24, bad=12)
    copy("train/good/003.png", "test/good/x.png")(tmp_path / "splits")
    report = check(open_dataset(tmp_path / "splits"))
    (finding,) = [f for f in report.findings if f.code == "straddles-splits"]
    assert finding.severity is Severity.ERROR
    assert {report.shown(path) for path in finding.paths} == {"train/good/003.png", "test/good/x.png"}
    assert "train and test" in finding.what
    pairs(tmp_path / "lots", lots=12)
    copy("lot3/Part2.png", "lot7/Part9.png", brighter)(tmp_path / "lots")
    copy("lot5/Part2.png", "lot5/Part9.png", brighter)(tmp_path / "lots")
    alike = [f for f in check(open_dataset(tmp_path / "lots")).findings if f.code.startswith(("straddles", "near"))]
    assert [f.code for f in alike] == ["straddles-groups"], "near copies within one lot are known to belong together"
    assert "lot3, lot7" in alike[0].what


def test_a_group_in_two_splits_is_an_error_and_a_split_without_good_ones_a_warning(tmp_path: Path) -> None:
    clean(tmp_path)
    splits = ["train"] * 22 + ["calibration"] * 2
    lines = ["path,label,lot,split"]
    lines += [f"good/{index:03}.png,good,lot{index // 4},{split}" for index, split in enumerate(splits)]
    lines += [f"scratch/{index:03}.png,defect,,test" for index in range(12)]
    (tmp_path / "manifest.csv").write_text("\n".join(lines))
    found = check(open_dataset(tmp_path)).findings
    assert [(f.code, f.what) for f in found] == [
        ("group-straddles", "images of the group lot5 are in train and calibration."),
        ("split-without", "test has no good images."),
    ]


def test_parts_that_all_look_alike_give_one_note_and_not_hundreds_of_pairs(tmp_path: Path) -> None:
    part = surface(1, 128, 128)
    for index in range(20):
        noise = np.random.default_rng(index).integers(-2, 3, part.shape)
        save(tmp_path / f"good/{index}.png", np.clip(part + noise, 0, 255).astype(np.uint8))
    found = codes(tmp_path)
    assert found["all-alike"] == "note"
    assert "near-duplicate" not in found


@settings(max_examples=30, deadline=None)
@given(count=st.integers(0, 60), most=st.integers(0, 128), seed=st.integers(0, 99))
def test_near_pairs_are_those_of_a_plain_count(count: int, most: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    bits = rng.integers(0, 2, (count, BITS), dtype=np.uint8)
    for index in range(1, count, 3):  # some that are near
        bits[index] = bits[index - 1]
        bits[index, rng.integers(0, BITS, 5)] ^= 1
    hashes = [np.packbits(row).view(np.uint64) for row in bits]
    expected = {(i, j) for i in range(count) for j in range(i) if int((bits[i] != bits[j]).sum()) <= most}
    assert {(j, i) for i, j in near_pairs(hashes, most).tolist()} == expected


def test_clusters_hang_together_through_others() -> None:
    assert clusters(np.array([[0, 3], [3, 5], [7, 8]]), 10) == [[0, 3, 5], [7, 8]]


def test_the_hash_survives_what_happens_to_files_and_not_another_part() -> None:
    far, near = [], []
    for seed in range(20):
        image = surface(seed, 256, 256)
        mine = perceptual_hash(image)
        _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 60])
        same = (
            cv2.imdecode(data, cv2.IMREAD_UNCHANGED),
            cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
            image.astype(np.uint16) * 16,
            np.repeat(image[:, :, None], 3, axis=2),
        )
        near += [int(np.bitwise_count(mine ^ perceptual_hash(changed)).sum()) for changed in same]
        far.append(int(np.bitwise_count(mine ^ perceptual_hash(surface(seed + 100, 256, 256))).sum()))
    assert max(near) <= NEAR
    assert min(far) > 5 * NEAR


def test_ten_thousand_hashes_compare_in_seconds() -> None:
    words = np.random.default_rng(0).integers(0, 1 << 63, (10_000, 4), dtype=np.uint64)
    words[777] = words[5]
    started = time.perf_counter()
    assert near_pairs(list(words)).tolist() == [[5, 777]]
    assert time.perf_counter() - started < 20, "measured: 1 to 2 s"


def test_the_page_is_whole_and_shows_the_images(tmp_path: Path) -> None:
    clean(tmp_path / "data")
    copy("good/001.png", "good/<b>.png")(tmp_path / "data")
    not_an_image(tmp_path / "data")
    write_page(check(open_dataset(tmp_path / "data")), tmp_path / "out/page.html")
    text = (tmp_path / "out/page.html").read_text()
    assert "37 images" not in text
    assert "38 images" in text
    assert text.count("data:image/jpeg;base64,") == 2, "both copies; what does not open has no thumbnail"
    assert "good/&lt;b&gt;.png" in text
    assert "<b>.png" not in text
    assert "http://" not in text
    assert "https://" not in text


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from inspection.cli import main; main()", "data", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.train
def test_the_commands_tell_by_exit_code_and_write_whole_files(tmp_path: Path) -> None:
    root = clean(tmp_path / "data")
    assert run("check", root).returncode == 0
    not_an_image(root)
    bad = run("check", root, "--json", "--html", tmp_path / "page.html")
    assert bad.returncode == 5
    found = json.loads(bad.stdout)
    assert found["errors"] == 1
    assert found["findings"][0]["code"] == "unreadable"
    assert found["findings"][0]["paths"] == ["good/x.png"]
    assert "unreadable" in (tmp_path / "page.html").read_text()
    (root / "good/x.png").unlink()
    assert run("split", root, "--out", tmp_path / "m.parquet", "--seed", 3).returncode == 0
    assert set(open_dataset(tmp_path / "m.parquet").counts()) == {"train", "calibration", "test"}
    preview = run("preview", tmp_path / "m.parquet", "--out", tmp_path / "sheet.png", "--images", 4, "--versions", 2)
    assert preview.returncode == 0, preview.stderr
    assert "256" in preview.stdout or "288" in preview.stdout
    sheet = cv2.imread(str(tmp_path / "sheet.png"))
    assert sheet.shape[0] > 4 * 192
    assert sheet.shape[1] > 3 * 192
    refused = run("preview", root, "--out", tmp_path / "sheet.jpg")
    assert (refused.returncode, "ends in .png" in refused.stderr) == (2, True)
    (tmp_path / "c.yaml").write_text("optimiser: {}\naugment:\n  flip: true\n")
    unknown = run("preview", root, "--out", tmp_path / "other.png", "--config", tmp_path / "c.yaml")
    assert unknown.returncode == 2
    assert "c.yaml:3" in unknown.stderr
    wrong = run("split", root, "--out", tmp_path / "m2.csv", "--fractions", "0.5,0.5")
    assert wrong.returncode == 2
    assert not (tmp_path / "m2.csv").exists()


def test_the_preview_outlines_the_mask_of_what_is_fed(tmp_path: Path) -> None:
    pytest.importorskip("albumentations")
    from datasets.pictures import MASK, drawn, sheet
    from inspection.modelfile import InputSpec

    dataset = open_dataset(mvtec(tmp_path))
    defect = next(s for s in dataset if s.label == "defect")
    picture = drawn(defect)
    marked = (picture == np.array(MASK)).all(axis=2)
    _, mask = scratched(1000)
    assert marked.any()
    assert not (marked & mask).any(), "the defect itself stays to be seen"
    rgb = sheet(dataset, InputSpec(height=32, width=64, channels=1), None, images=3, versions=0, seed=1)
    assert (rgb == np.array(MASK)).all(axis=2).any()
