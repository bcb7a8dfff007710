"""Subscribers that collect what they get, and writers that make logs grow."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.contract.units import creation, projection
from tests.engine.handloop import within
from tests.engine.house import House
from treadle.v1 import event_pb2
from treadle_server.core import events as e
from treadle_server.core.kinds import StopReason, ThreadState
from treadle_server.core.values import Content, Cost, Usage
from treadle_server.ports.feed import Item, Watch
from treadle_server.ports.log import ThreadKey, Ticket, Unit


@dataclass(slots=True)
class Reader:
    """A subscription and all that it gave so far."""

    house: House
    watch: Watch
    items: list[Item] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)
    """The size of each batch."""
    task: "asyncio.Task[None] | None" = None

    def start(self) -> "Reader":
        """It counts from here on."""
        subscription = self.house.feed.follow(self.watch)

        async def read() -> None:
            try:
                async for batch in subscription:
                    self.items.extend(batch)
                    self.batches.append(len(batch))
            finally:
                subscription.close()

        self.task = asyncio.create_task(read())
        return self

    async def end(self) -> None:
        """Waits until the stream ends by itself; raises what ended it."""
        assert self.task is not None
        await within(self.task)

    async def stop(self) -> None:
        """As a reader that goes away."""
        assert self.task is not None
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    @property
    def sequences(self) -> list[int]:
        """Of the durable events."""
        return [item.sequence for item in self.items if item.sequence]

    @property
    def messages(self) -> list[event_pb2.ThreadEvent]:
        return [event_pb2.ThreadEvent.FromString(item.body) for item in self.items]

    @property
    def kinds(self) -> list[str]:
        return [str(message.WhichOneof("payload")) for message in self.messages]

    def texts(self, call_id: str, attempt: int = 1, kind: int = 1) -> str:
        """The pieces of a message, put together as their offsets say."""
        text = ""
        for message in self.messages:
            delta = message.message_delta
            if message.HasField("message_delta") and (delta.call_id, delta.attempt, delta.kind) == (
                *(call_id, attempt),
                kind,
            ):
                assert delta.offset == len(text)
                text += delta.text
        return text


def read(house: House, key: ThreadKey, after: int = 0, **watch: object) -> Reader:
    return Reader(house, Watch(key, after, **watch)).start()  # type: ignore[arg-type]


@dataclass(slots=True)
class Writer:
    """Appends events to a log of its own, as the engine would."""

    house: House
    key: ThreadKey
    last: int = 0

    def append(self, *payloads: e.Payload) -> Ticket:
        now, first = self.house.clock.now(), self.last + 1
        events = [e.Event(sequence, now, 1, payload) for sequence, payload in enumerate(payloads, first)]
        unit = Unit(self.key, self.last, [self.house.codec.encode(event) for event in events], projection())
        if not self.last:
            unit.new_thread = creation(self.key).new_thread
        self.last += len(payloads)
        return self.house.log.submit(unit)

    async def add(self, *payloads: e.Payload) -> None:
        """Returns after the commit."""
        await within(self.append(*payloads).wait())

    async def inputs(self, *texts: str) -> None:
        await self.add(*(said(text) for text in texts))


def writer(house: House, tenant: int = 1) -> Writer:
    return Writer(house, ThreadKey(tenant, house.log.allocate_thread()))


def said(text: str) -> e.InputReceived:
    return e.InputReceived(Content(text))


def message(call_id: str, text: str) -> Sequence[e.Payload]:
    """What a completed model call records."""
    usage = e.UsageRecorded(call_id, 1, "m", Usage(), Cost())
    return e.MessageCompleted(f"message-{call_id}", call_id, text), usage


ENDED = e.ThreadEnded(ThreadState.COMPLETED, StopReason.FINISHED)
