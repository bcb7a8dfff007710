"""Everything that one database file holds, opened and closed together."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from treadle_server.ports.catalogue.memories import Room
from treadle_server.ports.clock import Clock
from treadle_server.stores.sqlite.agents import SqliteAgents
from treadle_server.stores.sqlite.approvals import SqliteApprovals
from treadle_server.stores.sqlite.backup import SqliteCopies
from treadle_server.stores.sqlite.changes import Changes
from treadle_server.stores.sqlite.commits import SqliteCommits
from treadle_server.stores.sqlite.committer import Committer
from treadle_server.stores.sqlite.damage import Damages
from treadle_server.stores.sqlite.database import Database, Durability, open_database
from treadle_server.stores.sqlite.housekeeping import SqliteHousekeeping
from treadle_server.stores.sqlite.keys import SqliteApiKeys
from treadle_server.stores.sqlite.lineage import SqliteLineage
from treadle_server.stores.sqlite.log import SqliteLog
from treadle_server.stores.sqlite.mail import SqliteMailbox
from treadle_server.stores.sqlite.memories import MEMORY_ROOM, SqliteMemories
from treadle_server.stores.sqlite.notes import SqliteNotes
from treadle_server.stores.sqlite.readers import Readers
from treadle_server.stores.sqlite.requests import SqliteRequests
from treadle_server.stores.sqlite.reserve import RESERVE_BYTES, Reserve
from treadle_server.stores.sqlite.session_records import SqliteSessionRecords
from treadle_server.stores.sqlite.sessions import SqliteSessions
from treadle_server.stores.sqlite.starts import SqliteStarts
from treadle_server.stores.sqlite.tenants import SqliteTenants
from treadle_server.stores.sqlite.threads import SqliteThreads
from treadle_server.stores.sqlite.trials import SqliteTrials


class SqliteStore:
    """One server's hold on a file. `open` and `close` on the event loop that uses it."""

    def __init__(
        self,
        database: Database,
        committer: Committer,
        readers: Readers,
        clock: Clock,
        backup_dir: Path | None = None,
        memory_room: Room = MEMORY_ROOM,
    ) -> None:
        self._database = database
        self._closed = False
        self.committer = committer
        self.readers = readers
        changes = Changes(committer, clock)
        damages = Damages(database.path, readers)
        self.log = SqliteLog(database, committer, readers, clock, damages)
        self.commits = SqliteCommits(readers)
        self.threads = SqliteThreads(changes, readers, damages)
        self.requests = SqliteRequests(readers)
        self.agents = SqliteAgents(changes, readers)
        self.sessions = SqliteSessions(changes, readers)
        self.session_records = SqliteSessionRecords(readers)
        self.tenants = SqliteTenants(changes, readers)
        self.api_keys = SqliteApiKeys(changes, readers)
        self.notes = SqliteNotes(changes, readers)
        self.memories = SqliteMemories(changes, readers, memory_room)
        self.starts = SqliteStarts(readers, clock)
        self.mail = SqliteMailbox(changes, readers)
        self.lineage = SqliteLineage(readers)
        self.approvals = SqliteApprovals(readers)
        self.trials = SqliteTrials(changes, readers, epoch=database.epoch)
        self.housekeeping = SqliteHousekeeping(changes, readers, self.tenants)
        folder = backup_dir or database.path.with_name(f"{database.path.name}-backups")
        self.copies = SqliteCopies(database.path, folder.absolute(), changes, readers)

    @classmethod
    async def open(
        cls,
        path: Path | str,
        *,
        on_fatal: Callable[[Exception], None],
        durability: Durability = Durability.FULL,
        take_over: bool = False,
        clock: Clock,
        backup_dir: Path | None = None,
        reserve_bytes: int = RESERVE_BYTES,
        memory_room: Room = MEMORY_ROOM,
    ) -> "SqliteStore":
        """Raises FileUnusable, of which FileLocked is one kind. `on_fatal` gets Fenced or StoreFailed, once
        or more: stop the process then. `reserve_bytes` of the disk are kept for when it is full.
        """
        database = await asyncio.to_thread(open_database, path, durability=durability, take_over=take_over)
        try:
            readers = await Readers.open(database.path, on_fatal)
        except BaseException:
            database.close()
            raise
        reserve = Reserve(database.path, reserve_bytes, owed=database.reserve_given_up)
        await asyncio.to_thread(reserve.take)
        committer = Committer(database, on_fatal, reserve=reserve)
        committer.start()
        store = cls(database, committer, readers, clock, backup_dir, memory_room)
        try:
            await store.copies.settle()
        except BaseException:
            await store.close()
            raise
        return store

    @property
    def epoch(self) -> int:
        """Of this server's hold on the file; higher than of any before."""
        return self._database.epoch

    @property
    def durability(self) -> Durability:
        return self._database.durability

    async def close(self) -> None:
        """Writes what was submitted. A second call does nothing.

        SQLite checkpoints when its last connection closes, unless that one only reads: readers go first to
        leave one whole file, and last when nothing may be written any more.
        """
        if self._closed:
            return
        self._closed = True
        if self.committer.failed:
            await self.committer.close()
            self._database.close()
            await self.readers.close()
        else:
            await self.readers.close()
            await self.committer.close()
            self._database.close()
