"""Port: the rows beside the log. Bodies are opaque bytes; what they say is `wire`'s affair.

Every mutation is durable on return, and takes an optional `request`: then it raises Replayed, or
Refused(REQUEST_ID_REUSED), before anything else if that request id was used. A row that was changed since it
was read is refused with ETAG_MISMATCH; a damaged one is never returned, but raises Refused(RECORD_CORRUPT).
Pages are full unless they are the last, whatever the filter lets through. Times are micros since 1970.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, Protocol, TypeVar

from treadle_server.ports.log import NewSession, RequestRow, ThreadKey

T = TypeVar("T")

Position = tuple[int, int]
"""Where a page ended: the sorted value and the key of its last row."""


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Rows in order. `next` is where to go on; None after the last."""

    items: tuple[T, ...]
    next: Position | None


@dataclass(frozen=True, slots=True)
class TenantRow:
    """A tenant."""

    key: int
    id: str
    display_name: str
    thread_retention: int | None
    """Micros that threads are kept after their end; None = as long as the server says."""
    revision: int
    """Counts every change, from 1."""
    create_time: int
    update_time: int


@dataclass(frozen=True, slots=True)
class NewApiKey:
    """A key to store. Of the secret only the hash."""

    tenant: int
    id: str
    principal: str
    admin: bool
    prefix: str
    """The part of the key that is no secret, and finds it."""
    secret_hash: bytes
    display_name: str
    create_time: int
    expire_time: int | None = None


@dataclass(frozen=True, slots=True)
class ApiKeyRow:
    """A stored key."""

    key: int
    tenant: int
    id: str
    principal: str
    admin: bool
    prefix: str
    secret_hash: bytes
    display_name: str
    revision: int
    """Counts every change, from 1."""
    create_time: int
    update_time: int
    expire_time: int | None
    delete_time: int | None


@dataclass(frozen=True, slots=True)
class AgentRow:
    """An agent as it is now."""

    key: int
    tenant: int
    id: str
    version: int
    """The newest of its versions."""
    revision: int
    """Counts every change, from 1."""
    body: bytes
    create_time: int
    update_time: int
    delete_time: int | None
    purge_time: int | None


@dataclass(frozen=True, slots=True)
class AgentVersionRow:
    """An agent as it was when this version was made. Never changes."""

    version: int
    body: bytes
    create_time: int


@dataclass(frozen=True, slots=True)
class SessionRow:
    """A session."""

    key: int
    tenant: int
    id: str
    session_key: str
    """The caller's own; empty when it has none."""
    agent: int
    parent_object: str
    active_thread: int
    """Key of the thread that is in it; 0 when none is."""
    create_time: int


@dataclass(frozen=True, slots=True)
class ThreadRow:
    """A thread as its last committed unit left it."""

    key: ThreadKey
    id: str
    agent: int
    agent_id: str
    version: int
    session: int
    """0 when it has none."""
    session_id: str
    state: int
    stop_reason: int
    sequence: int
    epoch: int
    """Of the server that wrote last."""
    revision: int
    """Counts changes by `update` only, from 1."""
    create_time: int
    start_time: int | None
    state_time: int
    end_time: int | None
    wake_at: int | None
    iteration_count: int
    tool_call_count: int
    total_tokens: int
    cost_micros: int
    subject_type: str
    subject_id: str
    trigger_type: int
    triggered_by: str
    spec_digest: bytes
    tags: tuple[str, ...]
    labels: dict[str, str]
    client_metadata: bytes
    summary: bytes | None
    """None while it lives, and of a condemned one."""
    damaged: bool = False
    """Not as it was written: only its key and its place in a list are to be believed. Lists alone have such
    rows, as FAILED with DATA_LOSS."""


@dataclass(frozen=True, slots=True)
class ExpiredThread:
    """What is still known of a thread that retention took."""

    key: ThreadKey
    id: str
    sequence: int
    """Of its last event."""
    expire_time: int


class ThreadColumn(StrEnum):
    """What threads can be filtered on."""

    STATE = "state"
    STOP_REASON = "stop_reason"
    AGENT = "agent"
    """By key, as SESSION."""
    VERSION = "version"
    SESSION = "session"
    SUBJECT_TYPE = "subject_type"
    SUBJECT_ID = "subject_id"
    TRIGGER_TYPE = "trigger_type"
    CREATE_TIME = "create_time"
    START_TIME = "start_time"
    STATE_TIME = "state_time"
    END_TIME = "end_time"
    ITERATION_COUNT = "iteration_count"
    TOOL_CALL_COUNT = "tool_call_count"
    TOTAL_TOKENS = "total_tokens"
    COST_MICROS = "cost_micros"
    TAG = "tag"
    """HAS only; the value is the tag."""
    LABEL = "label"
    """HAS only; the value is (label, value), or the label alone for any value."""
    TRIGGERED_BY = "triggered_by"


class Operator(StrEnum):
    """How a column compares with a value. A column without a value matches nothing but NOT_EQUAL."""

    EQUAL = "="
    NOT_EQUAL = "!="
    LESS = "<"
    LESS_OR_EQUAL = "<="
    GREATER = ">"
    GREATER_OR_EQUAL = ">="
    IN = "in"
    """The value is a tuple of up to 100."""
    HAS = ":"


@dataclass(frozen=True, slots=True)
class Condition:
    """One term of a filter."""

    column: ThreadColumn
    operator: Operator
    value: int | str | tuple[int | str, ...]


class ThreadOrder(StrEnum):
    """What threads can be sorted by. Rows without a value sort as 0."""

    CREATE_TIME = "create_time"
    START_TIME = "start_time"
    STATE_TIME = "state_time"
    END_TIME = "end_time"
    ITERATION_COUNT = "iteration_count"
    TOTAL_TOKENS = "total_tokens"
    COST_MICROS = "cost_micros"


@dataclass(frozen=True, slots=True)
class ThreadQuery:
    """Threads of a tenant for which all conditions hold, newest first unless it says otherwise."""

    tenant: int
    conditions: tuple[Condition, ...] = ()
    order_by: ThreadOrder = ThreadOrder.CREATE_TIME
    descending: bool = True
    after: Position | None = None
    limit: int = 50


@dataclass(frozen=True, slots=True)
class Wake:
    """A thread that wants to be looked at, and when."""

    key: ThreadKey
    wake_at: int


@dataclass(frozen=True, slots=True)
class CommitRow:
    """One append: these records of this thread became durable together."""

    position: int
    """Grows with every append of the whole store."""
    key: ThreadKey
    thread_id: str
    first: int
    last: int
    damaged: bool = False
    """Not as it was written: only its position is to be believed, and it may be another tenant's."""


@dataclass(frozen=True, slots=True)
class CommitPage:
    """Appends of one tenant, and the position up to which there are no others of it."""

    items: tuple[CommitRow, ...]
    position: int
    horizon: int = 0
    """Retention took commits up to this position: whoever read less far may have missed some."""


class Tenants(Protocol):
    """Tenants by their ids. None is ever deleted.

    A request id counts among those of `caller`, the key of the tenant that the call was made for.
    """

    async def get_or_create(self, tenant_id: str, *, create_time: int) -> TenantRow: ...

    async def create(
        self,
        tenant_id: str,
        *,
        display_name: str,
        thread_retention: int | None,
        create_time: int,
        caller: int,
        request: RequestRow | None = None,
    ) -> TenantRow:
        """Raises Refused(RESOURCE_EXISTS) for an id that is taken."""
        ...

    async def update(
        self,
        row: TenantRow,
        *,
        display_name: str,
        thread_retention: int | None,
        update_time: int,
        caller: int,
        request: RequestRow | None = None,
    ) -> TenantRow: ...

    async def list(self, *, limit: int, after: Position | None = None) -> Page[TenantRow]:
        """Newest first."""
        ...

    async def count(self) -> int:
        """How many `list` gives in all."""
        ...

    async def find(self, tenant_id: str) -> TenantRow | None: ...

    async def get_by_key(self, key: int) -> TenantRow | None: ...


class ApiKeys(Protocol):
    """Keys that callers identify themselves with."""

    async def create(self, new: NewApiKey, *, request: RequestRow | None = None) -> ApiKeyRow:
        """Raises Refused(RESOURCE_EXISTS) for an id that is or was taken."""
        ...

    async def prefixes(self) -> Sequence[str]:
        """Of all keys, in no order; those of deleted ones may be among them."""
        ...

    async def find_by_prefix(self, prefix: str) -> ApiKeyRow | None:
        """The key to compare the secret with; None for a deleted one. Expiry is the caller's to check."""
        ...

    async def get(self, tenant: int, api_key_id: str) -> ApiKeyRow | None:
        """None for a deleted one."""
        ...

    async def list(self, tenant: int, *, limit: int, after: Position | None = None) -> Page[ApiKeyRow]:
        """Newest first, without the deleted."""
        ...

    async def count(self, tenant: int) -> int:
        """How many `list` gives in all."""
        ...

    async def update(
        self,
        row: ApiKeyRow,
        *,
        display_name: str,
        expire_time: int | None,
        update_time: int,
        request: RequestRow | None = None,
    ) -> ApiKeyRow: ...

    async def delete(self, row: ApiKeyRow, *, delete_time: int, request: RequestRow | None = None) -> None:
        """Nothing happens to one that is deleted already."""
        ...


class Agents(Protocol):
    """Agents and their versions. A deleted one can be brought back until it is purged; its id stays taken."""

    async def create(
        self,
        tenant: int,
        agent_id: str,
        *,
        body: bytes,
        version_body: bytes,
        create_time: int,
        request: RequestRow | None = None,
    ) -> AgentRow:
        """Makes version 1 too. Raises Refused(RESOURCE_EXISTS) for an id that is or was taken."""
        ...

    async def get(self, tenant: int, agent_id: str) -> AgentRow | None:
        """A deleted one too; None once it is purged."""
        ...

    async def get_by_key(self, tenant: int, key: int) -> AgentRow | None: ...

    async def list(
        self, tenant: int, *, limit: int, after: Position | None = None, show_deleted: bool = False
    ) -> Page[AgentRow]:
        """Newest first."""
        ...

    async def count(self, tenant: int, *, show_deleted: bool = False) -> int:
        """How many `list` gives in all."""
        ...

    async def update(
        self,
        row: AgentRow,
        *,
        body: bytes,
        version_body: bytes | None,
        update_time: int,
        request: RequestRow | None = None,
    ) -> AgentRow:
        """Replaces the body; with a version body it makes version `row.version + 1` too."""
        ...

    async def delete(
        self, row: AgentRow, *, delete_time: int, purge_time: int, request: RequestRow | None = None
    ) -> AgentRow: ...

    async def undelete(
        self, row: AgentRow, *, update_time: int, request: RequestRow | None = None
    ) -> AgentRow: ...

    async def get_version(self, agent: int, version: int) -> AgentVersionRow | None: ...

    async def list_versions(
        self, agent: int, *, limit: int, after: Position | None = None
    ) -> Page[AgentVersionRow]:
        """Newest first."""
        ...


class Sessions(Protocol):
    """Sessions by id, and by the caller's own key."""

    async def create_if_absent(
        self, tenant: int, new: NewSession, *, request: RequestRow | None = None
    ) -> SessionRow:
        """The session that has `new.session_key`, made if none has it or it is empty.

        Raises Refused(RESOURCE_EXISTS) if another session has or had the id.
        """
        ...

    async def get(self, tenant: int, session_id: str) -> SessionRow | None: ...

    async def get_by_key(self, tenant: int, key: int) -> SessionRow | None: ...

    async def find(self, tenant: int, session_key: str) -> SessionRow | None: ...

    async def list(self, tenant: int, *, limit: int, after: Position | None = None) -> Page[SessionRow]:
        """Newest first."""
        ...


class Threads(Protocol):
    """Rows of threads. Units of the log make and move them; here they are found, labelled and deleted.

    A thread that was deleted or has expired is found by none of these but `expired`. Its id stays taken for
    ever.
    """

    async def get(self, tenant: int, thread_id: str) -> ThreadRow | None: ...

    async def get_by_key(self, key: ThreadKey) -> ThreadRow | None: ...

    async def expired(self, tenant: int, thread_id: str) -> ExpiredThread | None:
        """None unless retention took it, and once it is forgotten."""
        ...

    async def spec(self, tenant: int, digest: bytes) -> bytes | None:
        """What `NewThread.spec` was for this digest."""
        ...

    async def list(self, query: ThreadQuery) -> Page[ThreadRow]:
        """A damaged row is in it, as such, also when nobody can tell whether the conditions hold for it.

        Raises ValueError for a condition that its column does not have.
        """
        ...

    async def unfinished(self, *, after: int, limit: int) -> Sequence[ThreadRow]:
        """Threads of all tenants that have not ended, by key, beyond the key `after`; the damaged as such."""
        ...

    async def wakes(self, *, until: int, limit: int, after: Position | None = None) -> Sequence[Wake]:
        """Threads of all tenants that want to be looked at by `until`, the first of them first."""
        ...

    async def update(
        self,
        row: ThreadRow,
        *,
        tags: Sequence[str],
        labels: dict[str, str],
        client_metadata: bytes,
        request: RequestRow | None = None,
    ) -> ThreadRow: ...

    async def delete(self, row: ThreadRow, *, delete_time: int, request: RequestRow | None = None) -> None:
        """Hides an ended thread at once; its log goes later. Raises Conflict for one that has not ended."""
        ...

    async def condemn(self, key: ThreadKey, *, stop_reason: int, now: int) -> None:
        """Ends a thread whose log or row cannot be read: FAILED by its row alone, its log as it is.

        Frees its session and drops its timer. Nothing happens to one that has ended.
        """
        ...


class Commits(Protocol):
    """The order of all appends, for streams that span threads."""

    async def last_position(self) -> int:
        """Of the newest append, also once its thread is gone; 0 in a new store."""
        ...

    async def horizon(self, tenant: int) -> int:
        """The position up to which retention took commits; 0 = it took none. It only grows."""
        ...

    async def read(self, tenant: int, *, after: int, limit: int) -> CommitPage:
        """Appends beyond a position, in order. Without items it may still have got on: read on from its
        position until that is the last.
        """
        ...


class Requests(Protocol):
    """What was asked before, by request id."""

    async def find(self, tenant: int, request_id: str, *, now: int) -> RequestRow | None:
        """None for an expired one."""
        ...


class Housekeeping(Protocol):
    """Bounded work behind the scenes. Each call does some, gives way to callers, and says how much it did."""

    async def forget_requests(self, now: int) -> int:
        """Request ids that expired."""
        ...

    async def expire_threads(self, now: int, retention: int | None) -> int:
        """Hides ended threads that are kept no longer, whole. `retention`, in micros, is for tenants that
        have none of their own; None = for ever.
        """
        ...

    async def purge_threads(self) -> int:
        """Threads that were deleted or have expired, with all that was made of them but their ids."""
        ...

    async def prune_commits(self) -> int:
        """Commits of such threads. Each call goes on where the last one stopped."""
        ...

    async def forget_threads(self, now: int) -> int:
        """Rows of threads that have been gone for 30 days. Their ids stay taken."""
        ...

    async def purge_agents(self, now: int) -> int:
        """Deleted agents whose purge time has come."""
        ...

    async def reclaim(self) -> int:
        """Pages of the file that nothing uses, given back to the disk."""
        ...
