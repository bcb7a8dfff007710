"""Sessions."""

import json
from collections.abc import Sequence

from treadle_server.core.errors import Refused
from treadle_server.core.json_text import canonical_json
from treadle_server.ports.catalogue.pages import Page, Position
from treadle_server.ports.catalogue.sessions import SessionRow
from treadle_server.ports.log import NewSession, RequestRow, ThreadKey
from treadle_server.stores.refusals import id_taken, record_corrupt, revision_differs
from treadle_server.stores.sqlite import checksums
from treadle_server.stores.sqlite.changes import Changes
from treadle_server.stores.sqlite.pages import before, page_of
from treadle_server.stores.sqlite.readers import Readers, Row
from treadle_server.stores.sqlite.session_entries import RequireIdle
from treadle_server.stores.sqlite.session_expiry import HIDE_SESSION
from treadle_server.stores.sqlite.statements import Answer, Require, Write

_SUMMED = """tenant, id, session_key, agent, parent_object, create_time, number, begun, context_initial,
labels, revision, update_time"""
COLUMNS = """s.session, s.tenant, s.id, s.session_key, s.agent, s.parent_object, s.create_time, s.number,
s.begun, s.context_initial, s.labels, s.revision, s.update_time, s.delete_time, s.checksum,
coalesce((SELECT a.id FROM agents a WHERE a.agent = s.agent), ''), coalesce(s.active_thread, 0),
coalesce((SELECT t.id FROM threads t WHERE t.thread = s.active_thread), '')"""
_REQUIRE_ID = """
SELECT 1 WHERE NOT EXISTS (
  SELECT 1 FROM sessions WHERE tenant = ?1 AND id = ?2 AND (session_key <> ?3 OR ?3 = ''))"""
# The number is settled within the statement, so the checksum is too.
_INSERT = f"""
INSERT INTO sessions ({_SUMMED}, delete_time, checksum)
SELECT ?1, ?2, ?3, ?4, ?5, ?6, n.number, 0, '', '{{}}', 1, ?6, NULL,
  row_checksum(?1, ?2, ?3, ?4, ?5, ?6, n.number, 0, '', '{{}}', 1, ?6, NULL)
FROM (SELECT coalesce(max(number), 0) + 1 AS number FROM sessions WHERE tenant = ?1) n
WHERE true ON CONFLICT DO NOTHING"""
_SELECT_NEW = f"""
SELECT {COLUMNS} FROM sessions s
WHERE s.tenant = ?1 AND s.session_key = ?2 AND s.session_key > ''
UNION ALL
SELECT {COLUMNS} FROM sessions s WHERE s.tenant = ?1 AND s.id = ?3 AND ?2 = ''"""
_SELECT = f"SELECT {COLUMNS} FROM sessions s WHERE s.tenant = ? AND s.id = ?"
_SELECT_BY_KEY = f"SELECT {COLUMNS} FROM sessions s WHERE s.tenant = ? AND s.session = ?"
_FIND = f"SELECT {COLUMNS} FROM sessions s WHERE s.tenant = ? AND s.session_key = ? AND s.session_key > ''"
# A damaged deletion is not believed: such a row is in the page, and fails it.
_LIST = f"""
SELECT {COLUMNS} FROM sessions s WHERE s.tenant = ? AND s.session < ?
  AND NOT (s.delete_time IS NOT NULL AND s.purged = 1)
ORDER BY s.session DESC LIMIT ?"""
_UPDATE = """
UPDATE sessions SET labels = ?1, revision = revision + 1, update_time = ?2,
  checksum = row_checksum(tenant, id, session_key, agent, parent_object, create_time, number, begun,
    context_initial, ?1, revision + 1, ?2, NULL)
WHERE session = ?3 AND revision = ?4 AND delete_time IS NULL"""
SESSIONS_TO_PURGE = f"""
SELECT {COLUMNS} FROM sessions s INDEXED BY sessions_to_purge
WHERE s.delete_time IS NOT NULL AND s.purged = 0 LIMIT 50"""
_UNFINISHED = """
SELECT t.thread, t.id FROM threads t INDEXED BY threads_in_session
WHERE t.session = ?1 AND t.session IS NOT NULL AND t.state < 6 AND t.tenant = ?2
ORDER BY t.thread <> ?3, t.thread LIMIT ?4"""


class SqliteSessions:
    """Implements `ports.catalogue.sessions.Sessions`."""

    def __init__(self, changes: Changes, readers: Readers) -> None:
        self._changes = changes
        self._readers = readers

    async def create_if_absent(
        self, tenant: int, new: NewSession, *, request: RequestRow | None = None
    ) -> SessionRow:
        values = (tenant, new.id, new.session_key, new.agent, new.parent_object, new.create_time)
        answer = await self._changes.apply(
            tenant,
            Require(
                _REQUIRE_ID,
                (tenant, new.id, new.session_key),
                lambda: id_taken("Session", f"sessions/{new.id}"),
            ),
            Write(_INSERT, values),
            Answer(_SELECT_NEW, (tenant, new.session_key, new.id)),
            request=request,
        )
        assert answer is not None
        session = session_of(answer)
        if session is None:
            raise id_taken("Session", f"sessions/{new.id}")
        return session

    async def get(self, tenant: int, session_id: str) -> SessionRow | None:
        return await self._one(_SELECT, tenant, session_id)

    async def get_by_key(self, tenant: int, key: int) -> SessionRow | None:
        return await self._one(_SELECT_BY_KEY, tenant, key)

    async def find(self, tenant: int, session_key: str) -> SessionRow | None:
        return await self._one(_FIND, tenant, session_key)

    async def list(self, tenant: int, *, limit: int, after: Position | None = None) -> Page[SessionRow]:
        rows = await self._readers.rows(_LIST, (tenant, before(after), limit + 1))
        page = page_of(rows, limit, session_of)
        return Page(tuple(row for row in page.items if row is not None), page.next)

    async def update(
        self,
        row: SessionRow,
        *,
        labels: dict[str, str],
        update_time: int,
        request: RequestRow | None = None,
    ) -> SessionRow:
        values = (canonical_json(labels), update_time, row.key, row.revision)
        answer = await self._changes.apply(
            row.tenant,
            Write(_UPDATE, values, lambda: _changed(row)),
            Answer(_SELECT_BY_KEY, (row.tenant, row.key)),
            request=request,
        )
        assert answer is not None
        changed = session_of(answer)
        assert changed is not None, "it was there when it was changed"
        return changed

    async def delete(self, row: SessionRow, *, delete_time: int, request: RequestRow | None = None) -> None:
        await self._changes.apply(
            row.tenant,
            RequireIdle(row.key, f"sessions/{row.id}"),
            Write(HIDE_SESSION, (delete_time, row.key, row.revision), lambda: _changed(row)),
            request=request,
        )

    async def unfinished(self, row: SessionRow, *, limit: int) -> Sequence[tuple[ThreadKey, str]]:
        rows = await self._readers.rows(_UNFINISHED, (row.key, row.tenant, row.active_thread, limit))
        return [(ThreadKey(row.tenant, thread), thread_id) for thread, thread_id in rows]

    async def _one(self, sql: str, tenant: int, name: str | int) -> SessionRow | None:
        row = await self._readers.row(sql, (tenant, name))
        return session_of(row) if row is not None else None


def session_of(row: Row) -> SessionRow | None:
    """None for a deleted one. Raises Refused(RECORD_CORRUPT) unless it is as it was written."""
    key, *values, delete_time, checksum, agent_id, active_thread, active_thread_id = row
    tenant, session_id, session_key, agent, parent_object, create_time, number, begun, *others = values
    name = f"sessions/{session_id}"
    checksums.verify(checksum, name, *values, delete_time, resource=name)
    if delete_time is not None:
        return None
    context_initial, labels, revision, update_time = others
    return SessionRow(
        *(key, tenant, session_id, session_key, agent, agent_id, parent_object),
        *(active_thread, active_thread_id, create_time, number, bool(begun), context_initial),
        labels=_labels(name, labels),
        revision=revision,
        update_time=update_time,
    )


def _labels(name: str, text: str) -> dict[str, str]:
    try:
        found: dict[str, str] = json.loads(text)
    except ValueError:
        raise record_corrupt(name, resource=name) from None
    return found


def _changed(row: SessionRow) -> Refused:
    return revision_differs("Session", f"sessions/{row.id}")
