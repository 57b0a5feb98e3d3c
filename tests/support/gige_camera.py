"""Aravis' fake GigE Vision camera with images of one's own; runs in the system's Python, which has `gi`.

gige_camera.py INTERFACE SERIAL FILE SIZE [SCENE]: FILE holds frames of SIZE bytes each, as they go over the wire;
exposure after exposure sends the next, and begins anew after the last. With SCENE, a file of two bytes that somebody
else writes, it is the frame with the number in the first that is sent, and of its packets so many of a thousand are
lost as the second says. Prints `ready`, and runs until it is killed.
"""

from __future__ import annotations

import ctypes
import sys
import time
from pathlib import Path

import gi  # type: ignore[import-not-found]

gi.require_version("Aravis", "0.8")
from gi.repository import Aravis  # type: ignore[import-not-found]  # noqa: E402

# The bindings cannot hand over a function that fills buffers: its C interface is called.
LIBRARY = ctypes.CDLL("libaravis-0.8.so.0")
LIBRARY.arv_buffer_get_data.restype = ctypes.c_void_p
LIBRARY.arv_buffer_get_data.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
LIBRARY.arv_fake_camera_get_payload.restype = ctypes.c_size_t
LIBRARY.arv_fake_camera_get_payload.argtypes = [ctypes.c_void_p]
Fill = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_uint32)
LIBRARY.arv_fake_camera_set_fill_pattern.argtypes = [ctypes.c_void_p, Fill, ctypes.c_void_p]


LOOK = 0.02  # seconds between two looks at how many packets shall be lost


def run(interface: str, serial: str, file: str, size: str, scene: str | None = None) -> None:
    data, length = Path(file).read_bytes(), int(size)
    frames = [data[start : start + length] for start in range(0, len(data) - length + 1, length)]
    sent = 0

    camera = Aravis.GvFakeCamera.new(interface, serial)
    if not camera.is_running():
        sys.exit(f"no camera can listen at {interface}")
    sensor = hash(camera.get_fake_camera())  # PyGObject's hash is the address

    @Fill
    def fill(buffer: int, *_: object) -> None:
        nonlocal sent
        room = LIBRARY.arv_fake_camera_get_payload(sensor)
        frame = frames[(sent if scene is None else Path(scene).read_bytes()[0]) % len(frames)]
        ctypes.memmove(LIBRARY.arv_buffer_get_data(buffer, None), frame, min(room, length))
        sent += 1

    LIBRARY.arv_fake_camera_set_fill_pattern(sensor, fill, None)
    print("ready", flush=True)
    while True:
        if scene is not None:
            camera.set_property("gvsp-lost-ratio", Path(scene).read_bytes()[1] / 1000)
        time.sleep(LOOK)


if __name__ == "__main__":
    run(*sys.argv[1:])
