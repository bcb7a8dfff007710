"""How long a caller waits for what it asked while nothing can be written."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from treadle_server.core.errors import Refused
from treadle_server.ports.log import Log

WAIT_SECONDS = 5.0
"""Twice as much at most: it is looked at so often."""

MAY_TAKE_EFFECT = {"may_take_effect": "true"}
"""Metadata of a refusal that does not say that nothing changed."""

T = TypeVar("T")


async def answer(task: asyncio.Task[T], log: Log) -> T:
    """What the task comes to, which goes on though its caller goes away.

    Raises Refused(DISK_FULL or STORE_UNAVAILABLE) when it waits for the log to be writable: what was asked is
    on its way then and may still take effect.
    """
    try:
        while not (await asyncio.wait((task,), timeout=WAIT_SECONDS))[0]:
            _check_writable(log)
    except BaseException:
        task.add_done_callback(_notice)
        raise
    return task.result()


async def wait(work: Coroutine[Any, Any, T], log: Log) -> T:
    """As `answer`, of work that ends with its caller."""
    task = asyncio.create_task(work)
    try:
        return await answer(task, log)
    finally:
        task.cancel()


def _check_writable(log: Log) -> None:
    try:
        log.check_writable()
    except Refused as refused:
        text = f"{refused.message}; what was asked waits for it and may still take effect"
        retry = refused.retry_after_micros
        raise Refused(refused.reason, text, metadata=MAY_TAKE_EFFECT, retry_after_micros=retry) from None


def _notice(task: "asyncio.Task[Any]") -> None:
    """Its refusal is nobody's any more, and no fault."""
    if not task.cancelled():
        task.exception()
