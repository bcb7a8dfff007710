"""Two hundred threads at once, fifty watchers that hang up at random, ten kills: nothing is lost or doubled."""

import asyncio
import random
import sqlite3
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from tests.faults.history import Acknowledged, History, check
from tests.faults.scripts import script
from tests.faults.site import AGENT, Site, eventually
from tests.faults.watching import Seen, watch, watching
from treadle import Client, Thread

THREADS = 200
WATCHERS = 50
KILLS = 10
SEED = 20
TURNS = (("look", "save"), ("send",), ("save", "look"), ("send", "look"), ("look",), ("save",)) * 2
DELAYS_MS = (50, 400)
"""Of the model's turns, so that threads do not go on in step."""
EVENTS_BETWEEN_KILLS = 600
MESSAGES_MAX = 12
"""A watcher hangs up after at most so many messages."""


def event_count(db: Path) -> int:
    """How many events are committed. Only while a server runs: a reader alone cannot open its log."""
    connection = sqlite3.connect(f"file:{db}?mode=ro", uri=True)
    try:
        return int(connection.execute("SELECT coalesce(sum(sequence), 0) FROM threads").fetchone()[0])
    finally:
        connection.close()


@dataclass(slots=True)
class Commits:
    """Commits and events of all lives of a server; it never counts an event whose commit it did not."""

    commits: int = 0
    events: int = 0
    _base: int = 0

    def begin(self, site: Site) -> None:
        self._base = event_count(site.db)

    async def end(self, site: Site, client: Client) -> None:
        self.events += event_count(site.db) - self._base
        self.commits += (await client.get_server_info()).statistics.commit_count


async def create(client: Client, number: int, chance: random.Random) -> Acknowledged:
    request_id = f"request-{number}"
    body = script(f"t{number}", TURNS)
    for turn in body["turns"]:
        turn["delay_ms"] = chance.randint(*DELAYS_MS)
    made = await client.create_thread(AGENT, data=body, request_id=request_id, thread_id=f"t{number}")
    return Acknowledged(request_id, made.name)


async def watch_some(channel: grpc.aio.Channel, number: int, created: list["asyncio.Task[Acknowledged]"]) -> list[Seen]:
    """Watches every fiftieth thread at the same time."""
    chance = random.Random(number)

    async def watch_one(task: "asyncio.Task[Acknowledged]") -> Seen:
        name = (await task).thread
        seen = Seen(f"watcher {number}", name)
        return await watch(seen, watching(channel, name), lambda: chance.randint(1, MESSAGES_MAX))

    return list(await asyncio.gather(*map(watch_one, created[number::WATCHERS])))


async def kill_again_and_again(site: Site, client: Client, commits: Commits) -> None:
    for _ in range(KILLS):
        goal = event_count(site.db) + EVENTS_BETWEEN_KILLS
        await eventually(lambda goal=goal: event_count(site.db) >= goal)  # type: ignore[misc]
        await commits.end(site, client)
        await site.restart()
        commits.begin(site)


@pytest.mark.timeout(240)
async def test_two_hundred_threads_survive_ten_kills_under_watchers_that_come_and_go(site: Site) -> None:
    await site.start()
    commits, chance = Commits(), random.Random(SEED)
    async with site.client() as client, site.channel() as channel:
        creating = [asyncio.create_task(create(client, number, chance)) for number in range(THREADS)]
        watchers = [asyncio.create_task(watch_some(channel, number, creating)) for number in range(WATCHERS)]
        await kill_again_and_again(site, client, commits)
        acknowledged = await asyncio.gather(*creating)
        seen = [each for watched in await asyncio.gather(*watchers) for each in watched]
        await commits.end(site, client)
        history = await History(list(acknowledged), seen, ledger=site.ledger.lines()).read(client)

    check(history)
    assert len(history.threads) == THREADS
    assert {thread.state for thread in history.threads.values()} == {Thread.COMPLETED}
    assert len(seen) == THREADS
    assert all(each.complete for each in seen)
    assert sum(each.connections for each in seen) > 5 * THREADS
    assert sum(event.HasField("execution_recovered") for log in history.logs.values() for event in log) > THREADS
    assert commits.events > EVENTS_BETWEEN_KILLS * KILLS / 2
    assert commits.commits < commits.events / 3
    print(commits, sum(map(len, history.logs.values())), sum(each.connections for each in seen), len(history.ledger))
