"""One phone per second: six views of 1920 x 1080 a part, judged at 1024 x 576, on this machine, for as long as asked.

python -m benchmarks.phones FOLDER [--minutes 30] [--takt 1] [--views 6] [--gige 0] [--tile] [--out runs/phones]

FOLDER holds the MSD images (Oil_*.jpg, Scr_*.jpg, Sta_*.jpg; Zhang, Ding, Ban, Guo, ICASSP 2022), which are replayed
from memory as raw frames. There is no good phone among them, so the model learns to tell scratches from oil and stains:
what it costs is measured here. Without --model it is trained first (--budget).

--gige N: N of the views come from fake GigE Vision cameras (Debian's aravis-tools, BayerRG8), each a host of its own in
a network namespace, which wants root; the others from memory. --tile: full resolution in tiles of 512 by an int8 model,
1920 x 1024 of each frame in two halves of 2 x 2 tiles. --bench: what `inspection bench` says of the same recipe.

Printed: a line a minute with the account and the memory of the process, then the seconds from a part's last frame to
its verdict. The exit code is 1 where a part was late, or judged later than a second after its last frame.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnxruntime
import yaml

from inspection.allocator import keep_buffers
from inspection.engine import session_options
from inspection.line.capacity import STAGES, measure, resident, show
from inspection.line.line import Line
from inspection.machine import processor, usable_cores
from inspection.pixels import read_image
from inspection.results import Verdict
from tests.support.namespaces import cameras_behind_a_switch

WITHIN = 1.0  # seconds from the last frame to the verdict
SIZE = (1920, 1080)  # of the images
TILE = 512
TILES = 8  # of a view


def main() -> None:
    """Trains where no model is given, and runs the line."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--minutes", type=float, default=30)
    arguments.add_argument("--takt", type=float, default=1.0)
    arguments.add_argument("--views", type=int, default=6)
    arguments.add_argument("--model", type=Path, default=None)
    arguments.add_argument("--budget", default="5m", help="wall time of training")
    arguments.add_argument("--threads", type=int, default=None, help="of torch, in training")
    arguments.add_argument("--tile", action="store_true", help="judge in tiles at full resolution instead")
    arguments.add_argument("--gige", type=int, default=0, help="how many of the views come from GigE Vision cameras")
    arguments.add_argument("--bench", action="store_true", help="say how much more this machine would carry instead")
    arguments.add_argument("--only-train", action="store_true", help=argparse.SUPPRESS)
    arguments.add_argument("--addresses", nargs="*", default=[], help=argparse.SUPPRESS)  # of cameras that are there
    arguments.add_argument("--out", type=Path, default=Path("runs/phones"))
    given = arguments.parse_args()
    keep_buffers()
    model: Path = given.model or given.out / ("tiles.onnx" if given.tile else "phones.onnx")
    if given.only_train:
        train(given.folder, given.out, model, given.budget, given.threads, tile=given.tile)
        return
    if given.model is None and not model.exists():  # in a process of its own: a line has no torch in its memory
        subprocess.run([sys.executable, "-m", "benchmarks.phones", *sys.argv[1:], "--only-train"], check=True)
    if given.gige > len(given.addresses):
        sys.exit(behind_a_switch(given.folder, given.out, given.gige))
    day = datetime.now(UTC).date().isoformat()
    print(
        f"{day}; {usable_cores()} cores {processor()}; lightsout-inspection {version('lightsout-inspection')}", end=""
    )
    print(f", onnxruntime {version('onnxruntime')}", flush=True)
    recipe = write_recipe(
        given.folder, model, given.out, takt=given.takt, views=given.views, tile=given.tile, addresses=given.addresses
    )
    if given.bench:
        images = given.out / "views" / "view0"
        found = measure(recipe, seconds=given.minutes * 60, images=images)
        code = show(found, as_json=False)
        inputs = given.views * (TILES if given.tile else 1)
        print(f"bare engine: {bare(model):.1f} network inputs a second on all cores; ", end="")
        print(f"the line: {found.parts_per_second * inputs:.1f}")
        sys.exit(code)
    sys.exit(0 if run(recipe, given.minutes * 60, given.takt) else 1)


def bare(model: Path, seconds: float = 20.0) -> float:
    """Network inputs a second by onnxruntime alone: a session and a thread for each core, one input at a time."""
    sessions = [onnxruntime.InferenceSession(model, session_options(1)) for _ in range(usable_cores())]
    shape = (1, *sessions[0].get_inputs()[0].shape[1:])
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    counts = [0] * len(sessions)
    end = time.monotonic() + seconds

    def work(place: int) -> None:
        while time.monotonic() < end:
            sessions[place].run(None, {"pixels": pixels})
            counts[place] += 1

    threads = [threading.Thread(target=work, args=(place,)) for place in range(len(sessions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / seconds


def behind_a_switch(folder: Path, out: Path, count: int) -> int:
    """Runs this once more on a line's computer with so many cameras on its network; its exit code."""
    images = sorted(folder.glob("*.jpg"))
    frames = [[mosaic(path) for path in images[index::count][:4]] for index in range(count)]
    with cameras_behind_a_switch(count, frames=frames, folder=out / "cameras") as network:
        command = [sys.executable, "-m", "benchmarks.phones", *sys.argv[1:], "--addresses", *network.addresses]
        return subprocess.run(network.inside(*command), check=False).returncode


def mosaic(path: Path) -> bytes:
    """What a sensor with colour filters (BayerRG8) sends of this image."""
    pixels = read_image(path)
    raw = pixels[..., 1].copy()
    raw[0::2, 0::2] = pixels[0::2, 0::2, 0]
    raw[1::2, 1::2] = pixels[1::2, 1::2, 2]
    return raw.tobytes()


def train(folder: Path, out: Path, model: Path, budget: str, threads: int | None, *, tile: bool) -> None:
    """A defectnet at 1024 x 576, or in int8 for tiles of 512, that tells scratches from the rest, exported."""
    from benchmarks.road import say
    from datasets.sample import Dataset, Sample
    from datasets.split import assign
    from training.config import read_config
    from training.export import export
    from training.fit import fit

    samples = tuple(
        Sample(path=path, label="defect" if path.name.startswith("Scr") else "good")
        for path in sorted(folder.glob("*.jpg"))
    )
    dataset = assign(Dataset(name="msd", root=folder, layout="folders", samples=samples), seed=0)
    width, height = (TILE, TILE) if tile else (1024, 576)
    changes = {"input.width": width, "input.height": height, "budget": budget, "hardware.threads": threads, "batch": 4}
    run = fit(read_config(None, changes), dataset, out / ("run-tiles" if tile else "run"), say=say)
    export(run, model, "int8" if tile else "fp32", say=say)


def write_recipe(
    folder: Path, model: Path, out: Path, *, takt: float, views: int, tile: bool, addresses: Sequence[str] = ()
) -> Path:
    """The recipe of the phone: the first views from the cameras at `addresses`, a folder of images for each other."""
    images = sorted(folder.glob("*.jpg"))
    described = {}
    for index in range(views):
        own = out / "views" / f"view{index}"
        own.mkdir(parents=True, exist_ok=True)
        for path in images[index::views][:8]:  # 50 MB of raw frames a view
            link = own / path.name
            if not link.exists():
                link.symlink_to(path.absolute())
        camera = {"kind": "replay", "path": str(own.absolute()), "loop": True}
        if index < len(addresses):
            size = {"width": SIZE[0], "height": SIZE[1]}
            camera = {"kind": "genicam", "address": addresses[index], "pixel_format": "BayerRG8", **size}
        view: dict[str, object] = {"camera": camera, "model": str(model.absolute())}
        if tile:  # the strip of 28 pixels above and below lies beside the phone; two workers share the halves
            rows, half = SIZE[1] - SIZE[1] % TILE, SIZE[0] // 2
            place = {"y": (SIZE[1] - rows) // 2, "width": half, "height": rows}
            view["regions"] = [{"x": x, **place} for x in (0, half)]
            view["tiling"] = {"overlap": 0.0}
        described[own.name] = view
    values = {
        "product": "phone",
        "takt": takt,
        "deadline": 2 * takt,
        "trigger": {"kind": "timer"},
        "views": described,
        "record": {"folder": str((out / "record").absolute())},
    }
    path = out / "phone.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def run(recipe: Path, seconds: float, takt: float) -> bool:
    """Runs the line, tells once a minute, and says whether every part was in time."""
    with Line(recipe) as line:
        while any(facts["state"] != "streaming" for facts in line.cameras.facts().values()):
            time.sleep(0.1)
        line.start()
        began = time.monotonic()
        heads = "".join(f" {name:>6}" for name in ("parts", *Verdict))
        print(f"{'min':>5}{heads} {'RSS MB':>7} {'p99 s':>6}", flush=True)
        while (gone := time.monotonic() - began) < seconds:
            time.sleep(min(60.0, seconds - gone))
            account = line.counters()["line"]
            counts = "".join(f" {account[name]:>6}" for name in ("triggers", *Verdict))
            late = line.times.summary()["verdict"]["p99"]
            minutes = (time.monotonic() - began) / 60
            print(f"{minutes:>5.1f}{counts} {resident() / 1e6:>7.0f} {late:>6.3f}", flush=True)
    counters = line.counters()
    account = counters["line"]
    times = line.times.summary()
    print(f"{account['triggers']} triggers = " + " + ".join(f"{account[verdict]} {verdict}" for verdict in Verdict))
    columns = ("received", "judged", "late", "dropped", "incomplete", "unmatched")
    print("".join(f"{name:>11}" for name in ("frames", *columns, "restarts")) + "  camera")
    for view, described in yaml.safe_load(recipe.read_text())["views"].items():
        frames = counters[f"view {view}"]
        numbers = [*(frames[name] for name in columns), counters[f"camera {view}"]["restarts"]]
        print(f"{view:>11}" + "".join(f"{number:>11}" for number in numbers) + f"  {described['camera']['kind']}")
    for stage, name in STAGES.items():
        values = ", ".join(f"{key} {times[stage][key]:.3f}" for key in ("p50", "p99", "p99.9", "max"))
        print(f"{name}, s: {values}")
    in_time = account[Verdict.ERROR] == 0 and times["verdict"]["max"] < WITHIN
    print(f"every part within {WITHIN:g} s of its last frame and before its deadline of {2 * takt:g} s: {in_time}")
    return in_time


if __name__ == "__main__":
    main()
