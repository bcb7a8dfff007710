"""A log whose commits a test holds back, refuses or cuts off."""

import asyncio
import sys
from collections.abc import Callable
from typing import Any

from treadle_server.core.errors import Reason
from treadle_server.ports.log import Log, OnCommitted, StoredRecord, ThreadKey, Ticket, Unit


class HeldTicket:
    """A unit that is given to the log below when the gate opens."""

    def __init__(self) -> None:
        self._given = asyncio.Event()
        self.below: Ticket | None = None

    @property
    def done(self) -> bool:
        return self.below is not None and self.below.done

    def give(self, below: Ticket) -> None:
        self.below = below
        self._given.set()

    async def wait(self) -> None:
        await self._given.wait()
        assert self.below is not None
        await self.below.wait()


class HeldLog:
    """Implements `ports.log.Log` over another. While it is held, units wait, and may grow, as in a queue."""

    def __init__(self, below: Log) -> None:
        self._below = below
        self._queue: dict[int, tuple[Unit, HeldTicket]] = {}
        self._hold_at = sys.maxsize
        self.units: list[Unit] = []
        """All that were submitted, in order."""

    def hold(self, *, after_units: int = 0) -> None:
        """From now on, or once so many more units were submitted."""
        self._hold_at = len(self.units) + after_units

    @property
    def waiting(self) -> int:
        """Units that are held back."""
        return len(self._queue)

    @property
    def held(self) -> bool:
        return len(self.units) >= self._hold_at

    def release(self) -> None:
        """Lets everything pass, from now on too."""
        self._hold_at = sys.maxsize
        while self._queue:
            self.release_one()

    def release_one(self) -> None:
        """Lets the oldest unit pass, and goes on holding the others."""
        unit, ticket = self._queue.pop(next(iter(self._queue)))
        ticket.give(self._below.submit(unit))

    def check_writable(self) -> None:
        self._below.check_writable()

    @property
    def blocked_by(self) -> Reason | None:
        return self._below.blocked_by

    def allocate_thread(self) -> int:
        return self._below.allocate_thread()

    def submit(self, unit: Unit) -> Ticket:
        held = self.held
        self.units.append(unit)
        if not held:
            return self._below.submit(unit)
        ticket = HeldTicket()
        self._queue[id(unit)] = (unit, ticket)
        return ticket

    def extend(self, unit: Unit, grow: Callable[[Unit], Any]) -> bool:
        if id(unit) in self._queue:
            grow(unit)
            return True
        return not self.held and self._below.extend(unit, grow)

    def subscribe(self, on_committed: OnCommitted) -> None:
        self._below.subscribe(on_committed)

    async def read(self, key: ThreadKey, after: int, limit: int) -> list[StoredRecord]:
        return await self._below.read(key, after, limit)

    async def last_sequence(self, key: ThreadKey) -> int:
        return await self._below.last_sequence(key)
