"""Port: when threads began of agents that limit how many may begin within a time."""

from collections.abc import Sequence
from typing import Protocol

STARTS_MAX = 10_000
"""The most that an agent can allow within its interval, so no more are ever asked for."""


Began = tuple[int, int]
"""When a thread began, and which by its key."""


class Starts(Protocol):
    """Rows that units of the log write, with the event that says the same."""

    async def recent(self, agent: int, after: int) -> Sequence[Began]:
        """Threads of an agent that began after a time, the first of them first: the newest STARTS_MAX.

        One whose row is damaged is among them as if it had just happened: a limit is rather kept for too
        long than broken. Committed starts only.
        """
        ...
