"""Sessions by both clients and the command line, against a real server process."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path

import pytest
import pytest_asyncio

from tests.client.conftest import Handle
from tests.client.test_commands import finished
from tests.server_process import ServerProcess
from treadle import Client, FailedPrecondition, NotFound, PermissionDenied, SyncClient, Thread, ThreadContext

MODEL = "scripted:" + json.dumps({"turns": [{"text": "Told:\n{recalled}"}]})
HANGING = "scripted:" + json.dumps({"turns": [{"hang": True}]})


@pytest.fixture
def process(tmp_path: Path) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path / "treadle.db") as running:
        yield running.start()


@pytest_asyncio.fixture(params=[Client, SyncClient], ids=["asyncio", "blocking"])
async def handle(process: ServerProcess, request: pytest.FixtureRequest) -> AsyncIterator[Handle]:
    if request.param is Client:
        async with Client(process.address) as made:
            yield Handle(made)
    else:
        with SyncClient(process.address) as blocking:
            yield Handle(blocking)


async def test_a_session_is_found_labelled_read_and_deleted(handle: Handle) -> None:
    await handle.answer("create_agent", "talker", model=MODEL)
    context = ThreadContext(initial="Be brief.")
    await handle.answer("execute", "talker", "One.", session_key="room", context=context)
    second = await handle.answer("execute", "talker", "Two.", session_key="room")

    session = await handle.answer("lookup_session", "room")
    changed = await handle.answer("update_session", session.name, labels={"team": "a"}, etag=session.etag)
    listed = await handle.items("list_sessions", filter='labels.team = "a"')
    said = await handle.items("list_session_messages", session.name, page_size=1)

    assert second.output.text.splitlines()[1:3] == ["context: Be brief.", "user: One."]
    assert changed == await handle.answer("get_session", session.name.removeprefix("sessions/"))
    assert listed == [changed]
    assert [message.content.text.split("\n")[0] for message in said] == ["One.", "Told:", "Two.", "Told:"]
    await handle.answer("delete_session", session.name)
    with pytest.raises(NotFound):
        await handle.answer("lookup_session", "room")


async def test_a_watch_of_a_session_goes_on_after_a_restart(process: ServerProcess) -> None:
    async with Client(process.address) as client:
        await client.create_agent("talker", model=MODEL)
        first = await client.execute("talker", "One.", session_key="room")
        found: list[str] = []
        executed = 1
        async with aclosing(
            client.watch_session(first.session, include_heartbeats=True, event_types=["thread_ended"])
        ) as batches:
            async with asyncio.timeout(60):
                async for batch in batches:
                    found += [event.thread for event in batch.events if event.sequence]
                    if len(found) == 2:
                        break
                    if executed > len(found) + 1:  # not seen yet
                        continue
                    if found:
                        process.kill()
                        process.start()
                    executed += 1
                    await client.execute("talker", "x", thread_id=f"t{executed}", session_key="room")

    assert found == ["threads/t2", "threads/t3"]


async def test_the_commands_list_print_and_delete_sessions(process: ServerProcess) -> None:
    async with Client(process.address) as client:
        await client.create_agent("talker", model=MODEL)
        await client.create_agent("waiting", model=HANGING)
        thread = await client.execute("talker", "One.", session_key="desk 7", parent_object="account/17")
        await client.create_thread("waiting", "Go.", session_key="busy")

        table = await finished(process, "sessions", "--filter", "agent = agents/talker")
        lines = await finished(process, "sessions", "list", "--json")
        got = await finished(process, "sessions", "get", "--key", "desk 7")
        messages = await finished(process, "sessions", "messages", "--key", "desk 7")
        refused = await finished(process, "sessions", "delete", "--key", "busy")
        forced = await finished(process, "sessions", "delete", "--key", "busy", "--force")
        deleted = await finished(process, "sessions", "delete", thread.session)
        left = await finished(process, "sessions", "--json")

    rows = table.out.splitlines()
    assert [(row.split()[0], row.split()[-1]) for row in rows] == [("S-1", thread.session)]
    assert [json.loads(line)["sessionKey"] for line in lines.out.splitlines()] == ["busy", "desk 7"]
    assert json.loads(got.out)["parentObject"] == "account/17"
    assert messages.out == "user: One.\nagent: Told:\n\n"
    assert refused.code == 1
    assert "has not ended" in refused.err
    assert [forced.code, deleted.code, left.out] == [0, 0, ""]


async def test_a_key_for_objects_is_made_and_held_to_them(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "t.db") as open_process:
        open_process.start()
        made = await finished(open_process, "keys", "create", "--object", "account/*", "--object", "order/1")
        async with Client(open_process.address) as client:
            await client.create_agent("talker", model=MODEL)
            await client.execute("talker", "One.", thread_id="mine", parent_object="account/17")
            await client.execute("talker", "Two.", thread_id="other", parent_object="order/2")
            (key,) = [each async for each in client.list_api_keys("default")]
        async with Client(open_process.address, api_key=made.out.strip()) as client:
            names = [thread.name async for thread in client.list_threads()]
            with pytest.raises(PermissionDenied):
                await client.get_thread("other")
            await client.create_thread("talker", "x", session_key="s", parent_object="account/1")
            with pytest.raises(FailedPrecondition):
                await client.create_thread("talker", "x", session_key="s", parent_object="account/2")
            busy = await client.create_thread(
                "talker", "x", session_key="t", parent_object="order/1", busy_policy=Thread.REJECT
            )

    assert list(key.object_patterns) == ["account/*", "order/1"]
    assert names == ["threads/mine"]
    assert busy.parent_object == "order/1"
