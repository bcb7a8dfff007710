"""Many idle streams held open from a few processes, which come again when a stream breaks off.

`python -m benchmarks.subscribers ADDRESS` is one such process; it is told what to do by lines of JSON on its
standard input. `Crowd` starts and tells them.
"""

import argparse
import asyncio
import json
import random
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import grpc
import grpc.aio

from benchmarks.measure import run_loop
from treadle import Client
from treadle.errors import TreadleError, error_of
from treadle.v1 import thread_service_pb2

STREAMS_PER_CHANNEL = 500
WATCH_THREAD = "/treadle.v1.ThreadService/WatchThread"
WATCH_THREADS = "/treadle.v1.ThreadService/WatchThreads"
_OPTIONS = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
)


@dataclass(frozen=True, slots=True)
class Plan:
    """What one process holds open: `streams` of each of the requests in turn, or of all threads."""

    streams: int
    path: str = WATCH_THREAD
    requests: tuple[str, ...] = ("",)
    """Request messages, as hexadecimal digits."""
    threads: tuple[str, ...] = ()
    """Watched with the project's own client instead; one that is empty stands for all threads."""


class Subscribers:
    """The streams of this process, and how each of them that ended did."""

    def __init__(self, address: str, plan: Plan) -> None:
        self._address = address
        self._plan = plan
        self._open: list[asyncio.Task[None]] = []
        self._channels: list[grpc.aio.Channel] = []
        self._client: Client | None = None
        self.statuses: Counter[str] = Counter()
        self.without_advice = 0
        """RESOURCE_EXHAUSTED that did not say when to come again."""
        self.watching = 0
        """Streams whose present call has brought a message; not those of the project's own client."""

    async def begin(self) -> None:
        plan = self._plan
        if plan.threads:
            self._client = Client(self._address, api_key="")
            names = [plan.threads[n % len(plan.threads)] for n in range(plan.streams)]
            self._open = [asyncio.create_task(self._watch(self._client, name)) for name in names]
            return
        requests = [bytes.fromhex(request) for request in plan.requests]
        for number in range(plan.streams):
            if number % STREAMS_PER_CHANNEL == 0:
                self._channels.append(grpc.aio.insecure_channel(self._address, options=_OPTIONS))
            task = self._follow(self._channels[-1], requests[number % len(requests)])
            self._open.append(asyncio.create_task(task))

    async def end(self) -> None:
        """Hangs up, all at once."""
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)
        for channel in self._channels:
            await channel.close()
        if self._client is not None:
            await self._client.close()
        self._open, self._channels, self._client = [], [], None

    async def _follow(self, channel: grpc.aio.Channel, request: bytes) -> None:
        watch: Any = channel.unary_stream(self._plan.path)
        while True:
            call, heard = watch(request, wait_for_ready=True), 0
            try:
                while await call.read() is not grpc.aio.EOF:
                    self.watching += 1 - heard
                    heard = 1
                self.statuses["OK"] += 1
                return
            except grpc.aio.AioRpcError as failure:
                pause = self._judge(error_of(failure))
            finally:
                self.watching -= heard
                call.cancel()
            await asyncio.sleep(pause)

    def _judge(self, error: TreadleError) -> float:
        self.statuses[error.code.name] += 1
        if error.code is grpc.StatusCode.RESOURCE_EXHAUSTED and error.retry_after is None:
            self.without_advice += 1
        return (error.retry_after or 0.2) * random.uniform(1.0, 1.1)

    async def _watch(self, client: Client, thread: str) -> None:
        """The client comes again by itself: whatever it raises is a fault."""
        try:
            stream: Any = client.watch(thread) if thread else client.watch_threads()
            async for _ in stream:
                pass
            self.statuses["OK"] += 1
        except TreadleError as error:
            self.statuses[error.code.name] += 1


class Crowd:
    """Subscribers in several processes."""

    def __init__(self, address: str, plans: Sequence[Plan]) -> None:
        self._address = address
        self._plans = plans
        self._processes: list[asyncio.subprocess.Process] = []

    @property
    def streams(self) -> int:
        return sum(plan.streams for plan in self._plans)

    async def begin(self) -> None:
        """Returns once all have been told to open their streams."""
        await self._tell("begin")

    async def hang_up(self) -> None:
        await self._tell("end")

    async def watching(self) -> int:
        """How many streams have brought a message since they began, or began again."""
        return sum(said["watching"] for said in await self._tell("report"))

    async def statuses(self) -> Counter[str]:
        """How streams have ended so far; `ADVICE_MISSING` counts refusals that did not say when to return."""
        found: Counter[str] = Counter()
        for said in await self._tell("report"):
            found.update(said["statuses"])
            if said["without_advice"]:
                found["ADVICE_MISSING"] += said["without_advice"]
        return found

    async def _tell(self, what: str) -> list[Any]:
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(f"{what}\n".encode())
        return [await _answer(process) for process in self._processes]

    async def __aenter__(self) -> Self:
        for plan in self._plans:
            text = json.dumps(
                {
                    "streams": plan.streams,
                    "path": plan.path,
                    "requests": plan.requests,
                    "threads": plan.threads,
                }
            )
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "benchmarks.subscribers", self._address, "--plan", text),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
            self._processes.append(process)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            if process.returncode is None:
                process.kill()
            await process.wait()


async def _answer(process: asyncio.subprocess.Process) -> Any:
    assert process.stdout is not None
    line = await asyncio.wait_for(process.stdout.readline(), 120)
    if not line:
        raise RuntimeError("a process of subscribers has ended")
    return json.loads(line)


async def _serve(address: str, plan: Plan) -> None:
    subscribers = Subscribers(address, plan)
    lines = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    async for line in lines:
        command = line.decode().strip()
        if command == "begin":
            await subscribers.begin()
        elif command == "end":
            await subscribers.end()
        answer = {
            "statuses": subscribers.statuses,
            "without_advice": subscribers.without_advice,
            "watching": subscribers.watching,
        }
        print(json.dumps(answer), flush=True)


def watch_request(thread: str) -> str:
    """A request of `Plan.requests`."""
    return thread_service_pb2.WatchThreadRequest(name=thread).SerializeToString().hex()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.subscribers", description=__doc__)
    parser.add_argument("address")
    parser.add_argument("--plan", required=True)
    options = parser.parse_args()
    given = json.loads(options.plan)
    plan = Plan(given["streams"], given["path"], tuple(given["requests"]), tuple(given["threads"]))
    run_loop(_serve(options.address, plan))


if __name__ == "__main__":
    main()
