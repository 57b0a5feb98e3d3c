"""The state machine by itself: its tables against the published nodeset, and what it makes of any line."""

import gzip
import hashlib
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import inspection.outputs
from inspection.control import LineState
from inspection.outputs.opcua.states import ALLOWED, NAMES, Vision, follow, transition

NS = "{http://opcfoundation.org/UA/2011/03/UANodeSet.xsd}"
FOLDER = Path(inspection.outputs.__file__).parent / "opcua"


@pytest.fixture(scope="module")
def published() -> dict[str, tuple[str, str, frozenset[str]]]:
    """Name -> from, to, causes of every transition of the two machines, read from the file of the OPC Foundation."""
    data = gzip.decompress((FOLDER / "machine_vision.xml.gz").read_bytes())
    nodes = {node.get("NodeId"): node for node in ET.fromstring(data) if node.get("NodeId")}

    def name(node: str | None) -> str:
        return nodes[node].get("BrowseName", "").partition(":")[2]

    found = {}
    for node in nodes.values():
        ends: dict[str, list[str]] = {"FromState": [], "ToState": [], "HasCause": []}
        for reference in node.iter(f"{NS}Reference"):
            if reference.get("ReferenceType") in ends and reference.get("IsForward") != "false":
                ends[reference.get("ReferenceType", "")].append(name(reference.text))
        if ends["FromState"] and node.get("ParentNodeId") in ("ns=1;i=1017", "ns=1;i=1021"):
            (source,), (target,) = ends["FromState"], ends["ToState"]
            found[name(node.get("NodeId"))] = source, target, frozenset(ends["HasCause"])
    return found


def test_the_nodeset_is_the_one_that_the_opc_foundation_published() -> None:
    data = gzip.decompress((FOLDER / "machine_vision.xml.gz").read_bytes())
    assert hashlib.md5(data, usedforsecurity=False).hexdigest() == "297b115b5bb511b4873b31b540002fa5"
    assert b"OPC Foundation MIT License 1.00" in data
    assert "OPC Foundation MIT License 1.00" in (FOLDER / "machine_vision.LICENSE").read_text(encoding="utf-8")


def test_every_transition_is_one_of_the_specification_with_its_states_and_cause(
    published: dict[str, tuple[str, str, frozenset[str]]],
) -> None:
    made = set()
    for cause in [*ALLOWED, None]:
        for source in Vision:
            for target in Vision:
                if source is target or (cause is not None and source not in ALLOWED[cause]):
                    continue
                try:
                    step = transition(source, target, cause)
                except KeyError:
                    continue
                made.add(step.name)
                start, end, causes = published[step.name]
                assert (step.source_name, step.target_name) == (start, end), step
                if not causes:
                    assert step.name.endswith("Auto")
                elif cause in causes:
                    made.add((step.name, cause))
    assert made & NAMES == NAMES
    # These the specification has, and the line never takes: StateMachine-wide twins of the ones that are taken.
    assert set(published) - NAMES == {
        "PreoperationalToOperational",
        "PreoperationalToOperationalAuto",
        "ReadyToSingleExecutionAuto",
    }
    for name, (_, _, causes) in published.items():
        for cause in causes if name in NAMES else ():
            assert (name, cause) in made, (name, cause)


def test_a_method_that_causes_a_transition_is_allowed_exactly_where_that_begins(
    published: dict[str, tuple[str, str, frozenset[str]]],
) -> None:
    for method, allowed in ALLOWED.items():
        sources = {start for start, _, causes in published.values() if method in causes}
        inside = {s.value for s in Vision if s.operational}
        expected = {one for start in sources for one in (inside if start == "Operational" else {start})}
        if method.startswith("Prepare"):
            assert expected <= {state.value for state in allowed} <= inside  # more: change-over while the line runs
        else:
            assert {state.value for state in allowed} == expected, method


@given(
    state=st.sampled_from(Vision),
    lines=st.lists(st.tuples(st.sampled_from(LineState), st.booleans(), st.booleans()), max_size=20),
)
def test_it_follows_any_line_by_transitions_that_exist_and_comes_to_rest(
    state: Vision, lines: list[tuple[LineState, bool, bool]]
) -> None:
    for line, prepared, job_open in lines:
        for _ in range(6):
            target = follow(state, line, prepared=prepared, job_open=job_open)
            if target is None:
                break
            assert transition(state, target).target is target
            state = target
        else:
            raise AssertionError(f"never at rest in {line}")
        if line is LineState.FAILED:
            assert state in (Vision.ERROR, Vision.HALTED)
        if line is LineState.RUNNING:
            assert state in (Vision.CONTINUOUS, Vision.SINGLE)
        if line is LineState.CLOSED:
            assert state is Vision.HALTED
        if line is LineState.STARTING:
            assert state not in (Vision.READY, Vision.CONTINUOUS)
