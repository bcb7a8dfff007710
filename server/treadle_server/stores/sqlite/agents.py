"""Agents and their versions."""

from treadle_server.core.errors import Refused
from treadle_server.ports.catalogue import AgentRow, AgentVersionRow, Page, Position
from treadle_server.ports.log import RequestRow
from treadle_server.stores.refusals import id_taken, revision_differs
from treadle_server.stores.sqlite import checksums
from treadle_server.stores.sqlite.changes import Changes
from treadle_server.stores.sqlite.pages import before, page_of
from treadle_server.stores.sqlite.readers import Readers, Row
from treadle_server.stores.sqlite.statements import Answer, Statement, Write

_COLUMNS = """agent, tenant, id, version, revision, body, create_time, update_time, delete_time, purge_time,
checksum"""
_INSERT = """
INSERT INTO agents (tenant, id, version, revision, body, create_time, update_time, checksum)
VALUES (?, ?, 1, 1, ?, ?, ?, ?) ON CONFLICT (tenant, id) DO NOTHING"""
_INSERT_FIRST_VERSION = """
INSERT INTO agent_versions (agent, version, body, create_time, checksum)
SELECT agent, 1, ?, ?, ? FROM agents WHERE tenant = ? AND id = ?"""
_INSERT_VERSION = """
INSERT INTO agent_versions (agent, version, body, create_time, checksum) VALUES (?, ?, ?, ?, ?)"""
_UPDATE = """
UPDATE agents SET version = ?, revision = revision + 1, body = ?, update_time = ?, checksum = ?
WHERE agent = ? AND revision = ? AND delete_time IS NULL"""
_MARK = """
UPDATE agents SET revision = revision + 1, update_time = ?, delete_time = ?, purge_time = ?
WHERE agent = ? AND revision = ? AND purged = 0"""
_SELECT = f"SELECT {_COLUMNS} FROM agents WHERE tenant = ? AND id = ? AND purged = 0"
_SELECT_BY_KEY = f"SELECT {_COLUMNS} FROM agents WHERE tenant = ? AND agent = ? AND purged = 0"
_LIST = f"""
SELECT {_COLUMNS} FROM agents
WHERE tenant = ? AND agent < ? AND purged = 0 AND (delete_time IS NULL OR ?) ORDER BY agent DESC LIMIT ?"""
_COUNT = "SELECT count(*) FROM agents WHERE tenant = ? AND purged = 0 AND (delete_time IS NULL OR ?)"
_SELECT_VERSION = """
SELECT version, body, create_time, checksum FROM agent_versions WHERE agent = ? AND version = ?"""
_LIST_VERSIONS = """
SELECT version, body, create_time, checksum FROM agent_versions
WHERE agent = ? AND version < ? ORDER BY version DESC LIMIT ?"""


class SqliteAgents:
    """Implements `ports.catalogue.Agents`."""

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
        checksum = checksums.of_row(agent_id, 1, body)
        version = (version_body, create_time, checksums.of_row(1, version_body), tenant, agent_id)
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
        assert answer is not None
        return _agent(answer)

    async def get(self, tenant: int, agent_id: str) -> AgentRow | None:
        row = await self._readers.row(_SELECT, (tenant, agent_id))
        return _agent(row) if row is not None else None

    async def get_by_key(self, tenant: int, key: int) -> AgentRow | None:
        row = await self._readers.row(_SELECT_BY_KEY, (tenant, key))
        return _agent(row) if row is not None else None

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
        values = (version, body, update_time, checksums.of_row(row.id, version, body))
        steps: list[Statement] = [Write(_UPDATE, (*values, row.key, row.revision), lambda: _differs(row))]
        if version_body is not None:
            checksum = checksums.of_row(version, version_body)
            steps.append(Write(_INSERT_VERSION, (row.key, version, version_body, update_time, checksum)))
        return await self._change(row, *steps, request=request)

    async def delete(
        self, row: AgentRow, *, delete_time: int, purge_time: int, request: RequestRow | None = None
    ) -> AgentRow:
        values = (delete_time, delete_time, purge_time, row.key, row.revision)
        return await self._change(row, Write(_MARK, values, lambda: _differs(row)), request=request)

    async def undelete(
        self, row: AgentRow, *, update_time: int, request: RequestRow | None = None
    ) -> AgentRow:
        values = (update_time, None, None, row.key, row.revision)
        return await self._change(row, Write(_MARK, values, lambda: _differs(row)), request=request)

    async def get_version(self, agent: int, version: int) -> AgentVersionRow | None:
        row = await self._readers.row(_SELECT_VERSION, (agent, version))
        return _version(row) if row is not None else None

    async def list_versions(
        self, agent: int, *, limit: int, after: Position | None = None
    ) -> Page[AgentVersionRow]:
        rows = await self._readers.rows(_LIST_VERSIONS, (agent, before(after), limit + 1))
        return page_of(rows, limit, _version)

    async def _change(self, row: AgentRow, *steps: Statement, request: RequestRow | None) -> AgentRow:
        reread = Answer(_SELECT_BY_KEY, (row.tenant, row.key))
        answer = await self._changes.apply(row.tenant, *steps, reread, request=request)
        assert answer is not None
        return _agent(answer)


def _differs(row: AgentRow) -> Refused:
    return revision_differs("Agent", f"agents/{row.id}")


def _agent(row: Row) -> AgentRow:
    *values, checksum = row
    agent = AgentRow(*values)
    checksums.verify(
        checksum, f"agent {agent.id}", agent.id, agent.version, agent.body, resource=f"agents/{agent.id}"
    )
    return agent


def _version(row: Row) -> AgentVersionRow:
    version, body, create_time, checksum = row
    checksums.verify(checksum, f"agent version {version}", version, body, version=str(version))
    return AgentVersionRow(version, body, create_time)
