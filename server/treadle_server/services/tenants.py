"""Tenants: made, read and changed, by admins."""

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from treadle_server.core.errors import not_found
from treadle_server.core.tenant import Tenant
from treadle_server.ports.catalogue.pages import Page, Position
from treadle_server.ports.catalogue.tenants import TenantRow
from treadle_server.ports.catalogue.tenants import Tenants as TenantStore
from treadle_server.ports.clock import Clock
from treadle_server.services.etags import change, check_etag
from treadle_server.services.ids import new_id
from treadle_server.services.requests import Asked, Replays


class TenantCodec(Protocol):
    """Tenants as the bytes that are answered."""

    def answer(self, tenant: Tenant) -> bytes:
        """The response that a repeated call gets again."""
        ...


Change = Callable[[Tenant], Tenant]
"""Makes the wanted tenant from the present one."""


class Tenants:
    """The use cases of tenants. `caller` is the key of the tenant that a call is made for."""

    def __init__(
        self,
        store: TenantStore,
        codec: TenantCodec,
        replays: Replays,
        clock: Clock,
        retention_changed: Callable[[], None],
    ) -> None:
        self._store = store
        self._codec = codec
        self._replays = replays
        self._clock = clock
        self._retention_changed = retention_changed

    async def create(
        self,
        caller: int,
        asked: Asked,
        *,
        tenant_id: str = "",
        display_name: str = "",
        thread_retention_micros: int | None = None,
    ) -> Tenant:
        """Raises Refused(RESOURCE_EXISTS) for an id that is taken."""

        async def act() -> Tenant:
            now, chosen = self._clock.now(), tenant_id or new_id()
            tenant = Tenant(f"tenants/{chosen}", display_name, thread_retention_micros, now, now, "1")
            await self._store.create(
                chosen,
                display_name=display_name,
                thread_retention=thread_retention_micros,
                create_time=now,
                caller=caller,
                request=asked.row(resource=tenant.name, response=self._codec.answer(tenant), now=now),
            )
            return tenant

        return await self._replays.once(caller, asked, act)

    async def get(self, tenant_id: str) -> Tenant:
        return _shown(await self._row(tenant_id))

    async def list(self, *, limit: int, after: Position | None) -> tuple[Page[Tenant], int]:
        """A page, newest first, and how many there are."""
        page = await self._store.list(limit=limit, after=after)
        return Page(tuple(_shown(row) for row in page.items), page.next), await self._store.count()

    async def update(
        self, caller: int, asked: Asked, tenant_id: str, wanted: Change, *, etag: str = ""
    ) -> Tenant:
        """What it says of retention holds from its acknowledgement on, for threads that have ended too."""

        async def act() -> Tenant:
            row = await self._row(tenant_id)
            tenant = _shown(row)
            check_etag(etag, tenant.etag, tenant.name)
            now = max(self._clock.now(), row.update_time)
            changed = replace(wanted(tenant), update_time_micros=now, etag=str(row.revision + 1))
            await self._store.update(
                row,
                display_name=changed.display_name,
                thread_retention=changed.thread_retention_micros,
                update_time=now,
                caller=caller,
                request=asked.row(resource=tenant.name, response=self._codec.answer(changed), now=now),
            )
            self._retention_changed()
            return changed

        return await self._replays.once(caller, asked, lambda: change(act))

    async def _row(self, tenant_id: str) -> TenantRow:
        row = await self._store.find(tenant_id)
        if row is None:
            raise not_found("Tenant", f"tenants/{tenant_id}")
        return row


def _shown(row: TenantRow) -> Tenant:
    return Tenant(
        name=f"tenants/{row.id}",
        display_name=row.display_name,
        thread_retention_micros=row.thread_retention,
        create_time_micros=row.create_time,
        update_time_micros=row.update_time,
        etag=str(row.revision),
    )
