"""What an integrator gets wrong at night is said before the line runs: what, where, and the mend."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import cv2
import pytest

from inspection.recipe.check import Finding, check, check_file
from inspection.recipe.load import load
from tests.recipe.conftest import PLAIN, Write
from tests.support.images import save, surface

GATE = {"kind": "modbus", "host": "10.0.0.1", "gate": True, "lead": "20ms"}
MQTT = {"kind": "mqtt", "host": "broker"}
ZONES = {"rim": {"rectangle": [0, 0, 10, 10]}}
SIZE = {"views.top.camera.width": 640, "views.top.camera.height": 480}
FOLDER = {"kind": "folder", "path": "images"}
SQUARE = [[0, 0], [64, 0], [64, 64], [0, 64]]


def found(write: Write, changes: dict[str, Any], level: str = "error") -> dict[str, Finding]:
    findings = check(load(write({"outputs": [GATE], **changes})))
    return {finding.key: finding for finding in findings if finding.level == level}


def tolerances(*some: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"rule": {"tolerances": list(some)}, **more}


def test_a_sound_recipe_has_no_finding(write: Write) -> None:
    assert check(load(write({"outputs": [GATE]}))) == []
    assert check_file(write({"outputs": [GATE]})) == []


ERRORS: list[tuple[str, dict[str, Any], str, str]] = [
    (
        "a model of another bit depth",
        {"views.top.model": "models/mono12.onnx"},
        "views.top.camera.pixel_format",
        "12 bit",
    ),
    ("a depth stated wrongly", {"views.side.bit_depth": 12}, "views.side.bit_depth", "the model takes 8 bit"),
    ("a colour model on a mono camera", {"views.top.model": "models/rgb.onnx"}, "views.top.camera.pixel_format", "RGB"),
    (
        "a model without a map",
        {
            "views.top.model": "models/blind.onnx",
            "views.top.operating_point": {"ok_below": 1, "ng_above": 2},
            "views.top.ignore": [SQUARE],
        },
        "views.top.ignore",
        "pixel_above",
    ),
    ("a model that is no model", {"views.top.model": "mask.png"}, "views.top.model", "ONNX"),
    (
        "a region that ends outside",
        {**SIZE, "views.top.regions": [{"x": 600, "y": 0, "width": 41, "height": 40}]},
        "views.top.regions.0",
        "641 x 40",
    ),
    (
        "a thumbnail of a region",
        {"views.top.regions": [{"x": 0, "y": 0, "width": 3, "height": 40}]},
        "views.top.regions.0",
        "16 times",
    ),
    (
        "a place to ignore outside",
        {**SIZE, "views.top.ignore": [[[700, 0], [800, 0], [800, 9]]]},
        "views.top.ignore.0",
        "no pixel",
    ),
    (
        "a zone outside",
        {**SIZE, "views.top.zones": {"rim": {"rectangle": [0, 500, 9, 9]}}},
        "views.top.zones.rim",
        "no pixel",
    ),
    ("a zone without a shape", {"views.top.zones": {"rim": {}}}, "views.top.zones.rim", "rectangle"),
    (
        "a zone with two shapes",
        {"views.top.zones": {"rim": {"rectangle": [0, 0, 9, 9], "polygon": SQUARE}}},
        "views.top.zones.rim",
        "exactly one",
    ),
    (
        "all is ignored",
        {**SIZE, "views.top.ignore": [[[0, 0], [640, 0], [640, 480], [0, 480]]]},
        "views.top.ignore",
        "whole frame",
    ),
    (
        "a region is ignored wholly",
        {**SIZE, "views.top.regions": [{"x": 0, "y": 0, "width": 64, "height": 64}], "views.top.ignore": [SQUARE]},
        "views.top.regions.0",
        "ignored wholly",
    ),
    (
        "a mask of another size",
        {"views.top.camera.width": 800, "views.top.camera.height": 480, "views.top.ignore_mask": "half.png"},
        "views.top",
        "640 x 480",
    ),
    ("a mask that is no image", {"views.top.ignore_mask": "models/mono.onnx"}, "views.top.ignore_mask", "image"),
    (
        "images of another kind",
        {"views.side.camera": FOLDER, "views.side.model": "models/rgb.onnx"},
        "views.side.camera.path",
        "mono",
    ),
    (
        "two views on one camera",
        {"views.side.camera": PLAIN["views"]["top"]["camera"]},
        "views.side.camera.address",
        "`top`",
    ),
    ("all views optional", {"views.top.optional": True, "views.side.optional": True}, "views", "optional"),
    ("more NG views than views", {"rule": {"ng_views": 3}}, "rule.ng_views", "no part can ever be NG"),
    (
        "a tolerance for no view",
        tolerances({"views": ["topp"], "max_area": 1}),
        "rule.tolerances.0.views.0",
        "Did you mean `top`?",
    ),
    (
        "a tolerance for no zone",
        tolerances({"views": ["top"], "zones": ["rin"], "max_area": 1}, **{"views.top.zones": ZONES}),
        "rule.tolerances.0.zones.0",
        "Did you mean `rim`?",
    ),
    (
        "a tolerance for no kind",
        tolerances({"views": ["side"], "kinds": ["scrach"], "max_area": 1}, **{"views.side.model": "models/rgb.onnx"}),
        "rule.tolerances.0.kinds.0",
        "`scratch`",
    ),
    (
        "millimetres without a scale",
        tolerances({"max_area_mm2": 1}, **{"views.top.mm_per_pixel": 0.1}),
        "rule.tolerances.0.max_area_mm2",
        "`side`",
    ),
    (
        "a tolerance behind a wider one",
        tolerances({"max_area": 1}, {"views": ["top"], "max_area": 9}),
        "rule.tolerances.1",
        "never reached",
    ),
    (
        "a tolerance without defects",
        tolerances({"views": ["top"], "max_area": 1}, **{"views.top.model": "models/pointless.onnx"}),
        "rule.tolerances.0",
        "pixel_above",
    ),
    (
        "a camera opens parts that nobody triggers",
        {"trigger": {"kind": "camera", "view": "top"}, "views.top.camera.trigger": "software"},
        "trigger",
        "no part would ever begin",
    ),
    ("a camera trigger of no view", {"trigger": {"kind": "camera", "view": "tob"}}, "trigger.view", "`top`"),
    ("frames that do not say their part", {"match": {"by": "part"}}, "match.by", "`top`"),
    (
        "frames that do not say their trigger",
        {"match": {"by": "trigger"}, "views.top.camera": {**FOLDER, "part": "(?P<part>.*)"}},
        "match.by",
        "(?P<trigger>",
    ),
    (
        "names that say a trigger and no part",
        {
            "match": {"by": "part"},
            "views.top.camera": {**FOLDER, "part": "(?P<trigger>.*)"},
        },
        "match.by",
        "(?P<part>",
    ),
    ("a frame that may be a takt early", {"match": {"early": "1s"}}, "match.early", "takt"),
    ("a lead as long as the deadline", {"outputs": [{**GATE, "lead": "900ms"}]}, "outputs.0.lead", "nothing is left"),
    ("a gate without results", {"outputs": [{**GATE, "sends": ["alarm"]}]}, "outputs.0.sends", "no results"),
    (
        "a hold beyond the deadline",
        {"outputs": [{**GATE, "hold": {"after": "2s"}}]},
        "outputs.0.hold.after",
        "none would ever",
    ),
    (
        "a hold before the verdict",
        {"outputs": [{**GATE, "hold": {"after": "300ms"}}]},
        "outputs.0.hold.after",
        "may take 0.88 s",
    ),
    (
        "a hold by an encoder nobody reads",
        {"trigger": {"kind": "timer"}, "outputs": [{**GATE, "hold": {"encoder": 9}}]},
        "outputs.0.hold.encoder",
        "no encoder",
    ),
    (
        "authorities that are not there",
        {"views.side.camera": {"kind": "stream", "url": "https://10.0.0.3/a", "ca": "no.pem"}},
        "views.side.camera.ca",
        "cannot be read",
    ),
    ("two outputs of one name", {"outputs": [GATE, {**GATE, "port": 503}]}, "outputs.1", "`modbus`"),
    ("two servers at one port", {"outputs": [GATE, {**GATE, "name": "b"}]}, "outputs.1.port", "listens"),
    ("half a TLS identity", {"outputs": [GATE, {**MQTT, "certificate": "mask.png"}]}, "outputs.1", "go together"),
    (
        "a certificate that is not there",
        {"outputs": [GATE, {**MQTT, "ca": "none.pem"}]},
        "outputs.1.ca",
        "cannot be read",
    ),
    ("no web address", {"outputs": [GATE, {"kind": "webhook", "url": "server/path"}]}, "outputs.1.url", "https"),
    ("another database", {"record": {"database": "mysql://h/d"}}, "record.database", "postgresql://"),
    ("a record inside a file", {"record": {"folder": "mask.png/record"}}, "record.folder", "cannot be written"),
    ("a device that is none", {"work": {"provider": "cude"}}, "work.provider", "`cuda`"),
]


@pytest.mark.parametrize(("name", "changes", "key", "words"), ERRORS, ids=[case[0] for case in ERRORS])
def test_an_error_is_found_with_its_key_and_its_line(
    write: Write, tmp_path: Path, name: str, changes: dict[str, Any], key: str, words: str
) -> None:
    (tmp_path / "images").mkdir()
    save(tmp_path / "images" / "1.png", surface(1, 480, 640))
    half = surface(0, 480, 640)
    half[:, 320:] = 0
    save(tmp_path / "half.png", half)
    finding = found(write, changes)[key]
    assert words in f"{finding.what} {finding.mend}"
    file, _, line = finding.where.rpartition(":")
    written = Path(file).read_text().splitlines()[int(line) - 1]
    assert any(f"{part}:" in written for part in key.split(".")) or written.strip().startswith("-")


def test_trusted_certificates_beside_a_door_without_certificates_are_refused_with_their_line(write: Write) -> None:
    opcua = {"kind": "opcua", "host": "10.0.0.1", "trusted": "trusted", "security": ["none", "sign"]}
    path = write({"outputs": [GATE, opcua]})
    (finding,) = check_file(path)
    assert finding.level == "error"
    assert "`none`, where clients show no certificate" in finding.what
    assert path.read_text().splitlines()[int(finding.where.rpartition(":")[2]) - 1].startswith("-")
    del opcua["security"]
    assert [finding.key for finding in check_file(write({"outputs": [GATE, opcua]}))] == []


WARNINGS: list[tuple[str, dict[str, Any], str, str]] = [
    ("no operating point", {"views.top.model": "models/pointless.onnx"}, "views.top.model", "every part is REVIEW"),
    (
        "crossed thresholds",
        {"views.top.operating_point": {"ok_below": 2, "ng_above": 1}},
        "views.top.operating_point",
        "ever REVIEW",
    ),
    ("another tiling than in training", {"views.top.tiling": {"overlap": 0.5}}, "views.top.tiling", "does not hold"),
    (
        "tiles larger than the region",
        {"views.top.tiling": {}, "views.top.regions": [{"x": 0, "y": 0, "width": 40, "height": 40}]},
        "views.top.regions.0",
        "one tile",
    ),
    ("no pixel format", {"views.top.camera.pixel_format": None}, "views.top.camera", "Mono8"),
    ("a reference nobody looks at", {"views.top.reference": "reference.png"}, "views.top.reference", "no network"),
    (
        "a region twice",
        {"views.top.regions": [{"x": 0, "y": 0, "width": 64, "height": 64}] * 2},
        "views.top.regions.1",
        "twice",
    ),
    (
        "a place that reaches outside",
        {**SIZE, "views.top.ignore": [[[600, 0], [800, 0], [800, 90]]]},
        "views.top.ignore.0",
        "beyond",
    ),
    ("a zone nobody names", {"views.top.zones": ZONES}, "views.top.zones.rim", "no tolerance"),
    ("a tolerance without a limit", tolerances({"views": ["top"]}), "rule.tolerances.0", "any size"),
    ("a free camera with triggers", {"views.top.camera.trigger": "free"}, "views.top.camera", "before or after"),
    (
        "a free camera that opens parts",
        {"trigger": {"kind": "camera", "view": "top"}, "views.top.camera.trigger": "free"},
        "views.top.camera",
        "every frame is a part",
    ),
    ("a wire and a timer", {"trigger": {"kind": "timer"}}, "views.top.camera.trigger", "do not know"),
    ("a window beyond the deadline", {"match": {"window": "2s"}}, "match.window", "deadline"),
    ("a window beyond the takt", {"deadline": "3s", "match": {"window": "2s"}}, "match.window", "part before"),
    ("too few may wait", {"work": {"waiting": 1}}, "work.waiting", "waiting: 2"),
    ("silence shorter than the takt", {"views.top.camera.silence": "500ms"}, "views.top.camera.silence", "stuck"),
    ("a gate without lead", {"outputs": [{**GATE, "lead": 0}]}, "outputs.0.gate", "lead"),
    ("no gate", {"outputs": [{**GATE, "gate": False}]}, "outputs", "gate"),
    ("no output", {"outputs": []}, "outputs", "nobody"),
    (
        "a server that anybody may command",
        {"outputs": [GATE, {"kind": "opcua", "host": "10.0.0.1"}]},
        "outputs.1",
        "Set `trusted` or `users_env`",
    ),
    (
        "a stream from whatever server",
        {"views.side.camera": {"kind": "stream", "url": "https://10.0.0.3/a", "verify": False}},
        "views.side.camera.verify",
        "stand in for the camera",
    ),
    (
        "a library that looks at no certificate",
        {"views.side.camera": {"kind": "device", "device": "rtsps://10.0.0.3/a"}},
        "views.side.camera.device",
        "`kind: stream`",
    ),
    ("a server that no PLC reaches", {"outputs": [{**GATE, "host": "127.0.0.1"}]}, "outputs.0.host", "another machine"),
    ("a slow acknowledgement", {"outputs": [{**GATE, "acknowledge": "2s"}]}, "outputs.0.acknowledge", "takt"),
    (
        "a class without a number",
        {"views.side.model": "models/rgb.onnx", "outputs": [{**GATE, "classes": ["scratches"]}]},
        "outputs.0.classes",
        "no number",
    ),
    (
        "a password in plain text",
        {"outputs": [GATE, {**MQTT, "username": "u", "password_env": "HOME"}]},
        "outputs.1.password_env",
        "plain text",
    ),
    (
        "a password that is not set",
        {"outputs": [GATE, {**MQTT, "tls": True, "password_env": "NOT_SET_ANYWHERE"}]},
        "outputs.1.password_env",
        "NOT_SET",
    ),
    (
        "an unsigned webhook",
        {"outputs": [GATE, {"kind": "webhook", "url": "http://server/x"}]},
        "outputs.1.url",
        "forge",
    ),
    ("more threads than cores", {"work": {"workers": 100, "threads": 9}}, "work.threads", "900 threads"),
    ("no room for images", {"record": {"images": {"free": "9000000 TB"}}}, "record.images.free", "no image"),
    ("a quota beyond the disk", {"record": {"images": {"quota": "9000000 TB"}}}, "record.images.quota", "Lower it"),
]


@pytest.mark.parametrize(("name", "changes", "key", "words"), WARNINGS, ids=[case[0] for case in WARNINGS])
def test_what_somebody_should_know_is_a_warning_and_no_error(
    write: Write, name: str, changes: dict[str, Any], key: str, words: str
) -> None:
    finding = found(write, changes, "warning")[key]
    assert words in f"{finding.what} {finding.mend}"
    assert not found(write, changes, "error")


def test_a_package_that_is_not_installed_is_named_with_its_extra(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "viva_genicam" else real(name))
    finding = found(write, {})["views.top.camera.kind"]
    assert "lightsout-inspection[gige]" in str(finding.mend)


def test_a_model_that_cannot_be_read_is_said_for_each_of_its_views_and_stops_no_other_check(write: Write) -> None:
    changes = {"views.top.model": "mask.png", "views.side.model": "mask.png", "rule": {"ng_views": 9}}
    assert {"views.top.model", "views.side.model", "rule.ng_views"} <= set(found(write, changes))


def test_a_mask_that_hides_nothing_is_a_warning(write: Write, tmp_path: Path) -> None:
    assert cv2.imwrite(str(tmp_path / "black.png"), surface(0, 480, 640) * 0)
    finding = found(write, {"views.top.ignore_mask": "black.png"}, "warning")["views.top.ignore_mask"]
    assert "nothing is ignored" in finding.what


def test_a_file_that_cannot_be_loaded_has_all_its_mistakes_as_findings(write: Write, tmp_path: Path) -> None:
    path = write({"takt": "soon", "views.top.camera.kind": "genecam", "rule": {"ng_vews": 1}})
    findings = check_file(path)
    assert len(findings) == 3
    assert all(finding.where.startswith(f"{path}:") for finding in findings)
    (finding,) = check_file(tmp_path / "none.yaml")
    assert "No such file" in finding.what
    (finding,) = check_file(write({"views.top.model": "none.onnx"}))
    assert "none.onnx" in finding.what


def test_an_index_that_another_recipe_in_the_folder_has_is_an_error(write: Write) -> None:
    one = write({"outputs": [GATE], "index": 1}, name="one.yaml")
    write({"index": 1}, name="two.yaml")
    (finding,) = check_file(one)
    assert "one.yaml and two.yaml" in finding.what
