"""GenICam cameras that die, hang, are taken over or fail in their library, and come back."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

pytest.importorskip("viva_genicam")

from inspection.cameras.camera import CameraLost
from inspection.cameras.genicam import GenICamCamera
from inspection.cameras.options import GenICamOptions
from inspection.parts import Frame
from tests.cameras.genicam import SMALL, Start, StartAravis, viva, viva_fake
from tests.support.cameras import ADDRESS, error_of, take, wait_for

pytestmark = pytest.mark.line


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
