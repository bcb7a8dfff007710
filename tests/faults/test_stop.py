"""SIGTERM at any time and with any caller: the server is gone within its bound, and what it said holds."""

import asyncio
import json
import os
import signal
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.faults.scripts import script
from tests.faults.shim.rules import Action, FaultyDisk, File, Operation, Rule
from tests.faults.site import AGENT, Site
from tests.faults.watching import threads as calls
from tests.server_process import ServerProcess
from tests.waiting import eventually
from treadle import Client, Thread, TreadleError
from treadle.v1.agent_pb2 import AgentLimits
from treadle.v1.thread_service_pb2 import WatchThreadRequest
from treadle_server.overdue import EXIT_OVERDUE, OVERDUE_SECONDS
from treadle_server.rpc.server import STOP_SECONDS

DRAIN_SECONDS = 1
BRIEF = {"TREADLE_DRAIN_SECONDS": str(DRAIN_SECONDS)}
SLACK_SECONDS = 5.0
"""For a machine that is busy."""
FILLING_ROWS = 20_000
SMALL_WINDOW = (("grpc.http2.bdp_probe", 0),)


def fill(db: Path) -> None:
    """Makes a copy of the file take a while."""
    connection = sqlite3.connect(db)
    with connection:
        connection.executemany(
            "INSERT INTO events (tenant, thread, sequence, kind, body, checksum) VALUES (9, 9, ?, 1, ?, 0)",
            ((number, os.urandom(8000)) for number in range(1, FILLING_ROWS)),
        )
    connection.close()


@asynccontextmanager
async def seconds_to_end(site: Site, *, code: int = 0) -> AsyncIterator[list[float]]:
    """Sends SIGTERM; at the end of the block the server must end with the code."""
    took: list[float] = []
    began = time.monotonic()
    site.server.signal(signal.SIGTERM)
    yield took
    assert await site.ended() == code
    took.append(time.monotonic() - began)


async def test_an_idle_server_stops_at_once(site: Site) -> None:
    await site.start()

    async with seconds_to_end(site) as took:
        pass

    assert took[0] < SLACK_SECONDS


async def test_health_tells_first_and_the_port_is_free_afterwards(tmp_path: Path, prepared: Path) -> None:
    async with Site(tmp_path / "site", prepared=prepared, TREADLE_DRAIN_SECONDS="60") as site:
        await site.start()
        async with site.client() as client, site.channel() as channel:
            body = script("held", [["send"]], more={"send": {"gate": "send"}})
            held = await client.create_thread(AGENT, data=body)
            await eventually(lambda: len(site.ledger.effects()) == 1)
            watching = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
            assert (await watching.read()).status == health_pb2.HealthCheckResponse.SERVING

            async with seconds_to_end(site):
                assert (await watching.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
                assert site.server.running
                watching.cancel()
                site.open_gate("send")
            address = site.server.address
            await site.start()
            assert site.server.address == address
            async for _ in client.watch(held.name):
                pass
            assert len(site.ledger.effects()) == 1


async def test_a_call_that_does_not_end_costs_no_more_than_the_drain_time(
    tmp_path: Path, prepared: Path
) -> None:
    async with Site(tmp_path / "site", prepared=prepared, **BRIEF) as site:
        await site.start()
        async with site.client() as client:
            body = script("held", [["send"]], more={"send": {"gate": "never"}})
            held = await client.create_thread(AGENT, data=body)
            await eventually(lambda: len(site.ledger.effects()) == 1)

            async with seconds_to_end(site) as took:
                pass

            assert DRAIN_SECONDS <= took[0] < DRAIN_SECONDS + SLACK_SECONDS
            await site.start()
            async for _ in client.watch(held.name):
                pass
            assert len(site.ledger.effects()) == 1


async def test_readers_that_do_not_read_hold_nobody_up(tmp_path: Path) -> None:
    turn = {"thought": "x" * 30_000, "calls": [{"name": "calculator", "arguments": {"expression": "1+1"}}]}
    with ServerProcess(tmp_path / "t.db", environment=BRIEF) as server:
        server.start()
        async with Client(server.address) as client:
            await client.create_agent(
                "wordy",
                model="scripted:" + json.dumps({"turns": [turn], "repeat": 40}),
                tool_groups=["toolGroups/builtin"],
                limits=AgentLimits(max_iterations=40),
            )
            ended = await client.execute("wordy", "Go.")
            async with grpc.aio.insecure_channel(server.address, options=SMALL_WINDOW) as channel:
                stalled = [calls(channel).WatchThread(WatchThreadRequest(name=ended.name)) for _ in range(20)]
                await asyncio.gather(*(stream.wait_for_connection() for stream in stalled))

                began = time.monotonic()
                assert await asyncio.to_thread(server.terminate) == 0
                took = time.monotonic() - began

                for stream in stalled:
                    stream.cancel()

    assert took < STOP_SECONDS + SLACK_SECONDS


@pytest.mark.parametrize("drain_seconds", ["0", "1"])
async def test_a_sync_that_takes_long_is_waited_for_and_its_change_is_there(
    tmp_path: Path, prepared: Path, shims: Path, drain_seconds: str
) -> None:
    folder = tmp_path / "site"
    slow = Rule(Action.SLOW, (Operation.SYNC,), (File.LOG,), milliseconds=3000)
    with FaultyDisk(tmp_path / "disk", shims, folder / "treadle.db") as disk:
        brief = {**disk.environment, "TREADLE_DRAIN_SECONDS": drain_seconds}
        async with Site(folder, prepared=prepared, **brief) as site:
            await site.start()
            async with site.client() as client:
                with disk.failing(slow):
                    creating = asyncio.create_task(
                        client.create_thread(AGENT, data=script("t1", []), thread_id="t1", request_id="r1")
                    )
                    await eventually(lambda: disk.hits() == 1)
                    async with seconds_to_end(site) as took:
                        pass
                assert took[0] < 3 + STOP_SECONDS + SLACK_SECONDS
                await site.start()
                assert (await creating).name == "threads/t1"
                assert [thread.name async for thread in client.list_threads()] == ["threads/t1"]


async def test_a_disk_that_does_not_answer_cannot_keep_the_process(
    tmp_path: Path, prepared: Path, shims: Path
) -> None:
    folder = tmp_path / "site"
    hanging = Rule(Action.SLOW, (Operation.SYNC,), (File.LOG,), milliseconds=60_000)
    with FaultyDisk(tmp_path / "disk", shims, folder / "treadle.db") as disk:
        async with Site(folder, prepared=prepared, **disk.environment, TREADLE_DRAIN_SECONDS="0") as site:
            await site.start()
            async with site.client() as client:
                with disk.failing(hanging):
                    creating = asyncio.create_task(client.create_thread(AGENT, data=script("t1", [])))
                    await eventually(lambda: disk.hits() == 1)
                    async with seconds_to_end(site, code=EXIT_OVERDUE) as took:
                        pass
                assert OVERDUE_SECONDS <= took[0] < OVERDUE_SECONDS + SLACK_SECONDS
                assert "stopping_took_too_long" in site.server.log_path.read_text()
                await site.start()
                made = await creating
                async for _ in client.watch(made.name):
                    pass


async def test_a_server_that_is_stopped_before_it_serves_ends_well_and_the_next_one_serves(
    tmp_path: Path, prepared: Path, shims: Path
) -> None:
    folder = tmp_path / "site"
    slow = Rule(Action.SLOW, (Operation.SYNC,), (File.LOG, File.MAIN), milliseconds=1000)
    with FaultyDisk(tmp_path / "disk", shims, folder / "treadle.db") as disk:
        async with Site(folder, prepared=prepared, **disk.environment) as site:
            with disk.failing(slow):
                starting = asyncio.create_task(site.start())
                await eventually(lambda: disk.hits() > 0)
                began = time.monotonic()
                site.server.signal(signal.SIGTERM)

                with pytest.raises(AssertionError, match="the server ended with 0"):
                    await starting
                assert time.monotonic() - began < SLACK_SECONDS
            await site.start()
            async with site.client() as client:
                ran = await client.execute(AGENT, data=script("t1", [["save"]]))
            assert ran.state == Thread.COMPLETED


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
async def test_a_server_that_ends_while_it_makes_a_backup_leaves_none_by_half(
    tmp_path: Path, prepared: Path, how: signal.Signals
) -> None:
    async with Site(tmp_path / "site", prepared=prepared, **BRIEF) as site:
        await asyncio.to_thread(fill, site.db)
        await site.start()
        folder = site.db.with_name("treadle.db-backups")
        async with Client(site.server.address) as client:
            making = asyncio.create_task(client.create_backup("one", request_id="r1"))
            await eventually(lambda: (folder / ".one.db.part").exists())
            began = time.monotonic()
            site.server.signal(how)

            assert await site.ended() == (0 if how is signal.SIGTERM else -how)
            assert time.monotonic() - began < DRAIN_SECONDS + SLACK_SECONDS
            assert not (folder / "one.db").exists()
            await site.start()
            made = await making
            assert made.name == "backups/one"
            assert [path.name for path in folder.iterdir()] == ["one.db"]


async def test_a_disk_that_fills_while_a_backup_is_made_refuses_it_and_nothing_else(
    tmp_path: Path, prepared: Path, shims: Path
) -> None:
    folder = tmp_path / "site"
    part = folder / "treadle.db-backups" / ".one.db.part"
    full = Rule(Action.NO_SPACE, (Operation.WRITE,), (File.MAIN,), first=3, count=0)
    with FaultyDisk(tmp_path / "disk", shims, part) as disk:
        async with Site(folder, prepared=prepared, **disk.environment) as site:
            await site.start()
            async with site.client() as client, site.client(timeout=1) as impatient:
                with disk.failing(full):
                    with pytest.raises(TreadleError) as failed:
                        await impatient.create_backup("one", timeout=1)
                    assert disk.hits() > 0
                    assert failed.value.reason == "DISK_FULL"
                    assert failed.value.retry_after is not None
                    assert 1.0 <= failed.value.retry_after <= 1.5
                    assert list(part.parent.iterdir()) == []
                    ran = await client.execute(AGENT, data=script("t1", [["save"]]))
                    assert ran.state == Thread.COMPLETED
                assert (await client.create_backup("one")).size_bytes > 0
