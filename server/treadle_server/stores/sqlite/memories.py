"""Memories, how much of them there is, and the index that finds them."""

import math
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from treadle_server.core.errors import Reason, Refused
from treadle_server.ports.catalogue.memories import MemoryRow, Room
from treadle_server.ports.catalogue.pages import Page, Position
from treadle_server.ports.log import RequestRow
from treadle_server.stores.refusals import revision_differs
from treadle_server.stores.sqlite.changes import Changes
from treadle_server.stores.sqlite.memory_rows import (
    COLUMNS,
    TOTAL_COLUMNS,
    checksum_of,
    memory_of,
    name_of,
    total_of,
)
from treadle_server.stores.sqlite.memory_words import match_of, terms_of, words_of
from treadle_server.stores.sqlite.pages import before, page_of
from treadle_server.stores.sqlite.readers import Readers
from treadle_server.stores.sqlite.statements import Answer, Require, Statement, Write

PAGE_BYTES_MAX = 2 * 1024 * 1024
_KEYS_AT_ONCE = 64
HITS_MAX = 500
"""Memories that are looked at for each term of a query, the newest that have it."""

_SELECT = f"SELECT {COLUMNS} FROM memories WHERE tenant = ? AND namespace = ? AND key = ?"
_REQUIRE_NONE = """
SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM memories WHERE tenant = ? AND namespace = ? AND key = ?)"""
_REQUIRE_SAME = "SELECT 1 FROM memories WHERE memory = ? AND revision = ?"
_INSERT = """
INSERT INTO memories
  (tenant, namespace, key, text, thread, revision, create_time, update_time, words, checksum)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""
_UPDATE = """
UPDATE memories SET text = ?, thread = ?, revision = ?, update_time = ?, words = ?, checksum = ?
WHERE memory = ?"""
_DELETE = "DELETE FROM memories WHERE memory = ?"
_ADD_TO_INDEX = """
INSERT INTO memory_index (rowid, words)
SELECT memory, words FROM memories WHERE tenant = ? AND namespace = ? AND key = ?"""
_TAKE_FROM_INDEX = """
INSERT INTO memory_index (memory_index, rowid, words)
SELECT 'delete', memory, words FROM memories WHERE memory = ?"""
# Relative to what was there, the sum included: what is damaged stays so.
_ADD_TO_TOTAL = """
INSERT INTO memory_totals (tenant, namespace, item_count, text_bytes, check_sum)
VALUES (?1, ?2, ?3, ?4, 3 * ?1 + 5 * ?3 + 7 * ?4)
ON CONFLICT (tenant, namespace) DO UPDATE SET
  item_count = item_count + ?3, text_bytes = text_bytes + ?4, check_sum = check_sum + 5 * ?3 + 7 * ?4"""
_DROP_TOTAL = "DELETE FROM memory_totals WHERE tenant = ? AND namespace = ? AND item_count = 0"
_TOTAL = f"SELECT {TOTAL_COLUMNS} FROM memory_totals WHERE tenant = ? AND namespace = ?"
# Not from the totals: that a row of theirs is lost would not show.
_COUNT = "SELECT count(*) FROM memories WHERE tenant = ? AND namespace = ?"
_COUNT_ALL = "SELECT count(*) FROM memories WHERE tenant = ?"
_LIST = f"""
SELECT {COLUMNS} FROM memories
WHERE tenant = ? AND namespace = ? AND memory < ? ORDER BY memory DESC LIMIT ?"""
_LIST_ALL = f"SELECT {COLUMNS} FROM memories WHERE tenant = ? AND memory < ? ORDER BY memory DESC LIMIT ?"
_HITS = """
SELECT * FROM (
  SELECT {term}, rowid FROM memory_index WHERE memory_index MATCH ? ORDER BY rowid DESC LIMIT ?)"""
_BY_KEYS = f"SELECT {COLUMNS} FROM memories WHERE tenant = ? AND memory IN ({{keys}})"


@dataclass(slots=True)
class RequireRoom:
    """Refuses what there is no room for."""

    tenant: int
    namespace: str
    items: int
    """How many more there will be."""
    text_bytes: int
    """How much more text; less is always let through."""
    room: Room
    refuses: ClassVar[bool] = True
    writes: ClassVar[bool] = False

    def apply(self, cursor: sqlite3.Cursor) -> None:
        if self.items and self._total(cursor, self.namespace)[0] >= self.room.namespace_items_max:
            raise _no_room(f"memories/{self.namespace}", self.room.namespace_items_max, "memories")
        items, text_bytes = self._total(cursor, "")
        if self.items and items >= self.room.tenant_items_max:
            raise _no_room("memories/-", self.room.tenant_items_max, "memories")
        if self.text_bytes > 0 and text_bytes + self.text_bytes > self.room.tenant_bytes_max:
            raise _no_room("memories/-", self.room.tenant_bytes_max, "bytes of text")

    def _total(self, cursor: sqlite3.Cursor, namespace: str) -> tuple[int, int]:
        return total_of(cursor.execute(_TOTAL, (self.tenant, namespace)).fetchone())


MEMORY_ROOM = Room()


class SqliteMemories:
    """Implements `ports.catalogue.memories.Memories`."""

    def __init__(self, changes: Changes, readers: Readers, room: Room = MEMORY_ROOM) -> None:
        self._changes = changes
        self._readers = readers
        self._room = room

    async def get(self, tenant: int, namespace: str, item_key: str) -> MemoryRow | None:
        row = await self._readers.row(_SELECT, (tenant, namespace, item_key))
        return memory_of(row) if row is not None else None

    async def create(
        self,
        tenant: int,
        namespace: str,
        item_key: str,
        *,
        text: str,
        thread: str,
        create_time: int,
        request: RequestRow | None = None,
    ) -> MemoryRow:
        row = MemoryRow(0, tenant, namespace, item_key, text, thread, 1, create_time, create_time)
        words, place = words_of(tenant, namespace, item_key, text), (tenant, namespace, item_key)
        size = len(text.encode())
        values = (*place, text, thread, 1, create_time, create_time, words, checksum_of(row, words))
        answer = await self._changes.apply(
            tenant,
            Require(_REQUIRE_NONE, place, lambda: _differs(row)),
            RequireRoom(tenant, namespace, 1, size, self._room),
            Write(_INSERT, values),
            Write(_ADD_TO_INDEX, place),
            *_count(row, 1, size),
            Answer(_SELECT, place),
            request=request,
        )
        assert answer is not None
        return memory_of(answer)

    async def replace(
        self, row: MemoryRow, *, text: str, thread: str, update_time: int, request: RequestRow | None = None
    ) -> MemoryRow:
        made = replace(row, text=text, thread=thread, revision=row.revision + 1, update_time=update_time)
        words = words_of(row.tenant, row.namespace, row.item_key, text)
        more = len(text.encode()) - len(row.text.encode())
        values = (text, thread, made.revision, update_time, words, checksum_of(made, words), row.key)
        await self._changes.apply(
            row.tenant,
            Require(_REQUIRE_SAME, (row.key, row.revision), lambda: _differs(row)),
            RequireRoom(row.tenant, row.namespace, 0, more, self._room),
            Write(_TAKE_FROM_INDEX, (row.key,)),
            Write(_UPDATE, values),
            Write(_ADD_TO_INDEX, (row.tenant, row.namespace, row.item_key)),
            *_count(row, 0, more),
            request=request,
        )
        return made

    async def delete(self, row: MemoryRow, *, request: RequestRow | None = None) -> None:
        await self._changes.apply(
            row.tenant,
            Require(_REQUIRE_SAME, (row.key, row.revision), lambda: _differs(row)),
            Write(_TAKE_FROM_INDEX, (row.key,)),
            Write(_DELETE, (row.key,)),
            *_count(row, -1, -len(row.text.encode())),
            Write(_DROP_TOTAL, (row.tenant, row.namespace)),
            request=request,
        )

    async def list(
        self, tenant: int, namespace: str, *, limit: int, after: Position | None = None
    ) -> Page[MemoryRow]:
        place = (tenant, namespace) if namespace else (tenant,)
        sql = _LIST if namespace else _LIST_ALL
        rows = await self._readers.rows(sql, (*place, before(after), limit + 1))
        return page_of(rows, limit, memory_of)

    async def count(self, tenant: int, namespace: str) -> int:
        place = (tenant, namespace) if namespace else (tenant,)
        row = await self._readers.row(_COUNT if namespace else _COUNT_ALL, place)
        return int(row[0]) if row is not None else 0

    async def search(
        self, tenant: int, namespaces: Sequence[str], query: str, *, limit: int, skip: int = 0
    ) -> tuple[Sequence[MemoryRow], int | None]:
        ranked = await self._ranked(tenant, namespaces, query)
        wanted = ranked[skip : skip + limit]
        found: list[MemoryRow] = []
        left = PAGE_BYTES_MAX
        for begin in range(0, len(wanted), _KEYS_AT_ONCE):
            keys = wanted[begin : begin + _KEYS_AT_ONCE]
            rows = await self._by_keys(tenant, keys)
            for place, key in enumerate(keys, begin):
                row = rows.get(key)  # one that was deleted meanwhile is not there
                if row is None:
                    continue
                found.append(row)
                left -= len(row.text.encode())
                if left <= 0 and skip + place + 1 < len(ranked):
                    return found, skip + place + 1
        return found, skip + limit if len(ranked) > skip + limit else None

    async def _by_keys(self, tenant: int, keys: Sequence[int]) -> dict[int, MemoryRow]:
        sql = _BY_KEYS.format(keys=", ".join("?" * len(keys)))
        return {row[0]: memory_of(row) for row in await self._readers.rows(sql, (tenant, *keys))}

    async def _ranked(self, tenant: int, namespaces: Sequence[str], query: str) -> Sequence[int]:
        """Keys, the best first: each term that a memory has counts by how rare it is among those found."""
        terms = terms_of(query)
        if not terms:
            return []
        sql = " UNION ALL ".join(_HITS.format(term=number) for number in range(len(terms)))
        matches = (value for term in terms for value in (match_of(tenant, namespaces, term), HITS_MAX))
        hits = await self._readers.rows(sql, tuple(matches))
        having = [0] * len(terms)
        for term, _ in hits:
            having[term] += 1
        most = max(having)
        scores: dict[int, float] = {}
        for term, key in hits:
            scores[key] = scores.get(key, 0.0) + math.log(1 + most / having[term])
        return sorted(scores, key=lambda key: (-scores[key], -key))


def _count(row: MemoryRow, items: int, text_bytes: int) -> tuple[Statement, ...]:
    """In its namespace, and among all of the tenant."""
    return tuple(
        Write(_ADD_TO_TOTAL, (row.tenant, namespace, items, text_bytes)) for namespace in (row.namespace, "")
    )


def _differs(row: MemoryRow) -> Refused:
    return revision_differs("Memory", name_of(row))


def _no_room(resource: str, limit: int, what: str) -> Refused:
    return Refused(
        Reason.QUOTA_EXCEEDED,
        f"{resource} has no room: at most {limit} {what} are kept there",
        metadata={"limit": str(limit)},
        resource=("treadle.dev/MemoryNamespace", resource),
    )
