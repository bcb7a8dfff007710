"""The step that makes the thread of an agent that is called."""

import asyncio
import random

from treadle_server import failpoints
from treadle_server.core import children as tree
from treadle_server.core import outcomes as o
from treadle_server.core.commands import CallAgent
from treadle_server.core.errors import Reason, Refused
from treadle_server.core.kinds import CallStatus
from treadle_server.core.text import clean
from treadle_server.engine.journal import Head
from treadle_server.engine.steps import ERROR_CHARACTERS_MAX, log_unexpected
from treadle_server.ports.children import AgentCall, Children
from treadle_server.ports.clock import Clock

AGAIN_SECONDS = 1.0
"""Between two looks whether the store takes a thread again."""
_NOT_WRITABLE = frozenset({Reason.DISK_FULL, Reason.STORE_UNAVAILABLE})


class AgentCalls:
    """From command to outcome; what the thread then does is told by mail."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.children: Children | None = None
        """None: this server makes no threads of agents."""

    async def call(self, head: Head, command: CallAgent) -> o.ChildStarted | o.ToolFailed:
        """Makes the thread, or finds that an attempt before has made it. Raises nothing."""
        origin, now = head.state.origin, self._clock.now
        assert origin is not None
        call = AgentCall(
            head.key,
            command.call_id,
            command.agent_version,
            command.arguments_json,
            tree.depth(head.state) + 1,
            origin.principal,
        )
        try:
            if failpoints.ACTIVE:
                failpoints.hit("child.before")
            thread = await self._begin(call)
            if failpoints.ACTIVE:
                failpoints.hit("child.after")
        except Refused as refused:
            return self._failed(command, refused.message, retryable=False)
        except Exception as error:
            log_unexpected(error, call_id=command.call_id)
            return self._failed(command, f"the agent was not called: {type(error).__name__}", retryable=True)
        return o.ChildStarted(now(), command.call_id, command.attempt, thread, command.agent_version)

    async def _begin(self, call: AgentCall) -> str:
        """While nothing can be written it is not known whether the thread is made: asks until it is."""
        if self.children is None:
            raise Refused(Reason.NOT_SUPPORTED, "this server calls no agents")
        while True:
            try:
                return await self.children.begin(call)
            except Refused as refused:
                if refused.reason is Reason.DRAINING:
                    raise asyncio.CancelledError from refused
                if refused.reason not in _NOT_WRITABLE:
                    raise
            await asyncio.sleep(AGAIN_SECONDS)

    def _failed(self, command: CallAgent, text: str, *, retryable: bool) -> o.ToolFailed:
        return o.ToolFailed(
            self._clock.now(),
            command.call_id,
            command.attempt,
            CallStatus.FAILED,
            clean(text[:ERROR_CHARACTERS_MAX]),
            retryable,
            jitter=random.random(),
        )
