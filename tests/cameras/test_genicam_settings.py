"""Triggers and settings of GenICam cameras over their real protocol."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

pytest.importorskip("viva_genicam")

from inspection.errors import ConfigInvalid
from tests.cameras.genicam import FAST, SMALL, Start, StartAravis, values, viva_fake
from tests.support.cameras import take

pytestmark = pytest.mark.line


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
