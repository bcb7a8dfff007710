"""Outages end only with a proof, may come again, and one large unit must not prolong them for others."""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
from structlog.testing import capture_logs

from tests.contract.units import create, new_thread, projection, records
from tests.stores.disk import LARGE, Space, fill_the_disk, free_the_disk, open_with, refusal
from tests.stores.kit import Opened, StatementWork
from tests.waiting import eventually
from treadle_server.core.errors import Reason, Refused
from treadle_server.ports.log import Log, ThreadKey, Ticket, Unit
from treadle_server.stores.sqlite.inbox import Urgency
from treadle_server.stores.sqlite.outages import RETRY_SECONDS
from treadle_server.stores.sqlite.reserve import Reserve
from treadle_server.stores.sqlite.statements import Answer

RESERVE = 1024 * 1024


@pytest.fixture
def space() -> Space:
    return Space()


@pytest.fixture
async def bare(path: Path, space: Space) -> AsyncIterator[Opened]:
    """A store that has no reserve."""
    opened = await open_with(path, reserve=Reserve(path, 0, free_bytes=space))
    yield opened
    await opened.store.close()


@pytest.fixture
async def kept(path: Path, space: Space) -> AsyncIterator[Opened]:
    reserve = Reserve(path, RESERVE, free_bytes=space)
    assert reserve.take()
    opened = await open_with(path, reserve=reserve)
    yield opened
    await opened.store.close()


def large_creation(log: Log) -> Ticket:
    key = ThreadKey(1, log.allocate_thread())
    return log.submit(Unit(key, 0, [LARGE], projection(), new_thread(f"thread-{key.thread}")))


async def refused_for_room(log: Log) -> None:
    with pytest.raises(Refused) as refused:
        await large_creation(log).wait()
    assert refused.value.reason is Reason.DISK_FULL


async def test_a_disk_without_a_reserve_stays_full_until_there_is_room(bare: Opened, space: Space) -> None:
    log = bare.store.log
    with capture_logs() as lines:
        await fill_the_disk(bare.store)
        space.free = 0
        await refused_for_room(log)
        asked = space.asked
        await eventually(lambda: space.asked >= asked + 3)  # tried again and again, with nothing that waits
        still = refusal(log)
        space.free = 1 << 40
        await free_the_disk(bare.store)
        await eventually(lambda: refusal(log) is None)
        await large_creation(log).wait()

    assert still is not None
    assert [line["event"] for line in lines] == ["disk_full", "store_writable"]


async def test_what_waited_and_is_written_proves_that_there_is_room(bare: Opened, space: Space) -> None:
    log = bare.store.log
    key = await create(log, "created")
    await fill_the_disk(bare.store)
    space.free = 0  # as far as the system says
    waits = log.submit(Unit(key, 1, [LARGE]))
    await eventually(lambda: refusal(log) is not None)

    await free_the_disk(bare.store)
    await waits.wait()

    await eventually(lambda: refusal(log) is None)


async def test_an_outage_that_comes_again_lasts_longer_and_is_not_logged_again(bare: Opened) -> None:
    log, seconds = bare.store.log, []
    with capture_logs() as lines:
        await fill_the_disk(bare.store)  # a quota, perhaps: the disk has room
        for _ in range(3):
            await refused_for_room(log)
            started = time.monotonic()
            await eventually(lambda: refusal(log) is None)
            seconds.append(time.monotonic() - started)

    assert seconds[1] >= 2 * RETRY_SECONDS * 0.9
    assert seconds[2] >= 4 * RETRY_SECONDS * 0.9
    assert [line["event"] for line in lines] == ["disk_full", "store_writable"]


async def test_a_lock_that_another_process_keeps_is_waited_for_though_nothing_waits(
    bare: Opened, path: Path
) -> None:
    store, log = bare.store, bare.store.log
    await store.committer.submit(StatementWork([Answer("PRAGMA busy_timeout = 20")])).wait()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    with pytest.raises(Refused) as refused:
        await large_creation(log).wait()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(4 * RETRY_SECONDS):
            await eventually(lambda: refusal(log) is None)
    other.execute("ROLLBACK")
    other.close()
    await eventually(lambda: refusal(log) is None)

    assert refused.value.reason is Reason.STORE_UNAVAILABLE
    await large_creation(log).wait()


async def test_a_large_end_of_one_thread_keeps_no_other_thread_from_its_end(
    kept: Opened, space: Space
) -> None:
    log = kept.store.log
    large, *small = [await create(log, "created") for _ in range(3)]
    await fill_the_disk(kept.store)
    space.free = 0
    with pytest.raises(Refused):
        await large_creation(log).wait()

    bulky = log.submit(Unit(large, 1, [LARGE], projection(6), urgent=True))
    ends = [log.submit(Unit(key, 1, records("ended"), projection(6), urgent=True)) for key in small]
    await asyncio.gather(*(ticket.wait() for ticket in ends))
    waits = not bulky.done
    await free_the_disk(kept.store)
    await bulky.wait()

    assert waits
    space.free = 1 << 40
    await eventually(lambda: refusal(log) is None)


@dataclass(slots=True)
class Meets:
    """A statement that finds no room, and counts how often."""

    tries: int = 0
    until: int = 1 << 40
    refuses: ClassVar[bool] = False
    writes: ClassVar[bool] = True

    def apply(self, cursor: sqlite3.Cursor) -> None:
        self.tries += 1
        if self.tries < self.until:
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error


async def test_what_found_no_room_is_not_tried_again_with_every_arrival(kept: Opened, space: Space) -> None:
    store, meets = kept.store, Meets()
    keys = [await create(store.log, "created") for _ in range(30)]
    await fill_the_disk(store)
    space.free = 0
    with pytest.raises(Refused):
        await large_creation(store.log).wait()
    waits = store.committer.submit(StatementWork([meets], urgency=Urgency.URGENT, thread=1 << 40))
    await eventually(lambda: meets.tries > 0)

    started, before, tickets = time.monotonic(), meets.tries, []
    for key in keys:
        unit = Unit(key, 1, records("ended"), projection(6), urgent=True)
        tickets.append(store.log.submit(unit))
        await asyncio.to_thread(tuple)  # lets the committer take them one by one
    await asyncio.gather(*(ticket.wait() for ticket in tickets))
    rounds = (time.monotonic() - started) / RETRY_SECONDS + 1

    assert meets.tries - before <= 2 * rounds + 1  # with the others, and then alone
    assert not waits.done
    meets.until = 0
    await waits.wait()
    space.free = 1 << 40
    await eventually(lambda: refusal(store.log) is None)
