"""Calls of AgentService."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict, Unpack

from google.protobuf.field_mask_pb2 import FieldMask

from treadle.calls import names
from treadle.calls.call import Pages, Unary, request_id_or_new
from treadle.v1 import agent_service_pb2 as rpc
from treadle.v1.agent_pb2 import (
    Agent,
    AgentLimits,
    AgentVersion,
    Document,
    EvaluationConfig,
    MemoryRule,
    ModelSettings,
    SessionPolicy,
)
from treadle.v1.approval_pb2 import ApprovalPolicy


class AgentFields(TypedDict, total=False):
    """Fields of an agent that a caller may set, named as in `Agent`."""

    display_name: str
    description: str
    image_uri: str
    labels: Mapping[str, str]
    disabled: bool
    model_settings: ModelSettings
    instructions: str
    tool_groups: Sequence[str]
    enabled_tools: Sequence[str]
    subagents: Sequence[str]
    documents: Sequence[Document]
    input_schema_json: str
    output_schema_json: str
    suggestions_enabled: bool
    limits: AgentLimits
    approval_policy: ApprovalPolicy
    on_unknown_outcome: Agent.UnknownOutcomePolicy.ValueType
    evaluation_config: EvaluationConfig
    memory_rules: Sequence[MemoryRule]
    session_policy: SessionPolicy


def create_agent(
    agent_id: str = "",
    *,
    model: str,
    request_id: str = "",
    validate_only: bool = False,
    **fields: Unpack[AgentFields],
) -> Unary[Agent]:
    """Makes an agent with its first version; without an id the server makes one."""
    request = rpc.CreateAgentRequest(
        agent=Agent(model=model, **fields),
        agent_id=agent_id,
        request_id=request_id_or_new(request_id),
        validate_only=validate_only,
    )
    return Unary(request, Agent)


def get_agent(agent: str) -> Unary[Agent]:
    """Answers an agent, also a deleted one."""
    return Unary(rpc.GetAgentRequest(name=names.agent(agent)), Agent)


def list_agents(
    *, filter: str = "", order_by: str = "", show_deleted: bool = False, page_size: int = 0
) -> Pages[Agent]:
    """Lists agents, newest first unless asked otherwise, and fetches pages as they are needed."""
    request = rpc.ListAgentsRequest(
        filter=filter, order_by=order_by, show_deleted=show_deleted, page_size=page_size
    )
    return Pages(request, rpc.ListAgentsResponse, lambda page: page.agents)


def update_agent(
    agent: str,
    *,
    model: str | None = None,
    etag: str = "",
    request_id: str = "",
    validate_only: bool = False,
    **fields: Unpack[AgentFields],
) -> Unary[Agent]:
    """Changes exactly the fields that are given, also to an empty value."""
    changed = Agent(name=names.agent(agent), etag=etag, **fields)
    paths = list(fields)
    if model is not None:
        changed.model = model
        paths.append("model")
    request = rpc.UpdateAgentRequest(
        agent=changed,
        update_mask=FieldMask(paths=paths),
        request_id=request_id_or_new(request_id),
        validate_only=validate_only,
    )
    return Unary(request, Agent)


def delete_agent(agent: str, *, force: bool = False, etag: str = "", request_id: str = "") -> Unary[Agent]:
    """Marks an agent as deleted; with `force` its threads that have not ended are cancelled."""
    request = rpc.DeleteAgentRequest(
        name=names.agent(agent), force=force, etag=etag, request_id=request_id_or_new(request_id)
    )
    return Unary(request, Agent)


def undelete_agent(agent: str, *, etag: str = "", request_id: str = "") -> Unary[Agent]:
    """Takes a deletion back."""
    request = rpc.UndeleteAgentRequest(
        name=names.agent(agent), etag=etag, request_id=request_id_or_new(request_id)
    )
    return Unary(request, Agent)


def get_agent_version(agent: str, version: int) -> Unary[AgentVersion]:
    """Answers a version of an agent."""
    return Unary(rpc.GetAgentVersionRequest(name=names.agent_version(agent, version)), AgentVersion)


def list_agent_versions(agent: str, *, page_size: int = 0) -> Pages[AgentVersion]:
    """Lists the versions of an agent, newest first."""
    request = rpc.ListAgentVersionsRequest(parent=names.agent(agent), page_size=page_size)
    return Pages(request, rpc.ListAgentVersionsResponse, lambda page: page.agent_versions)


def rollback_agent(agent: str, version: int, *, etag: str = "", request_id: str = "") -> Unary[Agent]:
    """Makes a new version that behaves like an older one."""
    request = rpc.RollbackAgentRequest(
        name=names.agent(agent), version=version, etag=etag, request_id=request_id_or_new(request_id)
    )
    return Unary(request, Agent)
