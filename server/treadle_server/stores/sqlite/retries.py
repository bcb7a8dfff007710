"""What is written while the store takes nothing ordinary, and how it comes to take everything again."""

from collections.abc import Callable, Iterator

import structlog

from treadle_server.stores.refusals import unavailable
from treadle_server.stores.sqlite.checkpoints import Checkpoints
from treadle_server.stores.sqlite.delivery import Delivery
from treadle_server.stores.sqlite.faults import Fault
from treadle_server.stores.sqlite.inbox import Urgency, WorkTicket
from treadle_server.stores.sqlite.outages import Outage, Outages
from treadle_server.stores.sqlite.reserve import Reserve
from treadle_server.stores.sqlite.transactions import Transactions
from treadle_server.stores.sqlite.unwritten import refusal_after

_LOG = structlog.get_logger(__name__)

ROOM_BYTES = 1024 * 1024
"""A disk with so much free is not full, as long as nothing says the contrary."""
MISSES_MAX = 8
"""So many threads that need more room than there is are tried at once; the others need as much at least."""

WorkOff = Callable[[Iterator[WorkTicket]], None]
"""Settles units in order, until there are no more or the store takes none."""


class Retries:
    """The committer's work in an outage, on its thread: what is urgent at once, all else from time to time.

    An outage ends once the reserve can be made again and there is a proof that units are taken.
    """

    def __init__(
        self,
        outages: Outages,
        reserve: Reserve,
        checkpoints: Checkpoints,
        transactions: Transactions,
        delivery: Delivery,
        work_off: WorkOff,
    ) -> None:
        self._outages = outages
        self._reserve = reserve
        self._checkpoints = checkpoints
        self._transactions = transactions
        self._delivery = delivery
        self._work_off = work_off

    def park(self, outage: Outage, left: list[WorkTicket]) -> None:
        """Keeps what the store did not take. What is in the log and can be moved makes room in it too."""
        self._delivery.settled(outage.park(left))
        if outage.cause is Fault.FULL and self._reserve.give_up():
            self._checkpoints.move()
            self._write_urgent(outage)

    def hold_out(self, outage: Outage, taken: list[WorkTicket]) -> None:
        """Takes in what came meanwhile, which may be nothing, and tries again when that is due."""
        self._delivery.settled(outage.park(taken))
        if not outage.crowded and any(ticket.work.urgency is Urgency.URGENT for ticket in taken):
            self._write_urgent(outage)
        if outage.due and self._delivery.failure is None:
            self._try_again(outage)
            outage.put_off()

    def try_last(self, outage: Outage) -> None:
        """Before the store is closed."""
        if self._has_room():
            self._work_off(iter(outage.all()))
        self._write_urgent(outage)

    def drop(self, outage: Outage) -> None:
        """At the end, of the process or of the store."""
        left, failure = outage.all(), self._delivery.failure
        for ticket in left:
            ticket.error = unavailable("it is closed") if failure is None else refusal_after(failure)
        if left:
            _LOG.warning("units_dropped", count=len(left))
        self._delivery.settled(left)

    def _write_urgent(self, outage: Outage) -> None:
        """All together, which costs one sync; then thread by thread, past those that are too large."""
        groups = outage.urgent()
        self._write_group(outage, [ticket for group in groups for ticket in group])
        misses = 0
        for group in outage.urgent() if len(groups) > 1 else ():
            if misses < MISSES_MAX:
                misses += not self._write_group(outage, group)
        outage.crowded = bool(outage.urgent())

    def _write_group(self, outage: Outage, group: list[WorkTicket]) -> bool:
        before = outage.written_count
        if self._delivery.failure is None and outage.cause is not Fault.BUSY:  # each would wait for the lock
            self._work_off(iter(group))
        return outage.written_count > before

    def _try_again(self, outage: Outage) -> None:
        self._outages.tell(outage)
        before = outage.written_count
        takes = self._has_room() and (outage.cause is not Fault.BUSY or self._transactions.can_begin())
        if takes:
            self._work_off(iter(outage.all()))
        if self._delivery.failure is not None:
            return
        proven = outage.written_count > before or outage.cause is not Fault.FULL
        if len(outage):
            self._write_urgent(outage)
        elif takes and (proven or self._reserve.free_bytes >= ROOM_BYTES) and self._reserve.restore():
            self._outages.end(outage)

    def _has_room(self) -> bool:
        if self._checkpoints.at_bound:
            self._checkpoints.shrink()
        return not self._checkpoints.at_bound and self._reserve.has_room
