"""What becomes of threads that are gone, as statements: hidden at once, then taken whole in small pieces."""

import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from treadle_server.stores.sqlite import checksums
from treadle_server.stores.sqlite.commits import LAST_POSITION
from treadle_server.stores.sqlite.thread_objects import DELETE_OBJECT
from treadle_server.stores.sqlite.threads import DELETE_LABELS, DELETE_TAGS

STEP_SECONDS = 0.005
"""A piece of work looks at the clock, and stops here: background units stay below 10 ms."""
NOTES_PER_PIECE = _ROWS = 32
"""Deleted between two looks."""

_REVISION = "SELECT revision FROM tenants WHERE tenant = ?"
_EXPIRE = f"""
UPDATE threads SET expired = 1, delete_time = ?1,
  identity_sum = identity_sum + {checksums.IDENTITY["delete_time"]} * (?1 + 1)
WHERE thread = ?2 AND tenant = ?3 AND state >= 6 AND end_time <= ?4 AND delete_time IS NULL"""
_HORIZON = "SELECT position, checksum FROM horizons WHERE tenant = ?"
_SET_HORIZON = """
INSERT INTO horizons (tenant, position, checksum) VALUES (?1, ?2, ?3)
ON CONFLICT (tenant) DO UPDATE SET position = ?2, checksum = ?3"""

_GONE = "SELECT id FROM threads WHERE thread = ? AND delete_time IS NOT NULL AND purged = 0"
_DELETE_EVENTS = f"""
DELETE FROM events WHERE tenant = ?1 AND thread = ?2 AND sequence IN (
  SELECT sequence FROM events WHERE tenant = ?1 AND thread = ?2 ORDER BY sequence LIMIT {_ROWS})"""
DELETE_NOTES = f"""
DELETE FROM notes WHERE tenant = ?1 AND key IN (
  SELECT key FROM notes WHERE tenant = ?1 AND scope = ?2 LIMIT {_ROWS}) AND scope = ?2"""
# The plus keeps SQLite from looking through all of the tenant's, which it takes for few.
DELETE_APPROVALS = f"""
DELETE FROM approvals WHERE approval IN (
  SELECT approval FROM approvals WHERE +tenant = ?1 AND thread = ?2 LIMIT {_ROWS})"""
_SPEC_OF = "SELECT spec_digest FROM thread_details WHERE thread = ?"
_DELETE_DETAILS = "DELETE FROM thread_details WHERE thread = ?"
# By digest alone: a spec that tenants share goes with the last thread of any of them.
_DELETE_SPEC = """
DELETE FROM specs
WHERE digest = ?1 AND NOT EXISTS (SELECT 1 FROM thread_details WHERE spec_digest = ?1)"""
_MARK = """
UPDATE threads SET purged = 1, subject_type = '', subject_id = NULL, checksum = ? WHERE thread = ?"""


@dataclass(slots=True)
class Due:
    """A thread that is kept no longer, and the position of its last commit."""

    thread: int
    position: int


@dataclass(slots=True)
class Expire:
    """Hides threads of a tenant and moves its horizon; answers with how many it hid.

    Nothing happens if the tenant has changed since its retention was read: an acknowledged change holds.
    """

    tenant: int
    revision: int
    threads: Sequence[Due]
    ended_by: int
    now: int
    refuses: ClassVar[bool] = False
    writes: ClassVar[bool] = True

    def apply(self, cursor: sqlite3.Cursor) -> tuple[Any, ...]:
        row = cursor.execute(_REVISION, (self.tenant,)).fetchone()
        if row is None or row[0] != self.revision:
            return (0,)
        hidden, position, deadline = 0, 0, time.monotonic() + STEP_SECONDS
        for due in self.threads:
            cursor.execute(_EXPIRE, (self.now, due.thread, self.tenant, self.ended_by))
            if cursor.rowcount:
                cursor.execute(DELETE_TAGS, (due.thread,))
                cursor.execute(DELETE_LABELS, (due.thread,))
                hidden, position = hidden + 1, max(position, due.position)
            if time.monotonic() >= deadline:
                break
        if hidden:
            self._move_horizon(cursor, position)
        return (hidden,)

    def _move_horizon(self, cursor: sqlite3.Cursor, position: int) -> None:
        """Never back; a damaged one goes as far as it can have been."""
        row = cursor.execute(_HORIZON, (self.tenant,)).fetchone()
        if row is not None and checksums.of_row(self.tenant, row[0]) == row[1]:
            position = max(position, row[0])
        elif row is not None:
            (position,) = cursor.execute(LAST_POSITION).fetchone()
        cursor.execute(_SET_HORIZON, (self.tenant, position, checksums.of_row(self.tenant, position)))


@dataclass(slots=True)
class Purge:
    """Deletes all that was made of hidden threads but their rows; answers with how many are done."""

    threads: Sequence[tuple[int, int]]
    """Tenant and thread."""
    refuses: ClassVar[bool] = False
    writes: ClassVar[bool] = True

    def apply(self, cursor: sqlite3.Cursor) -> tuple[Any, ...]:
        deadline = time.monotonic() + STEP_SECONDS
        for count, (tenant, thread) in enumerate(self.threads):
            if not _purge(cursor, tenant, thread, deadline):
                return (count,)
        return (len(self.threads),)


def _purge(cursor: sqlite3.Cursor, tenant: int, thread: int, deadline: float) -> bool:
    """False when the time is over before it is whole. A thread that is not hidden is left alone."""
    row = cursor.execute(_GONE, (thread,)).fetchone()
    if row is None:
        return True
    of_it = ((_DELETE_EVENTS, thread), (DELETE_APPROVALS, thread), (DELETE_NOTES, f"threads/{thread}"))
    for sql, owner in of_it:
        while True:
            if time.monotonic() >= deadline:
                return False
            cursor.execute(sql, (tenant, owner))
            if cursor.rowcount < _ROWS:
                break
    digest = cursor.execute(_SPEC_OF, (thread,)).fetchone()
    cursor.execute(_DELETE_DETAILS, (thread,))
    cursor.execute(DELETE_OBJECT, (thread,))
    if digest is not None:
        cursor.execute(_DELETE_SPEC, digest)
    cursor.execute(_MARK, (checksums.of_row(thread, row[0], "", None), thread))
    return True
