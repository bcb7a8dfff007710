"""The engine inside the server process: who is driven, who waits, who is told."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from treadle_server.core.accept import Ask
from treadle_server.core.decide import decide
from treadle_server.core.errors import Reason, Refused
from treadle_server.core.kinds import TERMINAL, WAITING, ThreadState
from treadle_server.core.signals import Due
from treadle_server.core.state import State
from treadle_server.engine.admission import Admission, Bounds, Candidate
from treadle_server.engine.driver import Driver
from treadle_server.engine.journal import Head, Journal, durable
from treadle_server.engine.steps import Steps
from treadle_server.ports.clock import Clock
from treadle_server.ports.engine import Start, Waiting
from treadle_server.ports.log import Conflict, Fenced, Log, RequestRow, ThreadKey, Unit

_LOG = structlog.get_logger(__name__)
_RESTING = TERMINAL | WAITING | {ThreadState.PAUSED}
RETRY_SECONDS = 1.0
"""How long a thread rests whose events the store would not take."""
CONFLICTS_MAX = 5


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
        self._rest_waiters: dict[ThreadKey, list[asyncio.Future[None]]] = {}
        self._end_waiters: dict[ThreadKey, list[asyncio.Future[None]]] = {}
        self._timers: dict[ThreadKey, asyncio.TimerHandle] = {}
        self._handed_over: dict[ThreadKey, Head] = {}
        """Heads of threads that run at once: their drivers need not read what was just written."""
        self._background: set[asyncio.Task[None]] = set()
        self.draining = False
        log.subscribe(self._committed)

    # What the port promises

    async def start(self, start: Start) -> None:
        self._refuse_draining()
        head = self._journal.create(start.key, start.spec, start.row, start.request, start.ask)
        task = asyncio.create_task(self._finish_start(head, start))
        await asyncio.shield(task)

    async def _finish_start(self, head: Head, start: Start) -> None:
        """Runs in a task of its own: a cancelled caller must not keep a durable thread from running."""
        try:
            await durable(self._journal, head)
            origin = start.ask
            name = start.spec.agent_version.rpartition("/versions/")[0]
            self.offer(head, Subject(start.row.agent, name, start.row.session, origin.session))
        finally:
            if head.key in self._tasks:
                self._handed_over[head.key] = head
            else:
                self._journal.close(head)

    async def ask(self, key: ThreadKey, ask: Ask, request: RequestRow | None = None) -> State:
        self._refuse_draining()
        return await asyncio.shield(asyncio.create_task(self._ask(key, ask, request)))

    async def _ask(self, key: ThreadKey, ask: Ask, request: RequestRow | None = None) -> State:
        for attempt in range(1, CONFLICTS_MAX + 1):
            head = await self._journal.open(key)
            try:
                draft = self._journal.record(head, ask, request=request)
                await durable(self._journal, head)
            except Conflict:
                if attempt == CONFLICTS_MAX:
                    raise
                continue
            finally:
                self._journal.close(head)
            self._changed(head)
            return draft.state
        raise AssertionError("unreachable")

    async def resting(self, key: ThreadKey) -> None:
        await self._wait(self._rest_waiters, key)

    async def ended(self, key: ThreadKey) -> None:
        await self._wait(self._end_waiters, key)

    async def _wait(self, waiters: dict[ThreadKey, list[asyncio.Future[None]]], key: ThreadKey) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiters.setdefault(key, []).append(future)
        try:
            await future
        finally:
            remaining = waiters.get(key)
            if remaining is not None and future in remaining:
                remaining.remove(future)
                if not remaining:
                    del waiters[key]

    def waiting(self, key: ThreadKey) -> Waiting | None:
        return self._admission.waiting(key)

    # Who is driven

    @property
    def running_count(self) -> int:
        return self._admission.running_count

    @property
    def waiting_count(self) -> int:
        return self._admission.waiting_count

    def offer(self, head: Head, subject: Subject) -> None:
        """Lets a thread run as soon as it may, if there is anything for it to do."""
        state = head.state
        if state.ended or not decide(state):
            return
        self.enqueue(head.key, subject, state.spec.limits.max_concurrent_threads, state.create_time)

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

    def _changed(self, head: Head) -> None:
        """After a caller's ask: wakes the driver, or lets the thread run or leave."""
        key, driver = head.key, self._drivers.get(head.key)
        if driver is not None:
            driver.poke()
        elif head.state.ended:
            self._left(head)
        else:
            subject = self._subjects.get(key)
            if subject is not None:
                self.offer(head, subject)

    def _run(self, candidate: Candidate) -> None:
        task = asyncio.create_task(self._drive(candidate))
        self._tasks[candidate.key] = task
        task.add_done_callback(lambda _: self._tasks.pop(candidate.key, None))

    async def _drive(self, candidate: Candidate) -> None:
        key, again = candidate.key, False
        try:
            head = self._handed_over.pop(key, None) or await self._journal.open(key)
            try:
                again = await self._drive_head(head)
            finally:
                self._journal.close(head)
        except Fenced:
            return
        except Exception:
            _LOG.exception("thread_not_driven", thread=key.thread)
            again = True
        self._stopped(head.state if not again else None, candidate)

    async def _drive_head(self, head: Head) -> bool:
        """True when the store refused events and the thread is to be taken up again."""
        driver = Driver(head, self._journal, self._steps, self._clock, self._epoch)
        self._drivers[head.key] = driver
        try:
            await driver.run()
        except (Conflict, Refused) as refused:
            _LOG.warning("events_refused", thread=head.key.thread, why=str(refused) or type(refused).__name__)
            self._journal.drop(head)
            return True
        finally:
            del self._drivers[head.key]
        return False

    def _stopped(self, state: State | None, candidate: Candidate) -> None:
        """A driver ended: state is None when it has to be tried again."""
        if self.draining:
            return
        if state is None:
            self._admission.rest(candidate.key)
            loop = asyncio.get_running_loop()
            loop.call_later(RETRY_SECONDS, self._again, candidate)
        elif state.ended:
            self._subjects.pop(candidate.key, None)
            self._admission.leave(candidate.key, candidate.session)
        else:
            self._admission.rest(candidate.key)
            if decide(state):
                self._again(candidate)

    def _again(self, candidate: Candidate) -> None:
        if not self.draining:
            self._admission.offer(candidate)

    def _left(self, head: Head) -> None:
        self._subjects.pop(head.key, None)
        timer = self._timers.pop(head.key, None)
        if timer is not None:
            timer.cancel()
        self._admission.leave(head.key, head.session)

    # Who is told

    def _committed(self, units: Sequence[Unit]) -> None:
        for unit in units:
            if unit.projection is None:
                continue
            state = ThreadState(unit.projection.state)
            if state in _RESTING:
                _release(self._rest_waiters, unit.key)
            if state in TERMINAL:
                _release(self._end_waiters, unit.key)

    # Timers of threads that nobody drives

    def arm(self, key: ThreadKey, wake_at: int) -> None:
        """Looks at a thread at a time; a thread that is driven then looks after itself."""
        if key in self._drivers:
            return
        old = self._timers.pop(key, None)
        if old is not None:
            old.cancel()
        delay = max(0, wake_at - self._clock.now()) / 1e6
        self._timers[key] = asyncio.get_running_loop().call_later(delay, self._ring, key)

    def _ring(self, key: ThreadKey) -> None:
        self._timers.pop(key, None)
        if key in self._drivers or self.draining:
            return
        task = asyncio.create_task(self._due(key))
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _due(self, key: ThreadKey) -> None:
        try:
            await self._ask(key, Due(self._clock.now()))
        except (Refused, Conflict, Fenced) as refused:
            _LOG.warning("timer_refused", thread=key.thread, why=str(refused))

    # Stopping

    def _refuse_draining(self) -> None:
        if self.draining:
            raise Refused(
                Reason.DRAINING, "the server is stopping; try another or again", retry_after_micros=1_000_000
            )

    async def drain(self, seconds: float) -> None:
        """Begins nothing more, gives calls that must not be repeated their time, and returns.

        Unfinished threads are left as a crash would leave them.
        """
        self.draining = True
        self._admission.stopped = True
        for timer in self._timers.values():
            timer.cancel()
        for driver in list(self._drivers.values()):
            driver.drain()
        tasks = set(self._tasks.values()) | self._background
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=seconds)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)


def _release(waiters: dict[ThreadKey, list[asyncio.Future[None]]], key: ThreadKey) -> None:
    for future in waiters.pop(key, ()):
        if not future.done():
            future.set_result(None)
