"""Lists of agents."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from treadle_server.core.agent import Agent
from treadle_server.core.errors import invalid
from treadle_server.ports.catalogue.agents import AgentRow
from treadle_server.ports.catalogue.agents import Agents as AgentStore
from treadle_server.ports.catalogue.pages import Page, Position
from treadle_server.services.agent_reader import AgentCodec, AgentReader
from treadle_server.services.page_bytes import fitting, read_page

SEARCHED_MAX = 10_000
_ROWS_AT_ONCE = 500

Value = str | int
Place = tuple[Value, int]
"""Where a page ended: the sorted value and the key of its last agent."""


@dataclass(frozen=True, slots=True)
class AgentQuery:
    """Agents that fit, in an order. The default is all, newest first."""

    limit: int
    after: Place | None = None
    show_deleted: bool = False
    fits: Callable[[Agent], bool] | None = None
    value: Callable[[Agent], Value] | None = None
    """What to sort by; None means the time of creation."""
    descending: bool = True


@dataclass(frozen=True, slots=True)
class AgentPage:
    """Agents, where the next page begins (None after the last), and how many there are on all pages."""

    agents: tuple[Agent, ...]
    next: Place | None
    total: int


class AgentLists:
    """Pages come from the store; with a filter or another order, all agents are read and sorted here."""

    def __init__(self, store: AgentStore, codec: AgentCodec) -> None:
        self._store = store
        self._reader = AgentReader(store, codec)

    async def page(self, tenant: int, query: AgentQuery) -> AgentPage:
        """Raises Refused(FIELD_INVALID) when there are too many agents to search."""
        if query.fits is None and query.value is None and query.descending:
            return await self._newest(tenant, query)
        best = _Best(query)
        async for page in self._all(tenant, query.show_deleted):
            best.take([(self._reader.agent(row), row) for row in page.items])
        return best.page()

    async def _newest(self, tenant: int, query: AgentQuery) -> AgentPage:
        after = None if query.after is None else (int(query.after[0]), query.after[1])
        page = await self._read(tenant, query.show_deleted, query.limit, after)
        total = await self._store.count(tenant, show_deleted=query.show_deleted)
        return AgentPage(tuple(self._reader.agent(row) for row in page.items), page.next, total)

    async def _read(
        self, tenant: int, show_deleted: bool, limit: int, after: Position | None
    ) -> Page[AgentRow]:
        return await read_page(
            lambda limit, after: self._store.list(
                tenant, limit=limit, after=after, show_deleted=show_deleted
            ),
            limit=limit,
            after=after,
            size=lambda row: len(row.body),
            position=lambda row: (row.key, row.key),
        )

    async def _all(self, tenant: int, show_deleted: bool) -> AsyncIterator[Page[AgentRow]]:
        count, after = 0, None
        while True:
            page = await self._read(tenant, show_deleted, _ROWS_AT_ONCE, after)
            count += len(page.items)
            yield page
            after = page.next
            if after is None:
                return
            if count >= SEARCHED_MAX:
                text = f"can be used with up to {SEARCHED_MAX} agents"
                raise invalid(("filter", text), ("order_by", text))


class _Best:
    """The page of a query, from agents in any order: what cannot be on it any more is not kept."""

    def __init__(self, query: AgentQuery) -> None:
        self._query = query
        self._kept: list[tuple[Place, Agent, int]] = []
        self._total = 0
        self._follows = False

    def take(self, agents: list[tuple[Agent, AgentRow]]) -> None:
        query = self._query
        for agent, row in agents:
            if query.fits is not None and not query.fits(agent):
                continue
            self._total += 1
            value = agent.create_time_micros if query.value is None else query.value(agent)
            place, after = (value, row.key), query.after
            if after is None or (place < after if query.descending else place > after):
                self._kept.append((place, agent, len(row.body)))
        self._kept.sort(key=lambda item: item[0], reverse=query.descending)
        count = fitting(size for *_, size in self._kept[: query.limit])
        self._follows = self._follows or count < len(self._kept)
        del self._kept[count:]

    def page(self) -> AgentPage:
        agents = tuple(agent for _, agent, _ in self._kept)
        return AgentPage(agents, self._kept[-1][0] if self._follows else None, self._total)
