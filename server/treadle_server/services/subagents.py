"""Agents as the tools of other agents."""

import json
from collections.abc import Collection, Sequence

from treadle_server.core.agent import AgentDefinition
from treadle_server.core.errors import Refused, invalid
from treadle_server.core.json_text import canonical_json
from treadle_server.core.kinds import Effect
from treadle_server.core.spec import ToolSpec
from treadle_server.core.values import Content
from treadle_server.ports.catalogue.agents import AgentRow
from treadle_server.services.agent_reader import AgentReader

ATTEMPTS_MAX = 3
"""To make the thread of a call, when the server itself failed at it."""
_TEXT = canonical_json({"type": "string", "minLength": 1, "description": "What the agent is to do."})


class Subagents:
    """Finds the agents that an agent may call. `tenant` is the store's key."""

    def __init__(self, reader: AgentReader) -> None:
        self._reader = reader

    async def check(
        self, tenant: int, definition: AgentDefinition, name: str, tools: Collection[str]
    ) -> None:
        """Raises Refused(FIELD_INVALID) for an agent that is not there, or whose name a tool has.

        `name` is the agent's own, which may not be there yet.
        """
        faults = []
        for index, agent in enumerate(definition.subagents):
            field = f"agent.subagents[{index}]"
            if agent != name and await self._row(tenant, agent) is None:
                faults.append((field, f"{agent} does not exist"))
            elif tool_name(agent) in tools:
                faults.append((field, f"{tool_name(agent)} is the name of a tool already"))
        if faults:
            raise invalid(*faults)

    async def tools(self, tenant: int, agents: Sequence[str]) -> tuple[ToolSpec, ...]:
        """Each as it is now; who is deleted or disabled is left out."""
        rows = [await self._row(tenant, agent) for agent in agents]
        specs = [self._tool(row) for row in rows if row is not None]
        return tuple(spec for spec in specs if spec is not None)

    def _tool(self, row: AgentRow) -> ToolSpec | None:
        definition, name = self._reader.definition(row), f"agents/{row.id}"
        if definition.disabled:
            return None
        said = definition.description or definition.display_name or f"the agent {row.id}"
        return ToolSpec(
            name=tool_name(name),
            tool=name,
            description=f"Calls another agent, and gives its answer. {said}",
            parameters_schema_json=parameters_schema(definition.input_schema_json),
            effect=Effect.IDEMPOTENT,
            attempts_max=ATTEMPTS_MAX,
            agent_version=f"{name}/versions/{row.version}",
        )

    async def _row(self, tenant: int, agent: str) -> AgentRow | None:
        try:
            return await self._reader.row(tenant, agent.removeprefix("agents/"))
        except Refused:
            return None


def tool_name(agent: str) -> str:
    """As models call an agent: letters, digits and underscores, no digit first."""
    name = agent.removeprefix("agents/").replace("-", "_")
    return f"_{name}" if name[0].isdigit() else name


def parameters_schema(input_schema_json: str) -> str:
    """What a call is to give: an object as the agent takes it, or else `input`."""
    if _is_object(input_schema_json):
        return input_schema_json
    schema = json.loads(input_schema_json or _TEXT)
    whole = {
        "type": "object",
        "properties": {"input": schema},
        "required": ["input"],
        "additionalProperties": False,
    }
    return canonical_json(whole)


def input_of(arguments_json: str, input_schema_json: str) -> Content:
    """The first input of the thread that does a call. Raises Refused(FIELD_INVALID)."""
    if _is_object(input_schema_json):
        return Content(data_json=arguments_json)
    given = json.loads(arguments_json).get("input")
    if input_schema_json:
        return Content(data_json=canonical_json(given))
    if not isinstance(given, str):
        raise invalid(("input", "must be a text"))
    return Content(given)


def _is_object(schema_json: str) -> bool:
    if not schema_json:
        return False
    schema = json.loads(schema_json)
    return isinstance(schema, dict) and schema.get("type") == "object"
