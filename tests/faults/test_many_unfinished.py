"""A crash left thousands of threads in the middle of a model call: how soon they are served and go on."""

import asyncio
import sqlite3
import time
from functools import partial
from hashlib import sha256
from pathlib import Path

import pytest

from tests.faults.site import PATIENCE_SECONDS
from tests.server_process import ServerProcess
from tests.waiting import eventually
from treadle import Client, Thread
from treadle_server.clock import SteadyClock
from treadle_server.core.accept import advance, begin_ready
from treadle_server.core.draft import Draft
from treadle_server.core.events import SpecReference
from treadle_server.core.signals import Create
from treadle_server.core.spec import Spec
from treadle_server.core.state import State
from treadle_server.core.values import Content
from treadle_server.ports.log import NewThread, Projection, ThreadKey, Unit
from treadle_server.stores.sqlite.store import SqliteStore
from treadle_server.wire.codec import ProtoCodec

MODEL = 'scripted:{"turns": [{"text": "Done.", "delay_ms": 600000}]}'
DRIVEN_SECONDS_MAX = 10.0
EVERYBODY_RUNS = {
    "TREADLE_RUNNING_THREADS_MAX": "20000",
    "TREADLE_TENANT_RUNNING_THREADS_MAX": "20000",
}


def unfinished(codec: ProtoCodec, spec: Spec, key: ThreadKey, now: int) -> Unit:
    """A thread whose server died during its first model call."""
    body = codec.encode_spec(spec)
    digest = sha256(body).digest()
    reference = SpecReference(spec.agent_version, f"sha256:{digest.hex()}", "scripted:")
    draft = advance(State(spec), Create(now, reference, Content("hello")))
    assert isinstance(draft, Draft)
    begin_ready(draft, now)
    state = draft.state
    wake_at = now + spec.limits.timeout_micros
    return Unit(
        key,
        0,
        [codec.encode(event) for event in draft.events],
        Projection(state.status, 0, state.iteration, 0, 0, 0, wake_at, state.state_time, state.start_time),
        new_thread=NewThread(f"t{key.thread}", 1, 1, 0, digest, body, create_time=now),
    )


async def leave_behind(path: Path, count: int) -> None:
    """As a server leaves them that is killed: nothing says that it stopped in order."""
    fatal: list[Exception] = []
    clock, codec = SteadyClock(), ProtoCodec()
    store = await SqliteStore.open(path, on_fatal=fatal.append, clock=clock)
    tenant = (await store.tenants.get_or_create("default", create_time=clock.now())).key
    await store.agents.create(tenant, "a", body=b"", version_body=b"", create_time=clock.now())
    spec = Spec("agents/a/versions/1", MODEL)
    tickets = [
        store.log.submit(unfinished(codec, spec, ThreadKey(tenant, store.log.allocate_thread()), clock.now()))
        for _ in range(count)
    ]
    await asyncio.gather(*(ticket.wait() for ticket in tickets))
    await store.close()
    assert fatal == []


def taken_up(path: Path) -> int:
    """Threads to which the present server has written."""
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        sql = "SELECT count(*) FROM threads WHERE epoch = (SELECT epoch FROM meta)"
        return int(connection.execute(sql).fetchone()[0])
    finally:
        connection.close()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("count", [2_000, pytest.param(10_000, marks=pytest.mark.soak)])
async def test_unfinished_threads_are_served_at_once_and_soon_driven(tmp_path: Path, count: int) -> None:
    path = tmp_path / "t.db"
    await leave_behind(path, count)
    server = ServerProcess(path, environment=EVERYBODY_RUNS)
    try:
        began = time.monotonic()
        await asyncio.to_thread(server.start)
        served = time.monotonic() - began
        async with Client(server.address, api_key="") as client:
            assert (await client.get_thread("t1")).state == Thread.RUNNING
            await eventually(partial(_all_taken_up, path, count), seconds=PATIENCE_SECONDS)
            driven = time.monotonic() - began
            assert (await client.get_server_info()).statistics.running_thread_count == count
    finally:
        await asyncio.to_thread(server.close)

    print(f"{count} unfinished threads: served after {served:.2f} s, all driven after {driven:.2f} s")
    assert served < 2 + count / 10_000
    assert driven < DRIVEN_SECONDS_MAX


def _all_taken_up(path: Path, count: int) -> bool:
    return taken_up(path) >= count
