"""Opens a database file for the one server that may write it."""

import errno
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from treadle_server import failpoints
from treadle_server.stores.sqlite import checksums
from treadle_server.stores.sqlite.faults import Fault, fault_of
from treadle_server.stores.sqlite.frames import Marker
from treadle_server.stores.sqlite.lock import FileLock, FileLocked, FileUnusable, FileWedged
from treadle_server.stores.sqlite.memory_index import mend_index
from treadle_server.stores.sqlite.place import check_usable, unusable
from treadle_server.stores.sqlite.reserve import give_up_left
from treadle_server.stores.sqlite.structure import (
    META_DAMAGED,
    MIGRATIONS,
    UNREADABLE,
    check_log,
    check_meta,
    check_structure,
    damaged,
    seal,
)

APPLICATION_ID = 0x54524441  # "TRDA"
CORE_VERSION = 2
"""Raised with the first event that an older fold would misread; older binaries then refuse the file."""
PAGE_SIZE = 8192
BUSY_SECONDS = 5.0

_SQLITE_NEEDED = (3, 37, 0)  # STRICT tables


class Durability(StrEnum):
    """What an acknowledged change survives."""

    FULL = "full"
    """Power loss, on a disk that honours sync."""
    RELAXED = "relaxed"
    """A crash of the process. Power loss may take the last changes."""


@contextmanager
def waiting(connection: sqlite3.Connection, seconds: float) -> Iterator[None]:
    """Locks are waited for so long within the block, and BUSY_SECONDS behind it."""
    connection.execute(f"PRAGMA busy_timeout = {int(seconds * 1000)}").fetchone()
    try:
        yield
    finally:
        connection.execute(f"PRAGMA busy_timeout = {int(BUSY_SECONDS * 1000)}").fetchone()


@dataclass(slots=True)
class Database:
    """An open file with its one writing connection, which belongs to the committer."""

    path: Path
    connection: sqlite3.Connection
    lock: FileLock
    epoch: int
    """Of this server: it may write as long as the file has the same."""
    next_thread: int
    """The first thread key that was never used."""
    durability: Durability
    marker: Marker
    reserve_given_up: bool = False
    """What a killed server kept of a full disk was needed to open the file."""

    def close(self) -> None:
        self.connection.close()
        self.marker.close()
        self.lock.release()


def open_database(
    path: Path | str, *, durability: Durability = Durability.FULL, take_over: bool = False
) -> Database:
    """Opens or creates a file, brings it to the newest schema and raises its epoch. Blocks on the disk.

    Raises FileLocked while another server has it, unless `take_over`; FileWedged when that one cannot be
    replaced; FileUnusable for a file that is not ours or newer than this program. Nothing has changed then,
    but that the reserve of a killed server is gone if even with that there was no room to open the file.
    """
    if sqlite3.sqlite_version_info < _SQLITE_NEEDED:
        raise FileUnusable(f"SQLite 3.37 or later is needed, this is {sqlite3.sqlite_version}")
    file = Path(path).resolve()  # one lock, by whatever links it is reached
    check_usable(file)
    try:
        lock = FileLock.acquire(file)
    except FileLocked as locked:
        if not take_over:
            raise
        return _take_over(file, durability, locked.pid)
    except OSError as error:
        raise FileUnusable(f"{file} cannot be locked: {error.strerror}") from error
    try:
        return _open_locked(file, durability, lock)
    except OSError as error:
        lock.release()
        raise FileUnusable(f"{file} cannot be made: {error.strerror}") from error
    except BaseException:
        lock.release()
        raise


def _open_locked(path: Path, durability: Durability, lock: FileLock) -> Database:
    _create_private(path)
    try:
        check_log(path, lock.noted)
        return _open(path, durability, lambda: lock)
    except FileUnusable as error:
        if not _for_want_of_room(error) or not give_up_left(path):
            raise
    check_log(path, lock.noted)
    database = _open(path, durability, lambda: lock)
    database.reserve_given_up = True
    return database


def _for_want_of_room(error: FileUnusable) -> bool:
    """Also where SQLite does not say so: for its index of the log it knows only that it could not be made."""
    cause = error.__cause__
    if isinstance(cause, OSError):
        return cause.errno in (errno.ENOSPC, errno.EDQUOT)
    code = getattr(cause, "sqlite_errorcode", sqlite3.SQLITE_OK)
    return code & 0xFF == sqlite3.SQLITE_FULL or code == sqlite3.SQLITE_IOERR_SHMSIZE


def _take_over(path: Path, durability: Durability, pid: int) -> Database:
    """The other server keeps its lock until the epoch has fenced it."""

    def take_lock() -> FileLock:
        lock = FileLock.take_over(path)
        sync_directory(path)
        return lock

    try:
        return _open(path, durability, take_lock, shared=True)
    except FileUnusable as error:
        cause = error.__cause__
        if isinstance(cause, sqlite3.Error) and cause.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY:
            raise FileWedged(path, pid) from cause
        raise


def _open(
    path: Path, durability: Durability, take_lock: Callable[[], FileLock], *, shared: bool = False
) -> Database:
    """`shared`: another server has the file open, and may hold SQLite's own lock."""
    try:
        connection = sqlite3.connect(
            path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False, cached_statements=256
        )
    except sqlite3.Error as error:
        raise FileUnusable(f"{path} cannot be opened: {error}") from error
    try:
        _check_kind(connection, path)
        if shared:
            connection.execute("BEGIN IMMEDIATE")  # at once, or each step would wait its time
            connection.execute("ROLLBACK")
        _set_up(connection, checkpoint=not shared)
        sync_directory(path)
        check_structure(connection, path)
        migrate(connection, path)
        epoch, next_thread = _raise_epoch(connection)
        lock = take_lock()
        mend_index(connection, path)
        marker = Marker(path, lock, every_commit_synced=durability is Durability.FULL)
        if durability is Durability.RELAXED:
            connection.execute("PRAGMA synchronous = NORMAL")  # only once the marker has said so
    except (*UNREADABLE, OSError) as error:
        connection.close()
        raise _told(path, error) from error
    except BaseException:
        connection.close()
        raise
    return Database(path, connection, lock, epoch, next_thread, durability, marker)


def _told(path: Path, error: Exception) -> FileUnusable:
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    if code == sqlite3.SQLITE_CORRUPT:
        return damaged(path, str(error))
    if code == sqlite3.SQLITE_BUSY:
        return unusable(path, "another program holds its lock")
    return unusable(path, str(error))


def _create_private(path: Path) -> None:
    """Only if it is not there: to open and close a database in use would drop SQLite's own locks on it."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except FileExistsError:
        return


def _check_kind(connection: sqlite3.Connection, path: Path) -> None:
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application_id != APPLICATION_ID and (application_id or tables):
        raise FileUnusable(f"{path} is a database of another program")


def _set_up(connection: sqlite3.Connection, *, checkpoint: bool) -> None:
    """The first three hold from a file's creation on, the others for the connection."""
    connection.text_factory = checksums.lenient_text
    connection.execute(f"PRAGMA page_size = {PAGE_SIZE}")
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    if not connection.execute("PRAGMA application_id").fetchone()[0]:
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA fullfsync = ON")  # macOS; a checkpoint follows it
    connection.execute("PRAGMA checkpoint_fullfsync = ON")
    connection.execute("PRAGMA wal_autocheckpoint = 0")  # it would hide an I/O error; the committer does it
    connection.execute("PRAGMA cache_size = -16384")
    connection.execute("PRAGMA cell_size_check = ON")
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA temp_store = MEMORY")
    if checkpoint:
        _shorten_log(connection)


def _shorten_log(connection: sqlite3.Connection) -> None:
    """Where there is no room for it, later: only what has to be written must find room."""
    try:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    except sqlite3.Error as error:
        if fault_of(error) is not Fault.FULL:
            raise


def sync_directory(path: Path) -> None:
    """Makes the names of the file and of its log durable before anything in them is acknowledged."""
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def migrate(connection: sqlite3.Connection, path: Path, migrations: Path = MIGRATIONS) -> None:
    """Applies what is missing, each migration in one transaction. Raises FileUnusable for a newer file."""
    schema, core = _versions(connection, path)
    found = sorted((int(file.name[:4]), file) for file in migrations.glob("[0-9][0-9][0-9][0-9]_*.sql"))
    newest = found[-1][0]
    if schema > newest or core > CORE_VERSION:
        raise newer(path, schema, core, newest)
    check_meta(connection, path)
    _add_functions(connection)
    for number, file in found:
        if number > schema:
            _apply(connection, number, file.read_text("utf-8"))


def newer(path: Path, schema: int, core: int, newest: int) -> FileUnusable:
    """Says that a later release has written the file."""
    return FileUnusable(
        f"{path} was written by a newer release (schema {schema}, core {core}; "
        f"this one knows schema {newest}, core {CORE_VERSION})"
    )


def _versions(connection: sqlite3.Connection, path: Path) -> tuple[int, int]:
    if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone() is None:
        return 0, 0
    row = connection.execute("SELECT schema, core FROM meta").fetchone()
    if row is None:
        raise damaged(path, META_DAMAGED)
    schema, core = row
    return schema, core


def _add_functions(connection: sqlite3.Connection) -> None:
    """What migrations compute checksums with."""
    connection.create_function("row_checksum", -1, checksums.of_row, deterministic=True)
    connection.create_function("row_checksum_before", -1, checksums.of_row_before, deterministic=True)


def _apply(connection: sqlite3.Connection, number: int, sql: str) -> None:
    try:
        connection.executescript(f"BEGIN IMMEDIATE;\n{sql}\n;UPDATE meta SET schema = {number};")
        seal(connection)
        if failpoints.ACTIVE:
            failpoints.hit("migration.before", number)
        connection.execute("COMMIT")
    except sqlite3.Error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    if failpoints.ACTIVE:
        failpoints.hit("migration.after", number)


def _raise_epoch(connection: sqlite3.Connection) -> tuple[int, int]:
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("UPDATE meta SET epoch = epoch + 1, core = max(core, ?)", (CORE_VERSION,))
    seal(connection)
    epoch, next_thread = connection.execute(
        "SELECT epoch, max(next_thread, (SELECT coalesce(max(thread), 0) + 1 FROM threads)) FROM meta"
    ).fetchone()
    connection.execute("COMMIT")
    return epoch, next_thread
