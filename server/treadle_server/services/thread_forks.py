"""Makes threads of threads: forks, which share another's first events, and retries."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from hashlib import sha256

from treadle_server.core.errors import Reason, Refused, invalid
from treadle_server.core.events import SpecReference, ThreadForked
from treadle_server.core.kinds import ThreadState, TriggerType
from treadle_server.core.signals import Fork
from treadle_server.core.spec import Spec, ToolSpec
from treadle_server.core.transitions import Reaction, Row, allowed, reaction
from treadle_server.core.values import Content, Context
from treadle_server.ports.catalogue.threads import ThreadRow
from treadle_server.ports.clock import Clock
from treadle_server.ports.engine import Engine, Prefix, Start
from treadle_server.ports.log import NewThread, Replayed
from treadle_server.ports.model import Models
from treadle_server.services.agents import Agents, Pinned
from treadle_server.services.ids import new_id
from treadle_server.services.keys import Identity
from treadle_server.services.requests import Asked, Replays
from treadle_server.services.thread_prefixes import Past, ThreadPrefixes, shared_through
from treadle_server.services.thread_reads import ThreadReads, about, is_condemned
from treadle_server.services.thread_starts import MODEL_SHOWN_MAX, Started, ThreadStarts, ThreadTemplate, Wish


@dataclass(frozen=True, slots=True)
class Source:
    """Which thread to make another of, for whom, and what to call it."""

    caller: Identity
    name: str
    thread_id: str
    """Empty: the server makes one."""
    asked: Asked


@dataclass(frozen=True, slots=True)
class Overrides:
    """What is to be otherwise in a fork; what is empty stays as it was."""

    agent_version: str = ""
    input: Content | None = None
    """A further one."""
    tags: tuple[str, ...] = ()
    model: str = ""
    """Empty: the version's own."""


@dataclass(frozen=True, slots=True)
class Cut:
    """Whose first events a fork shares, and how it goes on from there."""

    row: ThreadRow
    through: int
    """Sequence of the last one."""
    overrides: Overrides
    forked_from: str
    retried_from: str = ""


class ThreadForks:
    """All of it for one tenant at a time: a name of another tenant does not exist."""

    def __init__(
        self,
        *,
        starts: ThreadStarts,
        reads: ThreadReads,
        prefixes: ThreadPrefixes,
        agents: Agents,
        models: Models,
        replays: Replays,
        engine: Engine,
        encode_spec: Callable[[Spec], bytes],
        clock: Clock,
    ) -> None:
        self._starts = starts
        self._reads = reads
        self._prefixes = prefixes
        self._agents = agents
        self._models = models
        self._replays = replays
        self._engine = engine
        self._encode_spec = encode_spec
        self._clock = clock

    async def fork(self, source: Source, sequence: int, overrides: Overrides) -> Started:
        """Makes a thread that shares events and goes on by itself; durable on return. The other thread is
        only read.
        """

        async def act() -> Started:
            row = await self._readable(source)
            cut = Cut(row, shared_through(row, sequence), overrides, forked_from=source.name)
            return await self._fork(source, cut)

        return await self._once(source, act)

    async def retry(self, source: Source) -> Started:
        """Makes a thread like one that has ended; of a fork another fork of the same events."""

        async def act() -> Started:
            row = await self._readable(source)
            if reaction(Row.RETRY, ThreadState(row.state)) is Reaction.REFUSE:
                raise _living(row)
            past = await self._prefixes.past(row)
            if past.forked is not None:
                return await self._fork_again(source, row, past, past.forked)
            return await self._starts.make(self._like(source, row, past))

        return await self._once(source, act)

    async def _once(self, source: Source, act: Callable[[], Awaitable[Started]]) -> Started:
        """The same call before made it already, whatever became of the thread that it was made of."""
        try:
            return await self._replays.once(source.caller.tenant, source.asked, act)
        except Replayed as replayed:
            return await self._starts.attach(source.caller, replayed)

    async def _readable(self, source: Source) -> ThreadRow:
        row = await self._reads.row(source.caller, source.name)
        if is_condemned(row):
            await self._reads.refuse_damage(row)
        return row

    async def _fork_again(self, source: Source, row: ThreadRow, past: Past, forked: ThreadForked) -> Started:
        """From the fork itself, which has all that it shared: the other thread may be gone."""
        overrides = Overrides(past.spec.agent_version, past.further, model=past.spec.model)
        cut = Cut(row, forked.forked_sequence, overrides, forked.forked_from, source.name)
        return await self._fork(source, cut)

    async def _fork(self, source: Source, cut: Cut) -> Started:
        pinned = await self._pinned(source, cut)
        prefix = await self._prefixes.prefix(cut.row, cut.through, pinned.spec)
        if prefix.state.first_input is None:
            if cut.overrides.input is None:
                raise invalid(("thread.input", "is required: the events to share have none"))
            self._starts.check_input(pinned, cut.overrides.input)
        start = self._begin(source, cut, pinned, prefix)
        with about(source.name):
            await self._engine.start(start)
        return Started(start.key, start.row.id, made=True)

    def _begin(self, source: Source, cut: Cut, pinned: Pinned, prefix: Prefix) -> Start:
        spec, now = pinned.spec, max(self._clock.now(), prefix.state.update_time)
        data = self._encode_spec(spec)
        digest = sha256(data)
        reference = SpecReference(
            spec.agent_version, f"sha256:{digest.hexdigest()}", spec.model[:MODEL_SHOWN_MAX]
        )
        ask = Fork(
            now,
            reference,
            cut.forked_from,
            cut.overrides.input,
            source.caller.principal,
            retried_from=cut.retried_from,
        )
        row = NewThread(
            id=source.thread_id or new_id(),
            agent=pinned.agent_key,
            version=pinned.version,
            session=0,
            spec_digest=digest.digest(),
            spec=data,
            create_time=now,
            tags=cut.overrides.tags or cut.row.tags,
            labels=cut.row.labels,
            client_metadata=cut.row.client_metadata,
            subject_type=cut.row.subject_type,
            subject_id=cut.row.subject_id,
            trigger_type=TriggerType.API,
            triggered_by=source.caller.principal,
            parent_object=cut.row.parent_object,
        )
        request = source.asked.row(resource=f"threads/{row.id}", response=None, now=now)
        return Start(self._starts.allocate(source.caller), spec, ask, row, request, prefix)

    async def _pinned(self, source: Source, cut: Cut) -> Pinned:
        """The version as it is pinned now, with the tools of the thread's own client."""
        row, overrides = cut.row, cut.overrides
        agent = f"agents/{row.agent_id}"
        version = overrides.agent_version or f"{agent}/versions/{row.version}"
        pinned = await self._agents.pinned(source.caller.tenant, agent, version)
        spec = pinned.spec
        tools = _client_tools(await self._prefixes.spec(row))
        taken = [tool.name for tool in tools if tool.name in spec.tool_by_name]
        if taken:
            text = f"has tools of its own that are called as the client's are: {', '.join(taken)}"
            raise invalid(("thread.agent_version", text))
        if overrides.model:
            self._check_model(overrides.model)
        model = overrides.model or spec.model
        return replace(pinned, spec=replace(spec, model=model, tools=(*spec.tools, *tools)))

    def _check_model(self, model: str) -> None:
        try:
            adapter, name = self._models.find(model)
        except Refused as refused:
            raise _of_model(refused) from None
        problem = adapter.problem(name)
        if problem is not None:
            raise invalid(("model", problem))

    def _like(self, source: Source, row: ThreadRow, past: Past) -> Wish:
        origin, first_input = past.state.origin, past.state.first_input
        assert origin is not None, "a log begins with it"
        assert first_input is not None, "it came with the thread"
        context = origin.context or Context()
        template = ThreadTemplate(
            agent=f"agents/{row.agent_id}",
            agent_version=origin.spec.agent_version,
            session=origin.session,
            session_key="",
            input=first_input,
            subject=origin.subject,
            tags=row.tags,
            labels=row.labels,
            client_metadata=row.client_metadata,
            client_tools=_client_tools(past.spec),
            parent_object=origin.parent_object,
            context=replace(context, initial="") if origin.session else context,
            retried_from=source.name,
        )
        key = self._starts.allocate(source.caller)
        return Wish(source.caller, template, source.thread_id, source.asked, key)


def _client_tools(spec: Spec) -> tuple[ToolSpec, ...]:
    """Those that came with the thread, not with the agent."""
    return tuple(tool for tool in spec.tools if tool.client and not tool.tool)


def _living(row: ThreadRow) -> Refused:
    state = ThreadState(row.state)
    possible = allowed(state)
    return Refused(
        Reason.THREAD_STATE_CONFLICT,
        f"retrying is not possible while the thread is {state.name}; possible are {', '.join(possible)}",
        metadata={"current_state": state.name, "allowed": ",".join(possible)},
    )


def _of_model(refused: Refused) -> Refused:
    """About this request's `model`, not an agent's."""
    violations = tuple(replace(violation, field="model") for violation in refused.violations)
    metadata = {name: "model" if name == "field" else value for name, value in refused.metadata.items()}
    text = refused.message.replace("agent.model", "model")
    return Refused(refused.reason, text, metadata=metadata, violations=violations)
