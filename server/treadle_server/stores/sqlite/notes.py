"""Notes that agents keep."""

from treadle_server.core.errors import Reason, Refused
from treadle_server.stores.sqlite import checksums
from treadle_server.stores.sqlite.changes import Changes
from treadle_server.stores.sqlite.readers import Readers
from treadle_server.stores.sqlite.statements import Require, Write

KEYS_MAX = 1000
KEY_BYTES_MAX = 512
TEXT_BYTES_MAX = 16 * 1024

_REQUIRE_ROOM = f"""
SELECT 1 WHERE EXISTS (SELECT 1 FROM notes WHERE tenant = ?1 AND scope = ?2 AND key = ?3)
OR (SELECT count(*) FROM notes WHERE tenant = ?1 AND scope = ?2) < {KEYS_MAX}"""
_PUT = """
INSERT INTO notes (tenant, scope, key, text, checksum) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (tenant, scope, key) DO UPDATE SET text = excluded.text, checksum = excluded.checksum"""
_GET = "SELECT text, checksum FROM notes WHERE tenant = ? AND scope = ? AND key = ?"
_KEYS = "SELECT key FROM notes WHERE tenant = ? AND scope = ? ORDER BY key"


class SqliteNotes:
    """Implements `ports.tools.Notes`."""

    def __init__(self, changes: Changes, readers: Readers) -> None:
        self._changes = changes
        self._readers = readers

    async def put(self, tenant: int, scope: str, key: str, text: str) -> None:
        _require_size("key", key, KEY_BYTES_MAX)
        _require_size("text", text, TEXT_BYTES_MAX)
        await self._changes.apply(
            tenant,
            Require(_REQUIRE_ROOM, (tenant, scope, key), _no_room),
            Write(_PUT, (tenant, scope, key, text, checksums.of_row(tenant, scope, key, text))),
        )

    async def get(self, tenant: int, scope: str, key: str) -> str | None:
        row = await self._readers.row(_GET, (tenant, scope, key))
        if row is None:
            return None
        text, checksum = row
        checksums.verify(checksum, f"note {key!r}", tenant, scope, key, text)
        return str(text)

    async def keys(self, tenant: int, scope: str) -> list[str]:
        return [row[0] for row in await self._readers.rows(_KEYS, (tenant, scope))]


def _no_room() -> Refused:
    return Refused(Reason.REQUEST_TOO_LARGE, f"there are {KEYS_MAX} notes already")


def _require_size(field: str, text: str, bytes_max: int) -> None:
    if len(text.encode()) > bytes_max:
        raise Refused(
            Reason.REQUEST_TOO_LARGE,
            f"the {field} of a note is larger than {bytes_max} bytes",
            metadata={"field": field, "max_bytes": str(bytes_max)},
        )
