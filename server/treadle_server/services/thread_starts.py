"""Starts threads, waits for them, and gives them up when their caller goes."""

from asyncio import CancelledError, Task, shield
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import sha256

from treadle_server.core import signals as s
from treadle_server.core.errors import Refused, invalid
from treadle_server.core.events import ParentCall, SpecReference, Subject, Trigger
from treadle_server.core.kinds import TERMINAL, WAITING, BusyPolicy, ThreadState
from treadle_server.core.spec import Spec, ToolSpec
from treadle_server.core.values import Content, Context
from treadle_server.engine.kept import Kept
from treadle_server.ports.catalogue.sessions import Sessions
from treadle_server.ports.catalogue.threads import ExpiredThread, ThreadRow
from treadle_server.ports.clock import Clock
from treadle_server.ports.engine import Engine, Start
from treadle_server.ports.log import (
    Conflict,
    Fenced,
    Log,
    NewThread,
    Replayed,
    RequestRow,
    StoreFailed,
    ThreadKey,
)
from treadle_server.ports.schemas import Schemas
from treadle_server.services.agents import Agents, Pinned
from treadle_server.services.background import Background
from treadle_server.services.client_tools import with_client_tools
from treadle_server.services.ids import new_id
from treadle_server.services.keys import Identity
from treadle_server.services.requests import Asked, Replays
from treadle_server.services.session_entries import Entry, SessionEntries, Wanted
from treadle_server.services.thread_reads import ThreadReads, about, is_condemned

SPECS_MAX = 1000
SPECS_BYTES_MAX = 64 * 1024 * 1024
ATTEMPTS_MAX = 5
"""To start a thread while other calls change its session."""
MODEL_SHOWN_MAX = 255
"""A script can stand in a model's name; events and threads show its beginning."""
GONE = "the caller's deadline or connection ended"
_RESTING = TERMINAL | WAITING | {ThreadState.PAUSED}

EncodeSpec = Callable[[Spec], bytes]


@dataclass(frozen=True, slots=True)
class CalledBy:
    """The thread whose agent calls the one of a thread to start."""

    key: int
    """The store's."""
    name: str
    call: ParentCall


@dataclass(frozen=True, slots=True)
class ThreadTemplate:
    """What a caller says of a thread to start."""

    agent: str
    agent_version: str
    session: str
    session_key: str
    input: Content
    subject: Subject | None = None
    trigger: Trigger = Trigger()
    tags: tuple[str, ...] = ()
    labels: dict[str, str] = field(default_factory=dict)
    client_metadata: bytes = b""
    client_tools: tuple[ToolSpec, ...] = ()
    parent_object: str = ""
    context: Context = Context()
    busy_policy: BusyPolicy = BusyPolicy.ENQUEUE
    retried_from: str = ""
    called_by: CalledBy | None = None
    """None for a thread that a caller makes."""


@dataclass(frozen=True, slots=True)
class Started:
    """A thread that a call made, or attached to because it was made before."""

    key: ThreadKey
    id: str
    made: bool
    steered: bool = False
    """It is another call's, and only got this one's input."""


@dataclass(frozen=True, slots=True)
class Wish:
    """A thread that a caller wants, under a key from `ThreadStarts.allocate`."""

    caller: Identity
    template: ThreadTemplate
    thread_id: str
    """Empty: the server makes one."""
    asked: Asked
    key: ThreadKey


class ThreadStarts:
    """All of it for one tenant at a time: a name of another tenant does not exist."""

    def __init__(
        self,
        *,
        log: Log,
        reads: ThreadReads,
        sessions: Sessions,
        replays: Replays,
        agents: Agents,
        engine: Engine,
        encode_spec: EncodeSpec,
        schemas: Schemas,
        clock: Clock,
    ) -> None:
        self._log = log
        self._reads = reads
        self._entries = SessionEntries(sessions, engine, clock)
        self._replays = replays
        self._agents = agents
        self._engine = engine
        self._encode_spec = encode_spec
        self._schemas = schemas
        self._clock = clock
        self._specs_encoded = Kept[tuple[int, int], tuple[bytes, bytes]](SPECS_MAX, SPECS_BYTES_MAX)
        self._background = Background()

    def allocate(self, caller: Identity) -> ThreadKey:
        """A key for a thread to start, so that its stream can be followed from before its first event."""
        return ThreadKey(caller.tenant, self._log.allocate_thread())

    async def prior(self, caller: Identity, asked: Asked, after: int) -> Started | None:
        """The thread that an earlier call with this request id made, to read on in its log after a sequence.

        Raises Refused(SEQUENCE_OUT_OF_RANGE) if retention took what is wanted of it.
        """
        try:
            await self._replays.check(caller.tenant, asked)
        except Replayed as replayed:
            row = await self._reads.row_to_read(caller, replayed.resource, after)
            return _attached(row, replayed)
        return None

    async def attach(self, caller: Identity, replayed: Replayed) -> Started:
        """To the thread that the same call made before."""
        return _attached(await self._reads.row(caller, replayed.resource), replayed)

    async def start(self, wish: Wish, *, cancelled_with_caller: bool = False) -> Started:
        """Makes a thread; durable on return. Attaches to the one that the same call made before.

        With `cancelled_with_caller` a thread is also cancelled that is being made while its caller goes.
        """
        if not cancelled_with_caller:
            return await self._start(wish)
        starting = self._background.start(self._start(wish))
        try:
            return await shield(starting)
        except CancelledError:
            self._background.start(self._cancel_started(wish.caller, starting))
            raise

    async def _start(self, wish: Wish) -> Started:
        try:
            return await self._replays.once(wish.caller.tenant, wish.asked, lambda: self.make(wish))
        except Replayed as replayed:
            return await self.attach(wish.caller, replayed)

    async def make(self, wish: Wish) -> Started:
        """As `start`, for a call that is known not to have been made before."""
        template = wish.template
        pinned = await self._agents.pinned(wish.caller.tenant, template.agent, template.agent_version)
        self.check_input(pinned, template.input)
        pinned = replace(pinned, spec=with_client_tools(pinned.spec, template.client_tools, self._schemas))
        for _ in range(ATTEMPTS_MAX - 1):
            with suppress(Conflict):
                return await self._attempt(wish, pinned)
        return await self._attempt(wish, pinned)

    def check_input(self, pinned: Pinned, content: Content) -> None:
        """Raises Refused(FIELD_INVALID) for a first input that does not fit the agent's schema."""
        if not pinned.input_schema_json:
            return
        if not content.data_json:
            raise invalid(("thread.input.data_json", "the agent's input_schema_json asks for JSON data"))
        problem = self._schemas.problem(pinned.input_schema_json, content.data_json)
        if problem:
            raise invalid(
                ("thread.input.data_json", f"does not fit the agent's input_schema_json: {problem}")
            )

    async def _attempt(self, wish: Wish, pinned: Pinned) -> Started:
        """Raises Conflict when the session is no longer as it was found: another attempt may do."""
        template = wish.template
        wanted = Wanted(template.session, template.session_key, template.parent_object, template.context)
        entry = await self._entries.entry(wish.caller, wanted, pinned.agent_key)
        if entry.session is not None and template.busy_policy is BusyPolicy.STEER:
            steered = await self._entries.steer(
                wish.caller, entry.session, template.input, partial(self._remember, wish, steered=True)
            )
            if steered is not None:
                return Started(*steered, made=False, steered=True)
        name = wish.thread_id or new_id()
        start = self._begin(wish, pinned, entry, name)
        if entry.session is not None and template.busy_policy is BusyPolicy.INTERRUPT:
            start = replace(start, mail=await self._entries.interruptions(wish.caller, entry.session, name))
        await self._engine.start(start)
        return Started(wish.key, name, made=True)

    def _remember(self, wish: Wish, name: str, *, steered: bool = False) -> RequestRow | None:
        now, from_sequence = self._clock.now(), int(steered)
        return wish.asked.row(resource=name, response=None, now=now, from_sequence=from_sequence)

    def _begin(self, wish: Wish, pinned: Pinned, entry: Entry, name: str) -> Start:
        template, principal, now = wish.template, wish.caller.principal, self._clock.now()
        session, called_by = entry.session, template.called_by
        calls_agents = any(tool.agent_version for tool in pinned.spec.tools)  # as they are now
        data, digest = self._encoded(pinned, shared=not template.client_tools and not calls_agents)
        model = pinned.spec.model[:MODEL_SHOWN_MAX]
        trigger = replace(template.trigger, triggered_by=template.trigger.triggered_by or principal)
        subject = template.subject or Subject()
        ask = s.Create(
            now,
            SpecReference(pinned.spec.agent_version, f"sha256:{digest.hex()}", model),
            template.input,
            principal=principal,
            session=f"sessions/{session.id}" if session else "",
            parent_object=entry.parent_object,
            context=entry.context,
            initial_context_ignored=entry.initial_context_ignored,
            busy_policy=template.busy_policy,
            subject=template.subject,
            trigger=trigger,
            retried_from=template.retried_from,
            parent_thread=called_by.name if called_by else "",
            parent_call=called_by.call if called_by else None,
        )
        row = NewThread(
            id=name,
            agent=pinned.agent_key,
            version=pinned.version,
            session=session.key if session else 0,
            spec_digest=digest,
            spec=data,
            create_time=now,
            tags=template.tags,
            labels=template.labels,
            client_metadata=template.client_metadata,
            subject_type=subject.type,
            subject_id=subject.id,
            trigger_type=trigger.type,
            triggered_by=trigger.triggered_by,
            parent_object=entry.parent_object,
            begins_session=entry.begins,
            context_initial=template.context.initial if entry.begins else "",
            alone_in_session=template.busy_policy is BusyPolicy.REJECT,
            parent=called_by.key if called_by else 0,
        )
        return Start(wish.key, pinned.spec, ask, row, self._remember(wish, f"threads/{name}"))

    def _encoded(self, pinned: Pinned, *, shared: bool) -> tuple[bytes, bytes]:
        """A pinned version's spec as it is stored, and its digest; versions never change.

        What is not shared is the spec of one thread alone, and not kept.
        """
        if not shared:
            data = self._encode_spec(pinned.spec)
            return data, sha256(data).digest()
        place = (pinned.agent_key, pinned.version)
        found = self._specs_encoded.get(place)
        if found is None:
            data = self._encode_spec(pinned.spec)
            found = self._specs_encoded.put(place, (data, sha256(data).digest()), len(data))
        return found

    async def resting(self, started: Started) -> None:
        """Returns once the thread has ended, waits for something outside, or is paused."""
        waiter = self._background.start(self._engine.resting(started.key))
        try:
            row = await self._reads.row_by_key(started.key)
            if row is not None and is_condemned(row):
                await self._reads.refuse_damage(row)
            if row is None or ThreadState(row.state) in _RESTING:
                return
            if not started.made:  # one whose log is damaged would be waited for in vain
                await self._reads.view(row, full=False)
            with about(f"threads/{started.id}"):
                await waiter
        finally:
            waiter.cancel()

    def cancel_later(self, caller: Identity, started: Started) -> None:
        """Cancels a thread whose caller is gone; goes on though the caller's own task is cancelled."""
        if not started.steered:
            self._background.start(self._cancel(caller, started.key))

    async def _cancel_started(self, caller: Identity, starting: "Task[Started]") -> None:
        self.cancel_later(caller, await starting)

    async def _cancel(self, caller: Identity, key: ThreadKey) -> None:
        try:
            await self._engine.ask(key, s.Cancel(self._clock.now(), caller.principal, GONE))
        except (Refused, StoreFailed, Fenced):
            return  # it has ended meanwhile, or the server stops: nothing is left to cancel here


def _attached(row: ThreadRow | ExpiredThread, replayed: Replayed) -> Started:
    """To what the same call did before: it made the thread, or steered it."""
    return Started(row.key, row.id, made=False, steered=replayed.from_sequence > 0)
