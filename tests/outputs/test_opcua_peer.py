"""The OPC UA server against a second client of another make: node-opcua, through npm."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("asyncua")

from inspection.outputs.opcua import OpcUaSink
from inspection.outputs.options import OpcUaOptions
from tests.outputs.scripted_line import ScriptedLine

pytestmark = [pytest.mark.line, pytest.mark.slow]

PEER = Path(__file__).parents[1] / "peers" / "opcua"
USERS = "INSPECTION_TEST_OPCUA_PEER"


@pytest.fixture(scope="session")
def node_peer() -> Path:
    """The folder with node-opcua, installed once into the user's cache, by the locked versions."""
    if shutil.which("npm") is None or shutil.which("node") is None:
        if os.environ.get("CI"):
            pytest.fail("node and npm are missing")
        pytest.skip("node and npm are missing: .ci/run installs them")
    lock = (PEER / "package-lock.json").read_bytes()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "inspection-tests"
    folder = cache / f"opcua-peer-{hashlib.sha256(lock).hexdigest()[:16]}"
    if not (folder / "installed").exists():
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(PEER / name, folder)
        command = ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=500, check=False)
        assert done.returncode == 0, done.stderr
        (folder / "installed").touch()
    return folder


@pytest.mark.parametrize(("security", "user"), [("none", ""), ("encrypt", "line")])
def test_node_opcua_prepares_a_recipe_runs_jobs_and_reads_their_results(
    node_peer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, security: str, user: str
) -> None:
    monkeypatch.setenv(USERS, "line:sesame")
    parts = ["a-OK", "b-NG", "c-REVIEW", "d-ERROR"] * 5
    parts = [f"{index}{part}" for index, part in enumerate(parts)]
    with ScriptedLine() as line:
        options = OpcUaOptions(kind="opcua", port=0, store=tmp_path / "store", users_env=USERS if user else None)
        sink = OpcUaSink(options, line, "line", line.alarm)
        line.attach(sink)
        done = subprocess.run(
            ["node", str(PEER / "client.js"), sink.url, security, user, "sesame", str(tmp_path), ",".join(parts)],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            env={**os.environ, "NODE_PATH": str(node_peer / "node_modules")},
        )
        assert done.returncode == 0, done.stderr
        seen = json.loads(done.stdout[done.stdout.index('{"early"') :])
        assert seen["early"] == "BadInvalidState"
        assert seen["selected"] == ["Good", 0, "Ready"]
        assert seen["prepared"] == ["Good", "nut", "a1" * 32, True]
        for part, job in zip(parts, seen["jobs"], strict=True):
            verdict = part.partition("-")[2]
            assert (job["verdict"], job["recipe"], job["job"]) == (verdict, "nut", True)
            assert job["state"] == (4 if verdict == "ERROR" else 1)
            assert job["asked"] == ["Good", part, verdict]
            assert (job["document"]["part"], job["document"]["lot"]) == (part, "lot 9")
            expected = {"OK": 0.25, "NG": 0.875, "REVIEW": 0.5, "ERROR": None}[verdict]
            assert job["score"] == expected  # JSON has no NaN
        assert line.counters()["line"]["triggers"] == len(parts)
