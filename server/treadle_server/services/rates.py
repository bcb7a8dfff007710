"""How many of a kind may begin in a second; who comes too early is told when it is their turn."""

import random
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from treadle_server.core.errors import Reason, Refused

DELAY_SECONDS_MAX = 10.0
"""Clients give up on a call that they are told to repeat much later."""
SPREAD = 0.1
"""Part of a delay that is added by chance, so that those who were told the same do not come as one."""


class Rate:
    """Lets a burst of `per_second` begin at once, then so many a second.

    Each one who is refused gets a turn of its own, one after the last that was given out: a crowd that comes
    back when it was told to comes spread evenly, and finds room.
    """

    __slots__ = ("_clock", "_next_turn", "_room", "_seen", "per_second")

    def __init__(self, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.per_second = per_second
        self._clock = clock
        self._room = per_second
        self._seen = clock()
        self._next_turn = self._seen

    def begin(self) -> float:
        """0 when one may begin now, else the seconds after which to come again."""
        if self.take():
            return 0.0
        return self._turn(self._seen)

    def take(self) -> bool:
        """One may begin now, and has. Gives no turn to who may not."""
        self._refill(self._clock())
        if self._room < 1.0:
            return False
        self._room -= 1.0
        return True

    @property
    def full(self) -> bool:
        """As new: nobody has begun for a while, nor waits for a turn."""
        now = self._clock()
        self._refill(now)
        return self._room >= self.per_second and self._next_turn <= now

    def _refill(self, now: float) -> None:
        self._room = min(self.per_second, self._room + (now - self._seen) * self.per_second)
        self._seen = now

    def _turn(self, now: float) -> float:
        self._next_turn = max(self._next_turn, now) + 1.0 / self.per_second
        delay = self._next_turn - now
        if delay > DELAY_SECONDS_MAX:  # the queue is longer than anyone should wait: any turn is as good
            self._next_turn = now + DELAY_SECONDS_MAX
            delay = random.uniform(DELAY_SECONDS_MAX / 2, DELAY_SECONDS_MAX)
        return delay * random.uniform(1.0, 1.0 + SPREAD)


def rate_limited(message: str, per_second: float, delay: float) -> Refused:
    """What one is told who may not begin, with when to come again."""
    reset_time = datetime.now(UTC) + timedelta(seconds=delay)
    return Refused(
        Reason.RATE_LIMITED,
        message,
        metadata={
            "limit": f"{per_second:g}",
            "remaining": "0",
            "reset_time": reset_time.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        },
        retry_after_micros=round(delay * 1_000_000),
    )
