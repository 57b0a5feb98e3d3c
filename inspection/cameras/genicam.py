"""GigE Vision and USB3 Vision cameras through GenICam, by viva-genicam."""

from __future__ import annotations

import ipaddress
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

from inspection.cameras import colour, receive
from inspection.cameras.camera import CameraLost
from inspection.cameras.options import GenICamOptions
from inspection.errors import ConfigInvalid, MissingExtra
from inspection.parts import Frame

try:
    import viva_genicam as viva

    from inspection.cameras.control import ControlChannel
    from inspection.cameras.features import Settings
except ImportError as error:  # pragma: no cover - the extra is there in every environment that has tests for it
    raise MissingExtra(
        "GenICam cameras need viva-genicam.", hint="Install it with: pip install 'lightsout-inspection[gige]'"
    ) from error

GVCP_PORT = 3956
# Bootstrap registers of GigE Vision.
STREAM_PORT = 0x0D00
PACKET_SIZE = 0x0D04
TICK_FREQUENCY = 0x093C
HEADERS = 20 + 8 + 8  # IP, UDP and GVSP: what of a packet's size is no pixels

LOOK = 0.1  # seconds between looks at the control channel while no frame comes
FRAMES_IN_SOCKET = 4  # 2048 x 2048 at 20/s: 3 of 60 lost packets in the library's 8 MiB, none in this
COUNTERS = {
    "complete": "frames_complete",
    "incomplete": "frames_incomplete",
    "missed": "frames_missed",
    "too_slow": "frames_backpressure",
    "unsupported": "frames_unsupported",
    "packets": "packets_received",
    "packets_missing": "packets_missing",
    "resend_requested": "resend_requested",
    "resend_recovered": "resend_recovered",
    "resend_unavailable": "resend_unavailable",
}


class FrameCount:
    """Makes one rising count of a camera's frame ids.

    GigE Vision's ids have 16 bit and never are 0 (65535 is followed by 1), so a plain difference would see a loss at
    every wrap; its extended ids and those of USB3 Vision have 64 bit and do not wrap.
    """

    def __init__(self, *, wraps: bool) -> None:
        self._wraps = wraps
        self._last: int | None = None
        self._number = 0

    def restart(self) -> None:
        """The next id continues the count, whatever it is: a camera may begin anew."""
        self._last = None

    def number(self, frame_id: int) -> int:
        """The count that belongs to the id; a gap in the ids is a gap in the count."""
        step = 1 if self._last is None else frame_id - self._last
        if self._wraps and self._last is not None and max(frame_id, self._last) <= 0xFFFF:
            step = (step + 0x7FFF) % 0xFFFF - 0x7FFF  # the shorter way round
        self._last = frame_id
        self._number += step
        return self._number


class GenICamCamera:
    """A GigE Vision or USB3 Vision camera.

    Args:
        options: what to write into it.
        view: whose camera it is, for messages.
        connect: how to get at the camera, where it is not to be found by its address (a simulated USB camera).
    """

    def __init__(self, options: GenICamOptions, view: str, *, connect: Callable[[], viva.Camera] | None = None) -> None:
        self.triggered = options.trigger == "software"
        self._options = options
        self._where = f"{view} ({options.address})"
        self._connect = connect or self._reach
        self._gige = _is_address(options.address)
        self._count = FrameCount(wraps=self._gige)
        self._reading = threading.Lock()  # held while a frame is awaited: the stream must not be closed under it
        self._stopping = threading.Event()
        self._stream: viva.FrameStream | None = None
        self._camera: viva.Camera | None = None
        self._control: ControlChannel | None = None
        self._port = 0
        self._packet = 0  # bytes
        self._tick: int | None = None  # per second
        self._known: dict[str, str | int | float | bool | None] = {}
        self._earlier: Counter[str] = Counter()  # counters of the streams before this one
        self._latest: Counter[str] = Counter()  # and with this one's, as last read
        self._unclean = 0
        self._unclean_why: str | None = None

    def start(self) -> None:
        """Connects, writes every setting, streams.

        Raises:
            CameraLost: nothing answers, or somebody else controls it. ConfigInvalid: a setting that it does not have.
        """
        self.stop()
        try:
            camera = self._connect()
        except viva.GenicamError as error:
            raise CameraLost(f"the camera refuses: {error}.", where=self._where, hint=_IN_USE) from error
        try:
            self._gige = camera.transport == "gige"
            Settings(camera, self._options, self._where).write()
            stream = camera.stream(
                iface=self._interface() if self._gige else None,
                packet_size=self._options.packet_size,
                auto_packet_size=self._gige and self._options.packet_size is None,
                deliver_incomplete=True,
            )
            self._describe(camera)
            camera.acquisition_start()
        except viva.GenicamError as error:
            camera.close()
            raise CameraLost(f"the camera does not stream: {error}.", where=self._where, hint=_IN_USE) from error
        except BaseException:
            camera.close()
            raise
        self._count.restart()
        self._latest = Counter(self._earlier)
        self._camera, self._stream = camera, stream
        self._control = ControlChannel(camera, f"control {self._where}")
        self._stopping.clear()

    def frame(self, timeout: float) -> Frame | None:
        """The next frame; see `Camera.frame`. One with missing packets has `damage` and no pixels."""
        until = time.monotonic() + timeout
        with self._reading:
            stream, control = self._stream, self._control
            if stream is None or control is None:
                raise CameraLost("the camera is not started.", where=self._where)
            while not self._stopping.is_set():
                if control.loss is not None:
                    raise CameraLost(f"the camera is gone: {control.loss}.", where=self._where)
                wait = min(LOOK, max(0.001, until - time.monotonic()))
                try:
                    got = stream.next_frame(timeout_ms=max(1, round(1000 * wait)))
                except viva.TransportError as error:
                    if "timeout" not in str(error):  # the library has one class for both
                        raise CameraLost(f"the stream broke: {error}.", where=self._where) from error
                else:
                    if got is None:
                        raise CameraLost("the stream has ended.", where=self._where)
                    return self._frame(got, time.monotonic())
                if time.monotonic() >= until:
                    return None
        return None

    def trigger(self) -> None:
        """One exposure; the command is sent by the control thread. Raises CameraLost."""
        control = self._control
        if control is None:
            raise CameraLost("the camera is not started.", where=self._where)
        if control.loss is not None or not control.trigger():
            loss = control.loss or "triggers wait for it"
            raise CameraLost(f"the camera takes no trigger: {loss}.", where=self._where)

    def stop(self) -> None:
        """Stops the stream and gives the camera back. Never raises."""
        self._stopping.set()
        with self._reading:
            stream, camera, control = self._stream, self._camera, self._control
            self._earlier = self._counters()
            self._stream = self._camera = self._control = None
            if stream is not None and camera is not None and control is not None:
                steps: tuple[Callable[[], object], ...] = (
                    lambda: control.close(camera.acquisition_stop),
                    lambda: stream.close(),
                )
                for step in steps:
                    try:
                        step()
                    except Exception as error:  # noqa: BLE001 - whatever it was, the next step lets go of more
                        self._note(error)

    def facts(self) -> dict[str, str | int | float | bool | None]:
        """Maker, model, serial, sizes and what the system granted; counters over all starts.

        `unclean`: how often the library failed in a stop or in its counters, and `unclean_why` the last time.
        """
        counters = self._counters()
        return {**self._known, **counters, "unclean": self._unclean, "unclean_why": self._unclean_why}

    def _reach(self) -> viva.Camera:
        if not _is_address(self._options.address):
            return self._reach_usb()
        interface = self._interface()
        for seconds in (
            0.1,
            0.3,
            1.2,
        ):  # the search lasts as long as it may; a camera may take up to a second to answer
            for device in viva.discover(timeout_ms=round(1000 * seconds), iface=interface):
                if device.ip == self._options.address:
                    return viva.connect_gige(device, iface=interface)
        raise CameraLost(
            "no GigE Vision camera answers at this address.",
            where=self._where,
            hint="Look at power and cable; its address must lie in the network of this machine's interface.",
        )

    def _reach_usb(self) -> viva.Camera:
        devices = viva.discover_u3v()
        for device in devices:
            if device.serial == self._options.address:
                return viva.connect_u3v(device)
        found = ", ".join(str(device.serial) for device in devices)
        raise CameraLost(
            "no USB3 Vision camera has this serial number.",
            where=self._where,
            hint=f"Connected: {found}." if found else "None is connected.",
        )

    def _interface(self) -> str:
        """The own address by which the camera is reached: cameras are looked for there and nowhere else."""
        if self._options.interface is not None:
            return self._options.interface
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
                probe.connect((self._options.address, GVCP_PORT))  # chooses the route; nothing is sent
                return str(probe.getsockname()[0])
        except OSError as error:
            raise CameraLost(f"no network leads to it: {error.strerror}.", where=self._where) from error

    def _describe(self, camera: viva.Camera) -> None:
        def read(name: str) -> str | None:
            with suppress(viva.GenicamError):
                return camera.get(name)
            return None

        self._tick = 1_000_000_000  # USB3 Vision counts nanoseconds
        granted = None
        if self._gige:
            frequency = read("GevTimestampTickFrequency") or int.from_bytes(camera.read_register(TICK_FREQUENCY, 8))
            self._tick = int(frequency) or None
            self._packet = int.from_bytes(camera.read_register(PACKET_SIZE)) & 0xFFFF
            self._port = int.from_bytes(camera.read_register(STREAM_PORT)) & 0xFFFF
            payload = int(read("PayloadSize") or 0)
            granted = receive.widen(self._port, FRAMES_IN_SOCKET * payload)
        self._known = {
            "maker": read("DeviceVendorName"),
            "model": read("DeviceModelName"),
            "serial": read("DeviceSerialNumber") or read("DeviceID"),
            "firmware": read("DeviceFirmwareVersion") or read("DeviceVersion"),
            "address": self._options.address,
            "transport": camera.transport,
            "pixel_format": read("PixelFormat"),
            "width": int(read("Width") or 0),
            "height": int(read("Height") or 0),
            "trigger": self._options.trigger,
            "packet_size": self._packet or None,
            "socket_buffer": granted,
        }

    def _counters(self) -> Counter[str]:
        stream = self._stream
        if stream is None:
            return Counter(self._earlier)
        totals = Counter(self._earlier)
        try:
            stats = stream.stats()
            totals.update({name: getattr(stats, of) for name, of in COUNTERS.items()})
        except Exception as error:  # noqa: BLE001 - closed meanwhile, or broken: what was read last remains
            self._note(error)
            return Counter(self._latest)
        if self._gige:
            totals["kernel_dropped"] += receive.dropped(self._port) or 0
        self._latest = totals
        return Counter(totals)

    def _note(self, error: Exception) -> None:
        self._unclean += 1
        self._unclean_why = f"{type(error).__name__}: {error}"

    def _frame(self, got: viva.Frame, received: float) -> Frame:
        damage = None if got.is_complete else self._damage(got)
        readable = colour.is_readable(got.pixel_format)
        pixels = None
        if damage is None:
            if not readable:
                raise ConfigInvalid(
                    f"the camera sends {got.pixel_format}, which is not read here.",
                    where=self._where,
                    hint="Set `pixel_format` to a mono, Bayer, RGB or YUV 4:2:2 format.",
                )
            try:
                pixels = colour.to_pixels(got.payload(), got.pixel_format, got.width, got.height, padding=got.padding_x)
            except colour.WrongSize as error:
                damage = f"The frame is cut short: {error}"
        ticks = got.ts_dev
        return Frame(
            pixels=pixels,
            number=self._count.number(got.block_id),
            received=received,
            device_ns=None if ticks is None or self._tick is None else ticks * 1_000_000_000 // self._tick,
            # Where the packet that names format and size is missing, both are unknown.
            pixel_format=colour.pfnc(got.pixel_format) if readable else "",
            damage=damage,
        )

    def _damage(self, got: viva.Frame) -> str:
        if got.status is viva.FrameStatus.INCOMPLETE:
            missing = got.missing_packets or 0
            if not self._packet:
                return f"{missing} packets are missing."
            total = -(-len(got.payload()) // (self._packet - HEADERS)) + 2  # with leader and trailer
            return f"{missing} of {total} packets {'is' if missing == 1 else 'are'} missing."
        if got.status is viva.FrameStatus.TRAILER_MISSING:
            return "The end of the frame did not arrive."
        return f"The camera reports the frame as faulty (status 0x{got.device_status or 0:04X})."


_IN_USE = "If another application controls it, end that one; a camera lets go of a dead client after some seconds."


def _is_address(text: str) -> bool:
    try:
        return isinstance(ipaddress.ip_address(text), ipaddress.IPv4Address)
    except ValueError:
        return False
