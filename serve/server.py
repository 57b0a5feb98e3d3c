"""Runs an application until it is told to stop, and stops so that nobody's answer is lost."""

from __future__ import annotations

import logging
import socket
import time
from types import FrameType

import uvicorn
from fastapi import FastAPI

from inspection.errors import ConfigInvalid
from serve.app import create_app
from serve.service import Service, State

KEEP_ALIVE = 75  # seconds; a camera that sends a part every minute keeps its connection


class Server(uvicorn.Server):
    """uvicorn, but told to stop it first says so at /health/ready, refuses new images, and answers what it has."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self.service = service
        self._stop_by: float | None = None

    def handle_exit(self, _sig: int, _frame: FrameType | None) -> None:
        """First signal: drain. Second: stop at once."""
        if self._stop_by is not None:
            self.force_exit = self.should_exit = True
            return
        # No more than this here: a signal comes in the middle of anything, such as a counter that holds its lock.
        self._stop_by = time.monotonic() + self.service.limits.drain_seconds

    async def on_tick(self, counter: int) -> bool:
        """True when the server should close its connections."""
        if self._stop_by is not None:
            if self.service.state is not State.STOPPING:
                self.service.stop()
            if not self.server_state.tasks or time.monotonic() > self._stop_by:
                return True
        return await super().on_tick(counter)


def bind(host: str, port: int) -> socket.socket:
    """A socket at the address, so that a taken port is known before a model is loaded. Raises ConfigInvalid."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigInvalid(
            f"cannot listen at {host}:{port}: {reason}.",
            where="--host, --port",
            hint="Choose another --port, such as 0 for any that is free.",
        ) from error
    return listener


def settings(app: FastAPI) -> uvicorn.Config:
    """How every door of ours is served."""
    # What a client's broken form is, the client is told; the log is for what the service's people can mend.
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)
    return uvicorn.Config(
        app,
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=5,
        ws="none",
    )


def run(service: Service, listener: socket.socket) -> None:
    """Serves until SIGTERM or SIGINT. Raises what the model could not be loaded for."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    server = Server(settings(create_app(service)), service)
    told = service.on_change

    def on_change(changed: Service) -> None:
        if changed.failure is not None:
            server.should_exit = True
        told(changed)

    service.on_change = on_change
    server.run(sockets=[listener])
    if service.failure is not None:
        raise service.failure
