"""Port: the log of every thread, and the rows that change with it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from treadle_server.core.errors import Reason, Refused


@dataclass(frozen=True, slots=True)
class ThreadKey:
    """The store's own name of a thread. Integers, never reused."""

    tenant: int
    thread: int


@dataclass(frozen=True, slots=True)
class Record:
    """One encoded event. `body` is a `ThreadEvent` without thread and sequence; `private` is never served."""

    kind: int
    body: bytes
    private: bytes | None = None


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """A record with its place in the log."""

    sequence: int
    record: Record


@dataclass(slots=True)
class Projection:
    """Columns of the thread's row that follow its log. The last one of a unit is written."""

    state: int
    stop_reason: int
    iteration_count: int
    tool_call_count: int
    total_tokens: int
    cost_micros: int
    wake_at: int | None
    """When the thread wants to be looked at, micros since 1970; None = never."""
    state_time: int
    """Time of the last change of state."""
    start_time: int | None = None
    end_time: int | None = None
    summary: bytes | None = None
    """The thread's own Thread message as it ended; None while it lives."""
    frees_session: bool = False


@dataclass(slots=True)
class NewThread:
    """The row of a thread that a unit makes."""

    id: str
    agent: int
    """Key of the agent."""
    version: int
    session: int
    """Key of the session; 0 = none."""
    spec_digest: bytes
    spec: bytes
    create_time: int
    tags: tuple[str, ...] = ()
    labels: dict[str, str] = field(default_factory=dict)
    client_metadata: bytes = b""
    """A serialised `google.protobuf.Struct`; empty when absent."""
    subject_type: str = ""
    subject_id: str = ""
    trigger_type: int = 0
    triggered_by: str = ""
    parent_object: str = ""
    """The caller's object that access follows, `type/id`; empty when it has none."""
    begins_session: bool = False
    """Guard: no thread of the session was made before, else Conflict; then it gets `context_initial`."""
    context_initial: str = ""
    alone_in_session: bool = False
    """Guard: every other thread of the session has ended, else Refused(SESSION_BUSY)."""
    parent: int = 0
    """Key of the thread whose agent called this one's; 0 = none did. Refused(THREAD_STATE_CONFLICT) when that
    one has ended."""


@dataclass(frozen=True, slots=True)
class Shared:
    """The first records of another log of the same tenant, which a unit makes the first of its own."""

    key: ThreadKey
    through: int
    """Sequence of the last one."""
    byte_count: int
    """About how much that is."""


@dataclass(frozen=True, slots=True)
class Posted:
    """What a unit tells another thread of its tenant, kept until that one takes it.

    A thread that has ended, or is not there, gets nothing.
    """

    thread_id: str
    body: bytes


@dataclass(frozen=True, slots=True)
class ApprovalChange:
    """What an event makes of the row of an approval of its thread."""

    approval_id: str
    body: bytes
    """Fields of an `Approval` message, merged into what is there, without what only the row knows."""
    state: int
    """0 leaves it as it is."""
    kind: int = 0
    """Not 0 in the first one, which makes the row."""
    create_time: int = 0
    """Of the first one."""


@dataclass(slots=True)
class NewSession:
    """A session that a unit makes if the key has none yet."""

    id: str
    session_key: str
    agent: int
    parent_object: str
    create_time: int


@dataclass(frozen=True, slots=True)
class RequestRow:
    """Remembers one mutating call."""

    request_id: str
    principal: str
    method: str
    digest: bytes
    """Of the request without what does not change its meaning."""
    resource: str
    from_sequence: int
    """0: the call made its resource; else it attached to what another call had made."""
    response: bytes | None
    """The answer to give again; None when the call attaches to its resource."""
    expire_time: int


class Replayed(Exception):  # noqa: N818 - not an error: the call was made before
    """The unit was not applied: a call with this request id was made before, with the same digest."""

    def __init__(self, resource: str, from_sequence: int, response: bytes | None) -> None:
        super().__init__(resource)
        self.resource = resource
        self.from_sequence = from_sequence
        self.response = response


class Conflict(Exception):  # noqa: N818 - the slower of two writers
    """The log was not at the expected sequence. Nothing was written."""


class Expired(Refused):
    """The log was taken by retention. `last` was its last sequence, `expire_time` is when it went."""

    def __init__(self, last: int, expire_time: int) -> None:
        places = {"first": str(last + 1), "last": str(last)}
        super().__init__(Reason.SEQUENCE_OUT_OF_RANGE, "the thread has expired", metadata=places)
        self.last = last
        self.expire_time = expire_time


class Fenced(Exception):  # noqa: N818 - not a fault of the caller
    """Another server owns the file now. Nothing was written, and nothing can be from here."""


@dataclass(slots=True)
class Unit:
    """Changes that become durable together or not at all.

    It appends to one log, `key`, after sequence `expected`. It may grow until the committer takes it.
    """

    key: ThreadKey
    expected: int
    records: list[Record] = field(default_factory=list)
    projection: Projection | None = None
    new_thread: NewThread | None = None
    request: RequestRow | None = None
    enters_session: int = 0
    """Guard: this session has no other active thread; then the thread is it. 0 = no guard."""
    approvals: list[ApprovalChange] = field(default_factory=list)
    """In the order of their events. Those of a row that is not there, or damaged, change nothing."""
    start_counts_micros: int = 0
    """The thread first runs with this unit, which counts against its agent's start rate for so long. 0 = it
    does not."""
    mail: list[Posted] = field(default_factory=list)
    """Told in this order."""
    takes: list[int] = field(default_factory=list)
    """Positions of mail to this thread that what the unit records follows from: it is gone with the unit.
    Conflict when it is gone already."""
    urgent: bool = False
    """It ends the thread, or is on the way to: written also when there is hardly any room."""
    shared: Shared | None = None
    """With a new thread: what its log begins with; `records` follow. Refused(RESOURCE_NOT_FOUND) when the
    other thread is gone.
    """

    @property
    def last(self) -> int:
        return self.expected + len(self.records)


class Ticket(Protocol):
    """A unit on its way to the disk."""

    @property
    def done(self) -> bool:
        """The outcome is known."""
        ...

    async def wait(self) -> None:
        """Returns once the unit is durable.

        Raises what refused it: Conflict, Replayed, Refused, or StoreFailed. Cancelling the wait does not
        touch the unit. May be awaited by any number of tasks, any number of times. While there is no room it
        goes on waiting.
        """
        ...


class StoreFailed(Exception):  # noqa: N818 - in line with the other outcomes of a unit
    """The store could not say that a unit is durable. Whether it is shows after a restart."""


OnCommitted = Callable[[Sequence[Unit]], None]
"""Called on the event loop after each COMMIT, with the units that were applied in order."""


class Log(Protocol):
    """Appends and reads.

    Promises: a unit is applied whole or not at all; units of one log are applied in the order of `submit`;
    `wait` returns only after COMMIT; readers see only what was committed, and see it before `on_committed`
    is called for it; a record read is byte for byte the one written, or the read raises
    Refused(RECORD_CORRUPT).

    While there is no room to write, units that make a thread are refused with DISK_FULL. The others are kept
    in their order and written as soon as there is room, without being submitted again; urgent ones before
    that if it can be done at all, together with the others of their log. Reads go on.
    """

    def check_writable(self) -> None:
        """Raises Refused(DISK_FULL), or STORE_UNAVAILABLE, while what is submitted has to wait.

        To be asked before a unit is submitted that a caller can as well ask for again.
        """
        ...

    @property
    def blocked_by(self) -> Reason | None:
        """What `check_writable` would refuse with; None while it would not. For who only looks: nobody is
        refused by it."""
        ...

    def allocate_thread(self) -> int:
        """A key for a new thread, which none has or ever had."""
        ...

    def submit(self, unit: Unit) -> Ticket:
        """Queues a unit without waiting. Synchronous, on the event loop's thread only."""
        ...

    def extend(self, unit: Unit, grow: Callable[[Unit], Any]) -> bool:
        """Lets `grow` change a unit that was submitted and not yet taken; False when it is too late."""
        ...

    def subscribe(self, on_committed: OnCommitted) -> None:
        """Adds a listener. It must not block."""
        ...

    async def read(self, key: ThreadKey, after: int, limit: int) -> list[StoredRecord]:
        """Records with a greater sequence, in order, at most `limit`. Empty for a thread without any, or
        deleted; raises Expired for one that retention took.
        """
        ...

    async def last_sequence(self, key: ThreadKey) -> int:
        """0 for a thread without records."""
        ...


__all__ = [
    "ApprovalChange",
    "Conflict",
    "Expired",
    "Fenced",
    "Log",
    "NewSession",
    "NewThread",
    "OnCommitted",
    "Posted",
    "Projection",
    "Record",
    "Refused",
    "Replayed",
    "RequestRow",
    "Shared",
    "StoreFailed",
    "StoredRecord",
    "ThreadKey",
    "Ticket",
    "Unit",
]
