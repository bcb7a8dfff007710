"""Ctrl-C that cannot get lost."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

AGAIN_SECONDS = 0.5


@contextmanager
def insisted() -> Iterator[None]:
    """Within it, KeyboardInterrupt is raised again until it gets through.

    Python runs a signal's handler wherever the main thread happens to be. In a destructor or a callback of
    gRPC an exception goes no further, and the interrupt would be forgotten.
    """
    if not hasattr(signal, "setitimer"):
        yield
        return

    def interrupted(number: int, frame: FrameType | None) -> None:
        signal.setitimer(signal.ITIMER_REAL, AGAIN_SECONDS)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupted) for number in (signal.SIGINT, signal.SIGALRM)}
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)
