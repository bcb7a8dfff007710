"""Approvals: rows that follow the events of their threads, in the same transaction."""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from treadle_server.core.errors import Refused
from treadle_server.core.kinds import ApprovalState
from treadle_server.ports.catalogue.approvals import ApprovalQuery, ApprovalRow
from treadle_server.ports.catalogue.pages import Page
from treadle_server.ports.log import ApprovalChange, ThreadKey
from treadle_server.stores.sqlite import checksums
from treadle_server.stores.sqlite.pages import before, page_of
from treadle_server.stores.sqlite.readers import Readers, Row
from treadle_server.stores.sqlite.statements import Statement, Write
from treadle_server.stores.sqlite.thread_objects import reached

COLUMNS = "approval, tenant, thread, id, kind, state, create_time, body, checksum"
_INSERT = """
INSERT INTO approvals (tenant, thread, id, kind, state, create_time, body, checksum)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (thread, id) DO UPDATE SET (kind, state, create_time, body, checksum) =
  (excluded.kind, excluded.state, excluded.create_time, excluded.body, excluded.checksum)"""
_SELECT = f"SELECT {COLUMNS} FROM approvals WHERE thread = ? AND id = ?"
_OPEN = f"SELECT {COLUMNS} FROM approvals WHERE thread = ? AND state = {ApprovalState.PENDING:d}"
_WAITING = frozenset({int(ApprovalState.PENDING)})
_UPDATE = "UPDATE approvals SET state = ?, body = ?, checksum = ? WHERE approval = ?"
_JOINED = ", ".join(f"a.{name}" for name in COLUMNS.split(", "))
_ROWS = f"SELECT {_JOINED}, t.id FROM approvals a JOIN threads t ON t.thread = a.thread"
_INBOX = f"""
SELECT {_JOINED}, t.id FROM approvals a INDEXED BY approvals_pending JOIN threads t ON t.thread = a.thread
WHERE a.state = {ApprovalState.PENDING:d}"""
"""Goes on with AND."""
OF_THREAD = f"{_ROWS} WHERE a.thread = ?"
"""`approval_of` reads what it selects."""
_GET = f"{_ROWS} WHERE t.tenant = ? AND t.id = ? AND a.id = ? AND t.delete_time IS NULL"


@dataclass(slots=True)
class Amend:
    """Merges a change into a row. What is damaged is left so: a new checksum would hide it."""

    thread: int
    change: ApprovalChange
    refuses: ClassVar[bool] = False
    writes: ClassVar[bool] = True

    def apply(self, cursor: sqlite3.Cursor) -> None:
        row = cursor.execute(_SELECT, (self.thread, self.change.approval_id)).fetchone()
        if row is not None and is_intact(row):
            _amend(cursor, row, self.change.state, self.change.body)


@dataclass(slots=True)
class CancelOpen:
    """Settles what still waits in a thread that ends without an event that says so."""

    thread: int
    refuses: ClassVar[bool] = False
    writes: ClassVar[bool] = True

    def apply(self, cursor: sqlite3.Cursor) -> None:
        for row in cursor.execute(_OPEN, (self.thread,)).fetchall():
            if is_intact(row):
                _amend(cursor, row, ApprovalState.CANCELLED, b"")


def _amend(cursor: sqlite3.Cursor, row: Row, state: int, more: bytes) -> None:
    key, tenant, thread, approval_id, kind, before_it, create_time, body, _ = row
    values = (kind, int(state or before_it), create_time, bytes(body) + more)
    checksum = checksums.of_row(tenant, thread, approval_id, *values)
    cursor.execute(_UPDATE, (values[1], values[3], checksum, key))


def follow(key: ThreadKey, changes: Sequence[ApprovalChange]) -> list[Statement]:
    """What a unit writes of the approvals that its events are about."""
    return [_insert(key, change) if change.kind else Amend(key.thread, change) for change in changes]


def _insert(key: ThreadKey, change: ApprovalChange) -> Write:
    values = (
        *(key.tenant, key.thread, change.approval_id),
        *(int(change.kind), int(change.state), change.create_time, change.body),
    )
    return Write(_INSERT, (*values, checksums.of_row(*values)))


def is_intact(row: Row) -> bool:
    """Whether the columns are as they were written."""
    try:
        verify(row)
    except Refused:
        return False
    return True


def verify(row: Row) -> None:
    """Raises Refused(RECORD_CORRUPT) unless the columns are as they were written."""
    _, *values, checksum = row
    checksums.verify(checksum, f"approval {values[2]}", *values)


class SqliteApprovals:
    """Implements `ports.catalogue.approvals.Approvals`."""

    def __init__(self, readers: Readers) -> None:
        self._readers = readers

    async def get(self, tenant: int, thread_id: str, approval_id: str) -> ApprovalRow | None:
        row = await self._readers.row(_GET, (tenant, thread_id, approval_id))
        return approval_of(row) if row is not None else None

    async def list(self, query: ApprovalQuery) -> Page[ApprovalRow]:
        sql, values = query_of(query)
        rows = await self._readers.rows(sql, values)
        return page_of(rows, query.limit, approval_of)


def query_of(query: ApprovalQuery) -> tuple[str, tuple[int | str, ...]]:
    """A page and one row more. A plus keeps SQLite from an index that would be the wrong one."""
    terms = ["a.tenant = ?", "a.approval < ?", "t.delete_time IS NULL"]
    values: list[int | str] = [query.tenant, before(query.after)]
    if query.thread:  # it has few of all that the tenant has
        terms = ["+a.tenant = ?", "+a.approval < ?", "t.delete_time IS NULL", "a.thread = ?"]
        values.append(query.thread)
    for name, wanted in (("state", query.states), ("kind", query.kinds)):
        if wanted is not None:
            terms.append(f"a.{name} IN ({', '.join(f'{value:d}' for value in sorted(wanted))})")
    if query.object_patterns:
        term, wanted_objects = reached(query.tenant, query.object_patterns)
        terms.append(term)
        values += wanted_objects
    begin = f"{_INBOX} AND" if query.states == _WAITING and not query.thread else f"{_ROWS} WHERE"
    sql = f"{begin} {' AND '.join(terms)} ORDER BY a.approval DESC LIMIT ?"
    return sql, (*values, query.limit + 1)


def approval_of(row: Row) -> ApprovalRow:
    *columns, thread_id = row
    key, tenant, thread, approval_id, kind, state, create_time, body, _ = columns
    damaged = not is_intact(tuple(columns))
    place = ThreadKey(tenant, thread)
    return ApprovalRow(key, place, thread_id, approval_id, kind, state, create_time, bytes(body), damaged)
