"""Threads whose log or spec cannot be read: they are ended by their rows, and never read wrongly."""

from collections.abc import Callable

import structlog

from treadle_server.core.errors import Reason, Refused
from treadle_server.core.kinds import StopReason
from treadle_server.engine.journal import Head, Journal
from treadle_server.engine.specs import NEWER
from treadle_server.ports.catalogue.threads import Threads
from treadle_server.ports.clock import Clock
from treadle_server.ports.log import ThreadKey

_LOG = structlog.get_logger(__name__)


class Lost(Refused):
    """The thread's log or spec is damaged, and it was ended for that."""

    def __init__(self, damage: Refused) -> None:
        super().__init__(damage.reason, damage.message, metadata=damage.metadata, resource=damage.resource)


class Damage:
    """Opens threads, and ends those that are damaged. `lost` is told of each, with its session."""

    def __init__(
        self,
        journal: Journal,
        threads: Threads,
        clock: Clock,
        session_of: Callable[[ThreadKey], int],
        lost: Callable[[ThreadKey, int, Refused], None],
    ) -> None:
        self._journal = journal
        self._threads = threads
        self._clock = clock
        self._session_of = session_of
        self._lost = lost

    async def open(self, key: ThreadKey) -> Head:
        """Raises Lost for a thread that is damaged, which has ended then, durably."""
        try:
            return await self._journal.open(key)
        except Refused as damage:
            if not is_damage(damage):
                raise
        try:
            return await self._journal.open(key)  # to condemn it is final, and one look may have been wrong
        except Refused as damage:
            if not is_damage(damage):
                raise
            await self.condemn(key, self._session_of(key), damage, StopReason.DATA_LOSS)
            raise Lost(damage) from damage

    async def condemn_found(self, key: ThreadKey, session: int, damage: Refused) -> None:
        """As `condemn`, for nobody who waits."""
        try:
            await self.condemn(key, session, damage, StopReason.DATA_LOSS)
        except Exception as error:
            _LOG.error("thread_not_condemned", thread=key.thread, why=str(error) or type(error).__name__)

    async def condemn(self, key: ThreadKey, session: int, why: Refused, stop_reason: StopReason) -> None:
        """Ends a thread by its row, durably."""
        await self._threads.condemn(key, stop_reason=stop_reason, now=self._clock.now())
        _LOG.error("thread_condemned", thread=key.thread, stop_reason=stop_reason.name, why=why.message)
        self._lost(key, session, why)


def is_damage(refused: Refused) -> bool:
    """What was stored is not what is read. A newer release may still read what this one cannot."""
    return refused.reason is Reason.RECORD_CORRUPT and NEWER not in refused.metadata
