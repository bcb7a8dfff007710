"""Steers threads that exist: pauses and resumes them, hands them what people and callers give, ends them."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass

from treadle_server.core import signals as s
from treadle_server.core.accept import Ask
from treadle_server.core.kinds import ThreadState
from treadle_server.core.values import Content
from treadle_server.ports.clock import Clock
from treadle_server.ports.engine import Engine
from treadle_server.ports.log import Replayed
from treadle_server.services.background import Background
from treadle_server.services.keys import Identity
from treadle_server.services.requests import Asked, Replays
from treadle_server.services.thread_reads import ThreadReads, ThreadView, about, has_ended, is_condemned


@dataclass(frozen=True, slots=True)
class Completion:
    """How a caller wants a thread to end."""

    state: ThreadState
    output: Content | None
    """None leaves what there is."""
    reason: str = ""


class Controls:
    """All of it for one tenant at a time: a name of another tenant does not exist.

    What the state of the thread does not allow raises Refused(THREAD_STATE_CONFLICT), and changes nothing. A
    repeated call answers the thread as it is.
    """

    def __init__(self, *, reads: ThreadReads, replays: Replays, engine: Engine, clock: Clock) -> None:
        self._reads = reads
        self._replays = replays
        self._engine = engine
        self._clock = clock
        self._background = Background()

    async def pause(self, caller: Identity, name: str, reason: str, asked: Asked) -> ThreadView:
        """Durable on return; it may take effect only once nothing is in flight."""
        return await self._ask(caller, name, s.Pause(self._clock.now(), caller.principal, reason), asked)

    async def resume(self, caller: Identity, name: str, reason: str, asked: Asked) -> ThreadView:
        return await self._ask(caller, name, s.Resume(self._clock.now(), caller.principal, reason), asked)

    async def send_input(
        self, caller: Identity, name: str, content: Content, tool_call_id: str, asked: Asked
    ) -> ThreadView:
        """Answers a question, or steers when no call is named; durable on return."""
        ask = s.SendInput(self._clock.now(), content, tool_call_id, caller.principal)
        return await self._ask(caller, name, ask, asked)

    async def submit_tool_result(
        self, caller: Identity, name: str, tool_call_id: str, observation: str, asked: Asked, *, ok: bool
    ) -> ThreadView:
        """Gives what a client's tool gave, or what went wrong with it; durable on return."""
        ask = s.SubmitToolResult(self._clock.now(), tool_call_id, observation, ok, caller.principal)
        return await self._ask(caller, name, ask, asked)

    async def _ask(self, caller: Identity, name: str, ask: Ask, asked: Asked) -> ThreadView:
        async def act() -> None:
            row = await self._reads.row(caller, name)
            request = asked.row(resource=name, response=None, now=ask.now)
            with about(name):
                await self._engine.ask(row.key, ask, request)

        with suppress(Replayed):
            await self._replays.once(caller.tenant, asked, act)
        return await self._reads.get(caller, name, full=False)

    async def cancel(
        self, caller: Identity, name: str, reason: str, grace_micros: int, asked: Asked
    ) -> ThreadView:
        """Returns once the thread has really stopped."""
        ask = s.Cancel(self._clock.now(), caller.principal, reason, grace_micros)
        return await self._end(caller, name, ask, asked)

    async def complete(self, caller: Identity, name: str, wanted: Completion, asked: Asked) -> ThreadView:
        """Returns once the thread has really stopped."""
        now, principal = self._clock.now(), caller.principal
        ask = s.Complete(now, wanted.state, wanted.output, principal, wanted.reason)
        return await self._end(caller, name, ask, asked)

    async def _end(self, caller: Identity, name: str, ask: s.Cancel | s.Complete, asked: Asked) -> ThreadView:
        row = await self._reads.row(caller, name)
        request = asked.row(resource=name, response=None, now=ask.now)
        ended = self._background.start(self._engine.ended(row.key))
        try:
            await self._replays.check(caller.tenant, asked)
            with about(name):
                state = await self._engine.ask(row.key, ask, request)
                if not state.ended:
                    await ended
        except Replayed:
            await self._ended_before(caller, name, ended)
        finally:
            ended.cancel()
        return await self._reads.get(caller, name, full=True)

    async def _ended_before(self, caller: Identity, name: str, ended: "asyncio.Task[None]") -> None:
        """The same was asked before."""
        row = await self._reads.row(caller, name)
        if is_condemned(row):
            await self._reads.refuse_damage(row)
        if not has_ended(row):
            with about(name):
                await ended
