"""A crowd of subscribers: what it costs, and what it sees when the server goes and comes again."""

import asyncio
import time
from pathlib import Path

import grpc.aio
import pytest

from benchmarks.idle_streams import Asker, plans_for, until_all_watch, waiting_threads
from benchmarks.measure import percentile
from benchmarks.subscribers import Crowd, Plan
from tests.abuse.observed import faults_in, resident_bytes
from tests.server_process import ServerProcess
from tests.waiting import eventually
from treadle import Client
from treadle.v1 import server_info_pb2

BYTES_EACH_MAX = 35_000
AGAIN_SECONDS_MAX = 15.0
P99_BESIDE_SECONDS_MAX = 0.5
ALLOWED = {"UNAVAILABLE", "RESOURCE_EXHAUSTED"}
"""How a stream may end that its caller did not end. A refusal must say when to come again."""
CROWDS = [1_000, pytest.param(10_000, marks=pytest.mark.soak)]
_INFO = "/treadle.v1.AdminService/GetServerInfo"
_OPTIONS = (("grpc.use_local_subchannel_pool", 1), ("grpc.max_reconnect_backoff_ms", 500))


@pytest.fixture
def server(tmp_path: Path):  # type: ignore[no-untyped-def]
    with ServerProcess(tmp_path / "treadle.db") as process:
        yield process.start()


async def threads_of(server: ServerProcess) -> list[str]:
    async with Client(server.address, api_key="") as client:
        return await waiting_threads(client)


class Counting:
    """Asks the server how many streams are open, and remembers how long each answer took."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.asker = Asker(channel, _INFO)

    async def until_open(self, streams: int) -> float:
        """Returns after how many seconds so many are open; fails when they are not within the time."""
        began = time.monotonic()
        await eventually(
            lambda: self._has(streams), what=f"{streams} streams", seconds=60, pause_seconds_max=0.05
        )
        return time.monotonic() - began

    async def _has(self, streams: int) -> bool:
        try:
            answer = await self.asker.once()
        except grpc.aio.AioRpcError as failure:  # the server is not up yet
            if failure.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
            return False
        return streams == server_info_pb2.ServerInfo.FromString(answer).statistics.stream_count


@pytest.mark.parametrize("streams", CROWDS)
@pytest.mark.timeout(300)
async def test_idle_subscribers_cost_little_and_disturb_nobody(server: ServerProcess, streams: int) -> None:
    plans = plans_for(await threads_of(server), streams, 4)
    async with grpc.aio.insecure_channel(server.address, options=_OPTIONS) as channel:
        counting = Counting(channel)
        alone = await counting.asker.p99()
        before = resident_bytes(server.pid)
        async with Crowd(server.address, plans) as crowd:
            await crowd.begin()
            await counting.until_open(streams)
            each = (resident_bytes(server.pid) - before) / streams
            beside = await counting.asker.p99()
            statuses = await crowd.statuses()

            await crowd.hang_up()
            await counting.until_open(0)

    print(f"{each / 1000:.1f} kB each; p99 {alone * 1000:.1f} ms alone, {beside * 1000:.1f} ms beside")
    assert each <= BYTES_EACH_MAX
    assert beside <= max(P99_BESIDE_SECONDS_MAX, 2 * alone)
    assert set(statuses) <= {"RESOURCE_EXHAUSTED"}
    assert faults_in(server.log_path) == []


@pytest.mark.parametrize("streams", CROWDS)
@pytest.mark.parametrize("how", ["plain", "client"])
@pytest.mark.timeout(300)
async def test_all_watch_again_soon_after_the_server_was_killed(
    server: ServerProcess, streams: int, how: str
) -> None:
    threads = await threads_of(server)
    async with (
        grpc.aio.insecure_channel(server.address, options=_OPTIONS) as channel,
        Crowd(server.address, _plans(threads, streams, how)) as crowd,
    ):
        counting = Counting(channel)
        await crowd.begin()
        await counting.until_open(streams)

        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
        seconds = await counting.until_open(streams)

        statuses = await crowd.statuses()
    print(f"{streams} watch again after {seconds:.1f} s; streams ended with {dict(statuses)}")
    assert seconds <= AGAIN_SECONDS_MAX
    assert set(statuses) <= (ALLOWED if how == "plain" else set())
    assert faults_in(server.log_path) == []


@pytest.mark.parametrize("streams", CROWDS)
@pytest.mark.timeout(300)
async def test_all_watch_again_soon_after_they_hung_up(server: ServerProcess, streams: int) -> None:
    threads = await threads_of(server)
    async with (
        grpc.aio.insecure_channel(server.address, options=_OPTIONS) as channel,
        Crowd(server.address, _plans(threads, streams, "plain")) as crowd,
    ):
        counting = Counting(channel)
        await crowd.begin()
        await until_all_watch(crowd, counting.asker)
        await _come_again(crowd, counting)  # the first time costs what the next ones use
        before = resident_bytes(server.pid)

        seconds = await _come_again(crowd, counting)

        statuses = await crowd.statuses()
        grown = resident_bytes(server.pid) - before
    p99 = percentile(counting.asker.latencies, 0.99)
    print(f"{streams} watch again after {seconds:.1f} s, p99 of others {p99 * 1000:.0f} ms; {dict(statuses)}")
    assert seconds <= AGAIN_SECONDS_MAX
    assert set(statuses) <= ALLOWED
    assert grown <= streams * BYTES_EACH_MAX / 2
    assert faults_in(server.log_path) == []


async def _come_again(crowd: Crowd, counting: Counting) -> float:
    """Hangs up and begins again; returns after how many seconds all were watching, and only they."""
    counting.asker.latencies.clear()
    began = time.monotonic()
    await crowd.hang_up()
    await crowd.begin()
    await until_all_watch(crowd, counting.asker)
    seconds = time.monotonic() - began
    await counting.until_open(crowd.streams)
    return seconds


def _plans(threads: list[str], streams: int, how: str) -> list[Plan]:
    if how == "plain":
        return plans_for(threads, streams, 4)
    shares = [streams // 4] * 4
    return [Plan(share, threads=(*threads, *threads, "")) for share in shares]
