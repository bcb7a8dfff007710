"""What the world answered to a command."""

from dataclasses import dataclass, field

from treadle_server.core.events import HistoryRecalled
from treadle_server.core.kinds import CallStatus, StopReason, ThreadState
from treadle_server.core.values import Content, Cost, Fault, ProposedCall, ProviderContent, Usage


@dataclass(frozen=True, slots=True)
class ModelReplied:
    """The model gave a turn."""

    now: int
    call_id: str
    attempt: int
    text: str = ""
    thought: str = ""
    calls: tuple[ProposedCall, ...] = ()
    usage: Usage | None = None
    cost: Cost | None = None
    provider_content: ProviderContent | None = None
    refusal: str = ""
    truncated: bool = False
    problem: str = ""
    """Why the runtime cannot take this turn; empty when it can."""


@dataclass(frozen=True, slots=True)
class ModelFailed:
    """An attempt gave no turn."""

    now: int
    call_id: str
    attempt: int
    code: int
    message: str
    retryable: bool
    retry_after_micros: int | None = None
    jitter: float = 0.0
    """A random number from 0 to 1, drawn outside."""


@dataclass(frozen=True, slots=True)
class ToolReturned:
    """A tool call has its result."""

    now: int
    call_id: str
    attempt: int
    status: CallStatus
    observation: str
    duration_micros: int = 0


@dataclass(frozen=True, slots=True)
class ToolFailed:
    """An attempt gave no answer."""

    now: int
    call_id: str
    attempt: int
    status: CallStatus
    message: str
    retryable: bool
    duration_micros: int = 0
    jitter: float = 0.0


@dataclass(frozen=True, slots=True)
class ChildStarted:
    """The thread of an agent that was called is made."""

    now: int
    call_id: str
    attempt: int
    child_thread: str
    """`threads/{thread}`."""
    agent_version: str


@dataclass(frozen=True, slots=True)
class ChildEnded:
    """An agent that was called has ended."""

    now: int
    call_id: str
    agent_version: str
    state: ThreadState
    stop_reason: StopReason
    output: Content | None = None
    error: Fault | None = None
    usage: Usage = Usage()
    """With its descendants."""
    cost: Cost = Cost()
    child_thread: str = field(default="", metadata={"apart": True})
    """Not told by the child: it follows from the call."""


@dataclass(frozen=True, slots=True)
class Aborted:
    """The runtime stopped a call that was no longer wanted."""

    now: int
    call_id: str
    attempt: int
    duration_micros: int = 0


@dataclass(frozen=True, slots=True)
class Recovered:
    """A server found the thread with calls in flight that nobody runs."""

    now: int
    epoch: int
    blameless: bool = False
    """Why the server before stopped is known, and it was not this thread."""
    guilty: bool = False
    """What the server went down with was found to be this thread: it goes on no more."""


@dataclass(frozen=True, slots=True)
class DriveFailed:
    """The runtime tried to drive the thread again and again, and failed by a bug of its own."""

    now: int


@dataclass(frozen=True, slots=True)
class HistoryRead:
    """What was said earlier in the session is known."""

    now: int
    history: HistoryRecalled


Outcome = (
    HistoryRead
    | ModelReplied
    | ModelFailed
    | ToolReturned
    | ToolFailed
    | ChildStarted
    | ChildEnded
    | Aborted
    | Recovered
    | DriveFailed
)
