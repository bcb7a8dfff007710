"""All threads of a tenant by the order of commits: each thread in order, none missing, none twice."""

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise

import pytest

from tests.engine.conftest import OpenHouse
from tests.engine.handloop import turns, within
from tests.engine.house import House, left_over
from tests.feed.reading import Writer, said, writer
from tests.waiting import eventually
from treadle_server.core.errors import Reason, Refused
from treadle_server.feed.tenants import CommitFeed
from treadle_server.ports.catalogue.commits import CommitPage, CommitRow
from treadle_server.ports.log import ThreadKey
from treadle_server.stores.sqlite.commits import POSITIONS_MAX


class Follower:
    """A subscriber of a tenant that can go away and come back where it was."""

    def __init__(self, feed: CommitFeed, tenant: int, after: int = 0) -> None:
        self._feed = feed
        self._tenant = tenant
        self.position = after
        self.rows: list[CommitRow] = []
        self.pages: list[CommitPage] = []
        self.task: asyncio.Task[None] | None = None

    def start(self) -> "Follower":
        self.task = asyncio.create_task(self._read())
        return self

    async def _read(self) -> None:
        pages: AsyncIterator[CommitPage] = self._feed.follow(self._tenant, self.position)
        async for page in pages:
            self.pages.append(page)
            self.rows.extend(page.items)
            self.position = page.position

    async def stop(self) -> None:
        assert self.task is not None
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    async def got(self, count: int) -> None:
        await eventually(lambda: len(self.rows) >= count)

    @property
    def spans(self) -> dict[ThreadKey, list[tuple[int, int]]]:
        made: dict[ThreadKey, list[tuple[int, int]]] = {}
        for row in self.rows:
            made.setdefault(row.key, []).append((row.first, row.last))
        return made


def commits(house: House) -> CommitFeed:
    return CommitFeed(house.log, house.store.commits, heartbeat_seconds=15)


def assert_whole(follower: Follower, writers: list[Writer]) -> None:
    """Every thread from its first event to its last, each once."""
    assert {log.key: log.last for log in writers} == {
        key: spans[-1][1] for key, spans in follower.spans.items()
    }
    for spans in follower.spans.values():
        assert spans[0][0] == 1
        assert all(begin == end + 1 for (_, end), (begin, _) in pairwise(spans))


async def test_every_commit_of_a_tenant_comes_once_and_none_of_another(house: House) -> None:
    feed = commits(house)
    followers = {tenant: Follower(feed, tenant).start() for tenant in (1, 2)}
    logs = [writer(house, tenant=1 + number % 2) for number in range(20)]
    for _ in range(10):
        await within(asyncio.gather(*(log.inputs("a", "b") for log in logs)))

    for tenant, follower in followers.items():
        await follower.got(100)
        assert_whole(follower, [log for log in logs if log.key.tenant == tenant])
        await follower.stop()
    assert left_over(feed) == {}


async def test_who_comes_back_goes_on_where_it_was(house: House) -> None:
    feed = commits(house)
    follower, logs = Follower(feed, 1), [writer(house) for _ in range(5)]
    noise = writer(house, tenant=2)
    for number in range(30):
        follower.start()
        for log in logs:
            await log.inputs("a")
        await noise.inputs("noise")
        await turns(number % 7)
        await follower.stop()
    follower.start()
    await follower.got(150)
    await follower.stop()

    assert len(follower.rows) == 150
    assert_whole(follower, logs)
    positions = [row.position for row in follower.rows]
    assert positions == sorted(set(positions))


async def test_the_newest_position_leaves_out_what_was(house: House) -> None:
    feed = commits(house)
    old, new = writer(house), writer(house)
    await old.inputs("old")
    follower = Follower(feed, 1, after=await feed.newest()).start()
    await turns()
    await new.inputs("new")

    await follower.got(1)
    assert [row.key for row in follower.rows] == [new.key]
    await follower.stop()


async def test_nothing_comes_before_it_is_committed(house: House) -> None:
    follower, log = Follower(commits(house), 1).start(), writer(house)
    house.log.hold()
    ticket = log.append(said("held"))
    await turns(100)
    assert follower.rows == []

    house.log.release()
    await within(ticket.wait())
    await follower.got(1)
    await follower.stop()


async def sign_of_life(follower: Follower, count: int) -> None:
    await eventually(lambda: len(follower.pages) >= count)


async def test_an_idle_stream_gives_signs_of_life_with_its_position(house: House) -> None:
    feed = commits(house)
    await writer(house, tenant=2).inputs("noise")
    follower = Follower(feed, 1).start()
    reads = house.store.readers.reads
    await eventually(lambda: house.store.readers.reads >= reads + 2)

    for count in (1, 2, 3):
        await turns(200)
        house.clock.advance(15.1)
        await sign_of_life(follower, count)
    assert follower.rows == []
    assert follower.position == await feed.newest()
    await follower.stop()


async def test_an_idle_stream_does_not_read_for_what_others_commit(house: House) -> None:
    feed, reads = commits(house), house.store.readers.reads
    follower, noise = Follower(feed, 1).start(), writer(house, tenant=2)
    for _ in range(30):
        await noise.inputs("noise")

    assert house.store.readers.reads - reads <= 6  # what it needs to find out that there is nothing
    await follower.stop()


async def test_what_stands_behind_thousands_of_commits_of_others_comes_without_waiting(house: House) -> None:
    noise, log = writer(house, tenant=2), writer(house)
    tickets = [noise.append(said("noise")) for _ in range(POSITIONS_MAX + 200)]
    await within(tickets[-1].wait())
    await log.inputs("a")

    follower = Follower(commits(house), 1).start()
    await follower.got(1)
    assert [page.items for page in follower.pages] == [tuple(follower.rows)]
    await follower.stop()


async def test_a_drain_ends_every_stream_of_tenants(build: OpenHouse) -> None:
    house = await build()
    feed = commits(house)
    followers = [Follower(feed, tenant).start() for tenant in (1, 1, 2)]
    await turns(100)
    feed.drain()

    for follower in (*followers, Follower(feed, 1).start()):
        assert follower.task is not None
        with pytest.raises(Refused) as refused:
            await within(follower.task)
        assert refused.value.reason is Reason.DRAINING
    assert left_over(feed) == {}
