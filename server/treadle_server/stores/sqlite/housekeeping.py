"""Bounded work behind the scenes, in background units that give way to callers."""

import sqlite3
from dataclasses import dataclass
from typing import ClassVar

from treadle_server.stores.sqlite.changes import Changes
from treadle_server.stores.sqlite.readers import Readers
from treadle_server.stores.sqlite.statements import Write

ROWS_PER_STEP = 200
ROUNDS_MAX = 100
"""Of one call; what is left is for the next."""

_FORGET_REQUESTS = f"""
DELETE FROM request_ids WHERE (tenant, request_id) IN (
  SELECT tenant, request_id FROM request_ids WHERE expire_time <= ? LIMIT {ROWS_PER_STEP})"""
_THREADS_TO_PURGE = f"""
SELECT thread, tenant FROM threads WHERE delete_time IS NOT NULL AND purged = 0
ORDER BY thread LIMIT {ROUNDS_MAX}"""
_DELETE_EVENTS = f"""
DELETE FROM events WHERE tenant = ?1 AND thread = ?2 AND sequence IN (
  SELECT sequence FROM events WHERE tenant = ?1 AND thread = ?2 ORDER BY sequence LIMIT {ROWS_PER_STEP})"""
_DELETE_DETAILS = "DELETE FROM thread_details WHERE thread = ?"
_MARK_THREAD = "UPDATE threads SET purged = 1, subject_type = '', subject_id = NULL WHERE thread = ?"
_AGENTS_TO_PURGE = f"""
SELECT agent FROM agents WHERE purge_time <= ? AND purged = 0 LIMIT {ROUNDS_MAX}"""
_MARK_AGENT = "UPDATE agents SET purged = 1, body = x'' WHERE agent = ? AND purge_time <= ?"
_DELETE_VERSIONS = """
DELETE FROM agent_versions
WHERE agent = ?1 AND EXISTS (SELECT 1 FROM agents WHERE agent = ?1 AND purged = 1)"""


@dataclass(slots=True)
class _GiveBack:
    """Cuts free pages off the file, one at each run: the module steps this pragma only once."""

    page_count: int
    refuses: ClassVar[bool] = False
    writes: ClassVar[bool] = True

    def apply(self, cursor: sqlite3.Cursor) -> None:
        for _ in range(self.page_count):
            cursor.execute("PRAGMA incremental_vacuum(1)")


class SqliteHousekeeping:
    """Implements `ports.catalogue.Housekeeping`. The row of what is purged stays, so that its id does."""

    def __init__(self, changes: Changes, readers: Readers) -> None:
        self._changes = changes
        self._readers = readers

    async def forget_requests(self, now: int) -> int:
        return await self._changes.work_off(Write(_FORGET_REQUESTS, (now,)), rounds_max=ROUNDS_MAX)

    async def purge_threads(self) -> int:
        threads = await self._readers.rows(_THREADS_TO_PURGE)
        purged = 0
        for thread, tenant in threads:
            step = Write(_DELETE_EVENTS, (tenant, thread))
            deleted = await self._changes.work_off(step, rounds_max=ROUNDS_MAX)
            if deleted < ROUNDS_MAX * ROWS_PER_STEP:  # else there may be more, for the next call
                marks = (Write(_DELETE_DETAILS, (thread,)), Write(_MARK_THREAD, (thread,)))
                await self._changes.apply(tenant, *marks, background=True)
                purged += 1
        return purged

    async def purge_agents(self, now: int) -> int:
        agents = await self._readers.rows(_AGENTS_TO_PURGE, (now,))
        for (agent,) in agents:
            steps = (Write(_MARK_AGENT, (agent, now)), Write(_DELETE_VERSIONS, (agent,)))
            await self._changes.apply(0, *steps, background=True)
        return len(agents)

    async def reclaim(self) -> int:
        before = await self._free_pages()
        for _ in range(min(ROUNDS_MAX, -(-before // ROWS_PER_STEP))):
            await self._changes.apply(0, _GiveBack(ROWS_PER_STEP), background=True)
        return max(0, before - await self._free_pages())

    async def _free_pages(self) -> int:
        row = await self._readers.row("PRAGMA freelist_count")
        return int(row[0]) if row is not None else 0
