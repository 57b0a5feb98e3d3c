"""Every layout opens as what it says, and what is wrong in it is named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from datasets import Box, open_dataset
from datasets.load import defect_mask
from inspection.errors import ConfigInvalid, DataInvalid
from tests.support.images import class_folders, mvtec, pairs, save, scratched, surface


def facts(root: Path, layout: str | None = None) -> dict[str, tuple[str | None, str | None, str | None]]:
    return {s.path.relative_to(root).as_posix(): (s.label, s.kind, s.split) for s in open_dataset(root, layout)}


def test_mvtec_gives_kinds_splits_and_masks(tmp_path: Path) -> None:
    dataset = open_dataset(mvtec(tmp_path))
    assert dataset.layout == "mvtec"
    assert dataset.counts() == {"train": {"good": 6}, "test": {"good": 3, "defect with mask": 3}}
    assert dataset.kinds == ("scratch",)
    by_name = {s.path.relative_to(tmp_path).as_posix(): s for s in dataset}
    assert by_name["test/scratch/001.png"].mask == tmp_path / "ground_truth/scratch/001_mask.png"
    assert by_name["train/good/001.png"].mask is None


def test_train_and_test_of_classes_called_ok_need_no_ground_truth(tmp_path: Path) -> None:
    for name in ("train/ok/1.png", "test/ok/1.png", "test/ko/1.png"):
        save(tmp_path / name, surface(1))
    assert open_dataset(tmp_path).layout == "mvtec"
    assert facts(tmp_path)["test/ko/1.png"] == ("defect", None, "test"), "ko says bad, and no kind"


@pytest.mark.parametrize("good", ["good", "OK", "Normal", "No-Defects", "defect_free"])
def test_a_folder_per_class_knows_the_words_for_good(tmp_path: Path, good: str) -> None:
    save(tmp_path / good / "a.png", surface(1))
    save(tmp_path / "dent" / "b.png", surface(2))
    save(tmp_path / "NG" / "c.png", surface(3))
    assert facts(tmp_path) == {
        f"{good}/a.png": ("good", None, None),
        "dent/b.png": ("defect", "dent", None),
        "NG/c.png": ("defect", None, None),
    }


def test_folders_of_splits_may_lie_above_or_below_the_classes(tmp_path: Path) -> None:
    above, below = tmp_path / "above", tmp_path / "below"
    for split in ("train", "valid", "test"):
        for name in ("good", "dent"):
            save(above / split / name / "1.png", surface(1))
            save(below / name / split / "1.png", surface(1))
    expected = {("good", None, s) for s in ("train", "calibration", "test")} | {
        ("defect", "dent", s) for s in ("train", "calibration", "test")
    }
    assert set(facts(above).values()) == expected
    assert set(facts(below).values()) == expected


def test_folders_below_bad_are_kinds_and_folders_below_both_are_lots(tmp_path: Path) -> None:
    save(tmp_path / "kinds/good/1.png", surface(1))
    save(tmp_path / "kinds/bad/dent/1.png", surface(1))
    assert facts(tmp_path / "kinds")["bad/dent/1.png"] == ("defect", "dent", None)
    save(tmp_path / "lots/good/monday/1.png", surface(1))
    save(tmp_path / "lots/bad/monday/1.png", surface(1))
    dataset = open_dataset(tmp_path / "lots")
    assert [(s.label, s.kind, s.lot) for s in dataset] == [("defect", None, "monday"), ("good", None, "monday")]


def test_masks_beside_images_in_class_folders_are_masks_and_no_images(tmp_path: Path) -> None:
    class_folders(tmp_path, good=2, bad=1)
    save(tmp_path / "scratch/000_mask.png", scratched(1000)[1])
    dataset = open_dataset(tmp_path)
    assert dataset.layout == "folders"
    assert [s.mask for s in dataset if s.label == "defect"] == [tmp_path / "scratch/000_mask.png"]
    assert len(dataset) == 3


def test_pairs_are_good_without_a_mask_or_with_an_empty_one(tmp_path: Path) -> None:
    dataset = open_dataset(pairs(tmp_path, lots=2, parts=3))
    assert dataset.layout == "pairs"
    assert [(s.path.name, s.label, s.mask is not None) for s in dataset] == 2 * [
        ("Part0.png", "defect", True),
        ("Part1.png", "good", False),
        ("Part2.png", "good", False),
    ]
    assert [(s.lot, s.part, s.view) for s in dataset][:2] == [
        ("lot0", "lot0/Part0", None),
        ("lot0", "lot0/Part1", None),
    ]


def test_label_bmp_and_sibling_folders_of_masks_are_pairs(tmp_path: Path) -> None:
    image, mask = scratched(1)
    save(tmp_path / "a/kos01/Part5.jpg", image)
    save(tmp_path / "a/kos01/Part5_label.bmp", mask)
    assert [(s.label, s.lot) for s in open_dataset(tmp_path / "a")] == [("defect", "kos01")]
    for split in ("train", "test"):
        save(tmp_path / f"b/{split}/images/1.png", image)
        save(tmp_path / f"b/{split}/masks/1.png", mask)
    assert [(s.label, s.split) for s in open_dataset(tmp_path / "b")] == [("defect", "test"), ("defect", "train")]


def test_a_mask_that_belongs_to_no_image_is_named_and_not_lost(tmp_path: Path) -> None:
    mvtec(tmp_path)
    stray = save(tmp_path / "ground_truth/scratch/099_mask.png", np.ones((48, 64), bool))
    with pytest.raises(DataInvalid, match="belongs to no image") as caught:
        open_dataset(tmp_path)
    assert caught.value.where == str(stray)


def coco(root: Path, annotations: list[dict[str, object]]) -> Path:
    save(root / "images/a.png", surface(1))
    save(root / "images/b.png", surface(2))
    document = {
        "images": [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b.png"}],
        "categories": [{"id": 7, "name": "dent"}],
        "annotations": annotations,
    }
    (root / "annotations").mkdir(exist_ok=True)
    (root / "annotations/instances_val2017.json").write_text(json.dumps(document))
    return root


def test_coco_boxes_and_images_without_any(tmp_path: Path) -> None:
    dataset = open_dataset(coco(tmp_path, [{"id": 1, "image_id": 1, "category_id": 7, "bbox": [3, 4, 10, 5.5]}]))
    assert dataset.layout == "coco"
    first, second = dataset
    assert first.boxes == (Box(kind="dent", x=3, y=4, width=10, height=5.5),)
    assert (first.label, first.kind, first.split) == ("defect", "dent", "calibration")
    assert (second.label, second.boxes) == ("good", ())


def test_coco_run_lengths_give_back_the_mask_to_the_pixel(tmp_path: Path) -> None:
    """Encoded here by the format's description; holes and single pixels included."""
    mask = np.zeros((48, 64), dtype=bool)
    mask[10:30, 5:40] = True
    mask[15:20, 10:20] = False
    mask[40, 50] = True
    flat = mask.T.reshape(-1)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flat, [0]])))
    counts = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
    packed = ""
    for index, count in enumerate(counts):
        value = count - counts[index - 2] if index > 2 else count
        while True:
            digit = value & 0x1F
            value >>= 5
            more = value != (-1 if digit & 0x10 else 0)
            packed += chr((digit | (0x20 if more else 0)) + 48)
            if not more:
                break
    for given in (counts, packed):
        annotation = {"id": 1, "image_id": 1, "category_id": 7, "segmentation": {"size": [48, 64], "counts": given}}
        sample = open_dataset(coco(tmp_path, [annotation])).samples[0]
        assert (defect_mask(sample, (64, 48)) == mask).all()


def test_coco_polygons_are_filled_and_no_wider_than_drawn(tmp_path: Path) -> None:
    square = [10, 10, 20, 10, 20, 25, 10, 25]  # pixel corners: 10 x 15 pixels
    annotation = {"id": 1, "image_id": 1, "category_id": 7, "segmentation": [square]}
    sample = open_dataset(coco(tmp_path, [annotation])).samples[0]
    assert sample.boxes is not None
    assert (sample.boxes[0].x, sample.boxes[0].width) == (10, 10)
    mask = defect_mask(sample, (64, 48))
    assert mask is not None
    assert mask[10:25, 10:20].all()
    assert mask.sum() <= 11 * 16, "OpenCV draws borders: at most half a pixel more on each side"


@pytest.mark.parametrize(
    ("annotation", "says"),
    [
        ({"id": 5, "image_id": 9, "category_id": 7, "bbox": [0, 0, 1, 1]}, "image 9"),
        ({"id": 5, "image_id": 1, "category_id": 8, "bbox": [0, 0, 1, 1]}, "category 8"),
        ({"id": 5, "image_id": 1, "category_id": 7}, "neither bbox nor segmentation"),
        ({"id": 5, "image_id": 1, "category_id": 7, "bbox": [0, 0, "x", 1]}, "malformed"),
        ({"id": 5, "image_id": 1, "category_id": 7, "segmentation": {"size": [48, 64], "counts": [4]}}, "add up"),
    ],
)
def test_a_wrong_coco_annotation_is_named(tmp_path: Path, annotation: dict[str, object], says: str) -> None:
    with pytest.raises(DataInvalid, match=says) as caught:
        open_dataset(coco(tmp_path, [annotation]))
    assert "annotation 5" in str(caught.value.where)


def yolo(root: Path, text: str) -> Path:
    for split in ("train", "val"):
        save(root / f"images/{split}/a.png", surface(1))
        save(root / f"images/{split}/none.png", surface(2))
        (root / f"labels/{split}").mkdir(parents=True, exist_ok=True)
        (root / f"labels/{split}/a.txt").write_text(text)
    (root / "data.yaml").write_text("train: ../images/train\nval: images/val\nnames: [dent, scratch]\n")
    return root


def test_yolo_boxes_become_pixels_and_an_image_without_text_is_good(tmp_path: Path) -> None:
    dataset = open_dataset(yolo(tmp_path, "1 0.5 0.5 0.25 0.5\n"))
    assert dataset.layout == "yolo"
    a = dataset.samples[0]
    assert a.boxes == (Box(kind="scratch", x=24, y=12, width=16, height=24),)
    assert facts(tmp_path) == {
        "images/train/a.png": ("defect", "scratch", "train"),
        "images/train/none.png": ("good", None, "train"),
        "images/val/a.png": ("defect", "scratch", "calibration"),
        "images/val/none.png": ("good", None, "calibration"),
    }


def test_yolo_polygons_are_outlines(tmp_path: Path) -> None:
    sample = open_dataset(yolo(tmp_path, "0 0.25 0.25 0.5 0.25 0.5 0.75 0.25 0.75\n")).samples[0]
    assert sample.boxes is not None
    assert sample.boxes[0].outline == ((16, 12, 32, 12, 32, 36, 16, 36),)
    assert (sample.boxes[0].x, sample.boxes[0].height) == (16, 24)


@pytest.mark.parametrize(
    ("line", "says"), [("2 .5 .5 .1 .1", "class 2"), ("0 .5 x", "numbers"), ("0 1 1", "2 numbers")]
)
def test_a_wrong_yolo_line_is_named(tmp_path: Path, line: str, says: str) -> None:
    with pytest.raises(DataInvalid, match=says) as caught:
        open_dataset(yolo(tmp_path, f"0 .5 .5 .1 .1\n{line}\n"))
    assert str(caught.value.where).endswith("a.txt:2")


VOC = """<annotation><filename>other_name.jpg</filename><size><width>64</width></size>{}</annotation>"""
OBJECT = "<object><name>{}</name><bndbox><xmin>{}</xmin><ymin>1</ymin><xmax>64</xmax><ymax>48</ymax></bndbox></object>"


def test_voc_counts_pixels_from_one_with_both_ends_within(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        save(tmp_path / f"jpg/{name}.jpg", surface(1))
    (tmp_path / "xml").mkdir()
    (tmp_path / "xml/a.xml").write_text(VOC.format(OBJECT.format("dent", 1)))
    (tmp_path / "xml/b.xml").write_text(VOC.format(""))
    dataset = open_dataset(tmp_path)
    assert dataset.layout == "voc"
    assert dataset.samples[0].boxes == (Box(kind="dent", x=0, y=0, width=64, height=48),)
    assert [s.label for s in dataset] == ["defect", "good", None], "of an image without .xml nothing is known"


def test_voc_image_sets_are_splits(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        save(tmp_path / f"JPEGImages/{name}.jpg", surface(1))
        (tmp_path / "Annotations").mkdir(exist_ok=True)
        (tmp_path / f"Annotations/{name}.xml").write_text(VOC.format(OBJECT.format("dent", 5)))
    (tmp_path / "ImageSets/Main").mkdir(parents=True)
    for split, names in {"train": "a", "val": "b", "test": "c", "trainval": "a\nb"}.items():
        (tmp_path / f"ImageSets/Main/{split}.txt").write_text(names)
    assert [s.split for s in open_dataset(tmp_path)] == ["train", "calibration", "test"]


@pytest.mark.parametrize(
    ("text", "says", "where"),
    [
        (VOC.format(OBJECT.format("dent", "one")), "xmin = 'one'", "a.xml"),
        (VOC.format(OBJECT.format("", 1)), "no name", "a.xml"),
        ("<annotation>\n<object>\n</annotation>", "no XML", "a.xml:3"),
    ],
)
def test_a_wrong_voc_file_is_named(tmp_path: Path, text: str, says: str, where: str) -> None:
    save(tmp_path / "a.jpg", surface(1))
    (tmp_path / "a.xml").write_text(text)
    with pytest.raises(DataInvalid, match=says) as caught:
        open_dataset(tmp_path)
    assert str(caught.value.where).endswith(where)


def test_an_image_with_several_kinds_is_of_the_one_that_covers_most(tmp_path: Path) -> None:
    save(tmp_path / "a.jpg", surface(1))
    (tmp_path / "a.xml").write_text(VOC.format(OBJECT.format("small", 60) + OBJECT.format("large", 1)))
    assert open_dataset(tmp_path).samples[0].kind == "large"


def test_lots_without_a_good_folder_are_not_taken_for_kinds_of_defects(tmp_path: Path) -> None:
    for lot in ("lot1", "lot2"):
        save(tmp_path / lot / "1.png", surface(1))
    with pytest.raises(DataInvalid, match="no known layout") as caught:
        open_dataset(tmp_path)
    said = str(caught.value)
    for word in ("MVTec", "COCO", "YOLO", "Pascal VOC", "manifest.csv", "mask", "--layout folders", "lot1, lot2"):
        assert word in said
    assert facts(tmp_path, "folders")["lot1/1.png"] == ("defect", "lot1", None)
    assert facts(tmp_path, "pairs")["lot1/1.png"] == ("good", None, None)


def test_two_kinds_of_annotations_are_ambiguous(tmp_path: Path) -> None:
    coco(tmp_path, [])
    (tmp_path / "a.xml").write_text(VOC.format(""))
    with pytest.raises(DataInvalid, match="coco and voc both fit"):
        open_dataset(tmp_path)
    assert open_dataset(tmp_path, "coco").layout == "coco"


def test_what_is_not_there_or_empty_or_unknown_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataInvalid, match="no such file"):
        open_dataset(tmp_path / "nowhere")
    with pytest.raises(DataInvalid, match="no images"):
        open_dataset(tmp_path)
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DataInvalid, match="neither a manifest"):
        open_dataset(tmp_path / "notes.txt")
    with pytest.raises(ConfigInvalid, match="no layout `mvtecc`"):
        open_dataset(tmp_path, "mvtecc")


def test_elpv_opens_without_decoding_and_keeps_probability_and_type() -> None:
    pytest.importorskip("elpv_dataset")
    dataset = open_dataset("elpv")
    assert (len(dataset), dataset.layout) == (2624, "elpv")
    assert dataset.counts() == {"unsplit": {"defect": 821, "good": 1803}}, "50 % and more is defective, as in the paper"
    assert {s.stratum for s in dataset} == {"mono", "poly"}
    assert sorted({round(s.probability or 0, 3) for s in dataset}) == [0, 0.333, 0.667, 1]


def test_cells_that_elpv_holds_twice_are_one_part_and_look_alike() -> None:
    pytest.importorskip("elpv_dataset")
    from datasets.duplicates import perceptual_hash
    from inspection.pixels import read_image

    samples = open_dataset("elpv").samples
    parts: dict[str, list[Path]] = {}
    for sample in samples:
        if sample.part:
            parts.setdefault(sample.part, []).append(sample.path)
    assert len(parts) == 50

    def differ(one: Path, two: Path) -> int:
        return int(np.bitwise_count(perceptual_hash(read_image(one)) ^ perceptual_hash(read_image(two))).sum())

    assert max(differ(one, two) for one, two in parts.values()) < 20
    assert min(differ(samples[i].path, samples[i + 542].path) for i in (*range(1724, 1734), *range(1784, 1794))) > 40
