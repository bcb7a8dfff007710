"""Sessions."""

from treadle_server.ports.catalogue.pages import Page, Position
from treadle_server.ports.catalogue.sessions import SessionRow
from treadle_server.ports.log import NewSession, RequestRow
from treadle_server.stores.refusals import id_taken
from treadle_server.stores.sqlite import checksums
from treadle_server.stores.sqlite.changes import Changes
from treadle_server.stores.sqlite.pages import before, page_of
from treadle_server.stores.sqlite.readers import Readers, Row
from treadle_server.stores.sqlite.statements import Answer, Require, Write

COLUMNS = """session, tenant, id, session_key, agent, parent_object, coalesce(active_thread, 0), create_time,
checksum"""
_REQUIRE_ID = """
SELECT 1 WHERE NOT EXISTS (
  SELECT 1 FROM sessions WHERE tenant = ?1 AND id = ?2 AND (session_key <> ?3 OR ?3 = ''))"""
_INSERT = """
INSERT INTO sessions (tenant, id, session_key, agent, parent_object, create_time, checksum)
VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"""
_SELECT_NEW = f"""
SELECT {COLUMNS} FROM sessions
WHERE tenant = ?1 AND session_key = ?2 AND session_key > ''
UNION ALL
SELECT {COLUMNS} FROM sessions WHERE tenant = ?1 AND id = ?3 AND ?2 = ''"""
_SELECT = f"SELECT {COLUMNS} FROM sessions WHERE tenant = ? AND id = ?"
_SELECT_BY_KEY = f"SELECT {COLUMNS} FROM sessions WHERE tenant = ? AND session = ?"
_FIND = f"SELECT {COLUMNS} FROM sessions WHERE tenant = ? AND session_key = ? AND session_key > ''"
_LIST = f"""
SELECT {COLUMNS} FROM sessions WHERE tenant = ? AND session < ? ORDER BY session DESC LIMIT ?"""


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
            Write(_INSERT, (*values, checksums.of_row(*values))),
            Answer(_SELECT_NEW, (tenant, new.session_key, new.id)),
            request=request,
        )
        assert answer is not None
        return session_of(answer)

    async def get(self, tenant: int, session_id: str) -> SessionRow | None:
        return await self._one(_SELECT, tenant, session_id)

    async def get_by_key(self, tenant: int, key: int) -> SessionRow | None:
        return await self._one(_SELECT_BY_KEY, tenant, key)

    async def find(self, tenant: int, session_key: str) -> SessionRow | None:
        return await self._one(_FIND, tenant, session_key)

    async def list(self, tenant: int, *, limit: int, after: Position | None = None) -> Page[SessionRow]:
        rows = await self._readers.rows(_LIST, (tenant, before(after), limit + 1))
        return page_of(rows, limit, session_of)

    async def _one(self, sql: str, tenant: int, name: str | int) -> SessionRow | None:
        row = await self._readers.row(sql, (tenant, name))
        return session_of(row) if row is not None else None


def session_of(row: Row) -> SessionRow:
    """Raises Refused(RECORD_CORRUPT) unless it is as it was written."""
    *values, checksum = row
    session = SessionRow(*values)
    name = f"sessions/{session.id}"
    identity = (session.tenant, session.id, session.session_key, session.agent, session.parent_object)
    checksums.verify(checksum, name, *identity, session.create_time, resource=name)
    return session
