"""Time that a test moves by hand: one loop whose clock, and so every timer, can be put forward."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from tests.waiting import eventually

START_MICROS = 1_750_000_000 * 1_000_000

T = TypeVar("T")


class HandLoop(asyncio.SelectorEventLoop):
    """Timers are due by `time`, which runs as always and can be put forward besides."""

    ahead = 0.0

    def time(self) -> float:
        return super().time() + self.ahead


class LoopClock:
    """Implements ports/clock.Clock: the wall time that belongs to a HandLoop's time."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, HandLoop)
        self._loop = loop

    def now(self) -> int:
        return START_MICROS + int(self._loop.time() * 1_000_000)

    def advance(self, seconds: float) -> None:
        """What is due by then is rung on the loop's next turn."""
        self._loop.ahead += seconds


async def within(work: Awaitable[T]) -> T:
    """The result of something that must come within a deadline of real time."""
    task = asyncio.ensure_future(work)
    try:
        await eventually(lambda: task.done())
    finally:
        task.cancel()
    return task.result()


async def turns(count: int = 20) -> None:
    """Lets everything run that can run without waiting for the disk or for time."""
    for _ in range(count):
        await asyncio.sleep(0)
