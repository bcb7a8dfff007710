"""One stream of answers, and what becomes of it when its reader does not read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, cast

import grpc
from google.protobuf.message import Message

from treadle_server import failpoints
from treadle_server.core.errors import Reason, Refused
from treadle_server.rpc.calls import StreamChunk
from treadle_server.rpc.stalls import Stalls
from treadle_server.rpc.visits import Visit


class Stream:
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
