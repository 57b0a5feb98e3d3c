"""What stands in the registers, where docs/modbus.md says it stands."""

from __future__ import annotations

import itertools
import math
import re
import sys
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inspection.outputs import modbus_map
from inspection.parts import ViewResult
from inspection.results import Defect, Verdict
from tests.outputs.plc import DOCS, INTEGRATOR, MAP, WAIT, message, part, serving, until, value, view
from tests.outputs.scripted_line import ScriptedLine

pytestmark = pytest.mark.line


def test_the_page_prints_the_map_that_is_served() -> None:
    page = DOCS.read_text()
    printed = page.partition("<!-- map -->\n")[2].partition("<!-- end of map -->")[0]
    assert printed == modbus_map.tables(), "print it anew: python -m inspection.outputs.modbus_map"
    assert f"Version {modbus_map.VERSION}," in page


def test_the_page_says_of_each_bit_what_it_means() -> None:
    rows = re.findall(r"^\| (\d+) \| ([A-Z_]+) \| (.+) \|$", DOCS.read_text(), re.M)
    said = {name: text for _, name, text in rows}
    assert len(set(said.values())) == len(rows) == len(modbus_map.Status) + len(modbus_map.Command)
    assert said["TRIGGER_READY"] == "a trigger becomes a part now"
    assert said["TRIGGER"].startswith("a part comes by")


def test_no_two_values_share_a_register_and_status_and_result_fit_one_request() -> None:
    used = [start + index for start, count, _ in MAP.values() for index in range(count)]
    assert len(used) == len(set(used))
    assert max(one.end for one in modbus_map.RESULT) <= 125
    assert min(MAP.values())[0] == MAP["version"][0] == 0
    assert len(set(modbus_map.CODES.values())) == len(modbus_map.CODES)
    assert all(0 < number < modbus_map.OTHER_CODE for number in modbus_map.CODES.values())


def test_every_error_and_alarm_of_the_line_has_a_number() -> None:
    source = "\n".join(file.read_text() for file in (DOCS.parents[1] / "inspection").rglob("*.py"))
    used = re.findall(r'^    code(?:: [^=]+)? = "([a-z-]+)"$|alarm\(\s*"([a-z-]+)"', source, re.M)
    codes = {one or other for one, other in used} - {"error"}  # the base class's, which nobody raises
    assert len(codes) > 30
    assert codes <= modbus_map.CODES.keys(), "give them numbers in inspection/outputs/modbus_map.py"


def test_the_integrators_page_names_numbers_of_this_map() -> None:
    named = re.findall(r"(\d+) \(`([a-z-]+)`\)", INTEGRATOR.read_text())
    assert len(named) >= 2
    assert {code: int(number) for number, code in named}.items() <= modbus_map.CODES.items()


def test_the_result_says_which_views_and_where_the_worst_defect_is() -> None:
    small = Defect(kind="dent", score=1.5, box=(1, 2, 3, 4), area=9)
    large = Defect(kind="scratch", score=1e39, box=(70_000, 20, 300, 5), area=900)
    result = part(
        2**32 + 5,
        view("a", Verdict.OK, 0.1),
        view("b", Verdict.NG, 1.5, small),
        view("c", Verdict.REVIEW, -3.25),
        ViewResult(view="d", verdict=Verdict.ERROR, code="frame-lost", reason="lost."),
        view("e", Verdict.NG, 2.5, small, large),
        verdict=Verdict.NG,
        kind="crack",
        lot="Ä" + "x" * 40,
        seconds={"last_frame": 0.0304, "decided": 0.0446},
    )
    with ScriptedLine(running=True) as line, serving(line, classes=["dent"]) as (sink, plc):
        before = plc.result()
        assert (before["sequence"], before["verdict"], before["class"], before["worst_view"]) == (0, 0, -1, -1)
        assert math.isnan(before["score"])
        sink.deliver(message(result, 1))
        got = plc.result()
    assert got["number"] == 5
    assert (got["views"], got["views_ok"], got["views_ng"]) == (5, 0b00001, 0b10010)
    assert (got["views_review"], got["views_error"]) == (0b00100, 0b01000)
    assert (got["defects"], got["worst_view"], got["worst_score"]) == (3, 4, math.inf)
    assert [got[f"worst_{name}"] for name in ("x", "y", "width", "height")] == [65535, 20, 300, 5]
    assert (got["score"], got["class"]) == (2.5, 32767)
    assert (got["last_frame_ms"], got["decided_ms"]) == (30, 45)
    assert (got["serial"], got["lot"]) == (f"serial {2**32 + 5}", "?" + "x" * 31)


@pytest.fixture
def restless() -> Iterator[None]:
    """Threads are interrupted a thousand times more often than usual."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(5e-6)
    yield
    sys.setswitchinterval(usual)


@pytest.mark.slow
@pytest.mark.usefixtures("restless")
def test_a_client_that_polls_as_fast_as_it_can_never_sees_a_mixed_result() -> None:
    def consistent(got: dict[str, Any]) -> bool:
        number = got["number"]
        return bool(
            got["sequence"] == got["sequence_again"] == (number - 1) % 65535 + 1
            and got["serial"] == f"serial {number}"
            and got["score"] == number
            and got["lot"] == str(number)
            and got["decided_ms"] == number
        )

    enough = threading.Event()
    with ScriptedLine(running=True) as line, serving(line) as (sink, plc):

        def deliver() -> None:
            for number in itertools.count(1):
                judged = view("a", Verdict.OK, float(number))
                sink.deliver(message(part(number, judged, lot=str(number), seconds={"decided": number / 1000}), number))
                if enough.is_set():
                    return

        writer = threading.Thread(target=deliver, daemon=True)
        writer.start()
        until(lambda: plc.get("sequence") > 0, "no result")
        whole, split = set(), 0
        for _ in range(800):
            got = plc.result()
            assert consistent(got), got
            whole.add(got["number"])
            halves = plc.read("sequence", "worst_score") + plc.read("serial", "sequence_again")
            got = {name: value(name, halves, 32) for name, (start, _, _) in MAP.items() if 32 <= start < 200}
            if got["sequence"] == got["sequence_again"]:
                assert consistent(got), got
                split += 1
        enough.set()
        writer.join(WAIT)
        assert not writer.is_alive()
        assert len(whole) > 20
        assert consistent(plc.result())


def test_after_65535_the_sequence_is_1_because_0_says_that_there_was_no_result() -> None:
    with ScriptedLine(running=True) as line, serving(line) as (sink, plc):
        sink._put("sequence", 65534)  # 65534 results later
        for number, sequence in ((1, 65535), (2, 1), (3, 2)):
            sink.deliver(message(part(number), number))
            got = plc.result()
            assert (got["number"], got["sequence"], got["sequence_again"]) == (number, sequence, sequence)


@given(st.text(max_size=60))
def test_text_comes_back_as_far_as_it_can_be_held(text: str) -> None:
    field = modbus_map.REGISTERS["serial"]
    encoded = field.encode(text)
    assert len(encoded) == MAP["serial"][1]
    shown = value("serial", encoded, MAP["serial"][0])
    assert len(shown) == min(len(text), 48)
    assert all(mine == theirs or mine == "?" for mine, theirs in zip(shown, text, strict=False))
    assert all(mine == theirs for mine, theirs in zip(shown, text, strict=False) if " " <= theirs <= "~")
    assert field.decode(encoded) == shown.rstrip(" ")


@given(st.data())
def test_numbers_are_encoded_as_another_library_decodes_them(data: st.DataObject) -> None:
    bounds = {"u16": (0, 2**16 - 1), "i16": (-(2**15), 2**15 - 1), "u32": (0, 2**32 - 1), "i32": (-(2**31), 2**31 - 1)}
    for name, register in modbus_map.REGISTERS.items():
        if register.kind == "text":
            continue
        given_ = data.draw(st.floats(width=32) if register.kind == "f32" else st.integers(*bounds[register.kind]))
        encoded = register.encode(given_)
        for seen in (value(name, encoded, MAP[name][0]), register.decode(encoded)):
            assert seen == given_ or (seen != seen and given_ != given_)  # NaN


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_scores_beyond_single_precision_are_infinite_and_all_others_rounded(score: float) -> None:
    values = modbus_map.result_values(part(1, view("a", Verdict.OK, score)).to_dict(), ())
    seen: float = value("score", modbus_map.REGISTERS["score"].encode(values["score"]), MAP["score"][0])
    with np.errstate(over="ignore"):
        assert seen == float(np.float32(score)) or (math.isinf(seen) and abs(score) >= 3.4e38)
