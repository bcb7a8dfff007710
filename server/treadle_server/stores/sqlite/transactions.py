"""One transaction for a group of units: begun, filled, committed, or rolled back and judged."""

import sqlite3
from collections.abc import Iterator, Sequence

from treadle_server import failpoints
from treadle_server.ports.log import Fenced, StoreFailed
from treadle_server.stores.sqlite.checkpoints import WAIT_SECONDS
from treadle_server.stores.sqlite.database import Database, waiting
from treadle_server.stores.sqlite.delivery import Delivery
from treadle_server.stores.sqlite.faults import Fault, fault_of
from treadle_server.stores.sqlite.inbox import WorkTicket
from treadle_server.stores.sqlite.place import Place
from treadle_server.stores.sqlite.statements import REFUSALS, needs_savepoint
from treadle_server.stores.sqlite.unwritten import failed

BYTES_MAX = 4 * 1024 * 1024
"""A transaction takes no more units once it has written so much."""


class Transactions:
    """Uses the writing connection on the committer's thread, one transaction at a time."""

    def __init__(self, database: Database, delivery: Delivery) -> None:
        self._epoch = database.epoch
        self._marker = database.marker
        self._connection = database.connection
        self._cursor = database.connection.cursor()
        self._place = Place(database.path)
        self._delivery = delivery
        self.commit_count = 0
        self.unit_count = 0

    def close(self) -> None:
        self._cursor.close()

    def run(self, batch: list[WorkTicket], source: Iterator[WorkTicket]) -> Exception | None:
        """One transaction. `batch` grows from `source`. Returns a fault that is no outcome yet; what is the
        end of everything is every ticket's outcome, and said to `delivery`.
        """
        committing = False
        try:
            self._cursor.execute("BEGIN IMMEDIATE")
            self.check_epoch()
            self._fill(batch, source)
            if failpoints.ACTIVE:
                _pass_requests("request.before", batch)
                _pass_records("commit.before", batch)
            committing = True
            self._cursor.execute("COMMIT")
        except Exception as error:
            return self._judge(error, batch, committing=committing)
        self._marker.write()
        self.commit_count += 1
        self.unit_count += len(batch)
        if failpoints.ACTIVE:
            _pass_requests("request.after", batch)
            _pass_records("commit.after", batch)
        return None

    def check_epoch(self) -> None:
        """Raises Fenced once another server has taken the file over."""
        ((epoch,),) = self._cursor.execute("SELECT epoch FROM meta").fetchall()
        if epoch != self._epoch:
            raise Fenced(
                f"another server has taken the file over: it is at epoch {epoch}, this server at "
                f"{self._epoch}; do not restart this one"
            )

    def check_file(self) -> None:
        """Raises Fenced also in a server that writes nothing: its readers must not be shown old states."""
        self._place.check()
        try:
            self.check_epoch()
        except sqlite3.Error as error:
            if fault_of(error) is Fault.STORE:
                raise

    def can_begin(self) -> bool:
        """Whether no other process holds the lock."""
        try:
            with waiting(self._connection, WAIT_SECONDS):
                self._cursor.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            if fault_of(error) is not Fault.BUSY:
                raise
            return False
        self._cursor.execute("ROLLBACK")
        return True

    def _fill(self, batch: list[WorkTicket], source: Iterator[WorkTicket]) -> None:
        self._apply(batch[0])
        byte_count = batch[0].work.byte_count
        while byte_count < BYTES_MAX and (ticket := next(source, None)) is not None:
            batch.append(ticket)
            self._apply(ticket)
            byte_count += ticket.work.byte_count

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
        """Nothing was committed, or nobody knows. Returns the error unless it is the end of everything."""
        self._roll_back()
        if not isinstance(error, Fenced) and fault_of(error, committing=committing) is not Fault.STORE:
            return error
        verdict = error if isinstance(error, Fenced) else self._end_by(error)
        for ticket in batch:
            ticket.error = verdict
        self._delivery.fail(verdict)
        return None

    def _end_by(self, error: Exception) -> Fenced | StoreFailed:
        """SQLite refuses to write a file that was moved away, too."""
        try:
            self._place.check()
        except Fenced as gone:
            return gone
        return failed(error)

    def _roll_back(self) -> None:
        """SQLite has already rolled back after some errors, and then refuses to do it again."""
        try:
            if self._connection.in_transaction:
                self._cursor.execute("ROLLBACK")
        except sqlite3.Error as error:
            self._delivery.fail(failed(error))


def _pass_requests(name: str, batch: Sequence[WorkTicket]) -> None:
    for ticket in batch:
        if ticket.error is None and ticket.work.request is not None:
            failpoints.hit(name)


def _pass_records(name: str, batch: Sequence[WorkTicket]) -> None:
    for ticket in batch:
        first, last = ticket.work.span
        if ticket.error is None and last >= first:
            failpoints.hit_range(name, first, last)
