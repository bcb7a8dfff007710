"""Binds servicers to gRPC: each method is wrapped once, by all that every call goes through."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, cast

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from treadle_server import failpoints
from treadle_server.core.errors import Reason, Refused
from treadle_server.ports.log import Replayed
from treadle_server.rpc.admission import Lane
from treadle_server.rpc.calls import Context, Streaming, Unary
from treadle_server.rpc.doorway import Admitted, Doorway, Malformed
from treadle_server.rpc.streams import Stream
from treadle_server.rpc.visits import Visit

PACKAGE = "treadle.v1"
WAITING_CALLS = frozenset({"ExecuteAgent"})
"""Unary calls that last as long as streams, and count as such."""


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
            async with Admitted(doorway, lane, visit):
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
            async with Admitted(doorway, doorway.admission.streams, visit):
                await Stream(visit, function(visit.request, visit.call)).send(doorway.stalls)
        except Exception as error:
            await visit.fail(error)

    return handle


def _unimplemented(doorway: Doorway, path: str) -> grpc.RpcMethodHandler[Any, Any]:
    async def handle(_requests: Any, context: Context) -> None:
        refused = Refused(
            Reason.UNIMPLEMENTED, f"this server does not have {path}", metadata={"method": path}
        )
        await Visit(doorway.lines, path, context).fail(refused)

    return grpc.stream_unary_rpc_method_handler(cast(Any, handle))
