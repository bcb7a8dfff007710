"""The only writer: one thread that takes whole units, many to a transaction, and answers after COMMIT."""

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from treadle_server import failpoints
from treadle_server.ports.log import Fenced, StoreFailed
from treadle_server.stores.refusals import disk_full, record_corrupt, unavailable
from treadle_server.stores.sqlite.checkpoints import Checkpoints
from treadle_server.stores.sqlite.database import Database
from treadle_server.stores.sqlite.inbox import Inbox, Work, WorkTicket
from treadle_server.stores.sqlite.statements import REFUSALS, needs_savepoint

BYTES_MAX = 4 * 1024 * 1024
"""A transaction takes no more units once it has written so much."""
BACKGROUND_SECONDS = 0.010

OnApplied = Callable[[Sequence[Work]], None]
OnFatal = Callable[[Exception], None]


class Committer:
    """Owns the writing connection from `start` to the end of `close`. Its thread is never cancelled.

    Work is applied in the order of `submit`, foreground before background. `on_fatal` is called on the loop
    with Fenced or StoreFailed: nothing more will be written, and the process should end.
    """

    def __init__(self, database: Database, on_fatal: OnFatal) -> None:
        self._loop = asyncio.get_running_loop()
        self._epoch = database.epoch
        self._connection = database.connection
        self._cursor = database.connection.cursor()
        self._checkpoints = Checkpoints(database.connection)
        self._inbox = Inbox()
        self._on_fatal = on_fatal
        self._listeners: list[OnApplied] = []
        self._dead: Fenced | StoreFailed | None = None
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._thread = threading.Thread(target=self._run, name="treadle-committer")
        self.commit_count = 0
        self.unit_count = 0

    def start(self) -> None:
        self._thread.start()

    def subscribe(self, listener: OnApplied) -> None:
        """Calls `listener` on the loop after each COMMIT with the work that was applied, in order."""
        self._listeners.append(listener)

    @property
    def failed(self) -> bool:
        """Nothing is written any more."""
        return self._dead is not None

    @property
    def backlog(self) -> int:
        """Units that wait to be taken."""
        return len(self._inbox)

    def submit(self, work: Work, *, handle: object | None = None, background: bool = False) -> WorkTicket:
        """Queues work. `extend` finds it by `handle`, which is the work itself when not given."""
        ticket = WorkTicket(work, background=background)
        refusal = self._inbox.put(ticket, work if handle is None else handle)
        if refusal is not None:
            ticket.error = refusal
            ticket.resolve()
        return ticket

    def extend(self, handle: object, grow: Callable[[], Any]) -> bool:
        """Calls `grow` if the work submitted with this handle is not taken yet."""
        return self._inbox.extend(handle, grow)

    async def close(self) -> None:
        """Writes what is queued, checkpoints, and ends the thread. Work submitted later is refused."""
        self._inbox.close(unavailable("it is closed"))
        await asyncio.shield(self._ended)
        self._thread.join()

    def _deliver(self, batch: Sequence[WorkTicket]) -> None:
        applied = [ticket.work for ticket in batch if ticket.error is None]
        for listener in self._listeners if applied else ():
            try:
                listener(applied)
            except Exception as error:  # a faulty listener must not keep others from their answers
                context = {"message": f"{listener!r} failed after a commit", "exception": error}
                self._loop.call_exception_handler(context)
        for ticket in batch:
            ticket.resolve()

    def _end(self) -> None:
        if not self._ended.done():
            self._ended.set_result(None)

    # What follows runs on the committer's thread.

    def _run(self) -> None:
        try:
            while self._dead is None and (batch := self._inbox.take()):
                self._work_off(self._background(batch[0]) if batch[0].background else iter(batch))
            if self._dead is None:
                self._checkpoints.finish()
        except Exception as error:  # only here: nobody may be told that a unit is durable after this
            self._die(_failed(error))
        self._cursor.close()
        self._post(self._end)

    def _background(self, first: WorkTicket) -> Iterator[WorkTicket]:
        deadline = time.monotonic() + BACKGROUND_SECONDS
        yield first
        while time.monotonic() < deadline and (more := self._inbox.take_background()):
            yield from more

    def _work_off(self, source: Iterator[WorkTicket]) -> None:
        for first in source:
            batch = [first]
            self._settle(batch, source)
            if self._dead is not None:
                batch += _not_begun(source, self._dead)
            self._post(self._deliver, batch)
            if self._dead is None:
                self._checkpoints.after_commit(len(batch), sum(ticket.work.byte_count for ticket in batch))

    def _settle(self, batch: list[WorkTicket], source: Iterator[WorkTicket]) -> None:
        """Gives every ticket its outcome. A fault of one unit costs the others a second run, alone."""
        fault = self._transact(batch, source)
        if fault is not None and len(batch) == 1:
            batch[0].error = _blame(fault)
        elif fault is not None:
            for ticket in batch:
                if self._dead is not None:
                    _not_begun([ticket], self._dead)
                elif (own_fault := self._transact([ticket], iter(()))) is not None:
                    ticket.error = _blame(own_fault)

    def _transact(self, batch: list[WorkTicket], source: Iterator[WorkTicket]) -> Exception | None:
        """One transaction. `batch` grows from `source`. Returns a fault that is no outcome yet."""
        committing = False
        try:
            self._cursor.execute("BEGIN IMMEDIATE")
            self._check_epoch()
            self._apply(batch[0])
            byte_count = batch[0].work.byte_count
            while byte_count < BYTES_MAX and (ticket := next(source, None)) is not None:
                batch.append(ticket)
                self._apply(ticket)
                byte_count += ticket.work.byte_count
            if failpoints.ACTIVE:
                _pass_requests(batch)
                _pass_records("commit.before", batch)
            committing = True
            self._cursor.execute("COMMIT")
        except Exception as error:
            return self._judge(error, batch, committing=committing)
        self.commit_count += 1
        self.unit_count += len(batch)
        if failpoints.ACTIVE:
            _pass_records("commit.after", batch)
        return None

    def _check_epoch(self) -> None:
        (epoch,) = self._cursor.execute("SELECT epoch FROM meta").fetchone()
        if epoch != self._epoch:
            raise Fenced(f"the file is at epoch {epoch}, this server at {self._epoch}")

    def _apply(self, ticket: WorkTicket) -> None:
        ticket.error = ticket.answer = None
        ticket.statements = ticket.statements or ticket.work.statements()
        guarded = needs_savepoint(ticket.statements)
        if guarded:
            self._cursor.execute("SAVEPOINT unit")
        try:
            for statement in ticket.statements:
                ticket.answer = statement.apply(self._cursor) or ticket.answer
        except REFUSALS as refusal:
            ticket.error = refusal
            if guarded:
                self._cursor.execute("ROLLBACK TO unit")
        if guarded:
            self._cursor.execute("RELEASE unit")

    def _judge(self, error: Exception, batch: list[WorkTicket], *, committing: bool) -> Exception | None:
        """Nothing was committed, or nobody knows. Returns the error if it may be one unit's own."""
        self._roll_back()
        verdict = _verdict(error, committing=committing)
        if verdict is None:
            return error
        for ticket in batch:
            ticket.error = verdict
        if isinstance(verdict, Fenced | StoreFailed):
            self._die(verdict)
        return None

    def _roll_back(self) -> None:
        """SQLite has already rolled back after some errors, and then refuses to do it again."""
        try:
            if self._connection.in_transaction:
                self._cursor.execute("ROLLBACK")
        except sqlite3.Error as error:
            self._die(_failed(error))

    def _die(self, reason: Fenced | StoreFailed) -> None:
        if self._dead is not None:
            return
        self._dead = reason
        self._inbox.close(_refusal_after(reason))
        self._post(self._deliver, _not_begun(self._inbox.drain(), reason))
        self._post(self._on_fatal, reason)

    def _post(self, callback: Callable[..., object], *arguments: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *arguments)
        except RuntimeError:  # the loop is closed: nobody waits any more
            return


def _verdict(error: Exception, *, committing: bool) -> Exception | None:
    """What an error of a transaction means for all of its units; None if it may be the fault of one."""
    if isinstance(error, Fenced):
        return error
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return disk_full()
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return unavailable("another process holds its lock")
    if code == sqlite3.SQLITE_IOERR or committing:
        return _failed(error)
    return None


def _blame(fault: Exception) -> Exception:
    """The outcome of a unit that fails also alone. It was rolled back."""
    if getattr(fault, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return record_corrupt("a page")
    return _failed(fault)


def _failed(cause: Exception) -> StoreFailed:
    failure = StoreFailed(f"the store failed: {cause!r}")
    failure.__cause__ = cause
    return failure


def _refusal_after(reason: Fenced | StoreFailed) -> Exception:
    """Outcome of what was never begun: it is known that nothing was written."""
    return reason if isinstance(reason, Fenced) else unavailable("it has failed")


def _not_begun(tickets: Iterable[WorkTicket], reason: Fenced | StoreFailed) -> list[WorkTicket]:
    left = list(tickets)
    for ticket in left:
        ticket.error = _refusal_after(reason)
    return left


def _pass_requests(batch: Sequence[WorkTicket]) -> None:
    for ticket in batch:
        if ticket.error is None and ticket.work.request is not None:
            failpoints.hit("request.before")


def _pass_records(name: str, batch: Sequence[WorkTicket]) -> None:
    for ticket in batch:
        first, last = ticket.work.span
        if ticket.error is None and last >= first:
            failpoints.hit_range(name, first, last)
