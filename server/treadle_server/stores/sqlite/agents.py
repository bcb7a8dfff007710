"""Agents and their versions."""

from dataclasses import replace

from treadle_server.core.errors import Refused
from treadle_server.ports.catalogue.agents import AgentRow, AgentVersionRow
from treadle_server.ports.catalogue.pages import Page, Position
from treadle_server.ports.log import RequestRow
from treadle_server.stores.refusals import id_taken, record_corrupt, revision_differs
from treadle_server.stores.sqlite import checksums
from treadle_server.stores.sqlite.changes import Changes
from treadle_server.stores.sqlite.pages import before, page_of
from treadle_server.stores.sqlite.readers import Readers, Row
from treadle_server.stores.sqlite.statements import Answer, Statement, Write

COLUMNS = """agent, tenant, id, version, revision, body, create_time, update_time, delete_time, purge_time,
purged, checksum"""
_INSERT = """
INSERT INTO agents (tenant, id, version, revision, body, create_time, update_time, checksum)
VALUES (?, ?, 1, 1, ?, ?, ?, ?) ON CONFLICT (tenant, id) DO NOTHING"""
_INSERT_FIRST_VERSION = """
INSERT INTO agent_versions (agent, version, body, create_time, checksum)
SELECT agent, 1, ?1, ?2, row_checksum(agent, 1, ?1, ?2) FROM agents WHERE tenant = ?3 AND id = ?4"""
_INSERT_VERSION = """
INSERT INTO agent_versions (agent, version, body, create_time, checksum) VALUES (?, ?, ?, ?, ?)"""
_UPDATE = """
UPDATE agents SET version = ?, revision = revision + 1, body = ?, update_time = ?, checksum = ?
WHERE agent = ? AND revision = ? AND delete_time IS NULL"""
_MARK = """
UPDATE agents SET revision = revision + 1, update_time = ?, delete_time = ?, purge_time = ?, checksum = ?
WHERE agent = ? AND revision = ? AND purged = 0"""
_SELECT = f"SELECT {COLUMNS} FROM agents WHERE tenant = ? AND id = ?"
_SELECT_BY_KEY = f"SELECT {COLUMNS} FROM agents WHERE tenant = ? AND agent = ?"
_LIST = f"""
SELECT {COLUMNS} FROM agents
WHERE tenant = ? AND agent < ? AND purged = 0 AND (delete_time IS NULL OR ?) ORDER BY agent DESC LIMIT ?"""
_COUNT = "SELECT count(*) FROM agents WHERE tenant = ? AND purged = 0 AND (delete_time IS NULL OR ?)"
_SELECT_VERSION = """
SELECT version, body, create_time, checksum FROM agent_versions WHERE agent = ? AND version = ?"""
_LIST_VERSIONS = """
SELECT version, body, create_time, checksum FROM agent_versions
WHERE agent = ? AND version < ? ORDER BY version DESC LIMIT ?"""


class SqliteAgents:
    """Implements `ports.catalogue.agents.Agents`."""

    def __init__(self, changes: Changes, readers: Readers) -> None:
        self._changes = changes
        self._readers = readers

    async def create(
        self,
        tenant: int,
        agent_id: str,
        *,
        body: bytes,
        version_body: bytes,
        create_time: int,
        request: RequestRow | None = None,
    ) -> AgentRow:
        checksum = checksums.of_row(tenant, agent_id, 1, 1, body, create_time, create_time, None, None)
        version = (version_body, create_time, tenant, agent_id)
        answer = await self._changes.apply(
            tenant,
            Write(
                _INSERT,
                (tenant, agent_id, body, create_time, create_time, checksum),
                lambda: id_taken("Agent", f"agents/{agent_id}"),
            ),
            Write(_INSERT_FIRST_VERSION, version),
            Answer(_SELECT, (tenant, agent_id)),
            request=request,
        )
        return _present(answer)

    async def get(self, tenant: int, agent_id: str) -> AgentRow | None:
        row = await self._readers.row(_SELECT, (tenant, agent_id))
        return _agent(row) if row is not None and not _is_purged(row) else None

    async def get_by_key(self, tenant: int, key: int) -> AgentRow | None:
        row = await self._readers.row(_SELECT_BY_KEY, (tenant, key))
        return _agent(row) if row is not None and not _is_purged(row) else None

    async def list(
        self, tenant: int, *, limit: int, after: Position | None = None, show_deleted: bool = False
    ) -> Page[AgentRow]:
        rows = await self._readers.rows(_LIST, (tenant, before(after), show_deleted, limit + 1))
        return page_of(rows, limit, _agent)

    async def count(self, tenant: int, *, show_deleted: bool = False) -> int:
        row = await self._readers.row(_COUNT, (tenant, show_deleted))
        return int(row[0]) if row is not None else 0

    async def update(
        self,
        row: AgentRow,
        *,
        body: bytes,
        version_body: bytes | None,
        update_time: int,
        request: RequestRow | None = None,
    ) -> AgentRow:
        version = row.version if version_body is None else row.version + 1
        revised = replace(row, version=version, revision=row.revision + 1, body=body, update_time=update_time)
        values = (version, body, update_time, _checksum(revised))
        steps: list[Statement] = [Write(_UPDATE, (*values, row.key, row.revision), lambda: _differs(row))]
        if version_body is not None:
            checksum = checksums.of_row(row.key, version, version_body, update_time)
            steps.append(Write(_INSERT_VERSION, (row.key, version, version_body, update_time, checksum)))
        return await self._change(row, *steps, request=request)

    async def delete(
        self, row: AgentRow, *, delete_time: int, purge_time: int, request: RequestRow | None = None
    ) -> AgentRow:
        return await self._mark(row, delete_time, delete_time, purge_time, request)

    async def undelete(
        self, row: AgentRow, *, update_time: int, request: RequestRow | None = None
    ) -> AgentRow:
        return await self._mark(row, update_time, None, None, request)

    async def _mark(
        self,
        row: AgentRow,
        update_time: int,
        delete_time: int | None,
        purge_time: int | None,
        request: RequestRow | None,
    ) -> AgentRow:
        marked = replace(
            row,
            revision=row.revision + 1,
            update_time=update_time,
            delete_time=delete_time,
            purge_time=purge_time,
        )
        values = (update_time, delete_time, purge_time, _checksum(marked), row.key, row.revision)
        return await self._change(row, Write(_MARK, values, lambda: _differs(row)), request=request)

    async def get_version(self, agent: int, version: int) -> AgentVersionRow | None:
        row = await self._readers.row(_SELECT_VERSION, (agent, version))
        return _version(agent, row) if row is not None else None

    async def list_versions(
        self, agent: int, *, limit: int, after: Position | None = None
    ) -> Page[AgentVersionRow]:
        rows = await self._readers.rows(_LIST_VERSIONS, (agent, before(after), limit + 1))
        return page_of(rows, limit, lambda row: _version(agent, row))

    async def _change(self, row: AgentRow, *steps: Statement, request: RequestRow | None) -> AgentRow:
        reread = Answer(_SELECT_BY_KEY, (row.tenant, row.key))
        answer = await self._changes.apply(row.tenant, *steps, reread, request=request)
        return _present(answer)


def _differs(row: AgentRow) -> Refused:
    return revision_differs("Agent", f"agents/{row.id}")


def _present(row: Row | None) -> AgentRow:
    assert row is not None, "it was there when it was changed"
    return _agent(row)


def _agent(row: Row) -> AgentRow:
    """Raises Refused(RECORD_CORRUPT) unless it is as it was written."""
    *values, purged, checksum = row
    agent = AgentRow(*values)
    if purged or _checksum(agent) != checksum:
        raise record_corrupt(f"agent {agent.id}", resource=f"agents/{agent.id}")
    return agent


def verify_agent(row: Row) -> None:
    """Raises Refused(RECORD_CORRUPT) for one that is not as it was written."""
    if not _is_purged(row):
        _agent(row)


def _is_purged(row: Row) -> bool:
    """Nothing is left to verify of a purged one, and no single flipped bit makes another look like it."""
    *_, body, _create_time, _update_time, delete_time, purge_time, purged, _checksum = row
    return bool(purged) and not body and delete_time is not None and purge_time is not None


def _checksum(row: AgentRow) -> int:
    return checksums.of_row(
        *(row.tenant, row.id, row.version, row.revision, row.body),
        *(row.create_time, row.update_time, row.delete_time, row.purge_time),
    )


def _version(agent: int, row: Row) -> AgentVersionRow:
    version, body, create_time, checksum = row
    what = f"agent version {version}"
    checksums.verify(checksum, what, agent, version, body, create_time, version=str(version))
    return AgentVersionRow(version, body, create_time)
