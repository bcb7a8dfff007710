"""What becomes of an agent's threads when the agent goes."""

import asyncio

from treadle_server.core.errors import Reason, Refused
from treadle_server.core.kinds import TERMINAL, StopReason, ThreadState
from treadle_server.core.signals import Cancel
from treadle_server.core.transitions import allowed
from treadle_server.ports.catalogue.pages import Page, Position
from treadle_server.ports.catalogue.thread_queries import Condition, Operator, ThreadColumn, ThreadQuery
from treadle_server.ports.catalogue.threads import ThreadRow, Threads
from treadle_server.ports.clock import Clock
from treadle_server.ports.engine import Engine
from treadle_server.ports.log import ThreadKey

_UNFINISHED = tuple(
    int(state) for state in ThreadState if state not in TERMINAL and state is not ThreadState.UNSPECIFIED
)
_AT_ONCE = 64


class AgentThreads:
    """Finds and ends the threads of an agent that have not ended."""

    def __init__(self, threads: Threads, engine: Engine, clock: Clock) -> None:
        self._threads = threads
        self._engine = engine
        self._clock = clock

    async def refuse_unfinished(self, tenant: int, agent: int, name: str) -> None:
        """Raises Refused(THREAD_STATE_CONFLICT) if the agent has any."""
        page = await self._unfinished(tenant, agent, limit=1)
        for row in page.items:
            thread, state = f"threads/{row.id}", ThreadState(row.state)
            raise Refused(
                Reason.THREAD_STATE_CONFLICT,
                f"threads of {name} have not ended, {thread} is one; force cancels them",
                metadata={"current_state": state.name, "allowed": ",".join(allowed(state))},
                resource=("treadle.dev/Thread", thread),
            )

    async def end_all(self, tenant: int, agent: int, principal: str) -> None:
        """Asks each to end with AGENT_DISABLED; returns when all the asks are durable."""
        after: Position | None = None
        while True:
            page = await self._unfinished(tenant, agent, limit=_AT_ONCE, after=after)
            await asyncio.gather(*(self._end(row.key, principal) for row in page.items))
            after = page.next
            if after is None:
                return

    async def _end(self, key: ThreadKey, principal: str) -> None:
        ask = Cancel(
            self._clock.now(),
            principal,
            "its agent was disabled or deleted",
            stop_reason=StopReason.AGENT_DISABLED,
        )
        try:
            await self._engine.ask(key, ask)
        except Refused as refused:
            if refused.reason is not Reason.THREAD_STATE_CONFLICT:
                raise  # that one would have ended by itself meanwhile

    async def _unfinished(
        self, tenant: int, agent: int, *, limit: int, after: Position | None = None
    ) -> Page[ThreadRow]:
        conditions = (
            Condition(ThreadColumn.AGENT, Operator.EQUAL, agent),
            Condition(ThreadColumn.STATE, Operator.IN, _UNFINISHED),
        )
        return await self._threads.list(ThreadQuery(tenant, conditions, after=after, limit=limit))
