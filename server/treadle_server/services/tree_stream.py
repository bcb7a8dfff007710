"""Follows a thread and all its descendants, until the last of them has ended."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from treadle_server.ports.catalogue.commits import CommitRow
from treadle_server.ports.catalogue.lineage import Lineage
from treadle_server.ports.log import ThreadKey
from treadle_server.services.keys import Identity
from treadle_server.services.tenant_stream import Place, TenantBatch, TenantStream
from treadle_server.services.thread_reads import ThreadReads, corrupt, is_condemned


class Tree:
    """Implements `services.tenant_stream.Among`: who belongs to it follows from what was read so far."""

    def __init__(self, lineage: Lineage, key: ThreadKey, root: int, members: set[int]) -> None:
        self.root = root
        self._lineage = lineage
        self._key = key
        self._members = members

    def has(self, commit: CommitRow) -> bool:
        """A thread's first commit comes after that of its parent."""
        if commit.parent in self._members:
            self._members.add(commit.key.thread)
        return commit.key.thread in self._members

    async def has_gaps(self) -> bool:
        return await self._lineage.has_gaps(self._key)

    async def over(self, position: int) -> bool:
        return await self._lineage.over(self._key, position)


class TreeStream:
    """All of it for one tenant at a time: a name of another tenant does not exist."""

    def __init__(self, reads: ThreadReads, tenants: TenantStream, lineage: Lineage) -> None:
        self._reads = reads
        self._tenants = tenants
        self._lineage = lineage

    async def follow(
        self, caller: Identity, name: str, after: Place | None, kinds: frozenset[int]
    ) -> AsyncGenerator[TenantBatch, None]:
        """Batches from a place on; None = from the thread's first event. As `TenantStream.follow`, but that
        it ends, and that it refuses with RECORD_CORRUPT at the end of a damaged thread.
        """
        row = await self._reads.row(caller, name)
        ancestry = await self._lineage.of(row.key)
        assert ancestry is not None, "it has a row"
        tree = Tree(self._lineage, row.key, ancestry.root, await self._lineage.tree(row.key))
        place = after or Place(max(0, ancestry.begin_position - 1))
        batches = self._tenants.follow(caller.tenant, place, lambda _: True, kinds, among=tree)
        async with aclosing(batches):
            async for batch in batches:
                yield batch
        if is_condemned(await self._reads.row(caller, name)):
            raise corrupt(name)
