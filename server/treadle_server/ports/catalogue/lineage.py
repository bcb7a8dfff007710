"""Port: trees of threads, made by agents that call agents."""

from dataclasses import dataclass
from typing import Protocol

from treadle_server.ports.log import ThreadKey


@dataclass(frozen=True, slots=True)
class Ancestry:
    """Where a thread stands in its tree."""

    parent: int
    """Key of the thread whose agent called this one's; 0 = none did."""
    root: int
    """Key of the first thread of the tree, which may be this one."""
    begin_position: int
    """Of the thread's first commit; 0 when that is gone."""


class Lineage(Protocol):
    """A thread's unit puts it into its tree; it leaves it when it is forgotten."""

    async def of(self, key: ThreadKey) -> Ancestry | None:
        """None for a thread that never was."""
        ...

    async def tree(self, key: ThreadKey) -> set[int]:
        """Keys of a thread and all its descendants."""
        ...

    async def has_gaps(self, key: ThreadKey) -> bool:
        """Retention took the thread or one of its descendants."""
        ...

    async def over(self, key: ThreadKey, position: int) -> bool:
        """The thread and all its descendants have ended, and none has a commit beyond a position."""
        ...
