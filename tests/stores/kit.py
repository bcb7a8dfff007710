"""What the tests of the stores share: opening, a gate for the committer, damage on the disk."""

import asyncio
import sqlite3
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Protocol

from tests.contract.units import NOW
from treadle_server.ports.log import RequestRow
from treadle_server.stores.sqlite.inbox import Urgency, WorkTicket
from treadle_server.stores.sqlite.statements import Statement
from treadle_server.stores.sqlite.store import SqliteStore

DEADLINE_SECONDS = 10.0


@dataclass(slots=True)
class HandClock:
    """Stands still until a test sets it."""

    time: int = NOW

    def now(self) -> int:
        return self.time


@dataclass(slots=True)
class Opened:
    """A store, and what it called fatal."""

    store: SqliteStore
    fatal: list[Exception]


class Opens(Protocol):
    """The fixture of that name."""

    async def __call__(self, path: Path, *, take_over: bool = False) -> Opened: ...


async def open_store(path: Path, *, clock: HandClock | None = None, take_over: bool = False) -> Opened:
    """To be closed by the caller."""
    fatal: list[Exception] = []
    store = await SqliteStore.open(
        path, on_fatal=fatal.append, clock=clock or HandClock(), take_over=take_over
    )
    return Opened(store, fatal)


@dataclass(slots=True)
class StatementWork:
    """A unit of given statements, that appends to no log."""

    steps: Sequence[Statement]
    byte_count: int = 0
    span: tuple[int, int] = (1, 0)
    request: RequestRow | None = None
    urgency: Urgency = Urgency.REFUSABLE
    thread: int = 0

    def statements(self) -> Sequence[Statement]:
        return self.steps


@dataclass(slots=True)
class Gate:
    """Holds the committer inside a transaction until it is opened."""

    reached: threading.Event = field(default_factory=threading.Event)
    opening: threading.Event = field(default_factory=threading.Event)
    refuses: ClassVar[bool] = False
    writes: ClassVar[bool] = False

    def apply(self, cursor: sqlite3.Cursor) -> None:
        self.reached.set()
        assert self.opening.wait(DEADLINE_SECONDS)

    async def hold(self, store: SqliteStore) -> WorkTicket:
        """Returns once the committer stands at the gate."""
        ticket = store.committer.submit(StatementWork([self]))
        assert await asyncio.to_thread(self.reached.wait, DEADLINE_SECONDS)
        return ticket


def flip_bit(path: Path, marker: bytes) -> None:
    """Changes one bit of the one place in the file where the marker stands."""
    data = bytearray(path.read_bytes())
    assert data.count(marker) == 1
    data[data.index(marker) + len(marker) // 2] ^= 0x01
    path.write_bytes(data)


def execute(path: Path, sql: str, *parameters: object) -> list[tuple[object, ...]]:
    """Runs SQL on a connection of its own."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        return connection.execute(sql, parameters).fetchall()
    finally:
        connection.close()
