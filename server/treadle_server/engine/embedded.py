"""The engine inside the server process: who is driven, who waits, who is told."""

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import structlog

from treadle_server.core.accept import Ask
from treadle_server.core.decide import decide, wake_at
from treadle_server.core.errors import Reason, Refused
from treadle_server.core.kinds import TERMINAL, WAITING, ThreadState
from treadle_server.core.outcomes import Recovered
from treadle_server.core.signals import Due
from treadle_server.core.state import State
from treadle_server.engine.admission import Admission, Bounds, Candidate
from treadle_server.engine.driver import Driver
from treadle_server.engine.journal import Head, Journal
from treadle_server.engine.steps import Steps
from treadle_server.engine.waiters import Waiters
from treadle_server.ports.clock import Clock
from treadle_server.ports.engine import Start, Waiting
from treadle_server.ports.log import (
    Conflict,
    Fenced,
    Log,
    Replayed,
    RequestRow,
    StoreFailed,
    ThreadKey,
    Unit,
)

_LOG = structlog.get_logger(__name__)
_RESTING = TERMINAL | WAITING | {ThreadState.PAUSED}
_HOPELESS = frozenset({Reason.RECORD_CORRUPT, Reason.RESOURCE_NOT_FOUND})
RETRY_SECONDS = 1.0
"""How long a thread rests whose events the store would not take."""
FAULT_SECONDS = 30.0
FAULT_SECONDS_MAX = 3600.0
"""The same for one whose driver failed, doubled each time: a bug of ours, and likely to come again."""
CONFLICTS_MAX = 5
AHEAD_MICROS = 60 * 1_000_000
"""Timers due sooner are armed when their threads come to rest; the sweeper finds the others in time."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Subject:
    """What admission must know of a thread besides its state."""

    agent: int
    agent_name: str
    session: int
    session_name: str


class EmbeddedEngine:
    """Drives threads of one store in this process's event loop."""

    def __init__(
        self, log: Log, journal: Journal, steps: Steps, clock: Clock, *, epoch: int, bounds: Bounds
    ) -> None:
        self._journal = journal
        self._steps = steps
        self._clock = clock
        self._epoch = epoch
        self._admission = Admission(bounds, self._run)
        self._drivers: dict[ThreadKey, Driver] = {}
        self._tasks: dict[ThreadKey, asyncio.Task[None]] = {}
        self._subjects: dict[ThreadKey, Subject] = {}
        self._until_rest = Waiters()
        self._until_end = Waiters()
        self._timers: dict[ThreadKey, asyncio.TimerHandle] = {}
        self._handed_over: dict[ThreadKey, Head] = {}
        """Heads of threads that run at once: their drivers need not read what was just written."""
        self._faults: dict[ThreadKey, int] = {}
        """How often in a row the driver of a thread failed."""
        self._background: set[asyncio.Task[Any]] = set()
        self.draining = False
        log.subscribe(self._committed)

    # What the port promises

    async def start(self, start: Start) -> None:
        self._refuse_draining()
        self._admission.check_room(start.key.tenant)
        head = self._journal.create(start.key, start.spec, start.row, start.request, start.ask)
        await self._shielded(self._finish_start(head, start))

    async def _finish_start(self, head: Head, start: Start) -> None:
        try:
            made = self._journal.present(head)
            await self._journal.durable(head, made)
            name = start.spec.agent_version.rpartition("/versions/")[0]
            subject = Subject(start.row.agent, name, start.row.session, start.ask.session)
            self._offer(head.key, made.state, subject)
        finally:
            if head.key in self._tasks:
                self._handed_over[head.key] = head
            else:
                self._journal.close(head)

    async def ask(self, key: ThreadKey, ask: Ask, request: RequestRow | None = None) -> State:
        self._refuse_draining()
        return await self._shielded(self._ask(key, ask, request))

    async def _shielded(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs in a task of its own: a cancelled caller must leave no half of it undone."""
        return await asyncio.shield(self._in_background(work))

    def _in_background(self, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    async def _ask(self, key: ThreadKey, ask: Ask, request: RequestRow | None = None) -> State:
        for _ in range(CONFLICTS_MAX):
            head = await self._journal.open(key)
            try:
                state = await self._ask_head(head, ask, request)
            except Conflict:
                continue
            finally:
                self._journal.close(head)
            self._changed(head, state)
            return state
        text = f"the thread's log was changed {CONFLICTS_MAX} times by others; try again"
        raise Refused(Reason.STORE_UNAVAILABLE, text, retry_after_micros=1_000_000)

    async def _ask_head(self, head: Head, ask: Ask, request: RequestRow | None) -> State:
        refusal: Refused | None = None
        try:
            recorded = self._journal.record(head, ask, request=request)
        except Refused as refused:
            recorded, refusal = self._journal.present(head), refused
        try:
            await self._journal.durable(head, recorded)
        finally:
            if head.lost:
                self._poke(head.key)
        if refusal is not None:
            raise refusal
        return recorded.state

    async def resting(self, key: ThreadKey) -> None:
        self._refuse_draining()
        await self._until_rest.wait(key)

    async def ended(self, key: ThreadKey) -> None:
        self._refuse_draining()
        await self._until_end.wait(key)

    def waiting(self, key: ThreadKey) -> Waiting | None:
        return self._admission.waiting(key)

    # Who is driven

    @property
    def running_count(self) -> int:
        return self._admission.running_count

    @property
    def waiting_count(self) -> int:
        return self._admission.waiting_count

    def _offer(self, key: ThreadKey, state: State, subject: Subject | None) -> None:
        """Lets a thread run as soon as it may, if its durable state has anything to do."""
        if subject is not None and decide(state):
            self.enqueue(key, subject, state.spec.limits.max_concurrent_threads, state.create_time)
        self._arm_near(key, state)

    def enqueue(self, key: ThreadKey, subject: Subject, agent_max: int, since: int) -> None:
        self._subjects[key] = subject
        self._admission.offer(
            Candidate(
                key,
                subject.agent,
                subject.agent_name,
                subject.session,
                subject.session_name,
                agent_max,
                since,
            )
        )

    def remember(self, key: ThreadKey, subject: Subject) -> None:
        """Keeps what admission must know of a thread that waits for something outside."""
        self._subjects[key] = subject

    def hold_session(self, session: int, key: ThreadKey) -> None:
        self._admission.hold_session(session, key)

    def _poke(self, key: ThreadKey) -> bool:
        """Lets the driver of a thread look again; False when it has none."""
        driver = self._drivers.get(key)
        if driver is not None:
            driver.poke()
        return driver is not None

    def _changed(self, head: Head, state: State) -> None:
        """A caller's ask is durable, with this state: wakes the driver, or lets the thread run or leave."""
        if self._poke(head.key):
            return
        if state.ended:
            self._gone(head.key, head.session)
        elif state.ending and state.in_flight:  # by its log only: nobody runs these calls any more
            self._in_background(self._tell(head.key, Recovered(self._clock.now(), self._epoch)))
        else:
            self._offer(head.key, state, self._subjects.get(head.key))

    def _run(self, candidate: Candidate) -> None:
        task = asyncio.create_task(self._drive(candidate))
        self._tasks[candidate.key] = task
        task.add_done_callback(lambda _: self._forget(candidate.key, task))

    def _forget(self, key: ThreadKey, task: "asyncio.Task[None]") -> None:
        if self._tasks.get(key) is task:  # else the thread runs again already
            del self._tasks[key]

    async def _drive(self, candidate: Candidate) -> None:
        key = candidate.key
        try:
            state = await self._driven(key)
        except Fenced:
            return  # nothing can be written any more: the process is about to end
        except (Conflict, Replayed, Refused) as refused:
            _LOG.warning("events_refused", thread=key.thread, why=str(refused) or type(refused).__name__)
            hopeless = isinstance(refused, Refused) and refused.reason in _HOPELESS
            gives_way = isinstance(refused, Conflict)
            self._failed(candidate, None if hopeless else RETRY_SECONDS, gives_way=gives_way)
        except Exception:
            _LOG.exception("thread_not_driven", thread=key.thread)
            self._failed(candidate, self._fault(key))
        else:
            self._stopped(state, candidate)

    async def _driven(self, key: ThreadKey) -> State:
        """Drives a thread as long as there is something to do; returns its state then."""
        head = self._handed_over.pop(key, None) or await self._journal.open(key)
        try:
            if not self.draining:
                self._drivers[key] = Driver(head, self._journal, self._steps, self._clock, self._epoch)
                await self._drivers[key].run()
            return head.state
        except Exception:
            self._journal.drop(head)
            raise
        finally:
            self._drivers.pop(key, None)
            self._journal.close(head)

    def _failed(self, candidate: Candidate, retry_seconds: float | None, *, gives_way: bool = False) -> None:
        """A driver broke off. The thread runs again later if there is any hope.

        It keeps its session, unless the store may know another thread as the active one there.
        """
        if self.draining:
            return
        if gives_way:
            self._admission.leave(candidate.key, candidate.session)
        else:
            self._admission.rest(candidate.key)
        if retry_seconds is not None:
            asyncio.get_running_loop().call_later(retry_seconds, self._again, candidate)

    def _fault(self, key: ThreadKey) -> float:
        """Counts one more; how long to wait after it."""
        faults = self._faults[key] = self._faults.get(key, 0) + 1
        return min(FAULT_SECONDS_MAX, FAULT_SECONDS * 2.0 ** min(faults - 1, 16))

    def _stopped(self, state: State, candidate: Candidate) -> None:
        """A driver found nothing more to do."""
        self._faults.pop(candidate.key, None)
        if self.draining:
            return
        if state.ended:
            self._gone(candidate.key, candidate.session)
            return
        self._admission.rest(candidate.key)
        if decide(state):
            self._again(candidate)
        else:
            self._arm_near(candidate.key, state)

    def _again(self, candidate: Candidate) -> None:
        if not self.draining:
            self._admission.offer(candidate)

    def _gone(self, key: ThreadKey, session: int) -> None:
        self._subjects.pop(key, None)
        self._faults.pop(key, None)
        self._disarm(key)
        self._admission.leave(key, session)

    # Who is told

    def _committed(self, units: Sequence[Unit]) -> None:
        for unit in units:
            if unit.projection is None:
                continue
            state = ThreadState(unit.projection.state)
            if state in _RESTING:
                self._until_rest.release(unit.key)
            if state in TERMINAL:
                self._until_end.release(unit.key)

    # Timers of threads that nobody drives

    def arm(self, key: ThreadKey, wake_at: int) -> None:
        """Looks at a thread at a time; a thread that is driven then looks after itself."""
        if key in self._drivers or self.draining:
            return
        self._disarm(key)
        delay = max(0, wake_at - self._clock.now()) / 1e6
        self._timers[key] = asyncio.get_running_loop().call_later(delay, self._ring, key)

    def _arm_near(self, key: ThreadKey, state: State) -> None:
        at = wake_at(state)
        if at is not None and at <= self._clock.now() + AHEAD_MICROS:
            self.arm(key, at)

    def _disarm(self, key: ThreadKey) -> None:
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()

    def _ring(self, key: ThreadKey) -> None:
        self._timers.pop(key, None)
        if key not in self._drivers and not self.draining:
            self._in_background(self._tell(key, Due(self._clock.now())))

    async def _tell(self, key: ThreadKey, ask: Ask) -> None:
        """Records what nobody waits for."""
        try:
            await self._ask(key, ask)
        except (Refused, Fenced, StoreFailed) as refused:
            _LOG.warning("not_recorded", thread=key.thread, ask=type(ask).__name__, why=str(refused))
        except Exception:
            _LOG.exception("recording_failed", thread=key.thread)

    # Stopping

    def _refuse_draining(self) -> None:
        if self.draining:
            raise _draining()

    async def drain(self, seconds: float) -> None:
        """Begins nothing more, gives calls that must not be repeated their time, and returns.

        Unfinished threads are left as a crash would leave them; who waits for one gets DRAINING.
        """
        self.draining = True
        self._admission.stopped = True
        for key in list(self._timers):
            self._disarm(key)
        for waiters in (self._until_rest, self._until_end):
            waiters.refuse(_draining)
        for driver in list(self._drivers.values()):
            driver.drain()
        tasks: set[asyncio.Task[Any]] = {*self._tasks.values(), *self._background}
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=seconds)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)


def _draining() -> Refused:
    text = "the server is stopping; try another or again"
    return Refused(Reason.DRAINING, text, retry_after_micros=1_000_000)
