"""Threads that kill their server are found, and those that only were there are not."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.faults.poison_server import GROUP
from tests.server_process import ServerProcess
from tests.waiting import eventually
from treadle import Client, Retry, Thread

SIGKILLED = -9
DEATHS_MAX = 7
PATIENCE_SECONDS = 90.0
_RETRY = Retry(first_delay_seconds=0.02, delay_seconds_max=0.1, call_seconds_max=60, stream_seconds_max=60)
DEADLY = {"turns": [{"calls": [{"name": "taste", "arguments": {"deadly": True}}]}, {"text": "never said"}]}


def thinking(seconds: float) -> dict[str, object]:
    return {"turns": [{"text": "thought about it", "delay_ms": int(seconds * 1000)}]}


@asynccontextmanager
async def serving(path: Path) -> AsyncIterator[tuple[ServerProcess, Client]]:
    server = ServerProcess(path, module="tests.faults.poison_server")
    try:
        await asyncio.to_thread(server.start)
        async with Client(server.address, api_key="", retry=_RETRY, timeout=60) as client:
            await client.create_agent("taster", model="scripted:", tool_groups=[GROUP])
            yield server, client
    finally:
        await asyncio.to_thread(server.close)


async def all_ended(client: Client, names: list[str]) -> dict[str, Thread]:
    found: dict[str, Thread] = {}

    async def over() -> bool:
        for name in names:
            if name not in found:
                thread = await client.get_thread(name)
                if not thread.HasField("end_time"):
                    return False
                found[name] = thread
        return True

    await eventually(over, seconds=PATIENCE_SECONDS)
    return found


class Keeper:
    """Starts the server whenever it died."""

    def __init__(self, server: ServerProcess) -> None:
        self._server = server
        self.deaths = 0

    async def keep(self) -> None:
        while True:
            await eventually(lambda: not self._server.running, seconds=600)
            assert await asyncio.to_thread(self._server.wait) == SIGKILLED
            self.deaths += 1
            assert self.deaths < DEATHS_MAX
            await asyncio.to_thread(self._server.start)


@pytest.mark.timeout(300)
async def test_a_thread_that_kills_its_server_is_poisoned_and_fifteen_others_are_not(tmp_path: Path) -> None:
    async with serving(tmp_path / "t.db") as (server, client):
        others = [
            (await client.create_thread("taster", data=thinking(3), thread_id=f"innocent-{number}")).name
            for number in range(15)
        ]
        keeper = Keeper(server)
        keeping = asyncio.create_task(keeper.keep())
        made = await client.create_thread("taster", data=DEADLY, thread_id="deadly", request_id="r")
        ended = await all_ended(client, [made.name, *others])
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)

    poisoned = ended.pop(made.name)
    assert (poisoned.state, poisoned.stop_reason) == (Thread.FAILED, Thread.POISONED)
    assert "went down" in poisoned.error.message
    assert {(thread.state, thread.stop_reason) for thread in ended.values()} == {
        (Thread.COMPLETED, Thread.FINISHED)
    }
    assert 4 <= keeper.deaths < DEATHS_MAX


@pytest.mark.timeout(400)
@pytest.mark.parametrize("kills", [10, pytest.param(40, marks=pytest.mark.soak)])
async def test_a_server_that_is_killed_and_killed_poisons_nobody(tmp_path: Path, kills: int) -> None:
    chance = random.Random(7)
    async with serving(tmp_path / "t.db") as (server, client):
        names = [
            (await client.create_thread("taster", data=thinking(3), thread_id=f"t{number}")).name
            for number in range(10)
        ]
        for _ in range(kills):
            await asyncio.sleep(chance.uniform(0.05, 1.5))  # the time of the kill is what the test varies
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)
        ended = await all_ended(client, names)

    assert {(thread.state, thread.stop_reason) for thread in ended.values()} == {
        (Thread.COMPLETED, Thread.FINISHED)
    }


@pytest.mark.timeout(120)
async def test_a_server_that_is_stopped_in_order_again_and_again_suspects_nobody(tmp_path: Path) -> None:
    async with serving(tmp_path / "t.db") as (server, client):
        name = (await client.create_thread("taster", data=thinking(2), thread_id="t")).name
        for _ in range(4):
            await eventually(lambda: _in_flight(client, name))
            assert await asyncio.to_thread(server.terminate) == 0
            await asyncio.to_thread(server.start)
        (ended,) = (await all_ended(client, [name])).values()

    assert ended.state == Thread.COMPLETED
    assert "thread_suspected" not in server.log_path.read_text()


async def _in_flight(client: Client, name: str) -> bool:
    return (await client.get_thread(name)).state == Thread.RUNNING
