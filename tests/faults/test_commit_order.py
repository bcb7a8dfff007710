"""What must not happen before a commit: nobody is answered, nobody is shown anything, nothing is called.

The store hangs before it commits. What waits for that commit does not come; then the server is killed.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio

from tests.faults.history import Acknowledged, History, check
from tests.faults.scripts import script
from tests.faults.site import AGENT, Site
from tests.faults.watching import Seen, executing, watch, watching
from tests.waiting import eventually
from treadle import Client, DeadlineExceeded, Thread
from treadle.errors import THREAD_KEY

THREAD = "order"
FIELDS: dict[str, Any] = {"data": script(THREAD, [["send"]]), "thread_id": THREAD, "request_id": "r"}
NOTE = f"{THREAD}/1/1"
BLOCKED_SECONDS = 0.5
"""An answer that nothing holds back takes a hundredth of it."""


@pytest_asyncio.fixture
async def places(tmp_path: Path, prepared: Path) -> dict[str, int]:
    """Where in the log of the thread the last event of each kind stands, when nothing comes between."""
    async with Site(tmp_path / "whole", prepared=prepared) as site:
        await site.start()
        async with site.client() as client:
            log = [event async for event in client.stream(AGENT, **FIELDS)]
    return {str(event.WhichOneof("payload")): event.sequence for event in log}


async def make(client: Client) -> Thread:
    return await client.create_thread(AGENT, **FIELDS)


async def told(call: grpc.aio.UnaryStreamCall[Any, Any]) -> list[Acknowledged]:
    """The thread that the call's first metadata name, if they come; a stream says so before its events."""
    try:
        async with asyncio.timeout(BLOCKED_SECONDS):
            metadata = dict(await call.initial_metadata())
    except TimeoutError:
        return []
    finally:
        call.cancel()
    return [Acknowledged("r", str(metadata[THREAD_KEY]))] if THREAD_KEY in metadata else []


async def blocked(site: Site) -> None:
    """Returns once the store takes nothing more, while the server goes on answering."""
    async with site.client(timeout=BLOCKED_SECONDS) as impatient:
        await eventually(lambda: _takes_nothing(impatient))
        assert (await impatient.get_server_info()).version


async def _takes_nothing(client: Client) -> bool:
    try:
        await client.update_agent(AGENT, display_name="changed")
    except DeadlineExceeded:
        return True
    return False


async def finish(site: Site, seen: Sequence[Seen] = ()) -> None:
    """Restarts the server, waits for the end of the thread and of its watchers, and checks everything."""
    await site.restart()
    async with site.client() as client, site.channel() as channel:
        made = await make(client)
        for each in seen:
            await watch(each, watching(channel, made.name))
        async for _ in client.watch(made.name):
            pass
        acknowledged = [Acknowledged("r", made.name)]
        check(await History(acknowledged, list(seen), ledger=site.ledger.all()).read(client))


async def test_a_thread_is_not_acknowledged_before_it_is_committed(site: Site) -> None:
    await site.start("commit.before@1=hang")
    async with site.channel() as channel:
        acknowledged = await told(executing(channel, AGENT, **FIELDS)(0))
    await site.restart()

    async with site.client() as client:
        check(await History(acknowledged).read(client))
        assert acknowledged == []
        await client.execute(AGENT, **FIELDS)

    assert len(site.ledger.lines(NOTE)) == 1


@pytest.mark.parametrize("kind", ["message_completed", "tool_call_completed", "thread_ended"])
async def test_an_event_is_not_shown_before_it_is_committed(
    site: Site, places: dict[str, int], kind: str
) -> None:
    place = places[kind]
    await site.start(f"commit.before@{place}=hang")
    async with site.channel() as channel:
        seen = Seen("watcher", f"threads/{THREAD}")
        watcher = asyncio.create_task(watch(seen, executing(channel, AGENT, **FIELDS)))
        await eventually(lambda: seen.last > 0)
        await blocked(site)
        shown = seen.last
        watcher.cancel()
        await asyncio.gather(watcher, return_exceptions=True)

    await finish(site, [seen])

    assert 0 < shown < place


async def test_a_call_at_most_once_is_not_made_before_its_intent_is_committed(
    site: Site, places: dict[str, int]
) -> None:
    await site.start(f"commit.before@{places['tool_call_started']}=hang")
    async with site.client() as client:
        await make(client)
        await blocked(site)
        made = site.ledger.lines(NOTE)

    await finish(site)

    assert made == []
    assert len(site.ledger.lines(NOTE)) == 1
