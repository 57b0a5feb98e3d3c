"""`inspection doctor`: whether this machine can judge, and what would make it faster."""

from __future__ import annotations

import base64
import importlib.metadata
import importlib.util
import json
import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from rich.markup import escape
from rich.table import Table

from inspection import engine, machine
from inspection.allocator import SET_BY_USER
from inspection.errors import InspectionError
from inspection.progress import stdout

State = Literal["good", "note", "bad"]
MARKS = {"good": "[green]good[/]", "note": "[yellow]note[/]", "bad": "[bold red]bad[/]"}

PACKAGES = ("lightsout-inspection", "numpy", "opencv-python-headless", "pillow", "onnxruntime", "pydantic")
EXTRAS = {"train": "torch", "demo": "elpv_dataset"}

# A whole model file: 1 x 1 convolution over 8 x 8 pixels, so that a device has to bring up its libraries for networks.
# score = 1 + mean of pixels. tests/inspection/test_doctor.py holds it against the one that the onnx package makes.
PROBE = base64.b64decode(
    "CAgSCmluc3BlY3Rpb2460QIKHgoGcGl4ZWxzEgNyYXciBENhc3QqCQoCdG8YAaABAgorCgNyYXcSBnBsYW5lcyIJVHJhbnNwb3NlKhEKBHBlcm1A"
    "AEADQAFAAqABBwoiCgZwbGFuZXMKBmtlcm5lbAoEYmlhcxIEY29udiIEQ29udgofCgRjb252EgRtZWFuIhFHbG9iYWxBdmVyYWdlUG9vbAoVCgRt"
    "ZWFuEgRmbGF0IgdGbGF0dGVuChwKBGZsYXQKBGxhc3QSBXNjb3JlIgdTcXVlZXplEgVwcm9iZSogCAEIAwgBCAEQAUIGa2VybmVsSgyrqqo+q6qq"
    "Pquqqj4qEAgBEAFCBGJpYXNKBAAAgD8qFAgBEAdCBGxhc3RKCAEAAAAAAAAAWiEKBnBpeGVscxIXChUIAhIRCgMSAU4KAggICgIICAoCCANiFAoF"
    "c2NvcmUSCwoJCAESBQoDEgFOQgQKABAR"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing that was looked at."""

    what: str
    state: State  # `bad`: this machine cannot judge as it is
    found: str
    mend: str | None = None


def examine() -> list[Finding]:
    """Looks at everything; about a second."""
    return [*_packages(), *_providers(), *_hardware(), *_system()]


def show(findings: list[Finding], *, as_json: bool) -> int:
    """Prints them; returns the exit code: 0, or 1 when something is bad."""
    healthy = all(finding.state != "bad" for finding in findings)
    if as_json:
        print(json.dumps({"healthy": healthy, "findings": [asdict(finding) for finding in findings]}, indent=2))
        return 0 if healthy else 1
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for _ in range(2):
        table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        table.add_row(MARKS[finding.state], escape(finding.what), escape(finding.found))
        if finding.mend:
            table.add_row("", "", f"[dim]{escape(finding.mend)}[/]")
    out = stdout()
    out.print(table)
    out.print("This machine can judge." if healthy else "[bold red]This machine cannot judge as it is.[/]")
    return 0 if healthy else 1


def probe(provider: str) -> float:
    """Seconds until a tiny network has run on `provider`, from nothing. Raises ProviderUnavailable, InferenceFailed."""
    import time

    started = time.perf_counter()
    _, session = engine.open_session(PROBE, "probe", provider, 1)
    pixels = np.full((1, 8, 8, 3), 3, dtype=np.uint8)
    try:
        score = float(session.run(["score"], {"pixels": pixels})[0][0])
    except engine.ORT_ERRORS as error:
        raise engine.not_granted(provider, engine.first_line(error)) from error
    if abs(score - 4.0) > 1e-3:
        raise engine.not_granted(provider, f"it computes {score:g} where 4 is right")
    return time.perf_counter() - started


def _packages() -> Iterator[Finding]:
    yield Finding(
        what="python",
        state="good" if sys.version_info >= (3, 11) else "bad",
        found=f"{platform.python_version()} on {platform.platform()}",
    )
    for name in PACKAGES:
        try:
            yield Finding(what=name, state="good", found=importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            # onnxruntime-gpu and the like bring the same module under another name.
            module = {"opencv-python-headless": "cv2", "pillow": "PIL"}.get(name, name.replace("-", "_"))
            other = importlib.util.find_spec(module) is not None
            yield Finding(
                what=name,
                state="good" if other else "bad" if name != "lightsout-inspection" else "note",
                found="by another package" if other else "not installed",
            )
    for extra, module in EXTRAS.items():
        if importlib.util.find_spec(module) is None:
            yield Finding(
                what=f"extra `{extra}`",
                state="note",
                found="not installed; judging does not need it",
                mend=f"pip install 'lightsout-inspection[{extra}]'",
            )
        else:
            yield Finding(what=f"extra `{extra}`", state="good", found=f"installed ({module})")


def _providers() -> Iterator[Finding]:
    offered = engine.offered()
    for name in engine.PROVIDERS:
        if name not in offered:
            yield Finding(
                what=f"device {name}",
                state="note",
                found="not in this onnxruntime",
                mend=f"pip install {engine.WHEEL[name]} in place of onnxruntime, where the machine has such a device",
            )
            continue
        try:
            seconds = probe(name)
        except InspectionError as error:
            yield Finding(
                what=f"device {name}",
                state="bad" if name == "cpu" else "note",
                found=f"offered, and does not run: {error.what}",
                mend=error.hint,
            )
        else:
            yield Finding(
                what=f"device {name}", state="good", found=f"runs; {seconds * 1e3:.0f} ms from nothing to a score"
            )


def _hardware() -> Iterator[Finding]:
    cores, usable = os.cpu_count() or 1, machine.usable_cores()
    limited = "" if usable == cores else f", {usable} of them for this process"
    yield Finding(what="processor", state="good", found=f"{machine.processor()}, {cores} cores{limited}")
    features = machine.cpu_features()
    listed = ", ".join(f"{feature} ({machine.CPU_FEATURES[feature]})" for feature in features) or "none that help"
    fast_int8 = any(machine.CPU_FEATURES[feature] == "int8" for feature in features)
    yield Finding(
        what="instructions",
        state="good" if fast_int8 else "note",
        found=listed,
        mend=None if fast_int8 else "int8 models are no faster here than fp32 ones",
    )
    memory = machine.memory_bytes()
    if memory is not None:
        total, free = memory
        enough = free >= 1 << 30
        yield Finding(
            what="memory",
            state="good" if enough else "note",
            found=f"{total / 2**30:.1f} GiB, {free / 2**30:.1f} GiB available",
            mend=None if enough else "a model and its images want about 1 GiB",
        )


def _system() -> Iterator[Finding]:
    folder = Path(tempfile.gettempdir())
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(1 << 20))
            file.flush()
        yield Finding(what="temporary files", state="good", found=f"{folder} can be written")
    except OSError as error:
        yield Finding(
            what="temporary files",
            state="bad",
            found=f"{folder} cannot be written: {error.strerror}",
            mend="set TMPDIR to a folder that can be written and has room",
        )
    chosen = [name for name in SET_BY_USER if name in os.environ]
    if chosen:
        yield Finding(what="memory allocator", state="good", found=f"chosen by {', '.join(chosen)}")
    elif platform.libc_ver()[0] == "glibc":
        yield Finding(
            what="memory allocator",
            state="note",
            found="glibc's default: judge, score and serve keep freed buffers by themselves",
            mend="in a program of your own that uses Inspector, call inspection.allocator.keep_buffers() at its start",
        )
    else:
        yield Finding(what="memory allocator", state="note", found="not glibc; its own behaviour is unknown")
