"""Drives one thread: starts what is wanted, stops what is no longer wanted, records outcomes."""

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from treadle_server import failpoints
from treadle_server.core import outcomes as o
from treadle_server.core.accept import Ask
from treadle_server.core.commands import CallAgent, CallModel, CallTool, Command
from treadle_server.core.decide import decide, due
from treadle_server.core.errors import Refused
from treadle_server.core.kinds import CallStatus, Effect
from treadle_server.core.signals import Due
from treadle_server.engine.agent_calls import AgentCalls
from treadle_server.engine.journal import Head, Journal
from treadle_server.engine.steps import Steps
from treadle_server.ports.clock import Clock
from treadle_server.ports.log import Conflict

_LOG = structlog.get_logger(__name__)
_CODE_DEADLINE_EXCEEDED = 4
_CODE_INTERNAL = 13
MODEL_TIMEOUT_MICROS = 600 * 1_000_000

_Answer = o.ModelReplied | o.ModelFailed | o.ToolReturned | o.ToolFailed | o.ChildStarted


class Running:
    """A call in flight, or one whose intent is on its way to the disk."""

    __slots__ = ("command", "deadline", "dispatched", "limit", "stopped", "task")

    def __init__(self, command: Command, task: "asyncio.Task[_Answer]", now: int, limit: int) -> None:
        self.command = command
        self.task = task
        self.limit = limit
        self.deadline = now + limit
        self.dispatched = False
        self.stopped = False

    def dispatch(self, now: int) -> None:
        """The call is made now: its time begins."""
        self.dispatched = True
        self.deadline = now + self.limit

    def stop(self) -> None:
        """Asks it to stop, once: a second cancellation would hit what it does to stop."""
        if not self.stopped:
            self.stopped = True
            self.task.cancel()


class Driver:
    """The one task that makes a thread go on. It ends when nothing is wanted and nothing runs."""

    def __init__(
        self,
        head: Head,
        journal: Journal,
        steps: Steps,
        clock: Clock,
        recovered: Callable[[int], o.Recovered],
        agents: AgentCalls,
    ) -> None:
        """`recovered` makes what to record, at a time, of a thread whose calls nobody runs."""
        self.head = head
        self._journal = journal
        self._steps = steps
        self._clock = clock
        self._recovered = recovered
        self._agents = agents
        self._running: dict[str, Running] = {}
        self._done: list[Running] = []
        self._wake: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0
        self._draining = False

    def poke(self) -> None:
        """Something may have changed: look again."""
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    def drain(self) -> None:
        """Begin nothing more and end: only calls that must not be repeated are still waited for."""
        self._draining = True
        self.poke()

    async def run(self) -> None:
        """Returns when the thread has ended or waits, durably. Raises what the store raises.

        Conflict: the head was dropped, or the log went on without it. Take the thread up again.
        """
        try:
            if self.head.state.in_flight:
                await self._take_up()
            while True:
                await self._work()
                state = self.head.state
                await self.head.durable()
                if self.head.state is state:  # else a caller asked something meanwhile
                    return
        finally:
            self._stop()

    async def _take_up(self) -> None:
        """A call may bring the server down before anything else is durable: that it began again must be."""
        now = self._clock.now()
        self._record(self._recovered(now))
        if not self._draining:
            self._begin_due(now)
        await self.head.durable()

    def _begin_due(self, now: int) -> None:
        """Records what the clock asks for, then the intents of what is wanted and due."""
        if self.head.wake_at is not None and self.head.wake_at <= now:
            self._record(Due(now))
        self._expire(now)
        if due(self.head.state, now):
            self._journal.begin(self.head, now)

    async def _work(self) -> None:
        """Returns when there is nothing to wait for."""
        loop = asyncio.get_running_loop()
        while self._step():
            self._wake = loop.create_future()
            if not self._done:
                await self._wake
            self._wake = None

    def _step(self) -> bool:
        """Does all that can be done without waiting; False when there is nothing to wait for."""
        if self.head.lost:
            raise Conflict
        self._take_outcomes()
        now = self._clock.now()
        if self._draining:
            return self._drop_repeatable()
        self._begin_due(now)
        wanted = decide(self.head.state)
        self._stop_unwanted(wanted)
        for command in sorted(wanted, key=_order):
            if command.begun and command.call_id not in self._running:
                self._start(command, now)
        if self.head.state.ended or not (wanted or self._running):
            return False
        self._arm(wanted, now)
        return True

    def _take_outcomes(self) -> None:
        done, self._done = self._done, []
        for running in done:
            self._running.pop(running.command.call_id, None)
            outcome = self._outcome(running)
            if outcome is not None:
                self._record(outcome, begin=not self._draining)
                if failpoints.ACTIVE:
                    failpoints.hit("result.after", self.head.state.iteration)

    def _outcome(self, running: Running) -> o.Outcome | None:
        if not running.task.cancelled():
            return running.task.result()
        if running.stopped:
            return o.Aborted(self._clock.now(), running.command.call_id, running.command.attempt)
        if self._draining:
            return None
        return _broken_off(running.command, self._clock.now())

    def _record(self, ask: Ask, *, begin: bool = False) -> None:
        try:
            self._journal.record(self.head, ask, begin=begin)
        except Refused as refused:
            _LOG.info(
                "late_outcome", thread=self.head.key.thread, ask=type(ask).__name__, why=refused.message
            )

    def _start(self, command: Command, now: int) -> None:
        work: Coroutine[Any, Any, _Answer]
        if isinstance(command, CallModel):
            work, limit = self._call_model(command), MODEL_TIMEOUT_MICROS
        elif isinstance(command, CallAgent):
            work, limit = self._call_agent(command), MODEL_TIMEOUT_MICROS
        else:
            work = self._call_tool(command)
            limit = self.head.state.spec.tool_by_name[command.name].timeout_micros
        running = Running(command, asyncio.create_task(work), now, limit)
        self._running[command.call_id] = running
        running.task.add_done_callback(lambda _: self._finished(running))

    async def _call_model(self, command: CallModel) -> _Answer:
        await self.head.durable()
        self._dispatch(command)
        return await self._steps.call_model(self.head, command)

    async def _call_tool(self, command: CallTool) -> _Answer:
        """Waits for the intent, and for a decision, which a crash can take as well."""
        approved = self.head.state.calls[command.call_id].approval is not None
        if approved or command.effect is not Effect.READ_ONLY:
            await self.head.durable()
        self._dispatch(command)
        return await self._steps.call_tool(self.head, command)

    async def _call_agent(self, command: CallAgent) -> _Answer:
        """Has no time limit of its own: it waits for the disk, and what it makes must not be forgotten."""
        await self.head.durable()
        self._check_wanted(command)
        return await self._agents.call(self.head, command)

    def _dispatch(self, command: Command) -> None:
        self._check_wanted(command).dispatch(self._clock.now())

    def _check_wanted(self, command: Command) -> Running:
        """Just before the call is made. The disk may have taken its time: no call for what is to end."""
        running, state = self._running.get(command.call_id), self.head.state
        if running is None:
            raise asyncio.CancelledError
        if state.ending or state.ended:
            running.stopped = True
            raise asyncio.CancelledError
        return running

    def _finished(self, running: Running) -> None:
        if self._running.get(running.command.call_id) is running:
            self._done.append(running)
            self.poke()
        elif not running.task.cancelled() and running.task.exception() is None:
            _LOG.info("late_result", thread=self.head.key.thread, call=running.command.call_id)

    def _stop_unwanted(self, wanted: frozenset[Command]) -> None:
        """A call of an agent is let finish: what it makes must be known, so that its end is waited for."""
        call_ids = {command.call_id for command in wanted}
        for call_id, running in self._running.items():
            making = isinstance(running.command, CallAgent)
            if call_id not in call_ids and not making and not running.task.done():
                running.stop()

    def _expire(self, now: int) -> None:
        """Gives up calls that are over their time, whether or not they let themselves be stopped."""
        for call_id, running in list(self._running.items()):
            if running.deadline > now or running.task.done():
                continue
            if not running.dispatched:  # nobody was called yet: the disk is full, or slow
                running.deadline = now + running.limit
                continue
            del self._running[call_id]
            running.stop()
            self._record(_timed_out(running.command, now), begin=True)

    def _drop_repeatable(self) -> bool:
        for call_id, running in list(self._running.items()):
            if _repeatable(running.command):
                del self._running[call_id]
                running.stop()
        return bool(self._running)

    def _arm(self, wanted: frozenset[Command], now: int) -> None:
        times = [command.not_before for command in wanted if not command.begun]
        times.extend(running.deadline for running in self._running.values())
        if self.head.wake_at is not None:
            times.append(self.head.wake_at)
        at = min(times)
        if self._timer is not None:
            if self._timer_at <= at:
                return
            self._timer.cancel()
        self._timer_at = at
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(max(0, at - now) / 1e6 + 0.001, self._ring)

    def _ring(self) -> None:
        self._timer = None
        self.poke()

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for running in self._running.values():
            running.stop()
        self._running.clear()


def _order(command: Command) -> tuple[int, str]:
    return len(command.call_id), command.call_id


def _repeatable(command: Command) -> bool:
    return not isinstance(command, CallTool) or command.effect is not Effect.AT_MOST_ONCE


def _timed_out(command: Command, now: int) -> o.ModelFailed | o.ToolFailed:
    text = "no answer within the time limit of the call"
    return _failed(command, now, CallStatus.TIMED_OUT, _CODE_DEADLINE_EXCEEDED, text)


def _broken_off(command: Command, now: int) -> o.ModelFailed | o.ToolFailed:
    """An adapter let itself be cancelled by something else than us."""
    return _failed(command, now, CallStatus.FAILED, _CODE_INTERNAL, "the call was broken off")


def _failed(
    command: Command, now: int, status: CallStatus, code: int, text: str
) -> o.ModelFailed | o.ToolFailed:
    call_id, attempt, jitter = command.call_id, command.attempt, random.random()
    if isinstance(command, CallModel):
        return o.ModelFailed(now, call_id, attempt, code, text, retryable=True, jitter=jitter)
    retryable = _repeatable(command)
    return o.ToolFailed(now, call_id, attempt, status, text, retryable, jitter=jitter)
