"""A time in which the store takes nothing: who waits, who is refused, and when it is tried again."""

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from treadle_server.core.errors import Refused
from treadle_server.stores.refusals import disk_full, unavailable
from treadle_server.stores.sqlite.faults import Fault
from treadle_server.stores.sqlite.inbox import Urgency, WorkTicket

RETRY_SECONDS = 0.5
"""How long the committer waits between two tries of what waits."""
RETRY_SECONDS_MAX = 8.0
"""As long, once the store has stalled again and again."""
CALM_SECONDS = 60.0
"""Who stalls again within that has relapsed. No line of the server's log comes more often."""
LOG_TOO_LONG = "a reader holds an old state of the file, and the log beside it may grow no further"


@dataclass(slots=True)
class Stall:
    """What waits, in the order in which it came. A thread's units never overtake each other.

    Made and changed on the committer's thread; `refuse` may be called on any.
    """

    cause: Fault | None
    """None = the write-ahead log has reached its bound."""
    retry_seconds: float = RETRY_SECONDS
    why: str = ""
    told: str = ""
    """The event under which the server's log has it; none while it is a relapse that was told before."""
    crowded: bool = False
    """Something urgent found no room: no more is tried before `due`."""
    since: float = field(default_factory=time.monotonic)
    try_at: float = 0.0
    refused_count: int = 0
    written_count: int = 0
    _waiting: dict[int, WorkTicket] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.put_off()

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def due(self) -> bool:
        return time.monotonic() >= self.try_at

    def put_off(self) -> None:
        """The next try is `retry_seconds` from now."""
        self.try_at = time.monotonic() + self.retry_seconds

    @property
    def event(self) -> str:
        if self.cause is Fault.FULL:
            return "disk_full"
        return "store_locked" if self.cause is Fault.BUSY else "log_at_bound"

    def refuse(self) -> Refused:
        """Why what a caller asks is not written now."""
        self.refused_count += 1
        if self.cause is Fault.FULL:
            return disk_full()
        return unavailable("another process holds its lock" if self.cause is Fault.BUSY else LOG_TOO_LONG)

    def park(self, tickets: Iterable[WorkTicket]) -> list[WorkTicket]:
        """Keeps what may not be lost, each in its place; returns the others, refused."""
        refused = []
        for ticket in tickets:
            if ticket.work.urgency is Urgency.REFUSABLE:
                ticket.error = self.refuse()
                refused.append(ticket)
            else:
                self._waiting.setdefault(id(ticket), ticket)
        return refused

    def forget(self, settled: Iterable[WorkTicket]) -> None:
        """Takes out what has its outcome."""
        for ticket in settled:
            if self._waiting.pop(id(ticket), None) is not None and ticket.error is None:
                self.written_count += 1

    def all(self) -> list[WorkTicket]:
        return list(self._waiting.values())

    def urgent(self) -> list[list[WorkTicket]]:
        """What may be written now, the smallest first: urgent units, with the others of their threads."""
        groups: dict[tuple[int, int], list[WorkTicket]] = {}
        for ticket in self._waiting.values():
            thread = ticket.work.thread
            groups.setdefault((thread, 0 if thread else id(ticket)), []).append(ticket)
        urgent = [group for group in groups.values() if any(map(_is_urgent, group))]
        return sorted(urgent, key=lambda group: sum(ticket.work.byte_count for ticket in group))


@dataclass(slots=True)
class Relapses:
    """Stalls that begin soon after others: the more there are, the longer each lasts at least."""

    count: int = 0
    ended_at: float = -math.inf
    _told_at: dict[str, float] = field(default_factory=dict)

    def begin(self, cause: Fault | None) -> Stall:
        soon = time.monotonic() < self.ended_at + CALM_SECONDS
        self.count = self.count + 1 if soon else 0
        return Stall(cause, min(RETRY_SECONDS * 2.0**self.count, RETRY_SECONDS_MAX))

    def end(self) -> None:
        self.ended_at = time.monotonic()

    def tell(self, stall: Stall) -> bool:
        """Whether the server's log should have it now."""
        now = time.monotonic()
        if stall.told == stall.event or now < self._told_at.get(stall.event, -math.inf) + CALM_SECONDS:
            return False
        self._told_at[stall.event] = now
        stall.told = stall.event
        return True


def _is_urgent(ticket: WorkTicket) -> bool:
    return ticket.work.urgency is Urgency.URGENT
