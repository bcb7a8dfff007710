"""Callers of a fault run: they make threads in every way, ask again after unknown outcomes, and write down
what they were told.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from tests.faults.evidence import Acknowledged, Ended, History
from tests.faults.scripts import random_script
from tests.faults.site import AGENT, GOOGLE_AGENT
from tests.faults.watching import Seen, executing, watch, watching
from treadle import Client, StateConflict, Thread, TreadleError
from treadle.v1.content_pb2 import Content
from treadle_server.rpc.threads import ThreadServicer

MESSAGES_MAX = 6
"""Somebody who watches hangs up after at most so many messages."""
EVENTS_BEFORE_MAX = 12
"""A control is asked after at most so many events."""
BY_CALLER = "ended by its caller"


class Callers:
    """`google` is the share of threads that call the world's model over HTTP."""

    def __init__(
        self, client: Client, channel: grpc.aio.Channel, history: History, seed: int, *, google: float = 0.0
    ) -> None:
        self._client = client
        self._channel = channel
        self._history = history
        self._seed = seed
        self._google = google
        self.made = 0

    async def work(self, enough: Callable[[], bool]) -> None:
        """Makes one thread after the other and sees each to its end, until there is enough."""
        while not enough():
            self.made += 1
            caller = self._caller(self.made)
            (way,) = caller.chance.choices(list(WAYS), list(WAYS.values()))
            try:
                await way(caller)
            except (TreadleError, grpc.aio.AioRpcError) as failure:
                told = failure.details() if isinstance(failure, grpc.aio.AioRpcError) else failure
                self._history.failures.append(f"{way.__name__} of {self.made}: {told}")

    def _caller(self, number: int) -> "Caller":
        chance = random.Random(f"{self._seed}/{number}")
        return Caller(self._client, self._channel, self._history, f"t{self._seed}-{number}", chance)._of(
            self._google
        )


class Caller:
    """Of one thread."""

    def __init__(
        self,
        client: Client,
        channel: grpc.aio.Channel,
        history: History,
        thread_id: str,
        chance: random.Random,
    ) -> None:
        self.chance = chance
        self._client = client
        self._channel = channel
        self._history = history
        self._name = f"threads/{thread_id}"
        self._request = f"request-{thread_id}"
        self._agent = AGENT
        self._fields: dict[str, Any] = {
            "data": random_script(thread_id, chance),
            "thread_id": thread_id,
            "request_id": self._request,
        }

    def _of(self, google: float) -> "Caller":
        if self.chance.random() < google:
            self._agent = GOOGLE_AGENT
            self._fields["data"]["thread"] = self._fields["thread_id"]
        return self

    async def create_and_watch(self) -> None:
        await self._create()
        await self._watch()

    async def stream(self) -> None:
        seen = Seen(f"the stream of {self._request}", self._name)
        await watch(seen, executing(self._channel, self._agent, **self._fields), self._patience)
        self._acknowledge(seen.events[0].thread)
        self._history.seen.append(seen)

    async def execute(self) -> None:
        thread = await self._client.execute(self._agent, **self._fields)
        self._acknowledge(thread.name)

    async def create_twice(self) -> None:
        await asyncio.gather(self._create(), self._create())
        await self._watch()

    async def cancel(self) -> None:
        await self._create()
        await self._events(self.chance.randint(0, EVENTS_BEFORE_MAX))
        try:
            thread = await self._client.cancel_thread(self._name, request_id=f"cancel-{self._request}")
        except StateConflict:
            return  # it had ended before
        self._history.ended.append(Ended(thread.name, Thread.CANCELLED, _now()))

    async def complete(self) -> None:
        await self._create()
        await self._events(self.chance.randint(0, EVENTS_BEFORE_MAX))
        state = self.chance.choice((Thread.COMPLETED, Thread.FAILED))
        try:
            thread = await self._client.complete_thread(
                self._name, state, output=Content(text=BY_CALLER), request_id=f"complete-{self._request}"
            )
        except StateConflict:
            return
        self._history.ended.append(Ended(thread.name, state, _now(), BY_CALLER))

    async def pause_and_resume(self) -> None:
        await self._create()
        await self._events(self.chance.randint(0, EVENTS_BEFORE_MAX))
        try:
            await self._client.pause_thread(self._name, request_id=f"pause-{self._request}")
            await self._client.resume_thread(self._name, request_id=f"resume-{self._request}")
        except StateConflict:
            return
        await self._watch()

    async def _create(self) -> None:
        made = await self._client.create_thread(self._agent, **self._fields)
        self._acknowledge(made.name)

    def _acknowledge(self, name: str) -> None:
        self._history.acknowledged.append(Acknowledged(self._request, name))

    async def _watch(self) -> None:
        seen = Seen(f"the watcher of {self._request}", self._name)
        await watch(seen, watching(self._channel, self._name), self._patience)
        self._history.seen.append(seen)

    async def _events(self, count: int) -> None:
        """Returns once the thread has so many events, or has ended."""
        if count:
            async for event in self._client.watch(self._name):
                if event.sequence >= count:
                    return

    def _patience(self) -> int:
        return self.chance.randint(1, MESSAGES_MAX)


def _ways() -> dict[Callable[[Caller], Awaitable[None]], float]:
    """With their shares. A control that the server does not have yet is not asked."""
    ways: dict[Callable[[Caller], Awaitable[None]], float] = {
        Caller.create_and_watch: 0.30,
        Caller.stream: 0.20,
        Caller.execute: 0.20,
        Caller.create_twice: 0.05,
        Caller.cancel: 0.10,
    }
    if hasattr(ThreadServicer, "CompleteThread"):
        ways[Caller.complete] = 0.07
    if hasattr(ThreadServicer, "PauseThread") and hasattr(ThreadServicer, "ResumeThread"):
        ways[Caller.pause_and_resume] = 0.08
    return ways


WAYS = _ways()


def _now() -> int:
    return time.monotonic_ns() // 1000
