"""Follows threads, and changes and deletes them."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from treadle_server.core import signals as s
from treadle_server.core.errors import Reason, Refused, not_found
from treadle_server.core.kinds import ThreadState
from treadle_server.core.transitions import allowed
from treadle_server.ports.catalogue.threads import ExpiredThread, ThreadRow
from treadle_server.ports.catalogue.threads import Threads as ThreadStore
from treadle_server.ports.clock import Clock
from treadle_server.ports.feed import Feed, Subscription, Watch
from treadle_server.ports.log import Conflict, Replayed
from treadle_server.services.controls import Controls
from treadle_server.services.etags import change, check_etag
from treadle_server.services.keys import Identity
from treadle_server.services.requests import Asked, Replays
from treadle_server.services.thread_reads import ThreadReads, ThreadView, corrupt, has_ended, is_condemned


@dataclass(frozen=True, slots=True)
class ThreadChanges:
    """What a caller can change of a thread that exists, also after its end: its row alone."""

    tags: tuple[str, ...]
    labels: dict[str, str]
    client_metadata: bytes


Change = Callable[[ThreadRow], ThreadChanges]
"""Makes what is wanted from the present row. Raises Refused."""


class Threads:
    """All of it for one tenant at a time: a name of another tenant does not exist."""

    def __init__(
        self,
        *,
        reads: ThreadReads,
        threads: ThreadStore,
        replays: Replays,
        controls: Controls,
        feed: Feed,
        clock: Clock,
    ) -> None:
        self._reads = reads
        self._threads = threads
        self._replays = replays
        self._controls = controls
        self._feed = feed
        self._clock = clock

    async def follow(self, caller: Identity, name: str, watch: Watch) -> Subscription | None:
        """A place in a thread's stream; None when there is nothing more and never will be."""
        row = await self._reads.row_to_read(caller, name, watch.after)
        if isinstance(row, ExpiredThread):
            return None
        if has_ended(row) and watch.after == row.sequence and not is_condemned(row):
            return None
        place = self._feed.follow(replace(watch, key=row.key, fresh=False))
        try:
            if is_condemned(row) or (not has_ended(row) and await self._condemned_since(row)):
                self._feed.refuse(row.key, corrupt(name))  # its last event does not say that it is the last
        except BaseException:
            place.close()
            raise
        return place

    async def _condemned_since(self, row: ThreadRow) -> bool:
        """Just before it was followed: from then on the feed is told."""
        try:
            found = await self._reads.row_by_key(row.key)
        except Refused as refused:
            return refused.reason is Reason.RECORD_CORRUPT
        return found is not None and is_condemned(found)

    def follow_fresh(self, watch: Watch) -> Subscription:
        """A place in the stream of a thread that is about to be made."""
        return self._feed.follow(watch)

    async def update(
        self, caller: Identity, name: str, etag: str, wanted: Change, asked: Asked
    ) -> ThreadView:
        """Replaces what `wanted` makes of the present row. A repeated call answers the thread as it is."""

        async def act() -> ThreadRow:
            row = await self._reads.row(caller, name)
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
            row = await self._reads.row(caller, name)
        return await self._reads.view(row, full=False)

    async def delete(self, caller: Identity, name: str, *, etag: str, force: bool, asked: Asked) -> None:
        """Deletes an ended thread; with `force` a living one is cancelled first."""
        try:
            await self._replays.once(
                caller.tenant, asked, lambda: self._delete(caller, name, etag, force, asked)
            )
        except Replayed:
            return

    async def _delete(self, caller: Identity, name: str, etag: str, force: bool, asked: Asked) -> None:
        row = await self._reads.row(caller, name)
        check_etag(etag, etag_of(row), name)
        if not has_ended(row):
            if not force:
                raise _living(row)
            await self.end(caller, name, asked)
            row = await self._reads.row(caller, name)
        now = self._clock.now()
        request = asked.row(resource=name, response=None, now=now)
        try:
            await self._threads.delete(row, delete_time=now, request=request)
        except Conflict:  # it had ended, so another call has deleted it
            raise not_found("Thread", name) from None

    async def end(self, caller: Identity, name: str, asked: Asked) -> None:
        """Cancels a thread, unless it ends by itself meanwhile, or is condemned because it is damaged."""
        try:
            unremembered = Asked(asked.principal, asked.method)
            await self._controls.cancel(caller, name, "deleted", s.GRACE_MICROS, unremembered)
        except Refused as refused:
            over = refused.reason in (Reason.THREAD_STATE_CONFLICT, Reason.RECORD_CORRUPT, Reason.INTERNAL)
            if not over or not has_ended(await self._reads.row(caller, name)):
                raise


def _living(row: ThreadRow) -> Refused:
    state = ThreadState(row.state)
    return Refused(
        Reason.THREAD_STATE_CONFLICT,
        f"a thread that is {state.name} is deleted only with force",
        metadata={"current_state": state.name, "allowed": ",".join(allowed(state))},
    )


def etag_of(row: ThreadRow) -> str:
    """Changes with every UpdateThread, and with nothing else."""
    return str(row.revision)
