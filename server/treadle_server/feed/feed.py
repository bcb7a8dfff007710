"""Follows threads: from the hot tail where it reaches, else from the store."""

import asyncio
from collections.abc import Sequence

from treadle_server.core.errors import Reason, Refused, not_found
from treadle_server.core.kinds import DeltaKind
from treadle_server.feed.tail import Message, Subscriber, Tail
from treadle_server.ports.codec import Codec
from treadle_server.ports.feed import Item, Watch
from treadle_server.ports.log import Log, ThreadKey, Unit

BATCH_EVENTS_MAX = 64
BATCH_BYTES_MAX = 32 * 1024
DELTA_SECONDS = 0.02
"""Pieces of a message that come within this time are delivered as one."""


class HotFeed:
    """The feed of one server process. Committed units reach it before their writers are answered."""

    def __init__(self, log: Log, codec: Codec, *, heartbeat_seconds: float = 15.0) -> None:
        self._log = log
        self.codec = codec
        self.heartbeat_seconds = heartbeat_seconds
        self._tails: dict[ThreadKey, Tail] = {}
        self._messages: dict[ThreadKey, Message] = {}
        """What models are saying at the moment: one at most per running thread."""
        self._ticker: asyncio.Task[None] | None = None
        self._draining = False
        self.ended_kind = codec.kind("thread_ended")
        self.completed_kind = codec.kind("message_completed")
        self._failed_kind = codec.kind("model_call_failed")
        log.subscribe(self._committed)

    # Writing side

    def _committed(self, units: Sequence[Unit]) -> None:
        for unit in units:
            if not unit.records:
                continue
            tail = self._tails.get(unit.key)
            first = unit.expected + 1
            if tail is not None:
                tail.append(first, [(record.kind, record.body) for record in unit.records])
            if unit.key in self._messages:
                self._close_message(unit, first, tail)
            if tail is not None:
                tail.wake()

    def _close_message(self, unit: Unit, first: int, tail: Tail | None) -> None:
        """A message ends with the event that completes it, or that says that its call failed."""
        for sequence, record in enumerate(unit.records, start=first):
            if record.kind == self.completed_kind and tail is not None:
                tail.close_message(sequence)
            elif record.kind == self._failed_kind and tail is not None:
                tail.close_message(None)
            if record.kind in (self.completed_kind, self._failed_kind, self.ended_kind):
                self._messages.pop(unit.key, None)

    def delta(self, key: ThreadKey, call_id: str, attempt: int, kind: DeltaKind, text: str) -> None:
        """Kept also while nobody watches: who comes later gets the text so far."""
        if not text:
            return
        message = self._messages.get(key)
        if message is None or (message.call_id, message.attempt) != (call_id, attempt):
            message = self._messages[key] = Message(call_id, attempt)
        message.add(kind, text)
        tail = self._tails.get(key)
        if tail is None:
            return
        tail.message = message
        if tail.delta_timer is None:
            loop = asyncio.get_running_loop()
            tail.delta_timer = loop.call_later(DELTA_SECONDS, _show, tail)

    # Reading side

    def follow(self, watch: Watch) -> "Follower":
        self._start_ticker()
        tail = self._tails.get(watch.key)
        if tail is None:
            tail = self._tails[watch.key] = Tail(base=0 if watch.fresh else None)
            tail.message = self._messages.get(watch.key)
        return Follower(self, watch, tail)

    async def next_entries(self, key: ThreadKey, tail: Tail, cursor: int) -> list[tuple[int, bytes]]:
        """The entries after a cursor, at most a batch; empty at the head."""
        if tail.holds(cursor):
            return _batch(tail.after(cursor, BATCH_EVENTS_MAX))
        stored = await self._log.read(key, cursor, BATCH_EVENTS_MAX)
        if stored:
            return _batch([(row.record.kind, row.record.body) for row in stored])
        if tail.holds(cursor):
            return _batch(tail.after(cursor, BATCH_EVENTS_MAX))
        if await self._log.last_sequence(key) > cursor and not tail.holds(cursor):
            raise not_found("Thread", "the thread")
        return []

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
        """Wakes subscribers that have had nothing for a heartbeat's time: one timer for all."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self.heartbeat_seconds / 4)
            stale = loop.time() - self.heartbeat_seconds
            for tail in list(self._tails.values()):
                for subscriber in tail.subscribers:
                    if subscriber.sent_at <= stale:
                        subscriber.wake()

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
        self._subscriber = Subscriber(watch.after, sent_at=self._loop.time())
        self._ended = False
        tail.subscribers.add(self._subscriber)

    def __aiter__(self) -> "Follower":
        return self

    async def __anext__(self) -> list[Item]:
        while not self._ended:
            self._feed.refuse_draining()
            subscriber = self._subscriber
            entries = await self._feed.next_entries(self._watch.key, self._tail, subscriber.cursor)
            items = self._deliver(entries)
            if not items and not entries:
                items = self._heartbeat()
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

    def _deliver(self, entries: list[tuple[int, bytes]]) -> list[Item]:
        watch, subscriber, items = self._watch, self._subscriber, []
        for kind, body in entries:
            subscriber.cursor += 1
            if watch.deltas and kind == self._feed.completed_kind:
                items.extend(self._rest_of_message())
            if not watch.kinds or kind in watch.kinds:
                items.append(Item(subscriber.cursor, body))
            self._ended = kind == self._feed.ended_kind
        if not entries and watch.deltas:
            items.extend(self._new_deltas(self._tail.message))
        return items

    def _rest_of_message(self) -> list[Item]:
        """What the subscriber lacks of the message that the event at its cursor completes."""
        items = self._new_deltas(self._tail.completed.get(self._subscriber.cursor))
        self._subscriber.message = None
        return items

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

    def _heartbeat(self) -> list[Item]:
        if self._loop.time() - self._subscriber.sent_at < self._feed.heartbeat_seconds:
            return []
        return [Item(0, self._feed.codec.heartbeat(self._subscriber.cursor))]

    async def _wait(self) -> None:
        tail, subscriber = self._tail, self._subscriber
        if tail.holds(subscriber.cursor) and tail.after(subscriber.cursor, 1):
            return
        subscriber.waiter = self._loop.create_future()
        try:
            await subscriber.waiter
        finally:
            subscriber.waiter = None


def _show(tail: Tail) -> None:
    tail.delta_timer = None
    tail.wake()


def _batch(entries: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    """As many as fit into one message; at least one."""
    total = 0
    for index, (_, body) in enumerate(entries[:BATCH_EVENTS_MAX]):
        total += len(body)
        if total > BATCH_BYTES_MAX and index:
            return entries[:index]
    return entries[:BATCH_EVENTS_MAX]
