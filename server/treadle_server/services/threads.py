"""Use cases of threads: start, find, follow, change, stop."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from hashlib import sha256

from treadle_server.core import signals as s
from treadle_server.core.errors import Reason, Refused, invalid, not_found
from treadle_server.core.events import Event, SpecReference, Subject, Trigger
from treadle_server.core.evolve import fold
from treadle_server.core.iterations import Iteration, IterationFold
from treadle_server.core.kinds import TERMINAL, WAITING, ThreadState
from treadle_server.core.state import State
from treadle_server.core.values import Content
from treadle_server.ports.catalogue import Position, SessionRow, Sessions, ThreadQuery, ThreadRow, Threads
from treadle_server.ports.clock import Clock
from treadle_server.ports.codec import Codec
from treadle_server.ports.engine import Engine, Start, Waiting
from treadle_server.ports.feed import Feed, Subscription, Watch
from treadle_server.ports.log import (
    Log,
    NewSession,
    NewThread,
    Replayed,
    StoredRecord,
    ThreadKey,
)
from treadle_server.ports.schemas import Schemas
from treadle_server.ports.specs import Specs
from treadle_server.services.agents import Agents, Pinned
from treadle_server.services.etags import change, check_etag
from treadle_server.services.ids import new_id
from treadle_server.services.keys import Identity
from treadle_server.services.requests import Asked, Replays

SPECS_MAX = 1000
MODEL_SHOWN_MAX = 255
"""A script can stand in a model's name; events and threads show its beginning."""
_PAGE = 500
_RESTING = TERMINAL | WAITING | {ThreadState.PAUSED}


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
class ThreadChanges:
    """What a caller can change of a thread that exists, also after its end: its row alone."""

    tags: tuple[str, ...]
    labels: dict[str, str]
    client_metadata: bytes


@dataclass(frozen=True, slots=True)
class ThreadView:
    """A thread as it is served: the row, and what its committed log says."""

    row: ThreadRow
    session_key: str
    summary: bytes
    """A Thread message without what only the row knows."""
    waiting: Waiting | None = None
    iterations: tuple[Iteration, ...] | None = None
    """None unless asked for."""


@dataclass(frozen=True, slots=True)
class Started:
    """A thread that a call made, or attached to because it was made before."""

    key: ThreadKey
    id: str
    made: bool


class ThreadService:
    """All of it for one tenant at a time: a name of another tenant does not exist."""

    def __init__(
        self,
        *,
        log: Log,
        threads: Threads,
        sessions: Sessions,
        replays: Replays,
        agents: Agents,
        engine: Engine,
        feed: Feed,
        codec: Codec,
        specs: Specs,
        schemas: Schemas,
        clock: Clock,
    ) -> None:
        self._log = log
        self._threads = threads
        self._sessions = sessions
        self._replays = replays
        self._agents = agents
        self._engine = engine
        self._feed = feed
        self._codec = codec
        self._specs = specs
        self._schemas = schemas
        self._clock = clock
        self._specs_encoded: dict[tuple[int, int], tuple[bytes, bytes]] = {}
        self._background: set[asyncio.Task[None]] = set()

    # Starting

    def allocate(self, caller: Identity) -> ThreadKey:
        """A key for a thread to start, so that its stream can be followed from before its first event."""
        return ThreadKey(caller.tenant, self._log.allocate_thread())

    async def prior(self, caller: Identity, asked: Asked) -> Started | None:
        """The thread that an earlier call with this request id made."""
        try:
            await self._replays.check(caller.tenant, asked)
        except Replayed as replayed:
            return await self._attach(caller, replayed.resource)
        return None

    async def _attach(self, caller: Identity, name: str) -> Started:
        row = await self.row(caller, name)
        return Started(row.key, row.id, made=False)

    async def start(
        self,
        caller: Identity,
        template: ThreadTemplate,
        thread_id: str,
        asked: Asked,
        key: ThreadKey,
    ) -> Started:
        """Makes a thread under a key from `allocate`; durable on return."""

        async def act() -> Started:
            pinned = await self._agents.pinned(caller.tenant, template.agent, template.agent_version)
            self._check_input(pinned, template.input)
            session = await self._session(caller, template, pinned)
            name = thread_id or new_id()
            await self._engine.start(self._start(caller, template, pinned, session, name, asked, key))
            return Started(key, name, made=True)

        try:
            return await self._replays.once(caller.tenant, asked, act)
        except Replayed as replayed:
            return await self._attach(caller, replayed.resource)

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

    def _start(
        self,
        caller: Identity,
        template: ThreadTemplate,
        pinned: Pinned,
        session: SessionRow | None,
        thread_id: str,
        asked: Asked,
        key: ThreadKey,
    ) -> Start:
        now = self._clock.now()
        spec_bytes, digest = self._encoded(pinned)
        model = pinned.spec.model[:MODEL_SHOWN_MAX]
        reference = SpecReference(pinned.spec.agent_version, f"sha256:{digest.hex()}", model)
        subject = template.subject or Subject()
        ask = s.Create(
            now,
            reference,
            template.input,
            principal=caller.principal,
            session=f"sessions/{session.id}" if session else "",
            subject=template.subject,
            trigger=template.trigger,
        )
        row = NewThread(
            id=thread_id,
            agent=pinned.agent_key,
            version=pinned.version,
            session=session.key if session else 0,
            spec_digest=digest,
            spec=spec_bytes,
            create_time=now,
            tags=template.tags,
            labels=template.labels,
            client_metadata=template.client_metadata,
            subject_type=subject.type,
            subject_id=subject.id,
            trigger_type=template.trigger.type,
            triggered_by=template.trigger.triggered_by,
        )
        request = asked.row(resource=f"threads/{thread_id}", response=None, now=now)
        return Start(key, pinned.spec, ask, row, request)

    def _encoded(self, pinned: Pinned) -> tuple[bytes, bytes]:
        """A pinned version's spec as it is stored, and its digest; versions never change."""
        place = (pinned.agent_key, pinned.version)
        found = self._specs_encoded.get(place)
        if found is None:
            data = self._codec.encode_spec(pinned.spec)
            if len(self._specs_encoded) >= SPECS_MAX:
                del self._specs_encoded[next(iter(self._specs_encoded))]
            found = self._specs_encoded[place] = (data, sha256(data).digest())
        return found

    async def resting(self, key: ThreadKey) -> None:
        """Returns once the thread has ended, waits for something outside, or is paused."""
        waiter = asyncio.ensure_future(self._engine.resting(key))
        try:
            row = await self._threads.get_by_key(key)
            if row is None or ThreadState(row.state) in _RESTING:
                return
            await waiter
        finally:
            waiter.cancel()

    def cancel_later(self, caller: Identity, key: ThreadKey, reason: str) -> None:
        """Cancels a thread whose caller is gone; goes on though the caller's own task is cancelled."""
        ask = s.Cancel(self._clock.now(), caller.principal, reason)
        task = asyncio.create_task(self._cancel_quietly(key, ask))
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _cancel_quietly(self, key: ThreadKey, ask: s.Cancel) -> None:
        try:
            await self._engine.ask(key, ask)
        except Refused:
            return  # it has ended meanwhile, or the server stops: nothing is left to cancel here

    # Finding

    async def row(self, caller: Identity, name: str) -> ThreadRow:
        row = await self._threads.get(caller.tenant, name.removeprefix("threads/"))
        if row is None:
            raise not_found("Thread", name)
        return row

    async def get(self, caller: Identity, name: str, *, full: bool) -> ThreadView:
        return await self.view(await self.row(caller, name), full=full)

    async def view(self, row: ThreadRow, *, full: bool) -> ThreadView:
        """What is committed of a thread. An ended one is read from its summary."""
        waiting = None
        iterations: tuple[Iteration, ...] | None = None
        summary = row.summary
        if summary is None or full:
            state, iterations = await self._fold(row)
            if summary is None:
                summary = self._codec.summary(state)
                waiting = self._engine.waiting(row.key) if state.status is ThreadState.PENDING else None
        return ThreadView(row, await self._session_key(row), summary, waiting, iterations if full else None)

    async def _fold(self, row: ThreadRow) -> tuple[State, tuple[Iteration, ...]]:
        spec, _ = await self._specs.of_thread(row.key)
        state, iterations = State(spec), IterationFold()
        async for page in self._events(row.key):
            state = fold(state, page)
            for event in page:
                iterations.apply(event)
        return state, iterations.iterations

    async def _events(self, key: ThreadKey) -> AsyncIterator[list[Event]]:
        """All committed events, in pages: the loop is free between them."""
        after = 0
        while True:
            stored = await self._log.read(key, after, _PAGE)
            if stored:
                yield [self._codec.decode(record) for record in stored]
                after = stored[-1].sequence
            if len(stored) < _PAGE:
                return

    async def _session_key(self, row: ThreadRow) -> str:
        if not row.session:
            return ""
        session = await self._sessions.get_by_key(row.key.tenant, row.session)
        return session.session_key if session is not None else ""

    async def page(
        self, query: ThreadQuery, *, full: bool
    ) -> AsyncIterator[tuple[ThreadView, Position | None]]:
        """A page's threads, each with where a page that ends with it goes on; None after the very last."""
        page = await self._threads.list(query)
        last = len(page.items) - 1
        for index, row in enumerate(page.items):
            value = getattr(row, query.order_by.value) or 0
            yield (
                await self.view(row, full=full),
                page.next if index == last else (value, row.key.thread),
            )

    async def iterations(self, caller: Identity, name: str) -> tuple[Iteration, ...]:
        _, iterations = await self._fold(await self.row(caller, name))
        return iterations

    async def events(
        self, caller: Identity, name: str, after: int, limit: int
    ) -> tuple[ThreadRow, list[StoredRecord]]:
        """A page of the log as it is stored."""
        row = await self.row(caller, name)
        check_sequence(row, after)
        return row, await self._log.read(row.key, after, limit)

    # Following

    async def follow(self, caller: Identity, name: str, watch: Watch) -> Subscription | None:
        """A place in a thread's stream; None when there is nothing more and never will be."""
        row = await self.row(caller, name)
        check_sequence(row, watch.after)
        if ThreadState(row.state) in TERMINAL and watch.after == row.sequence:
            return None
        return self._feed.follow(Watch(row.key, watch.after, watch.kinds, watch.deltas))

    def follow_fresh(self, watch: Watch) -> Subscription:
        """A place in the stream of a thread that is about to be made."""
        return self._feed.follow(watch)

    # Changing

    async def update(
        self,
        caller: Identity,
        name: str,
        etag: str,
        wanted: Callable[[ThreadRow], ThreadChanges],
        asked: Asked,
    ) -> ThreadView:
        """Replaces what `wanted` makes of the present row."""

        async def act() -> ThreadRow:
            row = await self.row(caller, name)
            check_etag(etag, etag_of(row), name)
            changes = wanted(row)
            return await self._threads.update(
                row,
                tags=changes.tags,
                labels=changes.labels,
                client_metadata=changes.client_metadata,
                request=asked.row(resource=name, response=None, now=self._clock.now()),
            )

        try:
            row = await self._replays.once(caller.tenant, asked, lambda: change(act))
        except Replayed:
            row = await self.row(caller, name)
        return await self.view(row, full=False)

    async def cancel(
        self, caller: Identity, name: str, reason: str, grace_micros: int, asked: Asked
    ) -> ThreadView:
        """Returns once the thread has really stopped."""
        row = await self.row(caller, name)
        ended = asyncio.ensure_future(self._engine.ended(row.key))
        now = self._clock.now()
        ask = s.Cancel(now, caller.principal, reason, grace_micros)
        request = asked.row(resource=name, response=None, now=now)
        try:
            await self._replays.check(caller.tenant, asked)
            state = await self._engine.ask(row.key, ask, request)
            if not state.ended:
                await ended
        except Replayed:
            row = await self.row(caller, name)
            if ThreadState(row.state) not in TERMINAL:
                await ended
        finally:
            ended.cancel()
        return await self.get(caller, name, full=True)

    async def delete(self, caller: Identity, name: str, *, etag: str, force: bool, asked: Asked) -> None:
        """Deletes an ended thread; with `force` a living one is cancelled first."""
        try:
            await self._replays.once(
                caller.tenant, asked, lambda: self._delete(caller, name, etag, force, asked)
            )
        except Replayed:
            return

    async def _delete(self, caller: Identity, name: str, etag: str, force: bool, asked: Asked) -> None:
        row = await self.row(caller, name)
        check_etag(etag, etag_of(row), name)
        if ThreadState(row.state) not in TERMINAL:
            if not force:
                raise Refused(
                    Reason.THREAD_STATE_CONFLICT,
                    "a thread that has not ended is deleted only with force",
                    metadata={"current_state": ThreadState(row.state).name, "allowed": "CANCEL"},
                )
            await self.cancel(caller, name, "deleted", s.GRACE_MICROS, Asked(asked.principal, asked.method))
            row = await self.row(caller, name)
        now = self._clock.now()
        request = asked.row(resource=name, response=None, now=now)
        await self._threads.delete(row, delete_time=now, request=request)


def check_sequence(row: ThreadRow, after: int) -> None:
    """Refuses a place that the log has not reached."""
    if after > row.sequence:
        raise Refused(
            Reason.SEQUENCE_OUT_OF_RANGE,
            f"after_sequence {after} is beyond the last event, {row.sequence}",
            metadata={"first": "1", "last": str(row.sequence)},
        )


def etag_of(row: ThreadRow) -> str:
    """Changes with every UpdateThread, and with nothing else."""
    return f'"{row.revision}"'
