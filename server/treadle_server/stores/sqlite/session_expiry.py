"""What becomes of sessions that are gone, as statements: hidden at once, then their notes in small pieces."""

import sqlite3
import time
from dataclasses import dataclass
from typing import ClassVar

from treadle_server.stores.sqlite.expiry import DELETE_NOTES, NOTES_PER_PIECE, STEP_SECONDS

SESSIONS_PER_STEP = 50

HIDE_SESSION = """
UPDATE sessions SET session_key = '', context_initial = '', labels = '{}', delete_time = ?1,
  checksum = row_checksum(tenant, id, '', agent, parent_object, create_time, number, begun, '', '{}',
    revision, update_time, ?1)
WHERE session = ?2 AND revision = ?3 AND delete_time IS NULL"""
# All threads of the session are gone, and were made long ago enough for retention to have taken them. In the
# order of keys, so that one pass looks at each session once.
SESSIONS_DUE = f"""
SELECT s.tenant, s.session, s.revision FROM sessions s JOIN tenants n ON n.tenant = s.tenant
WHERE s.session > ?3 AND s.delete_time IS NULL AND s.begun = 1
  AND s.update_time <= ?1 - coalesce(n.thread_retention, ?2)
  AND NOT EXISTS (
    SELECT 1 FROM threads t INDEXED BY threads_by_session
    WHERE t.tenant = s.tenant AND t.session = s.session AND t.session IS NOT NULL AND t.delete_time IS NULL)
ORDER BY s.session LIMIT {SESSIONS_PER_STEP}"""
EXPIRE_SESSION = f"""
{HIDE_SESSION} AND update_time <= ?4
  AND EXISTS (SELECT 1 FROM tenants n WHERE n.tenant = sessions.tenant AND n.revision = ?5)
  AND NOT EXISTS (
    SELECT 1 FROM threads t INDEXED BY threads_by_session
    WHERE t.tenant = sessions.tenant AND t.session = sessions.session AND t.session IS NOT NULL
      AND t.delete_time IS NULL)"""
_GONE = "SELECT 1 FROM sessions WHERE session = ? AND delete_time IS NOT NULL"
_MARK = "UPDATE sessions SET purged = 1 WHERE session = ?"


@dataclass(slots=True)
class PurgeSession:
    """Deletes notes of a session that is gone, and marks it once none are left."""

    tenant: int
    session: int
    refuses: ClassVar[bool] = False
    writes: ClassVar[bool] = True

    def apply(self, cursor: sqlite3.Cursor) -> None:
        deadline = time.monotonic() + STEP_SECONDS
        if cursor.execute(_GONE, (self.session,)).fetchone() is None:
            return
        while time.monotonic() < deadline:
            cursor.execute(DELETE_NOTES, (self.tenant, f"sessions/{self.session}"))
            if cursor.rowcount < NOTES_PER_PIECE:
                cursor.execute(_MARK, (self.session,))
                return
