"""Memories: put, read, deleted and searched, by callers and by the tools of agents."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from treadle_server.core.errors import not_found
from treadle_server.core.memory import Memory, memory_name
from treadle_server.ports.catalogue.memories import Memories as MemoryStore
from treadle_server.ports.catalogue.memories import MemoryRow
from treadle_server.ports.catalogue.pages import Page, Position
from treadle_server.ports.catalogue.threads import Threads
from treadle_server.ports.clock import Clock
from treadle_server.ports.log import RequestRow, ThreadKey
from treadle_server.services.etags import change, check_etag
from treadle_server.services.page_bytes import read_page
from treadle_server.services.requests import Asked, Replays

ABSENT_ETAG = "0"
"""Of a memory that is not there."""


class MemoryCodec(Protocol):
    """Memories as the bytes that are answered."""

    def answer(self, memory: Memory) -> bytes:
        """The response that a repeated call gets again."""
        ...


class Memories:
    """The use cases of MemoryService. An empty namespace stands for all of a tenant."""

    def __init__(self, store: MemoryStore, codec: MemoryCodec, replays: Replays, clock: Clock) -> None:
        self._store = store
        self._codec = codec
        self._replays = replays
        self._clock = clock

    async def get(self, tenant: int, namespace: str, key: str) -> Memory:
        return _shown(await self._row(tenant, namespace, key))

    async def put(
        self, tenant: int, asked: Asked, namespace: str, key: str, text: str, *, etag: str = ""
    ) -> Memory:
        """Makes it or replaces its text. Raises Refused(QUOTA_EXCEEDED) where there is no room."""

        async def act() -> Memory:
            row = await self._store.get(tenant, namespace, key)
            check_etag(etag, etag_of(row), memory_name(namespace, key))
            made = _next(row, tenant, namespace, key, text, now=self._clock.now())
            answer = self._codec.answer(_shown(made))
            request = asked.row(resource=memory_name(namespace, key), response=answer, now=made.update_time)
            await _write(self._store, row, made, request)
            return _shown(made)

        return await self._replays.once(tenant, asked, lambda: change(act))

    async def delete(self, tenant: int, asked: Asked, namespace: str, key: str, *, etag: str = "") -> None:
        async def act() -> None:
            row = await self._row(tenant, namespace, key)
            check_etag(etag, etag_of(row), memory_name(namespace, key))
            request = asked.row(resource=memory_name(namespace, key), response=b"", now=self._clock.now())
            await self._store.delete(row, request=request)

        await self._replays.once(tenant, asked, lambda: change(act))

    async def list(
        self, tenant: int, namespace: str, *, limit: int, after: Position | None
    ) -> tuple[Page[Memory], int]:
        """A page, newest first, and how many there are."""
        page = await read_page(
            lambda limit, after: self._store.list(tenant, namespace, limit=limit, after=after),
            limit=limit,
            after=after,
            size=lambda row: len(row.text.encode()),
            position=lambda row: (row.key, row.key),
        )
        total = await self._store.count(tenant, namespace)
        return Page(tuple(_shown(row) for row in page.items), page.next), total

    async def search(
        self, tenant: int, namespace: str, query: str, *, limit: int, skip: int
    ) -> tuple[Sequence[Memory], int | None]:
        """Those that fit best first, and how many to skip for those that follow."""
        namespaces = (namespace,) if namespace else ()
        rows, following = await self._store.search(tenant, namespaces, query, limit=limit, skip=skip)
        return [_shown(row) for row in rows], following

    async def _row(self, tenant: int, namespace: str, key: str) -> MemoryRow:
        row = await self._store.get(tenant, namespace, key)
        if row is None:
            raise not_found("Memory", memory_name(namespace, key))
        return row


class ThreadMemories:
    """Implements `ports.tools.Memories`: what agents keep is what callers see."""

    def __init__(self, store: MemoryStore, threads: Threads, clock: Clock) -> None:
        self._store = store
        self._threads = threads
        self._clock = clock

    async def save(self, thread: ThreadKey, namespace: str, key: str, text: str) -> None:
        row = await self._threads.get_by_key(thread)
        name = f"threads/{row.id}" if row is not None else ""

        async def act() -> None:
            row = await self._store.get(thread.tenant, namespace, key)
            if row is not None and (row.text, row.thread) == (text, name):
                return  # a further attempt at the same call
            made = _next(row, thread.tenant, namespace, key, text, now=self._clock.now(), thread=name)
            await _write(self._store, row, made)

        await change(act)

    async def search(
        self, tenant: int, namespaces: Sequence[str], query: str, limit: int
    ) -> Sequence[MemoryRow]:
        if not namespaces:
            return ()
        return (await self._store.search(tenant, namespaces, query, limit=limit))[0]


def etag_of(row: MemoryRow | None) -> str:
    """Another one also after it was deleted and put again."""
    if row is None:
        return ABSENT_ETAG
    return hashlib.sha256(f"{row.create_time} {row.revision}".encode()).hexdigest()[:16]


def _next(
    row: MemoryRow | None, tenant: int, namespace: str, key: str, text: str, *, now: int, thread: str = ""
) -> MemoryRow:
    """The memory as the next put leaves it."""
    if row is None:
        return MemoryRow(0, tenant, namespace, key, text, thread, 1, now, now)
    update_time = max(now, row.update_time)
    return replace(row, text=text, thread=thread, revision=row.revision + 1, update_time=update_time)


async def _write(
    store: MemoryStore, row: MemoryRow | None, made: MemoryRow, request: RequestRow | None = None
) -> None:
    text, thread, time = made.text, made.thread, made.update_time
    if row is not None:
        await store.replace(row, text=text, thread=thread, update_time=time, request=request)
        return
    place = (made.tenant, made.namespace, made.item_key)
    await store.create(*place, text=text, thread=thread, create_time=time, request=request)


def _shown(row: MemoryRow) -> Memory:
    return Memory(
        name=memory_name(row.namespace, row.item_key),
        text=row.text,
        thread=row.thread,
        create_time_micros=row.create_time,
        update_time_micros=row.update_time,
        etag=etag_of(row),
    )
