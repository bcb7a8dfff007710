"""Moves what was committed from the write-ahead log into the database file."""

import sqlite3

from treadle_server.stores.sqlite.database import PAGE_SIZE

PAGES_MAX = 2000
"""About 16 MiB of log between two checkpoints."""
OVERGROWN = 16
"""When readers kept the log from starting anew for so many times PAGES_MAX, they are waited for."""
_PAGES_PER_COMMIT = 8
_PAGES_PER_UNIT = 3


class Checkpoints:
    """Runs between transactions, on the committer's thread, after the answers went out.

    SQLite's own automatic checkpoint would delay them and hide an I/O error. How long the log is cannot be
    asked without a checkpoint, so it is estimated.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._pages = 0

    def after_commit(self, units: int, byte_count: int) -> None:
        """Raises sqlite3.Error for what is worse than a full disk or a busy reader."""
        self._pages += _PAGES_PER_COMMIT + units * _PAGES_PER_UNIT + byte_count // PAGE_SIZE
        if self._pages >= PAGES_MAX:
            self._pages = 0
            log_pages = self._run("PASSIVE")
            if log_pages > PAGES_MAX * OVERGROWN:
                self._run("RESTART")

    def finish(self) -> None:
        """Leaves a file that is whole without its log."""
        self._run("TRUNCATE")

    def _run(self, mode: str) -> int:
        try:
            _busy, log_pages, _moved = self._connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
        except sqlite3.Error as error:
            if error.sqlite_errorcode & 0xFF not in (
                sqlite3.SQLITE_FULL,
                sqlite3.SQLITE_BUSY,
                sqlite3.SQLITE_LOCKED,
            ):
                raise
            return 0  # it is tried again, and nothing is lost meanwhile
        return int(log_pages)
