"""Agents and keys as callers define them. Field names equal those of the proto messages."""

from dataclasses import dataclass, field, replace

from treadle_server.core.kinds import UnknownPolicy
from treadle_server.core.spec import Limits, ModelSettings, Spec, ToolSpec


@dataclass(frozen=True, slots=True)
class AgentDefinition:
    """What a caller says an agent is, with every default filled in."""

    model: str
    display_name: str = ""
    description: str = ""
    image_uri: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    disabled: bool = False
    model_settings: ModelSettings | None = None
    """None when nothing is set in it."""
    instructions: str = ""
    tool_groups: tuple[str, ...] = ()
    enabled_tools: tuple[str, ...] = ()
    input_schema_json: str = ""
    output_schema_json: str = ""
    limits: Limits = Limits()
    on_unknown_outcome: UnknownPolicy = UnknownPolicy.TELL_MODEL

    def behaving_like(self, other: "AgentDefinition") -> "AgentDefinition":
        """This agent with the other's behaviour; what does not change behaviour stays."""
        return replace(
            self,
            model=other.model,
            model_settings=other.model_settings,
            instructions=other.instructions,
            tool_groups=other.tool_groups,
            enabled_tools=other.enabled_tools,
            input_schema_json=other.input_schema_json,
            output_schema_json=other.output_schema_json,
            limits=other.limits,
            on_unknown_outcome=other.on_unknown_outcome,
        )

    def spec(self, agent_version: str, tools: tuple[ToolSpec, ...]) -> Spec:
        """What a thread of this agent is pinned to, once the tools are resolved."""
        return Spec(
            agent_version=agent_version,
            model=self.model,
            instructions=self.instructions,
            settings=self.model_settings or ModelSettings(),
            tools=tools,
            limits=self.limits,
            on_unknown_outcome=self.on_unknown_outcome,
            output_schema_json=self.output_schema_json,
        )


@dataclass(frozen=True, slots=True)
class Agent:
    """An agent with what the server knows of it."""

    name: str
    definition: AgentDefinition = field(metadata={"apart": True})
    version: int
    etag: str
    create_time_micros: int
    update_time_micros: int
    delete_time_micros: int | None = None


@dataclass(frozen=True, slots=True)
class AgentVersion:
    """An agent as it was when it behaved so. Immutable."""

    name: str
    version: int
    definition: AgentDefinition = field(metadata={"apart": True})
    create_time_micros: int


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A credential of a tenant, as it is shown."""

    name: str
    display_name: str
    principal: str
    admin: bool
    create_time_micros: int
    update_time_micros: int
    etag: str
    expire_time_micros: int | None = None
    secret: str = ""
    """Only in the answer to its creation."""
