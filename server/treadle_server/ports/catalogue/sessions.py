"""Port: sessions. The unit that begins a thread can make one too, as a `NewSession` of the log."""

from dataclasses import dataclass
from typing import Protocol

from treadle_server.ports.catalogue.pages import Page, Position
from treadle_server.ports.log import NewSession, RequestRow


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
