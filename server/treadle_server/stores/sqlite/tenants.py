"""Tenants."""

from treadle_server.ports.catalogue.pages import Page, Position
from treadle_server.ports.catalogue.tenants import TenantRow
from treadle_server.ports.log import RequestRow
from treadle_server.stores.refusals import id_taken, revision_differs
from treadle_server.stores.sqlite import checksums
from treadle_server.stores.sqlite.changes import Changes
from treadle_server.stores.sqlite.pages import before, page_of
from treadle_server.stores.sqlite.readers import Readers, Row
from treadle_server.stores.sqlite.statements import Answer, Write

COLUMNS = "tenant, id, display_name, thread_retention, revision, create_time, update_time, checksum"
_INSERT = """
INSERT INTO tenants (id, display_name, thread_retention, revision, create_time, update_time, checksum)
VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING"""
_UPDATE = """
UPDATE tenants SET display_name = ?, thread_retention = ?, revision = ?, update_time = ?, checksum = ?
WHERE tenant = ? AND revision = ?"""
_SELECT = f"SELECT {COLUMNS} FROM tenants WHERE id = ?"
_SELECT_BY_KEY = f"SELECT {COLUMNS} FROM tenants WHERE tenant = ?"
_LIST = f"SELECT {COLUMNS} FROM tenants WHERE tenant < ? ORDER BY tenant DESC LIMIT ?"
_COUNT = "SELECT count(*) FROM tenants"


class SqliteTenants:
    """Implements `ports.catalogue.tenants.Tenants`."""

    def __init__(self, changes: Changes, readers: Readers) -> None:
        self._changes = changes
        self._readers = readers

    async def get_or_create(self, tenant_id: str, *, create_time: int) -> TenantRow:
        found = await self.find(tenant_id)
        if found is not None:
            return found
        values = (tenant_id, "", None, 1, create_time, create_time)
        answer = await self._changes.apply(
            0, Write(_INSERT, (*values, checksums.of_row(*values))), Answer(_SELECT, (tenant_id,))
        )
        assert answer is not None
        return tenant_of(answer)

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
        values = (tenant_id, display_name, thread_retention, 1, create_time, create_time)
        answer = await self._changes.apply(
            caller,
            Write(
                _INSERT,
                (*values, checksums.of_row(*values)),
                lambda: id_taken("Tenant", f"tenants/{tenant_id}"),
            ),
            Answer(_SELECT, (tenant_id,)),
            request=request,
        )
        assert answer is not None
        return tenant_of(answer)

    async def update(
        self,
        row: TenantRow,
        *,
        display_name: str,
        thread_retention: int | None,
        update_time: int,
        caller: int,
        request: RequestRow | None = None,
    ) -> TenantRow:
        revision = row.revision + 1
        checksum = checksums.of_row(
            *(row.id, display_name, thread_retention, revision, row.create_time, update_time)
        )
        changed = (display_name, thread_retention, revision, update_time, checksum, row.key, row.revision)
        answer = await self._changes.apply(
            caller,
            Write(_UPDATE, changed, lambda: revision_differs("Tenant", f"tenants/{row.id}")),
            Answer(_SELECT_BY_KEY, (row.key,)),
            request=request,
        )
        assert answer is not None
        return tenant_of(answer)

    async def list(self, *, limit: int, after: Position | None = None) -> Page[TenantRow]:
        rows = await self._readers.rows(_LIST, (before(after), limit + 1))
        return page_of(rows, limit, tenant_of)

    async def count(self) -> int:
        row = await self._readers.row(_COUNT)
        return int(row[0]) if row is not None else 0

    async def find(self, tenant_id: str) -> TenantRow | None:
        row = await self._readers.row(_SELECT, (tenant_id,))
        return tenant_of(row) if row is not None else None

    async def get_by_key(self, key: int) -> TenantRow | None:
        row = await self._readers.row(_SELECT_BY_KEY, (key,))
        return tenant_of(row) if row is not None else None


def tenant_of(row: Row) -> TenantRow:
    """Raises Refused(RECORD_CORRUPT) unless it is as it was written."""
    key, *values, checksum = row
    name = f"tenants/{values[0]}"
    checksums.verify(checksum, name, *values, resource=name)
    return TenantRow(key, *values)
