"""One phone per second: six views of 1920 x 1080 a part, judged at 1024 x 576, on this machine, for as long as asked.

python -m benchmarks.phones FOLDER [--minutes 30] [--takt 1] [--views 6] [--model model.onnx] [--out runs/phones]

FOLDER holds the MSD images (Oil_*.jpg, Scr_*.jpg, Sta_*.jpg; Zhang, Ding, Ban, Guo, ICASSP 2022), which are replayed
from memory as raw frames. There is no good phone among them, so the model learns to tell scratches from oil and stains:
what it costs is measured here. Without --model it is trained first (--budget).

Printed: a line a minute with the account and the memory of the process, then the seconds from a part's last frame to
its verdict. The exit code is 1 where a part was late, or judged later than a second after its last frame.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import yaml

from inspection.allocator import keep_buffers
from inspection.line.capacity import STAGES, resident
from inspection.line.line import Line
from inspection.machine import processor, usable_cores
from inspection.results import Verdict

WITHIN = 1.0  # seconds from the last frame to the verdict


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
    arguments.add_argument("--only-train", action="store_true")
    arguments.add_argument("--out", type=Path, default=Path("runs/phones"))
    given = arguments.parse_args()
    keep_buffers()
    model: Path = given.model or given.out / "phones.onnx"
    if given.only_train:
        train(given.folder, given.out, model, given.budget, given.threads)
        return
    if given.model is None and not model.exists():  # in a process of its own: a line has no torch in its memory
        subprocess.run([sys.executable, "-m", "benchmarks.phones", *sys.argv[1:], "--only-train"], check=True)
    day = datetime.now(UTC).date().isoformat()
    print(
        f"{day}; {usable_cores()} cores {processor()}; lightsout-inspection {version('lightsout-inspection')}", end=""
    )
    print(f", onnxruntime {version('onnxruntime')}", flush=True)
    recipe = write_recipe(given.folder, model, given.out, takt=given.takt, views=given.views, tile=given.tile)
    sys.exit(0 if run(recipe, given.minutes * 60, given.takt) else 1)


def train(folder: Path, out: Path, model: Path, budget: str, threads: int | None) -> None:
    """A defectnet at 1024 x 576 that tells scratches from the rest, exported."""
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
    changes = {"input.width": 1024, "input.height": 576, "budget": budget, "hardware.threads": threads, "batch": 4}
    export(fit(read_config(None, changes), dataset, out / "run", say=say), model, say=say)


def write_recipe(folder: Path, model: Path, out: Path, *, takt: float, views: int, tile: bool) -> Path:
    """The recipe of the phone, with a folder of images for each view."""
    images = sorted(folder.glob("*.jpg"))
    described = {}
    for index in range(views):
        own = out / "views" / f"view{index}"
        own.mkdir(parents=True, exist_ok=True)
        for path in images[index::views][:8]:  # 50 MB of raw frames a view
            link = own / path.name
            if not link.exists():
                link.symlink_to(path.absolute())
        view: dict[str, object] = {
            "camera": {"kind": "replay", "path": str(own.absolute()), "loop": True},
            "model": str(model.absolute()),
        }
        if tile:
            view["tiling"] = {"overlap": 0.25}
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
    account = line.counters()["line"]
    times = line.times.summary()
    print(f"{account['triggers']} triggers = " + " + ".join(f"{account[verdict]} {verdict}" for verdict in Verdict))
    for stage, name in STAGES.items():
        values = ", ".join(f"{key} {times[stage][key]:.3f}" for key in ("p50", "p99", "p99.9", "max"))
        print(f"{name}, s: {values}")
    in_time = account[Verdict.ERROR] == 0 and times["verdict"]["max"] < WITHIN
    print(f"every part within {WITHIN:g} s of its last frame and before its deadline of {2 * takt:g} s: {in_time}")
    return in_time


if __name__ == "__main__":
    main()
