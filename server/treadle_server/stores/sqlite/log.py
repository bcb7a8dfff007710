"""The log of every thread, in SQLite."""

from collections.abc import Callable, Sequence
from typing import Any

from treadle_server.core.errors import Reason, Refused
from treadle_server.ports.clock import Clock
from treadle_server.ports.log import Expired, OnCommitted, Record, StoredRecord, ThreadKey, Unit
from treadle_server.stores.refusals import events_corrupt
from treadle_server.stores.sqlite import checksums
from treadle_server.stores.sqlite.append import Append
from treadle_server.stores.sqlite.committer import Committer
from treadle_server.stores.sqlite.damage import Damages
from treadle_server.stores.sqlite.database import Database
from treadle_server.stores.sqlite.inbox import Work, WorkTicket
from treadle_server.stores.sqlite.readers import Readers, Row

# The thread's row tells how many records there must be, so that a lost one is not taken for the end.
_READ = """
SELECT t.sequence, t.delete_time, t.expired, e.sequence, e.kind, e.body, e.private, e.checksum
FROM threads t
LEFT JOIN events e ON e.tenant = t.tenant AND e.thread = t.thread AND e.sequence > ?
WHERE t.thread = ? AND t.tenant = ?
ORDER BY e.sequence LIMIT ?"""
_LAST_SEQUENCE = "SELECT sequence FROM threads WHERE thread = ? AND tenant = ?"


class SqliteLog:
    """Implements `ports.log.Log`."""

    def __init__(
        self,
        database: Database,
        committer: Committer,
        readers: Readers,
        clock: Clock,
        damages: Damages,
    ) -> None:
        self._epoch = database.epoch
        self._next_thread = database.next_thread
        self._committer = committer
        self._readers = readers
        self._clock = clock
        self._damages = damages

    def check_writable(self) -> None:
        self._committer.check_writable()

    @property
    def blocked_by(self) -> Reason | None:
        return self._committer.blocked_by

    def allocate_thread(self) -> int:
        """A key for a new thread, which none has or ever had."""
        thread = self._next_thread
        self._next_thread += 1
        return thread

    def submit(self, unit: Unit) -> WorkTicket:
        return self._committer.submit(Append(unit, epoch=self._epoch, now=self._clock.now()), handle=unit)

    def extend(self, unit: Unit, grow: Callable[[Unit], Any]) -> bool:
        return self._committer.extend(unit, lambda: grow(unit))

    def subscribe(self, on_committed: OnCommitted) -> None:
        def on_applied(applied: Sequence[Work]) -> None:
            units = [work.unit for work in applied if isinstance(work, Append)]
            if units:
                on_committed(units)

        self._committer.subscribe(on_applied)

    async def read(self, key: ThreadKey, after: int, limit: int) -> list[StoredRecord]:
        try:
            return await self._read(key, after, limit)
        except Refused as damage:
            if damage.reason is Reason.RECORD_CORRUPT:
                await self._damages.thread(key, f"event {damage.metadata['sequence']}")
            raise

    async def _read(self, key: ThreadKey, after: int, limit: int) -> list[StoredRecord]:
        try:
            rows = await self._readers.rows(_READ, (after, key.thread, key.tenant, limit))
        except Refused as damage:
            if damage.reason is Reason.RECORD_CORRUPT:
                raise events_corrupt(key, after + 1) from damage
            raise
        if not rows:  # never made
            return []
        last, delete_time, expired = rows[0][:3]
        if expired:
            raise Expired(last, delete_time)
        if delete_time is not None:
            return []
        records = [
            _record(key, after + place, row) for place, row in enumerate(rows, 1) if row[3] is not None
        ]
        if len(records) < limit and after + len(records) < last:
            raise events_corrupt(key, after + len(records) + 1)
        return records

    async def last_sequence(self, key: ThreadKey) -> int:
        row = await self._readers.row(_LAST_SEQUENCE, (key.thread, key.tenant))
        return row[0] if row is not None else 0


def _record(key: ThreadKey, sequence: int, row: Row) -> StoredRecord:
    """Raises Refused(RECORD_CORRUPT) unless the row is this record as it was written."""
    found, kind, body, private, checksum = row[3:]
    record = Record(kind, body, private)
    if found != sequence or checksums.of_record(sequence, record) != checksum:
        raise events_corrupt(key, sequence)
    return StoredRecord(sequence, record)
