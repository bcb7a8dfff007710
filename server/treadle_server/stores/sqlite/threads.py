"""Rows of threads: found, labelled, deleted. Units of the log make and move them."""

from collections.abc import Iterable, Sequence

from treadle_server.core.errors import Refused
from treadle_server.core.kinds import ThreadState
from treadle_server.ports.catalogue.pages import Page, Position
from treadle_server.ports.catalogue.thread_queries import ThreadQuery
from treadle_server.ports.catalogue.threads import ExpiredThread, ThreadRow, Wake
from treadle_server.ports.log import Conflict, RequestRow, ThreadKey
from treadle_server.stores.refusals import revision_differs
from treadle_server.stores.sqlite import checksums
from treadle_server.stores.sqlite.append import FREE_SESSION, INSERT_LABEL, INSERT_TAG, details_of
from treadle_server.stores.sqlite.approvals import CancelOpen
from treadle_server.stores.sqlite.changes import Changes
from treadle_server.stores.sqlite.checksums import PROGRESS
from treadle_server.stores.sqlite.damage import Damages
from treadle_server.stores.sqlite.mail import look
from treadle_server.stores.sqlite.readers import Readers, Row
from treadle_server.stores.sqlite.statements import Answer, Write, WriteMany
from treadle_server.stores.sqlite.thread_queries import fits, keys_of_page
from treadle_server.stores.sqlite.thread_rows import ROW, known_of, thread_of

_PLAIN = ROW.format(threads="threads t")
_GET = _PLAIN + "WHERE t.tenant = ? AND t.id = ?"
_GET_BY_KEY = _PLAIN + "WHERE t.tenant = ? AND t.thread = ?"
_UNFINISHED = (
    ROW.format(threads="threads t INDEXED BY threads_unfinished")
    + "WHERE t.state < 6 AND t.thread > ? ORDER BY t.thread LIMIT ?"
)
# The page is found first, in an index, and only its rows are looked up.
_PAGE = (
    ROW.format(threads="({keys}) p CROSS JOIN threads t").replace("SELECT ", "SELECT p.value, ", 1)
    + "WHERE t.thread = p.thread ORDER BY p.value {way}, t.thread {way}"
)
_EXPIRED = "SELECT thread, sequence, delete_time FROM threads WHERE tenant = ? AND id = ? AND expired = 1"
_SPEC = "SELECT body, checksum FROM specs WHERE tenant = ? AND digest = ?"
_WAKES = """
SELECT tenant, thread, wake_at FROM threads
WHERE wake_at IS NOT NULL AND wake_at <= ? AND (wake_at, thread) > (?, ?) ORDER BY wake_at, thread LIMIT ?"""
_REVISE = f"""
UPDATE threads SET revision = revision + 1, identity_sum = identity_sum + {checksums.IDENTITY["revision"]}
WHERE thread = ? AND tenant = ? AND revision = ? AND delete_time IS NULL"""
_DETAIL = """
UPDATE thread_details
SET spec_digest = ?, triggered_by = ?, tags = ?, labels = ?, client_metadata = ?, checksum = ?
WHERE thread = ?"""
DELETE_TAGS = "DELETE FROM thread_tags WHERE thread = ?"
DELETE_LABELS = "DELETE FROM thread_labels WHERE thread = ?"
HIDE = f"""
UPDATE threads SET delete_time = ?1,
  identity_sum = identity_sum + {checksums.IDENTITY["delete_time"]} * (?1 - coalesce(delete_time, -1))
WHERE thread = ?2 AND tenant = ?3 AND delete_time IS NULL AND state >= 6"""
# By the difference: a sum that was wrong stays wrong.
_CONDEMN = f"""
UPDATE threads
SET state = {ThreadState.FAILED}, stop_reason = ?1, state_time = ?2, end_time = ?2, wake_at = NULL,
  progress_sum = progress_sum + {PROGRESS["state"]} * ({ThreadState.FAILED} - state)
    + {PROGRESS["stop_reason"]} * (?1 - stop_reason) + {PROGRESS["state_time"]} * (?2 - state_time)
    + {PROGRESS["end_time"]} * (?2 - coalesce(end_time, -1))
    + {PROGRESS["wake_at"]} * (-1 - coalesce(wake_at, -1))
WHERE thread = ?3 AND tenant = ?4 AND state < 6"""


class SqliteThreads:
    """Implements `ports.catalogue.threads.Threads`."""

    def __init__(self, changes: Changes, readers: Readers, damages: Damages) -> None:
        self._changes = changes
        self._readers = readers
        self._damages = damages

    async def get(self, tenant: int, thread_id: str) -> ThreadRow | None:
        return await self._one(await self._readers.row(_GET, (tenant, thread_id)))

    async def get_by_key(self, key: ThreadKey) -> ThreadRow | None:
        return await self._one(await self._readers.row(_GET_BY_KEY, (key.tenant, key.thread)))

    async def _one(self, row: Row | None) -> ThreadRow | None:
        """Raises Refused(RECORD_CORRUPT), and has told it then."""
        try:
            return thread_of(row) if row is not None else None
        except Refused:
            assert row is not None
            await self._damages.thread(ThreadKey(row[0], row[1]), "its row")
            raise

    async def _known(self, rows: Iterable[Row]) -> "list[ThreadRow]":
        """Those that are not deleted, damaged ones too."""
        found = [thread for row in rows if (thread := known_of(row)) is not None]
        for thread in found:
            if thread.damaged:
                await self._damages.thread(thread.key, "its row")
        return found

    async def expired(self, tenant: int, thread_id: str) -> ExpiredThread | None:
        row = await self._readers.row(_EXPIRED, (tenant, thread_id))
        return ExpiredThread(ThreadKey(tenant, row[0]), thread_id, *row[1:]) if row is not None else None

    async def spec(self, tenant: int, digest: bytes) -> bytes | None:
        row = await self._readers.row(_SPEC, (tenant, digest))
        if row is None:
            return None
        body, checksum = row
        try:
            checksums.verify(checksum, f"spec {digest.hex()}", digest, body)
        except Refused:
            await self._damages.spec(tenant, digest)
            raise
        return bytes(body)

    async def list(self, query: ThreadQuery) -> Page[ThreadRow]:
        keys, values = keys_of_page(query)
        sql = _PAGE.format(keys=keys, way="DESC" if query.descending else "ASC")
        rows = await self._readers.rows(sql, values)
        kept = rows[: query.limit]
        found = await self._known(row[1:] for row in kept)
        items = tuple(thread for thread in found if fits(query, thread))
        return Page(items, (kept[-1][0], kept[-1][2]) if len(rows) > query.limit and kept else None)

    async def unfinished(self, *, after: int, limit: int) -> Sequence[ThreadRow]:
        return await self._known(await self._readers.rows(_UNFINISHED, (after, limit)))

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
            Write(DELETE_TAGS, (thread,)),
            Write(DELETE_LABELS, (thread,)),
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
        changed = thread_of(answer)
        assert changed is not None, "it was there when it was changed"
        return changed

    async def delete(self, row: ThreadRow, *, delete_time: int, request: RequestRow | None = None) -> None:
        tenant, thread = row.key.tenant, row.key.thread
        await self._changes.apply(
            tenant,
            Write(HIDE, (delete_time, thread, tenant), Conflict),
            Write(DELETE_TAGS, (thread,)),
            Write(DELETE_LABELS, (thread,)),
            request=request,
        )

    async def condemn(self, key: ThreadKey, *, stop_reason: int, now: int) -> None:
        await self._changes.apply(
            key.tenant,
            Write(_CONDEMN, (stop_reason, now, key.thread, key.tenant)),
            Write(FREE_SESSION, (key.thread,)),
            CancelOpen(key.thread),
            look(key.tenant, key.thread),
            ends_thread=key.thread,
        )
