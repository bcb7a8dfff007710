"""The API keys that identify callers."""

import json
from collections.abc import Sequence

from treadle_server.core.json_text import canonical_json
from treadle_server.ports.catalogue.keys import ApiKeyRow, NewApiKey
from treadle_server.ports.catalogue.pages import Page, Position
from treadle_server.ports.log import RequestRow
from treadle_server.stores.refusals import id_taken, revision_differs
from treadle_server.stores.sqlite import checksums
from treadle_server.stores.sqlite.changes import Changes
from treadle_server.stores.sqlite.pages import before, page_of
from treadle_server.stores.sqlite.readers import Readers, Row
from treadle_server.stores.sqlite.statements import Answer, Write

COLUMNS = """api_key, tenant, id, principal, admin, prefix, secret_hash, display_name, revision, create_time,
update_time, expire_time, delete_time, object_patterns, checksum"""
_INSERT_KEY = """
INSERT INTO api_keys
  (tenant, id, principal, admin, prefix, secret_hash, display_name, revision, create_time, update_time,
   expire_time, object_patterns, checksum)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (tenant, id) DO NOTHING"""
_UPDATE_KEY = """
UPDATE api_keys SET display_name = ?, revision = ?, update_time = ?, expire_time = ?, checksum = ?
WHERE api_key = ? AND revision = ? AND delete_time IS NULL"""
_SELECT_KEY = f"SELECT {COLUMNS} FROM api_keys WHERE tenant = ? AND id = ?"
_PREFIXES = "SELECT prefix FROM api_keys"
_FIND_KEY = f"SELECT {COLUMNS} FROM api_keys WHERE prefix = ?"
_LIST_KEYS = f"""
SELECT {COLUMNS} FROM api_keys
WHERE tenant = ? AND api_key < ? AND delete_time IS NULL ORDER BY api_key DESC LIMIT ?"""
_COUNT_KEYS = "SELECT count(*) FROM api_keys WHERE tenant = ? AND delete_time IS NULL"
_DELETE_KEY = """
UPDATE api_keys SET delete_time = ?1, checksum = row_checksum(tenant, id, principal, admin, prefix,
  secret_hash, display_name, revision, create_time, update_time, expire_time, ?1, object_patterns)
WHERE api_key = ?2 AND delete_time IS NULL"""


class SqliteApiKeys:
    """Implements `ports.catalogue.keys.ApiKeys`."""

    def __init__(self, changes: Changes, readers: Readers) -> None:
        self._changes = changes
        self._readers = readers

    async def create(self, new: NewApiKey, *, request: RequestRow | None = None) -> ApiKeyRow:
        values = (
            *(new.tenant, new.id, new.principal, int(new.admin), new.prefix, new.secret_hash),
            *(new.display_name, 1, new.create_time, new.create_time, new.expire_time),
        )
        patterns = canonical_json(new.object_patterns)
        checksum = checksums.of_row(*values, None, patterns)
        answer = await self._changes.apply(
            new.tenant,
            Write(
                _INSERT_KEY,
                (*values, patterns, checksum),
                lambda: id_taken("ApiKey", f"apiKeys/{new.id}"),
            ),
            Answer(_SELECT_KEY, (new.tenant, new.id)),
            request=request,
        )
        assert answer is not None
        return key_of(answer)

    async def prefixes(self) -> Sequence[str]:
        return [str(prefix) for (prefix,) in await self._readers.rows(_PREFIXES, ())]

    async def find_by_prefix(self, prefix: str) -> ApiKeyRow | None:
        return await self._living(_FIND_KEY, (prefix,))

    async def get(self, tenant: int, api_key_id: str) -> ApiKeyRow | None:
        return await self._living(_SELECT_KEY, (tenant, api_key_id))

    async def _living(self, sql: str, parameters: tuple[int | str, ...]) -> ApiKeyRow | None:
        """A deletion is believed only of a row that is as it was written."""
        row = await self._readers.row(sql, parameters)
        key = key_of(row) if row is not None else None
        return key if key is not None and key.delete_time is None else None

    async def list(self, tenant: int, *, limit: int, after: Position | None = None) -> Page[ApiKeyRow]:
        rows = await self._readers.rows(_LIST_KEYS, (tenant, before(after), limit + 1))
        return page_of(rows, limit, key_of)

    async def count(self, tenant: int) -> int:
        row = await self._readers.row(_COUNT_KEYS, (tenant,))
        return int(row[0]) if row is not None else 0

    async def update(
        self,
        row: ApiKeyRow,
        *,
        display_name: str,
        expire_time: int | None,
        update_time: int,
        request: RequestRow | None = None,
    ) -> ApiKeyRow:
        revision = row.revision + 1
        checksum = checksums.of_row(
            *(row.tenant, row.id, row.principal, int(row.admin), row.prefix, row.secret_hash),
            *(display_name, revision, row.create_time, update_time, expire_time, None),
            canonical_json(row.object_patterns),
        )
        changed = (display_name, revision, update_time, expire_time, checksum, row.key, row.revision)
        answer = await self._changes.apply(
            row.tenant,
            Write(_UPDATE_KEY, changed, lambda: revision_differs("ApiKey", f"apiKeys/{row.id}")),
            Answer(_SELECT_KEY, (row.tenant, row.id)),
            request=request,
        )
        assert answer is not None
        return key_of(answer)

    async def delete(self, row: ApiKeyRow, *, delete_time: int, request: RequestRow | None = None) -> None:
        await self._changes.apply(row.tenant, Write(_DELETE_KEY, (delete_time, row.key)), request=request)


def key_of(row: Row) -> ApiKeyRow:
    key, *values, checksum = row
    tenant, key_id, principal, admin, *others = values
    checksums.verify(checksum, f"key {key_id}", *values, resource=f"apiKeys/{key_id}")
    others[-1] = tuple(json.loads(others[-1]))
    return ApiKeyRow(key, tenant, key_id, principal, bool(admin), *others)
