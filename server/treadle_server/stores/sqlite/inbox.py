"""Where units wait for the committer: filled on the event loop's thread, emptied by the committer's."""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from enum import Enum, auto
from itertools import islice
from queue import Empty, SimpleQueue
from typing import Any, Protocol

from treadle_server.ports.log import RequestRow
from treadle_server.stores.sqlite.statements import Statement

UNITS_MAX = 512
BACKGROUND_PATIENCE_SECONDS = 1.0
"""Background work gets a turn this often, however busy the foreground is."""


class Urgency(Enum):
    """What becomes of a unit while the store takes nothing."""

    REFUSABLE = auto()
    """A caller can ask again: refused at once."""
    PATIENT = auto()
    """It says what has happened already: kept, and written when that is possible."""
    URGENT = auto()
    """It ends something: written at once with the room that is kept for this."""


class Work(Protocol):
    """A unit as the committer sees it. Nobody changes it once it is taken."""

    @property
    def urgency(self) -> Urgency:
        """Asked only after the work was taken, except of what is REFUSABLE by its kind."""
        ...

    @property
    def thread(self) -> int:
        """Key of the thread whose log it appends to; 0 = none."""
        ...

    @property
    def request(self) -> RequestRow | None: ...

    @property
    def span(self) -> tuple[int, int]:
        """First and last sequence that it appends; the last is the smaller one when it appends nothing."""
        ...

    @property
    def byte_count(self) -> int:
        """About how much it writes."""
        ...

    def statements(self) -> Sequence[Statement]:
        """Called once, on the committer's thread, after the work was taken."""
        ...


class WorkTicket:
    """Work on its way to the disk. `error` and `answer` hold once it is `done`."""

    __slots__ = ("_waiters", "answer", "background", "done", "error", "statements", "work")

    def __init__(self, work: Work, *, background: bool = False) -> None:
        self.work = work
        self.background = background
        self.statements: Sequence[Statement] = ()
        self.done = False
        self.error: Exception | None = None
        self.answer: tuple[Any, ...] | None = None
        self._waiters: list[asyncio.Future[None]] = []

    async def wait(self) -> None:
        """As the port's Ticket. Every wait has a future of its own, so that cancelling one hurts no other."""
        if not self.done:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter
        if self.error is not None:
            raise self.error.with_traceback(None)  # it may be many tickets', and would collect their frames

    def resolve(self) -> None:
        """On the event loop's thread."""
        self.done = True
        self.statements = ()
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()


class Inbox:
    """Two queues in order of arrival. A ticket is in it, and may grow, until it is taken."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._foreground: dict[int, WorkTicket] = {}
        self._background: dict[int, WorkTicket] = {}
        self._background_due = 0.0
        self._bell: SimpleQueue[None] = SimpleQueue()
        self._idle = False
        self._closed: Exception | None = None

    def __len__(self) -> int:
        return len(self._foreground) + len(self._background)

    def put(self, ticket: WorkTicket, handle: object) -> Exception | None:
        """Queues a ticket, or says why not. `extend` finds it by the identity of `handle`."""
        with self._lock:
            if self._closed is not None:
                return self._closed
            queue = self._background if ticket.background else self._foreground
            assert id(handle) not in queue, "submitted twice"
            queue[id(handle)] = ticket
            if self._idle:
                self._idle = False
                self._bell.put(None)
        return None

    def extend(self, handle: object, grow: Callable[[], Any]) -> bool:
        """Calls `grow`, which must be quick, if the work with this handle is not taken yet."""
        with self._lock:
            if id(handle) not in self._foreground:
                return False
            grow()
            return True

    def close(self, reason: Exception) -> None:
        """Answers every later `put` with `reason`. What is in it can still be taken."""
        with self._lock:
            self._closed = reason
            self._bell.put(None)

    def take(self, timeout: float | None = None) -> list[WorkTicket] | None:
        """Everything in the foreground, else one of the background. Blocks; empty if nothing came within
        `timeout` seconds, None once closed and drained.
        """
        while True:
            with self._lock:
                overdue = bool(self._background) and time.monotonic() >= self._background_due
                if self._foreground and not overdue:
                    return _take_first(self._foreground, UNITS_MAX)
                if self._background:
                    return self._take_background()
                if self._closed is not None:
                    return None
                self._idle = True
            try:
                self._bell.get(timeout=timeout)
            except Empty:
                return []

    def take_background(self) -> list[WorkTicket]:
        """One more of the background, unless the foreground has work."""
        with self._lock:
            return [] if self._foreground or not self._background else self._take_background()

    def drain(self) -> list[WorkTicket]:
        """All that is left."""
        with self._lock:
            left = [*self._foreground.values(), *self._background.values()]
            self._foreground, self._background = {}, {}
            return left

    def _take_background(self) -> list[WorkTicket]:
        self._background_due = time.monotonic() + BACKGROUND_PATIENCE_SECONDS
        return _take_first(self._background, 1)


def _take_first(queue: dict[int, WorkTicket], count: int) -> list[WorkTicket]:
    if len(queue) <= count:
        taken = list(queue.values())
        queue.clear()
        return taken
    return [queue.pop(key) for key in list(islice(queue, count))]
