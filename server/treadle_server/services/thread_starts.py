"""Starts threads, waits for them, and gives them up when their caller goes."""

from asyncio import CancelledError, Task, shield
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from hashlib import sha256

from treadle_server.core import signals as s
from treadle_server.core.errors import Refused, invalid, not_found
from treadle_server.core.events import SpecReference, Subject, Trigger
from treadle_server.core.kinds import TERMINAL, WAITING, ThreadState
from treadle_server.core.spec import Spec
from treadle_server.core.values import Content
from treadle_server.ports.catalogue.sessions import SessionRow, Sessions
from treadle_server.ports.clock import Clock
from treadle_server.ports.engine import Engine, Start
from treadle_server.ports.log import Fenced, Log, NewSession, NewThread, Replayed, StoreFailed, ThreadKey
from treadle_server.ports.schemas import Schemas
from treadle_server.services.agents import Agents, Pinned
from treadle_server.services.background import Background
from treadle_server.services.ids import new_id
from treadle_server.services.keys import Identity
from treadle_server.services.requests import Asked, Replays
from treadle_server.services.thread_reads import ThreadReads, about, is_condemned

SPECS_MAX = 1000
MODEL_SHOWN_MAX = 255
"""A script can stand in a model's name; events and threads show its beginning."""
GONE = "the caller's deadline or connection ended"
_RESTING = TERMINAL | WAITING | {ThreadState.PAUSED}

EncodeSpec = Callable[[Spec], bytes]


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


@dataclass(frozen=True, slots=True)
class Started:
    """A thread that a call made, or attached to because it was made before."""

    key: ThreadKey
    id: str
    made: bool


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
        self._sessions = sessions
        self._replays = replays
        self._agents = agents
        self._engine = engine
        self._encode_spec = encode_spec
        self._schemas = schemas
        self._clock = clock
        self._specs_encoded: dict[tuple[int, int], tuple[bytes, bytes]] = {}
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
            return Started(row.key, row.id, made=False)
        return None

    async def _attach(self, caller: Identity, replayed: Replayed) -> Started:
        row = await self._reads.row(caller, replayed.resource)
        return Started(row.key, row.id, made=False)

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
            return await self._replays.once(wish.caller.tenant, wish.asked, lambda: self._make(wish))
        except Replayed as replayed:
            return await self._attach(wish.caller, replayed)

    async def _make(self, wish: Wish) -> Started:
        template = wish.template
        pinned = await self._agents.pinned(wish.caller.tenant, template.agent, template.agent_version)
        self._check_input(pinned, template.input)
        session = await self._session(wish.caller, template, pinned)
        name = wish.thread_id or new_id()
        await self._engine.start(self._begin(wish, pinned, session, name))
        return Started(wish.key, name, made=True)

    def _check_input(self, pinned: Pinned, content: Content) -> None:
        if not pinned.input_schema_json:
            return
        if not content.data_json:
            raise invalid(("thread.input.data_json", "the agent's input_schema_json asks for JSON data"))
        problem = self._schemas.problem(pinned.input_schema_json, content.data_json)
        if problem:
            raise invalid(
                ("thread.input.data_json", f"does not fit the agent's input_schema_json: {problem}")
            )

    async def _session(self, caller: Identity, template: ThreadTemplate, pinned: Pinned) -> SessionRow | None:
        session = None
        if template.session:
            session = await self._sessions.get(caller.tenant, template.session.removeprefix("sessions/"))
            if session is None:
                raise not_found("Session", template.session)
            if template.session_key and session.session_key != template.session_key:
                raise invalid(("thread.session_key", f"is not the key of {template.session}"))
        elif template.session_key:
            new = NewSession(new_id(), template.session_key, pinned.agent_key, "", self._clock.now())
            session = await self._sessions.create_if_absent(caller.tenant, new)
        if session is not None and session.agent != pinned.agent_key:
            raise invalid(("thread.agent", "the session belongs to another agent"))
        return session

    def _begin(self, wish: Wish, pinned: Pinned, session: SessionRow | None, name: str) -> Start:
        template, principal, now = wish.template, wish.caller.principal, self._clock.now()
        data, digest = self._encoded(pinned)
        model = pinned.spec.model[:MODEL_SHOWN_MAX]
        trigger = replace(template.trigger, triggered_by=template.trigger.triggered_by or principal)
        subject = template.subject or Subject()
        ask = s.Create(
            now,
            SpecReference(pinned.spec.agent_version, f"sha256:{digest.hex()}", model),
            template.input,
            principal=principal,
            session=f"sessions/{session.id}" if session else "",
            subject=template.subject,
            trigger=trigger,
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
        )
        request = wish.asked.row(resource=f"threads/{name}", response=None, now=now)
        return Start(wish.key, pinned.spec, ask, row, request)

    def _encoded(self, pinned: Pinned) -> tuple[bytes, bytes]:
        """A pinned version's spec as it is stored, and its digest; versions never change."""
        place = (pinned.agent_key, pinned.version)
        found = self._specs_encoded.get(place)
        if found is None:
            data = self._encode_spec(pinned.spec)
            if len(self._specs_encoded) >= SPECS_MAX:
                del self._specs_encoded[next(iter(self._specs_encoded))]
            found = self._specs_encoded[place] = (data, sha256(data).digest())
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
        self._background.start(self._cancel(caller, started.key))

    async def _cancel_started(self, caller: Identity, starting: "Task[Started]") -> None:
        await self._cancel(caller, (await starting).key)

    async def _cancel(self, caller: Identity, key: ThreadKey) -> None:
        try:
            await self._engine.ask(key, s.Cancel(self._clock.now(), caller.principal, GONE))
        except (Refused, StoreFailed, Fenced):
            return  # it has ended meanwhile, or the server stops: nothing is left to cancel here
