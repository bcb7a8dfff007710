"""Reading connections, apart from the writer's: they see only what was committed and cannot write."""

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import aiosqlite
import structlog

from treadle_server.ports.log import StoreFailed
from treadle_server.stores.refusals import record_corrupt, unavailable
from treadle_server.stores.sqlite import checksums
from treadle_server.stores.sqlite.faults import Fault, fault_of
from treadle_server.stores.sqlite.lock import FileUnusable

_LOG = structlog.get_logger(__name__)
Row = tuple[Any, ...]

_PRAGMAS = ("query_only = ON", "cell_size_check = ON", "trusted_schema = OFF", "temp_store = MEMORY")


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
        self._damage_told = False
        self.reads = 0
        """Reads made so far."""

    @classmethod
    async def open(
        cls, path: Path, on_fatal: Callable[[Exception], None], *, connection_count: int = 2
    ) -> "Readers":
        """`path` is absolute. `on_fatal` is called with StoreFailed when nothing can be read any more.

        Raises FileUnusable, and then leaves no connection: the thread of one would keep the process alive.
        """
        readers = cls([], on_fatal)
        try:
            for _ in range(connection_count):
                await readers._add(path)
        except sqlite3.Error as error:
            await readers.close()
            raise FileUnusable(f"{path} cannot be read: {error}") from error
        except BaseException:
            await readers.close()
            raise
        return readers

    async def _add(self, path: Path) -> None:
        connection = await aiosqlite.connect(
            f"{path.as_uri()}?mode=ro", uri=True, isolation_level=None, cached_statements=256
        )
        self._connections.append(connection)
        self._under_way.append(0)
        connection.text_factory = checksums.lenient_text
        await connection.create_function(
            checksums.DETAILS_INTACT, 6, checksums.details_intact, deterministic=True
        )
        for pragma in _PRAGMAS:
            await connection.execute_fetchall(f"PRAGMA {pragma}")

    async def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        """All rows. Raises Refused(RECORD_CORRUPT) for a damaged page, StoreFailed for an error that is the
        end of the store, by the same table as the committer.
        """
        self.reads += 1
        try:
            return await self._fetch(sql, parameters)
        except (sqlite3.DatabaseError, MemoryError) as error:
            if fault_of(error) is Fault.DAMAGE:
                await self._look_again(error, sql, parameters)
            failure = self.judge(error)
            if failure is None:
                raise
            raise failure from error

    async def _fetch(self, sql: str, parameters: Sequence[Any]) -> list[Row]:
        index = min(range(len(self._connections)), key=self._under_way.__getitem__)
        self._under_way[index] += 1
        try:
            found: Any = await self._connections[index].execute_fetchall(sql, parameters)
        finally:
            self._under_way[index] -= 1
        return list(found)

    async def _look_again(self, error: Exception, sql: str, parameters: Sequence[Any]) -> None:
        """Raises StoreFailed if the page is whole now: SQLite calls a page damaged that the disk failed to
        read, and a thread must not end because of that.
        """
        try:
            await self._fetch(sql, parameters)
        except (sqlite3.DatabaseError, MemoryError):
            return
        raise self._stop(error) from error

    async def row(self, sql: str, parameters: Sequence[Any] = ()) -> Row | None:
        """The first row, of a query that has one or none."""
        rows = await self.rows(sql, parameters)
        return rows[0] if rows else None

    async def close(self) -> None:
        for connection in self._connections:
            await connection.close()

    def judge(self, error: Exception) -> Exception | None:
        """What a reader is told of an error; None for one that is a bug of ours. May stop the process."""
        fault = fault_of(error)
        if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_READONLY:
            return None  # a statement that writes
        if fault is Fault.DAMAGE:
            self._tell_damage(error)
            return record_corrupt("a page")
        if fault is Fault.BUSY or _lost_a_race(error):
            return unavailable("another process holds its lock")
        return self._stop(error) if fault is Fault.STORE else None

    def _tell_damage(self, error: Exception) -> None:
        """Once: nobody can say whose the page is."""
        if not self._damage_told:
            self._damage_told = True
            advice = "treadle check names what is damaged; the way back is a backup"
            _LOG.error("page_damaged", why=str(error), advice=advice)

    def _stop(self, error: Exception) -> StoreFailed:
        failure = StoreFailed(f"the store cannot be read: {error!r}")
        self._on_fatal(failure)
        return failure


def _lost_a_race(error: Exception) -> bool:
    """A reader may find the log begun anew again and again while it opens it. The writer cannot."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_PROTOCOL
