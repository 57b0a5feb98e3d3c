"""Commands of this room."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[Path, typer.Argument(help="The model file (.onnx).", show_default=False)]
Provider = Annotated[str, typer.Option(help="Device: cpu, cuda, tensorrt, openvino, or auto for the best there is.")]
Threads = Annotated[int | None, typer.Option(help="Threads of one network run; by default one for each usable core.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of a table for people.")]


def judge(
    model: Model,
    images: Annotated[
        list[Path], typer.Argument(help="Image files, or folders that are searched for them.", show_default=False)
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line, one for each image.")] = False,
    overlay: Annotated[
        Path | None, typer.Option(help="Folder for a picture of each image with its map, boxes and verdict.")
    ] = None,
    provider: Provider = "auto",
    threads: Threads = None,
    batch: Annotated[int, typer.Option(min=1, help="Images that the network sees at once.")] = 8,
    tile: Annotated[bool, typer.Option("--tile", help="Cut large images into tiles instead of resizing them.")] = False,
    overlap: Annotated[
        float, typer.Option(min=0, max=0.89, help="With --tile: share of a tile that the next one covers too.")
    ] = 0.25,
    scale: Annotated[float, typer.Option(help="With --tile: the image is resized by this before it is cut.")] = 1.0,
    ok_below: Annotated[float | None, typer.Option(help="OK below this score, instead of the model's own.")] = None,
    ng_above: Annotated[float | None, typer.Option(help="NG from this score on, instead of the model's own.")] = None,
) -> int:
    """Judge images.

    Exit code: 0 all OK, 10 some NG, 11 none NG but some REVIEW, 12 some could not be judged; others are errors.
    """
    from inspection.judge import judge_files

    return judge_files(
        model,
        images,
        as_json=as_json,
        overlays=overlay,
        provider=provider,
        threads=threads,
        batch=batch,
        tiling=(overlap, scale) if tile else None,
        ok_below=ok_below,
        ng_above=ng_above,
    )


def info(model: Model, as_json: Json = False) -> None:
    """Show what a model file takes, what it was made from, and what it promises."""
    from inspection.info import show

    show(model, as_json=as_json)


def bench(
    model: Annotated[Path | None, typer.Argument(help="The model file (.onnx).", show_default=False)] = None,
    recipe: Annotated[
        Path | None, typer.Option(help="Measure a whole line instead: does this machine keep the recipe's takt?")
    ] = None,
    image: Annotated[
        Path | None, typer.Option(help="An image to judge; by default noise of the model's input size, as PNG.")
    ] = None,
    as_json: Json = False,
    provider: Provider = "auto",
    threads: Annotated[str, typer.Option(help="Threads to try, such as 1..4 or 1,2; by default 1..cores.")] = "",
    batches: Annotated[str, typer.Option(help="Batch sizes to try, such as 1..8 or 1,4,8.")] = "1,2,4,8",
    seconds: Annotated[float, typer.Option(min=0.1, help="Time to spend on each measurement.")] = 3.0,
    images: Annotated[
        Path | None, typer.Option(help="With --recipe: frames, in a folder for each view or one for all; else noise.")
    ] = None,
    takt: Annotated[
        float | None, typer.Option(help="With --recipe: seconds per part, instead of the recipe's.")
    ] = None,
) -> int:
    """Measure where the time goes on this machine: of a model beside bare onnxruntime, or of a whole line.

    With --recipe the exit code is 0 where the takt is kept, and 10 where it is not.
    """
    from inspection.errors import ConfigInvalid

    if (model is None) == (recipe is None):
        raise ConfigInvalid("what should be measured?", where="bench", hint="Name a model file, or give --recipe.")
    if recipe is not None:
        from inspection.line import capacity

        return capacity.show(capacity.measure(recipe, seconds=seconds, images=images, takt=takt), as_json=as_json)
    from inspection.bench import measure, show

    assert model is not None
    show(measure(model, image, provider, threads, batches, seconds), as_json=as_json)
    return 0


def doctor(as_json: Json = False) -> int:
    """Check that this machine can judge: packages, devices that really run, memory, and what would make it faster."""
    from inspection.doctor import examine, show

    return show(examine(), as_json=as_json)
