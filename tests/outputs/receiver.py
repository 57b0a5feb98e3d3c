"""A real HTTP server that webhooks are sent to, and which takes, refuses, hangs or is slow."""

from __future__ import annotations

import contextlib
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Receiver:
    """Answers by `answers`, one after the other, and then by `answer`; `got` is what it was sent, `took` the bodies
    that it answered by 200.

    An answer is a status, or `hang`: none, until `go_on` is set. Each takes `seconds`.
    """

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.took: list[bytes] = []
        self.answers: list[int | str] = []
        self.answer: int | str = 200
        self.seconds = 0.0
        self.headers: dict[str, str] = {}
        self.body = b"{}"
        self.go_on = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                answer = receiver.answers.pop(0) if receiver.answers else receiver.answer
                time.sleep(receiver.seconds)
                if answer == "hang":
                    receiver.go_on.wait(30)
                    self.close_connection = True
                    return
                receiver.got.append((dict(self.headers), body))
                if answer == 200:
                    receiver.took.append(body)
                self.send_response(int(answer))
                for name, value in receiver.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(receiver.body)))
                with contextlib.suppress(ConnectionError):  # who has sent it did not wait
                    self.end_headers()
                    self.wfile.write(receiver.body)

            def log_message(self, *_: Any) -> None:
                """Quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if context is not None:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"{'https' if context else 'http'}://127.0.0.1:{self._server.server_port}/hook"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.go_on.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
