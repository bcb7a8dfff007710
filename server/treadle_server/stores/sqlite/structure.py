"""What holds the rows of a file together: pages, indexes, the schema, and the one row of `meta`."""

import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path

import structlog

from treadle_server.stores.sqlite import checksums
from treadle_server.stores.sqlite.frames import (
    MARK_BYTES,
    Dropped,
    Mark,
    dropped,
    foreign,
    frames_read,
    marked_loss,
)
from treadle_server.stores.sqlite.lock import FileUnusable

_LOG = structlog.get_logger(__name__)
MIGRATIONS = Path(__file__).parent / "migrations"
NEWEST_SCHEMA = max(int(file.name[:4]) for file in MIGRATIONS.glob("[0-9][0-9][0-9][0-9]_*.sql"))
UNREADABLE = (sqlite3.DatabaseError, UnicodeDecodeError)
"""What a damaged file raises: SQLite quotes the damage, which need not be text."""
CHECK_SECONDS = 0.5
"""How long a start looks for damage. A larger file is served without having been looked through."""
META_DAMAGED = "its row of meta is not as it was written"
_STEPS = 2_000
_UNSYNCED = "power was lost before they were synced, or damage"
# What ANALYZE leaves is an operator's, and only advises SQLite.
_SCHEMA = """
SELECT coalesce(sql, name) FROM sqlite_master WHERE name NOT LIKE 'sqlite_stat%' ORDER BY type, name"""


def check_structure(connection: sqlite3.Connection, path: Path, seconds: float = CHECK_SECONDS) -> None:
    """Raises FileUnusable if pages and indexes are not sound, as far as that can be seen in so many seconds.

    Only here is found what an index hides: a row that it does not name is missing from answers.
    """
    deadline = time.monotonic() + seconds
    connection.set_progress_handler(lambda: time.monotonic() > deadline, _STEPS)
    try:
        (found,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
            raise
        _LOG.warning("structure_not_checked", seconds=seconds, advice=f"treadle check {path}")
        return
    finally:
        connection.set_progress_handler(None, 0)
    if found != "ok":
        raise damaged(path, str(found).splitlines()[-1])


def check_log(path: Path, noted: bytes) -> None:
    """Raises FileUnusable if SQLite would drop what was acknowledged, because a frame before it is damaged,
    or if it would write the log of another file into this one.

    Before anything opens the file. `noted` is the mark of the server before. Where that does not help, of the
    very last commit it cannot be told whether it was acknowledged: power may have been lost before.
    """
    check_own_log(path)
    try:
        connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, isolation_level=None)
    except sqlite3.Error:
        return  # whoever opens it next says why
    try:
        loss = log_loss(connection, path, noted)
    except UNREADABLE:
        return
    finally:
        connection.close()
    if loss is not None and loss.acknowledged:
        raise FileUnusable(loss.told(path))
    if loss is not None and loss.dropped is not None:
        lost = loss.dropped
        _LOG.warning("commits_dropped", count=lost.commits, frame=lost.frame, why=_UNSYNCED)


@dataclass(frozen=True, slots=True)
class LogLoss:
    """What of the log beside a file is not read, though it was committed."""

    dropped: Dropped | None
    """None when the log ends before it."""
    acknowledged: bool
    """Else it cannot be told: power may have been lost before it was synced."""

    def told(self, path: Path) -> str:
        """What is wrong, and what to do."""
        lost = self.dropped
        where = f"at frame {lost.frame}" if lost is not None else "at its end"
        if not self.acknowledged:
            return f"{path}-wal is broken off {where}: a commit behind it is lost; {_UNSYNCED}"
        count = f"{lost.commits} " if lost is not None and lost.frame and lost.commits > 1 else ""
        older = f"; if both are an older copy, remove {path}-lock instead" if lost is None else ""
        return (
            f"{path}-wal is damaged {where}: {count}commits behind it would be lost, though they were "
            f"acknowledged; restore a backup, or keep a copy and remove {path}-wal to go on without all that "
            f"is in it{older}"
        )


def log_loss(connection: sqlite3.Connection, path: Path, noted: bytes) -> LogLoss | None:
    """None if SQLite reads all that was committed. `noted` is the mark of the server before."""
    lost = dropped(connection, path)
    marked = marked_loss(path, frames_read(connection, path), Mark.decode(noted[:MARK_BYTES]))
    if marked or (lost is not None and marked is None and (lost.commits > 1 or not lost.frame)):
        return LogLoss(lost, acknowledged=True)
    return LogLoss(lost, acknowledged=False) if lost is not None else None


def check_own_log(path: Path) -> None:
    """Raises FileUnusable if the log beside the file is another one's. Before anything opens the file."""
    if foreign(path):
        raise FileUnusable(
            f"{path} is a backup, and {path}-wal is of the file that was there before: it would be written "
            f"into the backup; move {path}-wal and {path}-shm away"
        )


def check_meta(connection: sqlite3.Connection, path: Path) -> None:
    """Raises FileUnusable unless the schema and the row of `meta` are as they were written."""
    problem = meta_problem(connection)
    if problem is not None:
        raise damaged(path, problem)


def meta_problem(connection: sqlite3.Connection) -> str | None:
    """What is wrong with the schema or the row of `meta`."""
    if not _sealed(connection):
        return None
    weights = checksums.sum_sql(checksums.META)
    rows = connection.execute(f"SELECT check_sum IS ({weights}), schema_checksum FROM meta").fetchall()
    if len(rows) != 1 or not rows[0][0]:
        return META_DAMAGED
    return None if rows[0][1] == _schema_checksum(connection) else "its schema is not as it was written"


def seal(connection: sqlite3.Connection) -> None:
    """Makes the row of `meta` valid after a change, in the transaction of the change."""
    if _sealed(connection):
        weights = checksums.sum_sql(checksums.META)
        schema = _schema_checksum(connection)
        connection.execute(f"UPDATE meta SET check_sum = {weights}, schema_checksum = ?", (schema,))


def damaged(path: Path, what: str) -> FileUnusable:
    """Says what to do about a file that cannot be trusted as a whole."""
    return FileUnusable(
        f"{path} is damaged: {what}; `treadle check {path}` says what is lost, a backup is the way back"
    )


def _sealed(connection: sqlite3.Connection) -> bool:
    """Schema 1 had no checksums."""
    columns = connection.execute("SELECT name FROM pragma_table_info('meta')").fetchall()
    return ("check_sum",) in columns


def _schema_checksum(connection: sqlite3.Connection) -> int:
    return checksums.of_row(*(sql for (sql,) in connection.execute(_SCHEMA)))
