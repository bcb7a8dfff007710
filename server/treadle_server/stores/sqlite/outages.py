"""A time in which the store takes nothing: who waits, who is refused, and when it is tried again."""

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

import structlog

from treadle_server.core.errors import Reason, Refused
from treadle_server.stores.refusals import disk_full, unavailable
from treadle_server.stores.sqlite.faults import Fault, fault_of
from treadle_server.stores.sqlite.inbox import Urgency, WorkTicket
from treadle_server.stores.sqlite.reserve import Reserve

_LOG = structlog.get_logger(__name__)

RETRY_SECONDS = 0.5
"""How long the committer waits between two tries of what waits."""
RETRY_SECONDS_MAX = 8.0
"""As long, once one outage follows the other."""
CALM_SECONDS = 60.0
"""An outage within that time of the last is a relapse. No line of the server's log comes more often."""
LOG_TOO_LONG = "a reader holds an old state of the file, and the log beside it may grow no further"


@dataclass(slots=True)
class Outage:
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

    @property
    def reason(self) -> Reason:
        """As `refuse` has it, for who only looks."""
        return Reason.DISK_FULL if self.cause is Fault.FULL else Reason.STORE_UNAVAILABLE

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


class Outages:
    """How they begin and end, and what the server's log says of it. The more relapses there are, the longer
    each lasts at least.

    Changed on the committer's thread; `current` may be read on any.
    """

    def __init__(self, reserve: Reserve) -> None:
        self.current: Outage | None = None
        self._reserve = reserve
        self._relapse_count = 0
        self._ended_at = -math.inf
        self._told_at: dict[str, float] = {}

    def begins_by(self, error: Exception) -> bool:
        """Whether an error says that nothing can be written for a time: an outage begins, or goes on."""
        fault = fault_of(error)
        if fault not in (Fault.FULL, Fault.BUSY):
            return False
        if self.current is None or self.current.cause is not fault:
            self.begin(fault, str(error))
        return True

    def begin(self, cause: Fault | None, why: str = "") -> Outage:
        """Or goes on with one for another cause."""
        outage = self.current = self.current or self._next(cause)
        outage.cause, outage.why = cause, why
        self.tell(outage)
        return outage

    def tell(self, outage: Outage) -> None:
        """Writes it to the server's log, unless that has it, or had one like it a moment ago."""
        now, event = time.monotonic(), outage.event
        if outage.told == event or now < self._told_at.get(event, -math.inf) + CALM_SECONDS:
            return
        self._told_at[event] = now
        outage.told = event
        figures = {"free_bytes": self._reserve.free_bytes, "reserve_bytes": self._reserve.byte_count}
        _LOG.error(event, **figures, **({"why": outage.why} if outage.why else {}))

    def end(self, outage: Outage) -> None:
        self.current = None
        self._ended_at = time.monotonic()
        if outage.told:
            _LOG.warning(
                "store_writable",
                seconds=round(time.monotonic() - outage.since, 1),
                refused=outage.refused_count,
                written_late=outage.written_count,
                free_bytes=self._reserve.free_bytes,
            )

    def _next(self, cause: Fault | None) -> Outage:
        soon = time.monotonic() < self._ended_at + CALM_SECONDS
        self._relapse_count = self._relapse_count + 1 if soon else 0
        return Outage(cause, min(RETRY_SECONDS * 2.0**self._relapse_count, RETRY_SECONDS_MAX))


def _is_urgent(ticket: WorkTicket) -> bool:
    return ticket.work.urgency is Urgency.URGENT
