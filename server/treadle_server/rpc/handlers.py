"""Binds servicers to gRPC: each method is wrapped once, by all that every call goes through."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import aclosing
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Protocol, cast

import grpc
import structlog
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from treadle_server import failpoints
from treadle_server.core.errors import Reason, Refused, invalid
from treadle_server.ports.log import Replayed
from treadle_server.rpc import errors
from treadle_server.rpc.admission import Admission, Lane
from treadle_server.rpc.arrivals import Arrivals
from treadle_server.rpc.calls import Call, Context, StreamChunk, Streaming, Unary
from treadle_server.rpc.log_lines import LogLines
from treadle_server.rpc.stalls import Stalls
from treadle_server.rpc.validation import validate
from treadle_server.services.keys import Identity

PACKAGE = "treadle.v1"
STALL_SECONDS = 30.0
METADATA_BYTES_MAX = 16 * 1024
"""gRPC's own limit is per frame: a header block of many frames passes it by."""
WAITING_CALLS = frozenset({"ExecuteAgent"})
"""Unary calls that last as long as streams, and count as such."""

_log = structlog.get_logger("treadle.rpc")


class Identify(Protocol):
    """Says who calls, from the call's metadata."""

    async def __call__(self, metadata: Iterable[tuple[str, str | bytes]]) -> Identity:
        """Raises Refused."""
        ...


@dataclass(slots=True)
class Doorway:
    """What all services of a server share."""

    identify: Identify
    admission: Admission = field(default_factory=Admission)
    stalls: Stalls = field(default_factory=lambda: Stalls(STALL_SECONDS))
    lines: LogLines = field(default_factory=LogLines)
    arrivals: Arrivals = field(default_factory=Arrivals)


@dataclass(frozen=True, slots=True)
class Malformed:
    """Stands for a request whose bytes are not of its message type."""

    message: str


class Handlers(grpc.GenericRpcHandler):
    """All methods of `treadle.v1`. Those without a servicer are UNIMPLEMENTED, with our details."""

    def __init__(self, doorway: Doorway) -> None:
        self._doorway = doorway
        self._methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}

    def add(self, service: ServiceDescriptor, servicer: object) -> None:
        """Serves the methods that the servicer has, by their names."""
        for method in service.methods:
            path = f"/{service.full_name}/{method.name}"
            function = getattr(servicer, method.name, None)
            if function is not None:
                self._methods[path] = _handler(self._doorway, path, method, function)

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        path = handler_call_details.method
        handler = self._methods.get(path)
        if handler is None and path.startswith(f"/{PACKAGE}."):
            return _unimplemented(self._doorway, path)
        return handler


def _handler(
    doorway: Doorway, path: str, method: MethodDescriptor, function: Any
) -> grpc.RpcMethodHandler[Any, Any]:
    """Takes the request as a stream of one message.

    For unary requests gRPC calls the handler once the message is there: a call that sends none is then seen
    by nobody, counted nowhere, and stays as long as its connection.
    """
    assert not method.client_streaming, "every control is unary"
    deserialize = _deserializer(GetMessageClass(method.input_type))
    if method.server_streaming:
        return grpc.stream_stream_rpc_method_handler(
            cast(Any, _streaming(doorway, path, function)), deserialize, _serialize
        )
    lane = doorway.admission.streams if method.name in WAITING_CALLS else doorway.admission.calls
    return grpc.stream_unary_rpc_method_handler(
        cast(Any, _unary(doorway, path, function, lane)), deserialize, _serialize
    )


def _deserializer(cls: type[Message]) -> Callable[[bytes], Message | Malformed]:
    malformed = Malformed(cls.DESCRIPTOR.full_name)

    def deserialize(data: bytes) -> Message | Malformed:
        try:
            return cls.FromString(data)
        except Exception:  # gRPC would answer UNKNOWN and log a traceback for each
            return malformed

    return deserialize


def _serialize(response: Message | bytes) -> bytes:
    return response if isinstance(response, bytes) else response.SerializeToString()


def _unary(
    doorway: Doorway, path: str, function: Unary, lane: Lane
) -> Callable[[Any, Context], Awaitable[Message | bytes | None]]:
    async def handle(_requests: Any, context: Context) -> Message | bytes | None:
        visit = Visit(doorway.lines, path, context)
        try:
            async with _Admitted(doorway, lane, visit):
                answer = await function(visit.request, visit.call)
            if failpoints.ACTIVE:
                failpoints.hit("send.before")
            return answer
        except Replayed as replayed:
            if replayed.response is None:
                raise AssertionError(f"{path} lets a call through that attaches to what it made") from None
            return replayed.response
        except Exception as error:
            await visit.fail(error)
            return None

    return handle


def _streaming(doorway: Doorway, path: str, function: Streaming) -> Callable[[Any, Context], Awaitable[None]]:
    async def handle(_requests: Any, context: Context) -> None:
        visit = Visit(doorway.lines, path, context)
        try:
            async with _Admitted(doorway, doorway.admission.streams, visit):
                await _Stream(visit, function(visit.request, visit.call)).send(doorway.stalls)
        except Exception as error:
            await visit.fail(error)

    return handle


class Visit:
    """One call on its way through the door, and what is said when it fails."""

    __slots__ = ("_began", "_context", "_ending", "_lines", "call", "path", "request")

    call: Call
    """Set once the caller is known."""

    def __init__(self, lines: LogLines, path: str, context: Context) -> None:
        self._lines = lines
        self.path = path
        self.request: Any = None
        """Set once it has come."""
        self._context = context
        self._began = monotonic()
        self._ending: asyncio.Task[None] | None = None

    @property
    def context(self) -> Context:
        return self._context

    async def arrive(self, arrivals: Arrivals, identify: Identify) -> None:
        """Learns who calls, and waits for the request: nobody waits for one of a stranger.

        Raises Refused for a stranger or without a request, AbortError when it came too late.
        """
        metadata = cast(Any, self._context.invocation_metadata() or ())
        arrivals.begin(self)
        try:
            self.call = Call(self.path, await identify(metadata), self._context)
            if self._ending is None:
                self.request = await self._context.read()
        finally:
            arrivals.end(self)
        if self._ending is not None:
            await self._ending
            raise grpc.aio.AbortError("it came too late")
        if self.request is grpc.aio.EOF:
            self.request = None
            raise invalid(("request", "is not there, or not whole"))

    def stalled(self) -> None:
        self._end_early(invalid(("request", "did not come in time")))

    def crowded_out(self, most: int) -> None:
        text = "its request did not come, and newer calls needed the place"
        self._end_early(Refused(Reason.CONCURRENCY_LIMITED, text, metadata={"limit": str(most)}))

    def _end_early(self, refused: Refused) -> None:
        if self._ending is None:
            self._ending = asyncio.create_task(self._end(refused))

    async def _end(self, refused: Refused) -> None:
        try:
            await self.fail(refused)
        except grpc.aio.AbortError:
            return

    async def fail(self, error: Exception) -> None:
        """Ends the call with the error's status. Returns only if the caller is gone."""
        if isinstance(error, grpc.aio.InternalError | grpc.aio.AbortError):
            return  # the call has ended already
        refused = errors.refusal_of(error)
        if refused is None:
            await self._abort(errors.internal_status(self._log_failure(error)))
            return
        status = errors.status_of(refused, subject=_named(self.request))
        more = self._lines.admit(refused.reason.value)
        if more is not None:
            facts = {**self._facts(), **more}
            _log.info("call_refused", reason=refused.reason.value, message=status.message, **facts)
        await self._abort(status)

    def _log_failure(self, error: Exception) -> str:
        """The request id under which the log tells of it: in a flood of failures briefly."""
        request_id = secrets.token_hex(8)
        more = self._lines.admit("call_failed")
        about = {"error": type(error).__name__} if more is None else {"exc_info": error, **more}
        _log.error("call_failed", request_id=request_id, **about, **self._facts())
        return request_id

    async def _abort(self, status: Any) -> None:
        code = _STATUS_CODES[status.code]
        try:
            await self._context.abort(code, status.message, errors.trailing_metadata(status))
        except grpc.aio.AbortError:
            raise
        except grpc.aio.BaseError:
            return  # nobody is there to be told

    def answered(self) -> None:
        _log.debug("call_answered", **self._facts())

    def _facts(self) -> dict[str, object]:
        call = getattr(self, "call", None)
        return {
            "method": self.path,
            "tenant": call.identity.tenant_id if call else "",
            "principal": call.principal if call else "",
            "peer": self._context.peer(),
            "seconds": round(monotonic() - self._began, 6),
        }


_STATUS_CODES = {code.value[0]: code for code in grpc.StatusCode}


class _Admitted:
    """Within it the call counts in its lane, the caller is known and the request is valid."""

    __slots__ = ("_doorway", "_lane", "_tenant", "_visit")

    def __init__(self, doorway: Doorway, lane: Lane, visit: Visit) -> None:
        self._doorway = doorway
        self._lane = lane
        self._visit = visit
        self._tenant: int | None = None

    async def __aenter__(self) -> None:
        self._doorway.admission.check_open()
        _check_metadata(self._visit.context.invocation_metadata() or ())
        await self._visit.arrive(self._doorway.arrivals, self._doorway.identify)
        self._lane.enter()
        try:
            self._admit()
        except BaseException:
            self._leave()
            raise

    async def __aexit__(self, kind: object, error: object, trace: object) -> None:
        self._leave()
        if error is None:
            self._visit.answered()

    def _admit(self) -> None:
        visit = self._visit
        tenant = visit.call.identity.tenant
        self._lane.enter_tenant(tenant)
        self._tenant = tenant
        if isinstance(visit.request, Malformed):
            name = visit.request.message
            raise invalid((name, f"the request is not a {name}"))
        validate(visit.request)
        if "request_id" in visit.request.DESCRIPTOR.fields_by_name:
            self._doorway.admission.check_backlog()

    def _leave(self) -> None:
        self._lane.leave()
        if self._tenant is not None:
            self._lane.leave_tenant(self._tenant)


class _Stream:
    """One stream of answers. A reader that blocks a write for too long is let go."""

    __slots__ = ("_chunks", "_ending", "_place", "_visit")

    def __init__(self, visit: Visit, chunks: AsyncIterator[Message | bytes | StreamChunk]) -> None:
        self._visit = visit
        self._chunks = chunks
        self._ending: asyncio.Task[None] | None = None
        self._place = _begin(visit.request)

    async def send(self, stalls: Stalls) -> None:
        """Returns when the servicer's iterator or the stream has ended."""
        context = self._visit.context
        async with aclosing(cast(Any, self._chunks)):
            async for chunk in self._chunks:
                data = self._take(chunk)
                if failpoints.ACTIVE:
                    failpoints.hit("send.before")
                stalls.begin(self)
                try:
                    await context.write(data)
                finally:
                    stalls.end(self)
                if failpoints.ACTIVE:
                    failpoints.hit("send.after")
                if self._ending is not None:
                    break
        if self._ending is not None:
            await asyncio.wait({self._ending})

    def stalled(self) -> None:
        self._visit.call.stalled = True
        self._ending = asyncio.create_task(self._end())

    def _take(self, chunk: Message | bytes | StreamChunk) -> Message | bytes:
        if not isinstance(chunk, StreamChunk):
            return chunk
        if chunk.cursor:
            self._place = {"cursor": chunk.cursor}
        elif chunk.last_sequence:
            self._place = {"last_sequence": str(chunk.last_sequence)}
        return chunk.data

    async def _end(self) -> None:
        """Gives up what the stream holds, and queues the status behind the write that is blocked.

        What is written comes before the status, so a reader who gets this far has what it says.
        """
        await cast(Any, self._chunks).aclose()
        where = " ".join(f"{key} {value}" for key, value in self._place.items())
        slow = Refused(
            Reason.SUBSCRIBER_TOO_SLOW,
            f"the reader stayed behind; go on after {where}",
            metadata=self._place,
        )
        try:
            await self._visit.fail(slow)
        except grpc.aio.AbortError:
            return


def _begin(request: Any) -> dict[str, str]:
    """Where a stream stands before its first answer."""
    cursor = getattr(request, "after_cursor", "")
    return {"cursor": cursor} if cursor else {"last_sequence": str(getattr(request, "after_sequence", 0))}


def _check_metadata(metadata: Iterable[tuple[str, str | bytes]]) -> None:
    """Before anything is waited for: a call that is refused lets go of it."""
    if sum(len(key) + len(value) for key, value in metadata) > METADATA_BYTES_MAX:
        raise Refused(
            Reason.REQUEST_TOO_LARGE,
            f"the call's metadata has more than {METADATA_BYTES_MAX} bytes",
            metadata={"field": "metadata", "max_bytes": str(METADATA_BYTES_MAX)},
        )


def _named(request: Any) -> str:
    """The resource that a request is about, as far as it says."""
    return getattr(request, "name", "") or getattr(request, "parent", "") or ""


def _unimplemented(doorway: Doorway, path: str) -> grpc.RpcMethodHandler[Any, Any]:
    async def handle(_requests: Any, context: Context) -> None:
        refused = Refused(
            Reason.UNIMPLEMENTED, f"this server does not have {path}", metadata={"method": path}
        )
        await Visit(doorway.lines, path, context).fail(refused)

    return grpc.stream_unary_rpc_method_handler(cast(Any, handle))
