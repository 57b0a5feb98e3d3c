"""Work that may block, beside the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

from inspection.errors import ConfigInvalid, InspectionError


def in_thread(name: str, work: Callable[[], None]) -> asyncio.Future[None]:
    """Runs what may block in a daemon thread of its own: one that hangs must keep neither the loop nor the exit."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def settle(error: BaseException | None) -> None:
        if done.done():
            return
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)

    def run() -> None:
        failure: BaseException | None = None
        try:
            work()
        except InspectionError as error:
            failure = error
        except BaseException as error:  # noqa: BLE001 - handed to whoever awaits it
            failure = ConfigInvalid(f"the change-over broke down: {type(error).__name__}: {error}.")
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, failure)

    threading.Thread(target=run, name=name, daemon=True).start()
    return done
