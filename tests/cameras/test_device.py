"""OpenCV's captures as cameras. Here is no V4L2 device: files and sequences of images go the same way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from inspection.cameras.camera import Camera, CameraEnded, CameraLost
from inspection.cameras.open import open_camera
from inspection.cameras.options import DeviceOptions
from inspection.errors import ConfigInvalid
from tests.support.cameras import take
from tests.support.images import save

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
