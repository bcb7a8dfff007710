"""Stored agents as agents."""

from typing import Protocol

from treadle_server.core.agent import Agent, AgentDefinition, AgentVersion
from treadle_server.core.errors import not_found
from treadle_server.ports.catalogue.agents import AgentRow, AgentVersionRow
from treadle_server.ports.catalogue.agents import Agents as AgentStore


class AgentCodec(Protocol):
    """Agents as the bytes that are stored, and that are answered."""

    def encode(self, definition: AgentDefinition) -> bytes: ...

    def decode(self, body: bytes) -> AgentDefinition: ...

    def answer(self, agent: Agent) -> bytes:
        """The response that a repeated call gets again."""
        ...


class AgentReader:
    """Finds rows and says what they hold."""

    def __init__(self, store: AgentStore, codec: AgentCodec) -> None:
        self._store = store
        self._codec = codec

    async def row(self, tenant: int, agent_id: str, *, deleted: bool = False) -> AgentRow:
        """Raises Refused(RESOURCE_NOT_FOUND), for a deleted one too unless it is wanted."""
        row = await self._store.get(tenant, agent_id)
        if row is None or (row.delete_time is not None and not deleted):
            raise not_found("Agent", f"agents/{agent_id}")
        return row

    async def version_row(self, row: AgentRow, version: int) -> AgentVersionRow:
        """Raises Refused(RESOURCE_NOT_FOUND)."""
        found = await self._store.get_version(row.key, version)
        if found is None:
            raise not_found("AgentVersion", f"agents/{row.id}/versions/{version}")
        return found

    def definition(self, row: AgentRow | AgentVersionRow) -> AgentDefinition:
        return self._codec.decode(row.body)

    def agent(self, row: AgentRow) -> Agent:
        return Agent(
            name=f"agents/{row.id}",
            definition=self.definition(row),
            version=row.version,
            etag=etag_of(row),
            create_time_micros=row.create_time,
            update_time_micros=row.update_time,
            delete_time_micros=row.delete_time,
        )

    def version(self, row: AgentRow, version: AgentVersionRow) -> AgentVersion:
        name = f"agents/{row.id}/versions/{version.version}"
        return AgentVersion(name, version.version, self.definition(version), version.create_time)


def etag_of(row: AgentRow) -> str:
    return str(row.revision)
