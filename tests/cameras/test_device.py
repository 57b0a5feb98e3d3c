"""OpenCV's captures as cameras. Here is no V4L2 device: files and sequences of images go the same way."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from inspection.cameras.camera import Camera, CameraEnded, CameraLost
from inspection.cameras.open import open_camera
from inspection.cameras.options import DeviceOptions
from inspection.cameras.reader import WAITING
from inspection.cameras.url import without_password
from inspection.errors import ConfigInvalid
from tests.support.cameras import error_of, take, wait_for
from tests.support.images import save, surface

Open = Callable[..., Camera]


@pytest.fixture
def opened() -> Iterator[Open]:
    with ExitStack() as stack:

        def start(device: int | str | Path, **options: Any) -> Camera:
            device = device if isinstance(device, int) else str(device)
            camera = open_camera(DeviceOptions(kind="device", device=device, **options), view="top")
            stack.callback(camera.stop)
            camera.start()
            return camera

        yield start


def sequence(folder: Path, count: int = 12) -> str:
    """Numbered red images, each a little darker than the one before; the name that OpenCV reads them by."""
    for index in range(count):
        save(folder / f"frame_{index:04}.png", np.full((48, 64, 3), (250 - index, 0, 10), np.uint8))
    return str(folder / "frame_%04d.png")


def test_red_images_of_a_sequence_arrive_red_whole_and_in_order(tmp_path: Path, opened: Open) -> None:
    camera = opened(sequence(tmp_path))
    assert not camera.triggered
    for index, frame in enumerate(take(camera, 12)):
        assert (frame.number, frame.pixel_format, frame.damage) == (index + 1, "RGB8", None)
        np.testing.assert_array_equal(frame.pixels, np.full((48, 64, 3), (250 - index, 0, 10)))
    with pytest.raises(CameraEnded):
        camera.frame(5)
    assert (camera.facts()["read"], camera.facts()["dropped"]) == (12, 0)


def test_the_luminance_alone_is_mono(tmp_path: Path, opened: Open) -> None:
    (frame,) = take(opened(sequence(tmp_path), mono=True), 1)
    assert frame.pixel_format == "Mono8"
    np.testing.assert_array_equal(frame.pixels, np.full((48, 64), round(0.299 * 250 + 0.114 * 10)))


def test_a_video_file_arrives_with_its_own_time(tmp_path: Path, opened: Open) -> None:
    path = tmp_path / "red.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 20.0, (64, 48))
    for _ in range(5):
        writer.write(np.full((48, 64, 3), (0, 0, 255), np.uint8))  # BGR
    writer.release()
    frames = take(opened(path), 5)
    for frame in frames:
        assert frame.pixels is not None
        assert np.abs(frame.pixels.astype(int) - (255, 0, 0)).max() <= 3
    assert [frame.device_ns for frame in frames[1:]] == [50_000_000, 100_000_000, 150_000_000, 200_000_000]


def test_a_device_can_be_started_again(tmp_path: Path, opened: Open) -> None:
    camera = opened(sequence(tmp_path))
    assert take(camera, 12)[-1].number == 12
    camera.stop()
    camera.stop()
    with pytest.raises(CameraLost, match="not started"):
        camera.frame(0.1)
    camera.start()
    assert take(camera, 1)[0].number > 12


@pytest.mark.parametrize("device", [63, "/dev/video63", "no/such/video.mp4"])
def test_a_device_that_is_not_there_is_lost(opened: Open, device: int | str) -> None:
    with pytest.raises(CameraLost, match="cannot be opened") as caught:
        opened(device)
    assert str(device) in str(caught.value)


@pytest.mark.parametrize(("options", "message"), [({"width": 320}, "width 64"), ({"height": 300}, "height 48")])
def test_a_size_that_the_device_does_not_give_is_refused(
    tmp_path: Path, opened: Open, options: dict[str, int], message: str
) -> None:
    with pytest.raises(ConfigInvalid, match=f"gives {message}, and 3.0 is asked for"):
        opened(sequence(tmp_path), **options)
    assert take(opened(sequence(tmp_path), width=64, height=48), 1)[0].number == 1


def test_a_device_cannot_be_triggered(tmp_path: Path, opened: Open) -> None:
    with pytest.raises(ConfigInvalid, match="cannot be triggered"):
        opened(sequence(tmp_path)).trigger()


@pytest.mark.parametrize("damaged", [0, 2, 4])
@pytest.mark.parametrize("rest", [60, 1000], ids=["cut in its head", "cut in its pixels"])
def test_a_damaged_image_of_a_sequence_is_a_damaged_frame_and_not_the_end(
    tmp_path: Path, opened: Open, damaged: int, rest: int
) -> None:
    for index in range(5):
        save(tmp_path / f"frame_{index:04}.png", surface(index, 48, 64))
    broken = tmp_path / f"frame_{damaged:04}.png"
    broken.write_bytes(broken.read_bytes()[:rest])
    camera = opened(tmp_path / "frame_%04d.png")
    for index, frame in enumerate(take(camera, 5)):
        assert frame.number == index + 1
        if index == damaged:
            assert frame.pixels is None
            assert "cannot be read" in (frame.damage or "")
        else:
            assert frame.damage is None
            assert frame.pixels is not None
            np.testing.assert_array_equal(frame.pixels[..., 0], surface(index, 48, 64))
    with pytest.raises(CameraEnded):
        camera.frame(5)
    assert (camera.facts()["read"], camera.facts()["damaged"]) == (5, 1)


def test_an_empty_image_of_a_sequence_leaves_no_number_unsaid(tmp_path: Path, opened: Open) -> None:
    pattern = sequence(tmp_path, 5)
    (tmp_path / "frame_0002.png").write_bytes(b"")  # OpenCV does not get past it
    camera = opened(pattern)
    assert [frame.damage is None for frame in take(camera, 5)] == [True, True, False, False, False]
    with pytest.raises(CameraEnded):
        camera.frame(5)


def test_images_that_wait_at_the_stop_are_counted(tmp_path: Path, opened: Open) -> None:
    camera = opened(sequence(tmp_path))
    take(camera, 1)
    wait_for(lambda: camera.facts()["read"] == 1 + WAITING + 1)  # so many wait, and one to join them
    camera.stop()
    facts = camera.facts()
    assert (facts["read"], facts["discarded"], facts["dropped"]) == (1 + WAITING + 1, WAITING + 1, 0)


def test_a_password_stays_out_of_messages_and_facts(opened: Open, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CameraLost, match="cannot be opened") as caught:
        opened("rtsp://user:secret@127.0.0.1:1/stream")
    told = capfd.readouterr()
    assert "secret" not in f"{caught.value} {told.out} {told.err}"
    assert "rtsp://127.0.0.1:1/stream" in str(caught.value)


def test_the_facts_of_a_source_have_its_address_without_the_password(tmp_path: Path) -> None:
    path = tmp_path / "red.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 20.0, (64, 48))
    for _ in range(5):
        writer.write(np.full((48, 64, 3), (0, 0, 255), np.uint8))
    writer.release()

    class Door(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(path.read_bytes())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Door) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        url = f"http://user:secret@127.0.0.1:{server.server_port}/red.avi?channel=1&pwd=hidden"
        camera = open_camera(DeviceOptions(kind="device", device=url), view="top")
        try:
            camera.start()
            take(camera, 1)
            assert camera.facts()["device"] == f"http://127.0.0.1:{server.server_port}/red.avi?channel=1&pwd=..."
            assert not [one.name for one in threading.enumerate() if "secret" in one.name or "hidden" in one.name]
            assert "secret" not in str(error_of(camera))
        finally:
            camera.stop()
            server.shutdown()
            serving.join()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("rtsp://user:secret@host:554/a?b=1", "rtsp://host:554/a?b=1"),
        ("rtsp://user:sec@ret@host/a", "rtsp://host/a"),
        ("rtsp://user:sec/ret@host/a", "rtsp://...@host/a"),
        ("rtsp://user:sec#ret@host/a", "rtsp://...@host/a"),
        ("rtsp://user:sec[ret@host/a", "rtsp://host/a"),
        ("rtsp://[::1]:554/a", "rtsp://[::1]:554/a"),
        ("rtsp://host/a@b", "rtsp://host/a@b"),
        ("http://host/v.cgi?loginuse=me&loginpas=secret&rate=0", "http://host/v.cgi?loginuse=...&loginpas=...&rate=0"),
        ("/dev/video0", "/dev/video0"),
        ("images/a@b:%04d.png", "images/a@b:%04d.png"),
    ],
)
def test_what_may_be_secret_in_an_address_is_not_shown(url: str, shown: str) -> None:
    assert without_password(url) == shown
