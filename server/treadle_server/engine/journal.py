"""The one door to the log: accept on the newest state, fold, encode, append."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from treadle_server import failpoints
from treadle_server.core import signals as s
from treadle_server.core.accept import Ask, advance, begin_ready
from treadle_server.core.decide import wake_at
from treadle_server.core.draft import Draft
from treadle_server.core.errors import Refused
from treadle_server.core.events import ModelCallStarted, ToolCallStarted
from treadle_server.core.evolve import apply
from treadle_server.core.ids import child_id
from treadle_server.core.mail import Letter
from treadle_server.core.state import State
from treadle_server.core.transcript import TranscriptFold
from treadle_server.ports.codec import Codec
from treadle_server.ports.engine import Start
from treadle_server.ports.log import (
    ApprovalChange,
    Conflict,
    Log,
    Posted,
    Projection,
    Record,
    RequestRow,
    ThreadKey,
    Ticket,
    Unit,
)
from treadle_server.ports.specs import Specs

_PAGE = 500
_CAN_WAIT = (s.Pause, s.Resume, s.SendInput, s.SubmitToolResult, s.Decide)
"""Refused while nothing can be written. What ends a thread is not, nor what the world has answered."""


@dataclass(slots=True, eq=False)
class Head:
    """The newest state of a thread that somebody in this process works on.

    It runs ahead of the disk by what is in `ticket`; nobody is shown any of that before it is durable.
    """

    key: ThreadKey
    session: int
    state: State
    fold: TranscriptFold = field(default_factory=TranscriptFold)
    unit: Unit | None = None
    """The newest one, as long as it may grow."""
    ticket: Ticket | None = None
    """Of the newest events."""
    wake_at: int | None = None
    """When the newest state wants to be looked at."""
    users: int = 0
    lost: bool = False
    """Events that it counts were refused: whoever uses it opens the thread again."""

    async def durable(self) -> None:
        """Returns once all that was recorded so far is durable; raises what refused it."""
        if self.ticket is not None:
            await self.ticket.wait()


@dataclass(frozen=True, slots=True)
class Recorded:
    """The state after an ask, and what has to be durable before anybody is told of it."""

    state: State
    ticket: Ticket | None
    request_only: bool = False
    """The unit has no events, so its refusal leaves the head right."""


class Journal:
    """Heads by thread. Recording is synchronous, so nothing can come between accept and append."""

    def __init__(self, log: Log, codec: Codec, specs: Specs) -> None:
        self._log = log
        self.codec = codec
        self._specs = specs
        self._heads: dict[ThreadKey, Head] = {}
        self._loading: dict[ThreadKey, asyncio.Task[Head]] = {}

    async def open(self, key: ThreadKey) -> Head:
        """The head of a thread, loaded if nobody has it open. Close it as often as it was opened.

        Close it only once what was recorded on it is durable: the next `open` reads the store.
        """
        while (head := self._heads.get(key)) is None:  # a loaded one may be closed before its turn comes
            await self._load_once(key)
        head.users += 1
        return head

    async def _load_once(self, key: ThreadKey) -> None:
        task = self._loading.get(key)
        if task is None or task.done():  # done, and its head was closed by another before it was told
            task = self._loading[key] = asyncio.create_task(self._load(key))
            task.add_done_callback(lambda done: self._loaded(key, done))
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(self._forget_unused)
            raise

    def _loaded(self, key: ThreadKey, task: "asyncio.Task[Head]") -> None:
        if self._loading.get(key) is task:
            del self._loading[key]

    def _forget_unused(self, task: "asyncio.Task[Head]") -> None:
        if not task.cancelled() and task.exception() is None and task.result().users == 0:
            self.drop(task.result())

    async def _load(self, key: ThreadKey) -> Head:
        spec, session = await self._specs.of_thread(key)
        head = Head(key, session, State(spec))
        while True:
            page = await self._log.read(key, head.state.sequence, _PAGE)
            state = head.state.copy()
            for stored in page:
                event = self.codec.decode(stored)
                apply(state, event)
                head.fold.apply(event)
            head.state = state
            if len(page) < _PAGE:
                head.wake_at = wake_at(state)
                self._heads[key] = head
                return head

    def create(self, start: Start, ask: Ask) -> Head:
        """Records the first events of a thread; its row and request id become durable with them.

        Raises Refused, and then nothing was recorded.
        """
        self._log.check_writable()
        head = Head(start.key, start.row.session, State(start.spec), users=1)
        shared = None
        if start.prefix is not None:
            shared, head.state, head.fold = start.prefix.shared, start.prefix.state, start.prefix.fold
        expected, draft = head.state.sequence, advance(head.state, ask)
        if isinstance(draft, Refused):
            raise draft
        records, projection = self._encode(draft), self._project(draft.state)
        limits, runs = start.spec.limits, bool(draft.state.start_time)
        unit = Unit(
            *(head.key, expected, records, projection),
            new_thread=start.row,
            shared=shared,
            request=start.request,
            start_counts_micros=limits.start_interval_micros if runs and limits.max_starts else 0,
            approvals=self._approvals(draft),
            mail=self._posted(head.key, [*draft.letters, *start.mail]),
        )
        self._take(head, draft, projection)
        head.ticket = self._log.submit(unit)
        self._heads[head.key] = head
        return head

    def record(
        self,
        head: Head,
        ask: Ask,
        *,
        begin: bool = False,
        request: RequestRow | None = None,
        letter: int = 0,
    ) -> Recorded:
        """Accepts an ask on the newest state and queues its events, without awaiting the disk.

        With `begin` the intents of all that is wanted now go into the same append; with `request` the call
        is remembered in it, with `letter` the letter at that position is taken by it. Raises Refused, and
        then nothing was recorded: DISK_FULL or STORE_UNAVAILABLE for what a caller can ask again when the log
        is writable.
        """
        draft = advance(head.state, ask)
        if isinstance(draft, Refused):
            raise draft
        if isinstance(ask, _CAN_WAIT) and (draft.events or request is not None):
            self._log.check_writable()
        if begin:
            begin_ready(draft, draft.now)
        if draft.events:
            self._append(head, draft, request, letter)
        elif request is not None or letter:
            return self._remember(head, request, letter)
        return self.present(head)

    def present(self, head: Head) -> Recorded:
        """The newest state. What follows from it, a refusal too, is told once it is durable."""
        return Recorded(head.state, head.ticket)

    def begin(self, head: Head, now: int) -> None:
        """Records the intents of all that is wanted, not begun and due."""
        draft = Draft(head.state, now)
        begin_ready(draft, now)
        if draft.events:
            self._append(head, draft)

    def _append(self, head: Head, draft: Draft, request: RequestRow | None = None, letter: int = 0) -> None:
        expected = head.state.sequence
        first_runs = bool(draft.state.start_time) and not head.state.start_time
        enters = head.session if first_runs else 0
        limits = draft.state.spec.limits
        start_counts = limits.start_interval_micros if first_runs and limits.max_starts else 0
        urgent, mail = _urgent(draft.state), self._posted(head.key, draft.letters)
        records, projection = self._encode(draft), self._project(draft.state)
        approvals = self._approvals(draft)
        if failpoints.ACTIVE:
            _pass_intents(draft)
        self._take(head, draft, projection)

        def grow(unit: Unit) -> None:
            unit.records.extend(records)
            unit.approvals.extend(approvals)
            unit.mail.extend(mail)
            unit.takes.extend([letter] if letter else [])
            unit.projection = projection
            unit.enters_session = unit.enters_session or enters
            unit.start_counts_micros = unit.start_counts_micros or start_counts
            unit.urgent = unit.urgent or urgent

        if request is None and head.unit is not None and self._log.extend(head.unit, grow):
            return
        unit = Unit(head.key, expected, request=request)
        grow(unit)
        head.ticket = self._log.submit(unit)
        head.unit = unit if request is None else None  # a replay takes nothing down but its own events

    def _remember(self, head: Head, request: RequestRow | None, letter: int) -> Recorded:
        """A call or letter that changes nothing: refused while nothing can be written. It stands behind all
        that was recorded before.
        """
        takes = [letter] if letter else []
        unit = Unit(head.key, head.state.sequence, request=request, takes=takes)
        head.unit = None
        return Recorded(head.state, self._log.submit(unit), request_only=True)

    async def durable(self, head: Head, recorded: Recorded) -> None:
        """Returns once it is; raises what refused it. A head that counts refused events is dropped."""
        if recorded.ticket is None:
            return
        try:
            await recorded.ticket.wait()
        except Exception as refusal:
            if not recorded.request_only or isinstance(refusal, Conflict):
                self.drop(head)
            raise

    def _posted(self, key: ThreadKey, letters: Sequence[Letter]) -> list[Posted]:
        return [Posted(_receiver(key, letter), self.codec.encode_mail(letter.ask)) for letter in letters]

    def _encode(self, draft: Draft) -> list[Record]:
        encode = self.codec.encode
        return [encode(event) for event in draft.events]

    def _approvals(self, draft: Draft) -> list[ApprovalChange]:
        found = map(self.codec.approval, draft.events)
        return [change for change in found if change is not None]

    def _take(self, head: Head, draft: Draft, projection: Projection) -> None:
        head.state, head.wake_at = draft.state, projection.wake_at
        for event in draft.events:
            head.fold.apply(event)

    def _project(self, state: State) -> Projection:
        ended = state.ended
        return Projection(
            state=state.status,
            stop_reason=state.stop_reason,
            iteration_count=state.iteration,
            tool_call_count=state.tool_call_count,
            total_tokens=state.usage.total_tokens,
            cost_micros=state.cost.cost_micros,
            wake_at=wake_at(state),
            state_time=state.state_time,
            start_time=state.start_time or None,
            end_time=state.end_time or None,
            summary=self.codec.summary(state) if ended else None,
            frees_session=ended,
        )

    def close(self, head: Head) -> None:
        """Gives up one use of a head; the last one forgets it."""
        head.users -= 1
        if head.users <= 0 and self._heads.get(head.key) is head:
            del self._heads[head.key]

    def drop(self, head: Head) -> None:
        """Forgets a head that is not as the log is: the next `open` folds again from the store."""
        head.lost = True
        if self._heads.get(head.key) is head:
            del self._heads[head.key]


def _receiver(sender: ThreadKey, letter: Letter) -> str:
    if letter.call_id:
        return child_id(sender.tenant, sender.thread, letter.call_id)
    return letter.thread.removeprefix("threads/")


def _urgent(state: State) -> bool:
    return state.ended or state.ending


def _pass_intents(draft: Draft) -> None:
    for event in draft.events:
        if isinstance(event.payload, ModelCallStarted | ToolCallStarted):
            failpoints.hit("intent.before", event.sequence)
