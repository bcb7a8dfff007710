"""The server's clock: wall time, carried on by a clock of spans and slowly led after the machine's."""

import threading
import time
from collections.abc import Callable

LEAD = 100
"""What the machine's clock is put by is made up for at one part in so many of the time that passes."""
_SPANS = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""Linux stops CLOCK_MONOTONIC while the machine sleeps; elsewhere it goes on."""


def elapsed_ns() -> int:
    """Time that passed since some moment, a machine's sleep included. Nobody can put this clock."""
    return time.clock_gettime_ns(_SPANS)


class SteadyClock:
    """Never goes back and never jumps, whatever is done to the machine's clock while it runs.

    Durable expiries and the lengths of waits are reckoned with the same time, so one that jumped would end
    waits early. It follows the machine's clock instead: no span is measured wrong by more than 1 %, and a
    minute by which that clock was put is caught up with in 100. A new process begins with the machine's time.
    May be asked on any thread.
    """

    def __init__(
        self, *, wall_ns: Callable[[], int] = time.time_ns, elapsed_ns: Callable[[], int] = elapsed_ns
    ) -> None:
        self._wall_ns = wall_ns
        self._elapsed_ns = elapsed_ns
        self._lock = threading.Lock()
        self._at = elapsed_ns()
        self._now = wall_ns()

    def now(self) -> int:
        with self._lock:
            at = self._elapsed_ns()
            passed, self._at = at - self._at, at
            behind = self._wall_ns() - (self._now + passed)
            lead_max = passed // LEAD
            self._now += passed + max(-lead_max, min(behind, lead_max))
            return self._now // 1000
