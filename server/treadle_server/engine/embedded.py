"""The engine inside the server process: who is driven, who waits, who is told."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import structlog

from treadle_server.core.accept import Ask
from treadle_server.core.decide import decide, due, quiet_at, wake_at, wants_history
from treadle_server.core.errors import Reason, Refused
from treadle_server.core.kinds import TERMINAL, WAITING, StopReason, ThreadState
from treadle_server.core.mail import Told
from treadle_server.core.outcomes import DriveFailed, HistoryRead
from treadle_server.core.signals import Due
from treadle_server.core.state import State
from treadle_server.engine import patience
from treadle_server.engine.admission import Admission, Bounds, Candidate
from treadle_server.engine.agent_calls import AgentCalls
from treadle_server.engine.asks import Asks
from treadle_server.engine.checks import Check
from treadle_server.engine.damage import Damage, Lost
from treadle_server.engine.driver import Driver
from treadle_server.engine.family import Family
from treadle_server.engine.forks import reviewed
from treadle_server.engine.history import History
from treadle_server.engine.journal import Head, Journal
from treadle_server.engine.mail import Postman
from treadle_server.engine.quarantine import PACE, Pace, Quarantine
from treadle_server.engine.setbacks import Setbacks
from treadle_server.engine.start_rates import StartRate, StartRates, start_rate
from treadle_server.engine.steps import Steps
from treadle_server.engine.subjects import Subject
from treadle_server.engine.timers import Timers
from treadle_server.engine.waiters import Waiters
from treadle_server.ports.catalogue.starts import Starts
from treadle_server.ports.catalogue.threads import Threads
from treadle_server.ports.children import Children
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
from treadle_server.ports.mail import Mailbox
from treadle_server.ports.trials import Trials

_LOG = structlog.get_logger(__name__)
_RESTING = TERMINAL | WAITING | {ThreadState.PAUSED}


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
        starts: Starts,
        mailbox: Mailbox,
        epoch: int,
        bounds: Bounds,
        check: Check,
        pace: Pace = PACE,
        history: History | None = None,
    ) -> None:
        """`check` is asked about what callers give to a thread, on the state that it would be accepted on."""
        self._log = log
        self._journal = journal
        self._steps = steps
        self._history = history
        self._clock = clock
        self._rates = StartRates(starts, clock, lambda: self._admission.admit())
        self._admission = Admission(bounds, self._run, self._rates)
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
        self._asks = Asks(log, journal, self._damage, check, changed=self._changed, poke=self._poke)
        self._setbacks = Setbacks(self._admission, self._again, self._give_up)
        self._agent_calls = AgentCalls(clock)
        self._family = Family(journal, self._damage, threads, clock)
        self._postman = Postman(mailbox, journal.codec, self._told, self._family.look, spawn=self._asks.spawn)
        self._handed_over: dict[ThreadKey, Head] = {}
        """Heads of threads that run at once: their drivers need not read what was just written."""
        self.draining = False
        log.subscribe(self._committed)

    # What the port promises

    async def start(self, start: Start) -> None:
        self._refuse_draining()
        if start.row.parent:  # it is there already, and waits for it
            self._refuse_for_ending(ThreadKey(start.key.tenant, start.row.parent))
        else:
            self._admission.check_room(start.key.tenant)
        head = self._journal.create(start, reviewed(self._steps, start))
        await patience.answer(self._asks.spawn(self._finish_start(head, start)), self._log)

    def _refuse_for_ending(self, parent: ThreadKey) -> None:
        """Nothing is begun any more for a thread that is to end; the store refuses it for one that has."""
        driver = self._drivers.get(parent)
        if driver is not None and driver.head.state.ending:
            raise Refused(Reason.THREAD_STATE_CONFLICT, "the thread that calls the agent is about to end")

    async def _finish_start(self, head: Head, start: Start) -> None:
        try:
            made = self._journal.present(head)
            await self._journal.durable(head, made)
            name = start.spec.agent_version.rpartition("/versions/")[0]
            subject = Subject(start.row.agent, name, start.row.session, start.session)
            if not made.state.ended:
                self.remember(head.key, subject)
            self._offer(head.key, made.state, subject)
        finally:
            if head.key in self._tasks:
                self._handed_over[head.key] = head
            else:
                self._journal.close(head)

    async def ask(self, key: ThreadKey, ask: Ask, request: RequestRow | None = None) -> State:
        self._refuse_draining()
        return await self._asks.ask(key, ask, request)

    async def _told(self, key: ThreadKey, ask: Told, letter: int) -> None:
        """What a thread was told is an ask as any other, and takes the letter with it."""
        await self._asks.record(key, self._family.heard(key, ask), letter=letter)

    def call_agents_by(self, children: Children) -> None:
        """Before anything is driven: who makes the threads of agents that are called."""
        self._agent_calls.children = children

    def deliver_mail(self) -> None:
        """Lets threads take what other threads tell them, as far as they have not."""
        self._postman.wake()

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
        ending = self._asks.spawn(
            self._asks.tell(key, self._quarantine.recovered(self._clock.now(), guilty=True))
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
            self.deliver_mail()

    # Who is driven

    @property
    def running_count(self) -> int:
        return self._admission.running_count

    @property
    def waiting_count(self) -> int:
        return self._admission.waiting_count

    def _offer(self, key: ThreadKey, state: State, subject: Subject | None) -> None:
        """Lets a thread run as soon as it may, if its durable state has anything to do."""
        if subject is None or not decide(state):
            self._timers.arm_near(key, wake_at(state))
            return
        limits = state.spec.limits
        rate = start_rate(limits, state.start_time)
        candidate = subject.candidate(key, limits.max_concurrent_threads, state.create_time, rate)
        self._subjects[key] = subject
        if self._may_begin(state):
            self._admission.offer(candidate)
            self._timers.arm_near(key, wake_at(state))
        else:
            self._hold_back(candidate, state)

    def enqueue(
        self, key: ThreadKey, subject: Subject, agent_max: int, since: int, rate: StartRate | None = None
    ) -> None:
        self._subjects[key] = subject
        self._admission.offer(subject.candidate(key, agent_max, since, rate))

    def _may_begin(self, state: State) -> bool:
        """False while further input is waited for, which is taken together with what there is."""
        now, at = self._clock.now(), wake_at(state)
        return not quiet_at(state) or bool(due(state, now)) or (at is not None and at <= now)

    def _hold_back(self, candidate: Candidate, state: State) -> None:
        """Until its timer lets it go. It is looked at once more then: there may have been further input."""
        self._admission.hold_back(candidate)
        at = wake_at(state)
        if not self.draining:
            self._timers.arm(candidate.key, quiet_at(state) if at is None else min(at, quiet_at(state)))

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
            self._asks.spawn(self._asks.tell(head.key, self._quarantine.recovered(self._clock.now())))
        else:
            if _gives_way(state) and head.key not in self._tasks:
                self._admission.leave(head.key, head.session)
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
            if not self._may_begin(head.state):
                return head.state
            await self._recall(head)
            if not self.draining:
                recovered = self._quarantine.recovered
                self._drivers[key] = Driver(
                    head, self._journal, self._steps, self._clock, recovered, self._agent_calls
                )
                await self._drivers[key].run()
            return head.state
        except Exception:
            self._journal.drop(head)
            self._timers.arm_near(key, head.wake_at)  # a grace or deadline may be over before it runs again
            raise
        finally:
            self._drivers.pop(key, None)
            self._journal.close(head)

    async def _recall(self, head: Head) -> None:
        """Records what was said earlier in the session: from then on the thread's own log tells it."""
        if self._history is None or self.draining or not wants_history(head.state):
            return
        found = await self._history.recalled(head.key.tenant, head.session, head.state.spec)
        if found is not None and wants_history(head.state):  # a caller may have ended it meanwhile
            self._journal.record(head, HistoryRead(self._clock.now(), found))

    # Who cannot go on

    def _give_up(self, candidate: Candidate) -> None:
        self._asks.spawn(self._end_faulty(candidate))

    async def _end_faulty(self, candidate: Candidate) -> None:
        key = candidate.key
        try:
            await self._asks.record(key, DriveFailed(self._clock.now()))
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
        self._asks.spawn(self._damage.condemn_found(key, session, damage))

    def _session_of(self, key: ThreadKey) -> int:
        subject = self._subjects.get(key)
        return subject.session if subject is not None else 0

    def _lost(self, key: ThreadKey, session: int, why: Refused) -> None:
        """The thread has ended by its row."""
        self._steps.feed.refuse(key, why)
        for waiters in (self._until_rest, self._until_end):
            waiters.fail(key, lambda: Refused(why.reason, why.message, metadata=why.metadata))
        self._gone(key, session)
        self.deliver_mail()

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
        if _gives_way(state):
            self._admission.leave(candidate.key, candidate.session)
        else:
            self._admission.rest(candidate.key)
        if not decide(state):
            self._timers.arm_near(candidate.key, wake_at(state))
        elif self._may_begin(state):
            self._again(candidate)
        else:
            self._hold_back(candidate, state)

    def _again(self, candidate: Candidate) -> None:
        if not self.draining:
            self._admission.offer(candidate)

    def _gone(self, key: ThreadKey, session: int) -> None:
        self._subjects.pop(key, None)
        self._setbacks.forget(key)
        self._timers.disarm(key)
        self._quarantine.forget(key)
        self._admission.leave(key, session)
        self._rates.forget(key)

    # Who is told

    def _committed(self, units: Sequence[Unit]) -> None:
        if any(unit.mail for unit in units):
            self.deliver_mail()
        for unit in units:
            if unit.projection is None:
                continue
            self._count_start(unit, unit.projection.start_time)
            state = ThreadState(unit.projection.state)
            if state in _RESTING:
                self._until_rest.release(unit.key)
            if state in TERMINAL:
                self._until_end.release(unit.key)
            driver = self._drivers.get(unit.key)
            if driver is not None and unit.last >= driver.head.state.sequence:  # else it is ahead of the disk
                self._quarantine.looked_at(unit.key, driver.head.state)

    def _count_start(self, unit: Unit, start_time: int | None) -> None:
        subject = self._subjects.get(unit.key)
        if unit.start_counts_micros and subject is not None and start_time is not None:
            self._rates.began(subject.agent, unit.key, start_time)

    # Timers of threads that nobody drives

    def arm(self, key: ThreadKey, wake_at: int) -> None:
        """Looks at a thread at a time; a thread that is driven then looks after itself."""
        if key in self._drivers or self.draining:
            return
        if not self._admission.holds_back(key):  # one that is has a timer, which comes no later
            self._timers.arm(key, wake_at)

    def _ring(self, key: ThreadKey) -> None:
        if self._admission.let_go(key):
            return
        if key not in self._drivers and not self._asks.is_telling(key) and not self.draining:
            self._asks.spawn(self._asks.tell(key, Due(self._clock.now())))

    # Stopping

    def _refuse_draining(self) -> None:
        if self.draining:
            raise _draining()

    async def drain(self, seconds: float) -> None:
        """Begins nothing more, gives calls that must not be repeated their time, and returns.

        Unfinished threads are left as a crash would leave them; who waits for one gets DRAINING.
        """
        self.draining = self._postman.draining = True
        self._admission.stopped = True
        self._setbacks.draining = True
        self._timers.stop()
        self._rates.stop()
        for waiters in (self._until_rest, self._until_end):
            waiters.refuse(_draining)
        for driver in list(self._drivers.values()):
            driver.drain()
        await self._quarantine.drain()
        tasks: set[asyncio.Task[Any]] = {*self._tasks.values(), *self._asks.tasks}
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=seconds)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)


def _gives_way(state: State) -> bool:
    """It was paused before it began, so nobody waits for it: not its session, nor those queued behind it."""
    return state.status is ThreadState.PAUSED and not state.start_time


def _draining() -> Refused:
    text = "the server is stopping; try another or again"
    return Refused(Reason.DRAINING, text, retry_after_micros=1_000_000)
