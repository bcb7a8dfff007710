"""Port: memories by namespace and key, and how they are found by their words."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from treadle_server.ports.catalogue.pages import Page, Position
from treadle_server.ports.log import RequestRow


@dataclass(frozen=True, slots=True)
class MemoryRow:
    """A memory as it is now."""

    key: int
    """The store's; never given twice."""
    tenant: int
    namespace: str
    item_key: str
    text: str
    thread: str
    """Name of the thread that wrote it last; empty when a caller did."""
    revision: int
    """Counts its puts, from 1."""
    create_time: int
    update_time: int


@dataclass(frozen=True, slots=True)
class Room:
    """How much may be kept."""

    namespace_items_max: int = 10_000
    tenant_items_max: int = 100_000
    tenant_bytes_max: int = 256 * 1024 * 1024
    """Of texts."""


class Memories(Protocol):
    """Texts by namespace and key. What was put is found by its words from then on."""

    async def get(self, tenant: int, namespace: str, item_key: str) -> MemoryRow | None: ...

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
        """Durable on return. Raises Refused: ETAG_MISMATCH if there is one by now, QUOTA_EXCEEDED."""
        ...

    async def replace(
        self, row: MemoryRow, *, text: str, thread: str, update_time: int, request: RequestRow | None = None
    ) -> MemoryRow:
        """As `create`; Refused(ETAG_MISMATCH) if it is not as `row` any more."""
        ...

    async def delete(self, row: MemoryRow, *, request: RequestRow | None = None) -> None:
        """For good. Raises Refused(ETAG_MISMATCH) if it is not as `row` any more."""
        ...

    async def list(
        self, tenant: int, namespace: str, *, limit: int, after: Position | None = None
    ) -> Page[MemoryRow]:
        """Newest first; an empty namespace stands for all. A page ends early when its texts are large."""
        ...

    async def count(self, tenant: int, namespace: str) -> int:
        """How many `list` gives in all."""
        ...

    async def search(
        self, tenant: int, namespaces: Sequence[str], query: str, *, limit: int, skip: int = 0
    ) -> tuple[Sequence[MemoryRow], int | None]:
        """Those that fit best first, after `skip` of them, and how many to skip for those that follow.

        No namespaces stand for all. No query is faulty; one without words finds nothing.
        """
        ...
