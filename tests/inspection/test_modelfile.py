"""Model files that are read, and those that are refused."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from inspection import onnxfile
from inspection.engine import Engine
from inspection.errors import InspectionError, ModelInvalid
from inspection.modelfile import METADATA_KEY, ModelCard, file_hash, parse_card, read_card
from tests.support import graphs


def test_the_card_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    wanted = graphs.card(classes=("ä", "b", "c"))
    path = graphs.write(tmp_path / "m.onnx", graphs.graph(classes=True), wanted)
    assert read_card(path) == wanted


def test_metadata_is_what_the_onnx_package_reads(tmp_path: Path) -> None:
    model = graphs.graph()
    helper.set_model_props(model, {"author": "someone", METADATA_KEY: "{}", "empty": ""})
    data = model.SerializeToString()
    theirs = {entry.key: entry.value for entry in onnx.load_from_string(data).metadata_props}
    assert onnxfile.metadata(data) == theirs


@pytest.mark.parametrize("data", [b"", b"no model at all", bytes(1000), b"\xff" * 50], ids=["empty", "text", "0", "ff"])
def test_what_is_no_onnx_is_refused_and_named(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(data)
    with pytest.raises(ModelInvalid) as caught:
        read_card(path)
    assert caught.value.where == str(path)


def test_a_missing_model_is_refused_and_named(tmp_path: Path) -> None:
    with pytest.raises(ModelInvalid, match=r"nothing\.onnx.*No such file"):
        read_card(tmp_path / "nothing.onnx")


def test_somebody_elses_onnx_is_refused_because_it_has_no_card(tmp_path: Path) -> None:
    path = graphs.write(tmp_path / "m.onnx", graphs.graph(), None)
    with pytest.raises(ModelInvalid, match="no card"):
        read_card(path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_cut_off_model_is_refused(tmp_path: Path, share: float) -> None:
    data = graphs.model_file(tmp_path / "m.onnx").read_bytes()
    (tmp_path / "cut.onnx").write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ModelInvalid):
        read_card(tmp_path / "cut.onnx")


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"format": 2}, "format"),
        ({"surprise": 1}, "surprise"),
        ({"input": {"height": 8, "width": 64, "channels": 3}}, "height"),
        ({"task": "guess"}, "task"),
    ],
)
def test_a_card_of_another_version_is_refused_with_the_key(
    tmp_path: Path, change: dict[str, object], word: str
) -> None:
    model = graphs.graph()
    values = json.loads(graphs.card().model_dump_json()) | change
    helper.set_model_props(model, {METADATA_KEY: json.dumps(values)})
    with pytest.raises(ModelInvalid, match=word):
        parse_card(model.SerializeToString())


def test_a_card_that_is_no_json_is_refused() -> None:
    model = graphs.graph()
    helper.set_model_props(model, {METADATA_KEY: "{"})
    with pytest.raises(ModelInvalid, match="card"):
        parse_card(model.SerializeToString())


def with_external_weights(model: onnx.ModelProto, folder: Path) -> bytes:
    big = numpy_helper.from_array(np.ones(4096, np.float32), "big")
    model.graph.initializer.append(big)
    model.graph.node.append(helper.make_node("Identity", ["big"], ["unused"]))
    onnx.save_model(model, folder / "e.onnx", save_as_external_data=True, location="weights.bin", size_threshold=1024)
    return (folder / "e.onnx").read_bytes()


def test_a_model_with_weights_in_another_file_is_refused(tmp_path: Path) -> None:
    model = graphs.graph()
    helper.set_model_props(model, {METADATA_KEY: graphs.card().model_dump_json()})
    assert not onnxfile.needs_other_files(model.SerializeToString())
    data = with_external_weights(model, tmp_path)
    assert onnxfile.needs_other_files(data)
    with pytest.raises(ModelInvalid, match="beside it"):
        Engine(data, graphs.card())


def test_weights_outside_are_found_inside_nested_graphs_too() -> None:
    outside = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    outside.external_data.add(key="location", value="/etc/passwd")
    constant = helper.make_node("Constant", [], ["c"], value=outside)
    branch = helper.make_graph([constant], "branch", [], [helper.make_tensor_value_info("c", TensorProto.FLOAT, [1])])
    outer = helper.make_node("If", ["yes"], ["score"], then_branch=branch, else_branch=branch)
    nested = helper.make_graph([outer], "outer", [], [])
    assert onnxfile.needs_other_files(helper.make_model(nested).SerializeToString())


def test_nesting_without_end_is_refused() -> None:
    def message(number: int, inside: bytes) -> bytes:
        size, length = len(inside), b""
        while size > 127:
            length, size = length + bytes([size & 127 | 128]), size >> 7
        return bytes([number << 3 | 2]) + length + bytes([size]) + inside

    graph = b""
    for _ in range(500):  # graph > node > attribute > graph
        graph = message(1, message(5, message(6, graph)))
    with pytest.raises(ModelInvalid):
        onnxfile.needs_other_files(message(7, graph))


MODEL = graphs.graph().SerializeToString()


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(MODEL) - 1), st.integers(0, 255)), min_size=1, max_size=8))
def test_no_damaged_model_raises_anything_but_our_error(flips: list[tuple[int, int]]) -> None:
    data = bytearray(MODEL)
    for at, value in flips:
        data[at] = value
    for read in (onnxfile.metadata, onnxfile.needs_other_files):
        with contextlib.suppress(InspectionError):
            read(bytes(data))


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_but_our_error(data: bytes) -> None:
    with contextlib.suppress(ModelInvalid):
        parse_card(data)


def test_the_hash_is_sha256_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")  # FIPS 180-2, appendix B.1
    assert file_hash(tmp_path / "f") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_card_can_be_read_without_opening_the_graph(tmp_path: Path) -> None:
    """Reading a card must not need onnxruntime: `info` and a dashboard list many models."""
    path = graphs.model_file(tmp_path / "m.onnx")
    code = (
        "import sys; from inspection import read_card; read_card(sys.argv[1]); assert 'onnxruntime' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)


def test_the_card_survives_json() -> None:
    card = graphs.card(certificate=graphs.certificate([graphs.golden(np.zeros((64, 64, 3), np.uint8), graphs.spec())]))
    assert ModelCard.model_validate_json(card.model_dump_json()) == card
