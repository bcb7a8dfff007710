"""The log of every thread, in memory: the same promises without the disk, for tests and demonstrations."""

import asyncio
from collections.abc import Callable
from typing import Any

from treadle_server.core.errors import Reason, Refused, not_found
from treadle_server.core.kinds import TERMINAL
from treadle_server.ports.clock import Clock
from treadle_server.ports.log import (
    ApprovalChange,
    Conflict,
    NewThread,
    OnCommitted,
    Posted,
    Projection,
    Record,
    Replayed,
    RequestRow,
    StoredRecord,
    ThreadKey,
    Unit,
)
from treadle_server.ports.mail import Letter
from treadle_server.stores.refusals import busy, disk_full, id_taken, parent_ended, replay


class MemoryTicket:
    """Resolves on a later turn of the loop."""

    def __init__(self) -> None:
        self._settled = asyncio.Event()
        self._error: Exception | None = None

    @property
    def done(self) -> bool:
        return self._settled.is_set()

    async def wait(self) -> None:
        await self._settled.wait()
        if self._error is not None:
            raise self._error

    def resolve(self, error: Exception | None) -> None:
        self._error = error
        self._settled.set()


class MemoryLog:
    """Implements `ports.log.Log`. Forgets everything when it goes."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._pending: dict[int, tuple[Unit, MemoryTicket]] = {}
        self._waiting: list[tuple[Unit, MemoryTicket]] = []
        """For room, in order; they cannot grow any more."""
        self._full = False
        self._listeners: list[OnCommitted] = []
        self._records: dict[ThreadKey, list[Record]] = {}
        self._names: set[tuple[int, str]] = set()
        self._session_of: dict[ThreadKey, int] = {}
        self._active: dict[tuple[int, int], int] = {}
        self._begun: set[tuple[int, int]] = set()
        """Sessions that threads were made in."""
        self._requests: dict[tuple[int, str], RequestRow] = {}
        self._next_thread = 1
        self.approvals: dict[tuple[ThreadKey, str], list[ApprovalChange]] = {}
        """What units made of each, from the change that made it on."""
        self.threads: dict[ThreadKey, NewThread] = {}
        """The rows as their units made them."""
        self.projections: dict[ThreadKey, Projection] = {}
        """The last of each thread."""
        self._letters: dict[int, Letter] = {}
        self._next_position = 1

    def fill(self) -> None:
        """From now on there is no room but for what is urgent, as on a full disk."""
        self._full = True

    def make_room(self) -> None:
        self._full = False
        asyncio.get_running_loop().call_soon(self._commit)

    def check_writable(self) -> None:
        if self._full:
            raise disk_full()

    @property
    def blocked_by(self) -> Reason | None:
        return Reason.DISK_FULL if self._full else None

    def allocate_thread(self) -> int:
        """A key for a new thread, which none has or ever had."""
        thread = self._next_thread
        self._next_thread += 1
        return thread

    def submit(self, unit: Unit) -> MemoryTicket:
        ticket = MemoryTicket()
        if not self._pending:
            asyncio.get_running_loop().call_soon(self._commit)
        self._pending[id(unit)] = (unit, ticket)
        return ticket

    def extend(self, unit: Unit, grow: Callable[[Unit], Any]) -> bool:
        if id(unit) not in self._pending:
            return False
        grow(unit)
        return True

    def subscribe(self, on_committed: OnCommitted) -> None:
        self._listeners.append(on_committed)

    async def read(self, key: ThreadKey, after: int, limit: int) -> list[StoredRecord]:
        records = self._records.get(key, [])[after : after + limit]
        return [StoredRecord(sequence, record) for sequence, record in enumerate(records, after + 1)]

    async def last_sequence(self, key: ThreadKey) -> int:
        return len(self._records.get(key, []))

    def _commit(self) -> None:
        batch = self._writable([*self._waiting, *self._pending.values()])
        self._pending.clear()
        outcomes = [(unit, ticket, self._refusal(unit)) for unit, ticket in batch]
        applied = [unit for unit, _, refusal in outcomes if refusal is None]
        for listener in self._listeners if applied else ():
            try:
                listener(applied)
            except Exception as error:  # a faulty listener must not keep others from their answers
                context = {"message": f"{listener!r} failed after a commit", "exception": error}
                asyncio.get_running_loop().call_exception_handler(context)
        for _, ticket, refusal in outcomes:
            ticket.resolve(refusal)

    def _writable(self, batch: list[tuple[Unit, MemoryTicket]]) -> list[tuple[Unit, MemoryTicket]]:
        """What gets its outcome now; the rest goes on waiting."""
        urgent = {unit.key for unit, _ in batch if unit.urgent}
        waits = [self._full and unit.new_thread is None and unit.key not in urgent for unit, _ in batch]
        self._waiting = [entry for entry, wait in zip(batch, waits, strict=True) if wait]
        return [entry for entry, wait in zip(batch, waits, strict=True) if not wait]

    def _refusal(self, unit: Unit) -> Exception | None:
        try:
            self._require(unit)
        except (Conflict, Replayed, Refused) as refusal:
            return refusal
        self._write(unit)
        return None

    def _require(self, unit: Unit) -> None:
        if self._full and unit.new_thread is not None:
            raise disk_full()
        if unit.request is not None:
            stored = self._requests.get((unit.key.tenant, unit.request.request_id))
            if stored is not None and stored.expire_time > self._clock.now():
                replay(stored, unit.request)
        new = unit.new_thread
        if new is not None and (unit.key.tenant, new.id) in self._names:
            raise id_taken("Thread", f"threads/{new.id}")
        if new is not None and new.session:
            self._require_session(unit.key.tenant, new)
        known = new is not None or unit.key in self._records
        if not known or len(self._first(unit)) != unit.expected:
            raise Conflict
        if any(self._letter_to(unit.key, position) is None for position in unit.takes):
            raise Conflict
        if new is not None and new.parent and not self._lives(ThreadKey(unit.key.tenant, new.parent)):
            raise parent_ended()
        active = self._active.get((unit.key.tenant, unit.enters_session))
        if unit.enters_session and active not in (None, unit.key.thread):
            raise Conflict

    async def waiting(self, *, after: int, limit: int) -> list[Letter]:
        """As `ports.mail.Mailbox`, which this implements too."""
        return [letter for position, letter in self._letters.items() if position > after][:limit]

    async def drop(self, letter: Letter) -> None:
        self._letters.pop(letter.position, None)

    def _letter_to(self, key: ThreadKey, position: int) -> Letter | None:
        letter = self._letters.get(position)
        return letter if letter is not None and letter.key == key else None

    def _lives(self, key: ThreadKey) -> bool:
        return key in self.projections and self.projections[key].state not in TERMINAL

    def _post(self, tenant: int, posted: Posted) -> None:
        for key, new in self.threads.items():
            if (key.tenant, new.id) == (tenant, posted.thread_id) and self._lives(key):
                self._letters[self._next_position] = Letter(self._next_position, key, posted.body)
                self._next_position += 1

    def _require_session(self, tenant: int, new: NewThread) -> None:
        place = (tenant, new.session)
        living = [
            key.thread
            for key, session in self._session_of.items()
            if (key.tenant, session) == place and self.projections[key].state not in TERMINAL
        ]
        if new.alone_in_session and living:
            name = self.threads[ThreadKey(tenant, min(living))].id
            raise busy(f"sessions/{new.session}", f"threads/{name}")
        if new.begins_session and place in self._begun:
            raise Conflict

    def _first(self, unit: Unit) -> list[Record]:
        """What the unit's log has before the unit's own records."""
        shared = unit.shared
        if shared is None:
            return self._records.get(unit.key, [])
        records = self._records.get(shared.key, [])
        if len(records) < shared.through:
            raise not_found("Thread", "the thread to share events of")
        return records[: shared.through]

    def _write(self, unit: Unit) -> None:
        key = unit.key
        if unit.new_thread is not None:
            self._names.add((key.tenant, unit.new_thread.id))
            self._session_of[key] = unit.new_thread.session
            self.threads[key] = unit.new_thread
            if unit.new_thread.begins_session:
                self._begun.add((key.tenant, unit.new_thread.session))
        if unit.shared is not None:
            self._records[key] = self._first(unit)
        self._records.setdefault(key, []).extend(unit.records)
        for change in unit.approvals:
            if change.kind:
                self.approvals[key, change.approval_id] = [change]
            elif (key, change.approval_id) in self.approvals:
                self.approvals[key, change.approval_id].append(change)
        if unit.request is not None:
            self._requests[key.tenant, unit.request.request_id] = unit.request
        if unit.enters_session:
            self._active[key.tenant, unit.enters_session] = key.thread
        if unit.projection is not None:
            self.projections[key] = unit.projection
            session = (key.tenant, self._session_of[key])
            if unit.projection.frees_session and self._active.get(session) == key.thread:
                del self._active[session]
        for position in unit.takes:
            del self._letters[position]
        for posted in unit.mail:
            self._post(key.tenant, posted)
