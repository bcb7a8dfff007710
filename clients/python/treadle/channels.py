"""The channels of one client: a server takes only so many calls over one connection."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Generic, TypeVar

C = TypeVar("C")
STREAMS_PER_CHANNEL = 500
"""Servers let a thousand calls through on a connection by default; short calls have the rest of the first."""


class Channels(Generic[C]):
    """One channel, and another for every so many streams that are open at one time.

    After `close` there is none: whoever asks for one gets a RuntimeError.
    """

    def __init__(self, make: Callable[[], C]) -> None:
        self._make = make
        self._made: list[C] = []
        self._streams: list[int] = []
        self._closed = False
        # Whatever is allocated under it may collect an abandoned iterator, whose stream then ends here.
        self._lock = threading.RLock()

    @property
    def closed(self) -> bool:
        return self._closed

    @contextmanager
    def for_call(self) -> Iterator[C]:
        """The first channel, for a call that is answered soon."""
        with self._lock:
            channel = self._at(0)
        yield channel

    @contextmanager
    def for_stream(self) -> Iterator[C]:
        """A channel with room, for as long as a stream lasts, or a call that is like one.

        Those that were made are kept.
        """
        with self._lock:
            number = next((n for n, open_ in enumerate(self._streams) if open_ < STREAMS_PER_CHANNEL), None)
            number = len(self._made) if number is None else number
            channel = self._at(number)
            self._streams[number] += 1
        try:
            yield channel
        finally:
            with self._lock:
                self._streams[number] -= 1

    def close(self) -> Sequence[C]:
        """Gives out no channel any more. Returns those that were made, for the caller to close."""
        with self._lock:
            self._closed = True
            return tuple(self._made)

    def _at(self, number: int) -> C:
        if self._closed:
            raise RuntimeError("the client is closed")
        if number == len(self._made):
            channel = self._make()
            self._made.append(channel)
            self._streams.append(0)
        return self._made[number]
