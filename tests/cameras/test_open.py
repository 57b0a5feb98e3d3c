"""A recipe's options become the camera of their kind, and nothing is loaded that another kind needs."""

from __future__ import annotations

import subprocess
import sys

import pytest

OPEN = """
import sys
sys.modules[{hidden!r}] = None  # as if it were not installed
from inspection.cameras.open import open_camera
from inspection.cameras.options import {options}
from inspection.errors import MissingExtra
try:
    open_camera({options}({arguments}), view="top")
except MissingExtra as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("hidden", "options", "arguments", "extra"),
    [
        ("viva_genicam", "GenICamOptions", "kind='genicam', address='10.0.0.2'", "gige"),
        ("av", "StreamOptions", "kind='stream', url='a.mp4'", "video"),
    ],
)
def test_a_package_that_is_missing_is_named_with_its_extra(
    hidden: str, options: str, arguments: str, extra: str
) -> None:
    code = OPEN.format(hidden=hidden, options=options, arguments=arguments)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert f"pip install 'lightsout-inspection[{extra}]'" in done.stdout


def test_a_device_needs_neither_genicam_nor_video() -> None:
    code = (
        "import sys\n"
        "from inspection.cameras.open import open_camera\n"
        "from inspection.cameras.options import DeviceOptions\n"
        "camera = open_camera(DeviceOptions(kind='device', device=0), view='top')\n"
        "print(type(camera).__name__, [name for name in ('viva_genicam', 'av') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "DeviceCamera []"
