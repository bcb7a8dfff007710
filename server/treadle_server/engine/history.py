"""What was said in a session, read from the logs of its threads."""

from collections.abc import Sequence

import structlog

from treadle_server.core.conversation import message_of, recalled
from treadle_server.core.errors import Reason, Refused
from treadle_server.core.events import HistoryRecalled
from treadle_server.core.spec import Spec
from treadle_server.core.values import Message
from treadle_server.ports.catalogue.sessions import SessionPlace, SessionRecord, SessionRecords
from treadle_server.ports.codec import Codec

_LOG = structlog.get_logger(__name__)
Placed = tuple[SessionPlace, Message | None]
"""A message and where it stands; None in the place of an event that says nothing."""
_SAYING = ("input_received", "question_asked", "thread_ended")


class History:
    """The messages of sessions. Threads that were deleted, or that retention took, have none."""

    def __init__(self, records: SessionRecords, codec: Codec) -> None:
        self._records = records
        self._codec = codec
        kinds = [codec.kind(name) for name in _SAYING]
        self._kinds = [kind for kind in kinds if kind is not None]
        assert len(self._kinds) == len(_SAYING)

    async def recalled(self, tenant: int, session: int, spec: Spec) -> HistoryRecalled | None:
        """What a new thread's model is told; None when nothing was said before.

        One that is damaged leaves them all out, and that is said.
        """
        try:
            count = spec.history_messages_max
            return recalled(await self.newest(tenant, session, count), count)
        except Refused as refused:
            if refused.reason is not Reason.RECORD_CORRUPT:
                raise
            _LOG.error("history_not_recalled", session=session, why=refused.message)
            return HistoryRecalled((), older_left_out=True)

    async def newest(self, tenant: int, session: int, count: int) -> list[Message]:
        """Of threads that have ended, the newest first; one more than `count` if there are more."""
        found: list[Message] = []
        place: SessionPlace | None = None
        while len(found) <= count:
            records = await self._records.ended_before(
                tenant, session, place, kinds=self._kinds, limit=count + 1
            )
            placed = self._placed(records)
            found += [message for _, message in placed if message is not None]
            if len(records) <= count:
                break
            place = records[-1].place
        return found[: count + 1]

    async def after(self, tenant: int, session: int, place: SessionPlace | None, limit: int) -> list[Placed]:
        """Of all threads, oldest first, beyond a place; fewer than `limit` only at the end."""
        records = await self._records.after(tenant, session, place, kinds=self._kinds, limit=limit)
        return self._placed(records)

    def _placed(self, records: Sequence[SessionRecord]) -> list[Placed]:
        return [
            (each.place, message_of(f"threads/{each.thread_id}", self._codec.decode(each.stored)))
            for each in records
        ]
