"""Opens a database file for the one server that may write it."""

import os
import sqlite3
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from treadle_server.stores.sqlite.lock import FileLock, FileUnusable

APPLICATION_ID = 0x54524441  # "TRDA"
CORE_VERSION = 1
"""Raised with the first event that an older fold would misread; older binaries then refuse the file."""
PAGE_SIZE = 8192
BUSY_SECONDS = 5.0

_MIGRATIONS = Path(__file__).parent / "migrations"
_SQLITE_NEEDED = (3, 37, 0)  # STRICT tables


class Durability(StrEnum):
    """What an acknowledged change survives."""

    FULL = "full"
    """Power loss, on a disk that honours sync."""
    RELAXED = "relaxed"
    """A crash of the process. Power loss may take the last changes."""


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

    def close(self) -> None:
        self.connection.close()
        self.lock.release()


def open_database(
    path: Path | str, *, durability: Durability = Durability.FULL, take_over: bool = False
) -> Database:
    """Opens or creates a file, brings it to the newest schema and raises its epoch. Blocks on the disk.

    Raises FileLocked while another server has it, unless `take_over`; FileUnusable for a file that is not
    ours or newer than this program.
    """
    if sqlite3.sqlite_version_info < _SQLITE_NEEDED:
        raise FileUnusable(f"SQLite 3.37 or later is needed, this is {sqlite3.sqlite_version}")
    file = Path(path).absolute()
    try:
        lock = FileLock.take_over(file) if take_over else FileLock.acquire(file)
    except OSError as error:
        raise FileUnusable(f"{file} cannot be locked: {error.strerror}") from error
    try:
        return _open_locked(file, lock, durability)
    except BaseException:
        lock.release()
        raise


def _open_locked(path: Path, lock: FileLock, durability: Durability) -> Database:
    _create_private(path)
    try:
        connection = sqlite3.connect(
            path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False, cached_statements=256
        )
    except sqlite3.Error as error:
        raise FileUnusable(f"{path} cannot be opened: {error}") from error
    try:
        _check_kind(connection, path)
        _set_up(connection, durability)
        _sync_directory(path)
        migrate(connection, path)
        epoch, next_thread = _raise_epoch(connection)
    except sqlite3.DatabaseError as error:
        connection.close()
        raise FileUnusable(f"{path} cannot be opened: {error}") from error
    except BaseException:
        connection.close()
        raise
    return Database(path, connection, lock, epoch, next_thread, durability)


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


def _set_up(connection: sqlite3.Connection, durability: Durability) -> None:
    """The first three hold from a file's creation on, the others for the connection."""
    connection.execute(f"PRAGMA page_size = {PAGE_SIZE}")
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    if not connection.execute("PRAGMA application_id").fetchone()[0]:
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA synchronous = {'FULL' if durability is Durability.FULL else 'NORMAL'}")
    connection.execute("PRAGMA fullfsync = ON")  # macOS; a checkpoint follows it
    connection.execute("PRAGMA checkpoint_fullfsync = ON")
    connection.execute("PRAGMA wal_autocheckpoint = 0")  # it would hide an I/O error; the committer does it
    connection.execute("PRAGMA cache_size = -16384")
    connection.execute("PRAGMA cell_size_check = ON")
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA temp_store = MEMORY")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()


def _sync_directory(path: Path) -> None:
    """Makes the names of the file and of its log durable before anything in them is acknowledged."""
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def migrate(connection: sqlite3.Connection, path: Path, migrations: Path = _MIGRATIONS) -> None:
    """Applies what is missing, each migration in one transaction. Raises FileUnusable for a newer file."""
    schema, core = _versions(connection)
    found = sorted((int(file.name[:4]), file) for file in migrations.glob("[0-9][0-9][0-9][0-9]_*.sql"))
    newest = found[-1][0]
    if schema > newest or core > CORE_VERSION:
        raise FileUnusable(
            f"{path} was written by a newer release (schema {schema}, core {core}; "
            f"this one knows schema {newest}, core {CORE_VERSION})"
        )
    for number, file in found:
        if number > schema:
            _apply(connection, number, file.read_text("utf-8"))


def _versions(connection: sqlite3.Connection) -> tuple[int, int]:
    if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone() is None:
        return 0, 0
    schema, core = connection.execute("SELECT schema, core FROM meta").fetchone()
    return schema, core


def _apply(connection: sqlite3.Connection, number: int, sql: str) -> None:
    try:
        connection.executescript(f"BEGIN IMMEDIATE;\n{sql}\n;UPDATE meta SET schema = {number}; COMMIT;")
    except sqlite3.Error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _raise_epoch(connection: sqlite3.Connection) -> tuple[int, int]:
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("UPDATE meta SET epoch = epoch + 1, core = max(core, ?)", (CORE_VERSION,))
    epoch, next_thread = connection.execute(
        "SELECT epoch, max(next_thread, (SELECT coalesce(max(thread), 0) + 1 FROM threads)) FROM meta"
    ).fetchone()
    connection.execute("COMMIT")
    return epoch, next_thread
