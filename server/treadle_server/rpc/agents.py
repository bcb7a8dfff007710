"""Servicer of AgentService."""

from google.protobuf.message import Message

from treadle.v1 import agent_pb2, agent_service_pb2
from treadle_server.core.agent import AgentDefinition
from treadle_server.rpc import masks, names
from treadle_server.rpc.agent_filters import agent_query
from treadle_server.rpc.calls import Call
from treadle_server.rpc.digests import asked
from treadle_server.rpc.paging import page_size, place_of, position_of, token_of
from treadle_server.rpc.resources import agent_message, definition_of, version_message
from treadle_server.rpc.validation import validate_part
from treadle_server.services.access import check_reaches_all
from treadle_server.services.agent_lists import AgentLists
from treadle_server.services.agents import Agents, Change
from treadle_server.wire.messages import to_message

_pb = agent_service_pb2


class AgentServicer:
    """Reads, calls, answers."""

    def __init__(self, agents: Agents, lists: AgentLists) -> None:
        self._agents = agents
        self._lists = lists

    async def CreateAgent(self, request: _pb.CreateAgentRequest, call: Call) -> Message:
        agent = await self._agents.create(
            call.tenant,
            asked(request, call),
            definition_of(request.agent),
            agent_id=request.agent_id,
            validate_only=request.validate_only,
        )
        return agent_message(agent)

    async def GetAgent(self, request: _pb.GetAgentRequest, call: Call) -> Message:
        return agent_message(await self._agents.get(call.tenant, names.agent_id(request.name)))

    async def ListAgents(self, request: _pb.ListAgentsRequest, call: Call) -> Message:
        page = await self._lists.page(call.tenant, agent_query(request, place_of(request, call)))
        return _pb.ListAgentsResponse(
            agents=[agent_message(agent) for agent in page.agents],
            next_page_token=token_of(page.next, request, call),
            total_size=page.total,
        )

    async def UpdateAgent(self, request: _pb.UpdateAgentRequest, call: Call) -> Message:
        agent = await self._agents.update(
            call.tenant,
            asked(request, call),
            names.agent_id(request.agent.name),
            _allowed(_change(request), request.agent.name, call),
            etag=request.agent.etag,
            validate_only=request.validate_only,
        )
        return agent_message(agent)

    async def DeleteAgent(self, request: _pb.DeleteAgentRequest, call: Call) -> Message:
        if request.force:
            check_reaches_all(call.identity, f"all threads of {request.name}")
        agent = await self._agents.delete(
            call.tenant,
            asked(request, call),
            names.agent_id(request.name),
            etag=request.etag,
            force=request.force,
        )
        return agent_message(agent)

    async def UndeleteAgent(self, request: _pb.UndeleteAgentRequest, call: Call) -> Message:
        agent = await self._agents.undelete(
            call.tenant, asked(request, call), names.agent_id(request.name), etag=request.etag
        )
        return agent_message(agent)

    async def GetAgentVersion(self, request: _pb.GetAgentVersionRequest, call: Call) -> Message:
        agent_id, version = names.agent_version(request.name)
        return version_message(await self._agents.get_version(call.tenant, agent_id, version))

    async def ListAgentVersions(self, request: _pb.ListAgentVersionsRequest, call: Call) -> Message:
        page, total = await self._agents.list_versions(
            call.tenant,
            names.agent_id(request.parent),
            limit=page_size(request.page_size),
            after=position_of(request, call),
        )
        return _pb.ListAgentVersionsResponse(
            agent_versions=[version_message(version) for version in page.items],
            next_page_token=token_of(page.next, request, call),
            total_size=total,
        )

    async def RollbackAgent(self, request: _pb.RollbackAgentRequest, call: Call) -> Message:
        agent = await self._agents.rollback(
            call.tenant,
            asked(request, call),
            names.agent_id(request.name),
            request.version,
            etag=request.etag,
        )
        return agent_message(agent)


def _change(request: _pb.UpdateAgentRequest) -> Change:
    """What the mask makes of the present agent, checked as if it were new."""

    def wanted(present: AgentDefinition) -> AgentDefinition:
        message = agent_pb2.Agent()
        to_message(present, message)
        masks.apply(request.update_mask, request.agent, message)
        validate_part(message, "agent")
        return definition_of(message)

    return wanted


def _allowed(change: Change, name: str, call: Call) -> Change:
    """Who disables an agent ends its threads, so all of them must be in reach."""

    def wanted(present: AgentDefinition) -> AgentDefinition:
        definition = change(present)
        if definition.disabled and not present.disabled:
            check_reaches_all(call.identity, f"all threads of {name}")
        return definition

    return wanted
