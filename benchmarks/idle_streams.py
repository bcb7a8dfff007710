"""Idle subscribers beside their floor: `python -m benchmarks.idle_streams --streams 10000`.

Most watch one of a few threads that wait, the others all threads. Shown are the memory that a stream costs
the server, what heartbeats cost, what other callers notice, and how long it takes until all watch again after
they hung up. The floor is a bare grpc.aio server whose streams send one message and then nothing.
"""

import argparse
import asyncio
import json
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from benchmarks.durable_loop import treadle_server
from benchmarks.measure import cpu_seconds, percentile, run_loop, serving, table
from benchmarks.subscribers import WATCH_THREADS, Crowd, Plan, watch_request
from treadle import Client
from treadle.v1 import server_info_pb2, thread_pb2

THREADS = 5
OF_ALL_THREADS = 0.1
"""Part of the streams that watch all threads."""
PATIENCE_SECONDS = 120.0
_SERVICE = "benchmarks.Idle"
_INFO = "/treadle.v1.AdminService/GetServerInfo"
_KIB = 1024


@dataclass(frozen=True, slots=True)
class Cost:
    """What idle streams cost a server."""

    label: str
    streams: int
    bytes_each: float
    open_seconds: float
    again_seconds: float
    """From hanging up all at once until all have brought a message again."""
    idle_cpu: float
    """Part of one processor, heartbeats included."""
    p99_before: float
    p99_beside: float
    p99_while_again: float


async def waiting_threads(client: Client, count: int = THREADS) -> list[str]:
    """Threads whose model does not answer: they go on for as long as the server lives, and say nothing."""
    await client.create_agent("waiting", model="scripted:" + json.dumps({"turns": [{"hang": True}]}))
    names = [(await client.create_thread("waiting", "Go.")).name for _ in range(count)]
    for name in names:
        while (await client.get_thread(name)).state != thread_pb2.Thread.RUNNING:  # noqa: ASYNC110 - a server of its own
            await asyncio.sleep(0.01)
    return names


def plans_for(threads: list[str], streams: int, processes: int) -> list[Plan]:
    """Streams of the threads, and some of all threads, shared out among processes."""
    every = int(streams * OF_ALL_THREADS)
    requests = tuple(watch_request(name) for name in threads)
    each, left = divmod(streams - every, processes)
    plans = [Plan(each + (number < left), requests=requests) for number in range(processes)]
    return [*plans, Plan(every, WATCH_THREADS)] if every else plans


async def until_open(count: Callable[[], Awaitable[int]], streams: int) -> float:
    """Seconds until the server has so many open streams."""
    began = time.monotonic()
    async with asyncio.timeout(PATIENCE_SECONDS):
        while await count() != streams:  # noqa: ASYNC110 - a server of its own
            await asyncio.sleep(0.02)
    return time.monotonic() - began


class Asker:
    """A caller of short calls beside the streams."""

    def __init__(self, channel: grpc.aio.Channel, path: str) -> None:
        self._ask: Any = channel.unary_unary(path)
        self.latencies: list[float] = []

    async def once(self) -> bytes:
        began = time.perf_counter()
        answer: bytes = await self._ask(b"")
        self.latencies.append(time.perf_counter() - began)
        return answer

    async def p99(self, calls: int = 500) -> float:
        self.latencies.clear()
        for _ in range(calls):
            await self.once()
        return self.taken()

    def taken(self) -> float:
        return percentile(self.latencies, 0.99)


async def until_all_watch(crowd: Crowd, asker: Asker) -> None:
    """Returns once every stream has brought a message since it began; the asker asks meanwhile.

    What the server counts as open may be a stream whose end it has not noticed yet.
    """
    async with asyncio.timeout(PATIENCE_SECONDS):
        while await crowd.watching() != crowd.streams:
            await asker.once()
            await asyncio.sleep(0.05)


async def measured(
    label: str,
    pid: int,
    target: str,
    path: str,
    count_of: Callable[[bytes], int],
    plans: list[Plan],
    idle: float,
) -> Cost:
    """Opens the streams, lets them be idle, and has them all come again."""
    async with grpc.aio.insecure_channel(target) as channel, Crowd(target, plans) as crowd:
        asker = Asker(channel, path)

        async def count() -> int:
            return count_of(await asker.once())

        before, resident = await asker.p99(), _resident(pid)
        await crowd.begin()
        opened = await until_open(count, crowd.streams)
        each = (_resident(pid) - resident) / crowd.streams
        cpu, began = cpu_seconds(pid), time.monotonic()
        await asyncio.sleep(idle)
        idle_cpu = (cpu_seconds(pid) - cpu) / (time.monotonic() - began)
        beside = await asker.p99()
        asker.latencies.clear()
        began = time.monotonic()
        await crowd.hang_up()
        await crowd.begin()
        await until_all_watch(crowd, asker)
        again = time.monotonic() - began
        return Cost(label, crowd.streams, each, opened, again, idle_cpu, before, beside, asker.taken())


def _resident(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * _KIB
    raise RuntimeError("the system does not tell what memory a process has")


async def run_treadle(streams: int, processes: int, idle: float) -> Cost:
    with tempfile.TemporaryDirectory(prefix="idle-") as folder:
        async with treadle_server(Path(folder)) as served:
            async with Client(served.target, api_key="") as client:
                threads = await waiting_threads(client)
            return await measured(
                *("treadle", served.pid, served.target, _INFO),
                lambda data: server_info_pb2.ServerInfo.FromString(data).statistics.stream_count,
                plans_for(threads, streams, processes),
                idle,
            )


async def run_floor(streams: int, processes: int, idle: float) -> Cost:
    each = streams // processes
    plans = [Plan(each, f"/{_SERVICE}/Watch") for _ in range(processes)]
    async with serving("benchmarks.idle_streams", "--serve") as served:
        return await measured(*("floor", served.pid, served.target, f"/{_SERVICE}/Count"), int, plans, idle)


class _Floor:
    """Bare handlers of bytes."""

    def __init__(self) -> None:
        self.open = 0

    async def watch(self, _: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        self.open += 1
        try:
            await context.write(b"x" * 300)
            await asyncio.get_running_loop().create_future()
        finally:
            self.open -= 1

    async def count(self, _: bytes, __: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        return b"%d" % self.open


@asynccontextmanager
async def _floor_server() -> AsyncIterator[int]:
    floor = _Floor()
    methods: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
        "Watch": grpc.unary_stream_rpc_method_handler(floor.watch),
        "Count": grpc.unary_unary_rpc_method_handler(floor.count),
    }
    options = (
        ("grpc.so_reuseport", 0),
        ("grpc.server.max_pending_requests", 20_000),
        ("grpc.server.max_pending_requests_hard_limit", 30_000),
    )
    server = grpc.aio.server(options=options)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(0)


async def _serve() -> None:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    async with _floor_server() as port:
        print(port, flush=True)
        await ended.wait()


def cells(cost: Cost) -> tuple[str, ...]:
    return (
        cost.label,
        str(cost.streams),
        f"{cost.bytes_each / _KIB:.1f}",
        f"{cost.open_seconds:.1f}",
        f"{cost.again_seconds:.1f}",
        f"{cost.idle_cpu * 100:.1f}",
        *(f"{seconds * 1000:.1f}" for seconds in (cost.p99_before, cost.p99_beside, cost.p99_while_again)),
    )


HEADERS = (
    *("", "streams", "KiB each", "open s", "again s", "idle CPU %"),
    *("p99 ms alone", "p99 ms beside", "p99 ms while again"),
)


async def main(options: argparse.Namespace) -> None:
    costs = [await run(options.streams, options.processes, options.idle) for run in (run_floor, run_treadle)]
    print(table(HEADERS, [cells(cost) for cost in costs]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.idle_streams", description=__doc__)
    parser.add_argument("--streams", type=int, default=10_000)
    parser.add_argument("--processes", type=int, default=4, help="that hold the streams")
    parser.add_argument("--idle", type=float, default=20.0, help="seconds; a heartbeat comes every 15")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    run_loop(_serve() if given.serve else main(given))
