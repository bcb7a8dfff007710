"""Memories and a server that is killed: what was acknowledged is found, and nothing is there twice."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server_process import ServerProcess
from treadle import Client, Memory, MemoryRule, Retry, Thread
from treadle_server.stores.sqlite.checking import open_inspection

SIGKILLED = -9
PATIENT = Retry(first_delay_seconds=0.02, delay_seconds_max=0.1, call_seconds_max=60, stream_seconds_max=60)
SAVE = {"calls": [{"name": "save_memory", "arguments": {"text": "Likes green."}}]}
SAVER = "scripted:" + json.dumps({"turns": [SAVE, {"text": "Done."}]})


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    """On the same port after each start."""
    with ServerProcess(tmp_path / "t.db") as process:
        yield process.start()


async def started_again(server: ServerProcess, failpoints: str = "") -> None:
    await asyncio.to_thread(server.kill)
    await asyncio.to_thread(server.start, TREADLE_FAILPOINTS=failpoints)


async def killed_by_itself(server: ServerProcess) -> None:
    assert await asyncio.to_thread(server.wait) == SIGKILLED
    await asyncio.to_thread(server.start, TREADLE_FAILPOINTS="")


async def kept(client: Client) -> list[Memory]:
    listed = [memory async for memory in client.list_memories("team")]
    found = [memory async for memory in client.search_memories("green", "team")]
    assert listed == found
    return listed


def problems(path: Path) -> list[str]:
    inspection = open_inspection(path)
    try:
        return [*inspection.structure(), *inspection.rows()]
    finally:
        inspection.close()


@pytest.mark.parametrize("failpoint", ["effect.before", "effect.after", "result.before"])
async def test_a_save_that_a_kill_interrupted_is_there_once(server: ServerProcess, failpoint: str) -> None:
    async with Client(server.address, retry=PATIENT) as client:
        await client.create_agent("saver", model=SAVER, memory_rules=[MemoryRule(namespace="team")])
        await started_again(server, f"{failpoint}=kill")
        running = asyncio.create_task(client.execute("saver", "Go.", request_id="r"))
        await killed_by_itself(server)

        thread = await running
        (memory,) = await kept(client)

    assert thread.state == Thread.COMPLETED
    assert (memory.text, memory.thread) == ("Likes green.", thread.name)
    await asyncio.to_thread(server.kill)
    assert problems(server.db) == []


@pytest.mark.parametrize("failpoint", ["request.before", "request.after", "send.before"])
async def test_a_put_that_a_kill_interrupted_is_done_once(server: ServerProcess, failpoint: str) -> None:
    async with Client(server.address, retry=PATIENT) as client:
        before = await client.put_memory("team", "colour", text="Likes blue.")
        await started_again(server, f"{failpoint}=kill")
        putting = asyncio.create_task(client.put_memory("team", "colour", text="Likes green."))
        await killed_by_itself(server)

        made = await putting
        (memory,) = await kept(client)

    assert memory == made
    assert made.create_time == before.create_time
    await asyncio.to_thread(server.kill)
    assert problems(server.db) == []


async def test_what_was_acknowledged_before_a_kill_is_found_after_it(server: ServerProcess) -> None:
    async with Client(server.address, retry=PATIENT) as client:
        made = [await client.put_memory("team", f"k{number}", text="Likes green.") for number in range(20)]
        await client.delete_memory("team", "k7")
        changed = await client.put_memory("team", "k3", text="Likes blue.")
        await started_again(server)

        found = [memory async for memory in client.search_memories("green", "team")]
        listed = [memory async for memory in client.list_memories("team")]

    left = [memory for memory in reversed(made) if memory not in (made[7], made[3])]
    assert found == left
    assert sorted(memory.name for memory in listed) == sorted(m.name for m in (*left, changed))
