"""Agents: made, read, changed, deleted and brought back, version by version."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from treadle_server.core.agent import Agent, AgentDefinition, AgentVersion
from treadle_server.core.errors import Reason, Refused, invalid
from treadle_server.core.spec import Spec
from treadle_server.engine.kept import Kept
from treadle_server.ports.catalogue.agents import AgentRow
from treadle_server.ports.catalogue.agents import Agents as AgentStore
from treadle_server.ports.catalogue.pages import Page, Position
from treadle_server.ports.clock import Clock
from treadle_server.ports.log import Replayed
from treadle_server.services.agent_checks import AgentChecks
from treadle_server.services.agent_reader import AgentCodec, AgentReader, etag_of
from treadle_server.services.agent_threads import AgentThreads
from treadle_server.services.etags import change, check_etag
from treadle_server.services.ids import new_id
from treadle_server.services.page_bytes import read_page
from treadle_server.services.requests import Asked, Replays
from treadle_server.services.subagents import Subagents

PURGE_AFTER_MICROS = 30 * 86_400 * 1_000_000
_PINS_MAX = 1_024
_PINS_BYTES_MAX = 64 * 1024 * 1024
"""Of the definitions that they were made of."""

Change = Callable[[AgentDefinition], AgentDefinition]
"""Makes the wanted definition from the present one. Raises Refused."""


@dataclass(frozen=True, slots=True)
class Pinned:
    """What a thread needs to know of the agent version that it begins with."""

    agent_key: int
    version: int
    spec: Spec
    """With the agents that it calls as they are now."""
    input_schema_json: str
    subagents: tuple[str, ...] = ()


class Agents:
    """The use cases of AgentService but the list. `tenant` is the store's key of the caller's tenant."""

    def __init__(
        self,
        store: AgentStore,
        codec: AgentCodec,
        checks: AgentChecks,
        threads: AgentThreads,
        replays: Replays,
        clock: Clock,
    ) -> None:
        self._store = store
        self._codec = codec
        self._reader = AgentReader(store, codec)
        self._subagents = Subagents(self._reader)
        self._checks = checks
        self._threads = threads
        self._replays = replays
        self._clock = clock
        self._pins = Kept[tuple[int, int], Pinned](_PINS_MAX, _PINS_BYTES_MAX)

    async def create(
        self,
        tenant: int,
        asked: Asked,
        definition: AgentDefinition,
        *,
        agent_id: str = "",
        validate_only: bool = False,
    ) -> Agent:
        """Makes an agent with its first version. Raises Refused(RESOURCE_EXISTS) for an id that was used."""

        async def act() -> Agent:
            chosen = agent_id or new_id()
            await self._check(tenant, definition, f"agents/{chosen}")
            now = self._clock.now()
            agent = Agent(f"agents/{chosen}", definition, 1, "1", now, now)
            if validate_only:
                if await self._store.get(tenant, chosen) is not None:
                    raise _exists(chosen, "exists already")
                return agent
            body = self._codec.encode(definition)
            request = asked.row(resource=agent.name, response=self._codec.answer(agent), now=now)
            await self._store.create(
                tenant, chosen, body=body, version_body=body, create_time=now, request=request
            )
            return agent

        return await (act() if validate_only else self._replays.once(tenant, asked, act))

    async def get(self, tenant: int, agent_id: str) -> Agent:
        """A deleted one too, until it is purged."""
        return self._reader.agent(await self._reader.row(tenant, agent_id, deleted=True))

    async def update(
        self,
        tenant: int,
        asked: Asked,
        agent_id: str,
        wanted: Change,
        *,
        etag: str = "",
        validate_only: bool = False,
    ) -> Agent:
        """Makes a new version if the behaviour changes. A disabled agent's threads are ended."""

        async def act() -> Agent:
            row = await self._row(tenant, agent_id, etag)
            present = self._reader.definition(row)
            definition = wanted(present)
            await self._check(tenant, definition, f"agents/{agent_id}")
            anew = present.behaving_like(definition) != present
            agent = self._next(row, definition, version=row.version + 1 if anew else row.version)
            if not validate_only:
                await self._update(row, agent, asked, anew=anew)
            return agent

        if validate_only:
            return await act()
        updated = self._replays.once(tenant, asked, lambda: change(act))
        return await self._then_end_threads(tenant, asked, agent_id, updated)

    async def rollback(
        self, tenant: int, asked: Asked, agent_id: str, version: int, *, etag: str = ""
    ) -> Agent:
        """Makes a new version that behaves like an older one. What does not change behaviour stays."""

        async def act() -> Agent:
            row = await self._row(tenant, agent_id, etag)
            older = self._reader.definition(await self._reader.version_row(row, version))
            definition = self._reader.definition(row).behaving_like(older)
            await self._check(tenant, definition, f"agents/{agent_id}")
            agent = self._next(row, definition, version=row.version + 1)
            await self._update(row, agent, asked, anew=True)
            return agent

        return await self._replays.once(tenant, asked, lambda: change(act))

    async def delete(
        self, tenant: int, asked: Asked, agent_id: str, *, etag: str = "", force: bool = False
    ) -> Agent:
        """Marks it as deleted for 30 days, then it is purged. With `force` its threads are ended."""

        async def act() -> Agent:
            row = await self._row(tenant, agent_id, etag)
            if not force:
                await self._threads.refuse_unfinished(tenant, row.key, f"agents/{agent_id}")
            agent = self._next(row, self._reader.definition(row))
            now = agent.update_time_micros
            agent = replace(agent, delete_time_micros=now)
            request = asked.row(resource=agent.name, response=self._codec.answer(agent), now=now)
            await self._store.delete(
                row, delete_time=now, purge_time=now + PURGE_AFTER_MICROS, request=request
            )
            return agent

        deleted = self._replays.once(tenant, asked, lambda: change(act))
        if not force:
            return await deleted
        return await self._then_end_threads(tenant, asked, agent_id, deleted)

    async def undelete(self, tenant: int, asked: Asked, agent_id: str, *, etag: str = "") -> Agent:
        """Raises Refused(RESOURCE_EXISTS) for one that is not deleted."""

        async def act() -> Agent:
            row = await self._row(tenant, agent_id, etag, deleted=True)
            if row.delete_time is None:
                raise _exists(agent_id, "is not deleted")
            agent = self._next(row, self._reader.definition(row))
            now = agent.update_time_micros
            request = asked.row(resource=agent.name, response=self._codec.answer(agent), now=now)
            await self._store.undelete(row, update_time=now, request=request)
            return agent

        return await self._replays.once(tenant, asked, lambda: change(act))

    async def get_version(self, tenant: int, agent_id: str, version: int) -> AgentVersion:
        """Of a deleted agent too."""
        row = await self._reader.row(tenant, agent_id, deleted=True)
        return self._reader.version(row, await self._reader.version_row(row, version))

    async def list_versions(
        self, tenant: int, agent_id: str, *, limit: int, after: Position | None
    ) -> tuple[Page[AgentVersion], int]:
        """A page, newest first, and how many there are."""
        row = await self._reader.row(tenant, agent_id, deleted=True)
        page = await read_page(
            lambda limit, after: self._store.list_versions(row.key, limit=limit, after=after),
            limit=limit,
            after=after,
            size=lambda item: len(item.body),
            position=lambda item: (item.version, item.version),
        )
        return Page(tuple(self._reader.version(row, item) for item in page.items), page.next), row.version

    async def pinned(self, tenant: int, agent: str, agent_version: str = "") -> Pinned:
        """What a thread of `agents/{agent}` begins with: the newest version unless another is named.

        Raises Refused: RESOURCE_NOT_FOUND, AGENT_DISABLED for a deleted agent too, or FIELD_INVALID for a
        version of another agent.
        """
        agent_id = agent.removeprefix("agents/")
        row = await self._reader.row(tenant, agent_id, deleted=True)
        number = _version_number(agent_version, agent) or row.version
        if row.delete_time is not None or self._reader.definition(row).disabled:
            raise _disabled(agent, "disabled" if row.delete_time is None else "deleted")
        found = self._pins.get((row.key, number))
        if found is None:  # versions never change, so what is made of one is kept
            version = await self._reader.version_row(row, number)
            found = self._pin(row, number, self._reader.definition(version))
            self._pins.put((row.key, number), found, len(version.body))
        if not found.subagents:
            return found
        agents = await self._subagents.tools(tenant, found.subagents)
        return replace(found, spec=replace(found.spec, tools=(*found.spec.tools, *agents)))

    async def _check(self, tenant: int, definition: AgentDefinition, name: str) -> None:
        self._checks.check(definition)
        tools = {tool.name for tool in self._checks.tools(definition)}
        await self._subagents.check(tenant, definition, name, tools)

    def _pin(self, row: AgentRow, number: int, definition: AgentDefinition) -> Pinned:
        spec = definition.spec(f"agents/{row.id}/versions/{number}", self._checks.tools(definition))
        return Pinned(row.key, number, spec, definition.input_schema_json, definition.subagents)

    async def _row(self, tenant: int, agent_id: str, etag: str, *, deleted: bool = False) -> AgentRow:
        row = await self._reader.row(tenant, agent_id, deleted=deleted)
        check_etag(etag, etag_of(row), f"agents/{agent_id}")
        return row

    def _next(self, row: AgentRow, definition: AgentDefinition, *, version: int | None = None) -> Agent:
        """The agent as the next write of its row will leave it."""
        return Agent(
            name=f"agents/{row.id}",
            definition=definition,
            version=row.version if version is None else version,
            etag=str(row.revision + 1),
            create_time_micros=row.create_time,
            update_time_micros=max(self._clock.now(), row.update_time),
        )

    async def _update(self, row: AgentRow, agent: Agent, asked: Asked, *, anew: bool) -> None:
        now = agent.update_time_micros
        body = self._codec.encode(agent.definition)
        request = asked.row(resource=agent.name, response=self._codec.answer(agent), now=now)
        await self._store.update(
            row, body=body, version_body=body if anew else None, update_time=now, request=request
        )

    async def _then_end_threads(
        self, tenant: int, asked: Asked, agent_id: str, changed: Awaitable[Agent]
    ) -> Agent:
        """Ends the threads of an agent that may start none, once that is durable; a repeated call too."""
        try:
            agent = await changed
        except Replayed:
            await self._end_threads(tenant, asked, agent_id)
            raise
        if agent.definition.disabled or agent.delete_time_micros is not None:
            await self._end_threads(tenant, asked, agent_id)
        return agent

    async def _end_threads(self, tenant: int, asked: Asked, agent_id: str) -> None:
        row = await self._store.get(tenant, agent_id)
        if row is not None and (row.delete_time is not None or self._reader.definition(row).disabled):
            await self._threads.end_all(tenant, row.key, asked.principal)


def _version_number(agent_version: str, agent: str) -> int:
    """0 when no version is named. Raises Refused(FIELD_INVALID) for another agent's."""
    if not agent_version:
        return 0
    prefix, _, number = agent_version.rpartition("/versions/")
    if prefix != agent or not number.isdigit():
        raise invalid(("thread.agent_version", f"must be {agent}/versions/{{version}}"))
    return int(number)


def _exists(agent_id: str, why: str) -> Refused:
    name = f"agents/{agent_id}"
    return Refused(
        Reason.RESOURCE_EXISTS,
        f"{name} {why}",
        metadata={"resource": name},
        resource=("treadle.dev/Agent", name),
    )


def _disabled(agent: str, what: str) -> Refused:
    return Refused(
        Reason.AGENT_DISABLED,
        f"{agent} is {what}",
        metadata={"agent": agent},
        resource=("treadle.dev/Agent", agent),
    )
