"""Port: tenants."""

from dataclasses import dataclass
from typing import Protocol

from treadle_server.ports.catalogue.pages import Page, Position
from treadle_server.ports.log import RequestRow


@dataclass(frozen=True, slots=True)
class TenantRow:
    """A tenant."""

    key: int
    id: str
    display_name: str
    thread_retention: int | None
    """Micros that threads are kept after their end; None = as long as the server says."""
    revision: int
    """Counts every change, from 1."""
    create_time: int
    update_time: int


class Tenants(Protocol):
    """Tenants by their ids. None is ever deleted.

    A request id counts among those of `caller`, the key of the tenant that the call was made for.
    """

    async def get_or_create(self, tenant_id: str, *, create_time: int) -> TenantRow: ...

    async def create(
        self,
        tenant_id: str,
        *,
        display_name: str,
        thread_retention: int | None,
        create_time: int,
        caller: int,
        request: RequestRow | None = None,
    ) -> TenantRow:
        """Raises Refused(RESOURCE_EXISTS) for an id that is taken."""
        ...

    async def update(
        self,
        row: TenantRow,
        *,
        display_name: str,
        thread_retention: int | None,
        update_time: int,
        caller: int,
        request: RequestRow | None = None,
    ) -> TenantRow: ...

    async def list(self, *, limit: int, after: Position | None = None) -> Page[TenantRow]:
        """Newest first."""
        ...

    async def count(self) -> int:
        """How many `list` gives in all."""
        ...

    async def find(self, tenant_id: str) -> TenantRow | None: ...

    async def get_by_key(self, key: int) -> TenantRow | None: ...
