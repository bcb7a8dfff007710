"""Calls on their way in: their headers are there, their request is not."""

from typing import Protocol

from treadle_server.rpc.stalls import Stalls, Writer

REQUEST_SECONDS = 20.0
"""How long the request of a call may take to come after its headers."""
ARRIVALS_MAX = 2_000
"""Each costs up to 50 kB. A request that is sent with its headers arrives within a few of the next calls."""


class Arrival(Writer, Protocol):
    """A call on its way in. `stalled` tells it that its request took too long."""

    def crowded_out(self, most: int) -> None:
        """Newer calls need its place among so many. Must not block."""
        ...


class Arrivals:
    """So many at most, and none for long. Who waits longest gives way to the next, which may be quicker.

    They are bounded apart from the calls that are being answered: whoever sends headers and nothing else
    takes no place from those that send requests.
    """

    def __init__(self, seconds: float = REQUEST_SECONDS, most: int = ARRIVALS_MAX) -> None:
        self._most = most
        self._coming: dict[Arrival, None] = {}  # in order of begin
        self._stalls = Stalls(seconds)

    def __len__(self) -> int:
        return len(self._coming)

    def begin(self, arrival: Arrival) -> None:
        """Its headers are there."""
        if len(self._coming) >= self._most:
            oldest = next(iter(self._coming))
            self.end(oldest)
            oldest.crowded_out(self._most)
        self._coming[arrival] = None
        self._stalls.begin(arrival)

    def end(self, arrival: Arrival) -> None:
        """Its request has come, or will not."""
        self._coming.pop(arrival, None)
        self._stalls.end(arrival)
