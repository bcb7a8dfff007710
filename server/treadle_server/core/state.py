"""What the control of a thread needs to know: a bounded fold over its log."""

from dataclasses import dataclass, field

from treadle_server.core.events import ThreadCreated
from treadle_server.core.kinds import (
    TERMINAL,
    ApprovalKind,
    ApprovalState,
    CallStatus,
    Control,
    Effect,
    StopReason,
    ThreadState,
    Verdict,
)
from treadle_server.core.spec import Spec, ToolSpec
from treadle_server.core.values import Content, Cost, Fault, Task, Usage


@dataclass(frozen=True, slots=True)
class ModelCall:
    """The model call of the present iteration, until it gave its turn."""

    call_id: str
    attempt: int
    in_flight: bool
    not_before: int = 0


@dataclass(frozen=True, slots=True)
class Approval:
    """What people were asked about a tool call."""

    approval_id: str
    digest: str
    approvers_needed: int
    expire_time: int
    state: ApprovalState = ApprovalState.PENDING
    approvals: tuple[str, ...] = ()
    """Principals that approved so far."""
    kind: ApprovalKind = ApprovalKind.TOOL_CALL
    rule: str = ""
    exclude_starter: bool = False
    create_time: int = 0
    expiring: bool = False
    """People were told that it expires soon."""
    result_digest: str = ""
    """Of the result that people gave instead of running the call; empty when they gave none."""


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call of the present iteration."""

    call_id: str
    name: str
    arguments_json: str
    effect: Effect
    verdict: Verdict
    attempt: int = 0
    in_flight: bool = False
    not_before: int = 0
    status: CallStatus = CallStatus.UNSPECIFIED
    """UNSPECIFIED until it is completed."""
    asked: bool = False
    """It is a question that was put to a person."""
    client: bool = False
    """The caller runs it, once it is approved."""
    agent_version: str = ""
    """The agent that it is for; empty when it is for none."""
    child_thread: str = ""
    """What does it, `threads/{thread}`, once that is recorded."""
    child_ended: bool = False
    since: int = 0
    """When it began to wait for whom it waits for now."""
    approval: Approval | None = None

    @property
    def open(self) -> bool:
        return self.status is CallStatus.UNSPECIFIED

    @property
    def gated(self) -> bool:
        """It waits for people to approve."""
        return self.approval is not None and self.approval.state is ApprovalState.PENDING

    @property
    def runnable(self) -> bool:
        """The runtime itself can bring it forward."""
        return self.open and not (self.gated or self.asked or self.client or self.child_thread)

    @property
    def delegated(self) -> bool:
        """A thread of its own does it."""
        return self.open and bool(self.child_thread)


@dataclass(frozen=True, slots=True)
class Pending:
    """A control that waits until what is in flight has stopped."""

    command: Control
    since: int
    grace_micros: int
    target_state: ThreadState
    stop_reason: StopReason
    output: Content | None
    reason: str = ""


@dataclass(slots=True)
class State:
    """Never changed once a fold returned it."""

    spec: Spec
    sequence: int = 0
    status: ThreadState = ThreadState.UNSPECIFIED
    stop_reason: StopReason = StopReason.UNSPECIFIED
    origin: ThreadCreated | None = None
    first_input: Content | None = None
    pending: Pending | None = None
    iteration: int = 0
    model_call: ModelCall | None = None
    calls: dict[str, Call] = field(default_factory=dict)
    """Tool calls of the present iteration, in the order of the model's turn."""
    inputs: tuple[int, ...] = ()
    """Sequences of inputs that no iteration has consumed."""
    input_time: int = 0
    """Of the newest input."""
    recalled: bool = False
    """What was said earlier in the session is in the log."""
    answer: Content | None = None
    """What the model gave as its answer, by a final message or a finishing tool."""
    last_text: str = ""
    rejections: int = 0
    """Turns in a row, before the present one, that the runtime could not take."""
    problem: str = ""
    """Why the runtime could not take the present turn; empty when it could."""
    tool_call_count: int = 0
    tools_used: tuple[str, ...] = ()
    """Each tool once: bounded by the tools of the spec."""
    tasks: tuple[Task, ...] = ()
    """The agent's list of what is to do; its length is bounded."""
    usage: Usage = Usage()
    cost: Cost = Cost()
    children_usage: Usage = Usage()
    """Of children that have ended, with their descendants."""
    children_cost: Cost = Cost()
    """Not known when a child outlived its call."""
    model_used: str = ""
    create_time: int = 0
    start_time: int = 0
    """0 until the thread first runs."""
    update_time: int = 0
    """Time of the newest event."""
    state_time: int = 0
    end_time: int = 0
    running_since: int = 0
    """0 while the thread does not run."""
    running_micros: int = 0
    """Time spent RUNNING before `running_since`."""
    output: Content | None = None
    error: Fault | None = None
    tally: dict[str | CallStatus, int] = field(default_factory=dict)
    """How often things happened: tool calls by how they ended, the rest by the names in `evolve`."""
    recoveries: int = 0
    recovered_epoch: int = 0
    """Of the server that took the thread up last; 0 = none did."""
    crashes: dict[str, int] = field(default_factory=dict)
    """How often in a row servers died during a step without an outcome: by tool, "" is the model. Never
    changed, only replaced.
    """
    fruitless: int = 0
    """How often in a row servers died during any step, with no outcome of any between."""
    unreadable: bool = False
    """The log holds an event of a newer release."""

    @property
    def ended(self) -> bool:
        return self.status in TERMINAL

    @property
    def ending(self) -> bool:
        """A cancel or complete waits for what is in flight."""
        return self.pending is not None and self.pending.command is not Control.PAUSE

    @property
    def in_flight(self) -> bool:
        """A call was begun and has no outcome."""
        if self.model_call is not None and self.model_call.in_flight:
            return True
        return any(call.in_flight for call in self.calls.values())

    @property
    def children(self) -> tuple[Call, ...]:
        """Calls that threads of their own do."""
        return tuple(call for call in self.calls.values() if call.delegated)

    @property
    def steps_in_flight(self) -> frozenset[str]:
        """Names of the tools whose calls are in flight; "" is the model."""
        names = {call.name for call in self.calls.values() if call.in_flight}
        if self.model_call is not None and self.model_call.in_flight:
            names.add("")
        return frozenset(names)

    @property
    def rejected(self) -> bool:
        """The runtime could not take the present turn, or run any of its calls."""
        if self.calls:
            return all(call.verdict is Verdict.INVALID for call in self.calls.values())
        return bool(self.problem)

    def tool(self, name: str) -> ToolSpec | None:
        return self.spec.tool_by_name.get(name)

    def copy(self) -> "State":
        """A state to fold into; inner values are immutable and shared."""
        other = object.__new__(State)
        for name in _FIELDS:
            setattr(other, name, getattr(self, name))
        other.calls = dict(self.calls)
        other.tally = dict(self.tally)
        return other


_FIELDS = tuple(State.__slots__)
