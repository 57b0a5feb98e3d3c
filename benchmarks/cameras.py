"""What a frame of a GigE Vision camera costs this process, beside what copying its bytes once costs.

The camera is Aravis' fake one, a process of its own on loopback: what it can send is a limit of its own.

python -m benchmarks.cameras [--seconds 5] [--packet 8000]
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import time

import numpy as np

from inspection.allocator import keep_buffers
from inspection.cameras.camera import CameraLost
from inspection.cameras.genicam import GenICamCamera
from inspection.cameras.options import GenICamOptions

ADDRESS = "127.0.0.1"
CASES = (("Mono8", 512, 100), ("Mono8", 1024, 100), ("Mono8", 2048, 25), ("BayerRG8", 2048, 25))  # frames/s asked for


def cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def copied(size: int) -> float:
    """Milliseconds of CPU to copy so many bytes, mean of many."""
    source, target = np.ones(size, np.uint8), np.empty(size, np.uint8)
    begun = cpu()
    for _ in range(200):
        np.copyto(target, source)
    return 1e3 * (cpu() - begun) / 200


def grabbed(pixel_format: str, size: int, rate: int, seconds: float, packet: int | None) -> str:
    """Grabs for a while; one row of the table."""
    options = GenICamOptions(
        kind="genicam",
        address=ADDRESS,
        trigger="free",
        pixel_format=pixel_format,
        width=size,
        height=size,
        packet_size=packet,
        features={"AcquisitionFrameRate": float(rate)},
    )
    camera = GenICamCamera(options, "benchmark")
    for attempt in range(50):  # until the fake is up
        try:
            camera.start()
            break
        except CameraLost:
            if attempt == 49:
                raise
    try:
        camera.frame(5)
        begun, began, whole, damaged = cpu(), time.perf_counter(), 0, 0
        while time.perf_counter() - began < seconds:
            frame = camera.frame(1)
            whole += frame is not None and frame.damage is None
            damaged += frame is not None and frame.damage is not None
        took, used = time.perf_counter() - began, cpu() - begun
        facts = camera.facts()
    finally:
        camera.stop()
    return (
        f"{pixel_format:>9} {size:>5} {rate:>6} {whole / took:>7.1f} {damaged:>8} {facts['missed']:>7}"
        f" {1e3 * used / max(1, whole + damaged):>9.2f} {copied(size * size):>8.2f} {facts['packet_size']:>7}"
        f" {facts['socket_buffer']:>11}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--packet", type=int, help="bytes of a packet; otherwise the largest that the way allows")
    arguments = parser.parse_args()
    keep_buffers()
    print("   format  size  asked  frames  damaged  missed        ms  ms copy  packet      socket")
    print("                   /s      /s                   CPU/frame           bytes  buffer bytes")
    fake = ["arv-fake-gv-camera-0.8", "-i", ADDRESS]
    with subprocess.Popen(fake, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            for case in CASES:
                print(grabbed(*case, arguments.seconds, arguments.packet), flush=True)
        finally:
            process.kill()


if __name__ == "__main__":
    main()
