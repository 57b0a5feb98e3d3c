"""From a recipe's options to the camera that speaks the protocol."""

from __future__ import annotations

from typing import assert_never

from inspection.cameras.camera import Camera
from inspection.cameras.options import (
    AnyCamera,
    DeviceOptions,
    FolderOptions,
    GenICamOptions,
    PushedOptions,
    ReplayOptions,
    StreamOptions,
)


def open_camera(options: AnyCamera, *, view: str) -> Camera:
    """The camera of a view, not started. Loads only what its kind needs.

    Raises:
        MissingExtra: a package that its kind needs is not installed.
    """
    match options:
        case GenICamOptions():
            from inspection.cameras.genicam import GenICamCamera

            return GenICamCamera(options, view)
        case StreamOptions():
            from inspection.cameras.stream import StreamCamera

            return StreamCamera(options, view)
        case DeviceOptions():
            from inspection.cameras.device import DeviceCamera

            return DeviceCamera(options, view)
        case FolderOptions():
            from inspection.cameras.folder import FolderCamera

            return FolderCamera(options, view)
        case PushedOptions():
            from inspection.cameras.pushed import PushedCamera

            return PushedCamera(options, view)
        case ReplayOptions():
            from inspection.cameras.replay import ReplayCamera

            return ReplayCamera(options, view)
        case _:
            assert_never(options)
