"""What a recipe says of a view's camera: one model of options for each kind."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from inspection.modelfile import Value
from inspection.quantities import Count, Delay, Seconds

Depth = Literal[8, 10, 12, 16]


class CameraOptions(Value):
    """What all kinds have in common.

    Attributes:
        silence: without a frame for so long it counts as stuck and is started anew; None: frames may be rare. A camera
            that is triggered counts as stuck when a trigger has no frame for so long.
    """

    silence: Seconds | None = None


class GenICamOptions(CameraOptions):
    """A GigE Vision or USB3 Vision camera, through GenICam (extra `gige`).

    Attributes:
        address: IPv4 address (GigE Vision), or serial number (USB3 Vision).
        interface: address of the own network interface to reach it by; None: as the system routes.
        trigger: `software`: the line triggers it; `line1`, ...: a wire does, on that input; `free`: it runs by itself.
            Any other TriggerSource of the camera is allowed too.
        pixel_format: name in the PFNC; None: as the camera stands. 10 and 12 bit arrive as uint16.
        width, height: of the region that is read out, at OffsetX and OffsetY in `features`, else 0; None: as it stands.
        features: further GenICam features that are written at every start, in this order, such as ExposureTime: 5000.
        packet_size: bytes of a GVSP packet, or None for what the network's MTU allows.
    """

    kind: Literal["genicam"]
    address: str
    interface: str | None = None
    trigger: str = "software"
    pixel_format: str | None = None
    width: Count | None = None
    height: Count | None = None
    features: dict[str, str | int | float | bool] = Field(default_factory=dict)
    packet_size: Count | None = None


class StreamOptions(CameraOptions):
    """A network stream (RTSP over TCP, ...) or a video file, by PyAV (extra `video`).

    Attributes:
        url: `rtsp://...`, or a file's path.
        timeout: a network stream that sends nothing for so long is lost.
        loop: a file starts again at its end.
        realtime: a file's frames come at its own rate, not as fast as they can be decoded.
        mono: take the luminance alone.
        verify: `false`: take whatever `https` or `rtsps` server answers, with any certificate.
        ca: certificates, as PEM, that the server's must come from, or its own certificate; None: those that this
            machine trusts.
    """

    kind: Literal["stream"]
    url: str
    verify: bool = True
    ca: Path | None = None
    timeout: Seconds = 3.0
    loop: bool = False
    realtime: bool = True
    mono: bool = False

    @field_validator("ca")
    @classmethod
    def _is_for_verifying(cls, ca: Path | None, given: ValidationInfo) -> Path | None:
        if ca is not None and not (given.data.get("verify") and _shows_certificate(given.data.get("url", ""))):
            raise ValueError("is for a server that is verified: an `https` or `rtsps` address, without `verify: false`")
        return ca

    @property
    def secured(self) -> bool:
        """Whether the server shows a certificate."""
        return _shows_certificate(self.url)


class DeviceOptions(CameraOptions):
    """A camera of this machine (V4L2), or whatever else OpenCV opens; 8 bit.

    Attributes:
        device: its number, its path (`/dev/video0`), a file, a numbered sequence of images (`frame_%04d.png`) or a URL.
        width, height, rate: asked of the device, and refused when it gives another; None: as it stands.
        mono: take the luminance alone.
    """

    kind: Literal["device"]
    device: int | str
    width: Count | None = None
    height: Count | None = None
    rate: Annotated[float, Field(gt=0)] | None = None
    mono: bool = False


class FolderOptions(CameraOptions):
    """A folder that is watched; each image in it is a frame, taken only when it is whole.

    Attributes:
        pattern: which files, as in a shell. Hidden and temporary names (`.x`, `x~`, `x.tmp`, `x.part`) never are.
        part: a regular expression that is searched in the file's name without its ending: its group `part` (or else the
            first one without a name, or else the first that is neither `lot` nor `trigger`) is the part's serial,
            groups `lot` and `trigger` likewise where it has them; None: by order.
        done: folder into which files are moved after they were handed out; None: they stay.
        existing: whether what lies there at the first start is taken too.
        settled: a file counts as whole when its size and time stood still for so long. 0 where whoever writes moves
            whole files in: then it is taken as soon as it is seen.
    """

    kind: Literal["folder"]
    path: Path
    pattern: str = "*"
    part: str | None = None
    done: Path | None = None
    existing: bool = True
    settled: Delay = 0.2

    @field_validator("part")
    @classmethod
    def _has_a_group(cls, part: str | None) -> str | None:
        if part is not None:
            try:
                expression = re.compile(part)
            except re.error as error:
                raise ValueError(f"is no regular expression: {error}") from error
            if not expression.groups:
                raise ValueError("has no group; write `(?P<part>...)` around the serial")
        return part

    @property
    def groups(self) -> dict[str, int]:
        """Which group of `part` is the `part`, the `lot`, the `trigger`: those of them that a name can say."""
        if self.part is None:
            return {}
        expression = re.compile(self.part)
        found = {name: at for name, at in expression.groupindex.items() if name in ("part", "lot", "trigger")}
        others = [at for at in range(1, expression.groups + 1) if at not in found.values()]
        unnamed = [at for at in others if at not in expression.groupindex.values()]
        if "part" not in found and others:
            found["part"] = (unnamed or others)[0]
        return found


class PushedOptions(CameraOptions):
    """Frames that somebody sends to the line's HTTP door: `POST /v1/views/VIEW/frames`."""

    kind: Literal["pushed"]
    queue: Count = 8  # frames that may wait here; a further one is refused (503) and counted


class ReplayOptions(CameraOptions):
    """A recording, or a folder or dataset of images, as if a camera saw it again.

    Attributes:
        path: a folder of images (the line triggers each), or a recording's folder (`inspection run --record`).
        view: which view of a recording; None: the view it replays for.
        loop: starts again at its end. preload: decode all before the start and keep it in memory, as raw frames.
        speed: of a recording: 1 its own takt, 2 twice as fast; None: as fast as frames are taken.
    """

    kind: Literal["replay"]
    path: Path
    view: str | None = None
    loop: bool = False
    preload: bool = True
    speed: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = 1.0


def _shows_certificate(url: str) -> bool:
    return url.partition("://")[0].lower() in ("https", "rtsps")


AnyCamera = Annotated[
    GenICamOptions | StreamOptions | DeviceOptions | FolderOptions | PushedOptions | ReplayOptions,
    Field(discriminator="kind"),
]
