"""GenICam cameras over USB3 Vision, and several on one network."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("viva_genicam")

from viva_genicam.testing import FakeU3vCamera

from inspection.cameras.camera import CameraLost
from inspection.cameras.genicam import GenICamCamera
from inspection.cameras.options import GenICamOptions
from inspection.errors import ConfigInvalid
from tests.cameras.genicam import Start
from tests.support.cameras import take
from tests.support.namespaces import cameras_behind_a_switch

pytestmark = pytest.mark.line


def test_a_usb_camera_is_asked_for_by_its_serial_number(opened: Start) -> None:
    # There is no such camera on any machine that runs this; without a USB bus the search itself fails, and says so.
    with pytest.raises(CameraLost):
        opened(address="NO-SUCH-SERIAL", trigger="free")


@pytest.mark.parametrize(("name", "dtype"), [("Mono8", np.uint8), ("Mono12p", np.uint16)])
def test_a_usb3_vision_camera_streams_by_the_same_way(name: str, dtype: type) -> None:
    # A simulated one: it is reached within the process, the protocol and everything after it is the real one.
    fake = FakeU3vCamera(width=64, height=48, pixel_format=name)
    options = GenICamOptions(kind="genicam", address="U3V-1", trigger="free", width=32, height=24)
    camera = GenICamCamera(options, "side", connect=fake.connect)
    camera.start()
    try:
        frames = take(camera, 4)
        facts = camera.facts()
        assert fake.acquiring()
    finally:
        camera.stop()
    assert not fake.acquiring()
    assert [frame.number for frame in frames] == [1, 2, 3, 4]
    assert frames[0].pixels is not None
    assert (frames[0].pixels.shape, frames[0].pixels.dtype) == ((24, 32), dtype)
    assert (facts["transport"], facts["packet_size"], facts["socket_buffer"]) == ("u3v", None, None)
    stamps = [frame.device_ns or 0 for frame in frames]
    assert stamps == sorted(stamps)


def test_a_trigger_for_a_camera_that_has_none_is_refused() -> None:
    fake = FakeU3vCamera()
    options = GenICamOptions(kind="genicam", address="U3V-1", trigger="software")
    with pytest.raises(ConfigInvalid, match="has no trigger"):
        GenICamCamera(options, "side", connect=fake.connect).start()


TWO_CAMERAS = """
import json, sys, time
from inspection.cameras.camera import CameraLost
from inspection.cameras.open import open_camera
from inspection.cameras.options import GenICamOptions

def started(address):
    options = GenICamOptions(kind="genicam", address=address, width=1024, height=1024, trigger="software")
    camera = open_camera(options, view=address)
    for _ in range(20):  # the cameras may still be booting
        try:
            camera.start()
            return camera
        except CameraLost:
            time.sleep(0.2)
    camera.start()
    return camera

cameras = [started(address) for address in sys.argv[1:]]
seen = []
for _ in range(10):
    for camera in cameras:
        camera.trigger()
    seen.append([(frame.number, frame.damage) for camera in cameras for frame in [camera.frame(20)]])
print(json.dumps({"seen": seen, "facts": [camera.facts() for camera in cameras]}))
for camera in cameras:
    camera.stop()
"""


@pytest.mark.slow
def test_two_cameras_of_one_network_answer_each_to_its_own_trigger() -> None:
    with cameras_behind_a_switch(2) as network:
        told = json.loads(network.python(TWO_CAMERAS, *network.addresses))
    assert told["seen"] == [[[number, None], [number, None]] for number in range(1, 11)]
    assert [facts["serial"] for facts in told["facts"]] == ["GV01", "GV02"]
    # The largest packet that the way allows was found: jumbo frames here.
    assert [8000 < facts["packet_size"] <= 9000 for facts in told["facts"]] == [True, True]
