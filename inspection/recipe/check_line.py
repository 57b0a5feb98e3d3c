"""Triggers, times, outputs, record and machine: whether the parts of a recipe go together."""

from __future__ import annotations

import importlib.util
import math
import os
import shutil
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

from inspection.cameras.options import (
    AnyCamera,
    DeviceOptions,
    FolderOptions,
    GenICamOptions,
    PushedOptions,
    ReplayOptions,
    StreamOptions,
)
from inspection.cameras.recording import is_recording
from inspection.config import nearest
from inspection.machine import usable_cores
from inspection.modelfile import ModelCard
from inspection.outputs.options import AnyOutput, ModbusOptions, MqttOptions, OpcUaOptions, WebhookOptions
from inspection.recipe.recipe import CameraTrigger, Recipe, TimerTrigger

if TYPE_CHECKING:
    from inspection.recipe.check import Report

T = TypeVar("T")
LOCAL = ("127.0.0.1", "::1", "localhost")
# Kind of camera or output -> the module it needs, and the extra that brings it.
NEEDS = {
    "genicam": ("viva_genicam", "gige"),
    "stream": ("av", "video"),
    "mqtt": ("paho", "mqtt"),
    "webhook": ("urllib3", "webhook"),
    "opcua": ("asyncua", "opcua"),
    "postgres": ("psycopg", "postgres"),
}


def check_line(recipe: Recipe, cards: dict[str, ModelCard], report: Report) -> None:
    """Everything but views and rule."""
    _trigger(recipe, report)
    _match(recipe, report)
    _times(recipe, report)
    _cameras(recipe, report)
    for index, output in enumerate(recipe.outputs):
        _output(index, output, recipe, cards, report)
    _outputs(recipe, report)
    _record(recipe, report)
    _work(recipe, report)
    for key, needed in _needed(recipe):
        module, extra = NEEDS[needed]
        if importlib.util.find_spec(module) is None:
            report.error(
                key, f"needs the package `{module}`.", f"Install it with: pip install 'lightsout-inspection[{extra}]'"
            )


def software_triggered(camera: AnyCamera) -> bool:
    """Whether the camera exposes only when the line tells it to."""
    if isinstance(camera, GenICamOptions):
        return camera.trigger == "software"
    return isinstance(camera, ReplayOptions) and not is_recording(camera.path)


def runs_free(camera: AnyCamera) -> bool:
    """Whether the camera sends frames by itself, whether or not a part is there."""
    if isinstance(camera, GenICamOptions):
        return camera.trigger == "free"
    return isinstance(camera, StreamOptions | DeviceOptions)


def says(camera: AnyCamera, what: str) -> bool:
    """Whether frames can say which `trigger` or `part` they belong to."""
    if isinstance(camera, FolderOptions):
        return what in camera.groups
    if isinstance(camera, ReplayOptions):
        return is_recording(camera.path)
    return isinstance(camera, PushedOptions)


def _trigger(recipe: Recipe, report: Report) -> None:
    trigger = recipe.trigger
    if isinstance(trigger, CameraTrigger):
        if trigger.view is not None and trigger.view not in recipe.views:
            hint = nearest(trigger.view, list(recipe.views), "views")
            report.error(("trigger", "view"), f"there is no view `{trigger.view}`.", hint)
            return
        opens = {trigger.view: recipe.views[trigger.view]} if trigger.view is not None else recipe.views
        if all(software_triggered(view.camera) for view in opens.values()):
            report.error(
                ("trigger",),
                f"no part would ever begin: a frame opens it, and {_listed(opens)} expose only when the line triggers "
                "them.",
                "Wire the camera to a light barrier (`trigger: line1`), or let a PLC say that a part comes: "
                "`trigger: {kind: signal}`.",
            )
        for name, view in opens.items():
            if runs_free(view.camera):
                report.warning(
                    ("views", name, "camera"),
                    "runs by itself, and a frame opens a part: every frame is a part, at the camera's own rate.",
                    "Trigger the camera by a wire, or the line by a signal.",
                )
        return
    for name, view in recipe.views.items():
        if runs_free(view.camera):
            report.warning(
                ("views", name, "camera"),
                "runs by itself, while triggers say when a part comes: its frame may show the part before or after.",
                "Trigger the camera, by software or by a wire.",
            )
        wired = isinstance(view.camera, GenICamOptions) and view.camera.trigger not in ("software", "free")
        if wired and isinstance(trigger, TimerTrigger):
            report.warning(
                ("views", name, "camera", "trigger"),
                "a wire triggers the camera, and a timer makes the parts: the two do not know of each other.",
                "Use `trigger: {kind: camera}` or `{kind: signal}`.",
            )


def _match(recipe: Recipe, report: Report) -> None:
    match = recipe.match
    if match.by != "order":
        for name, view in recipe.views.items():
            if not says(view.camera, match.by):
                report.error(
                    ("match", "by"),
                    f"frames find their part by its {match.by}, and those of view `{name}` ({view.camera.kind}) bring "
                    "none: every part would be ERROR.",
                    "Use `by: order`, or a source that says it"
                    + (
                        f": a group `(?P<{match.by}>...)` in the folder's `part`."
                        if isinstance(view.camera, FolderOptions)
                        else "."
                    ),
                )
        if match.by == "part" and isinstance(recipe.trigger, TimerTrigger):
            report.error(("match", "by"), "a timer knows no serial of the part.", "Use `by: order`.")
    if match.window is not None and match.window > recipe.deadline:
        report.warning(("match", "window"), "is longer than the deadline, after which no frame is of use.")
    elif match.by == "order" and match.window is not None and match.window + match.early > recipe.takt:
        report.warning(
            ("match", "window"),
            "is with `early` longer than the takt: after a lost exposure the next part's frame is taken for the part "
            "before.",
            "Make both together no longer than the shortest time between two parts.",
        )
    if match.by == "order" and (match.early >= recipe.takt or recipe.window <= 0):
        report.error(
            ("match", "early"),
            "a frame may come a whole takt before its trigger: then it may as well be the part before's.",
            "Make it shorter than the takt.",
        )


def _times(recipe: Recipe, report: Report) -> None:
    lead = max((output.lead for output in recipe.outputs), default=0.0)
    for index, output in enumerate(recipe.outputs):
        if output.lead >= recipe.deadline:
            report.error(
                ("outputs", index, "lead"),
                f"the output needs {output.lead:g} s of the {recipe.deadline:g} s until the deadline: nothing is left "
                "to judge in.",
                "Shorten `lead`, or set a later `deadline`.",
            )
    budget = recipe.deadline - lead
    waiting = sum(max(1, len(view.regions)) for view in recipe.views.values()) * math.ceil(budget / recipe.takt)
    if budget > 0 and waiting > recipe.work.waiting:
        report.warning(
            ("work", "waiting"),
            f"the parts that are not yet due may have {waiting} regions waiting, and {recipe.work.waiting} may wait.",
            f"Write `waiting: {waiting}`, or make the deadline shorter.",
        )
    for name, view in recipe.views.items():
        silence = view.camera.silence
        if silence is not None and silence <= recipe.takt and not software_triggered(view.camera):
            report.warning(
                ("views", name, "camera", "silence"),
                f"is {silence:g} s and the takt {recipe.takt:g} s: between two parts the camera would count as stuck.",
                "Make it several takts.",
            )


def _cameras(recipe: Recipe, report: Report) -> None:
    for name, view in recipe.views.items():
        camera, key = view.camera, ("views", name, "camera")
        if isinstance(camera, StreamOptions):
            if camera.ca is not None and not os.access(camera.ca, os.R_OK):
                report.error((*key, "ca"), f"{camera.ca} cannot be read.", "Paths are relative to the recipe's folder.")
            if camera.secured and not camera.verify:
                report.warning(
                    (*key, "verify"), "whoever is in that network can stand in for the camera.", "Name its `ca`."
                )
        if isinstance(camera, DeviceOptions) and str(camera.device).lower().startswith(("https://", "rtsps://")):
            report.warning(
                (*key, "device"),
                "OpenCV does not look at certificates: whoever is in that network can stand in for the camera.",
                "Use `kind: stream`.",
            )


def _output(index: int, output: AnyOutput, recipe: Recipe, cards: dict[str, ModelCard], report: Report) -> None:
    key = ("outputs", index)
    if output.gate:
        if output.lead == 0:
            report.warning(
                (*key, "gate"),
                "drives the reject gate and has no `lead`: a verdict that falls at the deadline reaches it too late.",
                "Write the time that the way to the gate takes, such as `lead: 20ms`.",
            )
        if "result" not in output.sends:
            report.error((*key, "sends"), "drives the reject gate and is sent no results.", "Add `result`.")
    if output.hold is not None:
        _hold(index, output, recipe, report)
    if isinstance(output, ModbusOptions | OpcUaOptions) and output.host in LOCAL:
        report.warning(
            (*key, "host") if "host" in output.model_fields_set else key,
            f"listens at {output.host} alone: a PLC on another machine cannot reach it.",
            "Write the address of the network interface that faces the PLC.",
        )
    if isinstance(output, OpcUaOptions) and (weakness := output.unprotected):
        what, _, mend = weakness.rpartition(". ")
        report.warning(key, f"{what}.", f"{mend}.")
    if isinstance(output, ModbusOptions):
        if output.acknowledge is not None and output.acknowledge > recipe.takt:
            report.warning(
                (*key, "acknowledge"), "is longer than the takt: one slow acknowledgement makes the next results late."
            )
        for kind in sorted({kind for card in cards.values() for kind in card.classes}):
            if output.classes and kind not in output.classes:
                hint = nearest(kind, list(output.classes), "classes")
                report.warning((*key, "classes"), f"has no number for the model's class `{kind}`.", hint)
    if isinstance(output, MqttOptions):
        if (output.certificate is None) != (output.key is None):
            report.error(key, "`certificate` and `key` go together.", "Give both or none.")
        secured = output.tls or output.ca is not None or output.certificate is not None or output.port == 8883
        if output.password_env is not None and not secured:
            report.warning(
                (*key, "password_env"), "the password goes over the network as plain text.", "Set `tls: true`."
            )
    if isinstance(output, WebhookOptions):
        scheme = output.url.partition("://")[0]
        if scheme not in ("http", "https"):
            report.error((*key, "url"), f"`{output.url}` is no address of a web server.", "It begins with https://.")
        elif scheme == "http" and output.secret_env is None:
            report.warning(
                (*key, "url"), "anybody on the network can read and forge it.", "Use https, or `secret_env`."
            )
    for name in ("password_env", "users_env", "secret_env"):
        variable = getattr(output, name, None)
        if variable is not None and variable not in os.environ:
            report.warning((*key, name), f"the environment variable {variable} is not set here.")
    for name in ("ca", "certificate", "key"):
        file = getattr(output, name, None)
        if file is not None and not os.access(file, os.R_OK):
            report.error((*key, name), f"{file} cannot be read.", "Paths are relative to the recipe's folder.")


def _hold(index: int, output: AnyOutput, recipe: Recipe, report: Report) -> None:
    hold = output.hold
    if hold is None:
        return
    key = ("outputs", index, "hold")
    decided = recipe.deadline - max(one.lead for one in recipe.outputs)
    if hold.after is not None and hold.after >= recipe.deadline:
        report.error(
            (*key, "after"),
            f"the part reaches the gate {hold.after:g} s after its trigger, and its verdict is of use until "
            f"{recipe.deadline:g} s after it, the deadline: none would ever be delivered.",
            "The deadline is when the gate must move: set it just after `hold.after`.",
        )
    elif hold.after is not None and decided > hold.after:
        report.error(
            (*key, "after"),
            f"the part reaches the gate {hold.after:g} s after its trigger, and its verdict may take {decided:g} s.",
            "Set `deadline` so that deadline minus `lead` is not after `hold.after`.",
        )
    if hold.encoder is not None and recipe.trigger.kind != "signal":
        report.error(
            (*key, "encoder"),
            f"triggers of the kind `{recipe.trigger.kind}` bring no encoder count to count from.",
            "Use `trigger: {kind: signal}`, with the count, or `hold: {after: ...}`.",
        )


def _outputs(recipe: Recipe, report: Report) -> None:
    if not recipe.outputs:
        report.warning(("outputs",), "there is none: verdicts are recorded, and nobody is told.")
    elif not any(output.gate for output in recipe.outputs):
        report.warning(("outputs",), "none drives a reject gate: no verdict has to be delivered in time.")
    names = [(output.name or output.kind, index) for index, output in enumerate(recipe.outputs)]
    for first, second in _twice(names):
        report.error(
            ("outputs", second),
            f"is called `{names[second][0]}` like `outputs.{first}`: counters and alarms could not tell them apart.",
            "Give it a `name`.",
        )
    ports = [
        (output.port, index)
        for index, output in enumerate(recipe.outputs)
        if isinstance(output, ModbusOptions | OpcUaOptions) and output.port
    ]
    for first, second in _twice(ports):
        report.error(("outputs", second, "port"), f"`outputs.{first}` listens at this port.", "Choose another one.")


def _record(recipe: Recipe, report: Report) -> None:
    record = recipe.record
    if record.database is not None and not record.database.startswith(("postgresql://", "postgres://")):
        report.error(
            ("record", "database"),
            f"`{record.database.partition(':')[0]}` is no database that is known.",
            "Write `postgresql://user@host/name`, or leave it out for SQLite.",
        )
    there = next(path for path in (record.folder, *record.folder.parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        report.error(("record", "folder"), f"{record.folder} cannot be written.", f"Look at {there}.")
        return
    free = shutil.disk_usage(there).free
    if free < record.images.free:
        report.warning(
            ("record", "images", "free"),
            f"{free / 1e9:.1f} GB are free, less than {record.images.free / 1e9:g} GB: no image would be kept.",
            "Free some space, or lower `free`.",
        )
    elif free < record.images.quota and not (there / "images").exists():
        report.warning(
            ("record", "images", "quota"),
            f"is {record.images.quota / 1e9:g} GB, and {free / 1e9:.1f} GB are free.",
            "Lower it, so that old images go before the disk is full.",
        )


def _work(recipe: Recipe, report: Report) -> None:
    from inspection.engine import PROVIDERS, offered

    work = recipe.work
    if work.provider != "auto" and work.provider not in PROVIDERS:
        hint = nearest(work.provider, [*PROVIDERS, "auto"], "providers")
        report.error(("work", "provider"), f"there is no provider `{work.provider}`.", hint)
    elif work.provider != "auto" and work.provider not in offered():
        report.error(
            ("work", "provider"), f"`{work.provider}` is not on this machine.", "`inspection doctor` says what is."
        )
    cores = usable_cores()
    threads = (work.workers or 1) * (work.threads or 1)
    if work.provider in ("auto", "cpu") and threads > cores:
        report.warning(
            ("work", "threads" if work.threads else "workers"),
            f"{threads} threads would share {cores} cores, and wait for each other.",
            "Leave `workers` and `threads` out.",
        )


def _needed(recipe: Recipe) -> Iterator[tuple[tuple[int | str, ...], str]]:
    for name, view in recipe.views.items():
        if view.camera.kind in NEEDS:
            yield ("views", name, "camera", "kind"), view.camera.kind
    for index, output in enumerate(recipe.outputs):
        if output.kind in NEEDS:
            yield ("outputs", index, "kind"), output.kind
    if recipe.record.database is not None:
        yield ("record", "database"), "postgres"


def _twice(values: list[tuple[T, int]]) -> Iterator[tuple[int, int]]:
    """Where a value stands first, and where again."""
    first: dict[T, int] = {}
    for value, index in values:
        if first.setdefault(value, index) != index:
            yield first[value], index


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
