"""Agents and keys as callers define them. Field names equal those of the proto messages."""

from dataclasses import dataclass, field, replace

from treadle_server.core.approvals import ApprovalPolicy
from treadle_server.core.documents import Document, with_documents
from treadle_server.core.kinds import UnknownPolicy
from treadle_server.core.memory import MemoryRule
from treadle_server.core.spec import Limits, ModelSettings, Spec, ToolSpec

HISTORY_MESSAGES = 20
"""That a model is told of the session's earlier threads when its agent does not say how many."""


@dataclass(frozen=True, slots=True)
class SessionPolicy:
    """How threads of an agent go on with a session."""

    history_messages_max: int | None = None
    """None for the default."""
    input_debounce_micros: int = 0


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
    subagents: tuple[str, ...] = ()
    input_schema_json: str = ""
    output_schema_json: str = ""
    limits: Limits = Limits()
    approval_policy: ApprovalPolicy | None = None
    """None when it has no rules."""
    on_unknown_outcome: UnknownPolicy = UnknownPolicy.TELL_MODEL
    session_policy: SessionPolicy | None = None
    """None when nothing is set in it."""
    documents: tuple[Document, ...] = ()
    memory_rules: tuple[MemoryRule, ...] = ()

    def behaving_like(self, other: "AgentDefinition") -> "AgentDefinition":
        """This agent with the other's behaviour; what does not change behaviour stays."""
        return replace(
            self,
            model=other.model,
            model_settings=other.model_settings,
            instructions=other.instructions,
            tool_groups=other.tool_groups,
            enabled_tools=other.enabled_tools,
            subagents=other.subagents,
            input_schema_json=other.input_schema_json,
            output_schema_json=other.output_schema_json,
            limits=other.limits,
            approval_policy=other.approval_policy,
            on_unknown_outcome=other.on_unknown_outcome,
            session_policy=other.session_policy,
            documents=other.documents,
            memory_rules=other.memory_rules,
        )

    def spec(self, agent_version: str, tools: tuple[ToolSpec, ...]) -> Spec:
        """What a thread of this agent is pinned to, once the tools are resolved."""
        policy = self.session_policy or SessionPolicy()
        history = policy.history_messages_max
        return Spec(
            agent_version=agent_version,
            model=self.model,
            instructions=with_documents(self.instructions, self.documents),
            settings=self.model_settings or ModelSettings(),
            tools=tools,
            limits=self.limits,
            on_unknown_outcome=self.on_unknown_outcome,
            output_schema_json=self.output_schema_json,
            history_messages_max=HISTORY_MESSAGES if history is None else history,
            input_debounce_micros=policy.input_debounce_micros,
            approval_rules=self.approval_policy.rules if self.approval_policy is not None else (),
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
    object_patterns: tuple[str, ...] = ()
    secret: str = ""
    """Only in the answer to its creation."""
