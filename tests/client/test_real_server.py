"""Both clients and the command line against a real server process, which is killed when it suits least."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.client.conftest import Handle
from tests.client.test_commands import finished, treadle
from tests.server_process import ServerProcess
from treadle import (
    AgentLimits,
    AlreadyExists,
    Client,
    DeadlineExceeded,
    InvalidArgument,
    NotFound,
    OutOfRange,
    Retry,
    StateConflict,
    SyncClient,
    Thread,
    ThreadEvent,
)

PATIENT = Retry(first_delay_seconds=0.05, delay_seconds_max=0.5, call_seconds_max=30, stream_seconds_max=30)
STEP = {"delay_ms": 40, "calls": [{"name": "calculator", "arguments": {"expression": "6*7"}}]}
LONG = {"turns": [*[STEP] * 8, {"text": "It is {observation}.", "delay_ms": 40, "pieces": 4}]}
SLOW = {"turns": [{"text": "one two three four five six", "pieces": 6, "delay_ms": 600}]}
HANGING = {"turns": [{"hang": True, "text": ""}]}


@pytest.fixture
def process(tmp_path: Path) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path / "treadle.db") as running:
        yield running.start()


@pytest_asyncio.fixture
async def client(process: ServerProcess) -> AsyncIterator[Client]:
    async with Client(process.address, retry=PATIENT) as made:
        yield made


@pytest_asyncio.fixture(params=[Client, SyncClient], ids=["asyncio", "blocking"])
async def handle(process: ServerProcess, request: pytest.FixtureRequest) -> AsyncIterator[Handle]:
    if request.param is Client:
        async with Client(process.address, retry=PATIENT) as made:
            yield Handle(made)
    else:
        with SyncClient(process.address, retry=PATIENT) as blocking:
            yield Handle(blocking)


async def agent(client: Client, **more: Any) -> str:
    made = await client.create_agent(model="scripted:", tool_groups=["toolGroups/builtin"], **more)
    return made.name


async def crash(process: ServerProcess) -> None:
    """Kills the server and starts another on its file and port."""
    await asyncio.to_thread(process.kill)
    await asyncio.to_thread(process.start)


class Seen:
    """Events as they come, from this loop or from another thread."""

    def __init__(self) -> None:
        self.events: list[ThreadEvent] = []
        self._loop = asyncio.get_running_loop()
        self._grown = asyncio.Event()

    def add(self, event: ThreadEvent) -> None:
        self.events.append(event)
        self._loop.call_soon_threadsafe(self._grown.set)

    async def until(self, holds: Callable[[list[ThreadEvent]], bool]) -> None:
        async with asyncio.timeout(30):
            while not holds(self.events):
                self._grown.clear()
                await self._grown.wait()


def _longer_than(count: int, events: list[ThreadEvent]) -> bool:
    return len(events) > count


def _is_end(event: ThreadEvent) -> bool:
    return event.WhichOneof("payload") == "thread_ended"


def assert_whole(events: list[ThreadEvent]) -> None:
    stored = [event for event in events if event.sequence]
    assert [event.sequence for event in stored] == [*range(1, len(stored) + 1)]
    assert [event.WhichOneof("payload") for event in stored].count("thread_ended") == 1
    assert stored[-1].thread_ended.state == Thread.COMPLETED


@pytest.mark.parametrize("kind", [Client, SyncClient], ids=["asyncio", "blocking"])
@pytest.mark.parametrize("crashes", [1, 3])
async def test_a_stream_misses_nothing_when_the_server_is_killed(
    process: ServerProcess, client: Client, kind: type[Client | SyncClient], crashes: int
) -> None:
    name, seen = await agent(client), Seen()

    async def read() -> None:
        async for event in client.stream(name, data=LONG):
            seen.add(event)

    def read_blocking() -> None:
        with SyncClient(process.address, retry=PATIENT) as blocking:
            for event in blocking.stream(name, data=LONG):
                seen.add(event)

    reading = asyncio.create_task(read() if kind is Client else asyncio.to_thread(read_blocking))
    for number in range(crashes):
        await seen.until(partial(_longer_than, 5 + 10 * number))
        await crash(process)
    async with asyncio.timeout(60):
        await reading

    assert_whole(seen.events)
    thread = seen.events[0].thread
    assert seen.events == [event async for event in client.list_events(thread, page_size=7)]


async def test_execute_gets_its_one_thread_though_the_server_is_killed(
    process: ServerProcess, client: Client
) -> None:
    name = await agent(client)
    waiting = asyncio.create_task(client.execute(name, data=LONG))
    async with asyncio.timeout(20):
        while not [thread async for thread in client.list_threads(filter="state = RUNNING")]:
            pass

    await crash(process)

    thread = await asyncio.wait_for(waiting, 60)
    assert (thread.state, thread.output.text) == (Thread.COMPLETED, "It is 42.")
    assert len(thread.iterations) == 9
    assert [each.name async for each in client.list_threads()] == [thread.name]


async def test_a_stream_goes_on_when_the_server_is_stopped_and_started(
    process: ServerProcess, client: Client
) -> None:
    name, seen = await agent(client), Seen()

    async def read() -> None:
        async for event in client.stream(name, data=LONG, include_deltas=True):
            seen.add(event)

    reading = asyncio.create_task(read())
    await seen.until(partial(_longer_than, 8))
    assert await asyncio.to_thread(process.terminate) == 0
    await asyncio.to_thread(process.start)
    await asyncio.wait_for(reading, 60)

    assert_whole(seen.events)


async def test_a_late_reader_gets_all_of_a_message_once(process: ServerProcess, client: Client) -> None:
    name = await agent(client)
    thread = await client.create_thread(name, data=SLOW)
    async with aclosing(client.watch(thread.name, include_deltas=True)) as early:
        async for event in early:
            if event.WhichOneof("payload") == "message_delta":
                break

    events = [event async for event in client.watch(thread.name, include_deltas=True)]

    pieces = [event.message_delta for event in events if event.WhichOneof("payload") == "message_delta"]
    assert "".join(piece.text for piece in pieces) == "one two three four five six"
    ends = [piece.offset + len(piece.text) for piece in pieces]
    assert [piece.offset for piece in pieces] == [0, *ends[:-1]]


async def test_events_of_all_threads_go_on_by_cursor_when_the_server_is_killed(
    process: ServerProcess, client: Client
) -> None:
    name, seen = await agent(client), Seen()

    async def read() -> None:
        async for batch in client.watch_threads(f'agent = "{name}"'):
            for event in batch.events:
                seen.add(event)

    reading = asyncio.create_task(read())
    # A watch of all threads begins with what happens next, so they are made until one is seen.
    while not seen.events:
        await client.create_thread(name, data=LONG)
        with suppress(TimeoutError):
            await asyncio.wait_for(seen.until(partial(_longer_than, 0)), 0.2)
    first = seen.events[0].thread
    last = (await client.create_thread(name, data=LONG)).name
    await crash(process)

    await seen.until(lambda events: {first, last} <= {each.thread for each in events if _is_end(each)})
    reading.cancel()
    for thread in (first, last):
        numbers = [event.sequence for event in seen.events if event.thread == thread]
        assert numbers == [*range(numbers[0], numbers[-1] + 1)]
    assert next(event for event in seen.events if event.thread == last).sequence == 1


async def test_the_same_request_id_makes_one_thread_and_another_body_is_refused(handle: Handle) -> None:
    agent = await handle.answer("create_agent", model="scripted:")
    given = {"data": SLOW, "request_id": "order-17"}

    first = await handle.answer("create_thread", agent.name, **given)
    second = await handle.answer("create_thread", agent.name, **given)

    assert first.name == second.name
    with pytest.raises(AlreadyExists) as refused:
        await handle.answer("create_thread", agent.name, "other", request_id="order-17")
    assert refused.value.reason == "REQUEST_ID_REUSED"


async def test_an_agents_life(handle: Handle) -> None:
    made = await handle.answer("create_agent", "helper", model="demo:react", instructions="Be brief.")
    changed = await handle.answer(
        "update_agent", "helper", instructions="", limits=AgentLimits(max_iterations=3), etag=made.etag
    )
    rolled_back = await handle.answer("rollback_agent", "helper", 1)

    assert (made.version, changed.version, rolled_back.version) == (1, 2, 3)
    assert (changed.instructions, rolled_back.instructions) == ("", "Be brief.")
    versions = await handle.items("list_agent_versions", "helper", page_size=2)
    assert [each.version for each in versions] == [3, 2, 1]
    assert (await handle.answer("get_agent_version", "helper", 2)).snapshot.limits.max_iterations == 3
    await handle.answer("delete_agent", "helper")
    assert await handle.items("list_agents") == []
    assert [each.name for each in await handle.items("list_agents", show_deleted=True)] == ["agents/helper"]
    assert not (await handle.answer("undelete_agent", "helper")).HasField("delete_time")


async def test_refusals_come_as_errors_of_their_kind(handle: Handle) -> None:
    with pytest.raises(NotFound) as absent:
        await handle.answer("get_thread", "nobody")
    assert absent.value.resource == "threads/nobody"

    with pytest.raises(InvalidArgument) as faulty:
        await handle.answer("create_agent", model="nobody:nothing")
    assert [violation.field for violation in faulty.value.violations] == ["agent.model"]

    await handle.answer("create_agent", "helper", model="demo:react")
    done = await handle.answer("execute", "helper", "What is 6*7?")
    assert done.state == Thread.COMPLETED
    with pytest.raises(StateConflict) as ended:
        await handle.answer("cancel_thread", done.name)
    assert ended.value.metadata["current_state"] == "COMPLETED"

    with pytest.raises(OutOfRange) as beyond:
        await handle.items("watch", done.name, after_sequence=done.last_sequence + 1)
    assert beyond.value.metadata["last"] == str(done.last_sequence)
    assert await handle.items("watch", done.name, after_sequence=done.last_sequence) == []


async def test_a_deadline_leaves_the_thread_at_work_until_it_is_cancelled(handle: Handle) -> None:
    agent = await handle.answer("create_agent", model="scripted:")

    with pytest.raises(DeadlineExceeded) as late:
        await handle.answer("execute", agent.name, data=HANGING, timeout=1.0)

    thread = late.value.thread
    assert (await handle.answer("get_thread", thread)).state == Thread.RUNNING
    cancelled = await handle.answer("cancel_thread", thread, reason="enough")
    assert cancelled.state == Thread.CANCELLED
    updated = await handle.answer("update_thread", thread, tags=["tried"])
    assert list(updated.tags) == ["tried"]
    assert [each.name for each in await handle.items("list_threads", filter='tags:"tried"')] == [thread]
    await handle.answer("delete_thread", thread)
    with pytest.raises(NotFound):
        await handle.answer("get_thread", thread)


async def test_a_key_that_was_made_opens_the_server(process: ServerProcess, handle: Handle) -> None:
    key = await handle.answer("create_api_key", "default", api_key_id="k", principal="ann", admin=True)

    with SyncClient(process.address, api_key=key.secret) as ann:
        assert await asyncio.to_thread(ann.get_server_info)
        assert {tool.name for tool in await asyncio.to_thread(list, ann.list_builtin_tools())} >= {
            "builtin/calculator"
        }
        assert (await asyncio.to_thread(ann.get_api_key, key.name)).secret == ""
    listed = await handle.items("list_api_keys", "default")
    assert [each.principal for each in listed] == ["ann"]
    await handle.answer("delete_api_key", key.name)


async def test_a_thread_that_expires_is_told_from_one_that_never_was(handle: Handle, client: Client) -> None:
    name = await agent(client)
    thread = (await handle.answer("execute", name, data={"turns": [{"text": "Done."}]})).name
    tenant = await handle.answer("update_tenant", "default", thread_retention=timedelta(seconds=1))
    assert tenant == await handle.answer("get_tenant", "tenants/default")

    async with asyncio.timeout(60):
        while [each.name for each in await handle.items("list_threads")]:
            await handle.answer("update_tenant", "default", thread_retention=timedelta(seconds=1))

    with pytest.raises(OutOfRange) as gap:
        await handle.items("watch", thread)
    assert gap.value.reason == "SEQUENCE_OUT_OF_RANGE"
    with pytest.raises(NotFound, match="expired"):
        await handle.answer("get_thread", thread)
    made = await handle.answer("create_tenant", "acme", display_name="Acme")
    assert [each.name for each in await handle.items("list_tenants")] == [made.name, "tenants/default"]


async def test_a_run_from_the_command_line(process: ServerProcess) -> None:
    made = await finished(
        process, "agents", "create", "--id", "h", "--model", "demo:react", "--tools", "builtin"
    )
    ran = await finished(process, "run", "h", "What is 6 * 7?")
    watched = await finished(process, "run", "h", "What is 6 * 7?", "--watch")
    listed = await finished(process, "threads", "--filter", "state = COMPLETED", "--json")

    assert made.out == "agents/h\n"
    assert (ran.code, "42" in ran.out) == (0, True)
    assert watched.code == 0
    for told in ("Iteration 1", "calculator {", "calculator → 42", "COMPLETED (FINISHED)"):
        assert told in watched.out
    assert len([json.loads(line) for line in listed.out.splitlines()]) == 2


async def test_a_run_that_was_left_by_ctrl_c_is_watched_to_its_end(
    process: ServerProcess, client: Client
) -> None:
    name = await agent(client)

    async with treadle(process, "run", name, "--data", json.dumps(LONG), "--watch") as running:
        assert running.stdout is not None
        async with asyncio.timeout(30):
            while await running.stdout.readline() != b"Iteration 2\n":
                pass
            running.send_signal(signal.SIGINT)
            _, err = await running.communicate()
    hint = re.search(r"treadle watch (\S+) --after (\d+)", err.decode())
    assert hint is not None

    rest = await finished(process, "watch", hint[1], "--after", hint[2], "--json")

    assert rest.code == 0
    numbers = [int(json.loads(line)["sequence"]) for line in rest.out.splitlines()]
    assert numbers == [*range(int(hint[2]) + 1, numbers[-1] + 1)]
