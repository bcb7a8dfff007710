"""Reading connections, apart from the writer's: they see only what was committed and cannot write."""

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import aiosqlite

from treadle_server.ports.log import StoreFailed
from treadle_server.stores.refusals import record_corrupt, unavailable

Row = tuple[Any, ...]

_PRAGMAS = ("query_only = ON", "cell_size_check = ON", "trusted_schema = OFF")


class Readers:
    """A few connections, each with a thread. Every read is one call on one of them, from its first row to its
    last: a cancelled reader leaves no transaction open and no connection missing. They never checkpoint.
    """

    def __init__(
        self, connections: list[aiosqlite.Connection], on_fatal: Callable[[Exception], None]
    ) -> None:
        self._connections = connections
        self._under_way = [0] * len(connections)
        self._on_fatal = on_fatal
        self.reads = 0
        """Reads made so far."""

    @classmethod
    async def open(
        cls, path: Path, on_fatal: Callable[[Exception], None], *, connection_count: int = 2
    ) -> "Readers":
        """`path` is absolute. `on_fatal` is called with StoreFailed when the disk does not read."""
        connections: list[aiosqlite.Connection] = []
        for _ in range(connection_count):
            connection = await aiosqlite.connect(
                f"{path.as_uri()}?mode=ro", uri=True, isolation_level=None, cached_statements=256
            )
            connections.append(connection)
            for pragma in _PRAGMAS:
                await connection.execute_fetchall(f"PRAGMA {pragma}")
        return cls(connections, on_fatal)

    async def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        """All rows. Raises Refused(RECORD_CORRUPT) for a damaged page, StoreFailed for an I/O error."""
        self.reads += 1
        index = min(range(len(self._connections)), key=self._under_way.__getitem__)
        self._under_way[index] += 1
        try:
            found: Any = await self._connections[index].execute_fetchall(sql, parameters)
        except sqlite3.DatabaseError as error:
            failure = self._judge(error)
            if failure is None:
                raise
            raise failure from error
        finally:
            self._under_way[index] -= 1
        return list(found)

    async def row(self, sql: str, parameters: Sequence[Any] = ()) -> Row | None:
        """The first row, of a query that has one or none."""
        rows = await self.rows(sql, parameters)
        return rows[0] if rows else None

    async def close(self) -> None:
        for connection in self._connections:
            await connection.close()

    def _judge(self, error: sqlite3.DatabaseError) -> Exception | None:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return record_corrupt("a page")
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_PROTOCOL):
            return unavailable("another process holds its lock")
        if code == sqlite3.SQLITE_IOERR:
            failure = StoreFailed(f"the store cannot be read: {error!r}")
            self._on_fatal(failure)
            return failure
        return None
