"""What a thread is pinned to when it begins: an agent version with its tools resolved."""

from dataclasses import dataclass, field

from treadle_server.core.approvals import ApprovalRule
from treadle_server.core.kinds import Effect, UnknownPolicy
from treadle_server.core.memory import MemoryRule

SECOND_MICROS = 1_000_000


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """How to sample. `None` and empty mean the provider's default."""

    temperature: float | None = None
    top_p: float | None = None
    max_output_tokens: int | None = None
    thinking_tokens: int | None = None
    stop_sequences: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Limits:
    """Where a thread must stop. Every one has a default, so nothing runs for ever."""

    max_iterations: int = 25
    max_tool_calls: int = 100
    max_input_tokens: int = 2_000_000
    timeout_micros: int = 3_600 * SECOND_MICROS
    max_lifetime_micros: int = 30 * 86_400 * SECOND_MICROS
    max_concurrent_threads: int = 0
    """0 means no limit of the agent's own."""
    max_starts: int = 0
    """0 means no limit."""
    start_interval_micros: int = 0
    """What `max_starts` counts over."""
    max_depth: int = 3
    """How deep below the first thread of its tree an agent may stand that this one calls."""
    max_children: int = 8
    """Threads of agents that it called alive at one time."""


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A tool as one agent version may call it. The schema is part of the pin."""

    name: str
    """As the model calls it."""
    tool: str
    """Resource behind it: `builtin/calculator`. Empty for a client's own tool."""
    description: str
    parameters_schema_json: str
    effect: Effect = Effect.AT_MOST_ONCE
    timeout_micros: int = 60 * SECOND_MICROS
    attempts_max: int = 1
    output_bytes_max: int = 64 * 1024
    finishes: bool = False
    """The result of this tool is the thread's answer."""
    asks: bool = False
    """A call of this tool is a question to a person."""
    client: bool = False
    """The caller runs this tool and submits its result."""
    approvers_needed: int = 0
    """0 means that a call needs no approval."""
    approval_lifetime_micros: int = 0
    """0 means that an approval of a call does not expire."""
    result_schema_json: str = ""
    """Of a client's tool: what its results must fit. Empty for any result."""
    agent_version: str = ""
    """The agent that a call of it is for; empty for all other tools."""
    memory: tuple[MemoryRule, ...] = ()
    """The memories that it may use; empty for all tools but those of memories."""
    keeps_tasks: bool = False
    """Its arguments are the agent's own list of what is to do."""


@dataclass(frozen=True, slots=True)
class Spec:
    """All that `accept` and `decide` need to know besides the state."""

    agent_version: str
    """`agents/{agent}/versions/{n}`."""
    model: str
    """`provider:model`."""
    instructions: str = ""
    settings: ModelSettings = ModelSettings()
    tools: tuple[ToolSpec, ...] = ()
    limits: Limits = Limits()
    on_unknown_outcome: UnknownPolicy = UnknownPolicy.TELL_MODEL
    output_schema_json: str = ""
    approval_rules: tuple[ApprovalRule, ...] = ()
    """The first that fits a call decides whether people must approve it."""
    history_messages_max: int = 0
    """Of the session's earlier threads; 0 means that the model is told none."""
    input_debounce_micros: int = 0
    """For how long no input must have come before the first turn."""
    tool_by_name: dict[str, ToolSpec] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tool_by_name", {tool.name: tool for tool in self.tools})
