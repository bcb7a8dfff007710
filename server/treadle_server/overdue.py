"""A bound to how long stopping takes, that nothing can hold up."""

import os
import threading
from collections.abc import Callable

import structlog

_LOG = structlog.get_logger(__name__)
EXIT_OVERDUE = 1
OVERDUE_SECONDS = 10.0
"""A server that stops is gone so long after `drain_seconds`, whatever hangs."""
LEFT_SECONDS = 1.0


class Overdue:
    """Ends the process if it is still there when its time is up. What ends so is as safe as after a kill."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def begin(self) -> None:
        """From now on it has so long to stop."""
        _after(self._seconds, self._give_up)

    def stopped(self) -> None:
        """Everything is written and closed; threads of tools that go on are not waited for."""
        _after(LEFT_SECONDS, lambda: os._exit(0))

    def _give_up(self) -> None:
        _LOG.error("stopping_took_too_long", seconds=self._seconds, exit_code=EXIT_OVERDUE)
        os._exit(EXIT_OVERDUE)


def _after(seconds: float, act: Callable[[], object]) -> None:
    timer = threading.Timer(seconds, act)
    timer.daemon = True
    timer.start()
