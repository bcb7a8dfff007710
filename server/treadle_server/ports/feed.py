"""Port: streams of what was committed."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Protocol

from treadle_server.core.errors import Refused
from treadle_server.core.kinds import DeltaKind
from treadle_server.ports.catalogue.commits import CommitPage
from treadle_server.ports.log import ThreadKey


@dataclass(frozen=True, slots=True)
class Item:
    """One event to deliver. `sequence` is 0 for an ephemeral one."""

    sequence: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Watch:
    """What one subscriber of a thread wants."""

    key: ThreadKey
    after: int
    """The last sequence it has."""
    kinds: frozenset[int] = frozenset()
    """Kinds of event to deliver; empty = all."""
    deltas: bool = False
    fresh: bool = False
    """The thread is about to be made: there is nothing in the store to look for."""


class Subscription(Protocol):
    """One reader's place in one thread. It counts from the moment it was made; close it in every case."""

    def __aiter__(self) -> "Subscription": ...

    async def __anext__(self) -> list[Item]:
        """The next batch: at most 64 events or 32 KiB (one event may be larger).

        Ends after the thread's last event. An idle stream gets a heartbeat. Raises Refused(DRAINING) when
        the server stops, Refused(RESOURCE_NOT_FOUND) when the thread is deleted. Damage is raised after the
        last event before it.
        """
        ...

    def close(self) -> None:
        """Idempotent."""
        ...


class Feed(Protocol):
    """Delivers each committed event after the given place, in order, once. Slow readers slow nobody."""

    def follow(self, watch: Watch) -> Subscription: ...

    def delta(self, key: ThreadKey, call_id: str, attempt: int, kind: DeltaKind, text: str) -> None:
        """Shows a piece of a message that is being made to subscribers at the head."""
        ...

    def refuse(self, key: ThreadKey, damage: Refused) -> None:
        """Ends the streams of a thread that gets no further event, not even its last."""
        ...


class TenantFeed(Protocol):
    """Follows all threads of a tenant: each thread in order, none missing, no order between threads."""

    def follow(self, tenant: int, after: int, root: int = 0) -> AsyncGenerator[CommitPage, None]:
        """Commits after a position, in order, of one tree of threads or of all (0); a page without any is a
        sign of life, or has a horizon behind that position. To be closed.
        """
        ...

    async def horizon(self, tenant: int) -> int:
        """The position up to which retention took commits of the tenant; 0 = it took none."""
        ...

    async def newest(self) -> int:
        """The position to follow from when nothing old is wanted."""
        ...
