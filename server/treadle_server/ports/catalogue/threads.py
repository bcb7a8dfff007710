"""Port: the rows of threads, as the log leaves them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from treadle_server.ports.catalogue.pages import Page, Position
from treadle_server.ports.catalogue.thread_queries import ThreadQuery
from treadle_server.ports.log import RequestRow, ThreadKey


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
    parent_object: str = ""
    """The caller's object that access follows; empty when it has none."""
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


@dataclass(frozen=True, slots=True)
class Wake:
    """A thread that wants to be looked at, and when."""

    key: ThreadKey
    wake_at: int


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
