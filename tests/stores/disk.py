"""A disk that a test fills and empties: no page more can be had, and what fits into the present ones does."""

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from tests.stores.kit import HandClock, Opened, StatementWork
from treadle_server.core.errors import Refused
from treadle_server.ports.log import Log, Record
from treadle_server.stores.sqlite.checkpoints import BOUNDS, LogBounds
from treadle_server.stores.sqlite.committer import Committer
from treadle_server.stores.sqlite.database import open_database
from treadle_server.stores.sqlite.inbox import Urgency
from treadle_server.stores.sqlite.readers import Readers
from treadle_server.stores.sqlite.reserve import Reserve
from treadle_server.stores.sqlite.statements import Answer
from treadle_server.stores.sqlite.store import SqliteStore

LARGE = Record(3, b"x" * 200_000)
"""Needs pages that a full disk does not have."""


async def fill_the_disk(store: SqliteStore) -> None:
    await _limit(store, 1)


async def free_the_disk(store: SqliteStore) -> None:
    await _limit(store, 1_000_000)


async def _limit(store: SqliteStore, pages: int) -> None:
    """As an urgent unit, so that it is carried out also while nothing else is."""
    pragma = StatementWork([Answer(f"PRAGMA max_page_count = {pages}")], urgency=Urgency.URGENT)
    await store.committer.submit(pragma).wait()


def refusal(log: Log) -> Refused | None:
    """Why what a caller asks would be refused now."""
    try:
        log.check_writable()
    except Refused as refused:
        return refused
    return None


@dataclass(slots=True)
class Space:
    """What is free on a file system, as a test says."""

    free: int = 1 << 40
    asked: int = 0
    """How often somebody wanted to know."""

    def __call__(self, path: Path) -> int:
        self.asked += 1
        return self.free


async def open_with(path: Path, *, reserve: Reserve | None = None, log_bounds: LogBounds = BOUNDS) -> Opened:
    """A store whose committer has this reserve and these bounds. To be closed by the caller."""
    fatal: list[Exception] = []
    database = open_database(path)
    readers = await Readers.open(path, fatal.append)
    committer = Committer(database, fatal.append, reserve=reserve, log_bounds=log_bounds)
    committer.start()
    return Opened(SqliteStore(database, committer, readers, HandClock()), fatal)


@dataclass(slots=True)
class Raise:
    """A statement that meets an error of SQLite."""

    make: Callable[[], Exception]
    refuses: ClassVar[bool] = False
    writes: ClassVar[bool] = True

    def apply(self, cursor: sqlite3.Cursor) -> None:
        raise self.make()


@dataclass(slots=True)
class Lines:
    """What was written to the server's log."""

    entries: list[dict[str, object]] = field(default_factory=list)

    def of(self, event: str) -> list[dict[str, object]]:
        return [entry for entry in self.entries if entry["event"] == event]
