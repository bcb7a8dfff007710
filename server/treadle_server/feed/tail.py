"""The newest committed events of a thread that somebody watches, and the message that is being made."""

import asyncio
from dataclasses import dataclass, field

from treadle_server.core.kinds import DeltaKind

EVENTS_MAX = 512
BYTES_MAX = 512 * 1024
MESSAGES_MAX = 8
"""How many completed messages are kept for subscribers that still want the rest of their pieces."""
MESSAGE_CHARACTERS_MAX = 128 * 1024
"""Longer ones are shown whole only by the event that completes them."""


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
    """None until something was committed while this tail existed."""
    entries: list[tuple[int, bytes]] = field(default_factory=list)
    """Kind and body."""
    byte_count: int = 0
    message: Message | None = None
    """The message that is being made."""
    completed: dict[int, Message] = field(default_factory=dict)
    """Messages that had pieces, by the sequence of the event that completed them."""
    subscribers: set[Subscriber] = field(default_factory=set)
    delta_timer: asyncio.TimerHandle | None = None

    def append(self, first: int, entries: list[tuple[int, bytes]]) -> None:
        if self.base is None or first != self.base + len(self.entries) + 1:
            self.base = first - 1
            self.entries.clear()
            self.byte_count = 0
        self.entries.extend(entries)
        self.byte_count += sum(len(body) for _, body in entries)
        if len(self.entries) > EVENTS_MAX or self.byte_count > BYTES_MAX:
            self._trim()

    def _trim(self) -> None:
        """Keeps the newer half of what is allowed, so that it is not called for every event."""
        assert self.base is not None
        drop = 0
        while drop < len(self.entries) - 1 and (
            len(self.entries) - drop > EVENTS_MAX // 2 or self.byte_count > BYTES_MAX // 2
        ):
            self.byte_count -= len(self.entries[drop][1])
            drop += 1
        del self.entries[:drop]
        self.base += drop

    def close_message(self, sequence: int | None) -> None:
        """The message being made is complete with this event, or was given up (None)."""
        if self.message is not None and sequence is not None:
            self.completed[sequence] = self.message
            while len(self.completed) > MESSAGES_MAX:
                del self.completed[next(iter(self.completed))]
        self.message = None

    def holds(self, cursor: int) -> bool:
        """The event after `cursor` is here, or has not been committed since this tail began."""
        return self.base is not None and cursor >= self.base

    def after(self, cursor: int, most: int) -> list[tuple[int, bytes]]:
        """At most so many entries after a cursor that `holds` accepts."""
        assert self.base is not None
        skip = cursor - self.base
        return self.entries[skip : skip + most]

    def wake(self) -> None:
        for subscriber in self.subscribers:
            subscriber.wake()
