"""What a recipe says of a view's camera: one model of options for each kind."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from inspection.modelfile import Value
from inspection.quantities import Count, Seconds

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
        address: IP address (GigE Vision) or serial number.
        interface: address of the own network interface to reach it by; None: as the system routes.
        trigger: `software`: the line triggers it; `line1`, ...: a wire does, on that input; `free`: it runs by itself.
        pixel_format: name in the PFNC; None: as the camera stands. 10 and 12 bit arrive as uint16.
        features: further GenICam features that are written at every start, such as ExposureTime: 5000.
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
    """A video file or a network stream (RTSP, ...) by PyAV (extra `video`)."""

    kind: Literal["stream"]
    url: str
    loop: bool = False  # a file starts again at its end
    realtime: bool = True  # a file's frames come at its own rate, not as fast as they can be decoded
    mono: bool = False  # take the luminance alone


class DeviceOptions(CameraOptions):
    """A camera of this machine (V4L2), or whatever else OpenCV opens."""

    kind: Literal["device"]
    device: int | str
    width: Count | None = None
    height: Count | None = None
    rate: Annotated[float, Field(gt=0)] | None = None
    mono: bool = False


class FolderOptions(CameraOptions):
    """A folder that is watched; each image in it is a frame, taken only when it is whole.

    Attributes:
        pattern: which files. part: a regular expression on the file's stem whose group `part` (or first group) is the
            part's serial; None: by order.
        done: folder into which judged files are moved; None: they stay.
        existing: whether what lies there at the start is taken too.
        settled: a file counts as whole when its size stood still for so long, or it was moved or closed.
    """

    kind: Literal["folder"]
    path: Path
    pattern: str = "*"
    part: str | None = None
    done: Path | None = None
    existing: bool = True
    settled: Seconds = 0.2


class PushedOptions(CameraOptions):
    """Frames that somebody sends to the line's HTTP door: `POST /v1/views/VIEW/frames`."""

    kind: Literal["pushed"]
    queue: Count = 8  # frames that may wait here; a further one is refused (503) and counted


class ReplayOptions(CameraOptions):
    """A recording, or a folder or dataset of images, as if a camera saw it again.

    Attributes:
        path: a folder of images, or a recording's folder (`inspection run --record`).
        view: which view of a recording; None: the view it replays for.
        loop: starts again at its end. preload: decode all before the start and keep it in memory, as raw frames.
    """

    kind: Literal["replay"]
    path: Path
    view: str | None = None
    loop: bool = False
    preload: bool = True


AnyCamera = Annotated[
    GenICamOptions | StreamOptions | DeviceOptions | FolderOptions | PushedOptions | ReplayOptions,
    Field(discriminator="kind"),
]
