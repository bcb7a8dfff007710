"""Port: agents and their versions."""

from dataclasses import dataclass
from typing import Protocol

from treadle_server.ports.catalogue.pages import Page, Position
from treadle_server.ports.log import RequestRow


@dataclass(frozen=True, slots=True)
class AgentRow:
    """An agent as it is now."""

    key: int
    tenant: int
    id: str
    version: int
    """The newest of its versions."""
    revision: int
    """Counts every change, from 1."""
    body: bytes
    create_time: int
    update_time: int
    delete_time: int | None
    purge_time: int | None


@dataclass(frozen=True, slots=True)
class AgentVersionRow:
    """An agent as it was when this version was made. Never changes."""

    version: int
    body: bytes
    create_time: int


class Agents(Protocol):
    """Agents and their versions. A deleted one can be brought back until it is purged; its id stays taken."""

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
        """Makes version 1 too. Raises Refused(RESOURCE_EXISTS) for an id that is or was taken."""
        ...

    async def get(self, tenant: int, agent_id: str) -> AgentRow | None:
        """A deleted one too; None once it is purged."""
        ...

    async def get_by_key(self, tenant: int, key: int) -> AgentRow | None: ...

    async def list(
        self, tenant: int, *, limit: int, after: Position | None = None, show_deleted: bool = False
    ) -> Page[AgentRow]:
        """Newest first."""
        ...

    async def count(self, tenant: int, *, show_deleted: bool = False) -> int:
        """How many `list` gives in all."""
        ...

    async def update(
        self,
        row: AgentRow,
        *,
        body: bytes,
        version_body: bytes | None,
        update_time: int,
        request: RequestRow | None = None,
    ) -> AgentRow:
        """Replaces the body; with a version body it makes version `row.version + 1` too."""
        ...

    async def delete(
        self, row: AgentRow, *, delete_time: int, purge_time: int, request: RequestRow | None = None
    ) -> AgentRow: ...

    async def undelete(
        self, row: AgentRow, *, update_time: int, request: RequestRow | None = None
    ) -> AgentRow: ...

    async def get_version(self, agent: int, version: int) -> AgentVersionRow | None: ...

    async def list_versions(
        self, agent: int, *, limit: int, after: Position | None = None
    ) -> Page[AgentVersionRow]:
        """Newest first."""
        ...
