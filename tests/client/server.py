"""A server that speaks the real protocol on a loopback port, and does with each call what a test lined up."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import grpc
import grpc.aio
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2, status_pb2

from treadle.v1 import (
    admin_service_pb2,
    agent_service_pb2,
    approval_service_pb2,
    thread_service_pb2,
    tool_service_pb2,
)
from treadle.v1.event_pb2 import Heartbeat, ThreadEvent
from treadle.v1.thread_service_pb2 import WatchThreadResponse

FILES = (
    admin_service_pb2,
    agent_service_pb2,
    approval_service_pb2,
    thread_service_pb2,
    tool_service_pb2,
)
METHODS: dict[str, MethodDescriptor] = {
    f"/{service.full_name}/{method.name}": method
    for file in FILES
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
Act = Callable[["Asked", Any], AsyncIterator[Message]]


@dataclass
class Asked:
    """One call as it arrived; `ended` is set when the server sees it end."""

    method: str
    request: Any
    metadata: dict[str, str]
    time: float
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class Server:
    """Plays its acts in the order in which calls arrive; a call too many is UNIMPLEMENTED."""

    def __init__(self, *, connection_streams_max: int = 2**31 - 1) -> None:
        self.connection_streams_max = connection_streams_max
        self.asked: list[Asked] = []
        self._acts: deque[Act] = deque()
        self._arrival = asyncio.Event()
        self._grpc: grpc.aio.Server
        self._port = 0

    def play(self, *acts: Act) -> None:
        self._acts.extend(acts)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._port}"

    async def arrived(self, count: int) -> Asked:
        """The call of that number, once it is there."""
        async with asyncio.timeout(10):
            while len(self.asked) < count:
                self._arrival.clear()
                await self._arrival.wait()
        return self.asked[count - 1]

    async def start(self) -> None:
        """Listens, on the same port as before if there was one."""
        streams = ("grpc.max_concurrent_streams", self.connection_streams_max)
        self._grpc = grpc.aio.server(options=[("grpc.so_reuseport", 0), streams])
        self._grpc.add_generic_rpc_handlers((_Handlers(self._handle),))
        self._port = self._grpc.add_insecure_port(f"127.0.0.1:{self._port}")
        await self._grpc.start()

    async def stop(self) -> None:
        """Breaks every connection at once."""
        await self._grpc.stop(grace=None)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def _handle(self, method: str, request: Any, context: Any) -> AsyncIterator[Message]:
        metadata = {key: str(value) for key, value in context.invocation_metadata()}
        asked = Asked(method.rpartition("/")[2], request, metadata, time.monotonic())
        self.asked.append(asked)
        self._arrival.set()
        act = self._acts.popleft() if self._acts else refuses(grpc.StatusCode.UNIMPLEMENTED)
        try:
            async for response in act(asked, context):
                yield response
        finally:
            asked.ended.set()


class _Handlers(grpc.GenericRpcHandler):
    def __init__(self, handle: Callable[[str, Any, Any], AsyncIterator[Message]]) -> None:
        self._handle = handle

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        path = details.method
        parse = GetMessageClass(METHODS[path].input_type).FromString

        async def stream(request: Any, context: Any) -> AsyncIterator[Message]:
            async for response in self._handle(path, request, context):
                yield response

        async def unary(request: Any, context: Any) -> Message:
            responses = [response async for response in self._handle(path, request, context)]
            return responses[0]

        if METHODS[path].server_streaming:
            return grpc.unary_stream_rpc_method_handler(stream, parse, _serialized)
        return grpc.unary_unary_rpc_method_handler(unary, parse, _serialized)


def _serialized(message: Message) -> bytes:
    return message.SerializeToString()


def answers(*responses: Message) -> Act:
    """Sends these and ends well."""

    async def act(_: Asked, __: Any) -> AsyncIterator[Message]:
        for response in responses:
            yield response

    return act


def refuses(
    code: grpc.StatusCode,
    reason: str = "",
    *,
    details: Sequence[Message] = (),
    after: Sequence[Message] = (),
    thread: str = "",
) -> Act:
    """Sends `after`, then ends with a status and its details, as the server does."""

    async def act(_: Asked, context: Any) -> AsyncIterator[Message]:
        if thread:
            await context.send_initial_metadata((("treadle-thread", thread),))
        for response in after:
            yield response
        await context.abort(code, "not now", trailers(code, "not now", reason, details))

    return act


def trailers(
    code: grpc.StatusCode, message: str, reason: str = "", details: Iterable[Message] = ()
) -> tuple[tuple[str, bytes], ...]:
    """Trailing metadata as the server sends it; none without a reason, as from a transport."""
    if not reason:
        return ()
    status = status_pb2.Status(code=code.value[0], message=message)
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason=reason, domain="treadle.dev"))
    for detail in details:
        status.details.add().Pack(detail)
    return (("grpc-status-details-bin", status.SerializeToString()),)


def retry_after(seconds: float) -> error_details_pb2.RetryInfo:
    info = error_details_pb2.RetryInfo()
    info.retry_delay.FromNanoseconds(round(seconds * 1e9))
    return info


def hangs(*responses: Message) -> Act:
    """Sends these and then nothing, until the caller or the server gives up."""

    async def act(_: Asked, __: Any) -> AsyncIterator[Message]:
        for response in responses:
            yield response
        await asyncio.Event().wait()

    return act


def serves(log: Sequence[ThreadEvent], *, cut_after: int | None = None) -> Act:
    """Streams a log after the sequence asked for; breaks off after so many events."""

    async def act(asked: Asked, context: Any) -> AsyncIterator[Message]:
        wanted = [event for event in log if event.sequence > asked.request.after_sequence]
        for event in wanted[:cut_after]:
            yield WatchThreadResponse(events=[event])
        if cut_after is not None:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")

    return act


def log_of(length: int, thread: str = "threads/t1") -> list[ThreadEvent]:
    """A log whose last event is thread_ended."""
    log = [ThreadEvent(thread=thread, sequence=number) for number in range(1, length + 1)]
    for event in log[:-1]:
        event.iteration_started.number = event.sequence
    log[-1].thread_ended.SetInParent()
    return log


def heartbeat(last_sequence: int, thread: str = "threads/t1") -> WatchThreadResponse:
    event = ThreadEvent(thread=thread, heartbeat=Heartbeat(last_sequence=last_sequence))
    return WatchThreadResponse(events=[event])
