"""Rows of threads: found, labelled, deleted. Units of the log make and move them."""

import json
from collections.abc import Sequence

import structlog

from treadle_server.core.errors import Refused
from treadle_server.ports.catalogue import Page, Position, ThreadQuery, ThreadRow, Wake
from treadle_server.ports.log import Conflict, RequestRow, ThreadKey
from treadle_server.stores.refusals import revision_differs
from treadle_server.stores.sqlite import checksums
from treadle_server.stores.sqlite.append import INSERT_LABEL, INSERT_TAG, details_of
from treadle_server.stores.sqlite.changes import Changes
from treadle_server.stores.sqlite.readers import Readers, Row
from treadle_server.stores.sqlite.statements import Answer, Write, WriteMany
from treadle_server.stores.sqlite.thread_queries import keys_of_page

_LOG = structlog.get_logger(__name__)

_ROW = """
SELECT t.tenant, t.thread, t.id, t.agent, coalesce(a.id, ''), t.version,
  coalesce(t.session, 0), coalesce(s.id, ''),
  t.state, t.stop_reason, t.sequence, t.epoch, t.revision,
  t.create_time, t.start_time, t.state_time, t.end_time, t.wake_at,
  t.iteration_count, t.tool_call_count, t.total_tokens, t.cost_micros,
  t.subject_type, coalesce(t.subject_id, ''), t.trigger_type,
  d.spec_digest, d.triggered_by, d.tags, d.labels, d.client_metadata, d.checksum,
  d.summary, d.summary_checksum
FROM {threads}
JOIN thread_details d ON d.thread = t.thread
LEFT JOIN agents a ON a.agent = t.agent
LEFT JOIN sessions s ON s.session = t.session
"""
_PLAIN = _ROW.format(threads="threads t")
_GET = _PLAIN + "WHERE t.tenant = ? AND t.id = ? AND t.delete_time IS NULL"
_GET_BY_KEY = _PLAIN + "WHERE t.tenant = ? AND t.thread = ? AND t.delete_time IS NULL"
_UNFINISHED = (
    _ROW.format(threads="threads t INDEXED BY threads_unfinished")
    + "WHERE t.state < 6 AND t.thread > ? ORDER BY t.thread LIMIT ?"
)
# The page is found first, in an index, and only its rows are looked up.
_PAGE = (
    _ROW.format(threads="({keys}) p CROSS JOIN threads t").replace("SELECT ", "SELECT p.value, ", 1)
    + "WHERE t.thread = p.thread ORDER BY p.value {way}, t.thread {way}"
)
_SPEC = "SELECT body, checksum FROM specs WHERE tenant = ? AND digest = ?"
_WAKES = """
SELECT tenant, thread, wake_at FROM threads
WHERE wake_at IS NOT NULL AND wake_at <= ? AND (wake_at, thread) > (?, ?) ORDER BY wake_at, thread LIMIT ?"""
_REVISE = """
UPDATE threads SET revision = revision + 1
WHERE thread = ? AND tenant = ? AND revision = ? AND delete_time IS NULL"""
_DETAIL = """
UPDATE thread_details
SET spec_digest = ?, triggered_by = ?, tags = ?, labels = ?, client_metadata = ?, checksum = ?
WHERE thread = ?"""
# What the details name is what the side tables hold: found by their whole keys, without an index by thread.
_DELETE_TAGS = """
DELETE FROM thread_tags WHERE (tenant, tag, create_time, thread) IN (
  SELECT t.tenant, j.value, t.create_time, t.thread
  FROM threads t JOIN thread_details d ON d.thread = t.thread, json_each(d.tags) j WHERE t.thread = ?)"""
_DELETE_LABELS = """
DELETE FROM thread_labels WHERE (tenant, label, value, create_time, thread) IN (
  SELECT t.tenant, j.key, j.value, t.create_time, t.thread
  FROM threads t JOIN thread_details d ON d.thread = t.thread, json_each(d.labels) j WHERE t.thread = ?)"""
_HIDE = """
UPDATE threads SET delete_time = ?
WHERE thread = ? AND tenant = ? AND delete_time IS NULL AND state >= 6"""


class SqliteThreads:
    """Implements `ports.catalogue.Threads`."""

    def __init__(self, changes: Changes, readers: Readers) -> None:
        self._changes = changes
        self._readers = readers

    async def get(self, tenant: int, thread_id: str) -> ThreadRow | None:
        row = await self._readers.row(_GET, (tenant, thread_id))
        return _thread(row) if row is not None else None

    async def get_by_key(self, key: ThreadKey) -> ThreadRow | None:
        row = await self._readers.row(_GET_BY_KEY, (key.tenant, key.thread))
        return _thread(row) if row is not None else None

    async def spec(self, tenant: int, digest: bytes) -> bytes | None:
        row = await self._readers.row(_SPEC, (tenant, digest))
        if row is None:
            return None
        body, checksum = row
        checksums.verify(checksum, f"spec {digest.hex()}", body)
        return bytes(body)

    async def list(self, query: ThreadQuery) -> Page[ThreadRow]:
        keys, values = keys_of_page(query)
        sql = _PAGE.format(keys=keys, way="DESC" if query.descending else "ASC")
        rows = await self._readers.rows(sql, values)
        items = tuple(_thread(row[1:]) for row in rows[: query.limit])
        if len(rows) <= query.limit or not items:
            return Page(items, None)
        return Page(items, (rows[query.limit - 1][0], items[-1].key.thread))

    async def unfinished(self, *, after: int, limit: int) -> Sequence[ThreadRow]:
        found: list[ThreadRow] = []
        while True:
            wanted = limit - len(found)
            rows = await self._readers.rows(_UNFINISHED, (after, wanted))
            found += [thread for thread in map(_undamaged, rows) if thread is not None]
            if len(rows) < wanted or len(found) == limit:
                return found
            after = rows[-1][1]

    async def wakes(self, *, until: int, limit: int, after: Position | None = None) -> Sequence[Wake]:
        rows = await self._readers.rows(_WAKES, (until, *(after or (0, 0)), limit))
        return [Wake(ThreadKey(tenant, thread), wake_at) for tenant, thread, wake_at in rows]

    async def update(
        self,
        row: ThreadRow,
        *,
        tags: Sequence[str],
        labels: dict[str, str],
        client_metadata: bytes,
        request: RequestRow | None = None,
    ) -> ThreadRow:
        tenant, thread = row.key.tenant, row.key.thread
        details = details_of(tags, labels, client_metadata, row.spec_digest, row.triggered_by)
        answer = await self._changes.apply(
            tenant,
            Write(
                _REVISE,
                (thread, tenant, row.revision),
                lambda: revision_differs("Thread", f"threads/{row.id}"),
            ),
            Write(_DELETE_TAGS, (thread,)),
            Write(_DELETE_LABELS, (thread,)),
            Write(_DETAIL, (*details, thread)),
            WriteMany(INSERT_TAG, [(tenant, tag, row.create_time, thread) for tag in tags]),
            WriteMany(
                INSERT_LABEL,
                [(tenant, label, value, row.create_time, thread) for label, value in labels.items()],
            ),
            Answer(_GET_BY_KEY, (tenant, thread)),
            request=request,
        )
        assert answer is not None
        return _thread(answer)

    async def delete(self, row: ThreadRow, *, delete_time: int, request: RequestRow | None = None) -> None:
        tenant, thread = row.key.tenant, row.key.thread
        await self._changes.apply(
            tenant,
            Write(_HIDE, (delete_time, thread, tenant), Conflict),
            Write(_DELETE_TAGS, (thread,)),
            Write(_DELETE_LABELS, (thread,)),
            request=request,
        )


def _undamaged(row: Row) -> ThreadRow | None:
    """One damaged row must not keep the others from being driven."""
    try:
        return _thread(row)
    except Refused as damage:
        _LOG.error("thread_left_out", thread=row[2], why=damage.message)
        return None


def _thread(row: Row) -> ThreadRow:
    """Raises Refused(RECORD_CORRUPT) unless its details and summary are as they were written."""
    (tenant, thread, thread_id, *columns), details = row[:25], row[25:]
    spec_digest, triggered_by, tags, labels, client_metadata, checksum, summary, summary_checksum = details
    what = f"thread {thread_id}"
    place = {"thread": thread_id}
    checksums.verify(checksum, what, spec_digest, triggered_by, tags, labels, client_metadata, **place)
    if summary is not None:
        checksums.verify(summary_checksum, what, summary, **place)
    columns += [triggered_by, spec_digest, tuple(json.loads(tags)), json.loads(labels)]
    columns += [client_metadata, summary]
    return ThreadRow(ThreadKey(tenant, thread), thread_id, *columns)
