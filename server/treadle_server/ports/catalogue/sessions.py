"""Port: sessions, and what was said in them. The unit that makes the first thread of one begins it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from treadle_server.ports.catalogue.pages import Page, Position
from treadle_server.ports.log import NewSession, RequestRow, StoredRecord, ThreadKey


@dataclass(frozen=True, slots=True)
class SessionRow:
    """A session."""

    key: int
    tenant: int
    id: str
    session_key: str
    """The caller's own; empty when it has none."""
    agent: int
    agent_id: str
    parent_object: str
    active_thread: int
    """Key of the thread that is in it; 0 when none is."""
    active_thread_id: str
    create_time: int
    number: int
    """1, 2, 3 within the tenant."""
    begun: bool
    """A thread was made in it, and settled what its context is."""
    context_initial: str
    labels: dict[str, str] = field(default_factory=dict)
    revision: int = 1
    """Counts changes by `update` only, from 1."""
    update_time: int = 0


@dataclass(frozen=True, slots=True)
class SessionPlace:
    """Where an event stands in the order of a session's events."""

    create_time: int
    """Of its thread."""
    thread: int
    sequence: int


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """An event of a session's thread, as it is stored."""

    key: ThreadKey
    thread_id: str
    place: SessionPlace
    stored: StoredRecord


class Sessions(Protocol):
    """Sessions by id, and by the caller's own key. Deleted ones are not found."""

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

    async def update(
        self,
        row: SessionRow,
        *,
        labels: dict[str, str],
        update_time: int,
        request: RequestRow | None = None,
    ) -> SessionRow:
        """Raises Refused(ETAG_MISMATCH) if the session has changed since the row was read."""
        ...

    async def delete(self, row: SessionRow, *, delete_time: int, request: RequestRow | None = None) -> None:
        """Hides it and frees its key.

        Raises Refused: SESSION_BUSY while a thread of it has not ended, ETAG_MISMATCH as `update`.
        """
        ...

    async def unfinished(self, row: SessionRow, *, limit: int) -> Sequence[tuple[ThreadKey, str]]:
        """Keys and ids of its threads that have not ended: the one that is in it, then the oldest first."""
        ...


class SessionRecords(Protocol):
    """The logs of a session's threads as one, by the order in which the threads were made."""

    async def after(
        self, tenant: int, session: int, place: SessionPlace | None, *, kinds: Sequence[int], limit: int
    ) -> Sequence[SessionRecord]:
        """Events of these kinds beyond a place, oldest first. Threads that are gone are left out.

        Here and below: raises Refused(RECORD_CORRUPT) for an event that is not as it was written.
        """
        ...

    async def ended_before(
        self,
        tenant: int,
        session: int,
        place: SessionPlace | None,
        *,
        kinds: Sequence[int],
        limit: int,
    ) -> Sequence[SessionRecord]:
        """As `after`, but of threads that have ended, before a place, and the newest first."""
        ...
