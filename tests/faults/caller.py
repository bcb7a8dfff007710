"""A caller of a fault run: makes a thread in one of many ways, asks again after unknown outcomes, and writes
down what it was told.
"""

import asyncio
import random
import time
from typing import Any

import grpc

from tests.faults.evidence import Acknowledged, Ended, History
from tests.faults.scripts import random_script
from tests.faults.site import AGENT, GOOGLE_AGENT
from tests.faults.watching import Seen, executing, watch, watching
from treadle import Client, StateConflict, Thread
from treadle.v1.content_pb2 import Content

MESSAGES_MAX = 6
"""Somebody who watches hangs up after at most so many messages."""
EVENTS_BEFORE_MAX = 12
"""A control is asked after at most so many events."""
BY_CALLER = "ended by its caller"


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
        self.client = client
        self.channel = channel
        self.history = history
        self.name = f"threads/{thread_id}"
        self.request = f"request-{thread_id}"
        self.agent = AGENT
        self.fields: dict[str, Any] = {
            "data": random_script(thread_id, chance),
            "thread_id": thread_id,
            "request_id": self.request,
        }

    def ask_google(self) -> None:
        """The model is the world's, over HTTP, unless the way wants another agent."""
        self.agent = GOOGLE_AGENT
        self.fields["data"]["thread"] = self.fields["thread_id"]

    async def create_and_watch(self) -> None:
        await self.create()
        await self.watch()

    async def stream(self) -> None:
        seen = Seen(f"the stream of {self.request}", self.name)
        await watch(seen, executing(self.channel, self.agent, **self.fields), self.patience)
        self.acknowledge(seen.events[0].thread)
        self.history.seen.append(seen)

    async def execute(self) -> None:
        thread = await self.client.execute(self.agent, **self.fields)
        self.acknowledge(thread.name)

    async def create_twice(self) -> None:
        await asyncio.gather(self.create(), self.create())
        await self.watch()

    async def cancel(self) -> None:
        await self.create()
        await self.events(self.chance.randint(0, EVENTS_BEFORE_MAX))
        try:
            thread = await self.client.cancel_thread(self.name, request_id=f"cancel-{self.request}")
        except StateConflict:
            return  # it had ended before
        self.history.ended.append(Ended(thread.name, Thread.CANCELLED, now()))

    async def complete(self) -> None:
        await self.create()
        await self.events(self.chance.randint(0, EVENTS_BEFORE_MAX))
        state = self.chance.choice((Thread.COMPLETED, Thread.FAILED))
        try:
            thread = await self.client.complete_thread(
                self.name, state, output=Content(text=BY_CALLER), request_id=f"complete-{self.request}"
            )
        except StateConflict:
            return
        self.history.ended.append(Ended(thread.name, state, now(), BY_CALLER))

    async def pause_and_resume(self) -> None:
        await self.create()
        await self.events(self.chance.randint(0, EVENTS_BEFORE_MAX))
        try:
            await self.client.pause_thread(self.name, request_id=f"pause-{self.request}")
            await self.client.resume_thread(self.name, request_id=f"resume-{self.request}")
        except StateConflict:
            return
        await self.watch()

    async def create(self) -> None:
        made = await self.client.create_thread(self.agent, **self.fields)
        self.acknowledge(made.name)

    def acknowledge(self, name: str) -> None:
        self.history.acknowledged.append(Acknowledged(self.request, name))

    async def watch(self) -> None:
        seen = Seen(f"the watcher of {self.request}", self.name)
        await watch(seen, watching(self.channel, self.name), self.patience)
        self.history.seen.append(seen)

    async def events(self, count: int) -> None:
        """Returns once the thread has so many events, or has ended."""
        if count:
            async for event in self.client.watch(self.name):
                if event.sequence >= count:
                    return

    def patience(self) -> int:
        return self.chance.randint(1, MESSAGES_MAX)


def now() -> int:
    """Micros of the clock that all processes share."""
    return time.monotonic_ns() // 1000
