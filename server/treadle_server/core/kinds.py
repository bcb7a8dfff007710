"""The closed sets of the domain. Numbers equal those of the enums in `protos/treadle/v1`."""

from enum import IntEnum


class ThreadState(IntEnum):
    """Where a thread stands. `UNSPECIFIED` is a log without its first event."""

    UNSPECIFIED = 0
    PENDING = 1
    RUNNING = 2
    WAITING_APPROVAL = 3
    WAITING_INPUT = 4
    PAUSED = 5
    COMPLETED = 6
    FAILED = 7
    CANCELLED = 8
    TIMED_OUT = 9


class StopReason(IntEnum):
    """Why a thread ended."""

    UNSPECIFIED = 0
    FINISHED = 1
    COMPLETED_BY_CALLER = 2
    CANCELLED_BY_CALLER = 3
    INTERRUPTED = 4
    PARENT_ENDED = 5
    AGENT_DISABLED = 6
    TENANT_DISABLED = 7
    DEADLINE = 8
    MAX_ITERATIONS = 9
    MAX_TOOL_CALLS = 10
    MAX_TOKENS = 11
    BUDGET_EXCEEDED = 12
    PRICE_UNKNOWN = 13
    MODEL_ERROR = 14
    MODEL_REFUSAL = 15
    TOOL_ERROR = 16
    TOOL_OUTCOME_UNKNOWN = 17
    APPROVAL_REJECTED = 18
    APPROVAL_EXPIRED = 19
    INVALID_OUTPUT = 20
    REPEATED_FAILURE = 21
    POISONED = 22
    DATA_LOSS = 23
    INTERNAL = 24


class Control(IntEnum):
    """What a caller can ask of a thread that exists."""

    UNSPECIFIED = 0
    PAUSE = 1
    RESUME = 2
    CANCEL = 3
    COMPLETE = 4


class Effect(IntEnum):
    """What a repeated call of a tool does to the world outside."""

    UNSPECIFIED = 0
    READ_ONLY = 1
    IDEMPOTENT = 2
    AT_MOST_ONCE = 3


class Verdict(IntEnum):
    """What was decided about a tool call when the model asked for it."""

    UNSPECIFIED = 0
    ALLOWED = 1
    NEEDS_APPROVAL = 2
    INVALID = 3
    CLIENT = 4


class CallStatus(IntEnum):
    """How a tool call ended."""

    UNSPECIFIED = 0
    SUCCEEDED = 1
    FAILED = 2
    TIMED_OUT = 3
    INVALID = 4
    REJECTED = 5
    CANCELLED = 6
    ABANDONED = 7
    UNKNOWN = 8


class UnknownPolicy(IntEnum):
    """What to do when a crash left the outcome of a call unknown."""

    UNSPECIFIED = 0
    TELL_MODEL = 1
    ASK = 2
    FAIL = 3


class Decision(IntEnum):
    """A person's answer to an approval."""

    UNSPECIFIED = 0
    APPROVE = 1
    REJECT = 2


class ApprovalKind(IntEnum):
    """What waits for people."""

    UNSPECIFIED = 0
    TOOL_CALL = 1
    TOOL_OUTCOME = 2
    BUDGET = 3


class ApprovalState(IntEnum):
    """Where an approval stands."""

    UNSPECIFIED = 0
    PENDING = 1
    APPROVED = 2
    REJECTED = 3
    EXPIRED = 4
    CANCELLED = 5


class TriggerType(IntEnum):
    """What made a thread begin."""

    UNSPECIFIED = 0
    MANUAL = 1
    SCHEDULED = 2
    EVENT = 3
    API = 4


class TaskState(IntEnum):
    """How far an item of the agent's own list is."""

    UNSPECIFIED = 0
    PENDING = 1
    IN_PROGRESS = 2
    DONE = 3
    CANCELLED = 4


class BusyPolicy(IntEnum):
    """What to do when the session's thread has not ended."""

    UNSPECIFIED = 0
    ENQUEUE = 1
    REJECT = 2
    INTERRUPT = 3
    STEER = 4


class Role(IntEnum):
    """Who said something in a session."""

    UNSPECIFIED = 0
    USER = 1
    AGENT = 2


class MemoryAccess(IntEnum):
    """What an agent may do with the memories of a namespace."""

    UNSPECIFIED = 0
    READ = 1
    READ_WRITE = 2


class DeltaKind(IntEnum):
    """What a piece of streamed model output is part of."""

    UNSPECIFIED = 0
    TEXT = 1
    THOUGHT = 2


TERMINAL = frozenset(
    {ThreadState.COMPLETED, ThreadState.FAILED, ThreadState.CANCELLED, ThreadState.TIMED_OUT}
)
WAITING = frozenset({ThreadState.WAITING_APPROVAL, ThreadState.WAITING_INPUT})
