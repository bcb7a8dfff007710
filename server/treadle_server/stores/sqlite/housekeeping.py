"""Bounded work behind the scenes, in background units that give way to callers."""

import asyncio
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import structlog

from treadle_server.core.errors import Reason, Refused
from treadle_server.ports.catalogue.tenants import TenantRow, Tenants
from treadle_server.stores.sqlite import checksums
from treadle_server.stores.sqlite.changes import CHANGED, Changes
from treadle_server.stores.sqlite.commits import COMMIT_INTACT, END_POSITION
from treadle_server.stores.sqlite.expiry import Due, Expire, Purge
from treadle_server.stores.sqlite.readers import Readers
from treadle_server.stores.sqlite.session_expiry import (
    EXPIRE_SESSION,
    SESSIONS_DUE,
    SESSIONS_PER_STEP,
    PurgeSession,
)
from treadle_server.stores.sqlite.sessions import SESSIONS_TO_PURGE, session_of
from treadle_server.stores.sqlite.statements import Write, WriteMany

_LOG = structlog.get_logger(__name__)
ROWS_PER_STEP = 200
ROUNDS_MAX = 100
"""Of one call; what is left is for the next."""
THREADS_PER_STEP = 50
COMMITS_PER_STEP = 1000
FORGET_MICROS = 30 * 86_400 * 1_000_000
"""How long the expiry of a thread is told from its never having been. Its id stays taken longer than that."""

_FORGET_REQUESTS = f"""
DELETE FROM request_ids WHERE (tenant, request_id) IN (
  SELECT tenant, request_id FROM request_ids WHERE expire_time <= ? LIMIT {ROWS_PER_STEP})"""
_FORGET_STARTS = f"""
DELETE FROM starts WHERE (agent, start_time, thread) IN (
  SELECT agent, start_time, thread FROM starts WHERE expire_time <= ? LIMIT {ROWS_PER_STEP})"""
TENANTS_DUE = """
SELECT n.tenant FROM tenants n
WHERE EXISTS (
  SELECT 1 FROM threads t INDEXED BY threads_to_expire
  WHERE t.tenant = n.tenant AND t.end_time <= ?1 - coalesce(n.thread_retention, ?2)
    AND t.end_time IS NOT NULL AND t.delete_time IS NULL)"""
# A damaged row decides nothing: neither that its thread goes, nor that its commits do.
_INTACT = f"t.identity_sum IS ({checksums.sum_sql(checksums.IDENTITY, 't.')})"
THREADS_DUE = f"""
SELECT t.thread, {END_POSITION}
FROM threads t INDEXED BY threads_to_expire
LEFT JOIN thread_details d ON d.thread = t.thread
WHERE t.tenant = ? AND t.end_time <= ? AND t.end_time IS NOT NULL AND t.delete_time IS NULL AND t.state >= 6
  AND {_INTACT} AND t.progress_sum IS ({checksums.sum_sql(checksums.PROGRESS, "t.")})
ORDER BY t.end_time LIMIT {THREADS_PER_STEP}"""
_THREADS_TO_PURGE = f"""
SELECT t.tenant, t.thread FROM threads t WHERE t.delete_time IS NOT NULL AND t.purged = 0 AND {_INTACT}
ORDER BY t.thread LIMIT ?"""
_COMMITS = f"""
SELECT c.position, (t.thread IS NULL OR t.delete_time IS NOT NULL AND {_INTACT}) AND {COMMIT_INTACT}
FROM commits c LEFT JOIN threads t ON t.thread = c.thread
WHERE c.position > ? ORDER BY c.position LIMIT {COMMITS_PER_STEP}"""
_DELETE_COMMIT = "DELETE FROM commits WHERE position = ?"
THREADS_TO_FORGET = f"""
SELECT thread FROM threads INDEXED BY threads_to_forget
WHERE purged = 1 AND delete_time <= ? LIMIT {ROWS_PER_STEP}"""
_FORGET_THREADS = f"DELETE FROM threads WHERE thread IN ({THREADS_TO_FORGET})"
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
    """Implements `ports.catalogue.housekeeping.Housekeeping`.

    What is purged leaves its row, and so its id taken.
    """

    def __init__(self, changes: Changes, readers: Readers, tenants: Tenants) -> None:
        self._changes = changes
        self._readers = readers
        self._tenants = tenants
        self._purging = asyncio.Lock()
        self._pruning = asyncio.Lock()
        self._pruned_to = 0
        """Position up to which commits were looked through on this round."""
        self._unpruned = True
        """Commits may be left of threads that are gone."""
        self._damaged: set[int] = set()
        """Threads of which a page is damaged: what can be purged of the others is not kept for them."""

    async def forget_requests(self, now: int) -> int:
        return await self._changes.work_off(Write(_FORGET_REQUESTS, (now,)), rounds_max=ROUNDS_MAX)

    async def forget_starts(self, now: int) -> int:
        return await self._changes.work_off(Write(_FORGET_STARTS, (now,)), rounds_max=ROUNDS_MAX)

    async def expire_threads(self, now: int, retention: int | None) -> int:
        expired = 0
        for (key,) in await self._readers.rows(TENANTS_DUE, (now, retention)):
            tenant = await self._tenant(key)
            kept = None if tenant is None else _first(tenant.thread_retention, retention)
            if tenant is not None and kept is not None:
                expired += await self._expire(tenant, now - kept, now)
        return expired

    async def _tenant(self, key: int) -> TenantRow | None:
        """A damaged row must not decide what is taken."""
        try:
            return await self._tenants.get_by_key(key)
        except Refused as damage:
            _LOG.error("tenant_left_out", tenant=key, why=damage.message)
            return None

    async def _expire(self, tenant: TenantRow, ended_by: int, now: int) -> int:
        expired = 0
        for _ in range(ROUNDS_MAX):
            rows = await self._readers.rows(THREADS_DUE, (tenant.key, ended_by))
            if not rows:
                break
            step = Expire(tenant.key, tenant.revision, [Due(*row) for row in rows], ended_by, now)
            answer = await self._changes.apply(0, step, background=True)
            if answer is None or not answer[0]:
                break
            expired += answer[0]
        return expired

    async def purge_threads(self) -> int:
        async with self._purging:
            purged = 0
            for _ in range(ROUNDS_MAX):
                found = await self._readers.rows(_THREADS_TO_PURGE, (THREADS_PER_STEP + len(self._damaged),))
                threads = [(tenant, thread) for tenant, thread in found if thread not in self._damaged]
                if not threads:
                    break
                self._unpruned = True
                purged += await self._purge(threads)
            return purged

    async def _purge(self, threads: Sequence[tuple[int, int]]) -> int:
        """One that meets damage takes nothing of the others with it, and is left until the next start."""
        try:
            answer = await self._changes.apply(0, Purge(threads), background=True)
        except Refused as refused:
            if refused.reason is not Reason.RECORD_CORRUPT:
                raise
            if len(threads) > 1:
                return sum([await self._purge([one]) for one in threads])
            self._damaged.add(threads[0][1])
            _LOG.error("thread_not_purged", thread=threads[0][1], why=refused.message)
            return 0
        return answer[0] if answer is not None else 0

    async def prune_commits(self) -> int:
        async with self._pruning:
            pruned = 0
            for _ in range(ROUNDS_MAX if self._unpruned or self._pruned_to else 0):
                if not self._pruned_to:
                    self._unpruned = False  # what goes from now on is for another round
                rows = await self._readers.rows(_COMMITS, (self._pruned_to,))
                gone = [(position,) for position, dead in rows if dead]
                if gone:
                    await self._changes.apply(0, WriteMany(_DELETE_COMMIT, gone), background=True)
                    pruned += len(gone)
                self._pruned_to = rows[-1][0] if len(rows) == COMMITS_PER_STEP else 0
                if not self._pruned_to:
                    break
            return pruned

    async def forget_threads(self, now: int) -> int:
        gone_by = (now - FORGET_MICROS,)
        if not await self._readers.rows(THREADS_TO_FORGET, gone_by):
            return 0
        return await self._changes.work_off(Write(_FORGET_THREADS, gone_by), rounds_max=ROUNDS_MAX)

    async def expire_sessions(self, now: int, retention: int | None) -> int:
        expired, after = 0, 0
        for _ in range(ROUNDS_MAX):
            rows = await self._readers.rows(SESSIONS_DUE, (now, retention, after))
            for key, session, revision in rows:
                tenant = await self._tenant(key)
                kept = None if tenant is None else _first(tenant.thread_retention, retention)
                if tenant is not None and kept is not None:
                    values = (now, session, revision, now - kept, tenant.revision)
                    expired += await self._expire_session(values)
            if len(rows) < SESSIONS_PER_STEP:
                break
            after = rows[-1][1]
        return expired

    async def _expire_session(self, values: tuple[int, int, int, int, int]) -> int:
        answer = await self._changes.apply(0, Write(EXPIRE_SESSION, values), CHANGED, background=True)
        return answer[0] if answer is not None else 0

    async def purge_sessions(self) -> int:
        purged = 0
        for row in await self._readers.rows(SESSIONS_TO_PURGE):
            tenant, session = row[1], row[0]
            try:
                gone = session_of(row) is None
            except Refused as damage:  # a deletion that is damaged is none
                _LOG.error("session_not_purged", session=session, why=damage.message)
                continue
            if gone:
                await self._changes.apply(0, PurgeSession(tenant, session), background=True)
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


def _first(own: int | None, default: int | None) -> int | None:
    return default if own is None else own
