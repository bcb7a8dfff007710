"""Timers of threads that nobody drives."""

import asyncio
from collections.abc import Callable

from treadle_server.ports.clock import Clock
from treadle_server.ports.log import ThreadKey

AHEAD_MICROS = 60 * 1_000_000
"""Timers due sooner are armed when their threads come to rest; the sweeper finds the others in time."""


class Timers:
    """One per thread at most. `ring` is called once for each that is armed and not taken back."""

    def __init__(self, clock: Clock, ring: Callable[[ThreadKey], None]) -> None:
        self._clock = clock
        self._ring = ring
        self._handles: dict[ThreadKey, asyncio.TimerHandle] = {}

    def arm(self, key: ThreadKey, at: int) -> None:
        """Replaces the thread's timer. `at` is micros since 1970, and may be over."""
        self.disarm(key)
        delay = max(0, at - self._clock.now()) / 1e6
        self._handles[key] = asyncio.get_running_loop().call_later(delay, self._rung, key)

    def arm_near(self, key: ThreadKey, at: int | None) -> None:
        """Leaves what is further away to the sweeper."""
        if at is not None and at <= self._clock.now() + AHEAD_MICROS:
            self.arm(key, at)

    def disarm(self, key: ThreadKey) -> None:
        handle = self._handles.pop(key, None)
        if handle is not None:
            handle.cancel()

    def stop(self) -> None:
        for key in list(self._handles):
            self.disarm(key)

    def _rung(self, key: ThreadKey) -> None:
        self._handles.pop(key, None)
        self._ring(key)
