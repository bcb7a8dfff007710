"""Mail between threads."""

from collections.abc import Sequence

from treadle_server.core.errors import Refused
from treadle_server.ports.log import Conflict, Posted, ThreadKey
from treadle_server.ports.mail import Letter
from treadle_server.stores.refusals import record_corrupt
from treadle_server.stores.sqlite import checksums
from treadle_server.stores.sqlite.changes import Changes
from treadle_server.stores.sqlite.readers import Readers, Row
from treadle_server.stores.sqlite.statements import Write

_WEIGHT = 3
"""Of the receiver's key, which only the statement knows: odd, so that a flipped bit of it shows."""
_POST = f"""
INSERT INTO mail (tenant, to_thread, body, checksum)
SELECT tenant, thread, ?3, ?4 + {_WEIGHT} * thread FROM threads
WHERE tenant = ?1 AND id = ?2 AND state < 6 AND delete_time IS NULL"""
LOOK = f"""
INSERT INTO mail (tenant, to_thread, body, checksum)
SELECT p.tenant, p.thread, x'', ?2 + {_WEIGHT} * p.thread
FROM lineage l JOIN threads p ON p.thread = l.parent
WHERE l.thread = ?1 AND p.state < 6 AND p.delete_time IS NULL"""
_TAKE = "DELETE FROM mail WHERE position = ? AND to_thread = ?"
_DROP = "DELETE FROM mail WHERE position = ?"
_WAITING = """
SELECT position, tenant, to_thread, body, checksum FROM mail WHERE position > ? ORDER BY position LIMIT ?"""
ALL = "SELECT position, tenant, to_thread, body, checksum FROM mail"


def post(tenant: int, posted: Posted) -> Write:
    """Writes a letter if there is somebody to read it."""
    values = (tenant, posted.thread_id, posted.body, checksums.of_row(tenant, posted.body))
    return Write(_POST, values)


def look(tenant: int, child: int) -> Write:
    """Tells the parent of a thread that ended without words to look at its children."""
    return Write(LOOK, (child, checksums.of_row(tenant, b"")))


def take(key: ThreadKey, position: int) -> Write:
    """Of a unit that records what follows from a letter."""
    return Write(_TAKE, (position, key.thread), Conflict)


def verify(row: Row) -> None:
    """Raises Refused(RECORD_CORRUPT) unless it is as it was written."""
    position, tenant, thread, body, checksum = row
    if checksums.of_row(tenant, body) + _WEIGHT * thread != checksum:
        raise record_corrupt(f"position {position}")


class SqliteMailbox:
    """Implements `ports.mail.Mailbox`."""

    def __init__(self, changes: Changes, readers: Readers) -> None:
        self._changes = changes
        self._readers = readers

    async def waiting(self, *, after: int, limit: int) -> Sequence[Letter]:
        return [_letter(row) for row in await self._readers.rows(_WAITING, (after, limit))]

    async def drop(self, letter: Letter) -> None:
        await self._changes.apply(letter.key.tenant, Write(_DROP, (letter.position,)))


def _letter(row: Row) -> Letter:
    position, tenant, thread, body, _ = row
    try:
        verify(row)
    except Refused:
        return Letter(position, ThreadKey(tenant, thread), None)
    return Letter(position, ThreadKey(tenant, thread), body)
