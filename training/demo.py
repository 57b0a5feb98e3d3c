"""The whole road on real images, as a user walks it: every step is a command of `inspection`, printed before it runs.

The images are electroluminescence pictures of solar cells (Buerhop-Lutz et al. 2018, Deitsch et al. 2019; CC BY-NC-SA
4.0), which the package `elpv-dataset` brings. Run it with `make demo`.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Annotated, Any

import cv2
import pyarrow.parquet
import typer

from datasets import open_dataset
from inspection import Inspector, read_image
from inspection.errors import InspectionError
from inspection.files import write_bytes
from inspection.overlay import contact_sheet, draw
from inspection.progress import console
from training.evaluate import REPORT, RESULTS
from training.figures import Evaluation
from training.report import headline

SPLIT = ["--fractions", "0.6,0.15,0.25"]  # the paper's 75/25, calibration out of the 75
CELLS_IN_SHEET = 12


def main(
    out: Annotated[Path, typer.Option(help="Folder for everything that the demo makes.")] = Path("demo"),
    budget: Annotated[str, typer.Option(help="Time for training.")] = "200s",
) -> None:
    """Train, export with a certificate, evaluate, score in a batch, judge over HTTP, and show what came out."""
    started = time.monotonic()
    cells, run, model, report = out / "cells.csv", out / "run", out / "model.onnx", out / "report"
    results, overlays = out / "results.parquet", out / "overlays"
    say("1/6  Split 2,624 real images of solar cells", "data", "split", "elpv", "--out", str(cells), *SPLIT)
    settings = str(Path(__file__).with_suffix(".yaml"))
    training = ["train", str(cells), "--out", str(run), "--config", settings, "--budget", budget, "--restart"]
    say("2/6  Train", *training)
    say("3/6  Export to one file, with the proof that it judges alike", "export", str(run), "--out", str(model))
    say("4/6  Evaluate on images never trained on", "evaluate", str(model), str(cells), "--out", str(report))
    tests = out / "test.csv"
    write_bytes(tests, _test_list(cells))
    scoring = ["score", str(model), str(tests), "--out", str(results), "--overlays", str(overlays), "--restart"]
    say("5/6  Score the test images in a batch", *scoring)
    rows = _rows(results)
    console.rule("6/6  Judge over HTTP", align="left")
    over_http = _judge_over_http(model, [row["path"] for row in rows[:: max(1, len(rows) // 5)]][:5])
    sheet = out / "judged.png"
    _contact_sheet(model, cells, rows, sheet)
    _tell(out, model, report, results, sheet, over_http, time.monotonic() - started)


def say(title: str, *arguments: str) -> None:
    """Prints and runs one `inspection` command; the demo ends where one fails."""
    console.rule(title, align="left")
    console.print("$ inspection " + shlex.join(arguments), style="bold", soft_wrap=True)
    done = subprocess.run([_program(), *arguments], check=False)
    if done.returncode not in (0, 10, 11, 12):
        raise SystemExit(done.returncode)


def _program() -> str:
    return str(Path(sys.executable).with_name("inspection"))


def _test_list(cells: Path) -> bytes:
    paths = [str(sample.path) for sample in open_dataset(cells).of("test")]
    return ("path\n" + "\n".join(paths) + "\n").encode()


def _rows(results: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pyarrow.parquet.read_table(results).to_pylist()
    return rows


def _judge_over_http(model: Path, pictures: list[str]) -> float:
    """Starts the endpoint, sends pictures, and gives the median milliseconds of an answer."""
    command = [_program(), "serve", str(model), "--port", "0"]
    console.print("$ inspection " + shlex.join(command[1:]), style="bold", soft_wrap=True)
    times = []
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "COLUMNS": "200"}) as server:
        try:
            url = _url(server)
            for picture in pictures:
                request = urllib.request.Request(f"{url}/v1/inspect", data=Path(picture).read_bytes())
                request.add_header("Content-Type", "image/png")
                sent = time.perf_counter()
                with urllib.request.urlopen(request, timeout=60) as answer:
                    judged = json.load(answer)
                times.append(1000 * (time.perf_counter() - sent))
                console.print(
                    f"$ curl --data-binary @{Path(picture).name} {url}/v1/inspect\n"
                    f"    {judged['verdict']}, score {judged['score']:.2f}, {len(judged['defects'])} regions, "
                    f"{times[-1]:.0f} ms",
                    soft_wrap=True,
                )
        finally:
            server.terminate()
            server.wait(30)
    return sorted(times)[len(times) // 2]


def _url(server: subprocess.Popen[str]) -> str:
    """Where the endpoint listens, once it says that it is ready."""
    assert server.stderr is not None
    url = ""
    for line in server.stderr:
        if found := re.search(r"http://[\d.]+:\d+", line):
            url = found.group()
        if line.startswith("ready"):
            return url
    raise InspectionError("the endpoint did not start.", hint="Start it by hand: inspection serve demo/model.onnx")


def _contact_sheet(model: Path, cells: Path, rows: list[dict[str, Any]], out: Path) -> None:
    """The clearest and the most doubtful judged cells, with their maps."""
    truth = {str(sample.path): sample.label for sample in open_dataset(cells).of("test")}
    ranked = sorted((row for row in rows if row["score"] is not None), key=lambda row: float(row["score"]))
    bad = [row for row in ranked if truth[row["path"]] == "defect"]
    good = [row for row in ranked if truth[row["path"]] == "good"]
    quarter = CELLS_IN_SHEET // 4
    chosen = [
        *(("defect, worst score", row) for row in bad[-quarter:]),
        *(("good, best score", row) for row in good[:quarter]),
        *(("defect, best score", row) for row in bad[:quarter]),
        *(("good, worst score", row) for row in good[-quarter:]),
    ]
    with Inspector(model) as inspector:
        point = inspector.operating_point
        above = None if point is None else point.pixel_above
        tiles = []
        for caption, row in chosen:
            image = read_image(row["path"])
            judged = inspector.inspect(image, name=row["path"])
            tiles.append((f"{caption}: {judged.verdict}", draw(image, judged, above)))
    sheet = contact_sheet(tiles, columns=quarter, cell=300)
    write_bytes(out, cv2.imencode(".png", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))[1].tobytes())


def _tell(out: Path, model: Path, report: Path, results: Path, sheet: Path, over_http: float, seconds: float) -> None:
    found = Evaluation.model_validate_json((report / RESULTS).read_bytes())
    console.rule("What was made", align="left")
    console.print("Cells that training never saw: " + headline(found), markup=False, soft_wrap=True)
    console.print(
        f"Accuracy {found.figures.accuracy or 0:.1%}, AUROC {found.figures.auroc or 0:.3f}; "
        f"{1000 * found.seconds_per_image:.1f} ms a cell in a batch.",
        soft_wrap=True,
    )
    console.print(f"An answer over HTTP took {over_http:.0f} ms (median). All of this took {seconds / 60:.1f} minutes.")
    for path, what in (
        (model, "the model: one file, all that a line needs"),
        (report / REPORT, "the report: open it in a browser"),
        (sheet, "judged cells with their maps"),
        (results, "one row for every test image"),
        (out / "overlays", "a picture of everything that is NG or REVIEW"),
    ):
        console.print(f"  {path!s:<28} {what}", soft_wrap=True)
    console.print("\nThe same with your own folder of images:", style="bold")
    console.print(
        "  inspection train  FOLDER --out run\n"
        "  inspection export run --out model.onnx\n"
        "  inspection judge  model.onnx IMAGE...",
        soft_wrap=True,
    )


if __name__ == "__main__":
    typer.run(main)
