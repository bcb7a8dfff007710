"""Small values that events, asks and the transcript share."""

from dataclasses import dataclass

from treadle_server.core.approvals import ApprovalRule
from treadle_server.core.kinds import Role, TaskState


@dataclass(frozen=True, slots=True)
class Content:
    """What a caller or a model said: text, JSON or both."""

    text: str = ""
    data_json: str = ""
    """Canonical JSON text; empty when there is none."""


@dataclass(frozen=True, slots=True)
class Context:
    """What a model is told besides the inputs."""

    initial: str = ""
    """Holds for the whole session."""
    additional: str = ""
    """Holds for this thread."""


@dataclass(frozen=True, slots=True)
class Message:
    """Something that was said in a thread of a session."""

    thread: str
    """`threads/{thread}`."""
    sequence: int
    """Of the event that says it."""
    role: Role
    content: Content
    event_time_micros: int


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one model call, or their sum."""

    input_tokens: int = 0
    cached_input_tokens: int = 0
    output_tokens: int = 0
    """Without reasoning."""
    reasoning_tokens: int = 0
    total_tokens: int = 0

    def plus(self, other: "Usage") -> "Usage":
        return Usage(
            self.input_tokens + other.input_tokens,
            self.cached_input_tokens + other.cached_input_tokens,
            self.output_tokens + other.output_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
            self.total_tokens + other.total_tokens,
        )


@dataclass(frozen=True, slots=True)
class Cost:
    """Money. When `known` is false, `cost_micros` counts only the calls whose price is known."""

    cost_micros: int = 0
    currency_code: str = "USD"
    known: bool = True

    def plus(self, other: "Cost") -> "Cost":
        return Cost(self.cost_micros + other.cost_micros, self.currency_code, self.known and other.known)


@dataclass(frozen=True, slots=True)
class Fault:
    """What went wrong, as the agent and the caller see it. `code` is a `google.rpc.Code` number."""

    code: int = 2
    message: str = ""


@dataclass(frozen=True, slots=True)
class ProviderContent:
    """A model's answer word for word, to hand back to the same provider and model. Never served."""

    provider: str = ""
    model: str = ""
    content_json: str = ""


@dataclass(frozen=True, slots=True)
class Task:
    """An item of the agent's own list of what is to do."""

    title: str
    state: TaskState


@dataclass(frozen=True, slots=True)
class ProposedCall:
    """A tool call that a model asks for."""

    name: str
    arguments_json: str
    problem: str = ""
    """Why it cannot run, for the model to read; empty when it can."""
    provider_call_id: str = ""
    rule: ApprovalRule | None = None
    """The agent's rule that decides who must approve it; None when none fits."""
