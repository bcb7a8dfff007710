"""Folds the first events of a thread, for another that is to begin with them or like it."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

from treadle_server.core.errors import Reason, Refused, invalid, not_found
from treadle_server.core.events import Event, InputReceived, ThreadForked
from treadle_server.core.evolve import fold
from treadle_server.core.spec import Spec
from treadle_server.core.state import State
from treadle_server.core.transcript import TranscriptFold
from treadle_server.core.values import Content
from treadle_server.ports.catalogue.threads import ThreadRow
from treadle_server.ports.codec import Codec
from treadle_server.ports.engine import Prefix
from treadle_server.ports.log import Log, Shared
from treadle_server.ports.specs import Specs
from treadle_server.services.thread_reads import about, has_ended, whole

SHARED_EVENTS_MAX = 10_000
SHARED_BYTES_MAX = 16 * 1024 * 1024
"""They are copied in one transaction, for which all others wait."""
_RECORDS = 100


@dataclass(frozen=True, slots=True)
class Past:
    """What a thread that has ended was begun with."""

    spec: Spec
    state: State
    forked: ThreadForked | None
    """Where its own life began, if it is a fork."""
    further: Content | None
    """The input that it was forked with."""


class ThreadPrefixes:
    """Reads logs as they are committed. Rows given are of the caller's tenant."""

    def __init__(self, log: Log, codec: Codec, specs: Specs, *, bytes_max: int = SHARED_BYTES_MAX) -> None:
        self._log = log
        self._codec = codec
        self._specs = specs
        self._bytes_max = bytes_max

    async def spec(self, row: ThreadRow) -> Spec:
        """What a thread is pinned to."""
        with about(f"threads/{row.id}"):
            spec, _ = await self._specs.of_thread(row.key)
        return spec

    async def prefix(self, row: ThreadRow, through: int, spec: Spec) -> Prefix:
        """The events up to one of them, under a spec. Raises Refused(FIELD_INVALID) if they are too many."""
        if through > SHARED_EVENTS_MAX:
            raise _too_much(f"{SHARED_EVENTS_MAX} events")
        state, transcript, size = State(spec), TranscriptFold(), 0
        async for events, byte_count in self._pages(row, through):
            state, size = fold(state, events), size + byte_count
            if size > self._bytes_max:
                raise _too_much(f"{self._bytes_max} bytes")
            for event in events:
                transcript.apply(event)
        return Prefix(Shared(row.key, through, size), state, transcript)

    async def past(self, row: ThreadRow) -> Past:
        """How a thread began, from its whole log."""
        spec = await self.spec(row)
        state, forked, further = State(spec), None, None
        async for events, _ in self._pages(row, row.sequence):
            state = fold(state, events)
            for event in events:
                match event.payload:
                    case ThreadForked():
                        forked, at = event.payload, event.sequence
                    case InputReceived(tool_call_id="") if forked is not None and event.sequence == at + 1:
                        further = event.payload.content
        return Past(spec, state, forked, further)

    async def _pages(self, row: ThreadRow, through: int) -> AsyncIterator[tuple[list[Event], int]]:
        """Events in order, and their bytes. Raises Refused if the thread is deleted meanwhile."""
        name, after = f"threads/{row.id}", 0
        while after < through:
            with about(name), whole(name):
                stored = await self._log.read(row.key, after, min(_RECORDS, through - after))
            if not stored:
                raise not_found("Thread", name)
            records = [each.record for each in stored]
            size = sum(len(record.body) + len(record.private or b"") for record in records)
            yield [self._codec.decode(each) for each in stored], size
            after = stored[-1].sequence


def shared_through(row: ThreadRow, sequence: int) -> int:
    """The last event to share when one, or with 0 the newest, is asked for: an end is never shared."""
    if sequence > row.sequence:
        raise Refused(
            Reason.SEQUENCE_OUT_OF_RANGE,
            f"sequence {sequence} is beyond the last event, {row.sequence}",
            metadata={"first": "1", "last": str(row.sequence)},
        )
    last = row.sequence - 1 if has_ended(row) else row.sequence
    return min(sequence or last, last)


def _too_much(limit: str) -> Refused:
    return invalid(("sequence", f"at most {limit} can be shared; name an earlier one"))
