"""What is asked of threads, from the newest state to the disk."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import structlog

from treadle_server import failpoints
from treadle_server.core.accept import Ask
from treadle_server.core.errors import Reason, Refused
from treadle_server.core.signals import Decide
from treadle_server.core.state import State
from treadle_server.engine import patience
from treadle_server.engine.checks import Check
from treadle_server.engine.damage import Damage
from treadle_server.engine.journal import Head, Journal
from treadle_server.ports.log import Conflict, Fenced, Log, RequestRow, StoreFailed, ThreadKey

_LOG = structlog.get_logger(__name__)
_NOT_WRITABLE = frozenset({Reason.DISK_FULL, Reason.STORE_UNAVAILABLE})
CONFLICTS_MAX = 5

T = TypeVar("T")


class Asks:
    """Each is carried out in a task of its own: a cancelled caller must leave no half of it undone."""

    def __init__(
        self,
        log: Log,
        journal: Journal,
        damage: Damage,
        check: Check,
        *,
        changed: Callable[[Head, State], None],
        poke: Callable[[ThreadKey], object],
    ) -> None:
        """`changed` is called with what is durable, `poke` when a driver's head was lost."""
        self._log = log
        self._journal = journal
        self._damage = damage
        self._check = check
        self._changed = changed
        self._poke = poke
        self._telling: set[ThreadKey] = set()
        """Threads with a record on its way that nobody waits for: while the disk is full, one each."""
        self._tasks: set[asyncio.Task[Any]] = set()
        self._left: dict[tuple[ThreadKey, type], asyncio.Task[Any]] = {}
        """What callers asked and no longer wait for: while the disk is full, one of a kind of each thread."""

    @property
    def tasks(self) -> frozenset[asyncio.Task[Any]]:
        """Of what was spawned and is not done."""
        return frozenset(self._tasks)

    def spawn(self, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def ask(self, key: ThreadKey, ask: Ask, request: RequestRow | None = None) -> State:
        """For a caller, who waits no longer than `patience` says."""
        place = (key, type(ask))
        if place in self._left:
            self._log.check_writable()
        task = self.spawn(self.record(key, ask, request))
        try:
            return await patience.answer(task, self._log)
        finally:
            if not task.done():
                self._left[place] = task
                task.add_done_callback(lambda _: self._left.pop(place, None))

    def is_telling(self, key: ThreadKey) -> bool:
        return key in self._telling

    async def tell(self, key: ThreadKey, ask: Ask) -> None:
        """Records what nobody waits for."""
        self._telling.add(key)
        try:
            await self.record(key, ask)
        except (Refused, Fenced, StoreFailed) as refused:
            _LOG.warning("not_recorded", thread=key.thread, ask=type(ask).__name__, why=str(refused))
        except Exception:
            _LOG.exception("recording_failed", thread=key.thread)
        finally:
            self._telling.discard(key)

    async def record(
        self, key: ThreadKey, ask: Ask, request: RequestRow | None = None, letter: int = 0
    ) -> State:
        """Returns once it is durable, with the state then; the letter at that position is taken with it."""
        for _ in range(CONFLICTS_MAX):
            head = await self._damage.open(key)
            try:
                state = await self._record_on(head, ask, request, letter)
            except Conflict:
                continue
            finally:
                self._journal.close(head)
            if failpoints.ACTIVE and isinstance(ask, Decide):
                failpoints.hit("decision.after")
            self._changed(head, state)
            return state
        text = f"the thread's log was changed {CONFLICTS_MAX} times by others; try again"
        raise Refused(Reason.STORE_UNAVAILABLE, text, retry_after_micros=1_000_000)

    async def _record_on(self, head: Head, ask: Ask, request: RequestRow | None, letter: int) -> State:
        refusal: Refused | None = None
        try:
            self._check(head.state, ask)
            recorded = self._journal.record(head, ask, request=request, letter=letter)
        except Refused as refused:
            if refused.reason in _NOT_WRITABLE:
                raise
            recorded, refusal = self._journal.present(head), refused
        try:
            await self._journal.durable(head, recorded)
        finally:
            if head.lost:
                self._poke(head.key)
        if refusal is not None:
            raise refusal
        return recorded.state
