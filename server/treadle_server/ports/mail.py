"""Port: what threads tell each other, between the unit that says it and the one that takes it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from treadle_server.ports.log import ThreadKey


@dataclass(frozen=True, slots=True)
class Letter:
    """Something that waits for a thread. Units of the log post it, and take it by its position."""

    position: int
    """Grows with every letter of the whole store: what is told first has the smaller one."""
    key: ThreadKey
    """The receiver's."""
    body: bytes | None
    """None when it is not as it was written."""


class Mailbox(Protocol):
    """Letters of all tenants."""

    async def waiting(self, *, after: int, limit: int) -> Sequence[Letter]:
        """Committed letters beyond a position, in order."""
        ...

    async def drop(self, letter: Letter) -> None:
        """Takes a letter away that makes its receiver do nothing."""
        ...
