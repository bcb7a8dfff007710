"""Readers of a thread that show what the server really sent, repeated and missing events too."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import grpc

from treadle import ThreadEvent
from treadle.calls import streams as calls
from treadle.v1 import thread_service_pb2 as rpc
from treadle.v1.thread_service_pb2_grpc import ThreadServiceStub

if TYPE_CHECKING:
    from treadle.v1.thread_service_pb2_grpc import ThreadServiceAsyncStub

PAUSE_SECONDS = 0.02
"""Between a broken stream and the next: a server that is stopping still answers."""
_BROKEN = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


@dataclass(slots=True)
class Seen:
    """All stored events that one watcher was sent, in order of arrival, over all its connections."""

    watcher: str
    thread: str = ""
    events: list[ThreadEvent] = field(default_factory=list)
    connections: int = 0
    complete: bool = False
    """The server itself said that there is no more."""

    @property
    def last(self) -> int:
        return self.events[-1].sequence if self.events else 0


@dataclass(slots=True)
class SeenOfAll:
    """What a watcher of all threads of the tenant was sent, by thread."""

    cursor: str = ""
    threads: dict[str, Seen] = field(default_factory=dict)
    event_count: int = 0
    connections: int = 0

    def take(self, response: rpc.WatchThreadResponse) -> None:
        for event in response.events:
            if event.sequence:
                seen = self.threads.setdefault(event.thread, Seen("the watcher of all", event.thread))
                seen.events.append(event)
                self.event_count += 1
        self.cursor = response.cursor


class Ask(Protocol):
    """Opens a stream of what comes after a sequence."""

    def __call__(self, after: int) -> grpc.aio.UnaryStreamCall[Any, rpc.WatchThreadResponse]: ...


def threads(channel: grpc.aio.Channel) -> "ThreadServiceAsyncStub":
    return ThreadServiceStub(channel)


def watching(channel: grpc.aio.Channel, thread: str) -> Ask:
    """WatchThread."""

    def ask(after: int) -> grpc.aio.UnaryStreamCall[Any, rpc.WatchThreadResponse]:
        request = rpc.WatchThreadRequest(name=thread, after_sequence=after)
        return threads(channel).WatchThread(request, wait_for_ready=True)

    return ask


def executing(channel: grpc.aio.Channel, agent: str, **fields: Any) -> Ask:
    """ExecuteAgentStream, with the fields of `Client.stream`, a request id among them.

    Asked again it finds the thread that the first one made.
    """
    start = calls.stream(agent, **fields).follower().request()
    assert isinstance(start, rpc.ExecuteAgentStreamRequest)

    def ask(after: int) -> grpc.aio.UnaryStreamCall[Any, rpc.WatchThreadResponse]:
        request = rpc.ExecuteAgentStreamRequest()
        request.CopyFrom(start)
        request.after_sequence = after
        return threads(channel).ExecuteAgentStream(request, wait_for_ready=True)

    return ask


async def watch(seen: Seen, ask: Ask, drop_after: Callable[[], int] | None = None) -> Seen:
    """Reads until the server says that there is no more, and goes on after every break where it was.

    With `drop_after` it hangs up by itself after so many messages. Any other status than those of a broken
    connection is an error.
    """
    while not seen.complete:
        call = ask(seen.last)
        seen.connections += 1
        try:
            with _cancelled_at_end(call):
                seen.complete = await _read(seen, call, drop_after() if drop_after else 0)
        except grpc.aio.AioRpcError as failure:
            if failure.code() not in _BROKEN:
                raise
            await asyncio.sleep(PAUSE_SECONDS)
    return seen


async def watch_all(seen: SeenOfAll, channel: grpc.aio.Channel, drop_after: Callable[[], int]) -> None:
    """Reads until it is cancelled, and goes on after every break from its cursor."""
    while True:
        request = rpc.WatchThreadsRequest(after_cursor=seen.cursor)
        call = threads(channel).WatchThreads(request, wait_for_ready=True)
        seen.connections += 1
        try:
            with _cancelled_at_end(call):
                await _take(call, seen.take, drop_after())
        except grpc.aio.AioRpcError as failure:
            if failure.code() not in _BROKEN:
                raise
            await asyncio.sleep(PAUSE_SECONDS)


async def _read(
    seen: Seen, call: grpc.aio.UnaryStreamCall[Any, rpc.WatchThreadResponse], messages_max: int
) -> bool:
    """False when it left the stream before its end."""

    def take(response: rpc.WatchThreadResponse) -> None:
        seen.events += [event for event in response.events if event.sequence]

    return await _take(call, take, messages_max)


async def _take(
    call: grpc.aio.UnaryStreamCall[Any, rpc.WatchThreadResponse],
    take: Callable[[rpc.WatchThreadResponse], None],
    messages_max: int,
) -> bool:
    count = 0
    async for response in call:
        take(response)
        count += 1
        if count == messages_max:
            return False
    return True


@contextmanager
def _cancelled_at_end(call: grpc.aio.UnaryStreamCall[Any, Any]) -> Iterator[None]:
    """A call that is only dropped stays open at the server."""
    try:
        yield
    finally:
        call.cancel()
