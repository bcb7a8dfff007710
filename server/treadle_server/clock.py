"""The server's clock: wall time at start, carried on by the monotonic clock."""

import time


class SteadyClock:
    """Never goes back and never jumps, whatever is done to the machine's clock while it runs."""

    def __init__(self) -> None:
        self._start = time.time_ns() - time.monotonic_ns()

    def now(self) -> int:
        return (self._start + time.monotonic_ns()) // 1000
