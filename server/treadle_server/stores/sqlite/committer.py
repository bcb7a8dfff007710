"""The only writer: one thread that takes whole units, many to a transaction, and answers after COMMIT."""

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import structlog

from treadle_server import failpoints
from treadle_server.ports.log import Fenced, StoreFailed
from treadle_server.stores.refusals import unavailable
from treadle_server.stores.sqlite.checkpoints import BOUNDS, WAIT_SECONDS, Checkpoints, LogBounds
from treadle_server.stores.sqlite.database import Database, waiting
from treadle_server.stores.sqlite.faults import Fault, fault_of
from treadle_server.stores.sqlite.inbox import Inbox, Urgency, Work, WorkTicket
from treadle_server.stores.sqlite.place import Place
from treadle_server.stores.sqlite.reserve import Reserve
from treadle_server.stores.sqlite.stalls import Relapses, Stall
from treadle_server.stores.sqlite.statements import REFUSALS, needs_savepoint
from treadle_server.stores.sqlite.unwritten import blame, failed, not_begun, refusal_after

_LOG = structlog.get_logger(__name__)

BYTES_MAX = 4 * 1024 * 1024
"""A transaction takes no more units once it has written so much."""
BACKGROUND_SECONDS = 0.010
ROOM_BYTES = 1024 * 1024
"""A disk with so much free is not full, as long as nothing says the contrary."""
MISSES_MAX = 8
"""So many threads that need more room than there is are tried at once; the others need as much at least."""
IDLE_SECONDS = 1.0
"""How often it looks whether the file is still this server's, and at a log that readers let grow."""

OnApplied = Callable[[Sequence[Work]], None]
OnFatal = Callable[[Exception], None]


class Committer:
    """Owns the writing connection from `start` to the end of `close`. Its thread is never cancelled.

    Work is applied in the order of `submit`, foreground before background. `on_fatal` is called on the loop
    with Fenced or StoreFailed: nothing more will be written, and the process should end.

    While the store takes nothing (the disk is full, another process holds the lock, a reader has let the log
    grow to its bound) what is REFUSABLE is refused, and all else waits in its order and is tried again until
    it is written. When the disk is full the reserve is given up, and urgent units are written with it, each
    behind the others of its thread. It ends by itself, once the reserve can be made again and there is a
    proof that units are taken; where that did not last, the next one lasts longer.
    """

    def __init__(
        self,
        database: Database,
        on_fatal: OnFatal,
        *,
        reserve: Reserve | None = None,
        log_bounds: LogBounds = BOUNDS,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._epoch = database.epoch
        self._marker = database.marker
        self._connection = database.connection
        self._cursor = database.connection.cursor()
        self._checkpoints = Checkpoints(database.connection, log_bounds)
        self._reserve = reserve if reserve is not None else Reserve(database.path, 0)
        self._stall: Stall | None = None
        self._relapses = Relapses()
        self._place = Place(database.path)
        self._look_at = 0.0
        self._inbox = Inbox()
        self._on_fatal = on_fatal
        self._listeners: list[OnApplied] = []
        self._dead: Fenced | StoreFailed | None = None
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._thread = threading.Thread(target=self._run, name="treadle-committer")
        self.commit_count = 0
        self.unit_count = 0
        if self._reserve.owed:
            self._begin_stall(Fault.FULL, "the reserve was needed to open the file")

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
        """Units that wait to be taken, or for the store to take them."""
        stall = self._stall
        return len(self._inbox) + (len(stall) if stall is not None else 0)

    def check_writable(self) -> None:
        """Raises Refused(DISK_FULL or STORE_UNAVAILABLE) while what is REFUSABLE is refused."""
        stall = self._stall
        if stall is not None:
            raise stall.refuse()

    def submit(self, work: Work, *, handle: object | None = None, background: bool = False) -> WorkTicket:
        """Queues work. `extend` finds it by `handle`, which is the work itself when not given."""
        ticket = WorkTicket(work, background=background)
        stall = self._stall
        refusal: Exception | None = None
        if stall is not None and work.urgency is Urgency.REFUSABLE:
            refusal = stall.refuse()
        refusal = refusal or self._inbox.put(ticket, work if handle is None else handle)
        if refusal is not None:
            ticket.error = refusal
            ticket.resolve()
        return ticket

    def extend(self, handle: object, grow: Callable[[], Any]) -> bool:
        """Calls `grow` if the work submitted with this handle is not taken yet."""
        return self._inbox.extend(handle, grow)

    async def close(self) -> None:
        """Writes what is queued, checkpoints, and ends the thread. Work submitted later is refused.

        What waits for the store is tried once more and then dropped, as a crash would do.
        """
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
            while self._dead is None and (taken := self._inbox.take(self._patience())) is not None:
                self._work_on(taken)
                self._look()
            if self._dead is None:
                self._finish()
        except Exception as error:  # only here: nobody may be told that a unit is durable after this
            self._die(error if isinstance(error, Fenced) else failed(error))
        self._drop_waiting()
        self._cursor.close()
        self._post(self._end)

    def _patience(self) -> float:
        """How long to wait for work."""
        if self._stall is not None:
            return max(0.0, self._stall.try_at - time.monotonic())
        return IDLE_SECONDS

    def _work_on(self, taken: list[WorkTicket]) -> None:
        if self._stall is not None:
            self._hold_out(self._stall, taken)
        elif taken:
            self._work_off(self._background(taken[0]) if taken[0].background else iter(taken))
        elif self._checkpoints.overgrown:
            self._checkpoints.shrink()

    def _look(self) -> None:
        """Raises Fenced also in a server that writes nothing: its readers must not be shown old states."""
        if self._dead is not None or time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + IDLE_SECONDS
        self._place.check()
        try:
            self._check_epoch()
        except sqlite3.Error as error:
            if fault_of(error) is Fault.STORE:
                raise

    def _finish(self) -> None:
        if self._stall is not None:
            if self._has_room():
                self._work_off(iter(self._stall.all()))
            self._write_urgent(self._stall)
        if self._dead is None:
            self._check_epoch()  # another server may be writing where this one would checkpoint
            self._checkpoints.finish()
            self._reserve.give_up()  # for other programs, while no server runs

    def _background(self, first: WorkTicket) -> Iterator[WorkTicket]:
        deadline = time.monotonic() + BACKGROUND_SECONDS
        yield first
        while time.monotonic() < deadline and (more := self._inbox.take_background()):
            yield from more

    def _work_off(self, source: Iterator[WorkTicket]) -> None:
        """Settles units in order, until the source is at its end or the store takes no more."""
        for first in source:
            batch = [first]
            try:
                self._work_through(batch, source)
            except Exception as error:
                self._abandon(batch, source, error)
                raise

    def _work_through(self, batch: list[WorkTicket], source: Iterator[WorkTicket]) -> None:
        """Empties the batch as soon as somebody else cares for its outcomes."""
        left = [*self._settle(batch, source)]
        settled = batch[: len(batch) - len(left)]
        if self._dead is not None:
            settled += not_begun(source, self._dead)
        if self._stall is not None:
            self._stall.forget(settled)
        self._post(self._deliver, settled)
        batch.clear()
        if self._dead is None:
            self._after(settled, left, source)

    def _abandon(self, batch: list[WorkTicket], source: Iterator[WorkTicket], error: Exception) -> None:
        """Nobody else would tell those who wait."""
        verdict = error if isinstance(error, Fenced) else failed(error)
        self._die(verdict)
        for ticket in batch:
            ticket.error = verdict
        self._post(self._deliver, [*batch, *not_begun(source, verdict)])

    def _after(self, settled: list[WorkTicket], left: list[WorkTicket], source: Iterator[WorkTicket]) -> None:
        if left:
            assert self._stall is not None, "units are left only where the store takes none"
            self._post(self._deliver, self._stall.park([*left, *source]))
            self._make_room(self._stall)
            return
        self._checkpoints.after_commit(len(settled), sum(ticket.work.byte_count for ticket in settled))
        if self._checkpoints.at_bound and self._stall is None:
            self._post(self._deliver, self._begin_stall(None).park(source))

    def _settle(self, batch: list[WorkTicket], source: Iterator[WorkTicket]) -> list[WorkTicket]:
        """Gives every ticket its outcome; returns the last ones of the batch if they have to wait for theirs.

        A fault of one unit costs the others a second run, alone.
        """
        fault = self._transact(batch, source)
        if fault is None:
            return []
        if self._stalls(fault):
            return batch
        if len(batch) == 1:
            return self._settle_again(batch, fault)
        for place, ticket in enumerate(batch):
            if self._dead is not None:
                not_begun([ticket], self._dead)
            elif self._settle([ticket], iter(())):
                return batch[place:]
        return []

    def _settle_again(self, alone: list[WorkTicket], fault: Exception) -> list[WorkTicket]:
        """A unit that fails alone is at fault, unless the page that it met is whole when looked at again:
        SQLite calls a page damaged that the disk failed to read.
        """
        if fault_of(fault) is not Fault.DAMAGE:
            alone[0].error = blame(fault)
            return []
        second = self._transact(alone, iter(()))
        if second is None:
            self._die(failed(fault))
        elif self._stalls(second):
            return alone
        else:
            alone[0].error = blame(second)
        return []

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

    def _check_epoch(self) -> None:
        ((epoch,),) = self._cursor.execute("SELECT epoch FROM meta").fetchall()
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
        """Nothing was committed, or nobody knows. Returns the error unless it is the end of everything."""
        self._roll_back()
        if not isinstance(error, Fenced) and fault_of(error, committing=committing) is not Fault.STORE:
            return error
        verdict = error if isinstance(error, Fenced) else self._end_by(error)
        for ticket in batch:
            ticket.error = verdict
        self._die(verdict)
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
            self._die(failed(error))

    # While the store takes nothing.

    def _stalls(self, error: Exception) -> bool:
        """Whether an error says that nothing can be written for a time."""
        fault = fault_of(error)
        if fault not in (Fault.FULL, Fault.BUSY):
            return False
        if self._stall is None or self._stall.cause is not fault:
            self._begin_stall(fault, str(error))
        return True

    def _begin_stall(self, cause: Fault | None, why: str = "") -> Stall:
        """Or goes on with one for another cause."""
        stall = self._stall = self._stall or self._relapses.begin(cause)
        stall.cause, stall.why = cause, why
        self._tell(stall)
        return stall

    def _tell(self, stall: Stall) -> None:
        if self._relapses.tell(stall):
            figures = {"free_bytes": self._reserve.free_bytes, "reserve_bytes": self._reserve.byte_count}
            _LOG.error(stall.event, **figures, **({"why": stall.why} if stall.why else {}))

    def _make_room(self, stall: Stall) -> None:
        """What is in the log and can be moved makes room in it too."""
        if stall.cause is Fault.FULL and self._reserve.give_up():
            self._checkpoints.move()
            self._write_urgent(stall)

    def _hold_out(self, stall: Stall, taken: list[WorkTicket]) -> None:
        self._post(self._deliver, stall.park(taken))
        if not stall.crowded and any(ticket.work.urgency is Urgency.URGENT for ticket in taken):
            self._write_urgent(stall)
        if stall.due and self._dead is None:
            self._try_again(stall)
            stall.put_off()

    def _write_urgent(self, stall: Stall) -> None:
        """All together, which costs one sync; then thread by thread, past those that are too large."""
        groups = stall.urgent()
        self._write_group(stall, [ticket for group in groups for ticket in group])
        misses = 0
        for group in stall.urgent() if len(groups) > 1 else ():
            if misses < MISSES_MAX:
                misses += not self._write_group(stall, group)
        stall.crowded = bool(stall.urgent())

    def _write_group(self, stall: Stall, group: list[WorkTicket]) -> bool:
        before = stall.written_count
        if self._dead is None and stall.cause is not Fault.BUSY:  # each try would wait for the lock
            self._work_off(iter(group))
        return stall.written_count > before

    def _try_again(self, stall: Stall) -> None:
        self._tell(stall)
        before = stall.written_count
        takes = self._has_room() and (stall.cause is not Fault.BUSY or self._can_begin())
        if takes:
            self._work_off(iter(stall.all()))
        if self._dead is not None:
            return
        proven = stall.written_count > before or stall.cause is not Fault.FULL
        if len(stall):
            self._write_urgent(stall)
        elif takes and (proven or self._reserve.free_bytes >= ROOM_BYTES) and self._reserve.restore():
            self._end_stall(stall)

    def _can_begin(self) -> bool:
        try:
            with waiting(self._connection, WAIT_SECONDS):
                self._cursor.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            if fault_of(error) is not Fault.BUSY:
                raise
            return False
        self._cursor.execute("ROLLBACK")
        return True

    def _end_stall(self, stall: Stall) -> None:
        self._stall = None
        self._relapses.end()
        if stall.told:
            _LOG.warning(
                "store_writable",
                seconds=round(time.monotonic() - stall.since, 1),
                refused=stall.refused_count,
                written_late=stall.written_count,
                free_bytes=self._reserve.free_bytes,
            )

    def _has_room(self) -> bool:
        if self._checkpoints.at_bound:
            self._checkpoints.shrink()
        return not self._checkpoints.at_bound and self._reserve.has_room

    def _drop_waiting(self) -> None:
        """At the end, of the process or of the store."""
        if self._stall is None:
            return
        left = self._stall.all()
        for ticket in left:
            ticket.error = unavailable("it is closed") if self._dead is None else refusal_after(self._dead)
        if left:
            _LOG.warning("units_dropped", count=len(left))
        self._post(self._deliver, left)

    # The end.

    def _die(self, reason: Fenced | StoreFailed) -> None:
        if self._dead is not None:
            return
        self._dead = reason
        self._inbox.close(refusal_after(reason))
        self._post(self._deliver, not_begun(self._inbox.drain(), reason))
        self._post(self._on_fatal, reason)

    def _post(self, callback: Callable[..., object], *arguments: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *arguments)
        except RuntimeError:  # the loop is closed: nobody waits any more
            return


def _pass_requests(name: str, batch: Sequence[WorkTicket]) -> None:
    for ticket in batch:
        if ticket.error is None and ticket.work.request is not None:
            failpoints.hit(name)


def _pass_records(name: str, batch: Sequence[WorkTicket]) -> None:
    for ticket in batch:
        first, last = ticket.work.span
        if ticket.error is None and last >= first:
            failpoints.hit_range(name, first, last)
