"""Sessions: read, found by their keys, labelled, deleted, and what was said in them."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from treadle_server.core.conversation import size_of
from treadle_server.core.errors import Reason, Refused, not_found
from treadle_server.core.objects import reaches
from treadle_server.core.values import Message
from treadle_server.engine.history import History
from treadle_server.ports.catalogue.pages import Page, Position
from treadle_server.ports.catalogue.sessions import SessionPlace, SessionRow
from treadle_server.ports.catalogue.sessions import Sessions as SessionStore
from treadle_server.ports.clock import Clock
from treadle_server.services.access import check_reach
from treadle_server.services.etags import change, check_etag
from treadle_server.services.keys import Identity
from treadle_server.services.page_bytes import PAGE_BYTES_MAX
from treadle_server.services.requests import Asked, Replays

ROWS_SEARCHED_MAX = 2_000
"""Looked through for one page of sessions."""
_ROWS = 100
_THREADS = 50
_ROUNDS_MAX = 200

Wanted = Callable[[SessionRow], bool]
Change = Callable[[SessionRow], dict[str, str]]
"""Makes the wanted labels from the present row. Raises Refused."""


class SessionCodec(Protocol):
    """Sessions as the bytes that are answered."""

    def answer(self, row: SessionRow) -> bytes:
        """The response that a repeated call gets again."""
        ...


class EndThread(Protocol):
    """Ends a thread, unless it ends by itself meanwhile."""

    async def __call__(self, caller: Identity, name: str, asked: Asked) -> None: ...


@dataclass(frozen=True, slots=True)
class Messages:
    """A page of what was said, and where the next one begins; None at the end."""

    messages: tuple[Message, ...]
    next: SessionPlace | None


class Sessions:
    """All of it for one tenant at a time: a name of another tenant does not exist."""

    def __init__(
        self,
        store: SessionStore,
        history: History,
        codec: SessionCodec,
        replays: Replays,
        end_thread: EndThread,
        clock: Clock,
    ) -> None:
        self._store = store
        self._history = history
        self._codec = codec
        self._replays = replays
        self._end_thread = end_thread
        self._clock = clock

    async def get(self, caller: Identity, name: str) -> SessionRow:
        """Raises Refused: RESOURCE_NOT_FOUND, PARENT_FORBIDDEN."""
        row = await self._store.get(caller.tenant, name.removeprefix("sessions/"))
        if row is None:
            raise not_found("Session", name)
        check_reach(caller, row.parent_object, name)
        return row

    async def lookup(self, caller: Identity, session_key: str) -> SessionRow:
        """The session that has a key of the caller's. Raises Refused as `get`."""
        row = await self._store.find(caller.tenant, session_key)
        if row is None:
            raise Refused(
                Reason.RESOURCE_NOT_FOUND,
                "no session has this session_key",
                metadata={"session_key": session_key},
                resource=("treadle.dev/Session", ""),
            )
        check_reach(caller, row.parent_object, f"sessions/{row.id}")
        return row

    async def list(
        self, caller: Identity, wanted: Wanted, *, limit: int, after: Position | None
    ) -> Page[SessionRow]:
        """A page, newest first, of those that are wanted and that the caller reaches."""
        found: list[SessionRow] = []
        searched, left = 0, PAGE_BYTES_MAX
        while True:
            page = await self._store.list(caller.tenant, limit=_ROWS, after=after)
            for row in page.items:
                searched += 1
                if reaches(caller.object_patterns, row.parent_object) and wanted(row):
                    left -= _size_of(row)
                    if found and left < 0:
                        return Page(tuple(found), after)
                    found.append(row)
                after = (row.key, row.key)
                last = row is page.items[-1] and page.next is None
                if len(found) == limit:
                    return Page(tuple(found), None if last else after)
            after = page.next
            if after is None or searched >= ROWS_SEARCHED_MAX:
                return Page(tuple(found), after)

    async def update(
        self, caller: Identity, name: str, etag: str, wanted: Change, asked: Asked
    ) -> SessionRow:
        """Raises Replayed with the answer of the same call before."""

        async def act() -> SessionRow:
            row = await self.get(caller, name)
            check_etag(etag, etag_of(row), name)
            labels, now = wanted(row), max(self._clock.now(), row.update_time)
            response = self._codec.answer(_changed(row, labels, now))
            request = asked.row(resource=name, response=response, now=now)
            return await self._store.update(row, labels=labels, update_time=now, request=request)

        return await self._replays.once(caller.tenant, asked, lambda: change(act))

    async def delete(self, caller: Identity, name: str, *, etag: str, force: bool, asked: Asked) -> None:
        """With `force` its threads are cancelled first. Raises Replayed for a repeated call."""

        async def act() -> None:
            row = await self.get(caller, name)
            check_etag(etag, etag_of(row), name)
            now = self._clock.now()
            request = asked.row(resource=name, response=b"", now=now)
            await self._store.delete(row, delete_time=now, request=request)

        async def ending() -> None:
            for rounds_left in reversed(range(_ROUNDS_MAX)):  # one may be started before the session is gone
                await self._end_threads(caller, name, asked)
                try:
                    await change(act)
                except Refused as refused:
                    if refused.reason is not Reason.SESSION_BUSY or not rounds_left:
                        raise
                else:
                    break

        await self._replays.once(caller.tenant, asked, ending if force else lambda: change(act))

    async def _end_threads(self, caller: Identity, name: str, asked: Asked) -> None:
        row = await self.get(caller, name)
        for _, thread_id in reversed(await self._store.unfinished(row, limit=_THREADS)):
            await self._end_thread(caller, f"threads/{thread_id}", asked)

    async def messages(
        self, caller: Identity, name: str, place: SessionPlace | None, *, limit: int, bytes_max: int
    ) -> Messages:
        """What was said after a place, oldest first: at most so many bytes, but one message in any case."""
        row = await self.get(caller, name)
        found: list[Message] = []
        room = bytes_max
        while True:
            placed = await self._history.after(caller.tenant, row.key, place, _ROWS)
            for there, message in placed:
                if message is not None:
                    room -= size_of(message)
                    if found and (len(found) == limit or room < 0):
                        return Messages(tuple(found), place)
                    found.append(message)
                place = there
            if len(placed) < _ROWS:
                return Messages(tuple(found), None)


def etag_of(row: SessionRow) -> str:
    """Changes with every UpdateSession, and with nothing else."""
    return str(row.revision)


def _size_of(row: SessionRow) -> int:
    """In bytes, at most: of what can be long."""
    labels = sum(len(label) + len(value) for label, value in row.labels.items())
    return 4 * (labels + len(row.context_initial) + len(row.session_key) + len(row.parent_object))


def _changed(row: SessionRow, labels: dict[str, str], now: int) -> SessionRow:
    """The session as the next write of its row will leave it."""
    return replace(row, labels=labels, update_time=now, revision=row.revision + 1)
