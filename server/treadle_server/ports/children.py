"""Port: threads of agents that agents call."""

from dataclasses import dataclass
from typing import Protocol

from treadle_server.ports.log import ThreadKey


@dataclass(frozen=True, slots=True)
class AgentCall:
    """A call of an agent by a thread."""

    key: ThreadKey
    """The calling thread's."""
    call_id: str
    agent_version: str
    """`agents/{agent}/versions/{version}`."""
    arguments_json: str
    """As the tool's schema has it."""
    depth: int
    """Of the thread to make: how many are above it."""
    principal: str
    """Who made the first thread of the tree."""


class Children(Protocol):
    """Makes the threads of agents that are called."""

    async def begin(self, call: AgentCall) -> str:
        """Its name, `threads/{thread}`; durable on return. The same call makes one thread, however often it
        is asked. Raises Refused, and then none was made unless `may_take_effect` is in the metadata.
        """
        ...
