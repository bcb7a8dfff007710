"""What a run leaves behind: what callers were told, what the log holds, what the world did."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field

from tests.faults.ledger import DONE, MODEL, Line
from tests.faults.watching import Seen
from treadle import Approval, Client, Thread, ThreadEvent

READERS = 16
"""Calls at one time."""


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """An RPC that makes a thread said OK."""

    request_id: str
    thread: str


@dataclass(frozen=True, slots=True)
class Ended:
    """An RPC that ends a thread said OK."""

    thread: str
    state: "Thread.State.ValueType"
    micros: int
    """When it was answered, by the clock that all processes share."""
    text: str | None = None
    """The output that the caller gave; None when it gave none."""


@dataclass(frozen=True, slots=True)
class Steered:
    """An input that nobody had asked for was taken with OK."""

    thread: str
    text: str


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer to a question, or the result of a client's tool, was taken with OK."""

    thread: str
    call_id: str
    text: str


@dataclass(frozen=True, slots=True)
class Decided:
    """A decision was taken with OK."""

    thread: str
    approval_id: str
    state: "Approval.State.ValueType"
    edited: str = ""
    """The note of the arguments to run with instead."""


@dataclass(slots=True)
class History:
    """One run of a fault test, after everything has come to rest."""

    acknowledged: list[Acknowledged] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    threads: dict[str, Thread] = field(default_factory=dict)
    """As GetThread shows them, view FULL."""
    logs: dict[str, list[ThreadEvent]] = field(default_factory=dict)
    ledger: list[Line] = field(default_factory=list)
    """All lines, or the effects alone."""
    ended: list[Ended] = field(default_factory=list)
    steered: list[Steered] = field(default_factory=list)
    answered: list[Answered] = field(default_factory=list)
    decided: list[Decided] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    """Answers that no caller may get, and none where there had to be one."""

    @property
    def effects(self) -> list[Line]:
        """What tools did."""
        return [line for line in self.ledger if line.step == DONE and line.tool != MODEL]

    async def read(self, client: Client) -> "History":
        """Takes all threads and their logs from the server."""
        names = [thread.name async for thread in client.list_threads(page_size=1000)]

        async def take(name: str) -> None:
            self.threads[name] = await client.get_thread(name, view=Thread.FULL)
            self.logs[name] = [event async for event in client.list_events(name, page_size=1000)]

        await each(take, names)
        return self


async def each(act: Callable[[str], Awaitable[None]], names: Iterable[str]) -> None:
    """Acts on all names, a few at a time."""
    left = iter(names)

    async def work() -> None:
        for name in left:
            await act(name)

    await asyncio.gather(*(work() for _ in range(READERS)))
