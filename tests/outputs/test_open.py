"""A recipe's output becomes the sink that does it, and only that one's packages are needed."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import sys
for package in {blocked!r}:
    sys.modules[package] = None
from inspection.errors import MissingExtra
from inspection.outputs.open import open_sink
from inspection.outputs.options import MqttOptions, Sparkplug, WebhookOptions
ids = Sparkplug(group="g", node="n", device="d")
for options in (
    MqttOptions(kind="mqtt", host="h"),
    MqttOptions(kind="mqtt", host="h", sparkplug=ids),
    WebhookOptions(kind="webhook", url="http://h"),
):
    try:
        print(type(open_sink(options, control=None, line="l", alarm=lambda *_: None)).__name__)
    except MissingExtra as error:
        print(error.hint)
"""


@pytest.mark.parametrize(
    ("blocked", "expected"),
    [
        pytest.param([], ["MqttSink", "SparkplugSink", "WebhookSink"], marks=pytest.mark.line),
        (["paho", "urllib3"], ["[mqtt]", "[mqtt]", "[webhook]"]),
    ],
)
def test_a_missing_package_names_its_extra_and_stops_nothing_else(blocked: list[str], expected: list[str]) -> None:
    code = PROGRAM.format(blocked=blocked)
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = ran.stdout.splitlines()
    assert len(lines) == 3
    assert all(part in line for part, line in zip(expected, lines, strict=True)), lines
