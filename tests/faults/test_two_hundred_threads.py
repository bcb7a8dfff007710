"""Two hundred threads, fifty watchers that hang up at random, ten kills: nothing is lost or doubled."""

import asyncio
import random
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import grpc
import pytest

from tests.faults.history import Acknowledged, History, check
from tests.faults.scripts import script
from tests.faults.site import AGENT, PATIENCE_SECONDS, Site
from tests.faults.store_figures import event_count
from tests.faults.watching import Seen, SeenOfAll, watch, watch_all, watching
from tests.waiting import eventually
from treadle import Client, Thread

TURNS = (("look", "save"), ("send",), ("save", "look"), ("send", "look"), ("look",), ("save",)) * 2
DELAYS_MS = (100, 1000)
"""Of the model's turns: threads do not go on in step, and there is time to kill."""
EVENTS_BETWEEN_KILLS = 300
MESSAGES_MAX = 12
"""A watcher hangs up after at most so many messages."""


@dataclass(slots=True)
class Commits:
    """Of lives of a server that were measured; no event is counted whose commit may not be."""

    commits: int = 0
    units: int = 0
    events: int = 0
    _base: int = 0

    def begin(self, site: Site) -> None:
        self._base = event_count(site.db)

    async def end(self, site: Site, client: Client) -> None:
        self.events += event_count(site.db) - self._base
        statistics = (await client.get_server_info()).statistics
        self.commits += statistics.commit_count
        self.units += statistics.unit_count


async def create(client: Client, number: int, chance: random.Random) -> Acknowledged:
    request_id = f"request-{number}"
    body = script(f"t{number}", TURNS)
    for turn in body["turns"]:
        turn["delay_ms"] = chance.randint(*DELAYS_MS)
    made = await client.create_thread(AGENT, data=body, request_id=request_id, thread_id=f"t{number}")
    return Acknowledged(request_id, made.name)


async def watch_some(
    channel: grpc.aio.Channel, number: int, created: list["asyncio.Task[Acknowledged]"]
) -> list[Seen]:
    """Watches some threads at the same time, and hangs up at random."""
    chance = random.Random(number)

    async def watch_one(task: "asyncio.Task[Acknowledged]") -> Seen:
        name = (await task).thread
        seen = Seen(f"watcher {number}", name)
        return await watch(seen, watching(channel, name), lambda: chance.randint(1, MESSAGES_MAX))

    return list(await asyncio.gather(*map(watch_one, created)))


async def kill_again_and_again(site: Site, client: Client, kills: int) -> Commits:
    commits = Commits()
    for _ in range(kills):
        commits.begin(site)
        goal = event_count(site.db) + EVENTS_BETWEEN_KILLS
        await eventually(partial(_has_events, site.db, goal), seconds=PATIENCE_SECONDS)
        await commits.end(site, client)
        await site.restart()
    return commits


def _has_events(db: Path, goal: int) -> bool:
    return event_count(db) >= goal


async def caught_up(seen: SeenOfAll, history: History) -> list[Seen]:
    """What the watcher of all threads was sent, once that is as much as there is."""
    await eventually(
        lambda: seen.event_count >= sum(map(len, history.logs.values())), seconds=PATIENCE_SECONDS
    )
    for each in seen.threads.values():
        each.complete = True
    return list(seen.threads.values())


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("threads", "watchers", "kills"), [(200, 50, 10), pytest.param(1000, 250, 100, marks=pytest.mark.soak)]
)
async def test_no_thread_is_lost_under_kills_and_watchers_that_come_and_go(
    site: Site, threads: int, watchers: int, kills: int
) -> None:
    await site.start()
    chance, seen_of_all = random.Random(threads), SeenOfAll()
    async with site.client() as client, site.channel() as channel:
        of_all = asyncio.create_task(watch_all(seen_of_all, channel, lambda: chance.randint(100, 1000)))
        await eventually(lambda: bool(seen_of_all.cursor), seconds=PATIENCE_SECONDS)
        creating = [asyncio.create_task(create(client, number, chance)) for number in range(threads)]
        watching_some = [
            asyncio.create_task(watch_some(channel, number, creating[number::watchers]))
            for number in range(watchers)
        ]
        commits = await kill_again_and_again(site, client, kills)
        acknowledged = list(await asyncio.gather(*creating))
        seen = [each for some in await asyncio.gather(*watching_some) for each in some]
        history = await History(acknowledged, seen, ledger=site.ledger.all()).read(client)
        history.seen += await caught_up(seen_of_all, history)
        of_all.cancel()
        await asyncio.gather(of_all, return_exceptions=True)

    check(history)
    assert len(history.threads) == threads
    assert {thread.state for thread in history.threads.values()} == {Thread.COMPLETED}
    assert len(history.seen) == 2 * threads
    assert all(each.complete for each in history.seen)
    assert sum(each.connections for each in seen) > 5 * threads
    assert seen_of_all.connections > kills
    recoveries = sum(event.HasField("execution_recovered") for log in history.logs.values() for event in log)
    assert recoveries > threads
    assert commits.events >= EVENTS_BETWEEN_KILLS * kills
    assert commits.commits < 0.75 * commits.units
    assert commits.commits < commits.events / 3
