"""The only writer: one thread that takes whole units, many to a transaction, and answers after COMMIT."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from treadle_server.core.errors import Reason
from treadle_server.stores.refusals import unavailable
from treadle_server.stores.sqlite.checkpoints import BOUNDS, Checkpoints, LogBounds
from treadle_server.stores.sqlite.database import Database
from treadle_server.stores.sqlite.delivery import Delivery, OnApplied, OnFatal
from treadle_server.stores.sqlite.faults import Fault, fault_of
from treadle_server.stores.sqlite.inbox import Inbox, Urgency, Work, WorkTicket
from treadle_server.stores.sqlite.outages import Outages
from treadle_server.stores.sqlite.reserve import Reserve
from treadle_server.stores.sqlite.retries import Retries
from treadle_server.stores.sqlite.transactions import Transactions
from treadle_server.stores.sqlite.unwritten import blame, failed, not_begun, verdict_on

BACKGROUND_SECONDS = 0.010
IDLE_SECONDS = 1.0
"""How often it looks whether the file is still this server's, and at a log that readers let grow."""


class Committer:
    """Owns the writing connection from `start` to the end of `close`. Its thread is never cancelled.

    Work is applied in the order of `submit`, foreground before background. `on_fatal` is called on the loop
    with Fenced or StoreFailed: nothing more will be written, and the process should end.

    In an outage (the disk is full, another process holds the lock, a reader has let the log grow to its
    bound) what is REFUSABLE is refused, and all else waits in its order and is tried again until it is
    written. When the disk is full the reserve is given up, and urgent units are written with it, each behind
    the others of its thread. It ends by itself, once the reserve can be made again and there is a proof that
    units are taken; where that did not last, the next one lasts longer.
    """

    def __init__(
        self,
        database: Database,
        on_fatal: OnFatal,
        *,
        reserve: Reserve | None = None,
        log_bounds: LogBounds = BOUNDS,
    ) -> None:
        self._inbox = Inbox()
        self._delivery = Delivery(self._inbox, on_fatal)
        self._transactions = Transactions(database, self._delivery)
        self._checkpoints = Checkpoints(database.connection, log_bounds)
        self._reserve = reserve if reserve is not None else Reserve(database.path, 0)
        self._outages = Outages(self._reserve)
        self._retries = Retries(
            self._outages,
            self._reserve,
            self._checkpoints,
            self._transactions,
            self._delivery,
            self._work_off,
        )
        self._look_at = 0.0
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._thread = threading.Thread(target=self._run, name="treadle-committer")
        if self._reserve.owed:
            self._outages.begin(Fault.FULL, "the reserve was needed to open the file")

    def start(self) -> None:
        self._thread.start()

    def subscribe(self, listener: OnApplied) -> None:
        """Calls `listener` on the loop after each COMMIT with the work that was applied, in order."""
        self._delivery.subscribe(listener)

    @property
    def failed(self) -> bool:
        """Nothing is written any more."""
        return self._delivery.failure is not None

    @property
    def commit_count(self) -> int:
        return self._transactions.commit_count

    @property
    def unit_count(self) -> int:
        """Units in those commits."""
        return self._transactions.unit_count

    @property
    def backlog(self) -> int:
        """Units that wait to be taken, or for the store to take them."""
        outage = self._outages.current
        return len(self._inbox) + (len(outage) if outage is not None else 0)

    def check_writable(self) -> None:
        """Raises Refused(DISK_FULL or STORE_UNAVAILABLE) while what is REFUSABLE is refused."""
        outage = self._outages.current
        if outage is not None:
            raise outage.refuse()

    @property
    def blocked_by(self) -> Reason | None:
        """The reason that `check_writable` would give, without refusing anybody."""
        outage = self._outages.current
        return outage.reason if outage is not None else None

    def submit(self, work: Work, *, handle: object | None = None, background: bool = False) -> WorkTicket:
        """Queues work. `extend` finds it by `handle`, which is the work itself when not given."""
        ticket = WorkTicket(work, background=background)
        outage = self._outages.current
        refusal: Exception | None = None
        if outage is not None and work.urgency is Urgency.REFUSABLE:
            refusal = outage.refuse()
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

    def _end(self) -> None:
        if not self._ended.done():
            self._ended.set_result(None)

    # What follows runs on the committer's thread.

    def _run(self) -> None:
        try:
            while not self.failed and (taken := self._inbox.take(self._patience())) is not None:
                self._work_on(taken)
                self._look()
            if not self.failed:
                self._finish()
        except Exception as error:  # only here: nobody may be told that a unit is durable after this
            self._delivery.fail(verdict_on(error))
        if self._outages.current is not None:
            self._retries.drop(self._outages.current)
        self._transactions.close()
        self._delivery.post(self._end)

    def _patience(self) -> float:
        """How long to wait for work."""
        outage = self._outages.current
        return IDLE_SECONDS if outage is None else max(0.0, outage.try_at - time.monotonic())

    def _work_on(self, taken: list[WorkTicket]) -> None:
        if self._outages.current is not None:
            self._retries.hold_out(self._outages.current, taken)
        elif taken:
            self._work_off(self._background(taken[0]) if taken[0].background else iter(taken))
        elif self._checkpoints.overgrown:
            self._checkpoints.shrink()

    def _look(self) -> None:
        if not self.failed and time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + IDLE_SECONDS
            self._transactions.check_file()

    def _finish(self) -> None:
        if self._outages.current is not None:
            self._retries.try_last(self._outages.current)
        if not self.failed:
            self._transactions.check_epoch()  # another server may be writing where this one would checkpoint
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
        if self._delivery.failure is not None:
            settled += not_begun(source, self._delivery.failure)
        if self._outages.current is not None:
            self._outages.current.forget(settled)
        self._delivery.settled(settled)
        batch.clear()
        if not self.failed:
            self._after(settled, left, source)

    def _abandon(self, batch: list[WorkTicket], source: Iterator[WorkTicket], error: Exception) -> None:
        """Nobody else would tell those who wait."""
        verdict = verdict_on(error)
        self._delivery.fail(verdict)
        for ticket in batch:
            ticket.error = verdict
        self._delivery.settled([*batch, *not_begun(source, verdict)])

    def _after(self, settled: list[WorkTicket], left: list[WorkTicket], source: Iterator[WorkTicket]) -> None:
        if left:
            assert self._outages.current is not None, "units are left only in an outage"
            self._retries.park(self._outages.current, [*left, *source])
            return
        self._checkpoints.after_commit(len(settled), sum(ticket.work.byte_count for ticket in settled))
        if self._checkpoints.at_bound and self._outages.current is None:
            self._delivery.settled(self._outages.begin(None).park(source))

    def _settle(self, batch: list[WorkTicket], source: Iterator[WorkTicket]) -> list[WorkTicket]:
        """Gives every ticket its outcome; returns the last ones of the batch if they have to wait for theirs.

        A fault of one unit costs the others a second run, alone.
        """
        fault = self._transactions.run(batch, source)
        if fault is None:
            return []
        if self._outages.begins_by(fault):
            return batch
        if len(batch) == 1:
            return self._settle_again(batch, fault)
        for place, ticket in enumerate(batch):
            if self._delivery.failure is not None:
                not_begun([ticket], self._delivery.failure)
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
        second = self._transactions.run(alone, iter(()))
        if second is None:
            self._delivery.fail(failed(fault))
        elif self._outages.begins_by(second):
            return alone
        else:
            alone[0].error = blame(second)
        return []
