"""Threads that agents of other threads called: rows of `lineage`, and trees of threads."""

from treadle_server.ports.catalogue.lineage import Ancestry
from treadle_server.ports.log import ThreadKey
from treadle_server.stores.refusals import parent_ended, record_corrupt
from treadle_server.stores.sqlite import checksums
from treadle_server.stores.sqlite.checksums import LINEAGE
from treadle_server.stores.sqlite.commits import END_POSITION
from treadle_server.stores.sqlite.readers import Readers, Row
from treadle_server.stores.sqlite.statements import Write

INTACT = f"l.checksum IS ({checksums.sum_sql(LINEAGE, 'l.')})"
ALL = f"SELECT l.thread, {INTACT} FROM lineage l"
_JOIN = f"""
INSERT INTO lineage (thread, tenant, parent, root, checksum)
SELECT ?1, p.tenant, p.thread, coalesce(l.root, p.thread),
  {LINEAGE["thread"]} * ?1 + {LINEAGE["tenant"]} * p.tenant + {LINEAGE["parent"]} * p.thread
  + {LINEAGE["root"]} * coalesce(l.root, p.thread)
FROM threads p LEFT JOIN lineage l ON l.thread = p.thread
WHERE p.thread = ?2 AND p.tenant = ?3 AND p.state < 6 AND p.delete_time IS NULL"""
_OF = f"""
SELECT coalesce(l.parent, 0), coalesce(l.root, t.thread), coalesce(d.begin_position, 0),
  l.thread IS NULL OR {INTACT}
FROM threads t LEFT JOIN lineage l ON l.thread = t.thread LEFT JOIN thread_details d ON d.thread = t.thread
WHERE t.thread = ? AND t.tenant = ?"""
_TREE = """
WITH RECURSIVE tree (thread) AS (
  VALUES (?) UNION SELECT l.thread FROM lineage l JOIN tree ON l.parent = tree.thread)"""
_DESCENDANTS = _TREE + "SELECT thread FROM tree"
_LIVING = (
    _TREE
    + """
SELECT 1 FROM tree JOIN threads t ON t.thread = tree.thread
WHERE t.state < 6 AND t.delete_time IS NULL LIMIT 1"""
)
_END = (
    _TREE
    + f"""
SELECT max({END_POSITION})
FROM tree JOIN threads t ON t.thread = tree.thread LEFT JOIN thread_details d ON d.thread = t.thread
WHERE t.delete_time IS NULL"""
)
_GAPS = _TREE + "SELECT 1 FROM tree JOIN threads t ON t.thread = tree.thread WHERE t.expired = 1 LIMIT 1"
_BEGINS = "SELECT 1 FROM commits WHERE position = ? AND thread = ? AND first = 1"
_FIRST = "SELECT min(position) FROM commits WHERE thread = ?"


def join(thread: ThreadKey, parent: int) -> Write:
    """Puts a new thread below the one that called it. Refuses for one that has ended."""
    return Write(_JOIN, (thread.thread, parent, thread.tenant), parent_ended)


def verify(row: Row) -> None:
    """Raises Refused(RECORD_CORRUPT) unless it is as it was written."""
    thread, intact = row
    if not intact:
        raise record_corrupt(f"thread {thread}")


class SqliteLineage:
    """Implements `ports.catalogue.lineage.Lineage`."""

    def __init__(self, readers: Readers) -> None:
        self._readers = readers

    async def of(self, key: ThreadKey) -> Ancestry | None:
        row = await self._readers.row(_OF, (key.thread, key.tenant))
        if row is None:
            return None
        parent, root, begin_position, intact = row
        if not intact:
            raise record_corrupt(f"lineage of thread {key.thread}")
        return Ancestry(parent, root, await self._begin(key.thread, begin_position))

    async def _begin(self, thread: int, hint: int) -> int:
        if await self._readers.row(_BEGINS, (hint, thread)) is not None:
            return hint
        row = await self._readers.row(_FIRST, (thread,))
        return row[0] or 0 if row is not None else 0

    async def tree(self, key: ThreadKey) -> set[int]:
        return {thread for (thread,) in await self._readers.rows(_DESCENDANTS, (key.thread,))}

    async def has_gaps(self, key: ThreadKey) -> bool:
        return await self._readers.row(_GAPS, (key.thread,)) is not None

    async def over(self, key: ThreadKey, position: int) -> bool:
        if await self._readers.row(_LIVING, (key.thread,)) is not None:
            return False
        row = await self._readers.row(_END, (key.thread,))
        return row is None or (row[0] or 0) <= position
