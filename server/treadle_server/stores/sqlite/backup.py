"""Copies the database into a file of its own, while callers read and write."""

import asyncio
import hashlib
import os
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from errno import EDQUOT, ENOSPC
from pathlib import Path

import structlog

from treadle_server.core.errors import Reason, Refused
from treadle_server.ports.backup import Copy
from treadle_server.ports.log import Replayed, RequestRow
from treadle_server.stores.refusals import disk_full, id_taken, record_corrupt, unavailable
from treadle_server.stores.sqlite.changes import Changes
from treadle_server.stores.sqlite.checkpoints import BOUNDS
from treadle_server.stores.sqlite.database import PAGE_SIZE, sync_directory
from treadle_server.stores.sqlite.readers import Readers
from treadle_server.stores.sqlite.reserve import free_bytes_at

_LOG = structlog.get_logger(__name__)
RESERVE_BYTES = 64 * 1024 * 1024
"""Left free on the copy's disk, which may be the server's: a copy must not take its last."""
LOG_BYTES_MAX = BOUNDS.most * PAGE_SIZE // 4 * 3
"""A copy is given up before it makes the write-ahead log so long that callers are refused."""
PAGES_PER_STEP = 1024
"""8 MiB, synced each: one sync at the end would hold up the commits of callers for as long as it takes."""
HASHED_BYTES = 1024 * 1024
NICENESS = 10
_INSTRUCTIONS_PER_LOOK = 100_000

_PART = ".part"
"""A copy that is being made."""
_READY = ".ready"
"""Second name of a copy whose request is being remembered."""
SETTLED_SECONDS = 12 * 3600.0
"""Half the life of a request id: of an older copy it says nothing that no request is remembered."""
_REMEMBERED = "SELECT 1 FROM request_ids WHERE resource = ? LIMIT 1"
_PRAGMAS = (
    f"page_size = {PAGE_SIZE}",
    "locking_mode = EXCLUSIVE",  # no shared memory beside it
    "journal_mode = OFF",
    "synchronous = OFF",  # synced by its steps and as a whole
    "cache_size = -1024",
)


class SqliteCopies:
    """Implements `ports.backup.Copies`.

    A copy has one snapshot from its first page to its last, on a connection that can neither write nor
    checkpoint; the write-ahead log keeps what is written meanwhile.
    """

    def __init__(
        self,
        database: Path,
        folder: Path,
        changes: Changes,
        readers: Readers,
        *,
        free_bytes: Callable[[Path], int] = free_bytes_at,
        log_bytes_max: int = LOG_BYTES_MAX,
    ) -> None:
        """`folder` is made at first use. `free_bytes` says how much more the disk of a path takes."""
        self._database = database
        self._folder = folder
        self._changes = changes
        self._readers = readers
        self._free_bytes = free_bytes
        self._log_bytes_max = log_bytes_max
        self._stopped = threading.Event()

    async def make(self, copy_id: str) -> Copy:
        executor = ThreadPoolExecutor(1, "treadle-backup")
        try:
            return await asyncio.get_running_loop().run_in_executor(executor, self._make, copy_id)
        finally:
            executor.shutdown(wait=False)

    async def publish(self, copy: Copy, tenant: int, request: RequestRow | None) -> None:
        await asyncio.to_thread(self._name, copy.path, ready=request is not None)
        if request is None:
            return
        try:
            await self._changes.apply(tenant, request=request)
        except (Refused, Replayed):  # after anything else it may have been remembered
            await asyncio.to_thread(_remove, copy.path, _hidden(copy.path, _READY))
            raise
        await asyncio.to_thread(_remove, _hidden(copy.path, _READY))

    def stop(self) -> None:
        self._stopped.set()

    async def settle(self) -> None:
        """A copy that is named counts if its request was remembered, and else was never made.

        To be called at the start of a server, before it forgets requests that a crash left unsettled.
        """
        for ready in await asyncio.to_thread(lambda: list(self._folder.glob(f".*{_READY}"))):
            named = ready.with_name(ready.name.removeprefix(".").removesuffix(_READY))
            try:
                remembered = await self._readers.row(_REMEMBERED, (f"backups/{named.stem}",))
                await asyncio.to_thread(_settle, ready, named, remembered=remembered is not None)
            except (Refused, OSError) as error:
                _LOG.warning("backup_not_settled", path=str(named), why=str(error))

    # What follows runs on threads of its own.

    def _make(self, copy_id: str) -> Copy:
        if sys.platform == "linux":  # there a thread has a priority of its own
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        path = self._folder / f"{copy_id}.db"
        part = _hidden(path, _PART)
        with _told(path):
            self._make_folder()
            if path.exists():
                raise id_taken("Backup", f"backups/{copy_id}")
            _remove(*self._folder.glob(f".*{_PART}*"))
            try:
                return self._copy(path, part)
            except BaseException:
                _remove(*self._folder.glob(f"{part.name}*"))
                raise

    def _make_folder(self) -> None:
        if not self._folder.is_dir():
            self._folder.mkdir(mode=0o700)
            sync_directory(self._folder)

    def _copy(self, path: Path, part: Path) -> Copy:
        descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            self._fill(part, descriptor)
            self._check(part)
            sha256 = self._hash(descriptor)
            os.fsync(descriptor)
            size_bytes = os.fstat(descriptor).st_size
        finally:
            os.close(descriptor)
        return Copy(path, size_bytes, sha256)

    def _fill(self, part: Path, descriptor: int) -> None:
        log = self._database.with_name(f"{self._database.name}-wal")

        def progress(_status: int, _remaining: int, _total: int) -> None:
            self._look(0)
            if log.stat().st_size > self._log_bytes_max:
                raise unavailable("callers write faster than the backup is made")
            os.fsync(descriptor)

        source = sqlite3.connect(f"{self._database.as_uri()}?mode=ro", uri=True, isolation_level=None)
        with closing(source), closing(sqlite3.connect(part, isolation_level=None)) as target:
            for pragma in _PRAGMAS:
                target.execute(f"PRAGMA {pragma}")
            source.execute("BEGIN")
            (page_count,) = source.execute("SELECT page_count FROM pragma_page_count").fetchone()
            self._look(page_count * PAGE_SIZE)
            source.backup(target, pages=PAGES_PER_STEP, progress=progress)
            source.execute("COMMIT")
            target.execute("PRAGMA journal_mode = DELETE").fetchone()  # one whole file for any program

    def _check(self, part: Path) -> None:
        copy = sqlite3.connect(f"{part.as_uri()}?mode=ro&immutable=1", uri=True, isolation_level=None)
        with closing(copy):
            copy.set_progress_handler(self._stopped.is_set, _INSTRUCTIONS_PER_LOOK)
            try:
                found = copy.execute("PRAGMA integrity_check(1)").fetchall()
            except sqlite3.OperationalError:
                self._look(0)
                raise
        if found != [("ok",)]:
            raise record_corrupt("a page")

    def _hash(self, descriptor: int) -> str:
        digest, offset = hashlib.sha256(), 0
        while data := os.pread(descriptor, HASHED_BYTES, offset):
            self._look(0)
            digest.update(data)
            offset += len(data)
        return digest.hexdigest()

    def _look(self, needed_bytes: int) -> None:
        """Ends the copy when the server stops, or when the disk has not room enough left."""
        if self._stopped.is_set():
            raise Refused(Reason.DRAINING, "the server is stopping; no backup was made")
        if self._free_bytes(self._folder) < needed_bytes + RESERVE_BYTES:
            raise disk_full(
                f"there is no room for a backup: {RESERVE_BYTES >> 20} MiB of its disk must stay free"
            )

    def _name(self, path: Path, *, ready: bool) -> None:
        """From here on there is a file of this name, and never was another."""
        made = _hidden(path, _PART)
        with _told(path):
            if ready:
                made = made.rename(_hidden(path, _READY))
            try:
                _link(made, path)
            except FileExistsError:
                _remove(made)
                raise id_taken("Backup", f"backups/{path.stem}") from None
            try:
                sync_directory(path)
            except OSError:
                _remove(path, made)
                raise
            if not ready:
                _remove(made)


def _link(made: Path, path: Path) -> None:
    try:
        os.link(made, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        if path.exists():
            raise FileExistsError(path) from None
        made.rename(path)


def _hidden(path: Path, ending: str) -> Path:
    return path.with_name(f".{path.name}{ending}")


def _settle(ready: Path, named: Path, *, remembered: bool) -> None:
    """Another file of the name stays as it is, and one whose request may have been forgotten."""
    recent = 0 <= time.time() - ready.stat().st_mtime < SETTLED_SECONDS
    if not remembered and recent and named.exists() and named.samefile(ready):
        _remove(named)
    _remove(ready)


def _remove(*paths: Path) -> None:
    for path in paths:
        with suppress(OSError):  # what cannot be removed now is removed by the next
            path.unlink(missing_ok=True)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Turns what goes wrong with the disk into refusals: the copy has failed, and not the store."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        if code == sqlite3.SQLITE_FULL:
            raise disk_full() from error
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise record_corrupt("a page") from error
        raise unavailable(f"no backup could be made at {path}: {error}") from error
    except OSError as error:
        if error.errno in (ENOSPC, EDQUOT):
            raise disk_full() from error
        raise unavailable(f"no backup could be made at {path}: {error.strerror}") from error
