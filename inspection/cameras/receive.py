"""The socket buffer of a stream that a library opened: how large it is, and larger where this process may.

A frame arrives as a burst. What the buffer cannot hold until the receiver runs again is dropped by the kernel, before
any library sees it.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

SO_RCVBUFFORCE = 33  # Linux, from asm-generic/socket.h; Python has no name for it. Needs CAP_NET_ADMIN.


def widen(port: int, size: int) -> int | None:
    """Widens the receive buffer of this process's UDP socket on `port` for `size` bytes, as far as the system allows.

    Returns:
        The bytes that were granted, as the kernel counts: twice what was asked for, since it counts what it allocates
        for a packet and not what the packet holds. net.core.rmem_max is the limit, unless the process may go beyond
        it. None where the system does not show a process its own sockets (not Linux).
    """
    granted = None
    for own in _own_sockets(port):
        for option in (SO_RCVBUFFORCE, socket.SO_RCVBUF):
            if own.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) >= 2 * size:
                break
            with suppress(PermissionError):
                own.setsockopt(socket.SOL_SOCKET, option, size)
        granted = own.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    return granted


def dropped(port: int) -> int | None:
    """Datagrams that the kernel dropped at the UDP socket on `port` since it was opened; None where it does not say."""
    with suppress(OSError):
        for line in Path("/proc/thread-self/net/udp").read_text().splitlines()[1:]:
            columns = line.split()
            if int(columns[1].rpartition(":")[2], 16) == port:
                return int(columns[-1])
    return None


def _own_sockets(port: int) -> Iterator[socket.socket]:
    with suppress(FileNotFoundError):
        for number in os.listdir("/proc/self/fd"):
            with suppress(OSError):  # a descriptor that was closed meanwhile, or is no socket
                if not os.readlink(f"/proc/self/fd/{number}").startswith("socket:"):
                    continue
                with socket.socket(fileno=os.dup(int(number))) as own:
                    if own.type == socket.SOCK_DGRAM and own.family == socket.AF_INET and own.getsockname()[1] == port:
                        yield own
