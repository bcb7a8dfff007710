"""What waits for people: found, followed and decided."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace

import structlog

from treadle_server.core import signals as s
from treadle_server.core.errors import Reason, Refused, not_found
from treadle_server.core.kinds import ApprovalState
from treadle_server.core.objects import reaches
from treadle_server.ports.catalogue.approvals import ApprovalQuery, ApprovalRow
from treadle_server.ports.catalogue.approvals import Approvals as ApprovalStore
from treadle_server.ports.catalogue.pages import Page, Position
from treadle_server.ports.clock import Clock
from treadle_server.ports.codec import Codec
from treadle_server.ports.engine import Engine
from treadle_server.ports.feed import Item
from treadle_server.ports.log import ApprovalChange, Log, Replayed, ThreadKey
from treadle_server.services.keys import Identity
from treadle_server.services.page_bytes import read_page
from treadle_server.services.requests import Asked, Replays
from treadle_server.services.tenant_stream import Place, TenantStream
from treadle_server.services.thread_reads import ThreadReads, about, corrupt, has_ended

_LOG = structlog.get_logger(__name__)
BATCH_BYTES_MAX = 1024 * 1024
"""Of a page and of a message of a stream; one approval may be larger."""
_ROWS = 50
_RECORDS = 100
_CHANGES = ("approval_requested", "approval_vote_recorded", "approval_decided")
_PENDING = frozenset({int(ApprovalState.PENDING)})

Repeats = Callable[[ApprovalRow, s.Decide], bool]
"""Whether an approval was settled by the same decision."""


@dataclass(frozen=True, slots=True)
class ApprovalBatch:
    """Approvals as they are now, and where to go on after them; None while not all up to there were given."""

    rows: tuple[ApprovalRow, ...]
    place: Place | None


class Approvals:
    """All of it for one tenant at a time: a name of another tenant does not exist."""

    def __init__(
        self,
        *,
        approvals: ApprovalStore,
        reads: ThreadReads,
        log: Log,
        codec: Codec,
        repeats: Repeats,
        stream: TenantStream,
        replays: Replays,
        engine: Engine,
        clock: Clock,
    ) -> None:
        self._approvals = approvals
        self._reads = reads
        self._log = log
        self._codec = codec
        self._repeats = repeats
        self._stream = stream
        self._replays = replays
        self._engine = engine
        self._clock = clock
        self._kinds = frozenset(kind for name in _CHANGES if (kind := codec.kind(name)) is not None)

    async def get(self, caller: Identity, name: str) -> ApprovalRow:
        """`threads/{thread}/approvals/{approval}`."""
        thread, _, approval_id = name.partition("/approvals/")
        row = await self._reads.row(caller, thread)
        with about(thread):
            found = await self._approvals.get(caller.tenant, row.id, approval_id)
        if found is None:
            raise not_found("Approval", name)
        return await self._whole(found)

    async def page(self, caller: Identity, parent: str, query: ApprovalQuery) -> Page[ApprovalRow]:
        """Of the thread `parent`, or of all with `threads/-`. May end early where approvals are large."""
        if parent != "threads/-":
            query = replace(query, thread=(await self._reads.row(caller, parent)).key.thread)
        page = await read_page(
            lambda limit, after: self._approvals.list(replace(query, limit=limit, after=after)),
            limit=query.limit,
            after=query.after,
            size=lambda row: len(row.body),
            position=lambda row: (row.key, row.key),
            bytes_max=BATCH_BYTES_MAX,
        )
        rows = [await self._known(row) for row in page.items]
        return Page(tuple(row for row in rows if row is not None), page.next)

    async def follow(self, caller: Identity, after: Place | None) -> AsyncGenerator[ApprovalBatch, None]:
        """Approvals as they change, from a place on; None = first all that are pending, then from now.

        Raises as `TenantStream.follow` does. A batch without rows is a sign of life.
        """
        patterns = caller.object_patterns
        wanted_first = after is None
        stream = self._stream.follow(
            caller.tenant, after, lambda row: reaches(patterns, row.parent_object), self._kinds
        )
        async with aclosing(stream) as batches:
            async for batch in batches:
                if wanted_first:
                    wanted_first = False
                    rows = self._pending(caller)
                else:
                    rows = self._changed(caller, batch.threads)
                async for part in _parts(rows, batch.place):
                    yield part

    async def _pending(self, caller: Identity) -> AsyncIterator[ApprovalRow]:
        following: Position | None = None
        query = ApprovalQuery(
            caller.tenant, states=_PENDING, object_patterns=caller.object_patterns, limit=_ROWS
        )
        while True:
            page = await self._approvals.list(replace(query, after=following))
            for row in page.items:
                known = await self._known(row)
                if known is not None:
                    yield known
            if page.next is None:
                return
            following = page.next

    async def _changed(
        self, caller: Identity, threads: tuple[tuple[str, tuple[Item, ...]], ...]
    ) -> AsyncIterator[ApprovalRow]:
        """One that was deleted meanwhile is left out."""
        for thread_id, items in threads:
            for approval_id in dict.fromkeys(self._codec.approval_of(item.body) for item in items):
                row = await self._approvals.get(caller.tenant, thread_id, approval_id)
                known = await self._known(row) if row is not None else None
                if known is not None:
                    yield known

    async def decide(self, caller: Identity, name: str, decision: s.Decide, asked: Asked) -> ApprovalRow:
        """The approval with the decision in it, durable. `decision` says nothing of when and about what."""
        with suppress(Replayed):
            await self._replays.once(
                caller.tenant, asked, lambda: self._decide(caller, name, decision, asked)
            )
        return await self.get(caller, name)

    async def _decide(self, caller: Identity, name: str, decision: s.Decide, asked: Asked) -> None:
        row = await self.get(caller, name)
        now = self._clock.now()
        ask = replace(decision, now=now, approval_id=row.id, principal=caller.principal)
        request = asked.row(resource=name, response=None, now=now)
        try:
            with about(f"threads/{row.thread_id}"):
                await self._engine.ask(row.thread, ask, request)
        except Refused as refused:
            if refused.reason is not Reason.APPROVAL_ALREADY_DECIDED:
                raise _named(refused, name) from None
            row = await self.get(caller, name)  # its thread may have forgotten it
            if not self._repeats(row, ask) or await self._ended(caller, row):
                raise _already(name, refused, row) from None

    async def _ended(self, caller: Identity, row: ApprovalRow) -> bool:
        return has_ended(await self._reads.row(caller, f"threads/{row.thread_id}"))

    async def _known(self, row: ApprovalRow) -> ApprovalRow | None:
        """None for one of which neither its row nor its log tells: it keeps no other from being seen."""
        try:
            return await self._whole(row)
        except Refused as refused:
            if refused.reason not in (Reason.RECORD_CORRUPT, Reason.RESOURCE_NOT_FOUND):
                raise
            _LOG.error("approval_left_out", thread=row.thread_id, approval=row.id, why=refused.message)
            return None

    async def _whole(self, row: ApprovalRow) -> ApprovalRow:
        """A damaged row is made again from the log that it followed."""
        if not row.damaged:
            return row
        changes: list[ApprovalChange] = []
        name = f"threads/{row.thread_id}"
        with about(name):
            async for change in self._changes(row.thread):
                if change.approval_id == row.id:
                    changes = [change] if change.kind else [*changes, change]
        if not changes or not changes[0].kind:
            raise corrupt(name)
        return replace(
            row,
            kind=changes[0].kind,
            state=[change.state for change in changes if change.state][-1],
            create_time=changes[0].create_time,
            body=b"".join(change.body for change in changes),
            damaged=False,
        )

    async def _changes(self, key: ThreadKey) -> AsyncIterator[ApprovalChange]:
        after = 0
        while stored := await self._log.read(key, after, _RECORDS):
            for record in stored:
                change = self._codec.approval(self._codec.decode(record))
                if change is not None:
                    yield change
            after = stored[-1].sequence


async def _parts(rows: AsyncIterator[ApprovalRow], place: Place) -> AsyncIterator[ApprovalBatch]:
    """Batches of bounded size; only the last one has a place to go on after."""
    held: list[ApprovalRow] = []
    size = 0
    async for row in rows:
        size += len(row.body)
        if held and size > BATCH_BYTES_MAX:
            yield ApprovalBatch(tuple(held), None)
            held, size = [], len(row.body)
        held.append(row)
    yield ApprovalBatch(tuple(held), place)


def _already(name: str, refused: Refused, row: ApprovalRow) -> Refused:
    state = refused.metadata.get("state") or ApprovalState(row.state).name
    return Refused(refused.reason, f"{name} is {state} already", metadata={"approval": name, "state": state})


def _named(refused: Refused, name: str) -> Refused:
    """The refusal with the approval's full name, which its thread does not know."""
    return Refused(
        refused.reason,
        refused.message,
        metadata={**refused.metadata, **({"approval": name} if "approval" in refused.metadata else {})},
        violations=refused.violations,
        resource=refused.resource,
        retry_after_micros=refused.retry_after_micros,
    )
