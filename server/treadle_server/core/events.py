"""What has happened to a thread: one value per arm of `ThreadEvent.payload`.

Field names equal those of the proto message (`from_state` and `to_state` stand for `from` and `to`). Fields
marked `private` are stored beside the event and never served.
"""

from dataclasses import dataclass, field

from treadle_server.core.kinds import (
    ApprovalKind,
    ApprovalState,
    BusyPolicy,
    CallStatus,
    Control,
    Decision,
    Effect,
    StopReason,
    ThreadState,
    TriggerType,
    Verdict,
)
from treadle_server.core.values import Content, Context, Cost, Fault, Message, ProviderContent, Task, Usage

_PRIVATE = {"private": True}


@dataclass(frozen=True, slots=True)
class SpecReference:
    """Which agent version, with exactly which tools and limits."""

    agent_version: str
    digest: str
    """`sha256:` and hexadecimal digits."""
    model: str


@dataclass(frozen=True, slots=True)
class Subject:
    """What the thread is about, in the caller's own system."""

    type: str = ""
    id: str = ""


@dataclass(frozen=True, slots=True)
class Trigger:
    """What made the thread begin, and who."""

    type: TriggerType = TriggerType.API
    triggered_by: str = ""


@dataclass(frozen=True, slots=True)
class ParentCall:
    """The call of another thread's agent that a thread was made for."""

    tool_call_id: str
    depth: int
    """How many threads are above this one in its tree, at least 1."""


@dataclass(frozen=True, slots=True)
class ThreadCreated:
    """The first event of every log."""

    spec: SpecReference
    session: str = ""
    parent_object: str = ""
    parent_thread: str = ""
    subject: Subject | None = None
    trigger: Trigger = Trigger()
    forked_from: str = ""
    retried_from: str = ""
    parent_call: ParentCall | None = None
    """None when a caller made it."""
    initial_context_ignored: bool = False
    """One was given, and the session had started before."""
    context: Context | None = None
    busy_policy: BusyPolicy = field(default=BusyPolicy.UNSPECIFIED, metadata=_PRIVATE)
    principal: str = field(default="", metadata=_PRIVATE)


@dataclass(frozen=True, slots=True)
class ThreadForked:
    """The events before this one are copies from another thread; the thread's own life begins here."""

    forked_from: str
    forked_sequence: int
    """Of the last event that was copied."""
    spec: SpecReference
    retried_from: str = ""
    principal: str = field(default="", metadata=_PRIVATE)


@dataclass(frozen=True, slots=True)
class HistoryRecalled:
    """What was said in the session's threads that ended before, oldest first."""

    messages: tuple[Message, ...]
    older_left_out: bool = False


@dataclass(frozen=True, slots=True)
class StateChanged:
    """The thread went from one state to another that is not terminal."""

    from_state: ThreadState
    to_state: ThreadState
    stop_reason: StopReason = StopReason.UNSPECIFIED


@dataclass(frozen=True, slots=True)
class ControlRequested:
    """A caller asked for a control that takes effect at the next step boundary, or at once."""

    command: Control
    principal: str = ""
    reason: str = ""
    grace_micros: int = 0
    """How long running tools get to stop."""
    target_state: ThreadState = ThreadState.UNSPECIFIED
    """COMPLETE only: the state that the caller wants."""
    output: Content | None = None
    """COMPLETE only: the output that the caller gives."""
    stop_reason: StopReason = StopReason.UNSPECIFIED
    """The stop reason that the end will have; CANCEL and COMPLETE only."""


@dataclass(frozen=True, slots=True)
class InputReceived:
    """A caller's input is durable; the model sees it when an iteration consumes it."""

    content: Content
    tool_call_id: str = ""
    """The question or client call that it answers; empty when it steers."""
    principal: str = field(default="", metadata=_PRIVATE)


@dataclass(frozen=True, slots=True)
class IterationStarted:
    """A new turn of the loop begins."""

    number: int
    consumed_inputs: tuple[int, ...] = ()
    """Sequences of the `InputReceived` that enter the conversation now."""


@dataclass(frozen=True, slots=True)
class ModelCallStarted:
    """The intent to call the model."""

    call_id: str
    attempt: int
    model: str


@dataclass(frozen=True, slots=True)
class ThoughtRecorded:
    """What the model said that it was thinking."""

    call_id: str
    text: str


@dataclass(frozen=True, slots=True)
class MessageCompleted:
    """The model's turn is complete. `text` may be empty when the turn only calls tools."""

    message_id: str
    call_id: str
    text: str
    final: bool = False
    truncated: bool = False
    provider_content: ProviderContent | None = field(default=None, metadata=_PRIVATE)


@dataclass(frozen=True, slots=True)
class ModelCallFailed:
    """An attempt at a model call gave no turn."""

    call_id: str
    attempt: int
    error: Fault
    will_retry: bool = False
    retry_delay_micros: int = 0


@dataclass(frozen=True, slots=True)
class OutputRejected:
    """The runtime did not take the model's turn; the model is told why."""

    call_id: str
    problem: str


@dataclass(frozen=True, slots=True)
class UsageRecorded:
    """Tokens and cost of one attempt at a model call."""

    call_id: str
    attempt: int
    model: str
    usage: Usage
    cost: Cost
    estimated: bool = False
    """The provider did not say; the numbers are a lower bound."""


@dataclass(frozen=True, slots=True)
class ToolCallRequested:
    """The model asked for a tool call."""

    tool_call_id: str
    tool: str
    """As the model called it."""
    arguments_json: str
    effect: Effect
    verdict: Verdict
    provider_call_id: str = field(default="", metadata=_PRIVATE)


@dataclass(frozen=True, slots=True)
class ToolCallStarted:
    """The intent to run the tool."""

    tool_call_id: str
    attempt: int


@dataclass(frozen=True, slots=True)
class ToolAttemptFailed:
    """An attempt at a tool call gave no answer, and another follows."""

    tool_call_id: str
    attempt: int
    error: Fault
    retry_delay_micros: int


@dataclass(frozen=True, slots=True)
class ToolCallCompleted:
    """A tool call has its result, whatever it is. Occurs once per call."""

    tool_call_id: str
    status: CallStatus
    observation: str
    duration_micros: int = 0
    principal: str = field(default="", metadata=_PRIVATE)
    """Who submitted the result of a client's tool; empty for all others."""


@dataclass(frozen=True, slots=True)
class ApprovalRequested:
    """A call waits for people."""

    approval_id: str
    tool_call_id: str
    tool: str
    effect: Effect
    arguments_json: str
    arguments_digest: str
    approvers_needed: int
    expire_time_micros: int = 0
    """0 when it does not expire."""
    kind: ApprovalKind = ApprovalKind.UNSPECIFIED
    """UNSPECIFIED means TOOL_CALL."""
    rule: str = ""
    """`tool_pattern` of the rule that asked for it; empty when no rule did."""
    exclude_starter: bool = field(default=False, metadata=_PRIVATE)


@dataclass(frozen=True, slots=True)
class ApprovalExpiring:
    """The approval expires soon and is not settled."""

    approval_id: str
    tool_call_id: str
    expire_time_micros: int


@dataclass(frozen=True, slots=True)
class ApprovalVoteRecorded:
    """One person's answer."""

    approval_id: str
    principal: str
    decision: Decision
    message: str = ""


@dataclass(frozen=True, slots=True)
class ApprovalDecided:
    """The approval is settled."""

    approval_id: str
    state: ApprovalState
    message: str = ""
    edited_arguments_json: str = ""
    result_json: str = ""
    """What the call gave, where that was unknown."""


@dataclass(frozen=True, slots=True)
class QuestionAsked:
    """The agent asks a person."""

    tool_call_id: str
    question: str
    answer_schema_json: str = ""


@dataclass(frozen=True, slots=True)
class TasksUpdated:
    """The agent changed its list of what is to do; this is the whole list now."""

    tasks: tuple[Task, ...]


@dataclass(frozen=True, slots=True)
class ChildThreadStarted:
    """The agent called another agent."""

    tool_call_id: str
    child_thread: str
    agent_version: str


@dataclass(frozen=True, slots=True)
class ChildThreadEnded:
    """An agent that was called has ended."""

    tool_call_id: str
    child_thread: str
    state: ThreadState
    stop_reason: StopReason
    output: Content | None = None
    error: Fault | None = None
    usage: Usage = Usage()
    """With its descendants."""
    cost: Cost = Cost()


@dataclass(frozen=True, slots=True)
class ExecutionRecovered:
    """A server took the thread up again after a crash. Nothing of the epochs before is in flight."""

    epoch: int
    unknown_tool_call_ids: tuple[str, ...] = ()
    blameless: bool = False
    """Why the server before stopped is known, and it was not this thread."""


@dataclass(frozen=True, slots=True)
class Redacted:
    """Stands where an event was erased."""

    kind: str = ""


@dataclass(frozen=True, slots=True)
class ThreadEnded:
    """The last event of every log, once."""

    state: ThreadState
    stop_reason: StopReason
    output: Content | None = None
    error: Fault | None = None
    usage: Usage = Usage()
    cost: Cost = Cost()


@dataclass(frozen=True, slots=True)
class Unknown:
    """An event of a newer release. The thread is not driven on; its stream goes on."""

    kind: int


Payload = (
    ThreadCreated
    | ThreadForked
    | StateChanged
    | ControlRequested
    | InputReceived
    | IterationStarted
    | ModelCallStarted
    | ThoughtRecorded
    | MessageCompleted
    | ModelCallFailed
    | OutputRejected
    | UsageRecorded
    | ToolCallRequested
    | ToolCallStarted
    | ToolAttemptFailed
    | ToolCallCompleted
    | ApprovalRequested
    | ApprovalExpiring
    | ApprovalVoteRecorded
    | ApprovalDecided
    | QuestionAsked
    | TasksUpdated
    | ChildThreadStarted
    | ChildThreadEnded
    | ExecutionRecovered
    | HistoryRecalled
    | Redacted
    | ThreadEnded
    | Unknown
)


@dataclass(frozen=True, slots=True)
class Event:
    """A payload with its place. `sequence` counts 1, 2, 3 within the thread."""

    sequence: int
    time_micros: int
    """Since 1970, UTC."""
    iteration: int
    payload: Payload
