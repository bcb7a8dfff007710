"""When threads began of agents with a start rate."""

from collections.abc import Sequence

import structlog

from treadle_server.ports.catalogue.starts import STARTS_MAX, Began
from treadle_server.ports.clock import Clock
from treadle_server.stores.refusals import record_corrupt
from treadle_server.stores.sqlite.checksums import START, sum_sql
from treadle_server.stores.sqlite.readers import Readers

_LOG = structlog.get_logger(__name__)
INTACT = f"checksum IS ({sum_sql(START)})"
INSERT_START = f"""
INSERT OR IGNORE INTO starts (agent, start_time, thread, expire_time, checksum)
SELECT agent, ?1, thread, ?1 + ?2,
  {START["agent"]} * agent + {START["start_time"]} * ?1 + {START["thread"]} * thread
  + {START["expire_time"]} * (?1 + ?2)
FROM threads WHERE thread = ?3"""
"""Of (start time, how long it counts, thread), once the thread has its row."""
ALL = f"SELECT agent, start_time, thread, {INTACT} FROM starts"
_RECENT = f"""
SELECT start_time, thread, {INTACT} FROM starts WHERE agent = ? AND (start_time > ? OR NOT {INTACT})
ORDER BY start_time DESC LIMIT {STARTS_MAX}"""


class SqliteStarts:
    """Implements `ports.catalogue.starts.Starts`."""

    def __init__(self, readers: Readers, clock: Clock) -> None:
        self._readers = readers
        self._clock = clock

    async def recent(self, agent: int, after: int) -> Sequence[Began]:
        rows, now = await self._readers.rows(_RECENT, (agent, after)), self._clock.now()
        damaged = sum(not intact for _, _, intact in rows)
        if damaged:
            _LOG.error("starts_damaged", agent=agent, count=damaged)
        return sorted((start_time if intact else now, thread) for start_time, thread, intact in rows)


def verify_start(row: tuple[int, ...]) -> None:
    """Of ALL. Raises Refused."""
    agent, start_time, thread, intact = row
    if not intact:
        raise record_corrupt(f"agent {agent}, start_time {start_time}, thread {thread}")
