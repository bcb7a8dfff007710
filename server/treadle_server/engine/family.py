"""What a thread hears of its children, and what it finds when it looks at them."""

from collections.abc import Sequence
from dataclasses import replace

from treadle_server.core import mail
from treadle_server.core.errors import Reason, Refused
from treadle_server.core.ids import child_id
from treadle_server.core.kinds import TERMINAL, StopReason, ThreadState
from treadle_server.core.mail import Told
from treadle_server.core.outcomes import ChildEnded
from treadle_server.core.state import Call
from treadle_server.core.values import Cost, Fault
from treadle_server.engine.damage import Damage
from treadle_server.engine.journal import Journal
from treadle_server.ports.catalogue.threads import ThreadRow, Threads
from treadle_server.ports.clock import Clock
from treadle_server.ports.log import ThreadKey

_CODE_DATA_LOSS = 15


class Family:
    """Letters say all that is needed but for a child that ended by its row alone, and one that is damaged."""

    def __init__(self, journal: Journal, damage: Damage, threads: Threads, clock: Clock) -> None:
        self._journal = journal
        self._damage = damage
        self._threads = threads
        self._clock = clock

    def heard(self, key: ThreadKey, ask: Told) -> Told:
        """What was told, as it is judged now. A child says which call it did; its name follows from that."""
        if not isinstance(ask, ChildEnded):
            return replace(ask, now=self._clock.now())
        name = f"threads/{child_id(key.tenant, key.thread, ask.call_id)}"
        return replace(ask, now=self._clock.now(), child_thread=name)

    async def look(self, key: ThreadKey) -> Sequence[ChildEnded]:
        """What children that have ended should have said to a thread that still waits for them."""
        head = await self._damage.open(key)
        waiting = [] if head.state.ended else list(head.state.calls.values())
        self._journal.close(head)
        answers = [await self._answer(key, call) for call in waiting if call.open and call.agent_version]
        return [answer for answer in answers if answer is not None]

    async def _answer(self, key: ThreadKey, call: Call) -> ChildEnded | None:
        """None while the child goes on, or is about to be made."""
        name = child_id(key.tenant, key.thread, call.call_id)
        try:
            row = await self._threads.get(key.tenant, name)
            if row is not None and ThreadState(row.state) not in TERMINAL:
                return None
            if row is None and not call.child_thread:
                return None
            found = await self._last_words(row) if row is not None else None
        except Refused as refused:
            if refused.reason is not Reason.RECORD_CORRUPT:
                raise
            row = found = None
        return found or self._lost(call, row)

    async def _last_words(self, row: ThreadRow) -> ChildEnded | None:
        """None when its log does not say that it ended."""
        if row.summary is None:
            return None
        head = await self._journal.open(row.key)
        self._journal.close(head)
        return mail.child_ended(head.state, self._clock.now()) if head.state.ended else None

    def _lost(self, call: Call, row: ThreadRow | None) -> ChildEnded:
        stop_reason = StopReason.DATA_LOSS if row is None else StopReason(row.stop_reason)
        code, text = _CODE_DATA_LOSS, "what is stored of the thread is damaged"
        if row is None:
            text = "the thread is gone, or what is stored of it is damaged"
        return ChildEnded(
            self._clock.now(),
            call.call_id,
            call.agent_version,
            ThreadState.FAILED,
            stop_reason,
            error=Fault(code, text),
            cost=Cost(known=False),
        )
