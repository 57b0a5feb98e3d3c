"""What is written into a GenICam camera at every start, so that nothing of what an earlier client left matters."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from contextlib import suppress

import viva_genicam as viva

from inspection.cameras import colour
from inspection.cameras.camera import CameraLost
from inspection.cameras.options import GenICamOptions
from inspection.errors import ConfigInvalid

Scalar = str | int | float | bool
OFFSETS = ("OffsetX", "OffsetY")


class Settings:
    """Writes a recipe's options into a camera.

    Args:
        camera: connected, not streaming.
        where: the recipe's place, for errors.
    """

    def __init__(self, camera: viva.Camera, options: GenICamOptions, where: str) -> None:
        self._camera = camera
        self._options = options
        self._where = where
        self._nodes = set(camera.nodes())

    def write(self) -> None:
        """Stops what an earlier client left running, then writes everything.

        Raises:
            ConfigInvalid: the camera has no such feature, or refuses the value. CameraLost: it went away meanwhile.
        """
        options = self._options
        with suppress(viva.GenicamError):  # a camera that stands still may refuse; one that is gone fails just below
            self._camera.acquisition_stop()
        if self._has("AcquisitionMode"):
            self._set("AcquisitionMode", "Continuous")
        if self._has("TriggerSelector"):
            self._triggers_off()  # leaves FrameStart selected, which is what features such as TriggerDelay then mean
        sized = options.width is not None or options.height is not None
        for name, value in options.features.items():  # binning before the size: it changes the largest
            if not (sized and name in OFFSETS):
                self._set(name, value)
        if options.pixel_format is not None:
            self._set("PixelFormat", options.pixel_format)
        if sized:
            self._write_region()
        self._write_trigger()
        self._check_format()

    def _triggers_off(self) -> None:
        entries = self._camera.available_enum_entries("TriggerSelector")
        for entry in sorted(entries, key=lambda name: name == "FrameStart"):  # FrameStart last
            self._set("TriggerSelector", entry)
            self._set("TriggerMode", "Off")

    def _write_trigger(self) -> None:
        """TriggerMode is always written: one that was left On looks like a dead camera."""
        source = self._options.trigger
        if source == "free":
            if self._has("TriggerSelector"):
                self._triggers_off()
            elif self._has("TriggerMode"):
                self._set("TriggerMode", "Off")
            return
        if not self._has("TriggerMode"):
            raise ConfigInvalid(
                f"the camera has no trigger, and `trigger` is {source}.",
                where=self._where,
                hint="Let it run with `trigger: free`.",
            )
        if self._has("TriggerSelector"):
            self._triggers_off()
            self._set("TriggerSelector", "FrameStart")
        entries = self._camera.available_enum_entries("TriggerSource")
        entry = next((name for name in entries if name.lower() == source.lower()), None)
        if entry is None:
            raise ConfigInvalid(
                f"the camera has no trigger source {source!r}.",
                where=self._where,
                hint=f"It has: {', '.join(entries)}; and `free`.",
            )
        self._set("TriggerSource", entry)
        self._set("TriggerMode", "On")

    def _write_region(self) -> None:
        """Offsets are 0 unless `features` gives them: one left behind would move the image without a word."""

        def write() -> None:
            now = self._camera.roi()
            x, y = (int(self._options.features.get(name, 0)) for name in OFFSETS)
            width, height = self._options.width or now.width, self._options.height or now.height
            self._camera.set_roi(viva.Roi(x=x, y=y, width=width, height=height))

        self._try(write, "width and height")

    def _check_format(self) -> None:
        try:
            name = self._camera.get("PixelFormat")
        except viva.GenicamError:  # a format that the camera's own description does not list: the first frame tells
            return
        if not colour.is_readable(name):
            known = [entry for entry in self._camera.enum_entries("PixelFormat") if colour.is_readable(entry)]
            raise ConfigInvalid(
                f"the camera sends {name}, which is not read here.",
                where=self._where,
                hint=f"Set `pixel_format` to one of: {', '.join(known) or 'none of this camera is'}.",
            )

    def _has(self, name: str) -> bool:
        return name in self._nodes

    def _set(self, name: str, value: Scalar) -> None:
        camera = self._camera
        if not self._has(name):
            features = sorted({feature for group in camera.categories().values() for feature in group} or self._nodes)
            near = difflib.get_close_matches(name, features, n=3, cutoff=0.4)
            hint = f"Nearest: {', '.join(near)}." if near else f"It has: {', '.join(features)}."
            raise ConfigInvalid(f"the camera has no feature {name}.", where=self._where, hint=hint)
        info = camera.node_info(name)
        kind = info.kind if info is not None else ""
        if kind == "Command":
            if value:
                self._try(lambda: camera.execute(name), name)
            return
        if isinstance(value, bool):
            # YAML reads a bare On and Off as true and false, and they are what many enumerations are called.
            value = ("On" if value else "Off") if kind == "Enumeration" else str(value).lower()
        elif kind == "Integer" and isinstance(value, float) and value.is_integer():
            value = int(value)
        self._try(lambda: camera.set(name, str(value)), name, value)

    def _try(self, act: Callable[[], object], name: str, value: Scalar | None = None) -> object:
        try:
            return act()
        except viva.GenicamError as error:
            # One class of error for a refusal and for a camera that is gone: ask whether it still answers.
            with suppress(viva.GenicamError):
                self._camera.read_register(0)
                raise ConfigInvalid(
                    f"the camera refuses {name}{'' if value is None else f' = {value}'}: {error}.",
                    where=self._where,
                    hint=self._accepted(name),
                ) from error
            raise CameraLost(f"the camera went away while {name} was written: {error}.", where=self._where) from error

    def _accepted(self, name: str) -> str | None:
        """What the feature takes now."""
        with suppress(viva.GenicamError):
            state = self._camera.feature_state(name)
            if state.enum_entries:
                return f"It takes: {', '.join(state.enum_entries)}."
            if state.range is not None:
                return f"It takes {state.range.min:g} to {state.range.max:g}" + (
                    f" in steps of {state.range.inc:g}." if state.range.inc else "."
                )
        return None
