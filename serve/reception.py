"""What every door does with a request before it is answered: an id, a count, and a problem for what nobody foresaw."""

from __future__ import annotations

import logging
import re
import uuid
from collections.abc import Callable
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve import problems

REQUEST_ID = "X-Request-ID"
log = logging.getLogger("inspection.serve")


class Reception:
    """Gives every request an id, counts it, and makes a problem (and a traceback in the log) of what nobody foresaw.

    Args:
        problem: told the status and code of every problem that is answered.
    """

    def __init__(self, app: ASGIApp, problem: Callable[[int, str], None]) -> None:
        self.app = app
        self.problem = problem

    def counts(self, scope: Scope) -> bool:  # noqa: ARG002
        """Whether `arrived`, and one of `answered` and `lost`, are to be told of this request."""
        return False

    def arrived(self) -> None:
        """A request that counts came."""

    def answered(self, state: dict[str, Any]) -> None:
        """Its answer is about to leave."""

    def lost(self, code: str) -> None:
        """It ended without an answer."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        request_id = state["id"] = _request_id(scope)
        counts = self.counts(scope)
        if counts:
            self.arrived()
        answered = False

        async def sending(message: Message) -> None:
            nonlocal answered
            if message["type"] == "http.response.start":
                answered = True
                message["headers"] = [*message["headers"], (REQUEST_ID.lower().encode(), request_id.encode())]
                # Before the answer leaves: whoever has it finds it counted.
                if (code := state.get("problem")) is not None:
                    self.problem(message["status"], code)
                if counts:
                    self.answered(state)
            await send(message)

        try:
            await self.app(scope, receive, sending)
        except ClientDisconnect:
            if counts and not answered:
                self.lost("client-gone")
        except Exception:
            log.exception("request %s: %s %s failed", request_id, scope["method"], scope["path"])
            if answered:
                raise  # the client sees a broken answer, which is all that can still be said
            state["problem"] = problems.Internal.code
            error = problems.Internal(
                "the service failed on this request.", hint="Its log says what happened, under the request's id."
            )
            await problems.respond(request_id, error)(scope, receive, sending)
        except BaseException:  # cancelled: the server stops by force
            if counts and not answered:
                self.lost("cancelled")
            raise


def _request_id(scope: Scope) -> str:
    """The client's own id where it is a plain word, so that its log and ours meet; else a new one."""
    for key, value in scope["headers"]:
        if key == REQUEST_ID.lower().encode() and re.fullmatch(rb"[A-Za-z0-9._-]{1,128}", value):
            return str(value.decode())
    return uuid.uuid4().hex
