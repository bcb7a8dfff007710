"""Follows what all threads of a tenant do: commits in order, and the events of each."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from treadle_server.ports.catalogue import CommitRow, ThreadRow, Threads
from treadle_server.ports.feed import Item, TenantFeed
from treadle_server.ports.log import Log

Wanted = Callable[[ThreadRow], bool]
"""Whether a thread is followed. Asked once per commit."""


@dataclass(frozen=True, slots=True)
class TenantBatch:
    """Events of several threads, by thread id, and the position to resume after."""

    threads: tuple[tuple[str, tuple[Item, ...]], ...]
    position: int


class TenantStream:
    """Reads what the commits name. A thread that was deleted meanwhile is left out."""

    def __init__(self, feed: TenantFeed, threads: Threads, log: Log) -> None:
        self._feed = feed
        self._threads = threads
        self._log = log

    async def follow(
        self, tenant: int, after: int | None, wanted: Wanted, kinds: frozenset[int]
    ) -> AsyncIterator[TenantBatch]:
        """Batches from a position on; None = from now. A batch without events is a sign of life."""
        position = await self._feed.newest() if after is None else after
        yield TenantBatch((), position)
        async for page in self._feed.follow(tenant, position):
            for commit in page.items:
                items = await self._items(commit, wanted, kinds)
                if items is not None:
                    yield TenantBatch((items,), commit.position)
            if not page.items:
                yield TenantBatch((), page.position)

    async def _items(
        self, commit: CommitRow, wanted: Wanted, kinds: frozenset[int]
    ) -> tuple[str, tuple[Item, ...]] | None:
        row = await self._threads.get_by_key(commit.key)
        if row is None or not wanted(row):
            return None
        stored = await self._log.read(commit.key, commit.first - 1, commit.last - commit.first + 1)
        items = tuple(
            Item(entry.sequence, entry.record.body)
            for entry in stored
            if not kinds or entry.record.kind in kinds
        )
        return (row.id, items) if items else None
