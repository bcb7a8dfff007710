"""Moves what was committed from the write-ahead log into the database file."""

import sqlite3
from dataclasses import dataclass

from treadle_server.stores.sqlite.database import PAGE_SIZE, waiting
from treadle_server.stores.sqlite.faults import Fault, fault_of

_FRAME_BYTES = PAGE_SIZE + 24
_PAGES_PER_COMMIT = 8
_PAGES_PER_UNIT = 3
WAIT_SECONDS = 0.1
"""How long a checkpoint may wait for readers, and the next commit for the checkpoint."""


@dataclass(frozen=True, slots=True)
class LogBounds:
    """Lengths of the write-ahead log, in pages."""

    checkpoint: int = 2000
    """About 16 MiB between two checkpoints; a log that nobody holds gets hardly longer."""
    overgrown: int = 32_000
    """About 256 MiB: from here on readers are waited for, and the file is cut short once they are gone."""
    most: int = 131_072
    """1 GiB: nothing ordinary is written until readers let the log begin anew."""


BOUNDS = LogBounds()


class Checkpoints:
    """Runs between transactions, on the committer's thread, after the answers went out.

    A reader keeps all that was committed after its snapshot in the log: while one is held, here or in another
    process, the log grows by what is written, to `most` and about one checkpoint's pages more. It costs a
    commit at most WAIT_SECONDS, and that only while readers come and go: one that stands still is not waited
    for. When it is gone, the next checkpoint moves everything, and the file goes back to twice `checkpoint`.

    SQLite's own automatic checkpoint would delay answers and hide an I/O error. How long the log is cannot be
    asked without a checkpoint, so it is estimated.
    """

    def __init__(self, connection: sqlite3.Connection, bounds: LogBounds = BOUNDS) -> None:
        self._connection = connection
        self._bounds = bounds
        self._pages = 0
        self._moved = 0
        self._length = 0
        """Of the log at the last checkpoint; 0 once it may begin anew."""
        limit = 2 * bounds.checkpoint * _FRAME_BYTES
        connection.execute(f"PRAGMA journal_size_limit = {limit}").fetchone()

    @property
    def overgrown(self) -> bool:
        return self._length > self._bounds.overgrown

    @property
    def at_bound(self) -> bool:
        return self._length > self._bounds.most

    def after_commit(self, units: int, byte_count: int) -> None:
        """Raises sqlite3.Error for what is worse than a full disk or a busy reader."""
        self._pages += _PAGES_PER_COMMIT + units * _PAGES_PER_UNIT + byte_count // PAGE_SIZE
        if self._pages >= self._bounds.checkpoint:
            self.move()

    def move(self) -> None:
        """Moves what readers allow. Raises as `after_commit`."""
        before = self._moved
        self._run("PASSIVE")
        if self.overgrown and self._moved != before:
            self._run("RESTART")

    def shrink(self) -> None:
        """Moves what readers allow and, if that is all, cuts the file. Raises as `after_commit`."""
        if self._run("PASSIVE"):
            self._run("TRUNCATE")

    def finish(self) -> None:
        """Leaves a file that is whole without its log, unless another process still reads."""
        self._run("TRUNCATE")

    def _run(self, mode: str) -> bool:
        """Whether all that is in the log was moved."""
        written, self._pages = self._pages, 0
        length, moved = self._ask(mode)
        if length < 0:  # it is tried again, and nothing is lost meanwhile, but the log has grown
            self._length += written
            return False
        self._length = length if moved < length else 0
        self._moved = moved
        return moved >= length

    def _ask(self, mode: str) -> tuple[int, int]:
        """How many pages the log has, and how many of them were moved; negative where there was no room, or
        another process has the lock for it.
        """
        try:
            with waiting(self._connection, WAIT_SECONDS):
                _busy, length, moved = self._connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
        except sqlite3.Error as error:
            if fault_of(error) not in (Fault.FULL, Fault.BUSY):
                raise
            return -1, -1
        return length, moved
