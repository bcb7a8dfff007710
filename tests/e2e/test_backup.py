# ruff: noqa: ASYNC240 - the files are small
"""Backup and restore as an operator does it: while agents work, and what a restored store goes on from."""

import asyncio
import hashlib
import json
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.faults.scripts import script
from tests.faults.site import AGENT, Site, make_agents
from tests.waiting import eventually
from treadle import Action, Client, NotFound, OutOfRange, SyncClient, Thread, ThreadEvent

OPERATIONS = (Path(__file__).parents[2] / "docs" / "operations.md").read_text("utf-8")
SECONDS = 30.0


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with Site(tmp_path / "site") as made:
        await made.start()
        async with made.client() as client:
            await make_agents(client)
        yield made


def treadle(site: Site, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """A command of the client."""
    command = [sys.executable, "-m", "treadle", "--target", site.server.address, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)


def steps_of_the_page() -> list[str]:
    """What the page on operations gives between stopping a server and starting the next."""
    section = OPERATIONS.partition("\n## Restore\n")[2]
    lines = section.partition("```sh\n")[2].partition("```")[0].splitlines()
    first, *steps, last = [line.partition("#")[0].strip() for line in lines]
    assert (first, last) == ("kill -TERM $PID", "treadle serve")
    return steps


def restore(site: Site, backup: str) -> None:
    """Does what the page on operations says, as it is written there, with this backup's name."""
    folder = site.db.parent
    assert Path(backup).parent == folder / "treadle.db-backups"
    steps = "\n".join(steps_of_the_page())
    assert "before-upgrade.db" in steps
    steps = steps.replace("before-upgrade.db", Path(backup).name)
    subprocess.run(["sh", "-eu", "-c", steps], cwd=folder, timeout=SECONDS, check=True)
    assert (folder / "broken" / "treadle.db").exists()


async def create(client: Client, name: str, *turns: str, gate: str = "") -> str:
    more = {tool: {"gate": gate} for tool in turns} if gate else None
    body = script(name, [[tool] for tool in turns], more=more)
    return (await client.create_thread(AGENT, data=body, thread_id=name, request_id=name)).name


async def ended(client: Client, name: str) -> list[ThreadEvent]:
    return [event async for event in client.watch(name)]


def statuses(events: list[ThreadEvent]) -> list["Action.Status.ValueType"]:
    return [e.tool_call_completed.status for e in events if e.HasField("tool_call_completed")]


async def test_the_command_prints_where_the_backup_is_and_what(site: Site) -> None:
    ran = await asyncio.to_thread(treadle, site, "backup", "nightly")
    as_json = await asyncio.to_thread(treadle, site, "backup", "--json")
    again = await asyncio.to_thread(treadle, site, "backup", "nightly")

    path, size, sha256 = ran.stdout.strip().split("\t")
    data = Path(path).read_bytes()
    assert Path(path) == site.db.with_name("treadle.db-backups") / "nightly.db"
    assert (int(size), sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert json.loads(as_json.stdout)["name"].startswith("backups/20")
    assert (again.returncode, again.stdout) == (1, "")
    assert "RESOURCE_EXISTS" in again.stderr


async def test_the_blocking_client_makes_backups_too(site: Site) -> None:
    def make() -> str:
        with SyncClient(site.server.address) as client:
            return client.create_backup("one").name

    assert await asyncio.to_thread(make) == "backups/one"


async def test_a_restored_store_is_as_it_was_and_its_threads_go_on(site: Site) -> None:
    async with site.client() as client:
        done = await create(client, "done", "save")
        events_of_done = await ended(client, done)
        sending = await create(client, "sending", "send", gate="send")
        saving = await create(client, "saving", "save", gate="save")
        await eventually(lambda: len(site.ledger.effects()) == 3)

        made = await client.create_backup()

        site.open_gate("send")
        site.open_gate("save")
        for name in (sending, saving):
            assert statuses(await ended(client, name)) == [Action.SUCCEEDED]
        later = await create(client, "later", "save")
        await ended(client, later)
        assert await asyncio.to_thread(site.server.terminate) == 0
        restore(site, made.path)
        await site.start()

        assert await ended(client, done) == events_of_done
        assert statuses(await ended(client, sending)) == [Action.UNKNOWN]
        assert statuses(await ended(client, saving)) == [Action.SUCCEEDED]
        for name in (done, sending, saving):
            assert (await client.get_thread(name)).state == Thread.COMPLETED
        with pytest.raises(NotFound):
            await client.get_thread(later)
        assert await create(client, "later", "save") == later
    by_tool = [(line.tool, line.note) for line in site.ledger.effects()]
    assert by_tool.count(("send", "sending/1/1")) == 1
    assert by_tool.count(("save", "saving/1/1")) == 2


async def test_a_file_put_in_place_by_a_rename_ends_the_server_and_is_left_as_it_is(site: Site) -> None:
    async with site.client() as client:
        await create(client, "early", "save")
        made = await client.create_backup()
        backup = Path(made.path).read_bytes()
        new = site.db.with_name("new.db")
        new.write_bytes(backup)

        new.replace(site.db)

        assert await site.ended() == 75
        assert site.db.read_bytes() == backup
        assert "treadle.db-wal" in await refused_start(site)
        for ending in ("-wal", "-shm"):
            site.db.with_name(f"treadle.db{ending}").unlink()
        await site.start()
        assert (await client.get_thread("threads/early")).name == "threads/early"


async def refused_start(site: Site) -> str:
    """Why the server does not start."""
    with pytest.raises(AssertionError, match="the server ended with 1"):
        await site.start()
    return site.server.log_path.read_text().splitlines()[-1]


async def test_what_was_done_after_a_backup_is_done_again_by_what_is_restored(site: Site) -> None:
    """Written on the page on operations: an older truth knows nothing of what came after it."""
    async with site.client() as client:
        name = await create(client, "t1", "look", "send", gate="look")
        await eventually(lambda: len(site.ledger.effects()) == 1)
        made = await client.create_backup()
        site.open_gate("look")
        await eventually(lambda: len(site.ledger.effects()) == 2)
        site.open_gate("send")
        last = (await ended(client, name))[-1].sequence
        assert await asyncio.to_thread(site.server.terminate) == 0
        restore(site, made.path)
        await site.start()

        with pytest.raises(OutOfRange):
            async for _ in client.watch(name, after_sequence=last + 100):
                pass
        await ended(client, name)

    sent = [line for line in site.ledger.effects() if line.tool == "send"]
    assert len(sent) == 2
    assert sent[0].key == sent[1].key, "a receiver that remembers keys does it once"


async def test_backups_under_load_hold_all_that_was_acknowledged_and_threads_that_go_on(site: Site) -> None:
    async with site.client() as client:
        names: list[str] = []
        stopping = asyncio.Event()

        async def work(worker: int) -> None:
            number = 0
            while not stopping.is_set():
                names.append(await create(client, f"w{worker}-{number}", "look", "save"))
                number += 1

        workers = [asyncio.create_task(work(number)) for number in range(8)]
        await eventually(lambda: len(names) > 20)
        before = list(names)
        made = await client.create_backup()
        stopping.set()
        await asyncio.gather(*workers)
        await site.kill()

        connection = sqlite3.connect(f"file:{made.path}?mode=ro&immutable=1", uri=True)
        in_it = {f"threads/{row[0]}" for row in connection.execute("SELECT id FROM threads")}
        connection.close()
        assert in_it >= set(before)
        restore(site, made.path)
        await site.start()
        for name in in_it:
            events = await ended(client, name)
            assert [event.sequence for event in events] == list(range(1, len(events) + 1))
            assert events[-1].thread_ended.state == Thread.COMPLETED
        assert {thread.name async for thread in client.list_threads(page_size=1000)} == in_it
