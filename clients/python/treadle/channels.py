"""The channels of one client: a server takes only so many calls over one connection."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

C = TypeVar("C")
STREAMS_PER_CHANNEL = 500
"""Servers let a thousand calls through on a connection by default; short calls have the rest of the first."""


class Channels(Generic[C]):
    """One channel, and another for every so many streams that are open at one time."""

    def __init__(self, make: Callable[[], C]) -> None:
        self._make = make
        self._streams: list[int] = []
        self._lock = threading.Lock()
        self.made: list[C] = []

    @property
    def first(self) -> C:
        """For calls that are answered soon."""
        with self._lock:
            return self._at(0)

    @contextmanager
    def for_stream(self) -> Iterator[C]:
        """A channel with room, for as long as the stream lasts. Those that were made are kept."""
        with self._lock:
            number = next((n for n, open_ in enumerate(self._streams) if open_ < STREAMS_PER_CHANNEL), None)
            number = len(self.made) if number is None else number
            channel = self._at(number)
            self._streams[number] += 1
        try:
            yield channel
        finally:
            with self._lock:
                self._streams[number] -= 1

    def _at(self, number: int) -> C:
        if number == len(self.made):
            self.made.append(self._make())
            self._streams.append(0)
        return self.made[number]
