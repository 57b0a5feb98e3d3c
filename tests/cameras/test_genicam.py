"""GenICam cameras over their real protocol: settings, triggers, ids, losses, and cameras that die and come back."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inspection.cameras.camera import Camera, CameraLost
from inspection.cameras.options import GenICamOptions
from inspection.errors import ConfigInvalid
from inspection.parts import Frame
from tests.support.cameras import ADDRESS, Aravis, OwnImages, error_of, take, wait_for
from tests.support.images import surface
from tests.support.namespaces import cameras_behind_a_switch

viva = pytest.importorskip("viva_genicam")

from viva_genicam.testing import FakeGigeCamera, FakeU3vCamera  # noqa: E402

from inspection.cameras.genicam import FrameCount, GenICamCamera  # noqa: E402

pytestmark = pytest.mark.line

Start = Callable[..., Camera]
StartAravis = Callable[..., Aravis]
SMALL = {"width": 256, "height": 64}
FAST = {"AcquisitionFrameRate": 100.0}


@contextmanager
def viva_fake(**options: Any) -> Iterator[Any]:
    fake = FakeGigeCamera(**{"width": 320, "height": 240, "fps": 50, "bind_ip": ADDRESS, **options})
    with fake:
        yield fake


def values(frame: Frame) -> np.ndarray[Any, np.dtype[np.int64]]:
    assert frame.pixels is not None, frame.damage
    return frame.pixels.astype(np.int64)


# ---------------------------------------------------------------- pixels


@pytest.mark.parametrize(("pixel_format", "dtype"), [("Mono8", np.uint8), ("Mono16", np.uint16)])
def test_mono_frames_arrive_as_the_camera_made_them(
    aravis: StartAravis, opened: Start, pixel_format: str, dtype: type
) -> None:
    aravis()
    camera = opened(trigger="free", pixel_format=pixel_format, features=FAST, **SMALL)
    first, second = take(camera, 2)
    assert first.pixels is not None
    assert (first.pixels.shape, first.pixels.dtype) == ((64, 256), dtype)
    assert (first.pixel_format, first.damage) == (pixel_format, None)
    # The fake draws a ramp along the diagonal that moves by one with each frame: 0..254, in 16 bit 256 times as
    # steep and 0..65534.
    steps = {1, -254} if dtype is np.uint8 else {256, 256 - 65535}
    assert set(np.unique(np.diff(values(first), axis=1))) <= steps
    moved = second.number - first.number
    np.testing.assert_array_equal(values(second)[:, :-moved], values(first)[:, moved:])


def test_rgb_frames_arrive_with_red_first(aravis: StartAravis, opened: Start) -> None:
    aravis()
    (frame,) = take(opened(trigger="free", pixel_format="RGB8", width=255, height=8), 1)
    assert frame.pixel_format == "RGB8"
    # The fake's colours run through the usual scale from dark blue (its lowest value) to dark red.
    row = values(frame)[0]
    darkest_blue = int(np.argmax((row[:, 0] == 0) & (row[:, 1] == 0) & (row[:, 2] == 132)))
    scale = np.roll(row, -darkest_blue, axis=0)
    assert (np.diff(scale[32:220, 0]) >= 0).all()
    assert (np.diff(scale[32:220, 2]) <= 0).all()


def test_every_pixel_of_an_own_image_arrives_in_its_place_and_in_order(
    own_images: Callable[[list[bytes]], OwnImages], opened: Start
) -> None:
    images = [surface(seed, 240, 320) for seed in range(4)]
    own_images([image.tobytes() for image in images])
    camera = opened(trigger="software", pixel_format="Mono8", width=320, height=240)
    for index in range(6):
        camera.trigger()
        (frame,) = take(camera, 1)
        np.testing.assert_array_equal(frame.pixels, images[index % 4])


@pytest.mark.parametrize("pattern", ["RG", "GR", "GB", "BG"])
def test_a_red_part_is_red_through_a_camera_with_colour_filters(
    own_images: Callable[[list[bytes]], OwnImages], opened: Start, pattern: str
) -> None:
    red = np.zeros((48, 64), np.uint8)  # what the sensor sees: light behind the red filters alone
    y, x = divmod({"RG": 0, "GR": 1, "GB": 2, "BG": 3}[pattern], 2)
    red[y::2, x::2] = 201
    own_images([red.tobytes()])
    (frame,) = take(opened(trigger="free", pixel_format=f"Bayer{pattern}8", width=64, height=48), 1)
    np.testing.assert_array_equal(frame.pixels, np.broadcast_to(np.array([201, 0, 0]), (48, 64, 3)))


def test_each_bayer_mosaic_gives_the_same_colours(aravis: StartAravis, opened: Start) -> None:
    aravis()
    seen = {}
    for mosaic in ("RG", "GR", "GB", "BG"):
        camera = opened(trigger="free", pixel_format=f"Bayer{mosaic}8", width=512, height=16)
        (frame,) = take(camera, 1)
        assert (values(frame).shape, frame.pixel_format) == ((16, 512, 3), f"Bayer{mosaic}8")
        # The camera's own ramp jumps once in 255 pixels; there the neighbours that are averaged have nothing in common.
        inner = values(frame)[8, 4:-4]
        smooth = np.abs(np.diff(values(frame)[8, 2:-1], axis=0)).max(axis=1)
        seen[mosaic] = inner[np.maximum(smooth[1:-2][: len(inner)], smooth[2:-1][: len(inner)]) <= 8]
        camera.stop()
    for mosaic, colours in seen.items():
        assert len(colours) > 300
        distance = np.abs(colours[:, None] - seen["RG"][None]).max(axis=2).min(axis=1)
        assert distance.max() <= 8, mosaic


@pytest.mark.parametrize(
    ("name", "highest"), [("Mono10p", 1023), ("Mono12p", 4095), ("Mono12Packed", 4095), ("Mono10Packed", 1023)]
)
def test_ten_and_twelve_bit_keep_their_depth(gvcp: None, opened: Start, name: str, highest: int) -> None:
    with viva_fake(pixel_format=name):
        (frame,) = take(opened(trigger="free"), 1)
    assert frame.pixels is not None
    assert (frame.pixels.dtype, frame.pixels.shape, frame.pixel_format) == (np.uint16, (240, 320), name)
    # The fake's bytes rise by 7 without end, so the pixels take every value: none is lost, none is stretched.
    assert 0.95 * highest < frame.pixels.max() <= highest
    assert frame.pixels.min() < 0.05 * highest


@pytest.mark.parametrize("name", ["BayerRG12p", "BayerGB10p", "BayerBG16"])
def test_deep_bayer_frames_become_deep_rgb(gvcp: None, opened: Start, name: str) -> None:
    with viva_fake(pixel_format=name):
        (frame,) = take(opened(trigger="free"), 1)
    assert frame.pixels is not None
    assert (frame.pixels.dtype, frame.pixels.shape) == (np.uint16, (240, 320, 3))


def test_a_format_that_is_no_image_is_refused(gvcp: None, opened: Start) -> None:
    with viva_fake(pixel_format="Coord3D_C16"):
        camera = opened(trigger="free")
        with pytest.raises(ConfigInvalid, match="Coord3D_C16, which is not read here"):
            camera.frame(20)


# ---------------------------------------------------------------- triggers


def test_a_software_trigger_makes_one_frame_and_none_comes_without(aravis: StartAravis, opened: Start) -> None:
    aravis()
    camera = opened(trigger="software", **SMALL)
    assert camera.triggered
    for expected in (1, 2, 3):
        camera.trigger()
        (frame,) = take(camera, 1)
        assert frame.number == expected
        assert camera.frame(0.3) is None


def test_every_software_trigger_reaches_the_camera_once(gvcp: None, opened: Start) -> None:
    with viva_fake() as fake:
        camera = opened(trigger="software")
        for expected in range(1, 6):
            camera.trigger()
            assert take(camera, 1)[0].number == expected
        assert fake.software_triggers() == 5


def test_a_camera_that_runs_free_needs_no_trigger(aravis: StartAravis, opened: Start) -> None:
    aravis()
    camera = opened(trigger="free", features=FAST, **SMALL)
    assert not camera.triggered
    assert [frame.number for frame in take(camera, 5)] == [1, 2, 3, 4, 5]


def test_a_camera_that_waits_for_a_wire_stays_silent_and_is_not_lost(aravis: StartAravis, opened: Start) -> None:
    # Nothing can pulse the fake's input, so this sees that it waits for it, and that a quiet camera is not a dead one.
    aravis()
    camera = opened(trigger="line0", **SMALL)
    assert not camera.triggered
    assert camera.frame(3.5) is None  # several signs of life long


def test_a_trigger_mode_that_was_left_behind_is_overwritten(aravis: StartAravis, opened: Start) -> None:
    aravis()
    before = opened(trigger="line0", **SMALL)
    assert before.frame(0.3) is None
    before.stop()
    assert len(take(opened(trigger="free", **SMALL), 3)) == 3


def test_offsets_that_were_left_behind_are_overwritten(gvcp: None, opened: Start) -> None:
    with viva_fake() as fake:
        offset = fake.REGISTERS["OffsetX"]
        opened(trigger="free", width=128, height=64, features={"OffsetX": 32}).stop()
        assert int.from_bytes(fake.peek(offset, 4)) == 32
        camera = opened(trigger="free", width=320, height=240)
        assert int.from_bytes(fake.peek(offset, 4)) == 0
        assert values(take(camera, 1)[0]).shape == (240, 320)


# ---------------------------------------------------------------- settings


def test_settings_reach_the_camera(gvcp: None, opened: Start) -> None:
    with viva_fake() as fake:
        # What YAML reads of `Off` is false.
        features = {"ExposureTime": 1234, "ExposureAuto": False, "Gain": 3.5, "DeviceUserID": "top"}
        camera = opened(trigger="free", width=160, height=120, pixel_format="Mono16", features=features)
        assert np.frombuffer(fake.peek(fake.REGISTERS["ExposureTime"], 8), ">f8")[0] == 1234
        assert fake.peek(fake.REGISTERS["DeviceUserID"], 4) == b"top\0"
        facts = camera.facts()
    assert (facts["width"], facts["height"], facts["pixel_format"]) == (160, 120, "Mono16")


def test_an_unknown_feature_names_its_nearest_neighbours(aravis: StartAravis, opened: Start) -> None:
    aravis()
    with pytest.raises(ConfigInvalid, match="no feature ExposureTme") as caught:
        opened(features={"ExposureTme": 500})
    assert "ExposureTimeAbs" in str(caught.value.hint)
    assert "top" in str(caught.value.where)


@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        ({"features": {"ExposureTimeAbs": 1e12}}, "above the maximum", "10 to 1e"),
        ({"features": {"TriggerActivation": "Sideways"}}, "Sideways", "RisingEdge"),
        ({"features": {"DeviceModelName": "mine"}}, "cannot be written", None),
        ({"pixel_format": "Mono9"}, "Mono9", "Mono8, RGB8, Mono16"),
        ({"trigger": "line7"}, "no trigger source 'line7'", "Line0, Software; and `free`"),
        ({"width": 99_999}, "width and height.*above the maximum 2048", None),
    ],
)
def test_a_value_that_the_camera_refuses_is_said_with_what_it_takes(
    aravis: StartAravis, opened: Start, options: dict[str, Any], message: str, hint: str | None
) -> None:
    aravis()
    with pytest.raises(ConfigInvalid, match=message) as caught:
        opened(**options)
    assert hint is None or hint in str(caught.value.hint)
    assert len(take(opened(trigger="free", **SMALL), 1)) == 1  # it was let go


def test_a_packet_size_is_kept_and_the_socket_holds_frames(aravis: StartAravis, opened: Start) -> None:
    aravis()
    camera = opened(trigger="free", packet_size=1400, width=1024, height=1024)
    take(camera, 1)
    facts = camera.facts()
    assert (facts["packet_size"], facts["maker"], facts["model"], facts["serial"]) == (1400, "Aravis", "Fake", "GV01")
    assert isinstance(facts["socket_buffer"], int)
    assert facts["socket_buffer"] >= 212_992  # what a socket has that nobody widened


def test_the_camera_s_own_clock_comes_in_nanoseconds(aravis: StartAravis, opened: Start) -> None:
    aravis()
    frames = take(opened(trigger="free", features={"AcquisitionFrameRate": 20.0}, **SMALL), 6)
    stamps = [frame.device_ns for frame in frames if frame.device_ns is not None]
    assert len(stamps) == 6
    # The fake takes its clock from this machine's, so it can be compared; a frame every 50 ms.
    assert abs(stamps[-1] - time.time_ns()) < 60e9
    per_frame = (stamps[-1] - stamps[1]) / (frames[-1].number - frames[1].number)
    assert per_frame == pytest.approx(50e6, rel=0.5)


# ---------------------------------------------------------------- ids and losses


@given(start=st.integers(1, 65535), steps=st.lists(st.integers(1, 30_000), max_size=30))
def test_ids_of_16_bit_that_skip_zero_become_one_count(start: int, steps: list[int]) -> None:
    count = FrameCount(wraps=True)
    position = start
    assert count.number((position - 1) % 65535 + 1) == 1
    expected = 1
    for step in steps:
        position += step
        expected += step
        assert count.number((position - 1) % 65535 + 1) == expected


def test_after_65535_comes_1_and_that_is_no_gap() -> None:
    count = FrameCount(wraps=True)
    assert [count.number(i) for i in (65534, 65535, 1, 2, 4)] == [1, 2, 3, 4, 6]
    assert count.number(3) == 5  # one that was overtaken
    count.restart()
    assert count.number(40_000) == 6


def test_ids_of_64_bit_do_not_wrap() -> None:
    count = FrameCount(wraps=False)
    assert [count.number(i) for i in (0, 1, 65535, 65536, 65537)] == [1, 2, 65536, 65537, 65538]
    extended = FrameCount(wraps=True)  # GigE Vision's extended ids
    assert [extended.number(i) for i in (65535, 65536, 65537)] == [1, 2, 3]


def test_frames_are_counted_across_the_wrap_of_a_real_camera(aravis: StartAravis, opened: Start) -> None:
    aravis()  # its ids begin near 65400
    frames = take(opened(trigger="free", features={"AcquisitionFrameRate": 200.0}, **SMALL), 200)
    first = frames[0]
    assert [frame.number for frame in frames] == list(range(1, 201))
    # The content proves it: the ramp moves by one with each frame.
    for frame in frames[::20]:
        assert (values(frame)[0, 0] - values(first)[0, 0] - (frame.number - first.number)) % 255 == 0


def test_packets_that_are_sent_again_leave_no_trace_but_a_counter(gvcp: None, opened: Start) -> None:
    with viva_fake(drop_packets=[(3, 5), (5, 7), (5, 8), (7, 1)]):
        camera = opened(trigger="free", packet_size=1500)
        frames = take(camera, 10)
        facts = camera.facts()
    assert [frame.number for frame in frames] == list(range(1, 11))
    assert all(frame.damage is None and frame.pixels is not None for frame in frames)
    assert (facts["resend_requested"], facts["resend_recovered"], facts["incomplete"]) == (4, 4, 0)


def test_a_frame_with_missing_packets_is_handed_out_as_damaged_and_without_pixels(gvcp: None, opened: Start) -> None:
    with viva_fake(packet_resend=False, drop_packets=[(3, 5), (5, 7), (5, 8), (7, 1)]):
        camera = opened(trigger="free", packet_size=1500)
        frames = take(camera, 10)
        facts = camera.facts()
    assert [frame.number for frame in frames] == list(range(1, 11))
    damage = {frame.number: frame.damage for frame in frames if frame.damage}
    # 320 x 240 bytes in packets of 1500, of which 36 are headers: 53, one leader, one trailer.
    assert damage == {
        3: "1 of 55 packets is missing.",
        5: "2 of 55 packets are missing.",
        7: "1 of 55 packets is missing.",
    }
    assert all((frame.pixels is None) == (frame.damage is not None) for frame in frames)
    assert (facts["incomplete"], facts["packets_missing"], facts["resend_recovered"]) == (3, 4, 0)


def test_on_a_lossy_wire_every_frame_is_accounted_for(aravis: StartAravis, opened: Start) -> None:
    aravis("-r", "20")  # loses 2 % of its packets, and does not send them again
    camera = opened(trigger="free", packet_size=1400, features=FAST, **SMALL)
    frames = take(camera, 100)
    numbers = [frame.number for frame in frames]
    facts = camera.facts()
    damaged = sum(frame.damage is not None for frame in frames)
    assert damaged > 0
    assert numbers == sorted(set(numbers))
    gaps = numbers[-1] - numbers[0] + 1 - len(numbers)
    assert isinstance(facts["missed"], int)
    assert isinstance(facts["incomplete"], int)
    assert facts["missed"] >= gaps
    assert facts["incomplete"] >= damaged


# ---------------------------------------------------------------- cameras that go and come


def test_a_camera_that_loses_its_power_is_noticed_and_starts_again(aravis: StartAravis, opened: Start) -> None:
    fake = aravis()
    camera = opened(trigger="free", **SMALL)
    last = take(camera, 3)[-1].number
    fake.off()
    assert isinstance(error_of(camera), CameraLost)
    with pytest.raises(CameraLost, match="no GigE Vision camera answers"):
        camera.start()
    fake.on()
    camera.start()
    assert take(camera, 2)[0].number == last + 1
    complete = camera.facts()["complete"]
    assert isinstance(complete, int)
    assert complete >= 5  # counters go on over a restart


def test_a_camera_that_hangs_holds_nobody_up(aravis: StartAravis, opened: Start) -> None:
    fake = aravis()
    camera = opened(trigger="software", **SMALL)
    camera.trigger()
    take(camera, 1)
    fake.freeze()
    # The library's own call waits for 8 s, four times as long as any of these may take.
    for act in (camera.trigger, lambda: camera.frame(0.1), camera.trigger, lambda: camera.frame(0.1)):
        began = time.monotonic()
        act()
        assert time.monotonic() - began < 2
    assert "not answered" in str(error_of(camera))
    with pytest.raises(CameraLost):
        camera.trigger()
    began = time.monotonic()
    camera.stop()
    assert time.monotonic() - began < 4
    fake.thaw()

    def again() -> bool:
        try:
            camera.start()
        except CameraLost:
            return False
        return True

    wait_for(again, 60)
    camera.trigger()
    take(camera, 1)


def test_a_camera_that_somebody_else_takes_over_is_lost(gvcp: None, opened: Start) -> None:
    with viva_fake() as fake:
        camera = opened(trigger="software")
        fake.revoke_control()
        assert "taken control" in str(error_of(camera))


def test_a_camera_that_somebody_else_controls_is_refused(gvcp: None, opened: Start) -> None:
    with viva_fake():
        opened(trigger="free")
        with pytest.raises(CameraLost) as caught:
            opened(trigger="free")
    assert "another application" in str(caught.value.hint)


def test_who_waits_for_a_frame_is_woken_when_the_camera_is_stopped(aravis: StartAravis, opened: Start) -> None:
    aravis()
    camera = opened(trigger="software", **SMALL)
    got: list[Frame | None] = []
    waiting = threading.Thread(target=lambda: got.append(camera.frame(60)))
    waiting.start()
    camera.stop()
    camera.stop()
    waiting.join(20)
    assert got == [None]
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("control top")]
    with pytest.raises(CameraLost, match="not started"):
        camera.trigger()


class Beneath:
    """A real camera whose library fails in calls that a test names, in a way that the library has no error for."""

    def __init__(self, camera: Any) -> None:
        self._camera = camera
        self.failing: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        if name in self.failing:
            raise RuntimeError(f"{name} failed inside")
        return getattr(self._camera, name)

    def trigger_software(self) -> None:
        if "trigger_software" in self.failing:
            raise RuntimeError("trigger_software failed inside")
        self._camera.trigger_software()


def beneath() -> Beneath:
    (device,) = viva.discover(timeout_ms=1000, iface=ADDRESS)
    return Beneath(viva.connect_gige(device, iface=ADDRESS))


@pytest.mark.parametrize("failing", ["trigger_software", "read_register"])
def test_a_library_that_fails_in_its_own_way_makes_a_lost_camera_and_no_deaf_one(gvcp: None, failing: str) -> None:
    with viva_fake():
        camera = beneath()
        top = GenICamCamera(
            GenICamOptions(kind="genicam", address=ADDRESS, packet_size=8000), "top", connect=lambda: camera
        )
        top.start()
        try:
            top.trigger()
            assert take(top, 1)[0].number == 1
            camera.failing.add(failing)
            top.trigger()
            assert f"RuntimeError: {failing} failed inside" in str(error_of(top))
            with pytest.raises(CameraLost, match="takes no trigger"):
                top.trigger()
        finally:
            camera.failing.clear()
            top.stop()
        camera = beneath()
        top.start()  # another connection, and all is well
        top.trigger()
        assert len(take(top, 1)) == 1
        top.stop()


def test_stop_never_raises_and_says_what_could_not_be_closed(gvcp: None, opened: Start) -> None:
    with viva_fake():
        camera = opened(trigger="free")
        take(camera, 3)
        before = camera.facts()
        assert isinstance(before["complete"], int)
        assert before["complete"] >= 3
        assert before["unclean"] == 0
        camera._stream.close()  # type: ignore[attr-defined]  # as a library does whose stream broke by itself
        camera.stop()
        facts = camera.facts()
        assert facts["unclean"] == 1
        assert "stream is closed" in str(facts["unclean_why"])
        assert facts["complete"] == before["complete"]  # what was counted stays counted
        camera.start()
        take(camera, 1)


def test_an_address_without_a_camera_is_a_lost_camera(opened: Start) -> None:
    with pytest.raises(CameraLost, match="no GigE Vision camera answers"):
        opened(address="127.0.0.77")


# ---------------------------------------------------------------- USB3 Vision


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


# ---------------------------------------------------------------- several cameras

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
