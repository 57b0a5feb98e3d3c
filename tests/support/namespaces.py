"""Network namespaces: one GigE Vision camera and its own address in each, and a line's computer, behind one switch.

Only one fake camera fits on a host (it also listens at 255.255.255.255), and discovery by broadcast must not leave the
test. Everything that is made here is removed again; the network of this machine is not touched.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.cameras import ARAVIS, OwnImages, program


@dataclass(frozen=True, kw_only=True, slots=True)
class Network:
    """A line's computer and cameras with these addresses."""

    line: str
    addresses: list[str]

    def inside(self, *command: str) -> list[str]:
        """The command, as it is run on the line's computer."""
        return ["ip", "netns", "exec", self.line, *command]

    def python(self, code: str, *arguments: str, seconds: float = 120) -> str:
        """Runs code on the line's computer; returns what it prints."""
        command = self.inside(sys.executable, "-c", code, *arguments)
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout


@contextmanager
def cameras_behind_a_switch(
    count: int, *, mtu: int = 9000, frames: Sequence[list[bytes]] = (), folder: Path | None = None
) -> Iterator[Network]:
    """`count` fake cameras, each a host of its own at 10.77.0.2, 10.77.0.3, ...

    They draw a picture of their own, or each sends its `frames`, which are put into `folder`.
    """
    ip, camera = program("ip"), program(ARAVIS)
    line = f"line{os.getpid()}"
    names = [f"cam{os.getpid()}x{index}" for index in range(count)]
    if subprocess.run([ip, "netns", "add", line], capture_output=True, check=False).returncode:
        say = pytest.fail if os.environ.get("CI") else pytest.skip
        say("network namespaces need root")
    processes: list[subprocess.Popen[bytes]] = []
    senders: list[OwnImages] = []

    def run(*command: str) -> None:
        subprocess.run([ip, *command], check=True, capture_output=True)

    try:
        run("-n", line, "link", "set", "lo", "up")
        run("-n", line, "link", "add", "switch", "type", "bridge")
        run("-n", line, "link", "set", "switch", "mtu", str(mtu), "up")
        run("-n", line, "addr", "add", "10.77.0.1/24", "dev", "switch")
        for index, name in enumerate(names):
            run("netns", "add", name)
            run("-n", line, "link", "add", f"port{index}", "type", "veth", "peer", "name", "eth0", "netns", name)
            run("-n", line, "link", "set", f"port{index}", "mtu", str(mtu), "master", "switch", "up")
            run("-n", name, "addr", "add", f"10.77.0.{index + 2}/24", "dev", "eth0")
            run("-n", name, "link", "set", "eth0", "mtu", str(mtu), "up")
            prefix, serial = (ip, "netns", "exec", name), f"GV{index + 1:02}"
            if frames:
                assert folder is not None
                own = folder / serial
                own.mkdir(parents=True, exist_ok=True)
                senders.append(OwnImages(own, frames[index], interface="eth0", serial=serial, prefix=prefix))
                continue
            command = [*prefix, camera, "-i", "eth0", "-s", serial]
            processes.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        yield Network(line=line, addresses=[f"10.77.0.{index + 2}" for index in range(count)])
    finally:
        for sender in senders:
            sender.off()
        for process in processes:
            process.kill()
            process.wait()
        for name in (*names, line):
            subprocess.run([ip, "netns", "delete", name], capture_output=True, check=False)
