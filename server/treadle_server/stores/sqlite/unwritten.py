"""Outcomes of units that were not written, or not for certain."""

from collections.abc import Iterable

from treadle_server.ports.log import Fenced, StoreFailed
from treadle_server.stores.refusals import record_corrupt, unavailable
from treadle_server.stores.sqlite.faults import Fault, fault_of
from treadle_server.stores.sqlite.inbox import WorkTicket


def blame(fault: Exception) -> Exception:
    """The outcome of a unit that fails also alone. It was rolled back."""
    return record_corrupt("a page") if fault_of(fault) is Fault.DAMAGE else failed(fault)


def failed(cause: Exception) -> StoreFailed:
    """Nobody knows whether what was under way is there."""
    failure = StoreFailed(f"the store failed: {cause!r}")
    failure.__cause__ = cause
    return failure


def verdict_on(error: Exception) -> Fenced | StoreFailed:
    """What the store ends by when it meets an error that nobody expects."""
    return error if isinstance(error, Fenced) else failed(error)


def refusal_after(reason: Fenced | StoreFailed) -> Exception:
    """Outcome of what was never begun: it is known that nothing was written."""
    return reason if isinstance(reason, Fenced) else unavailable("it has failed")


def not_begun(tickets: Iterable[WorkTicket], reason: Fenced | StoreFailed) -> list[WorkTicket]:
    """Gives them that outcome."""
    left = list(tickets)
    for ticket in left:
        ticket.error = refusal_after(reason)
    return left
