"""When and how long after a failure a client tries again."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

import grpc

from treadle.errors import TreadleError


@dataclass(frozen=True, slots=True)
class Retry:
    """How patient a client is; 0 as one of the `_seconds_max` means that such calls are not repeated."""

    first_delay_seconds: float = 0.1
    """Pause after the first failure; doubled after every further one."""
    delay_seconds_max: float = 5.0
    """Longest pause, unless the server asks for a longer one."""
    call_seconds_max: float = 15.0
    """Time after the first failure in which a call is repeated: its request_id makes that safe."""
    stream_seconds_max: float = 300.0
    """The same for a stream that had begun, and for waiting for a thread that is known to exist."""

    def delay(self, failures: int, asked: float | None) -> float:
        """Pause after so many failures in a row: spread by chance, at least what the server asked for."""
        grown = self.first_delay_seconds * 2.0 ** min(failures - 1, 32)
        spread = min(grown, self.delay_seconds_max) * random.uniform(0.5, 1.0)
        return max(spread, (asked or 0.0) * random.uniform(1.0, 1.1))


def retriable(error: TreadleError) -> bool:
    """The same call with the same request_id may well succeed later, and does no harm."""
    if error.code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return error.retry_after is not None
    return error.code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


class Attempts:
    """The failures in a row of one call, until its patience or its deadline is over."""

    def __init__(
        self, retry: Retry, *, timeout: float = math.inf, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._retry = retry
        self._clock = clock
        self._deadline = clock() + timeout
        self._failures = 0
        self._failing_since = 0.0
        self._begun = False

    def timeout(self) -> float | None:
        """Seconds that the next attempt may take; None means any."""
        return None if math.isinf(self._deadline) else max(0.0, self._deadline - self._clock())

    def progressed(self) -> None:
        """The server has answered something, so that the next failure is the first of a row."""
        self._failures = 0
        self._begun = True

    def delay(self, error: TreadleError) -> float:
        """Seconds to wait before the next attempt; raises `error` when there is to be none."""
        now = self._clock()
        self._failures += 1
        if self._failures == 1:
            self._failing_since = now
        self._begun = self._begun or bool(error.thread)
        patience = self._retry.stream_seconds_max if self._begun else self._retry.call_seconds_max
        pause = self._retry.delay(self._failures, error.retry_after)
        if not retriable(error) or now + pause > min(self._deadline, self._failing_since + patience):
            raise error
        return pause
