"""The newest committed events of a thread that somebody watches, and messages that are being made."""

import asyncio
from dataclasses import dataclass, field

from treadle_server.core.errors import Refused
from treadle_server.core.kinds import DeltaKind

EVENTS_MAX = 512
BYTES_MAX = 512 * 1024
MESSAGES_MAX = 16
"""How many events keep their messages for subscribers that still want the rest of the pieces."""
MESSAGE_CHARACTERS_MAX = 128 * 1024
"""Longer ones are shown whole only by the event that completes them."""


Entry = tuple[int, bytes]
"""Kind and body of an event."""


@dataclass(slots=True)
class Message:
    """The text so far of one attempt at one model call."""

    call_id: str
    attempt: int
    text: str = ""
    thought: str = ""

    def add(self, kind: DeltaKind, text: str) -> None:
        if kind is DeltaKind.THOUGHT:
            self.thought = (self.thought + text)[:MESSAGE_CHARACTERS_MAX]
        else:
            self.text = (self.text + text)[:MESSAGE_CHARACTERS_MAX]


@dataclass(slots=True, eq=False)
class Subscriber:
    """Where one reader of a thread is."""

    cursor: int
    deltas: bool = False
    """It wants pieces of messages."""
    waiter: asyncio.Future[None] | None = None
    message: Message | None = None
    """The message that it has had pieces of."""
    text_offset: int = 0
    thought_offset: int = 0
    sent_at: float = 0.0

    def wake(self) -> None:
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)


@dataclass(slots=True)
class Tail:
    """Committed events after `base`, without holes; older ones are only in the store."""

    base: int | None = None
    """None until something was committed while this tail existed, or a reader found the log's end."""
    events_max: int = EVENTS_MAX
    bytes_max: int = BYTES_MAX
    entries: list[Entry] = field(default_factory=list)
    byte_count: int = 0
    completed: dict[int, Message] = field(default_factory=dict)
    """Messages that had pieces, by the sequences of the events that hold them whole."""
    subscribers: set[Subscriber] = field(default_factory=set)
    delta_timer: asyncio.TimerHandle | None = None
    damage: Refused | None = None
    """Why there will be no further event."""

    def begin(self, cursor: int) -> None:
        """Nothing is in the store after `cursor`: what comes now comes here."""
        if self.base is None:
            self.base = cursor

    def append(self, first: int, entries: list[Entry]) -> None:
        if self.base is None or first != self.base + len(self.entries) + 1:
            self.base = first - 1
            self.entries.clear()
            self.byte_count = 0
        self.entries.extend(entries)
        self.byte_count += sum(len(body) for _, body in entries)
        if len(self.entries) > self.events_max or self.byte_count > self.bytes_max:
            self._trim()

    def _trim(self) -> None:
        """Keeps the newer half of what is allowed, so that it is not called for every event."""
        assert self.base is not None
        drop = 0
        while drop < len(self.entries) - 1 and (
            len(self.entries) - drop > self.events_max // 2 or self.byte_count > self.bytes_max // 2
        ):
            self.byte_count -= len(self.entries[drop][1])
            drop += 1
        del self.entries[:drop]
        self.base += drop

    def complete(self, sequence: int, message: Message) -> None:
        """The event with this sequence holds the message, or its thought, whole."""
        self.completed[sequence] = message
        if len(self.completed) > MESSAGES_MAX:
            del self.completed[next(iter(self.completed))]

    def holds(self, cursor: int) -> bool:
        """The event after `cursor` is here, or is still to come."""
        return self.base is not None and cursor >= self.base

    def after(self, cursor: int, most: int) -> list[Entry]:
        """At most so many entries after a cursor that `holds` accepts."""
        assert self.base is not None
        skip = cursor - self.base
        return self.entries[skip : skip + most]

    def wake(self) -> None:
        for subscriber in self.subscribers:
            subscriber.wake()

    def show(self) -> None:
        """Wakes who wants pieces of messages."""
        self.delta_timer = None
        for subscriber in self.subscribers:
            if subscriber.deltas:
                subscriber.wake()

    @property
    def wants_deltas(self) -> bool:
        return any(subscriber.deltas for subscriber in self.subscribers)
