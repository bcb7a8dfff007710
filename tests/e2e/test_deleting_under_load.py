"""Threads and agents that are deleted while they work: cancelled, hidden, purged, and their readers told."""

import asyncio
import json
import sqlite3
from contextlib import aclosing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.rpc.failures import failure_of
from tests.rpc.rig import Rig, running
from tests.rpc.runs import (
    DONE,
    HANG,
    HOLD,
    HeldTool,
    Thread,
    collected,
    create,
    create_request,
    ended,
    get,
    kinds,
    make_agent,
    pb,
    watch,
)
from tests.server_process import ServerProcess
from tests.waiting import eventually
from treadle import (
    AgentLimits,
    Client,
    FailedPrecondition,
    NotFound,
    OutOfRange,
    Retry,
    StateConflict,
    ThreadEvent,
)
from treadle.v1 import agent_service_pb2

_agents: Any = agent_service_pb2
CALL = {"calls": [{"name": "calculator", "arguments": {"expression": "6*7"}}], "delay_ms": 15}
BUSY = "scripted:" + json.dumps({"turns": [*[CALL] * 200, {"text": "Done."}]})
QUICK = "scripted:" + json.dumps({"turns": [CALL, {"text": "Done. " * 400}]})
HANGING = "scripted:" + json.dumps({"turns": [CALL, {"hang": True, "text": ""}]})
LONG = AgentLimits(max_iterations=1_000, max_tool_calls=1_000)
"""So that the threads are at work for as long as the slowest machine needs to delete them."""
SECONDS = 60.0
PATIENT = Retry(first_delay_seconds=0.05, delay_seconds_max=0.5, call_seconds_max=30, stream_seconds_max=30)


async def seen_by(client: Client, name: str, watching: asyncio.Event | None = None) -> list[ThreadEvent]:
    """All events of a watch that must end with OK."""
    events = []
    async with aclosing(client.watch(name)) as stream:
        async for event in stream:
            events.append(event)
            if watching is not None and event.HasField("tool_call_completed"):
                watching.set()
    return events


async def missing(client: Client, name: str) -> bool:
    try:
        await client.get_thread(name)
    except NotFound:
        return True
    return False


async def test_forty_threads_at_work_are_deleted_and_their_readers_see_the_end(server: ServerProcess) -> None:
    async with Client(server.address) as client, asyncio.timeout(SECONDS):
        await client.create_agent("busy", model=BUSY, tool_groups=["toolGroups/builtin"], limits=LONG)
        await client.create_agent("hanging", model=HANGING, tool_groups=["toolGroups/builtin"])
        names = [
            (await client.create_thread(agent, "Go.")).name
            for agent in ("busy", "hanging")
            for _ in range(20)
        ]
        at_work = [asyncio.Event() for _ in names]
        readers = [
            asyncio.create_task(seen_by(client, name, event))
            for name, event in zip(names, at_work, strict=True)
        ]
        for event in at_work:
            await event.wait()

        await asyncio.gather(*(client.delete_thread(name, force=True) for name in names))
        logs = await asyncio.gather(*readers)

        for events in logs:
            assert [event.sequence for event in events] == [*range(1, len(events) + 1)]
            assert events[-1].thread_ended.state == Thread.CANCELLED
            assert [event.HasField("thread_ended") for event in events].count(True) == 1
        assert all([await missing(client, name) for name in names])
        assert [thread async for thread in client.list_threads()] == []
        for agent in ("busy", "hanging"):
            await client.delete_agent(agent)

    server.kill()
    server.start()
    async with Client(server.address) as client:
        assert all([await missing(client, name) for name in names])


async def test_an_agent_that_is_deleted_ends_its_threads_that_run_and_wait(server: ServerProcess) -> None:
    async with Client(server.address) as client, asyncio.timeout(SECONDS):
        await client.create_agent("busy", model=BUSY, tool_groups=["toolGroups/builtin"], limits=LONG)
        names = [(await client.create_thread("busy", "Go.", session_key=f"s{n % 5}")).name for n in range(20)]
        readers = [asyncio.create_task(seen_by(client, name)) for name in names]
        with pytest.raises(StateConflict):
            await client.delete_agent("busy")

        await client.delete_agent("busy", force=True)
        logs = await asyncio.gather(*readers)

        for name, events in zip(names, logs, strict=True):
            assert events[-1].thread_ended.stop_reason == Thread.AGENT_DISABLED
            assert (await client.get_thread(name)).agent == "agents/busy"
        with pytest.raises(FailedPrecondition) as refused:
            await client.create_thread("busy", "Go.")
        assert refused.value.reason == "AGENT_DISABLED"


async def test_tools_in_flight_are_given_up_when_their_threads_are_deleted(tmp_path: Path) -> None:
    tool = HeldTool()
    async with running(tmp_path / "t.db", make_toolbox=tool) as rig, asyncio.timeout(SECONDS):
        await make_agent(rig, "helper", HOLD, DONE)
        names = [(await create(rig)).name for _ in range(30)]
        await eventually(lambda: tool.calls == 30)
        readers = [asyncio.create_task(collected(watch(rig, name))) for name in names]

        deletes = [pb.DeleteThreadRequest(name=name, force=True, request_id=name[-32:]) for name in names]
        await asyncio.gather(*(rig.threads.DeleteThread(each) for each in deletes))
        await asyncio.gather(*(rig.threads.DeleteThread(each) for each in deletes))

        for events in await asyncio.gather(*readers):
            assert kinds(events)[-1] == "thread_ended"
            (completed,) = [
                event.tool_call_completed for event in events if event.HasField("tool_call_completed")
            ]
            assert completed.status
        await eventually(lambda: rig.server._engine.running_count == 0)
        while await rig.server.store.housekeeping.purge_threads():
            pass
        await rig.server.store.housekeeping.prune_commits()
        for table in ("events", "thread_details", "commits", "specs"):
            assert await rig.server.store.readers.rows(f"SELECT count(*) FROM {table}") == [(0,)], table


async def test_the_purge_of_an_agent_loses_no_thread_of_it(tmp_path: Path) -> None:
    """A thread can be made while its agent is deleted: it was accepted, so it ends in its own way."""
    tool = HeldTool()
    options: dict[str, Any] = {"make_toolbox": tool, "tenant_running_threads_max": 1}
    async with running(tmp_path / "t.db", **options) as rig:
        await make_agent(rig, "helper", HOLD, DONE)
        await create(rig, "running")
        await eventually(lambda: tool.calls == 1)
        await create(rig, "pending")
        await purge_agent(rig, "helper")
        for name in ("running", "pending"):
            assert (await get(rig, f"threads/{name}")).agent == "agents/helper"
        failure = await failure_of(rig.threads.CreateThread(create_request()))
        assert failure.reason == "RESOURCE_NOT_FOUND"

    async with running(tmp_path / "t.db", **options) as rig:
        tool.opening.set()
        for name in ("running", "pending"):
            found = await ended(rig, f"threads/{name}")
            assert (found.state, found.agent) == (Thread.COMPLETED, "agents/helper")
            assert found.agent_version == "agents/helper/versions/1"


async def test_a_thread_that_waits_in_a_call_ends_after_its_agent_was_purged(tmp_path: Path) -> None:
    async with running(tmp_path / "t.db") as rig:
        await make_agent(rig, "helper", HANG)
        await create(rig, "t1")
        await purge_agent(rig, "helper")

        cancelled = await rig.threads.CancelThread(pb.CancelThreadRequest(name="threads/t1"))

        assert (cancelled.state, cancelled.agent) == (Thread.CANCELLED, "agents/helper")


async def purge_agent(rig: Rig, agent_id: str) -> None:
    """As 30 days after a deletion that did not see the threads that were being made."""
    store = rig.server.store
    row = await store.agents.get(1, agent_id)
    assert row is not None
    await store.agents.delete(row, delete_time=row.update_time, purge_time=row.update_time)
    assert await store.housekeeping.purge_agents(row.update_time) == 1


def in_file(db: Path, sql: str) -> int:
    """The number that a query gives, beside the server that has the file."""
    connection = sqlite3.connect(f"{db.as_uri()}?mode=ro", uri=True)
    try:
        return int(connection.execute(sql).fetchone()[0])
    finally:
        connection.close()


async def test_the_file_stays_as_large_as_what_is_kept(server: ServerProcess) -> None:
    """Rounds of threads that expire: the file gives their space back, and grows by no more than their ids."""
    sizes = []

    async def tidied() -> bool:
        """A change of the retention lets the server look again."""
        await client.update_tenant("default", thread_retention=timedelta(seconds=1))
        events = "SELECT count(*) FROM events"
        return not in_file(server.db, events) and not in_file(server.db, "PRAGMA freelist_count")

    async def restarted() -> int:
        """The size of the file once all is in it."""
        assert await asyncio.to_thread(server.terminate) == 0
        size = server.db.stat().st_size
        await asyncio.to_thread(server.start)
        return size

    async with Client(server.address, retry=PATIENT) as client, asyncio.timeout(2 * SECONDS):
        await client.create_agent("quick", model=QUICK, tool_groups=["toolGroups/builtin"])
        for _ in range(3):
            threads = await asyncio.gather(*(client.execute("quick", "Go.") for _ in range(150)))
            full = await restarted()

            await eventually(tidied, seconds=SECONDS, pause_seconds_max=0.05)
            await client.update_tenant("default", clear_thread_retention=True)

            sizes.append(await restarted())
            assert sizes[-1] < full / 3
            with pytest.raises(OutOfRange) as gone:
                await seen_by(client, threads[0].name)
            assert gone.value.reason == "SEQUENCE_OUT_OF_RANGE"

    growth = (sizes[-1] - sizes[0]) / 300
    assert growth < 1_000, f"{growth:.0f} bytes for the id and the request of each thread that is gone"
