"""What a fork shares of another log: the same rows under its own key, copied in the unit that makes it."""

import sqlite3
from dataclasses import dataclass
from typing import ClassVar

from treadle_server.core.errors import not_found
from treadle_server.ports.log import Shared
from treadle_server.stores.refusals import record_corrupt

# A thread that is deleted, or that retention took, may be purged in part already.
_READABLE = """
SELECT 1 FROM threads
WHERE thread = ? AND tenant = ? AND sequence >= ? AND delete_time IS NULL AND purged = 0 AND expired = 0"""
# A checksum covers what an event says and its sequence, so it holds for the copy too.
_COPY = """
INSERT INTO events (tenant, thread, sequence, kind, body, private, checksum)
SELECT tenant, ?, sequence, kind, body, private, checksum FROM events
WHERE tenant = ? AND thread = ? AND sequence <= ?"""


@dataclass(slots=True)
class ShareEvents:
    """Copies the first events of a log. Raises Refused if the other thread is gone, or its events are."""

    thread: int
    shared: Shared
    refuses: ClassVar[bool] = True
    writes: ClassVar[bool] = True

    def apply(self, cursor: sqlite3.Cursor) -> None:
        key, through = self.shared.key, self.shared.through
        if cursor.execute(_READABLE, (key.thread, key.tenant, through)).fetchone() is None:
            raise not_found("Thread", "the thread to share events of")
        copied = cursor.execute(_COPY, (self.thread, key.tenant, key.thread, through)).rowcount
        if copied != through:
            raise record_corrupt(f"the log of thread {key.thread}", thread=str(key.thread))
