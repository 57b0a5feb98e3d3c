"""What recording costs beside a running line, against other ways to keep frames; and what watching a folder costs.

python -m benchmarks.recording [--folder FOLDER] [--frames 60]

Frames are a brushed surface of 1920 x 1080 with sensor noise. FOLDER decides which disk is written to; what is measured
there goes away again. Processor time counts: on a line, cores are for judging.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from inspection.cameras.folder import FolderCamera
from inspection.cameras.options import FolderOptions
from inspection.cameras.recorder import Recorder
from inspection.cameras.recording import Recording
from inspection.parts import Frame
from inspection.pixels import Pixels

HEIGHT, WIDTH = 1080, 1920
VIEWS = ("a", "b", "c", "d", "e", "f")
FILES = (100, 1_000, 10_000)


def scene(seed: int, channels: int) -> Pixels:
    """A part's surface as a camera gives it: brushed, a gradient of light, noise of two grey values."""
    rng = np.random.default_rng(seed)
    brushed = cv2.GaussianBlur(rng.standard_normal((HEIGHT, WIDTH)).astype(np.float32), (0, 0), sigmaX=12, sigmaY=0.8)
    grey = 110 + 200 * brushed + np.linspace(-30, 30, WIDTH, dtype=np.float32)
    image = grey if channels == 1 else grey[..., None] * np.array([1.0, 0.95, 0.9], np.float32)
    noise = rng.standard_normal(image.shape).astype(np.float32) * 2
    pixels: Pixels = np.clip(image + noise, 0, 255).astype(np.uint8)
    return pixels


def cost(work: Callable[[Pixels, int], None], images: list[Pixels], frames: int) -> tuple[float, float]:
    """Milliseconds of processor and of wall time for one frame."""
    processor, wall = time.process_time(), time.perf_counter()
    for number in range(frames):
        work(images[number % len(images)], number)
    return (time.process_time() - processor) / frames * 1e3, (time.perf_counter() - wall) / frames * 1e3


def size(folder: Path) -> int:
    """Bytes of all files in it."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def ways(root: Path, channels: int, frames: int) -> list[tuple[str, float, float, float]]:
    """For each way: its name, ms of processor and wall time and MB for one frame."""
    images = [scene(seed, channels) for seed in range(4)]
    rows = []
    recorder = Recorder(root / "raw", limit=10**12, waiting=frames)

    def record(image: Pixels, number: int) -> None:
        recorder.frame(VIEWS[number % len(VIEWS)], Frame(pixels=image, number=number, received=time.monotonic()))

    processor, wall = time.process_time(), time.perf_counter()
    _, handing = cost(record, images, frames)
    recorder.close()
    processor = (time.process_time() - processor) / frames * 1e3
    wall = (time.perf_counter() - wall) / frames * 1e3
    assert recorder.counters()["not_recorded"] == 0
    rows.append(("recording", processor, wall, size(root / "raw") / frames / 1e6))
    print(f"  handing a frame over takes the line {handing * 1e3:.0f} us")

    recording = Recording(root / "raw")
    started = time.perf_counter()
    for view in recording.views:
        for frame in recording.frames(view):
            assert frame.damage is None
    print(f"  reading a frame back, checked, takes {(time.perf_counter() - started) / frames * 1e3:.1f} ms")

    def npy(image: Pixels, number: int) -> None:
        np.save(root / "npy" / f"{number}.npy", image)

    def png(image: Pixels, number: int) -> None:
        cv2.imwrite(str(root / "png" / f"{number}.png"), image, [cv2.IMWRITE_PNG_COMPRESSION, 1])

    for name, way in (("npy", npy), ("png", png)):
        (root / name).mkdir()
        rows.append((name, *cost(way, images, frames), size(root / name) / frames / 1e6))
    return rows


def listing(root: Path, files: int) -> float:
    """Milliseconds of one listing of a folder with `files` in it that were all taken."""
    for number in range(files):
        (root / f"{number:06}.png").touch()
    camera = FolderCamera(FolderOptions(kind="folder", path=root, existing=False, settled=0), "view")
    took = []
    for _ in range(7):
        camera.start()  # the next call lists at once
        started = time.perf_counter()
        camera.frame(0)
        took.append(time.perf_counter() - started)
    return float(np.median(took)) * 1e3


def main() -> None:
    """Prints the tables of docs/recordings.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=None, help="folder on the disk to write to; default: temporary")
    parser.add_argument("--frames", type=int, default=60)
    given = parser.parse_args()
    for channels, kind in ((1, "mono"), (3, "RGB")):
        with tempfile.TemporaryDirectory(dir=given.folder) as folder:
            print(f"{given.frames} frames of 2 MP {kind}:")
            rows = ways(Path(folder), channels, given.frames)
        print(
            "\n| way | ms of processor a frame | ms on the clock | MB | MB/s for 6 views a second |"
            "\n|---|---|---|---|---|"
        )
        for name, processor, wall, megabytes in rows:
            print(f"| {name} | {processor:.1f} | {wall:.1f} | {megabytes:.2f} | {len(VIEWS) * megabytes:.1f} |")
        print()
    print("| files that stay in a watched folder | ms for a listing |\n|---|---|")
    for files in FILES:
        with tempfile.TemporaryDirectory(dir=given.folder) as folder:
            print(f"| {files:,} | {listing(Path(folder), files):.1f} |")


if __name__ == "__main__":
    main()
