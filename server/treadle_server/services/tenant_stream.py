"""Follows what all threads of a tenant do: commits in order, and the events of each."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Protocol

from treadle_server.core.errors import Reason, Refused
from treadle_server.ports.catalogue.commits import CommitPage, CommitRow
from treadle_server.ports.catalogue.threads import ThreadRow, Threads
from treadle_server.ports.feed import Item, TenantFeed
from treadle_server.ports.log import Log, ThreadKey
from treadle_server.services.expiry import commits_expired
from treadle_server.services.thread_reads import about

BATCH_EVENTS_MAX = 64
BATCH_BYTES_MAX = 32 * 1024

Wanted = Callable[[ThreadRow], bool]
"""Whether a thread is followed. Asked once per thread and page of commits."""


class Among(Protocol):
    """Threads of one tree that a stream is narrowed to, and that it ends with."""

    @property
    def root(self) -> int: ...

    def has(self, commit: CommitRow) -> bool:
        """Asked in order of the commits."""
        ...

    async def has_gaps(self) -> bool:
        """Retention took one of them."""
        ...

    async def over(self, position: int) -> bool:
        """All have ended, and none has a commit beyond a position."""
        ...


@dataclass(frozen=True, slots=True)
class Place:
    """How far a stream has come: all commits up to `position`, of that one the events up to `sequence`."""

    position: int
    sequence: int = 0
    """0: all of its events."""

    @property
    def beyond(self) -> int:
        """Commits after this position are still wanted, at least in part."""
        return self.position - 1 if self.sequence else self.position


@dataclass(frozen=True, slots=True)
class TenantBatch:
    """Events of several threads, by thread id, and where to go on. Without events it is a sign of life."""

    threads: tuple[tuple[str, tuple[Item, ...]], ...]
    place: Place


class Unreadable(Exception):  # noqa: N818 - carries a refusal
    """A commit whose events are damaged, or a gap that retention left. `place` is where to go on after it."""

    def __init__(self, refused: Refused, place: Place) -> None:
        super().__init__(refused.message)
        self.refused = refused
        self.place = place


@dataclass(slots=True)
class _Pack:
    """A batch in the making: at most 64 events or 32 KiB, and one event may be larger."""

    place: Place
    threads: list[tuple[str, list[Item]]] = field(default_factory=list)
    count: int = 0
    size: int = 0

    def has_room(self, item: Item) -> bool:
        fits = self.count < BATCH_EVENTS_MAX and self.size + len(item.body) <= BATCH_BYTES_MAX
        return not self.count or fits

    def add(self, thread_id: str, item: Item, place: Place) -> None:
        if not self.threads or self.threads[-1][0] != thread_id:
            self.threads.append((thread_id, []))
        self.threads[-1][1].append(item)
        self.count += 1
        self.size += len(item.body)
        self.place = place

    def take(self) -> TenantBatch:
        batch = TenantBatch(tuple((name, tuple(items)) for name, items in self.threads), self.place)
        self.threads, self.count, self.size = [], 0, 0
        return batch


class TenantStream:
    """Reads what the commits name. A thread that was deleted meanwhile is left out."""

    def __init__(
        self, feed: TenantFeed, threads: Threads, log: Log, *, heartbeat_seconds: float = 15.0
    ) -> None:
        self._feed = feed
        self._threads = threads
        self._log = log
        self._heartbeat_seconds = heartbeat_seconds

    async def follow(
        self,
        tenant: int,
        after: Place | None,
        wanted: Wanted,
        kinds: frozenset[int],
        among: Among | None = None,
    ) -> AsyncGenerator[TenantBatch, None]:
        """Batches from a place on; None = from now. The first is without events and says where it begins.
        Never ends unless it is narrowed to threads that do.

        Raises Refused(SEQUENCE_OUT_OF_RANGE) for a place that the store has not reached, and Unreadable, also
        for one behind which retention took something, be it while the reader stays behind.
        """
        place = await self._begin(tenant, after, among)
        yield TenantBatch((), place)
        if among is not None and await among.over(place.beyond):
            return
        root = among.root if among is not None else 0
        loop = asyncio.get_running_loop()
        sent_at = loop.time()
        async with aclosing(self._feed.follow(tenant, place.beyond, root)) as pages:
            async for page in pages:
                if place.beyond < page.horizon and (among is None or await among.has_gaps()):
                    raise await self._gap(page.horizon)
                async for batch in self._batches(page, place, wanted, kinds, among):
                    yield batch
                    sent_at = loop.time()
                place = Place(page.position)
                if not page.items or loop.time() - sent_at >= self._heartbeat_seconds:
                    yield TenantBatch((), place)
                    sent_at = loop.time()
                if among is not None and await among.over(place.position):
                    return

    async def _begin(self, tenant: int, after: Place | None, among: Among | None) -> Place:
        newest = await self._feed.newest()
        if after is not None and after.position > newest:
            raise Refused(
                Reason.SEQUENCE_OUT_OF_RANGE,
                "after_cursor is beyond the last commit",
                metadata={"first": "1", "last": str(newest)},
            )
        if after is not None and (among is None or await among.has_gaps()):
            await self._require_whole(tenant, after)
        return Place(newest) if after is None else after

    async def _require_whole(self, tenant: int, place: Place) -> None:
        """Raises Unreadable when retention took commits behind this place."""
        horizon = await self._feed.horizon(tenant)
        if place.beyond < horizon:
            raise await self._gap(horizon)

    async def _gap(self, horizon: int) -> "Unreadable":
        return Unreadable(commits_expired(horizon, await self._feed.newest()), Place(horizon))

    async def _batches(
        self,
        page: CommitPage,
        begin: Place,
        wanted: Wanted,
        kinds: frozenset[int],
        among: Among | None,
    ) -> AsyncIterator[TenantBatch]:
        pack, followed = _Pack(begin), dict[ThreadKey, bool]()
        for commit in page.items:
            after = begin.sequence if commit.position == begin.position else 0
            try:
                if commit.damaged:
                    text = f"commit {commit.position} is damaged in the store: it may have been this tenant's"
                    raise Refused(Reason.RECORD_CORRUPT, text)
                if among is not None and not among.has(commit):
                    continue
                if commit.key not in followed:
                    followed[commit.key] = await self._is_followed(commit, wanted)
                if not followed[commit.key]:
                    continue
                async for item in self._items(commit, max(after, commit.first - 1), kinds):
                    if not pack.has_room(item):
                        yield pack.take()
                    sequence = 0 if item.sequence == commit.last else item.sequence
                    pack.add(commit.thread_id, item, Place(commit.position, sequence))
            except Refused as refused:
                if pack.count:
                    yield pack.take()
                if refused.reason is Reason.SEQUENCE_OUT_OF_RANGE:
                    await self._require_whole(commit.key.tenant, Place(commit.position - 1))
                raise Unreadable(refused, Place(commit.position)) from refused
        if pack.count:
            yield pack.take()

    async def _is_followed(self, commit: CommitRow, wanted: Wanted) -> bool:
        with about(f"threads/{commit.thread_id}"):
            row = await self._threads.get_by_key(commit.key)
        if row is None:  # deleted since its commit was read, or expired
            await self._require_whole(commit.key.tenant, Place(commit.position - 1))
        return row is not None and wanted(row)

    async def _items(self, commit: CommitRow, after: int, kinds: frozenset[int]) -> AsyncIterator[Item]:
        """The events of a commit after a sequence; none of a thread that was deleted."""
        while after < commit.last:
            with about(f"threads/{commit.thread_id}"):
                stored = await self._log.read(commit.key, after, min(BATCH_EVENTS_MAX, commit.last - after))
            for entry in stored:
                if not kinds or entry.record.kind in kinds:
                    yield Item(entry.sequence, entry.record.body)
            if not stored:
                return
            after = stored[-1].sequence
