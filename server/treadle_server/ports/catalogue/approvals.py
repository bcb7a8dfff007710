"""Port: the rows of approvals, as units of the log leave them."""

from dataclasses import dataclass
from typing import Protocol

from treadle_server.ports.catalogue.pages import Page, Position
from treadle_server.ports.log import ThreadKey


@dataclass(frozen=True, slots=True)
class ApprovalRow:
    """An approval as its last committed event left it."""

    key: int
    thread: ThreadKey
    thread_id: str
    id: str
    kind: int
    state: int
    create_time: int
    body: bytes
    """An `Approval` message without what the other columns say."""
    damaged: bool = False
    """Not as it was written: only its thread and its id are to be believed, and looked up in the log."""


@dataclass(frozen=True, slots=True)
class ApprovalQuery:
    """Approvals of a tenant for which all conditions hold, newest first."""

    tenant: int
    thread: int = 0
    """Key of the only thread; 0 = of all."""
    states: frozenset[int] | None = None
    """None = any."""
    kinds: frozenset[int] | None = None
    object_patterns: tuple[str, ...] = ()
    """Only of threads about an object that fits one of them; empty = of all."""
    after: Position | None = None
    limit: int = 50


class Approvals(Protocol):
    """Rows of approvals. Units of the log make and change them; those of hidden threads are not found."""

    async def get(self, tenant: int, thread_id: str, approval_id: str) -> ApprovalRow | None:
        """A damaged one as such."""
        ...

    async def list(self, query: ApprovalQuery) -> Page[ApprovalRow]:
        """A damaged row is in it, as such, where its thread can be read."""
        ...
