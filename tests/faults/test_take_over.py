"""A frozen server is replaced; when it thaws it can do nothing more, and nobody was told otherwise."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import grpc
import pytest

from tests.faults.history import Acknowledged, History, check
from tests.faults.scripts import script
from tests.faults.shim.rules import Action, FaultyDisk, File, Operation, Rule
from tests.faults.site import AGENT, Site
from tests.faults.tool_server import WORLD_VARIABLE
from tests.faults.watching import threads as calls
from tests.server_process import ServerProcess
from tests.waiting import eventually
from treadle import Action as ToolAction
from treadle import Client, Retry, Thread
from treadle.calls import controls
from treadle.calls import threads as starts

ROOT = Path(__file__).parents[2]
FENCED = 75
THREADS = 200
SENDERS = 50
"""So many of them are in a call that must not be repeated."""
PENDING = 20
NOTICED_SECONDS = 5.0
"""It looks each second; the rest is for a machine that is busy."""
REFUSED_SECONDS = 30.0
TAKE_OVER = {"TREADLE_TAKE_OVER": "true"}
RETRY = Retry(first_delay_seconds=0.02, delay_seconds_max=0.1, call_seconds_max=60, stream_seconds_max=60)


@contextmanager
def heir_of(site: Site) -> Iterator[ServerProcess]:
    """A server that takes the file of the site's, on a port of its own."""
    environment = {**TAKE_OVER, WORLD_VARIABLE: site.world.tools}
    with ServerProcess(site.db, environment=environment, module="tests.faults.tool_server") as heir:
        yield heir


def client_of(server: ServerProcess) -> Client:
    return Client(server.address, api_key="", retry=RETRY, timeout=60)


def body(number: int) -> dict[str, object]:
    turns = [["send"], ["save"]] if number % (THREADS // SENDERS) == 0 else [["save"]]
    return script(f"t{number}", turns, more={tool: {"gate": tool} for tool in ("send", "save")})


async def create(client: Client, number: int) -> Acknowledged:
    request_id = f"request-{number}"
    made = await client.create_thread(AGENT, data=body(number), request_id=request_id, thread_id=f"t{number}")
    return Acknowledged(request_id, made.name)


def pending_calls(channel: grpc.aio.Channel) -> list["asyncio.Future[object]"]:
    """Calls that change something, at a server that cannot answer them now."""
    stub = calls(channel)
    made = [
        stub.CreateThread(
            starts.create_thread(
                AGENT, data=script(f"p{n}", []), request_id=f"pending-{n}", thread_id=f"p{n}"
            ).request  # type: ignore[arg-type]
        )
        for n in range(PENDING)
    ]
    ended = [stub.CancelThread(controls.cancel_thread(f"t{n}").request) for n in range(PENDING)]  # type: ignore[arg-type]
    return [asyncio.ensure_future(_outcome(call)) for call in (*made, *ended)]


async def _outcome(call: object) -> object:
    try:
        return await call  # type: ignore[misc]
    except grpc.aio.AioRpcError as failure:
        return failure.code()


@pytest.mark.timeout(240)
async def test_a_frozen_server_with_two_hundred_threads_is_replaced_and_does_nothing_more(site: Site) -> None:
    await site.start()
    async with site.client() as old, site.channel() as channel:
        acknowledged = list(await asyncio.gather(*(create(old, number) for number in range(THREADS))))
        await eventually(lambda: len(site.ledger.effects()) == THREADS)
        await old.get_server_info()
        frozen_pid = site.server.pid
        site.server.signal(signal.SIGSTOP)
        pending = pending_calls(channel)

        with heir_of(site) as heir:
            await asyncio.to_thread(heir.start)
            async with client_of(heir) as client:
                await eventually(lambda: len(site.ledger.effects()) == 2 * THREADS)
                site.open_gate("send")
                site.open_gate("save")
                for each in acknowledged[: THREADS // 2]:
                    async for _ in client.watch(each.thread):
                        pass

                site.server.signal(signal.SIGCONT)

                assert await site.ended() == FENCED
                outcomes = Counter(await asyncio.gather(*pending))
                assert outcomes.keys() <= {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
                assert outcomes.total() == 2 * PENDING
                for each in acknowledged:
                    async for _ in client.watch(each.thread):
                        pass
                history = await History(acknowledged, ledger=site.ledger.all()).read(client)
                again = await client.create_thread(
                    AGENT, data=script("p0", []), request_id="pending-0", thread_id="p0"
                )
                assert again.name == "threads/p0"
                assert (await client.get_server_info()).epoch > 1
                assert heir.pid != frozen_pid

    check(history)
    assert len(history.threads) == THREADS
    assert {thread.state for thread in history.threads.values()} == {Thread.COMPLETED}
    sent = [line for line in history.ledger if line.tool == "send" and line.step == "done"]
    assert len(sent) == SENDERS
    statuses = Counter(
        event.tool_call_completed.status
        for log in history.logs.values()
        for event in log
        if event.HasField("tool_call_completed")
    )
    assert statuses == {ToolAction.UNKNOWN: SENDERS, ToolAction.SUCCEEDED: THREADS}


async def freeze_between_changes(site: Site) -> None:
    """One that is frozen within a change cannot be replaced, only ended."""

    async def frozen() -> bool:
        site.server.signal(signal.SIGSTOP)
        await asyncio.to_thread(os.waitid, os.P_PID, site.server.pid, os.WSTOPPED | os.WNOWAIT)
        if can_be_changed(site.db):
            return True
        site.server.signal(signal.SIGCONT)
        return False

    await eventually(frozen)


def can_be_changed(path: Path) -> bool:
    with closing(sqlite3.connect(path, timeout=0)) as database:
        try:
            database.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return False
    return True


@pytest.mark.parametrize("frozen", [True, False], ids=["frozen", "well"])
async def test_a_server_that_writes_nothing_notices_too_that_it_was_replaced(
    site: Site, frozen: bool
) -> None:
    await site.start()
    if frozen:
        await freeze_between_changes(site)

    with heir_of(site) as heir:
        await asyncio.to_thread(heir.start)
        began = time.monotonic()
        site.server.signal(signal.SIGCONT)

        assert await site.ended() == FENCED
        assert time.monotonic() - began < NOTICED_SECONDS
        async with client_of(heir) as client:
            made = await client.execute(AGENT, data=script("t1", [["save"]]))
        assert made.state == Thread.COMPLETED


async def test_a_server_that_is_stopped_as_it_thaws_leaves_the_file_to_the_other(site: Site) -> None:
    await site.start()
    site.server.signal(signal.SIGSTOP)

    with heir_of(site) as heir:
        await asyncio.to_thread(heir.start)
        async with client_of(heir) as client:
            made = await client.execute(AGENT, data=script("t1", [["save"]]))
            site.server.signal(signal.SIGTERM)
            site.server.signal(signal.SIGCONT)

            assert await site.ended() == FENCED
            assert (await client.get_thread(made.name)).state == Thread.COMPLETED
        assert await asyncio.to_thread(heir.terminate) == 0


@pytest.mark.parametrize("how", ["replaced", "deleted"])
async def test_a_server_whose_file_is_not_there_any_more_stops(site: Site, how: str) -> None:
    await site.start()
    if how == "replaced":
        site.db.with_name("other.db").write_bytes(b"")
        site.db.with_name("other.db").replace(site.db)
    else:
        site.db.unlink()

    assert await site.ended() == FENCED


async def take_over_refused(db: Path) -> str:
    """What a server says that was to take the file over and cannot."""
    command = [sys.executable, "-m", "treadle_server", "--db", str(db), "--listen", "127.0.0.1:0"]
    began = time.monotonic()
    ran = await asyncio.to_thread(
        subprocess.run,
        [*command, "--take-over"],
        capture_output=True,
        text=True,
        timeout=REFUSED_SECONDS,
        cwd=ROOT,
    )
    assert ran.returncode == 1
    assert "Traceback" not in ran.stderr
    assert 4 < time.monotonic() - began < 20, "it waits for the lock, and not for ever"
    return ran.stderr


async def test_a_server_frozen_within_a_commit_cannot_be_replaced_and_goes_on_when_it_thaws(
    tmp_path: Path, prepared: Path, shims: Path
) -> None:
    folder = tmp_path / "site"
    slow = Rule(Action.SLOW, (Operation.SYNC,), (File.LOG,), milliseconds=1000)
    with FaultyDisk(tmp_path / "disk", shims, folder / "treadle.db") as disk:
        async with Site(folder, prepared=prepared, **disk.environment) as site:
            await site.start()
            async with site.client() as client:
                with disk.failing(slow):
                    creating = asyncio.create_task(client.create_thread(AGENT, data=script("t1", [["save"]])))
                    await eventually(lambda: disk.hits() == 1)
                    site.server.signal(signal.SIGSTOP)

                said = await take_over_refused(site.db)

                assert f"process {site.server.pid} was frozen within a change" in said
                assert f"kill -KILL {site.server.pid}" in said
                site.server.signal(signal.SIGCONT)
                made = await creating
                async for _ in client.watch(made.name):
                    pass
                assert (await client.get_thread(made.name)).state == Thread.COMPLETED


async def test_what_a_failed_take_over_leaves_is_the_lock_of_the_one_that_has_it(site: Site) -> None:
    await site.start(failpoints="request.before#1=hang")
    async with site.client() as client, site.client(timeout=2) as impatient:
        with pytest.raises(Exception, match="DEADLINE_EXCEEDED"):
            await impatient.create_thread(AGENT, data=script("t1", []), request_id="r1")
        site.server.signal(signal.SIGSTOP)
        await take_over_refused(site.db)

        plain = [sys.executable, "-m", "treadle_server", "--db", str(site.db), "--listen", "127.0.0.1:0"]
        ran = await asyncio.to_thread(
            subprocess.run, plain, capture_output=True, text=True, timeout=REFUSED_SECONDS, cwd=ROOT
        )
        assert f"is served by process {site.server.pid}" in ran.stderr

        await site.restart()
        made = await client.create_thread(AGENT, data=script("t1", []), request_id="r1")
        async for _ in client.watch(made.name):
            pass
        assert [thread.name async for thread in client.list_threads()] == [made.name]
        assert (await client.get_server_info()).epoch == 3
