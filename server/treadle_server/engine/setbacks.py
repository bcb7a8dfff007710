"""Drivers that broke off: when their threads are tried again, and when no more."""

import asyncio
from collections.abc import Callable

import structlog

from treadle_server.core.errors import Reason, Refused
from treadle_server.engine.admission import Admission, Candidate
from treadle_server.ports.log import Conflict, Replayed, ThreadKey

_LOG = structlog.get_logger(__name__)
RETRY_SECONDS = 1.0
"""How long a thread rests whose events the store would not take."""
FAULT_SECONDS = 30.0
FAULT_SECONDS_MAX = 3600.0
"""The same for one whose driver failed, doubled each time: a bug of ours, and likely to come again."""
FAULTS_MAX = 5
"""In a row; then the thread is given up."""


class Setbacks:
    """Of all threads. `again` offers one to the admission; `give_up` ends one for good."""

    def __init__(
        self,
        admission: Admission,
        again: Callable[[Candidate], None],
        give_up: Callable[[Candidate], None],
    ) -> None:
        self._admission = admission
        self._again = again
        self._give_up = give_up
        self._faults: dict[ThreadKey, int] = {}
        """How often in a row the driver of a thread failed."""
        self.draining = False

    def refused(self, candidate: Candidate, refused: Conflict | Replayed | Refused) -> None:
        """The store did not take a thread's events."""
        thread, why = candidate.key.thread, str(refused) or type(refused).__name__
        _LOG.warning("events_refused", thread=thread, why=why)
        reason = refused.reason if isinstance(refused, Refused) else None
        if reason is Reason.RECORD_CORRUPT:  # a page that is written to, and may be others' too
            self.faulted(candidate)
        else:
            hopeless = reason is Reason.RESOURCE_NOT_FOUND
            gives_way = isinstance(refused, Conflict)
            self._rest(candidate, None if hopeless else RETRY_SECONDS, gives_way=gives_way)

    def faulted(self, candidate: Candidate) -> None:
        """A driver failed by a bug of ours: it is tried again a few times, then the thread is given up."""
        key = candidate.key
        faults = self._faults[key] = self._faults.get(key, 0) + 1
        if faults >= FAULTS_MAX and not self.draining:
            self._rest(candidate, None)
            self._give_up(candidate)
        else:
            self._rest(candidate, _pause(faults))

    def retry(self, candidate: Candidate) -> None:
        """A thread that could not even be given up."""
        self._rest(candidate, _pause(self._faults.get(candidate.key, FAULTS_MAX)))

    def forget(self, key: ThreadKey) -> None:
        """Its driver got somewhere, or the thread is gone."""
        self._faults.pop(key, None)

    def _rest(self, candidate: Candidate, retry_seconds: float | None, *, gives_way: bool = False) -> None:
        """The thread runs again later if there is any hope.

        It keeps its session, unless the store may know another thread as the active one there.
        """
        if self.draining:
            return
        if gives_way:
            self._admission.leave(candidate.key, candidate.session)
        else:
            self._admission.rest(candidate.key)
        if retry_seconds is not None:
            asyncio.get_running_loop().call_later(retry_seconds, self._again, candidate)


def _pause(faults: int) -> float:
    """How long to wait after so many faults in a row."""
    return min(FAULT_SECONDS_MAX, FAULT_SECONDS * 2.0 ** min(faults - 1, 16))
