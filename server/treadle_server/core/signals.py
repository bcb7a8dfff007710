"""What callers and clocks ask of a thread. Every ask carries the time at which it is judged."""

from dataclasses import dataclass

from treadle_server.core.commands import Command
from treadle_server.core.events import ParentCall, SpecReference, Subject, Trigger
from treadle_server.core.kinds import BusyPolicy, Decision, StopReason, ThreadState
from treadle_server.core.values import Content, Context, ProposedCall

GRACE_MICROS = 5_000_000
"""How long a running tool gets to stop when the caller does not say."""


@dataclass(frozen=True, slots=True)
class Create:
    """Begin a thread with its first input."""

    now: int
    spec: SpecReference
    input: Content
    principal: str = ""
    session: str = ""
    parent_object: str = ""
    parent_thread: str = ""
    parent_call: ParentCall | None = None
    subject: Subject | None = None
    trigger: Trigger = Trigger()
    context: Context | None = None
    initial_context_ignored: bool = False
    busy_policy: BusyPolicy = BusyPolicy.UNSPECIFIED
    retried_from: str = ""


@dataclass(frozen=True, slots=True)
class Fork:
    """Begin a thread from another's first events, which the state was folded from under the new spec."""

    now: int
    spec: SpecReference
    forked_from: str
    input: Content | None = None
    """A further one."""
    principal: str = ""
    reviewed: tuple[tuple[str, ProposedCall], ...] = ()
    """Every call that is open, by its id, as it would have to be proposed now."""
    retried_from: str = ""


@dataclass(frozen=True, slots=True)
class Pause:
    now: int
    principal: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Resume:
    now: int
    principal: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Cancel:
    now: int
    principal: str = ""
    reason: str = ""
    grace_micros: int = GRACE_MICROS
    stop_reason: StopReason = StopReason.CANCELLED_BY_CALLER


@dataclass(frozen=True, slots=True)
class Complete:
    """End the thread in a state and with an output of the caller's choice."""

    now: int
    state: ThreadState
    output: Content | None = None
    principal: str = ""
    reason: str = ""
    grace_micros: int = GRACE_MICROS


@dataclass(frozen=True, slots=True)
class SendInput:
    """Answer the question `tool_call_id`, or steer when it is empty."""

    now: int
    content: Content
    tool_call_id: str = ""
    principal: str = ""


@dataclass(frozen=True, slots=True)
class SubmitToolResult:
    """The caller ran a tool of its own."""

    now: int
    tool_call_id: str
    observation: str
    ok: bool = True
    principal: str = ""


@dataclass(frozen=True, slots=True)
class Decide:
    """A person decides an approval. `arguments_digest` is required to approve."""

    now: int
    approval_id: str
    decision: Decision
    principal: str
    arguments_digest: str = ""
    edited_arguments_json: str = ""
    message: str = ""
    result_json: str = ""
    """What the call gave, where that is unknown."""


Signal = Create | Fork | Pause | Resume | Cancel | Complete | SendInput | SubmitToolResult | Decide


@dataclass(frozen=True, slots=True)
class Begin:
    """Make the intents of these commands."""

    now: int
    commands: tuple[Command, ...]


@dataclass(frozen=True, slots=True)
class Due:
    """The time that `wake_at` named has come."""

    now: int
