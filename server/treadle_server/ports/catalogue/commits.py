"""Port: the order of appends over all threads."""

from dataclasses import dataclass
from typing import Protocol

from treadle_server.ports.log import ThreadKey


@dataclass(frozen=True, slots=True)
class CommitRow:
    """One append: these records of this thread became durable together."""

    position: int
    """Grows with every append of the whole store."""
    key: ThreadKey
    thread_id: str
    first: int
    last: int
    parent: int = 0
    """Key of the thread whose agent called this one's; 0 = none did."""
    damaged: bool = False
    """Not as it was written: only its position is to be believed, and it may be another tenant's."""


@dataclass(frozen=True, slots=True)
class CommitPage:
    """Appends of one tenant, and the position up to which there are no others of it."""

    items: tuple[CommitRow, ...]
    position: int
    horizon: int = 0
    """Retention took commits up to this position: whoever read less far may have missed some."""


class Commits(Protocol):
    """The order of all appends, for streams that span threads."""

    async def last_position(self) -> int:
        """Of the newest append, also once its thread is gone; 0 in a new store."""
        ...

    async def horizon(self, tenant: int) -> int:
        """The position up to which retention took commits; 0 = it took none. It only grows."""
        ...

    async def read(self, tenant: int, *, after: int, limit: int, root: int = 0) -> CommitPage:
        """Appends beyond a position, in order, of the tree of a root or of all threads (0). Without items it
        may still have got on: read on from its position until that is the last.
        """
        ...
