"""A start rate holds across kills: what began counts, and what did not is not counted."""

import asyncio
from functools import partial

import pytest
from google.protobuf.duration_pb2 import Duration

from tests.faults.site import Site
from tests.waiting import eventually
from treadle import AgentLimits, Client, Thread
from treadle.v1.thread_pb2 import WaitingFor

AGENT = "rated"
MODEL = 'scripted:{"turns": [{"text": "Done."}]}'
SIGKILLED = -9


async def make_agent(client: Client, max_starts: int, seconds: int) -> None:
    limits = AgentLimits(max_starts=max_starts, start_interval=Duration(seconds=seconds))
    await client.create_agent(AGENT, model=MODEL, limits=limits)


async def create(client: Client, count: int) -> list[str]:
    return [(await client.create_thread(AGENT, "Go.")).name for _ in range(count)]


async def state(client: Client, name: str) -> str:
    """COMPLETED, START_RATE when that is what it waits for, or something on the way."""
    thread = await client.get_thread(name)
    if [waiting.kind for waiting in thread.waiting_for] == [WaitingFor.START_RATE]:
        return "START_RATE"
    return Thread.State.Name(thread.state)


async def until(client: Client, names: list[str], *wanted: str) -> None:
    async def so() -> bool:
        return sorted([await state(client, name) for name in names]) == sorted(wanted)

    await eventually(so, what=str(wanted))


@pytest.mark.parametrize("failpoint", ["commit.before@3=kill", "commit.after@3=kill"])
async def test_a_server_that_dies_as_a_thread_begins_lets_one_begin_and_no_more(
    site: Site, failpoint: str
) -> None:
    await site.start()
    async with site.client() as client:
        await make_agent(client, 1, 3600)
        await site.kill()
        await site.start(failpoint)
        creating = asyncio.create_task(create(client, 1))  # it may begin in the commit that makes it
        assert await site.ended() == SIGKILLED
        await site.start()
        names = await creating + await create(client, 2)
        await until(client, names, "COMPLETED", "START_RATE", "START_RATE")

        await site.restart()
        await until(client, names, "COMPLETED", "START_RATE", "START_RATE")


async def test_in_no_interval_more_begin_though_the_server_is_killed_all_the_time(site: Site) -> None:
    await site.start()
    async with site.client() as client:
        await make_agent(client, 2, 3)
        names = await create(client, 6)
        for ended in (1, 3, 5):
            await eventually(partial(_completed, client, names, ended))
            await site.restart()
        await until(client, names, *["COMPLETED"] * 6)
        times = sorted([(await client.get_thread(name)).start_time.ToMicroseconds() for name in names])

    assert all(later - first >= 3_000_000 for first, later in zip(times, times[2:], strict=False))


async def _completed(client: Client, names: list[str], least: int) -> bool:
    return sum([await state(client, name) == "COMPLETED" for name in names]) >= least
