"""The engine inside the server process: who is driven, who waits, who is told."""

import asyncio
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import structlog

from treadle_server.core.accept import Ask
from treadle_server.core.decide import decide, wake_at
from treadle_server.core.errors import Reason, Refused
from treadle_server.core.kinds import TERMINAL, WAITING, StopReason, ThreadState
from treadle_server.core.outcomes import DriveFailed
from treadle_server.core.signals import Due
from treadle_server.core.state import State
from treadle_server.engine import patience
from treadle_server.engine.admission import Admission, Bounds, Candidate
from treadle_server.engine.damage import Damage, Lost
from treadle_server.engine.driver import Driver
from treadle_server.engine.journal import Head, Journal
from treadle_server.engine.quarantine import PACE, Pace, Quarantine
from treadle_server.engine.setbacks import Setbacks
from treadle_server.engine.steps import Steps
from treadle_server.engine.timers import Timers
from treadle_server.engine.waiters import Waiters
from treadle_server.ports.catalogue.threads import Threads
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
from treadle_server.ports.trials import Trials

_LOG = structlog.get_logger(__name__)
_RESTING = TERMINAL | WAITING | {ThreadState.PAUSED}
_NOT_WRITABLE = frozenset({Reason.DISK_FULL, Reason.STORE_UNAVAILABLE})
CONFLICTS_MAX = 5

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
        self,
        log: Log,
        journal: Journal,
        steps: Steps,
        clock: Clock,
        *,
        threads: Threads,
        trials: Trials,
        epoch: int,
        bounds: Bounds,
        pace: Pace = PACE,
    ) -> None:
        self._log = log
        self._journal = journal
        self._steps = steps
        self._clock = clock
        self._admission = Admission(bounds, self._run)
        self._drivers: dict[ThreadKey, Driver] = {}
        self._tasks: dict[ThreadKey, asyncio.Task[None]] = {}
        self._subjects: dict[ThreadKey, Subject] = {}
        self._until_rest = Waiters()
        self._until_end = Waiters()
        self._timers = Timers(clock, self._ring)
        self._quarantine = Quarantine(
            trials,
            epoch=epoch,
            again=self._again,
            nothing_runs=lambda: not self._drivers,
            nothing_waits=lambda: not self._admission.running_count and not self._admission.waiting_count,
            pace=pace,
        )
        self._damage = Damage(journal, threads, clock, self._session_of, self._lost)
        self._setbacks = Setbacks(self._admission, self._again, self._give_up)
        self._handed_over: dict[ThreadKey, Head] = {}
        """Heads of threads that run at once: their drivers need not read what was just written."""
        self._telling: set[ThreadKey] = set()
        """Threads with a record on its way that nobody waits for: while the disk is full, one each."""
        self._background: set[asyncio.Task[Any]] = set()
        self._left: dict[tuple[ThreadKey, type], asyncio.Task[Any]] = {}
        """What callers asked and no longer wait for: while the disk is full, one of a kind of each thread."""
        self.draining = False
        log.subscribe(self._committed)

    # What the port promises

    async def start(self, start: Start) -> None:
        self._refuse_draining()
        self._admission.check_room(start.key.tenant)
        head = self._journal.create(start.key, start.spec, start.row, start.request, start.ask)
        await patience.answer(self._in_background(self._finish_start(head, start)), self._log)

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
        """In a task of its own: a cancelled caller must leave no half of it undone."""
        self._refuse_draining()
        place = (key, type(ask))
        if place in self._left:
            self._log.check_writable()
        task = self._in_background(self._ask(key, ask, request))
        try:
            return await patience.answer(task, self._log)
        finally:
            if not task.done():
                self._left[place] = task
                task.add_done_callback(lambda _: self._left.pop(place, None))

    def _in_background(self, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    async def _ask(self, key: ThreadKey, ask: Ask, request: RequestRow | None = None) -> State:
        for _ in range(CONFLICTS_MAX):
            head = await self._damage.open(key)
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

    async def resting(self, key: ThreadKey) -> None:
        self._refuse_draining()
        await self._until_rest.wait(key)

    async def ended(self, key: ThreadKey) -> None:
        self._refuse_draining()
        await patience.wait(self._until_end.wait(key), self._log)

    def waiting(self, key: ThreadKey) -> Waiting | None:
        return self._admission.waiting(key)

    # What another server left

    async def begin(self) -> tuple[ThreadKey, ...]:
        """To be called before anything is offered: holds everybody back, and returns who is to come first."""
        self._admission.stopped = True
        guilty = await self._quarantine.begin(self._state_of)
        if guilty is not None:
            _LOG.error("thread_poisoned", thread=guilty.thread)
            await self._convict(guilty)
        return self._quarantine.first

    async def _convict(self, key: ThreadKey) -> None:
        """Its end is in memory then at least, and on its way: a full disk keeps no server from starting."""
        ending = self._in_background(
            self._tell(key, self._quarantine.recovered(self._clock.now(), guilty=True))
        )
        with suppress(Refused):
            await patience.answer(ending, self._log)

    async def _state_of(self, key: ThreadKey) -> State | None:
        """None for a thread that cannot be read: what becomes of it shows when it is taken up."""
        try:
            head = await self._journal.open(key)
        except (Fenced, StoreFailed):
            raise
        except Exception as error:
            _LOG.warning("trial_not_read", thread=key.thread, why=str(error) or type(error).__name__)
            return None
        self._journal.close(head)
        return head.state

    def begun(self) -> None:
        """All that another server left was offered: drives who may run."""
        if not self.draining:
            self._admission.stopped = False
            self._admission.admit()
            self._quarantine.begun()

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
        self._timers.arm_near(key, wake_at(state))

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
            self._in_background(self._tell(head.key, self._quarantine.recovered(self._clock.now())))
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
            state = await self._driven(candidate)
        except (Fenced, Lost):
            return  # nothing can be written any more: the process is about to end, or the thread has
        except (Conflict, Replayed, Refused) as refused:
            self._setbacks.refused(candidate, refused)
        except Exception:
            _LOG.exception("thread_not_driven", thread=key.thread)
            self._setbacks.faulted(candidate)
        else:
            self._stopped(state, candidate)
        finally:
            self._quarantine.left(key)

    async def _driven(self, candidate: Candidate) -> State | None:
        """Drives a thread as long as there is something to do; returns its state then.

        None for one that must wait for a turn of its own.
        """
        key = candidate.key
        head = self._handed_over.pop(key, None) or await self._damage.open(key)
        try:
            if self._quarantine.takes(candidate, head.state):
                return None
            await self._quarantine.pass_gate(key)
            if not self.draining:
                recovered = self._quarantine.recovered
                self._drivers[key] = Driver(head, self._journal, self._steps, self._clock, recovered)
                await self._drivers[key].run()
            return head.state
        except Exception:
            self._journal.drop(head)
            self._timers.arm_near(key, head.wake_at)  # a grace or deadline may be over before it runs again
            raise
        finally:
            self._drivers.pop(key, None)
            self._journal.close(head)

    # Who cannot go on

    def _give_up(self, candidate: Candidate) -> None:
        self._in_background(self._end_faulty(candidate))

    async def _end_faulty(self, candidate: Candidate) -> None:
        key = candidate.key
        try:
            await self._ask(key, DriveFailed(self._clock.now()))
            _LOG.error("thread_given_up", thread=key.thread)
        except (Fenced, Lost):
            return
        except Exception as error:
            if isinstance(error, Refused) and error.reason is Reason.THREAD_STATE_CONFLICT:
                self._gone(key, candidate.session)  # it has ended meanwhile
                return
            _LOG.exception("thread_not_ended", thread=key.thread)
            await self._end_by_row(candidate)

    async def _end_by_row(self, candidate: Candidate) -> None:
        """Its log can neither be read nor appended to."""
        fault = Refused(Reason.INTERNAL, "the server failed at reading the thread; its log says why")
        try:
            await self._damage.condemn(candidate.key, candidate.session, fault, StopReason.INTERNAL)
        except Fenced:
            return
        except Exception:
            _LOG.exception("thread_not_condemned", thread=candidate.key.thread)
            self._setbacks.retry(candidate)

    def condemn(self, key: ThreadKey, session: int, damage: Refused) -> None:
        """Ends a damaged thread by its row, and every wait for it, as soon as that can be written."""
        self._in_background(self._damage.condemn_found(key, session, damage))

    def _session_of(self, key: ThreadKey) -> int:
        subject = self._subjects.get(key)
        return subject.session if subject is not None else 0

    def _lost(self, key: ThreadKey, session: int, why: Refused) -> None:
        """The thread has ended by its row."""
        self._steps.feed.refuse(key, why)
        for waiters in (self._until_rest, self._until_end):
            waiters.fail(key, lambda: Refused(why.reason, why.message, metadata=why.metadata))
        self._gone(key, session)

    # Who came to rest

    def _stopped(self, state: State | None, candidate: Candidate) -> None:
        """A driver found nothing more to do, or the thread waits for a turn of its own (None)."""
        if state is not None:
            self._setbacks.forget(candidate.key)
        if self.draining:
            return
        if state is None:
            self._admission.rest(candidate.key)
            return
        if state.ended:
            self._gone(candidate.key, candidate.session)
            return
        self._admission.rest(candidate.key)
        if decide(state):
            self._again(candidate)
        else:
            self._timers.arm_near(candidate.key, wake_at(state))

    def _again(self, candidate: Candidate) -> None:
        if not self.draining:
            self._admission.offer(candidate)

    def _gone(self, key: ThreadKey, session: int) -> None:
        self._subjects.pop(key, None)
        self._setbacks.forget(key)
        self._timers.disarm(key)
        self._quarantine.forget(key)
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
            driver = self._drivers.get(unit.key)
            if driver is not None and unit.last >= driver.head.state.sequence:  # else it is ahead of the disk
                self._quarantine.looked_at(unit.key, driver.head.state)

    # Timers of threads that nobody drives

    def arm(self, key: ThreadKey, wake_at: int) -> None:
        """Looks at a thread at a time; a thread that is driven then looks after itself."""
        if key not in self._drivers and not self.draining:
            self._timers.arm(key, wake_at)

    def _ring(self, key: ThreadKey) -> None:
        if key not in self._drivers and key not in self._telling and not self.draining:
            self._in_background(self._tell(key, Due(self._clock.now())))

    async def _tell(self, key: ThreadKey, ask: Ask) -> None:
        """Records what nobody waits for."""
        self._telling.add(key)
        try:
            await self._ask(key, ask)
        except (Refused, Fenced, StoreFailed) as refused:
            _LOG.warning("not_recorded", thread=key.thread, ask=type(ask).__name__, why=str(refused))
        except Exception:
            _LOG.exception("recording_failed", thread=key.thread)
        finally:
            self._telling.discard(key)

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
        self._setbacks.draining = True
        self._timers.stop()
        for waiters in (self._until_rest, self._until_end):
            waiters.refuse(_draining)
        for driver in list(self._drivers.values()):
            driver.drain()
        await self._quarantine.drain()
        tasks: set[asyncio.Task[Any]] = {*self._tasks.values(), *self._background}
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=seconds)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)


def _draining() -> Refused:
    text = "the server is stopping; try another or again"
    return Refused(Reason.DRAINING, text, retry_after_micros=1_000_000)
