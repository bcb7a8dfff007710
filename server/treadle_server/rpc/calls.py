"""What a servicer knows of the call it answers."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import Message

from treadle_server.services.keys import Identity

Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True, slots=True)
class StreamChunk:
    """One message of a stream, and up to where it brings its reader."""

    data: Message | bytes
    """Bytes are a serialised response and are sent as they are."""
    last_sequence: int = 0
    """What a reader who fell behind resumes after. 0 leaves the one before."""
    cursor: str = ""
    """The same on a stream over several threads."""


Unary = Callable[[Any, "Call"], Awaitable[Message | bytes]]
Streaming = Callable[[Any, "Call"], AsyncIterator[Message | bytes | StreamChunk]]


class Call:
    """One call whose caller is known and may make it."""

    __slots__ = ("_context", "identity", "method", "stalled")

    def __init__(self, method: str, identity: Identity, context: Context) -> None:
        self.method = method
        """`/treadle.v1.AgentService/GetAgent`."""
        self.identity = identity
        self.stalled = False
        """The stream's reader stayed behind and is let go: it is the server that ends the call."""
        self._context = context

    @property
    def tenant(self) -> int:
        """The store's key of the tenant that the call is for."""
        return self.identity.tenant

    @property
    def principal(self) -> str:
        return self.identity.principal

    @property
    def seconds_left(self) -> float | None:
        """Until the caller's deadline; None without one."""
        return self._context.time_remaining()

    @property
    def cancelled(self) -> bool:
        """The caller is gone: by deadline, cancel or disconnect."""
        return self._context.cancelled()

    @property
    def peer(self) -> str:
        return self._context.peer()

    async def send_metadata(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Sends initial metadata now. At most once, before the first message."""
        await self._context.send_initial_metadata(tuple(pairs))
