"""The order of all commits of a tenant, for streams that span threads."""

from treadle_server.ports.catalogue import CommitPage, CommitRow
from treadle_server.ports.log import ThreadKey
from treadle_server.stores.sqlite.readers import Readers

POSITIONS_MAX = 5000
"""Looked through by one read, other tenants' too."""

_LAST = "SELECT coalesce(max(position), 0) FROM commits"
_READ = """
SELECT c.position, c.tenant, c.thread, t.id, c.first, c.last
FROM commits c CROSS JOIN threads t ON t.thread = c.thread
WHERE c.position > ? AND c.position <= ? AND c.tenant = ? AND t.delete_time IS NULL
ORDER BY c.position LIMIT ?"""


class SqliteCommits:
    """Implements `ports.catalogue.Commits`."""

    def __init__(self, readers: Readers) -> None:
        self._readers = readers

    async def last_position(self) -> int:
        row = await self._readers.row(_LAST)
        return row[0] if row is not None else 0

    async def read(self, tenant: int, *, after: int, limit: int) -> CommitPage:
        until = min(await self.last_position(), after + POSITIONS_MAX)
        rows = await self._readers.rows(_READ, (after, until, tenant, limit))
        commits = tuple(
            CommitRow(position, ThreadKey(owner, thread), thread_id, first, last)
            for position, owner, thread, thread_id, first, last in rows
        )
        full = len(commits) == limit
        return CommitPage(commits, commits[-1].position if full and commits else max(after, until))
