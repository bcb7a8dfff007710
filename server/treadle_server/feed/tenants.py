"""Follows all threads of a tenant by the order of commits."""

import asyncio
from collections.abc import AsyncGenerator, Sequence

from treadle_server.core.errors import Reason, Refused
from treadle_server.ports.catalogue.commits import CommitPage, Commits
from treadle_server.ports.log import Log, Unit

PAGE = 64


class CommitFeed:
    """Implements ports/feed.TenantFeed over the rows of `commits`."""

    def __init__(self, log: Log, commits: Commits, *, heartbeat_seconds: float = 15.0) -> None:
        self._commits = commits
        self._heartbeat = heartbeat_seconds
        self._waiters: dict[int, set[asyncio.Future[None]]] = {}
        self._draining = False
        log.subscribe(self._committed)

    def _committed(self, units: Sequence[Unit]) -> None:
        for tenant in {unit.key.tenant for unit in units if unit.records}:
            for waiter in self._waiters.get(tenant, ()):
                if not waiter.done():
                    waiter.set_result(None)

    async def newest(self) -> int:
        return await self._commits.last_position()

    async def horizon(self, tenant: int) -> int:
        return await self._commits.horizon(tenant)

    async def follow(self, tenant: int, after: int, root: int = 0) -> AsyncGenerator[CommitPage, None]:
        while True:
            self._refuse_draining()
            waiter = asyncio.get_running_loop().create_future()
            waiters = self._waiters.setdefault(tenant, set())
            waiters.add(waiter)
            try:
                page = await self._commits.read(tenant, after=after, limit=PAGE, root=root)
                if page.items or page.horizon > after:
                    yield page
                elif page.position == after:
                    await asyncio.wait({waiter}, timeout=self._heartbeat)
                    if not waiter.done():
                        yield page
                after = page.position
            finally:
                waiters.discard(waiter)
                if not waiters and self._waiters.get(tenant) is waiters:
                    del self._waiters[tenant]

    def _refuse_draining(self) -> None:
        if self._draining:
            text = "the server is stopping; resume from the last cursor received"
            raise Refused(Reason.DRAINING, text, retry_after_micros=1_000_000)

    def drain(self) -> None:
        """Ends every stream with DRAINING."""
        self._draining = True
        for waiters in self._waiters.values():
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)
