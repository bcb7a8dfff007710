"""What a unit is made of: SQL as data, run in order by the committer, and what each one refuses."""

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from treadle_server.core.errors import Refused
from treadle_server.ports.log import Conflict, Replayed, RequestRow
from treadle_server.stores.refusals import replay
from treadle_server.stores.sqlite import checksums

REFUSALS = (Conflict, Replayed, Refused)
"""What costs a unit only itself. Anything else raised by a statement is a fault."""

Refusal = Callable[[], Exception]
"""Makes one of REFUSALS, when it is needed."""


class Statement(Protocol):
    """One step of a unit."""

    @property
    def refuses(self) -> bool: ...

    @property
    def writes(self) -> bool: ...

    def apply(self, cursor: sqlite3.Cursor) -> tuple[Any, ...] | None:
        """Runs inside the unit's transaction. Raises one of REFUSALS. A row is the unit's answer."""
        ...


@dataclass(slots=True)
class Require:
    """Refuses unless the query has a row."""

    sql: str
    parameters: Sequence[Any]
    refusal: Refusal
    refuses: ClassVar[bool] = True
    writes: ClassVar[bool] = False

    def apply(self, cursor: sqlite3.Cursor) -> None:
        if cursor.execute(self.sql, self.parameters).fetchone() is None:
            raise self.refusal()


@dataclass(slots=True)
class Write:
    """Changes rows; with a refusal, exactly one row."""

    sql: str
    parameters: Sequence[Any]
    refusal: Refusal | None = None
    writes: ClassVar[bool] = True

    @property
    def refuses(self) -> bool:
        return self.refusal is not None

    def apply(self, cursor: sqlite3.Cursor) -> None:
        cursor.execute(self.sql, self.parameters)
        if self.refusal is not None and cursor.rowcount != 1:
            assert cursor.rowcount == 0, "a guard is about one row"
            raise self.refusal()


@dataclass(slots=True)
class WriteMany:
    """Runs one statement for every row of parameters."""

    sql: str
    rows: Sequence[Sequence[Any]]
    refuses: ClassVar[bool] = False
    writes: ClassVar[bool] = True

    def apply(self, cursor: sqlite3.Cursor) -> None:
        cursor.executemany(self.sql, self.rows)


@dataclass(slots=True)
class Answer:
    """Its first row is what the unit answers with; it may also write."""

    sql: str
    parameters: Sequence[Any] = ()
    refuses: ClassVar[bool] = False
    writes: ClassVar[bool] = True

    def apply(self, cursor: sqlite3.Cursor) -> tuple[Any, ...] | None:
        rows = cursor.execute(self.sql, self.parameters).fetchall()  # to its end, or it would stay open
        return rows[0] if rows else None


FIND_REQUEST = """
SELECT principal, method, digest, resource, from_sequence, response, expire_time, checksum
FROM request_ids WHERE tenant = ? AND request_id = ?"""
_REMEMBER_REQUEST = """
INSERT OR REPLACE INTO request_ids
  (tenant, request_id, principal, method, digest, resource, from_sequence, response, expire_time, checksum)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""


def request_of(tenant: int, request_id: str, row: Sequence[Any], now: int) -> RequestRow | None:
    """None for an expired one. Raises Refused(RECORD_CORRUPT): the call may have been made."""
    *values, checksum = row
    checksums.verify(checksum, f"request_id {request_id}", tenant, request_id, *values, request_id=request_id)
    found = RequestRow(request_id, *values)
    return found if found.expire_time > now else None


@dataclass(slots=True)
class RefuseReplay:
    """Stands first in a unit: raises Replayed, or Refused, if the request id was used and has not expired."""

    tenant: int
    request: RequestRow
    now: int
    refuses: ClassVar[bool] = True
    writes: ClassVar[bool] = False

    def apply(self, cursor: sqlite3.Cursor) -> None:
        request_id = self.request.request_id
        row = cursor.execute(FIND_REQUEST, (self.tenant, request_id)).fetchone()
        found = request_of(self.tenant, request_id, row, self.now) if row is not None else None
        if found is not None:
            replay(found, self.request)


def remember(tenant: int, request: RequestRow) -> Write:
    """Stores the request id in the unit that does what was requested."""
    values = (
        tenant,
        request.request_id,
        request.principal,
        request.method,
        request.digest,
        request.resource,
        request.from_sequence,
        request.response,
        request.expire_time,
    )
    return Write(_REMEMBER_REQUEST, (*values, checksums.of_row(*values)))


def needs_savepoint(statements: Sequence[Statement]) -> bool:
    """A refusal after a write must take the write back; one before any write has nothing to take back."""
    written = False
    for statement in statements:
        if written and statement.refuses:
            return True
        written = written or statement.writes
    return False
