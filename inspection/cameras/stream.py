"""Network streams and video files, by PyAV (FFmpeg)."""

from __future__ import annotations

import os
import ssl
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from inspection.cameras.camera import CameraEnded, CameraLost
from inspection.cameras.options import StreamOptions
from inspection.cameras.reader import Reader, sleep_until
from inspection.cameras.url import without_password
from inspection.errors import ConfigInvalid, MissingExtra
from inspection.parts import Frame
from inspection.pixels import Pixels

try:
    import av
    from av.container import InputContainer
except ImportError as error:  # pragma: no cover - the extra is there in every environment that has tests for it
    raise MissingExtra(
        "Video needs PyAV.", hint="Install it with: pip install 'lightsout-inspection[video]'"
    ) from error

# Where systems keep the authorities that they trust, if OpenSSL's own place has no such file: Debian and Arch, Fedora,
# SUSE, Alpine and macOS.
AUTHORITIES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
PLAYLISTS = ("hls", "dash")  # FFmpeg fetches their pieces without looking at certificates (libavformat 62)
# UDP loses packets, and half a picture is worse than a late one.
RTSP = {"rtsp_transport": "tcp", "fflags": "nobuffer", "flags": "low_delay"}


class StreamCamera:
    """A stream whose frames are decoded as they come: network streams keep the newest, files wait to be read.

    `number` counts decoded frames over all starts, `device_ns` is the stream's own time stamp.
    """

    triggered = False

    def __init__(self, options: StreamOptions, view: str) -> None:
        self._options = options
        self._live = "://" in options.url and not options.url.startswith("file://")
        self._where = f"{view} ({without_password(options.url)})"
        self._number = 0
        self._damaged = 0
        self._dropped = 0
        self._discarded = 0
        self._reader: Reader | None = None
        self._known: dict[str, str | int | float | bool | None] = {}

    def start(self) -> None:
        """Connects and begins to decode.

        Raises:
            CameraLost: the server does not answer within `timeout`. ConfigInvalid: there is no such file, or no video.
        """
        self.stop()
        container = self._open()
        self._reader = Reader(
            lambda stopping: self._frames(container, stopping), f"stream {self._where}", live=self._live
        )

    def frame(self, timeout: float) -> Frame | None:
        """The next frame; see `Camera.frame`. One that cannot be decoded has `damage` and no pixels."""
        reader = self._reader
        if reader is None:
            raise CameraLost("the stream is not started.", where=self._where)
        return reader.get(timeout)

    def trigger(self) -> None:
        """A stream runs by itself: raises ConfigInvalid."""
        raise ConfigInvalid("a stream cannot be triggered.", where=self._where)

    def stop(self) -> None:
        """Closes the stream. Never raises."""
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.stop(self._options.timeout + 1)
            self._dropped += reader.dropped
            self._discarded += reader.discarded

    def facts(self) -> dict[str, str | int | float | bool | None]:
        """Codec and size, and counters over all starts.

        `decoded`, of which `damaged`; `dropped`: nobody took them in time; `discarded`: they waited at a stop.
        """
        reader = self._reader
        return {
            **self._known,
            "decoded": self._number,
            "damaged": self._damaged,
            "dropped": self._dropped + (reader.dropped if reader else 0),
            "discarded": self._discarded,
        }

    def _open(self) -> InputContainer:
        options, timeout = self._options, self._options.timeout
        try:
            container = av.open(
                options.url,
                options=(RTSP if options.url.startswith("rtsp") else {}) | self._tls(),
                timeout=(timeout, timeout) if self._live else None,
            )
        except av.FFmpegError as error:
            if self._live:
                hint = _CERTIFICATE if options.secured and options.verify else None
                raise CameraLost(
                    f"the stream cannot be opened: {error.strerror}.", where=self._where, hint=hint
                ) from error
            raise ConfigInvalid(f"the video cannot be opened: {error.strerror}.", where=self._where) from error
        if options.secured and options.verify and container.format.name in PLAYLISTS:
            container.close()
            raise ConfigInvalid(
                "it is a playlist, whose pieces come from servers that cannot be verified.",
                where=self._where,
                hint="Take the camera's `rtsps` address; or write `verify: false`, and protect the network.",
            )
        if not container.streams.video:
            container.close()
            raise ConfigInvalid("there is no video in it.", where=self._where)
        video = container.streams.video[0]
        # Threads of the decoder each hold a frame back: 45 ms from glass to array against 111 ms (1280x720, 30/s).
        video.thread_type = "NONE" if self._live else "AUTO"
        self._known = {
            "url": without_password(options.url),
            "codec": video.codec_context.name,
            "width": video.codec_context.width,
            "height": video.codec_context.height,
            "rate": float(video.average_rate) if video.average_rate else None,
        }
        return container

    def _tls(self) -> dict[str, str]:
        """FFmpeg's options, which take any certificate by default. Also for `http`, which may lead on to `https`."""
        if not (self._live and self._options.verify):
            return {}
        ca = self._options.ca
        if ca is not None:
            try:
                ssl.create_default_context(cafile=ca)
            except OSError as error:  # no such file, or no certificate in it (ssl.SSLError)
                raise ConfigInvalid(
                    f"no certificate can be read: {error.strerror or error}.", where=f"{self._where}, `ca` {ca}"
                ) from error
        trusted = (ca, ssl.get_default_verify_paths().cafile, *AUTHORITIES)
        file = next((str(path) for path in trusted if path is not None and os.path.isfile(path)), None)
        return {"tls_verify": "1"} | ({} if file is None else {"ca_file": file})

    def _frames(self, container: InputContainer, stopping: threading.Event) -> Iterator[Frame]:
        began = time.monotonic()
        first: int | None = None  # time stamp, ns
        shift = newest = 0  # ns: what earlier rounds of a file took; the newest time stamp
        while True:
            for decoded in self._decoded(container):
                stamp = None if decoded is None else _nanoseconds(decoded)
                if stamp is not None:
                    newest = stamp + shift
                    first = newest if first is None else first
                    if self._options.realtime and not self._live:
                        sleep_until(began + (newest - first) / 1e9, stopping)
                if stopping.is_set():
                    return
                self._number += 1
                yield self._frame(decoded, None if stamp is None else newest)
            if self._live:
                raise CameraLost("the stream has ended.", where=self._where)
            if not self._options.loop:
                raise CameraEnded("the video is over.", where=self._where)
            shift = newest + round(1e9 / float(self._known["rate"] or 25))
            container = self._open()

    def _decoded(self, container: InputContainer) -> Iterator[av.VideoFrame | None]:
        """Every frame until the end; None where one cannot be decoded."""
        sound = False  # who joins a running stream has to wait for its next key frame: what comes before is no loss
        with container:
            try:
                for packet in container.demux(video=0):
                    try:
                        frames: list[av.VideoFrame | None] = list(packet.decode())
                    except av.InvalidDataError:
                        frames = [None]
                    for frame in frames:
                        whole = frame is not None and not frame.is_corrupt
                        sound = sound or whole
                        if sound:
                            yield frame if whole else None
            except av.FFmpegError as error:
                if not self._live:
                    raise ConfigInvalid(f"the video is damaged: {error.strerror}.", where=self._where) from error
                raise CameraLost(f"the stream broke off: {_reason(error)}.", where=self._where) from error

    def _frame(self, decoded: av.VideoFrame | None, stamp: int | None) -> Frame:
        received = time.monotonic()
        if decoded is None:
            self._damaged += 1
            damage = "The frame cannot be decoded: data are missing or damaged."
            return Frame(pixels=None, number=self._number, received=received, damage=damage)
        pixels, name = _pixels(decoded, mono=self._options.mono)
        return Frame(pixels=pixels, number=self._number, received=received, device_ns=stamp, pixel_format=name)


_CERTIFICATE = (
    "Is it there, and its certificate in force, for this very name or address, and from an authority that this machine "
    "trusts? A certificate of the plant's or the camera's own is named in `ca`."
)


def _pixels(decoded: av.VideoFrame, *, mono: bool) -> tuple[Pixels, str]:
    """Mono at its own depth where the source has no colour; colour as 8 bit RGB, or its luminance (0..255)."""
    components = decoded.format.components
    colourless = len(components) == 1 and not decoded.format.has_palette
    if colourless and components[0].bits > 8:
        image: Any = np.ascontiguousarray(decoded.to_ndarray())
        return image, f"Mono{components[0].bits}"
    image = decoded.to_ndarray(format="gray" if mono or colourless else "rgb24")
    return image, "Mono8" if image.ndim == 2 else "RGB8"


def _nanoseconds(decoded: av.VideoFrame) -> int | None:
    if decoded.pts is None or decoded.time_base is None:
        return None
    return int(decoded.pts * decoded.time_base * 1_000_000_000)


def _reason(error: av.FFmpegError) -> str:
    # What PyAV raises when its own time limit ends a call.
    return "nothing came for the time allowed" if isinstance(error, av.ExitError) else str(error.strerror)
