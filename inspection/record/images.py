"""Frames and maps of the parts that the policy names, written by threads of their own that judging never waits for."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from inspection.control import Alarm
from inspection.files import write_all
from inspection.parts import Frame, PartResult, ViewResult
from inspection.record.options import KeepImages
from inspection.record.shelf import Shelf, place
from inspection.results import ScoreMap, Verdict

THREADS = 2
NICE = 10  # of the writing threads: judging goes first
GOLDEN = 0x9E3779B97F4A7C15  # 2**64 / golden ratio
# Faster than OpenCV's own choice at level 1, and not larger: `python -m benchmarks.record` has both.
PNG = (
    *(cv2.IMWRITE_PNG_COMPRESSION, 1),
    *(cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_HUFFMAN_ONLY),
    *(cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP),
)
TEND_EVERY = 1.0  # seconds between two looks at the free space
EXPIRE_EVERY = 60.0


def chosen(number: int, verdict: Verdict, policy: KeepImages) -> bool:
    """Whether the policy keeps this part's images: of each verdict one in N, the same ones every time.

    The choice walks by the golden ratio, so that it does not keep step with the line: with every 100th number, a line
    that carries four parts at a time would always keep the same nest.
    """
    one_in = {Verdict.OK: policy.ok, Verdict.NG: policy.ng, Verdict.REVIEW: policy.review, Verdict.ERROR: policy.error}
    n = one_in[verdict]
    return n == 1 or (n > 1 and (number * GOLDEN) % 2**64 < 2**64 // n)


@dataclass(frozen=True, slots=True)
class Job:
    """The images of one part, to be written."""

    name: str
    result: PartResult
    frames: Mapping[str, Frame]
    hash: str


class ImageKeeper:
    """A bounded queue in front of two threads that write, and the retention of what they have written.

    Where it is full, NG, REVIEW and ERROR take the place of an OK part that waits; what finds no place is counted.

    Attributes:
        parts, files, bytes: written. skipped: parts chosen that found no place, or no room on the disk. failed: parts
            whose images could not be written. full: there is less free space than the policy wants.
    """

    def __init__(self, folder: Path, policy: KeepImages, *, alarm: Alarm, wall: Callable[[], float]) -> None:
        self.shelf = Shelf(folder)
        self._policy, self._alarm, self._wall = policy, alarm, wall
        self._changed = threading.Condition()
        self._important: deque[Job] = deque()
        self._ok: deque[Job] = deque()
        self._reserved = 0
        self._writing = 0
        self._closed = self._failing = False
        self.full = False
        self.parts = self.files = self.bytes = self.skipped = self.failed = 0
        self._threads = [
            threading.Thread(target=self._write_all, name=f"record-images-{n}", daemon=True) for n in range(THREADS)
        ]
        self._tender = threading.Thread(target=self._tend, name="record-retention", daemon=True)

    @property
    def waiting(self) -> int:
        return len(self._important) + len(self._ok) + self._writing

    def start(self) -> None:
        """Begins."""
        self._look()  # before the first part: not one image goes to a disk that is full
        for thread in (*self._threads, self._tender):
            thread.start()

    def reserve(self, result: PartResult, frames: Mapping[str, Frame]) -> str | None:
        """Keeps a place for the part's images and gives their folder; None: it goes without. Follow with `put`."""
        number, verdict = result.trigger.number, result.verdict
        if not frames or not chosen(number, verdict, self._policy):
            return None
        with self._changed:
            room = len(self._important) + len(self._ok) + self._reserved < self._policy.queue
            if not room and verdict is not Verdict.OK and self._ok:
                self._ok.popleft()
                self.skipped += 1
                room = True
            if self.full or self._closed or not room:
                self.skipped += 1
                return None
            self._reserved += 1
        return place(number, verdict, result.trigger.wall)

    def put(self, name: str, result: PartResult, frames: Mapping[str, Frame], link: str) -> None:
        """Hands over what a place was reserved for. The arrays must not change afterwards."""
        job = Job(name, result, dict(frames), link)
        with self._changed:
            self._reserved -= 1
            (self._ok if result.verdict is Verdict.OK else self._important).append(job)
            self._changed.notify()

    def release(self) -> None:
        """Gives a reserved place back."""
        with self._changed:
            self._reserved -= 1

    def close(self, timeout: float) -> None:
        """Writes what waits, for at most `timeout` seconds; the rest is counted as skipped."""
        deadline = time.monotonic() + timeout
        with self._changed:
            self._changed.wait_for(lambda: self.waiting == 0, timeout)
            self._closed = True
            self.skipped += len(self._important) + len(self._ok)
            self._important.clear()
            self._ok.clear()
            self._changed.notify_all()
        for thread in (*self._threads, self._tender):
            thread.join(max(1.0, deadline - time.monotonic()))

    def _write_all(self) -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._important or self._ok or self._closed)
                if not self._important and not self._ok:
                    return
                job = (self._important or self._ok).popleft()
                self._writing += 1
            try:
                self._write(job)
                self._failing = False
            except Exception as error:  # noqa: BLE001 - also no memory left: these are lost, the next must be written
                self.failed += 1
                if not self._failing:
                    self._failing = True
                    self._alarm("record-images", f"The images of part {job.result.trigger.part} were not kept: {error}")
            finally:
                with self._changed:
                    self._writing -= 1
                    self._changed.notify_all()
            del job  # otherwise its frames stay in memory until the next one comes

    def _write(self, job: Job) -> None:
        views: dict[str, Any] = {}
        written = 0
        with self.shelf.adding(job.name) as folder:
            count = 0
            for view in dict.fromkeys([*(view.view for view in job.result.views), *job.frames]):
                result = next((one for one in job.result.views if one.view == view), None)
                files = _files(view, job.frames.get(view), result if self._policy.maps else None)
                for name, data in files.items():
                    _write_file(folder / name, data)
                    written += len(data)
                    count += 1
                sums = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
                views[view] = _about(job.frames.get(view), result) | {"files": sums}
            about = {"hash": job.hash, "result": job.result.to_dict(), "views": views}
            _write_file(folder / "part.json", json.dumps(about, indent=1, default=str).encode())
        with self._changed:
            self.parts += 1
            self.files += count
            self.bytes += written
        self.shelf.shrink(self._policy.quota)

    def _tend(self) -> None:
        swept, failing = False, False
        expired = -EXPIRE_EVERY
        while not self._closed:
            try:
                self._look()
                if not swept:
                    self.shelf.sweep()
                    swept = True
                if self._policy.age is not None and time.monotonic() - expired > EXPIRE_EVERY:
                    expired = time.monotonic()
                    self.shelf.expire(self._wall() - self._policy.age)
                self.shelf.shrink(self._policy.quota)
                failing = False
            except OSError as error:
                if not failing:
                    failing = True
                    self._alarm("record-images", f"The folder of images cannot be looked after: {error}")
            with self._changed:
                self._changed.wait_for(lambda: self._closed, TEND_EVERY)

    def _look(self) -> None:
        """Whether there is room for images."""
        folder = next(one for one in (self.shelf.folder, *self.shelf.folder.parents) if one.exists())
        free = shutil.disk_usage(folder).free
        if not self.full and free < self._policy.free:
            self.full = True
            self._alarm(
                "record-disk-full",
                f"Only verdicts are kept, no images: {free / 1e9:.2f} GB are free on the disk of {self.shelf.folder}, "
                f"and {self._policy.free / 1e9:.2f} GB must stay free.",
            )
        elif self.full and free >= self._policy.free * 1.05:  # not at the edge, where it would alarm again and again
            self.full = False


def _files(view: str, frame: Frame | None, result: ViewResult | None) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    if frame is not None and frame.pixels is not None:
        files[f"{view}.png"] = png(frame.pixels)
    for index, inspection in enumerate(result.inspections if result else ()):
        if inspection.map is not None:
            files[f"{view}.{index}.map.png"] = png(picture(inspection.map))
            files[f"{view}.{index}.map.npz"] = _npz(inspection.map)
    return files


def png(pixels: np.ndarray[Any, Any]) -> bytes:
    """Lossless, with the values and the depth as they are (10 and 12 bit: as they lie in 16); RGB stays RGB."""
    shown = pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(".png", shown, PNG)
    if not done:
        raise ValueError("OpenCV cannot write this image as PNG.")
    return data.tobytes()


def picture(score_map: ScoreMap) -> np.ndarray[Any, Any]:
    """The map for a viewer: 16 bit, its lowest value black and its highest white, a pixel for each of its cells."""
    values = score_map.values.astype(np.float64)
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    scaled = (values - low) / ((high - low) or 1.0) * 65535
    return np.nan_to_num(scaled).round().astype(np.uint16)


def _npz(score_map: ScoreMap) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, values=score_map.values, region=score_map.region, size=score_map.size)
    return file.getvalue()


def _about(frame: Frame | None, result: ViewResult | None) -> dict[str, Any]:
    about: dict[str, Any] = {}
    if frame is not None:
        about["frame"] = {
            "number": frame.number,
            "device_ns": frame.device_ns,
            "pixel_format": frame.pixel_format,
            "damage": frame.damage,
            "name": frame.name,
        }
    maps = [one.map for one in result.inspections if one.map is not None] if result else []
    if maps:
        about["maps"] = [
            {
                "region": list(one.region),
                "size": list(one.size),
                "black": float(np.nanmin(one.values)),
                "white": float(np.nanmax(one.values)),
            }
            for one in maps
        ]
    return about


def _write_file(path: Path, data: bytes) -> None:
    with path.open("xb", buffering=0) as file:
        write_all(file.fileno(), data)
        os.fsync(file.fileno())
