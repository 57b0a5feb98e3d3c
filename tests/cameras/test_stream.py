"""Video files and a real RTSP server: right colours, right counts, and what happens when the other end is gone."""

from __future__ import annotations

import datetime
import functools
import ipaddress
import signal
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from inspection.cameras.camera import Camera, CameraEnded, CameraLost
from inspection.cameras.open import open_camera
from inspection.cameras.options import StreamOptions
from inspection.cameras.reader import WAITING
from inspection.errors import ConfigInvalid
from inspection.parts import Frame
from tests.support.cameras import SYSTEM_PYTHON, error_of, system_python, take, wait_for

av = pytest.importorskip("av")

pytestmark = pytest.mark.line

Open = Callable[..., Camera]
RED = (255, 0, 0)
RATE = 25
SERVER = Path(__file__).parents[1] / "support" / "rtsp_server.py"


def video(path: Path, codec: str, pixels: str, count: int = 10, colour: Any = RED) -> Path:
    """A file of `count` frames of one colour; a number as colour: that value, and the frame's index more."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=RATE)
        stream.width, stream.height, stream.pix_fmt = 64, 48, pixels
        for index in range(count):
            if isinstance(colour, tuple):
                image = np.full((48, 64, 3), colour, np.uint8)
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            else:
                dtype = np.uint8 if pixels == "gray" else np.uint16
                frame = av.VideoFrame.from_ndarray(np.full((48, 64), colour + index, dtype), format=pixels)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.fixture
def opened() -> Iterator[Open]:
    with ExitStack() as stack:

        def start(url: str | Path, **options: Any) -> Camera:
            camera = open_camera(StreamOptions(kind="stream", url=str(url), **options), view="top")
            stack.callback(camera.stop)
            camera.start()
            return camera

        yield start


def all_of(camera: Camera) -> list[Frame]:
    frames: list[Frame] = []
    while True:
        try:
            frames += take(camera, 1)
        except CameraEnded:
            return frames


@pytest.mark.parametrize(
    ("name", "codec", "pixels"),
    [
        ("h264.mp4", "libx264", "yuv420p"),
        ("mjpeg.avi", "mjpeg", "yuvj420p"),
        ("lossless.mkv", "ffv1", "yuv444p"),
        ("rgb.mkv", "ffv1", "bgr0"),
    ],
)
def test_a_red_video_arrives_red(tmp_path: Path, opened: Open, name: str, codec: str, pixels: str) -> None:
    frames = all_of(opened(video(tmp_path / name, codec, pixels), realtime=False))
    assert [frame.number for frame in frames] == list(range(1, 11))
    for frame in frames:
        assert frame.pixels is not None
        assert (frame.pixels.shape, frame.pixels.dtype, frame.pixel_format) == ((48, 64, 3), np.uint8, "RGB8")
        assert np.abs(frame.pixels.astype(int) - RED).max() <= 3
    assert [frame.device_ns for frame in frames] == [index * 40_000_000 for index in range(10)]


def test_a_video_in_the_colours_of_high_definition_arrives_red(tmp_path: Path, opened: Open) -> None:
    # Red in ITU-R BT.709, limited range, and the file says so; read as BT.601 it would be (233, 21, 0).
    path = tmp_path / "hd.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"x264-params": "colormatrix=bt709", "crf": "1"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        planes = np.concatenate([np.full(64 * 48, 63), np.full(32 * 24, 102), np.full(32 * 24, 240)]).astype(np.uint8)
        frame = av.VideoFrame.from_ndarray(planes.reshape(72, 64), format="yuv420p")
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    (frame,) = all_of(opened(path))
    assert np.abs(frame.pixels.astype(int) - RED).max() <= 4


def test_the_luminance_alone_is_mono(tmp_path: Path, opened: Open) -> None:
    frames = all_of(opened(video(tmp_path / "red.mkv", "ffv1", "yuv444p"), mono=True, realtime=False))
    assert {frame.pixel_format for frame in frames} == {"Mono8"}
    assert all(frame.pixels is not None and (np.abs(frame.pixels.astype(int) - 76) <= 1).all() for frame in frames)


@pytest.mark.parametrize(("pixels", "name", "first"), [("gray", "Mono8", 50), ("gray10le", "Mono10", 900)])
def test_a_video_without_colour_is_mono_at_its_own_depth(
    tmp_path: Path, opened: Open, pixels: str, name: str, first: int
) -> None:
    frames = all_of(opened(video(tmp_path / "grey.mkv", "ffv1", pixels, colour=first), realtime=False))
    assert {frame.pixel_format for frame in frames} == {name}
    for index, frame in enumerate(frames):
        np.testing.assert_array_equal(frame.pixels, np.full((48, 64), first + index))


def test_a_file_comes_at_its_own_rate(tmp_path: Path, opened: Open) -> None:
    frames = all_of(opened(video(tmp_path / "grey.mkv", "ffv1", "gray", colour=0)))
    assert len(frames) == 10
    assert frames[-1].received - frames[0].received >= 9 / RATE - 0.02


def test_a_file_that_is_not_realtime_waits_to_be_read_and_loses_nothing(tmp_path: Path, opened: Open) -> None:
    camera = opened(video(tmp_path / "grey.mkv", "ffv1", "gray", count=60, colour=0), realtime=False)
    time.sleep(0.3)  # far longer than decoding takes
    assert [frame.number for frame in all_of(camera)] == list(range(1, 61))
    assert (camera.facts()["decoded"], camera.facts()["dropped"]) == (60, 0)


def test_frames_that_wait_at_the_stop_are_counted(tmp_path: Path, opened: Open) -> None:
    camera = opened(video(tmp_path / "grey.mkv", "ffv1", "gray", count=60, colour=0), realtime=False)
    take(camera, 1)
    wait_for(lambda: camera.facts()["decoded"] == 1 + WAITING + 1)  # so many wait, and one to join them
    camera.stop()
    assert (camera.facts()["decoded"], camera.facts()["discarded"]) == (1 + WAITING + 1, WAITING + 1)


def test_a_looped_file_goes_on_in_number_and_time(tmp_path: Path, opened: Open) -> None:
    camera = opened(video(tmp_path / "grey.mkv", "ffv1", "gray", colour=20), realtime=False, loop=True)
    frames = take(camera, 25)
    assert [frame.number for frame in frames] == list(range(1, 26))
    assert [frame.device_ns for frame in frames] == [index * 40_000_000 for index in range(25)]
    assert [int(frame.pixels[0, 0]) for frame in frames if frame.pixels is not None] == [
        20 + index % 10 for index in range(25)
    ]


def test_a_file_can_be_started_again(tmp_path: Path, opened: Open) -> None:
    camera = opened(video(tmp_path / "grey.mkv", "ffv1", "gray", colour=0), realtime=False)
    assert len(all_of(camera)) == 10
    with pytest.raises(CameraEnded):  # and stays so
        camera.frame(0.1)
    camera.stop()
    camera.stop()
    camera.start()
    assert take(camera, 1)[0].number == 11


def test_a_frame_that_cannot_be_decoded_is_counted_and_handed_out_as_damaged(tmp_path: Path, opened: Open) -> None:
    path = video(tmp_path / "red.avi", "mjpeg", "yuvj420p")
    data = bytearray(path.read_bytes())
    starts = [at for at in range(len(data)) if data[at : at + 2] == b"\xff\xd8"]
    assert len(starts) == 10
    fourth = starts[3]
    data[fourth : starts[4] - 8] = bytes(starts[4] - 8 - fourth)
    path.write_bytes(data)
    camera = opened(path, realtime=False)
    frames = all_of(camera)
    assert [frame.number for frame in frames if frame.damage is not None] == [4]
    assert [frame.number for frame in frames if frame.pixels is not None] == [1, 2, 3, 5, 6, 7, 8, 9, 10]
    assert camera.facts()["damaged"] == 1


@pytest.mark.parametrize("content", [None, b"", b"no video, and never was"])
def test_what_is_no_video_is_said_at_the_start(tmp_path: Path, opened: Open, content: bytes | None) -> None:
    path = tmp_path / "video.mp4"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigInvalid, match="cannot be opened"):
        opened(path)


def test_a_stream_cannot_be_triggered(tmp_path: Path, opened: Open) -> None:
    camera = opened(video(tmp_path / "grey.mkv", "ffv1", "gray", colour=0))
    assert not camera.triggered
    with pytest.raises(ConfigInvalid, match="cannot be triggered"):
        camera.trigger()


def test_a_password_stays_out_of_messages_and_facts(opened: Open) -> None:
    with pytest.raises(CameraLost, match="cannot be opened") as caught:
        opened("rtsp://user:secret@127.0.0.1:1/stream")
    assert "secret" not in str(caught.value)
    assert "rtsp://127.0.0.1:1/stream" in str(caught.value)


# ---------------------------------------------------------------- TLS


class Secured:
    """An https server of a folder, with a certificate that it signed itself for 127.0.0.1."""

    def __init__(self, folder: Path) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "camera")])
        day, now = datetime.timedelta(days=1), datetime.datetime.now(datetime.UTC)
        address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        signed = (
            x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now - day, now + day)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(address, critical=False)
            .sign(key, hashes.SHA256())
        )
        self.certificate, secret = folder / "camera.pem", folder / "camera.key"
        self.certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        plain = serialization.NoEncryption()
        secret.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, secret)
        self.asked: list[str] = []
        asked = self.asked

        class Door(SimpleHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append(self.path)
                super().do_GET()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Door, directory=str(folder)))
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a client that hangs up in the handshake
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def url(self, path: str, *, host: str = "127.0.0.1") -> str:
        return f"https://{host}:{self._server.server_port}/{path}"

    def off(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def secured(tmp_path: Path) -> Iterator[Secured]:
    video(tmp_path / "red.avi", "mjpeg", "yuvj420p")
    server = Secured(tmp_path)
    yield server
    server.off()


def test_a_server_with_a_certificate_of_its_own_is_refused_until_it_is_named(secured: Secured, opened: Open) -> None:
    with pytest.raises(CameraLost, match="cannot be opened") as caught:
        opened(secured.url("red.avi"))
    assert "`ca`" in (caught.value.hint or "")
    assert secured.asked == []  # not a word before it is known
    frames = take(opened(secured.url("red.avi"), ca=secured.certificate), 3)  # of ten: who is slow gets the newest
    assert frames[0].number < frames[1].number < frames[2].number
    assert frames[0].pixels is not None
    assert np.abs(frames[0].pixels.astype(int) - RED).max() <= 3


def test_a_certificate_for_another_name_is_refused(secured: Secured, opened: Open) -> None:
    with pytest.raises(CameraLost, match="cannot be opened"):
        opened(secured.url("red.avi", host="localhost"), ca=secured.certificate)
    assert secured.asked == []


def test_a_certificate_that_this_machine_trusts_is_taken(
    secured: Secured, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(secured.certificate))
    assert len(take(opened(secured.url("red.avi")), 3)) == 3


def test_who_says_so_takes_any_certificate(secured: Secured, opened: Open) -> None:
    assert len(take(opened(secured.url("red.avi"), verify=False), 3)) == 3


def test_an_rtsps_server_is_verified_too(secured: Secured, opened: Open) -> None:
    # The server speaks no RTSP; whether it is asked at all shows whether its certificate was taken.
    url = secured.url("red").replace("https", "rtsps")
    for ca, asked in ((None, False), (secured.certificate, True)):
        heard: list[bytes] = []
        secured._server.finish_request = lambda request, _, heard=heard: heard.append(request.recv(7))  # type: ignore
        with pytest.raises(CameraLost, match="cannot be opened"):
            opened(url, ca=ca)
        assert (b"OPTIONS" in heard) is asked, heard


def test_a_playlist_whose_pieces_cannot_be_verified_is_refused(secured: Secured, opened: Open, tmp_path: Path) -> None:
    video(tmp_path / "red.ts", "libx264", "yuv420p")
    (tmp_path / "red.m3u8").write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nred.ts\n#EXT-X-ENDLIST\n")
    with pytest.raises(ConfigInvalid, match="playlist") as caught:
        opened(secured.url("red.m3u8"), ca=secured.certificate)
    assert "`verify: false`" in (caught.value.hint or "")


@pytest.mark.parametrize("content", [None, b"", b"no certificate"])
def test_a_file_without_certificates_is_said_at_the_start(
    secured: Secured, opened: Open, tmp_path: Path, content: bytes | None
) -> None:
    ca = tmp_path / "plant.pem"
    if content is not None:
        ca.write_bytes(content)
    with pytest.raises(ConfigInvalid, match="no certificate can be read") as caught:
        opened(secured.url("red.avi"), ca=ca)
    assert "plant.pem" in (caught.value.where or "")


@pytest.mark.parametrize("options", [{"url": "rtsp://host/a"}, {"url": "https://host/a", "verify": False}])
def test_certificates_that_would_not_be_looked_at_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="is for a server that is verified"):
        StreamOptions(kind="stream", ca=Path("plant.pem"), **options)


# ---------------------------------------------------------------- RTSP


class Server:
    """The RTSP server, which can be switched off and on at the same port."""

    def __init__(self, colour: str = "ffff0000") -> None:
        self._colour = colour
        self.port = 0
        self.on()

    def on(self) -> None:
        self.process = subprocess.Popen(
            [SYSTEM_PYTHON, str(SERVER), self._colour, str(self.port)], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())

    def off(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def url(self, path: str) -> str:
        return f"rtsp://127.0.0.1:{self.port}{path}"


@pytest.fixture
def server() -> Iterator[Server]:
    system_python("GstRtspServer", "gir1.2-gst-rtsp-server-1.0")
    running = Server()
    yield running
    running.off()


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/h264", "/mjpeg"])
def test_a_red_stream_arrives_red_and_in_order(server: Server, opened: Open, path: str) -> None:
    camera = opened(server.url(path))
    frames = take(camera, 10)
    for frame in frames:
        assert frame.pixels is not None
        assert frame.pixels.shape == (240, 320, 3)
        assert np.abs(frame.pixels.astype(int) - RED).max() <= 6
    stamps = [frame.device_ns for frame in frames if frame.device_ns is not None]
    assert len(set(stamps)) == 10
    assert stamps == sorted(stamps)
    numbers = [frame.number for frame in frames]
    assert numbers == sorted(set(numbers))


@pytest.mark.slow
def test_a_stream_that_nobody_reads_keeps_the_newest_and_counts_the_rest(server: Server, opened: Open) -> None:
    camera = opened(server.url("/mjpeg"))
    take(camera, 1)
    until = time.monotonic() + 60
    while not camera.facts()["dropped"]:
        assert time.monotonic() < until
        time.sleep(0.05)
    numbers = [frame.number for frame in take(camera, 30)]
    dropped = camera.facts()["dropped"]
    assert isinstance(dropped, int)
    assert numbers[-1] - numbers[0] + 1 - len(numbers) <= dropped
    assert numbers[0] > 2 or numbers[-1] > numbers[0] + 29


@pytest.mark.slow
def test_a_server_that_dies_or_freezes_is_noticed_and_streams_again(server: Server, opened: Open) -> None:
    camera = opened(server.url("/h264"), timeout=1.5)
    last = take(camera, 5)[-1].number
    server.off()
    assert isinstance(error_of(camera), CameraLost)
    with pytest.raises(CameraLost, match="cannot be opened"):
        camera.start()
    server.on()
    camera.start()
    assert take(camera, 1)[0].number > last
    server.process.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    assert "nothing came" in str(error_of(camera))
    assert time.monotonic() - began >= 1.0
    with pytest.raises(CameraLost):  # its port is open, but nobody answers
        camera.start()
    server.process.send_signal(signal.SIGCONT)
    camera.start()
    assert len(take(camera, 3)) == 3
