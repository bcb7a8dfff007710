"""The order of all commits of a tenant, for streams that span threads."""

from treadle_server.ports.catalogue.commits import CommitPage, CommitRow
from treadle_server.ports.log import ThreadKey
from treadle_server.stores.refusals import record_corrupt
from treadle_server.stores.sqlite import checksums
from treadle_server.stores.sqlite.readers import Readers

POSITIONS_MAX = 5000
"""Looked through by one read, other tenants' too."""

# What AUTOINCREMENT remembers: the newest row may be gone.
LAST_POSITION = """
SELECT max(coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'commits'), 0),
  coalesce((SELECT max(position) FROM commits), 0))"""
COMMIT_INTACT = f"c.checksum IS ({checksums.sum_sql(checksums.COMMIT, 'c.')})"
# One statement, so that the horizon is that of the same moment as the rows; it comes without rows too. Nobody
# can tell whose a damaged row was, so every tenant sees it.
_READ = f"""
SELECT h.position, h.checksum, c.*
FROM (SELECT 1) LEFT JOIN horizons h ON h.tenant = ?1
LEFT JOIN (
  SELECT c.position, c.thread, coalesce(t.id, ''), c.first, c.last, coalesce(l.parent, 0),
    {COMMIT_INTACT} AS intact
  FROM commits c LEFT JOIN threads t ON t.thread = c.thread LEFT JOIN lineage l ON l.thread = c.thread
  WHERE c.position > ?2 AND c.position <= ?3
    AND (c.tenant = ?1 AND (?5 = 0 OR c.root = ?5) AND t.thread IS NOT NULL AND t.delete_time IS NULL
      OR NOT {COMMIT_INTACT})
  ORDER BY c.position LIMIT ?4) c
ORDER BY c.position"""
# Of a thread `t` with details `d` that has ended. One that was ended by its row alone is searched for.
END_POSITION = """coalesce(
  (SELECT c.position FROM commits c
   WHERE c.position = d.end_position AND c.thread = t.thread AND c.last = t.sequence),
  (SELECT max(c.position) FROM commits c WHERE c.thread = t.thread), 0)"""
_HORIZON = "SELECT position, checksum FROM horizons WHERE tenant = ?"


class SqliteCommits:
    """Implements `ports.catalogue.commits.Commits`."""

    def __init__(self, readers: Readers) -> None:
        self._readers = readers

    async def last_position(self) -> int:
        row = await self._readers.row(LAST_POSITION)
        return row[0] if row is not None else 0

    async def horizon(self, tenant: int) -> int:
        row = await self._readers.row(_HORIZON, (tenant,))
        return verified_horizon(tenant, *row) if row is not None else 0

    async def read(self, tenant: int, *, after: int, limit: int, root: int = 0) -> CommitPage:
        until = min(await self.last_position(), after + POSITIONS_MAX)
        rows = await self._readers.rows(_READ, (tenant, after, until, limit, root))
        horizon = verified_horizon(tenant, *rows[0][:2])
        commits = tuple(
            CommitRow(position, ThreadKey(tenant, thread), thread_id, first, last, parent, not intact)
            for _, _, position, thread, thread_id, first, last, parent, intact in rows
            if position is not None
        )
        full = len(commits) == limit
        position = commits[-1].position if full and commits else max(after, until)
        return CommitPage(commits, position, horizon)


def verified_horizon(tenant: int, position: int | None, checksum: int | None) -> int:
    """Raises Refused(RECORD_CORRUPT): a horizon that is too low would hide a gap."""
    if position is None or checksum is None:
        return 0
    if checksums.of_row(tenant, position) != checksum:
        raise record_corrupt("the horizon of a tenant's commits")
    return position
