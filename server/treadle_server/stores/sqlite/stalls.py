"""A time in which the store takes nothing: who waits, who is refused, and when it is tried again."""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from treadle_server.core.errors import Refused
from treadle_server.stores.refusals import disk_full, unavailable
from treadle_server.stores.sqlite.faults import Fault
from treadle_server.stores.sqlite.inbox import Urgency, WorkTicket

RETRY_SECONDS = 0.5
"""How long the committer waits between two tries of what waits."""
LOG_TOO_LONG = "a reader holds an old state of the file, and the log beside it may grow no further"


@dataclass(slots=True)
class Stall:
    """What waits, in the order in which it came. A thread's units never overtake each other.

    Made and changed on the committer's thread; `refuse` may be called on any.
    """

    cause: Fault | None
    """None = the write-ahead log has reached its bound."""
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
        """The next try is RETRY_SECONDS from now."""
        self.try_at = time.monotonic() + RETRY_SECONDS

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
            if self._waiting.pop(id(ticket), None) is not None:
                self.written_count += 1

    def all(self) -> list[WorkTicket]:
        return list(self._waiting.values())

    def urgent(self) -> list[WorkTicket]:
        """What may be written now: urgent units, each with the others of its thread, in order."""
        threads = {
            ticket.work.thread for ticket in self._waiting.values() if ticket.work.urgency is Urgency.URGENT
        }
        if not threads:
            return []
        return [
            ticket
            for ticket in self._waiting.values()
            if ticket.work.urgency is Urgency.URGENT or (ticket.work.thread or None) in threads
        ]
