"""What each bad input gets: every case is made, given to the real command, and its answer written down.

python -m tests.project.bad_inputs > docs/bad-inputs.md
"""

from __future__ import annotations

import io
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import onnx
import tifffile
from PIL import Image

from tests.project.bad_lines import LINES
from tests.project.cases import Case, Make, answer
from tests.support import graphs, images

RGB = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)


def picture(name: str, data: bytes) -> Make:
    """One image file, judged with a sound model."""

    def make(folder: Path) -> list[str]:
        model = graphs.model_file(folder / "model.onnx")
        (folder / name).write_bytes(data)
        return ["judge", str(model), str(folder / name), "--json"]

    return make


def model(data: Callable[[Path], None]) -> Make:
    """A sound image, judged with what `data` writes as the model file."""

    def make(folder: Path) -> list[str]:
        data(folder / "model.onnx")
        images.save(folder / "part.png", RGB)
        return ["judge", str(folder / "model.onnx"), str(folder / "part.png"), "--json"]

    return make


def holding(blob: bytes) -> Callable[[Path], None]:
    """A model file with these bytes."""

    def write(path: Path) -> None:
        path.write_bytes(blob)

    return write


def folder_as_image(folder: Path) -> list[str]:
    """An empty folder with the name of an image."""
    (folder / "a.png").mkdir()
    return ["judge", str(graphs.model_file(folder / "model.onnx")), str(folder / "a.png")]


def gone(folder: Path) -> list[str]:
    """The name of an image that is not there."""
    return ["judge", str(graphs.model_file(folder / "model.onnx")), str(folder / "gone.png"), "--json"]


def config(text: str) -> Make:
    """Sound images, trained on with this configuration."""

    def make(folder: Path) -> list[str]:
        data = images.class_folders(folder / "data")
        (folder / "train.yaml").write_text(text)
        return ["train", str(data), "--out", str(folder / "run"), "--config", str(folder / "train.yaml")]

    return make


def data(lay: Callable[[Path], object], *more: str) -> Make:
    """A folder of images, trained on."""

    def make(folder: Path) -> list[str]:
        (folder / "data").mkdir()
        lay(folder / "data")
        return ["train", str(folder / "data"), "--out", str(folder / "run"), *more]

    return make


def encoded(ending: str, image: np.ndarray) -> bytes:
    """The image as a file of this kind."""
    return bytes(cv2.imencode(ending, image)[1])


def saved(image: Image.Image, kind: str, **how: object) -> bytes:
    """The image as Pillow writes it."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **how)
    return buffer.getvalue()


def tiff(values: np.ndarray, **how: object) -> bytes:
    """A TIFF of any type."""
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, values, **how)
    return buffer.getvalue()


def bomb() -> bytes:
    """A PNG of 70 bytes whose header says 30,000 x 30,000."""
    small = bytearray(encoded(".png", RGB[:1, :1]))
    small[16:24] = (30_000).to_bytes(4, "big") * 2
    small[29:33] = zlib.crc32(bytes(small[12:29])).to_bytes(4, "big")
    return bytes(small)


def flipped(blob: bytes) -> bytes:
    """The same with one byte in the middle changed."""
    changed = bytearray(blob)
    changed[len(blob) // 2] ^= 0xFF
    return bytes(changed)


def foreign(path: Path) -> None:
    """A classifier as others export it: float input, logits."""
    x = onnx.helper.make_tensor_value_info("input", onnx.TensorProto.FLOAT, ["N", 3, 224, 224])
    y = onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["N", 3, 224, 224])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["input"], ["logits"])], "g", [x], [y])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10), path)


def tampered(path: Path) -> None:
    """A model file whose golden image was given another score at export."""
    spec = graphs.spec()
    gold = graphs.golden(np.zeros((spec.height, spec.width, spec.channels), np.uint8), spec, score=99.0)
    graphs.model_file(path, certificate=graphs.certificate([gold]))


def half(path: Path) -> None:
    """The first half of a model file."""
    graphs.model_file(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def careless_card(path: Path) -> None:
    """A model file whose card is no JSON any more."""
    graphs.model_file(path)
    loaded = onnx.load(path)
    onnx.helper.set_model_props(loaded, {"inspection": "{"})
    onnx.save(loaded, path)


def on_the_gpu(folder: Path) -> list[str]:
    """A sound image for a device that is not there."""
    return [*picture("part.png", encoded(".png", RGB))(folder), "--provider", "tensorrt"]


def into(*path: str) -> Make:
    """A batch whose table cannot be written there."""

    def make(folder: Path) -> list[str]:
        sound = graphs.model_file(folder / "model.onnx")
        images.save(folder / "part.png", RGB)
        (folder / "file").write_text("no folder")
        return ["score", str(sound), str(folder / "part.png"), "--out", str(folder.joinpath(*path))]

    return make


def many(folder: Path) -> list[str]:
    """A batch that writes more than the disk takes."""
    sound = graphs.model_file(folder / "model.onnx")
    for number in range(60):
        images.save(folder / "in" / f"{number}.png", RGB)
    return ["score", str(sound), str(folder / "in"), "--out", str(folder / "results.csv")]


def mixed(folder: Path) -> None:
    """Mono and colour images together."""
    for number in range(4):
        images.save(folder / "good" / f"{number}.png", RGB)
        images.save(folder / "bad" / f"{number}.png", RGB[..., 0])


def wrong_mask(folder: Path) -> None:
    """A mask of another size than its image."""
    images.pairs(folder)
    images.save(next(folder.rglob("*_mask.png")), np.ones((8, 8), bool))


def bad_only(folder: Path) -> None:
    """One kind of defect and nothing else."""
    for number in range(4):
        images.save(folder / "good" / f"{number}.png", RGB)
    manifest = "path,label\n" + "".join(f"good/{number}.png,defect\n" for number in range(4))
    (folder / "manifest.csv").write_text(manifest)


def manifest(text: str) -> Callable[[Path], None]:
    """A manifest beside one image."""

    def lay(folder: Path) -> None:
        images.save(folder / "a.png", RGB)
        (folder / "manifest.csv").write_text(text)

    return lay


def torn_run(folder: Path) -> list[str]:
    """A run folder whose record is half a file."""
    (folder / "run").mkdir()
    (folder / "run" / "run.json").write_text('{"status": "fini')
    return ["export", str(folder / "run"), "--out", str(folder / "model.onnx")]


CASES = (
    Case(what="an empty file", make=picture("a.png", b""), code="image-unreadable"),
    Case(what="text named .png", make=picture("a.png", b"not an image at all\n"), code="image-unreadable"),
    Case(what="a 1 x 1 image", make=picture("a.png", encoded(".png", RGB[:1, :1])), code="input-mismatch"),
    Case(what="a header of 30,000 x 30,000", make=picture("a.png", bomb()), code="image-too-large"),
    Case(what="a JPEG that is cut off", make=picture("a.jpg", encoded(".jpg", RGB)[:900]), code="image-unreadable"),
    Case(what="a PNG that is cut off", make=picture("a.png", encoded(".png", RGB)[:900]), code="image-unreadable"),
    Case(
        what="a PNG with one flipped byte",
        make=picture("a.png", flipped(encoded(".png", RGB))),
        code="image-unreadable",
    ),
    Case(what="a BMP that is cut off", make=picture("a.bmp", encoded(".bmp", RGB)[:900]), code="image-unreadable"),
    Case(what="a TIFF that is cut off", make=picture("a.tif", encoded(".tif", RGB)[:900]), code="image-unreadable"),
    Case(
        what="a float TIFF with NaN",
        make=picture("a.tif", tiff(np.full((64, 64), np.nan, np.float32))),
        code="image-unreadable",
    ),
    Case(what="a 32-bit TIFF", make=picture("a.tif", tiff(np.zeros((64, 64), np.uint32))), code="image-unreadable"),
    Case(
        what="a TIFF of four pages",
        make=picture("a.tif", tiff(np.zeros((4, 64, 64), np.uint8), photometric="minisblack")),
        code="image-unreadable",
    ),
    Case(
        what="a CMYK JPEG", make=picture("a.jpg", saved(Image.new("CMYK", (64, 64)), "JPEG")), code="image-unreadable"
    ),
    Case(what="a GIF", make=picture("a.gif", saved(Image.new("P", (64, 64)), "GIF")), code="image-unreadable"),
    Case(
        what="a palette PNG in colour",
        make=picture("a.png", saved(Image.fromarray(RGB // 4).quantize(16), "PNG")),
        code="OK",
    ),
    Case(
        what="alpha that is used",
        make=picture("a.png", saved(Image.new("RGBA", (64, 64), (9, 9, 9, 9)), "PNG")),
        code="image-unreadable",
    ),
    Case(
        what="alpha that is opaque",
        make=picture("a.png", saved(Image.new("RGBA", (64, 64), (9, 9, 9, 255)), "PNG")),
        code="OK",
    ),
    Case(what="mono for an RGB model", make=picture("a.png", encoded(".png", RGB[..., 0])), code="input-mismatch"),
    Case(
        what="16 bit for an 8-bit model",
        make=picture("a.png", encoded(".png", RGB.astype(np.uint16))),
        code="input-mismatch",
    ),
    Case(what="a folder named a.png", make=folder_as_image, code="data-invalid"),
    Case(what="an image that is not there", make=gone, code="image-unreadable"),
    Case(what="no model there", make=model(lambda path: None), code="model-invalid"),
    Case(what="an empty model file", make=model(holding(b"")), code="model-invalid"),
    Case(what="an image as the model file", make=model(holding(encoded(".png", RGB))), code="model-invalid"),
    Case(what="a model file that is cut off", make=model(half), code="model-invalid"),
    Case(what="somebody else's ONNX", make=model(foreign), code="model-invalid"),
    Case(what="a model file with a damaged card", make=model(careless_card), code="model-invalid"),
    Case(what="a model that scores its golden image otherwise", make=model(tampered), code="certificate-mismatch"),
    Case(what="a device that is not there", make=on_the_gpu, code="provider-unavailable"),
    Case(what="a table below a file", make=into("file", "results.csv"), code="output-unwritable"),
    Case(what="a table with an unknown ending", make=into("results.xlsx"), code="config-invalid"),
    Case(what="a full disk", make=many, code="output-unwritable", file_limit=4096),
    Case(
        what="an unknown key in the configuration",
        make=config("optimizer:\n  rate: 0.1\n"),
        code="config-invalid",
        train=True,
    ),
    Case(what="a value of the wrong type", make=config("batch: many\n"), code="config-invalid", train=True),
    Case(what="a configuration that is no YAML", make=config("batch: [1\n"), code="config-invalid", train=True),
    Case(
        what="a promise of 150 %",
        make=data(images.class_folders, "--max-escape", "150%"),
        code="config-invalid",
        train=True,
    ),
    Case(what="a folder without images", make=data(lambda folder: None), code="data-invalid", train=True),
    Case(what="bad images of one kind alone", make=data(bad_only), code="data-invalid", train=True),
    Case(what="mono and colour images together", make=data(mixed), code="data-invalid", train=True),
    Case(what="a mask of another size", make=data(wrong_mask), code="data-invalid", train=True),
    Case(
        what="a manifest that names no file",
        make=data(manifest("path,label\ngone.png,good\n")),
        code="data-invalid",
        train=True,
    ),
    Case(
        what="a manifest with an unknown column",
        make=data(manifest("path,lable\na.png,good\n")),
        code="data-invalid",
        train=True,
    ),
    *LINES,
    Case(what="a run whose record is torn", make=torn_run, code="data-invalid", train=True),
)

HEAD = """# What each bad input gets

Made by `python -m tests.project.bad_inputs`, which gives each input to the real command; the tests run the same cases.
`ERROR` rows of a batch carry the same code and sentence; over HTTP it is a problem
document with a status of its own.
Exit codes: 2 configuration, 3 image, 4 model or device, 5 data, 6 output, 7 missing packages,
8 a promise that is not kept; of `judge`, 10 some NG, 11 some REVIEW, 12 some could not be judged.

| input | command | exit | code or verdict | what it says |
|---|---|---|---|---|
"""


def main() -> None:
    """Prints the page."""
    print(HEAD, end="")
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder:
            got = answer(case, Path(folder))
            said = got.said.replace(folder + "/", "").replace("|", "\\|")
        print(f"| {case.what} | `{got.command}` | {got.exit_code} | `{got.code}` | {said} |")


if __name__ == "__main__":
    main()
