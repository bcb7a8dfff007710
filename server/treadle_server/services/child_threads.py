"""Makes the threads of agents that agents call: implements ports/children."""

from treadle_server.core.errors import Reason, Refused, not_found
from treadle_server.core.events import ParentCall, Trigger
from treadle_server.core.ids import child_id
from treadle_server.ports.catalogue.lineage import Lineage
from treadle_server.ports.catalogue.threads import ThreadRow, Threads
from treadle_server.ports.children import AgentCall
from treadle_server.services.agents import Agents
from treadle_server.services.keys import Identity
from treadle_server.services.requests import Asked
from treadle_server.services.subagents import input_of
from treadle_server.services.thread_starts import CalledBy, ThreadStarts, ThreadTemplate, Wish


class ChildThreads:
    """A child has what its parent's caller said of access and for notifications, and no session."""

    def __init__(self, starts: ThreadStarts, agents: Agents, threads: Threads, lineage: Lineage) -> None:
        self._starts = starts
        self._agents = agents
        self._threads = threads
        self._lineage = lineage

    async def begin(self, call: AgentCall) -> str:
        parent = await self._threads.get_by_key(call.key)
        if parent is None:
            raise not_found("Thread", "the thread that calls the agent")
        name = child_id(call.key.tenant, call.key.thread, call.call_id)
        if await self._made_before(parent, name):
            return f"threads/{name}"
        caller = Identity(call.key.tenant, "", call.principal, admin=False)
        agent = call.agent_version.partition("/versions/")[0]
        pinned = await self._agents.pinned(call.key.tenant, agent, call.agent_version)
        template = ThreadTemplate(
            agent=agent,
            agent_version=call.agent_version,
            session="",
            session_key="",
            input=input_of(call.arguments_json, pinned.input_schema_json),
            trigger=Trigger(triggered_by=f"threads/{parent.id}"),
            client_metadata=parent.client_metadata,
            parent_object=parent.parent_object,
            called_by=CalledBy(
                parent.key.thread, f"threads/{parent.id}", ParentCall(call.call_id, call.depth)
            ),
        )
        wish = Wish(caller, template, name, Asked(call.principal, ""), self._starts.allocate(caller))
        try:
            await self._starts.make(wish)
        except Refused as refused:
            if refused.reason is not Reason.RESOURCE_EXISTS or not await self._made_before(parent, name):
                raise
        return f"threads/{name}"

    async def _made_before(self, parent: ThreadRow, name: str) -> bool:
        """An attempt at this call made it; else whoever has that id is a thread of somebody else."""
        row = await self._threads.get(parent.key.tenant, name)
        ancestry = await self._lineage.of(row.key) if row is not None else None
        return ancestry is not None and ancestry.parent == parent.key.thread
