"""How a server process comes to leave: by a signal, by a store that failed, and with which exit code."""

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import structlog

from treadle_server.overdue import Overdue
from treadle_server.ports.log import Fenced

T = TypeVar("T")

_LOG = structlog.get_logger(__name__)

EXIT_UNUSABLE = 1
EXIT_IO_ERROR = 74
EXIT_FENCED = 75


def on_signals(stopping: "asyncio.Future[int]", overdue: Overdue) -> None:
    """The first SIGTERM or SIGINT drains, the second ends the process at once."""

    def stop() -> None:
        if stopping.done():
            os._exit(stopping.result() or 128 + signal.SIGTERM)
        stopping.set_result(0)
        overdue.begin()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)


def on_fatal(stopping: "asyncio.Future[int]") -> Callable[[Exception], None]:
    """What a store is to call when it fails."""

    def fail(error: Exception) -> None:
        _LOG.error("store_failed", why=str(error))
        code = EXIT_FENCED if isinstance(error, Fenced) else EXIT_IO_ERROR
        if stopping.done():  # it fails while it stops: what is left to do can only hang
            os._exit(code)
        stopping.set_result(code)

    return fail


def leave_if_failed(code: int) -> None:
    if code:  # the store has failed: whatever else is tried can only hang
        _LOG.error("stopping", exit_code=code)
        os._exit(code)


async def unless_stopped(start: Coroutine[Any, Any, T], stopping: "asyncio.Future[int]") -> T | None:
    """What has started; None when it is to stop before it serves."""
    starting = asyncio.ensure_future(start)
    either: set[asyncio.Future[Any]] = {starting, stopping}
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        leave_if_failed(stopping.result())
        starting.cancel()
    try:
        return await starting
    except asyncio.CancelledError:
        _LOG.info("stopped_before_serving")
        return None
