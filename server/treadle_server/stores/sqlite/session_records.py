"""The logs of a session's threads as one."""

from collections.abc import Sequence
from typing import Any

from treadle_server.ports.catalogue.sessions import SessionPlace, SessionRecord
from treadle_server.ports.log import Record, StoredRecord, ThreadKey
from treadle_server.stores.refusals import record_corrupt
from treadle_server.stores.sqlite import checksums
from treadle_server.stores.sqlite.pages import KEY_MAX
from treadle_server.stores.sqlite.readers import Readers, Row

_READ = """
SELECT t.tenant, t.thread, t.id, t.create_time, e.sequence, e.kind, e.body, e.private, e.checksum
FROM threads t INDEXED BY threads_by_session
CROSS JOIN events e ON e.tenant = t.tenant AND e.thread = t.thread
WHERE t.tenant = ? AND t.session = ? AND t.session IS NOT NULL AND t.delete_time IS NULL
  AND (t.create_time, t.thread, e.sequence) {beyond} (?, ?, ?) AND (t.create_time, t.thread) {within} (?, ?)
  AND e.kind IN ({kinds}){ended}
ORDER BY t.create_time {way}, t.thread {way}, e.sequence {way} LIMIT ?"""
_FIRST = SessionPlace(-1, -1, -1)
_LAST = SessionPlace(KEY_MAX, KEY_MAX, KEY_MAX)


class SqliteSessionRecords:
    """Implements `ports.catalogue.sessions.SessionRecords`."""

    def __init__(self, readers: Readers) -> None:
        self._readers = readers

    async def after(
        self, tenant: int, session: int, place: SessionPlace | None, *, kinds: Sequence[int], limit: int
    ) -> Sequence[SessionRecord]:
        sql = _READ.format(beyond=">", within=">=", way="ASC", kinds=_marks(kinds), ended="")
        return await self._read(sql, tenant, session, place or _FIRST, kinds, limit)

    async def ended_before(
        self,
        tenant: int,
        session: int,
        place: SessionPlace | None,
        *,
        kinds: Sequence[int],
        limit: int,
    ) -> Sequence[SessionRecord]:
        ended = " AND t.state >= 6"
        sql = _READ.format(beyond="<", within="<=", way="DESC", kinds=_marks(kinds), ended=ended)
        return await self._read(sql, tenant, session, place or _LAST, kinds, limit)

    async def _read(
        self, sql: str, tenant: int, session: int, place: SessionPlace, kinds: Sequence[int], limit: int
    ) -> Sequence[SessionRecord]:
        position = (place.create_time, place.thread)
        values = (tenant, session, *position, place.sequence, *position, *kinds, limit)
        return [_record_of(row) for row in await self._readers.rows(sql, values)]


def _marks(values: Sequence[Any]) -> str:
    return ", ".join("?" * len(values))


def _record_of(row: Row) -> SessionRecord:
    tenant, thread, thread_id, create_time, sequence, kind, body, private, checksum = row
    record = Record(kind, bytes(body), None if private is None else bytes(private))
    if checksums.of_record(sequence, record) != checksum:
        raise record_corrupt(
            f"event {sequence} of thread {thread_id}", thread=thread_id, sequence=str(sequence)
        )
    key, place = ThreadKey(tenant, thread), SessionPlace(create_time, thread, sequence)
    return SessionRecord(key, thread_id, place, StoredRecord(sequence, record))
