"""Reads threads as they are committed: rows, summaries, iterations, events."""

from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import NoReturn

from treadle_server.core.errors import Reason, Refused, not_found
from treadle_server.core.evolve import fold
from treadle_server.core.iterations import Iteration, IterationFold
from treadle_server.core.kinds import TERMINAL, ThreadState
from treadle_server.core.state import State
from treadle_server.ports.catalogue.pages import Position
from treadle_server.ports.catalogue.sessions import SessionRow, Sessions
from treadle_server.ports.catalogue.thread_queries import ThreadQuery
from treadle_server.ports.catalogue.threads import ExpiredThread, ThreadRow, Threads
from treadle_server.ports.codec import Codec
from treadle_server.ports.engine import Engine, Waiting
from treadle_server.ports.log import Expired, Log, StoredRecord, ThreadKey
from treadle_server.ports.specs import Specs
from treadle_server.services.access import check_reach
from treadle_server.services.expiry import log_expired, thread_expired
from treadle_server.services.keys import Identity

_RECORDS = 100
"""Read, decoded and folded at a time: the loop is free in between."""
SEARCHED_RECORDS_MAX = 5_000
"""Looked through for one page of a log once it has something, and for one page of threads."""


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
    condemned: bool = False
    """It ended by its row alone, or its row is damaged: there is no summary."""


@dataclass(frozen=True, slots=True)
class EventQuery:
    """What a page of a thread's log is to hold."""

    after: int
    limit: int
    bytes_max: int
    kinds: frozenset[int] = frozenset()
    """Empty = all."""


@dataclass(frozen=True, slots=True)
class EventPage:
    """Records as they are stored, and the sequence to go on after; None at the end of the log."""

    records: tuple[StoredRecord, ...]
    next: int | None


class ThreadReads:
    """All of it for one tenant at a time: a name of another tenant does not exist."""

    def __init__(
        self, *, log: Log, threads: Threads, sessions: Sessions, engine: Engine, codec: Codec, specs: Specs
    ) -> None:
        self._log = log
        self._threads = threads
        self._sessions = sessions
        self._engine = engine
        self._codec = codec
        self._specs = specs

    async def row(self, caller: Identity, name: str) -> ThreadRow:
        """Raises Refused(RESOURCE_NOT_FOUND), which says so of one that expired."""
        thread_id = name.removeprefix("threads/")
        with about(name):
            row = await self._threads.get(caller.tenant, thread_id)
        if row is not None:
            check_reach(caller, row.parent_object, name)
            return row
        expired = await self._threads.expired(caller.tenant, thread_id)
        raise not_found("Thread", name) if expired is None else thread_expired(name, expired.expire_time)

    async def row_to_read(self, caller: Identity, name: str, after: int) -> ThreadRow | ExpiredThread:
        """As `row`, for who reads the log after a sequence; an expired thread that had no more than that.

        Raises Refused(SEQUENCE_OUT_OF_RANGE) for a place that the log has not reached, or that is gone.
        """
        try:
            row = await self.row(caller, name)
        except Refused as refused:
            expired = await self._threads.expired(caller.tenant, name.removeprefix("threads/"))
            if refused.reason is not Reason.RESOURCE_NOT_FOUND or expired is None:
                raise
            if after == expired.sequence:
                return expired
            raise log_expired(name, expired.sequence, expired.expire_time) from None
        check_sequence(row, after)
        return row

    async def row_by_key(self, key: ThreadKey) -> ThreadRow | None:
        return await self._threads.get_by_key(key)

    async def get(self, caller: Identity, name: str, *, full: bool) -> ThreadView:
        return await self.view(await self.row(caller, name), full=full)

    async def view(self, row: ThreadRow, *, full: bool) -> ThreadView:
        """What is committed of a thread. An ended one is read from its summary."""
        if is_condemned(row):
            return ThreadView(row, "", b"", iterations=() if full else None, condemned=True)
        state: State | None = None
        iterations = IterationFold() if full else None
        with about(f"threads/{row.id}"), whole(f"threads/{row.id}"):
            if row.summary is None:
                spec, _ = await self._specs.of_thread(row.key)
                state = State(spec)
            if state is not None or iterations is not None:
                state = await self._fold(row, state, iterations)
        session = await self._session(row)
        return ThreadView(
            row,
            session.session_key if session is not None else "",
            row.summary or (self._codec.summary(state) if state is not None else b""),
            self._waiting(row, session) if _pending(state) else None,
            iterations.iterations if iterations is not None else None,
        )

    async def _fold(
        self, row: ThreadRow, state: State | None, iterations: IterationFold | None
    ) -> State | None:
        async for stored in self._stored(row):
            events = [self._codec.decode(record) for record in stored]
            if state is not None:
                state = fold(state, events)
            if iterations is not None:
                for event in events:
                    iterations.apply(event)
        return state

    async def _stored(self, row: ThreadRow, after: int = 0) -> AsyncIterator[list[StoredRecord]]:
        """Records up to the row's last one at least. Raises Refused if the thread is deleted meanwhile."""
        while after < row.sequence:
            stored = await self._log.read(row.key, after, _RECORDS)
            if not stored:
                raise not_found("Thread", f"threads/{row.id}")
            yield stored
            after = stored[-1].sequence

    async def refuse_damage(self, row: ThreadRow) -> NoReturn:
        """Raises Refused(RECORD_CORRUPT) for a condemned thread, with where its log is damaged if it is."""
        name = f"threads/{row.id}"
        with about(name):
            await self._specs.of_thread(row.key)
            async for _ in self._stored(row):
                pass
        raise corrupt(name)

    async def _session(self, row: ThreadRow) -> SessionRow | None:
        return await self._sessions.get_by_key(row.key.tenant, row.session) if row.session else None

    def _waiting(self, row: ThreadRow, session: SessionRow | None) -> Waiting | None:
        """The engine knows that the session is held, the row by which thread."""
        waiting = self._engine.waiting(row.key)
        if waiting is None or waiting.kind != "SESSION" or session is None or not session.active_thread_id:
            return waiting
        return replace(waiting, resource=f"threads/{session.active_thread_id}")

    async def page(
        self, query: ThreadQuery, *, full: bool
    ) -> AsyncGenerator[tuple[ThreadView | None, Position | None], None]:
        """A page's threads, each with where a page that ends with it goes on; None after the very last.

        One that was deleted since is None, and still says where to go on. A damaged one is FAILED with
        DATA_LOSS and keeps no other from being listed. The page ends early when many events had to be read:
        living threads are folded from their logs.
        """
        with listed():
            page = await self._threads.list(query)
        folded, last = 0, len(page.items) - 1
        for index, row in enumerate(page.items):
            if folded > SEARCHED_RECORDS_MAX:
                return
            folded += row.sequence if full or row.summary is None else 0
            view: ThreadView | None = None
            try:
                view = await self.view(row, full=full)
            except Refused as refused:
                if refused.reason is Reason.RECORD_CORRUPT:
                    view = ThreadView(replace(row, damaged=True), "", b"", condemned=True)
                elif refused.reason is not Reason.RESOURCE_NOT_FOUND:
                    raise
            value = getattr(row, query.order_by.value) or 0
            yield view, page.next if index == last else (value, row.key.thread)

    async def iterations(self, caller: Identity, name: str) -> tuple[Iteration, ...]:
        row = await self.row(caller, name)
        found = IterationFold()
        with about(name), whole(name):
            await self._fold(row, None, found)
        return found.iterations

    async def events(self, caller: Identity, name: str, query: EventQuery) -> EventPage:
        """A page of the log as it is stored; never empty before the end."""
        row = await self.row_to_read(caller, name, query.after)
        if isinstance(row, ExpiredThread):
            return EventPage((), None)
        found: list[StoredRecord] = []
        after, size = query.after, 0
        with about(name):
            async for stored in self._stored(row, after):
                for record in stored:
                    if not query.kinds or record.record.kind in query.kinds:
                        size += len(record.record.body)
                        if found and (len(found) == query.limit or size > query.bytes_max):
                            return EventPage(tuple(found), after)
                        found.append(record)
                    after = record.sequence
                if found and after >= query.after + SEARCHED_RECORDS_MAX:
                    break
        return EventPage(tuple(found), after if after < row.sequence else None)


def has_ended(row: ThreadRow) -> bool:
    return ThreadState(row.state) in TERMINAL


def is_condemned(row: ThreadRow) -> bool:
    """It ended without an event that says so, since its log cannot be read or appended to."""
    return row.damaged or (row.summary is None and has_ended(row))


def _pending(state: State | None) -> bool:
    return state is not None and state.status is ThreadState.PENDING


def check_sequence(row: ThreadRow, after: int) -> None:
    """Refuses a place that the log has not reached."""
    if after > row.sequence:
        raise Refused(
            Reason.SEQUENCE_OUT_OF_RANGE,
            f"after_sequence {after} is beyond the last event, {row.sequence}",
            metadata={"first": "1", "last": str(row.sequence)},
        )


@contextmanager
def about(name: str) -> Iterator[None]:
    """Names the thread in refusals from below, where threads have keys and no names."""
    try:
        yield
    except Expired as expired:
        raise log_expired(name, expired.last, expired.expire_time) from None
    except Refused as refused:
        if refused.reason is Reason.RESOURCE_NOT_FOUND and "expire_time" not in refused.metadata:
            raise not_found("Thread", name) from None
        if refused.reason is Reason.RECORD_CORRUPT:
            raise _corrupt(name, refused) from refused
        raise


@contextmanager
def whole(name: str) -> Iterator[None]:
    """Where a thread is wanted and not a place in its log: within `about`."""
    try:
        yield
    except Expired as expired:
        raise thread_expired(name, expired.expire_time) from None


@contextmanager
def listed() -> Iterator[None]:
    """As `about`, where the damaged thread is one of many."""
    try:
        yield
    except Refused as refused:
        if refused.reason is Reason.RECORD_CORRUPT and "thread" in refused.metadata:
            raise _corrupt(f"threads/{refused.metadata['thread']}", refused) from refused
        raise


def corrupt(name: str) -> Refused:
    """Refuses what would need the log of a thread that is condemned."""
    return _corrupt(name, Refused(Reason.RECORD_CORRUPT, ""))


def _corrupt(name: str, damage: Refused) -> Refused:
    metadata = {"resource": name}
    where = damage.metadata.get("sequence", "")
    if where:
        metadata["sequence"] = where
    text = f"event {where} of {name} is damaged in the store" if where else f"{name} is damaged in the store"
    return Refused(damage.reason, text, metadata=metadata, resource=("treadle.dev/Thread", name))
