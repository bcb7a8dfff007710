"""Follows threads: from the hot tail where it reaches, else from the store."""

import asyncio
from collections.abc import Sequence

from treadle_server import failpoints
from treadle_server.core.errors import Reason, Refused, not_found
from treadle_server.core.events import MessageCompleted, ThoughtRecorded
from treadle_server.core.kinds import DeltaKind
from treadle_server.feed.tail import BYTES_MAX, EVENTS_MAX, Entry, Message, Subscriber, Tail
from treadle_server.ports.codec import Codec
from treadle_server.ports.feed import Item, Watch
from treadle_server.ports.log import Log, Record, StoredRecord, ThreadKey, Unit

BATCH_EVENTS_MAX = 64
BATCH_BYTES_MAX = 32 * 1024
DELTA_SECONDS = 0.02
"""Pieces of a message that come within this time are delivered as one."""


class HotFeed:
    """The feed of one server process. Committed units reach it before their writers are answered."""

    def __init__(
        self,
        log: Log,
        codec: Codec,
        *,
        heartbeat_seconds: float = 15.0,
        tail_events_max: int = EVENTS_MAX,
        tail_bytes_max: int = BYTES_MAX,
    ) -> None:
        self._log = log
        self.codec = codec
        self._idle_seconds = heartbeat_seconds * 0.75
        self._tail_events_max = tail_events_max
        self._tail_bytes_max = tail_bytes_max
        self._tails: dict[ThreadKey, Tail] = {}
        self._messages: dict[ThreadKey, Message] = {}
        """Messages that are being made, watched or not: who comes late gets the text so far."""
        self._ticker: asyncio.Task[None] | None = None
        self._draining = False
        self.ended_kind = codec.kind("thread_ended")
        self._completed_kind = codec.kind("message_completed")
        self.message_kinds = {codec.kind("thought_recorded"), self._completed_kind}
        self._other_ends = {codec.kind(name) for name in ("model_call_started", "model_call_failed")}
        self._other_ends.add(self.ended_kind)
        log.subscribe(self._committed)

    # Writing side

    def _committed(self, units: Sequence[Unit]) -> None:
        for unit in units:
            if failpoints.ACTIVE and unit.records:
                failpoints.hit_range("publish.before", unit.expected + 1, unit.last)
            tail, message = self._tails.get(unit.key), self._messages.get(unit.key)
            if message is not None:
                self._close_message(message, tail, unit)
            if tail is not None and unit.records:
                tail.append(unit.expected + 1, [(record.kind, record.body) for record in unit.records])
                tail.wake()
                if failpoints.ACTIVE:
                    failpoints.hit_range("publish.after", unit.expected + 1, unit.last)

    def _close_message(self, message: Message, tail: Tail | None, unit: Unit) -> None:
        """Ends the message with the event that completes it, or that shows that it was given up."""
        for sequence, record in enumerate(unit.records, start=unit.expected + 1):
            if tail is not None and record.kind in self.message_kinds:
                tail.complete(sequence, message)
            if record.kind == self._completed_kind or record.kind in self._other_ends:
                del self._messages[unit.key]
                return

    def delta(self, key: ThreadKey, call_id: str, attempt: int, kind: DeltaKind, text: str) -> None:
        if not text:
            return
        message = self._messages.get(key)
        if message is None or (message.call_id, message.attempt) != (call_id, attempt):
            message = self._messages[key] = Message(call_id, attempt)
        message.add(kind, text)
        tail = self._tails.get(key)
        if tail is not None and tail.delta_timer is None and tail.wants_deltas:
            tail.delta_timer = asyncio.get_running_loop().call_later(DELTA_SECONDS, tail.show)

    def refuse(self, key: ThreadKey, damage: Refused) -> None:
        self._messages.pop(key, None)
        tail = self._tails.get(key)
        if tail is not None:
            tail.damage = damage
            tail.wake()

    # Reading side

    def follow(self, watch: Watch) -> "Follower":
        self._start_ticker()
        tail = self._tails.get(watch.key)
        if tail is None:
            base = 0 if watch.fresh else None
            tail = self._tails[watch.key] = Tail(base, self._tail_events_max, self._tail_bytes_max)
        return Follower(self, watch, tail)

    async def next_entries(self, key: ThreadKey, tail: Tail, cursor: int) -> list[Entry]:
        """The entries after a cursor, at most a batch; empty at the head."""
        more = tail.base is not None
        while not tail.holds(cursor):
            stored = await self._read(key, cursor)
            if stored:
                return _batch([(row.record.kind, row.record.body) for row in stored])
            if more:  # there were events, and they cannot be read any more
                raise not_found("Thread", "the thread")
            more = await self._log.last_sequence(key) > cursor
            if not more:
                tail.begin(cursor)
        return _batch(tail.after(cursor, BATCH_EVENTS_MAX))

    async def _read(self, key: ThreadKey, cursor: int) -> list[StoredRecord]:
        """A batch after a cursor, up to where the log is damaged; raises the damage when that comes next."""
        try:
            return await self._log.read(key, cursor, BATCH_EVENTS_MAX)
        except Refused as damage:
            whole = int(damage.metadata.get("sequence", "0")) - 1 - cursor
            if damage.reason is not Reason.RECORD_CORRUPT or whole <= 0:
                raise
            return await self._log.read(key, cursor, whole)

    def open_message(self, key: ThreadKey) -> Message | None:
        """The message that is being made."""
        return self._messages.get(key)

    def completes(self, body: bytes, kind: int, message: Message) -> bool:
        """The event completes the message, which a reader of the store may see before the feed is told."""
        payload = self.codec.decode(StoredRecord(0, Record(kind, body))).payload
        return isinstance(payload, ThoughtRecorded | MessageCompleted) and payload.call_id == message.call_id

    def leave(self, key: ThreadKey, tail: Tail) -> None:
        if not tail.subscribers and self._tails.get(key) is tail:
            del self._tails[key]
            if tail.delta_timer is not None:
                tail.delta_timer.cancel()

    # Heartbeats and stopping

    def _start_ticker(self) -> None:
        if self._ticker is None:
            self._ticker = asyncio.get_running_loop().create_task(self._tick())

    async def _tick(self) -> None:
        """Wakes subscribers that were idle for too long, so that none waits a heartbeat's time: one timer
        for all.
        """
        while True:
            await asyncio.sleep(self._idle_seconds / 3)
            for tail in self._tails.values():
                for subscriber in tail.subscribers:
                    if self.idle(subscriber):
                        subscriber.wake()

    def idle(self, subscriber: Subscriber) -> bool:
        """It needs a sign of life."""
        return asyncio.get_running_loop().time() - subscriber.sent_at >= self._idle_seconds

    def refuse_draining(self) -> None:
        if self._draining:
            text = "the server is stopping; resume from the last sequence received"
            raise Refused(Reason.DRAINING, text, retry_after_micros=1_000_000)

    def drain(self) -> None:
        """Ends every stream with DRAINING."""
        self._draining = True
        for tail in self._tails.values():
            tail.wake()

    async def close(self) -> None:
        if self._ticker is not None:
            self._ticker.cancel()
            await asyncio.gather(self._ticker, return_exceptions=True)


class Follower:
    """One subscriber of one thread: implements ports/feed.Subscription."""

    __slots__ = ("_ended", "_feed", "_loop", "_subscriber", "_tail", "_watch")

    def __init__(self, feed: HotFeed, watch: Watch, tail: Tail) -> None:
        self._feed = feed
        self._watch = watch
        self._tail = tail
        self._loop = asyncio.get_running_loop()
        self._subscriber = Subscriber(watch.after, watch.deltas, sent_at=self._loop.time())
        self._ended = False
        tail.subscribers.add(self._subscriber)

    def __aiter__(self) -> "Follower":
        return self

    async def __anext__(self) -> list[Item]:
        feed, key, subscriber = self._feed, self._watch.key, self._subscriber
        while not self._ended:
            entries = await feed.next_entries(key, self._tail, subscriber.cursor)
            feed.refuse_draining()
            items = self._deliver(entries)
            if not entries and not items and self._tail.damage is not None:
                damage = self._tail.damage
                raise Refused(damage.reason, damage.message, metadata=damage.metadata)
            if not entries and not items and feed.idle(subscriber):
                items.append(Item(0, feed.codec.heartbeat(subscriber.cursor)))
            if items:
                subscriber.sent_at = self._loop.time()
                return items
            if not entries:
                await self._wait()
        self.close()
        raise StopAsyncIteration

    def close(self) -> None:
        self._ended = True
        self._tail.subscribers.discard(self._subscriber)
        self._feed.leave(self._watch.key, self._tail)

    def _deliver(self, entries: list[Entry]) -> list[Item]:
        watch, subscriber, items = self._watch, self._subscriber, []
        for kind, body in entries:
            subscriber.cursor += 1
            if watch.deltas and kind in self._feed.message_kinds:
                items.extend(self._rest_of_message(kind, body))
            if not watch.kinds or kind in watch.kinds:
                items.append(Item(subscriber.cursor, body))
            self._ended = kind == self._feed.ended_kind
        if not entries and watch.deltas:
            items.extend(self._new_deltas(self._feed.open_message(watch.key)))
        return items

    def _rest_of_message(self, kind: int, body: bytes) -> list[Item]:
        """What the subscriber lacks of the message that the event at its cursor is about."""
        message = self._tail.completed.get(self._subscriber.cursor)
        if message is None:
            message = self._feed.open_message(self._watch.key)
            if message is not None and not self._feed.completes(body, kind, message):
                message = None
        return self._new_deltas(message)

    def _new_deltas(self, message: Message | None) -> list[Item]:
        if message is None:
            return []
        subscriber = self._subscriber
        if message is not subscriber.message:
            subscriber.message, subscriber.text_offset, subscriber.thought_offset = message, 0, 0
        items = []
        for kind, whole, offset in (
            (DeltaKind.THOUGHT, message.thought, subscriber.thought_offset),
            (DeltaKind.TEXT, message.text, subscriber.text_offset),
        ):
            if len(whole) > offset:
                codec = self._feed.codec
                body = codec.delta(message.call_id, message.attempt, kind, offset, whole[offset:])
                items.append(Item(0, body))
        subscriber.text_offset, subscriber.thought_offset = len(message.text), len(message.thought)
        return items

    async def _wait(self) -> None:
        """Until somebody wakes the subscriber. Nothing can have happened since `next_entries` looked."""
        subscriber = self._subscriber
        subscriber.waiter = self._loop.create_future()
        try:
            await subscriber.waiter
        finally:
            subscriber.waiter = None


def _batch(entries: list[Entry]) -> list[Entry]:
    """As many as fit into one message; at least one."""
    total = 0
    for index, (_, body) in enumerate(entries[:BATCH_EVENTS_MAX]):
        total += len(body)
        if total > BATCH_BYTES_MAX and index:
            return entries[:index]
    return entries[:BATCH_EVENTS_MAX]
