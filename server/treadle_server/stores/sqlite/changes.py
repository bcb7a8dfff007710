"""Changes of catalogue rows on their way to the committer."""

from collections.abc import Sequence

from treadle_server.ports.clock import Clock
from treadle_server.ports.log import RequestRow
from treadle_server.stores.sqlite.committer import Committer
from treadle_server.stores.sqlite.database import PAGE_SIZE
from treadle_server.stores.sqlite.inbox import Urgency
from treadle_server.stores.sqlite.readers import Row
from treadle_server.stores.sqlite.statements import Answer, RefuseReplay, Statement, remember

CHANGED = Answer("SELECT changes()")
"""Stands last: the unit answers with how many rows the step before it changed."""


class Change:
    """A unit that appends to no log."""

    __slots__ = ("_statements", "request", "thread")

    def __init__(
        self, statements: Sequence[Statement], request: RequestRow | None, ends_thread: int = 0
    ) -> None:
        self._statements = statements
        self.request = request
        self.thread = ends_thread

    @property
    def urgency(self) -> Urgency:
        return Urgency.URGENT if self.thread else Urgency.REFUSABLE

    @property
    def span(self) -> tuple[int, int]:
        return 1, 0

    @property
    def byte_count(self) -> int:
        return PAGE_SIZE

    def statements(self) -> Sequence[Statement]:
        return self._statements


class Changes:
    """Makes units of statements and waits for them."""

    def __init__(self, committer: Committer, clock: Clock) -> None:
        self._committer = committer
        self._clock = clock

    async def apply(
        self,
        tenant: int,
        *steps: Statement,
        request: RequestRow | None = None,
        background: bool = False,
        ends_thread: int = 0,
    ) -> Row | None:
        """Durable on return, with the unit's answer. Raises what a step refuses; while there is no room
        Refused(DISK_FULL), at once, unless it ends a thread: then it waits.
        """
        statements: list[Statement] = list(steps)
        if request is not None:
            statements.insert(0, RefuseReplay(tenant, request, self._clock.now()))
            statements.append(remember(tenant, request))
        ticket = self._committer.submit(Change(statements, request, ends_thread), background=background)
        await ticket.wait()
        return ticket.answer

    async def work_off(self, step: Statement, *, rounds_max: int) -> int:
        """Repeats a background step that deletes a few rows until it finds none; how many it deleted."""
        deleted = 0
        for _ in range(rounds_max):
            answer = await self.apply(0, step, CHANGED, background=True)
            if answer is None or answer[0] == 0:
                break
            deleted += answer[0]
        return deleted
