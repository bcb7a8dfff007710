"""Lists of agents."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from treadle_server.core.agent import Agent
from treadle_server.core.errors import invalid
from treadle_server.ports.catalogue.agents import AgentRow
from treadle_server.ports.catalogue.agents import Agents as AgentStore
from treadle_server.services.agent_reader import AgentCodec, AgentReader

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
        places: list[tuple[Place, Agent]] = []
        for row in await self._all(tenant, query.show_deleted):
            agent = self._reader.agent(row)
            if query.fits is None or query.fits(agent):
                value = agent.create_time_micros if query.value is None else query.value(agent)
                places.append(((value, row.key), agent))
        return _page(places, query)

    async def _newest(self, tenant: int, query: AgentQuery) -> AgentPage:
        after = None if query.after is None else (int(query.after[0]), query.after[1])
        page = await self._store.list(tenant, limit=query.limit, after=after, show_deleted=query.show_deleted)
        total = await self._store.count(tenant, show_deleted=query.show_deleted)
        return AgentPage(tuple(self._reader.agent(row) for row in page.items), page.next, total)

    async def _all(self, tenant: int, show_deleted: bool) -> Sequence[AgentRow]:
        rows: list[AgentRow] = []
        after = None
        while True:
            page = await self._store.list(tenant, limit=_ROWS_AT_ONCE, after=after, show_deleted=show_deleted)
            rows += page.items
            after = page.next
            if after is None:
                return rows
            if len(rows) >= SEARCHED_MAX:
                text = f"can be used with up to {SEARCHED_MAX} agents"
                raise invalid(("filter", text), ("order_by", text))


def _page(places: list[tuple[Place, Agent]], query: AgentQuery) -> AgentPage:
    places.sort(key=lambda item: item[0], reverse=query.descending)
    total = len(places)
    after = query.after
    if after is not None:
        places = [item for item in places if (item[0] < after if query.descending else item[0] > after)]
    items = places[: query.limit]
    following = items[-1][0] if len(places) > query.limit else None
    return AgentPage(tuple(agent for _, agent in items), following, total)
