"""A new thread comes into its session: refused in its own unit when the session is not as was thought."""

import sqlite3
from dataclasses import dataclass
from typing import ClassVar

from treadle_server.core.errors import not_found
from treadle_server.ports.log import Conflict, NewThread
from treadle_server.stores.refusals import busy, record_corrupt

_STATE = """
SELECT id, delete_time, begun, checksum IS row_checksum(tenant, id, session_key, agent, parent_object,
  create_time, number, begun, context_initial, labels, revision, update_time, delete_time)
FROM sessions WHERE session = ? AND tenant = ?"""
_BUSY = """
SELECT id FROM threads INDEXED BY threads_in_session
WHERE session = ? AND session IS NOT NULL AND state < 6 ORDER BY thread LIMIT 1"""
_BEGIN = """
UPDATE sessions SET begun = 1, context_initial = ?1, checksum = row_checksum(tenant, id, session_key, agent,
  parent_object, create_time, number, 1, ?1, labels, revision, update_time, delete_time)
WHERE session = ?2 AND begun = 0"""


@dataclass(slots=True)
class RequireIdle:
    """Raises Refused(SESSION_BUSY) while a thread of the session has not ended."""

    session: int
    name: str
    refuses: ClassVar[bool] = True
    writes: ClassVar[bool] = False

    def apply(self, cursor: sqlite3.Cursor) -> None:
        row = cursor.execute(_BUSY, (self.session,)).fetchone()
        if row is not None:
            raise busy(self.name, f"threads/{row[0]}")


@dataclass(slots=True)
class JoinSession:
    """Raises Refused, or Conflict when another thread began the session first."""

    tenant: int
    new: NewThread
    refuses: ClassVar[bool] = True

    @property
    def writes(self) -> bool:
        return self.new.begins_session

    def apply(self, cursor: sqlite3.Cursor) -> None:
        session, new = self.new.session, self.new
        row = cursor.execute(_STATE, (session, self.tenant)).fetchone()
        if row is None:
            raise not_found("Session", "the session")
        session_id, delete_time, begun, intact = row
        name = f"sessions/{session_id}"
        if not intact:
            raise record_corrupt(name, resource=name)
        if delete_time is not None:
            raise not_found("Session", name)
        if new.alone_in_session:
            RequireIdle(session, name).apply(cursor)
        if new.begins_session and begun:
            raise Conflict
        if new.begins_session:
            cursor.execute(_BEGIN, (new.context_initial, session))
