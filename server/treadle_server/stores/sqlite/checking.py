"""Looks through a whole file without changing it: implements ports/inspection."""

import fcntl
import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from errno import EACCES, EPERM, EROFS
from pathlib import Path

from treadle_server.core.errors import Refused
from treadle_server.ports.catalogue.approvals import ApprovalRow
from treadle_server.ports.catalogue.threads import ThreadRow
from treadle_server.ports.log import Record, StoredRecord
from treadle_server.stores.sqlite import approvals, checksums, row_checks
from treadle_server.stores.sqlite.database import APPLICATION_ID, CORE_VERSION, newer
from treadle_server.stores.sqlite.lock import FileLock, FileLocked, FileUnusable
from treadle_server.stores.sqlite.memory_index import index_problems
from treadle_server.stores.sqlite.structure import (
    NEWEST_SCHEMA,
    UNREADABLE,
    LogLoss,
    check_own_log,
    log_loss,
    meta_problem,
)
from treadle_server.stores.sqlite.thread_rows import ROW, known_of

_FAULTS_MAX = 100
"""Of pages and indexes: a file with more of them is not to be mended by hand."""
_THREADS = "SELECT thread FROM threads WHERE thread > ? ORDER BY thread LIMIT 200"
_THREAD = ROW.format(threads="threads t") + "WHERE t.thread = ?"
_EVENTS = """
SELECT sequence, kind, body, private, checksum FROM events
WHERE tenant = ? AND thread = ? ORDER BY sequence"""
_SPEC = "SELECT body, checksum FROM specs WHERE tenant = ? AND digest = ?"
_TAGS = "SELECT tag FROM thread_tags WHERE thread = ? ORDER BY tag"
_LABELS = "SELECT label, value FROM thread_labels WHERE thread = ? ORDER BY label"
_COMMITS = "SELECT thread, min(first), max(last), sum(last - first + 1) FROM commits GROUP BY thread"
_EVENT_COUNT = """
SELECT count(*) FROM events e WHERE NOT EXISTS (
  SELECT 1 FROM threads t WHERE t.thread = e.thread AND t.tenant = e.tenant)"""


class SqliteInspection:
    """A file, read by one connection. While a server has it open, beside that server."""

    def __init__(
        self,
        path: Path,
        connection: sqlite3.Connection,
        lock: FileLock | None,
        *,
        served: bool,
        loss: LogLoss | None,
    ) -> None:
        self._path = path
        self._connection = connection
        self._lock = lock
        self._loss = loss
        self.served = served
        """A server has the file open, and goes on changing it."""
        self.gone_count = 0
        """Threads that expired or were deleted: of most only the row is left, and keeps the id taken."""
        self._counts: dict[str, int] = {"threads": 0, "events": 0}
        self._commits: dict[int, tuple[int, int, int]] = {}

    def counts(self) -> dict[str, int]:
        return dict(self._counts)

    def close(self) -> None:
        self._connection.close()
        if self._lock is not None:
            self._lock.release()

    def structure(self) -> Iterator[str]:
        if self._loss is not None:
            yield self._loss.told(self._path)
        try:
            yield from self._faults(_FAULTS_MAX)
            problem = meta_problem(self._connection)
            if problem is not None:
                yield f"structure: {problem}"
        except UNREADABLE as error:
            with suppress(*UNREADABLE):  # what breaks off a long search may leave the first fault to be found
                yield from self._faults(1)
            yield f"structure: {error}"

    def _faults(self, faults_max: int) -> Iterator[str]:
        """Of pages and indexes."""
        for (found,) in self._connection.execute(f"PRAGMA integrity_check({faults_max})").fetchall():
            if found != "ok":
                yield from (f"structure: {line}" for line in found.splitlines() if line[:3] != "***")

    def rows(self) -> Iterator[str]:
        for check in row_checks.ALL:
            found: list[str] = []
            with self._telling(check.table, found):
                for row in self._connection.execute(check.sql):
                    self._counts[check.table] = self._counts.get(check.table, 0) + 1
                    problem = check.problem(row)
                    if problem is not None:
                        yield problem
            yield from found
        found = []
        with self._telling("rows", found):
            for sql, what in row_checks.BROKEN_NAMES:
                for row in self._connection.execute(sql):
                    yield what.format(*row)
            ((strays,),) = self._connection.execute(_EVENT_COUNT)
            if strays:
                yield f"events: {strays} are of no thread"
            for thread, first, last, count in self._connection.execute(_COMMITS):
                self._commits[thread] = (first, last, count)
        yield from found
        found = []
        with self._telling("memory_index", found), self._moment():
            yield from index_problems(self._connection)
        yield from found

    def threads(self) -> Iterator[ThreadRow | str]:
        after, found = 0, list[str]()
        with self._telling("threads", found):
            while keys := self._connection.execute(_THREADS, (after,)).fetchall():
                after = keys[-1][0]
                for (key,) in keys:
                    yield from self._thread(key)
        yield from found

    def _thread(self, key: int) -> Iterator[ThreadRow | str]:
        """What is looked at before the next one is asked for is of one moment, however a server goes on."""
        found: list[str] = []
        with self._telling("threads", found), self._moment():
            row = self._connection.execute(_THREAD, (key,)).fetchone()
            thread = known_of(row) if row is not None else None
            if thread is not None:
                self._counts["threads"] += 1
                yield thread
                yield from self._beside(thread)
            elif row is not None:
                self.gone_count += 1
        yield from found

    @contextmanager
    def _moment(self) -> Iterator[None]:
        self._connection.execute("BEGIN")
        try:
            yield
        finally:
            self._connection.rollback()

    def _beside(self, row: ThreadRow) -> Iterator[str]:
        """What other tables say of a thread."""
        if row.damaged:
            return
        key = (row.key.thread,)
        tags = [tag for (tag,) in self._connection.execute(_TAGS, key)]
        labels = dict(self._connection.execute(_LABELS, key).fetchall())
        if tags != sorted(set(row.tags)) or labels != row.labels:
            yield "the tables of tags and labels do not have what its row has"
        wanted = (1, row.sequence, row.sequence)
        if self._commits.get(row.key.thread, (0, 0, 0)) != wanted and not self.served:
            yield f"the commits do not cover its {row.sequence} events once each"

    def records(self, row: ThreadRow) -> Iterator[StoredRecord | str]:
        expected, found = 0, list[str]()
        with self._telling(f"event {expected + 1}", found):
            for sequence, kind, body, private, checksum in self._connection.execute(
                _EVENTS, (row.key.tenant, row.key.thread)
            ):
                expected += 1
                self._counts["events"] += 1
                record = Record(kind, body, private)
                if sequence != expected:
                    yield f"event {expected} is missing"
                    return
                if checksums.of_record(sequence, record) != checksum:
                    yield f"event {sequence} is not as it was written"
                    return
                yield StoredRecord(sequence, record)
        yield from found

    def approvals(self, row: ThreadRow) -> dict[str, ApprovalRow]:
        with suppress(*UNREADABLE):
            rows = self._connection.execute(approvals.OF_THREAD, (row.key.thread,)).fetchall()
            return {found.id: found for found in map(approvals.approval_of, rows)}
        return {}

    def spec(self, row: ThreadRow) -> bytes | None:
        with suppress(sqlite3.DatabaseError):
            found = self._connection.execute(_SPEC, (row.key.tenant, row.spec_digest)).fetchone()
            if found is not None and checksums.of_row(row.spec_digest, found[0]) == found[1]:
                return bytes(found[0])
        return None

    @contextmanager
    def _telling(self, what: str, found: list[str]) -> Iterator[None]:
        """A page that cannot be read costs the rest of what is being read, and is told."""
        try:
            yield
        except (*UNREADABLE, json.JSONDecodeError, Refused) as error:
            found.append(f"{what}: cannot be read on: {error}")


def open_inspection(path: Path | str) -> SqliteInspection:
    """Opens a file to look at it, as its server if there is none. Nothing in it is changed.

    Raises FileUnusable for what is no file of ours, or of another schema than this release's.
    """
    file = Path(path).resolve()  # as its server, whose lock and log stand beside it
    if not file.is_file():
        raise FileUnusable(f"{file} is {'no file' if file.exists() else 'not there'}")
    lock, served = _locked(file)
    try:
        if not served:
            check_own_log(file)
        connection = _connect(file, alone=not served)
        try:
            loss = None if served else _loss(connection, file, lock)
            _require_ours(connection, file, loss)
        except BaseException:
            connection.close()
            raise
    except BaseException as error:
        if lock is not None:
            lock.release()
        if isinstance(error, OSError):
            raise FileUnusable(f"{file} cannot be read: {error.strerror}") from error
        raise
    return SqliteInspection(file, connection, lock, served=served, loss=loss)


def _loss(connection: sqlite3.Connection, path: Path, lock: FileLock | None) -> LogLoss | None:
    """None also where the file cannot be read at all: that is told by itself."""
    with suppress(*UNREADABLE):
        return log_loss(connection, path, lock.noted if lock is not None else b"")
    return None


def _locked(path: Path) -> tuple[FileLock | None, bool]:
    """The lock, and whether a server has it. Beside a backup there is none, and none is made."""
    if not Path(f"{path}-lock").exists():
        return None, False
    try:
        return FileLock.acquire(path), False
    except FileLocked:
        return None, True
    except OSError as error:
        if error.errno in (EACCES, EPERM, EROFS):
            return None, _held(path)
        raise FileUnusable(f"{path}-lock cannot be opened: {error.strerror}") from error


def _held(path: Path) -> bool:
    """Whether a server has the lock, where it can only be read."""
    with suppress(BlockingIOError), open(f"{path}-lock", "rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    return True


def _connect(path: Path, *, alone: bool) -> sqlite3.Connection:
    """Of a file whose log is empty nothing but the file is opened, so that nothing is made beside it."""
    log = Path(f"{path}-wal")
    immutable = alone and not (log.exists() and os.path.getsize(log))
    options = "mode=ro&immutable=1" if immutable else "mode=ro"
    try:
        connection = sqlite3.connect(f"{path.as_uri()}?{options}", uri=True, isolation_level=None)
    except sqlite3.Error as error:
        raise FileUnusable(f"{path} cannot be opened: {error}") from error
    connection.text_factory = checksums.lenient_text
    connection.execute("PRAGMA cell_size_check = ON")
    return connection


def _require_ours(connection: sqlite3.Connection, path: Path, loss: LogLoss | None) -> None:
    """Raises FileUnusable for what is no file of ours, or of another schema. What is ours and damaged is
    looked at all the same; only a log that is not read may make it seem another file than it is.
    """
    try:
        (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    except UNREADABLE as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_CORRUPT:
            raise FileUnusable(f"{path} is damaged: {error}; a backup is the way back") from error
        raise FileUnusable(f"{path} cannot be read: {error}") from error
    if application_id != APPLICATION_ID:
        raise FileUnusable(f"{path} is not a database of this program")
    try:
        row = connection.execute("SELECT schema, core FROM meta").fetchone()
        sealed = meta_problem(connection) is None
    except UNREADABLE as error:
        if loss is not None:
            raise FileUnusable(loss.told(path)) from error
        if str(error) == "no such table: meta":
            raise FileUnusable(f"{path} holds nothing yet: no server has finished making it") from error
        return
    if row is None:
        return
    schema, core = row
    if schema != NEWEST_SCHEMA and loss is not None:
        raise FileUnusable(loss.told(path))
    if schema > NEWEST_SCHEMA or (core > CORE_VERSION and sealed):
        raise newer(path, schema, core, NEWEST_SCHEMA)
    if schema != NEWEST_SCHEMA and sealed:
        raise FileUnusable(
            f"{path} has schema {schema}, this release checks schema {NEWEST_SCHEMA}: a server of this "
            "release brings an older file up to it"
        )
