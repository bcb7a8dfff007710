"""A full disk: who waits, who is refused, what is written all the same, and how it ends by itself."""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.contract.units import bodies, create, creation, projection, record, records
from tests.stores.disk import LARGE, Space, fill_the_disk, free_the_disk, open_with, refusal
from tests.stores.kit import Gate, Opened, Opens, StatementWork, execute
from tests.waiting import eventually
from treadle_server.core.errors import Reason, Refused
from treadle_server.ports.log import Conflict, NewSession, ThreadKey, Unit
from treadle_server.stores.sqlite.inbox import WorkTicket
from treadle_server.stores.sqlite.outages import RETRY_SECONDS
from treadle_server.stores.sqlite.reserve import Reserve
from treadle_server.stores.sqlite.statements import Answer

RESERVE = 1024 * 1024


@pytest.fixture
def space() -> Space:
    return Space()


@pytest.fixture
async def kept(path: Path, space: Space) -> AsyncIterator[Opened]:
    """A store with a small reserve, on a disk with as much room as the test says."""
    reserve = Reserve(path, RESERVE, free_bytes=space)
    assert reserve.take()
    opened = await open_with(path, reserve=reserve)
    yield opened
    await opened.store.close()


async def fill_by(opened: Opened, key: ThreadKey, *, expected: int = 1) -> WorkTicket:
    """Returns once the disk is full, with the unit that found it so."""
    await fill_the_disk(opened.store)
    ticket = opened.store.log.submit(Unit(key, expected, [LARGE]))
    await eventually(lambda: refusal(opened.store.log) is not None)
    return ticket


async def test_what_has_happened_waits_for_room_and_is_written_in_order(opened: Opened) -> None:
    store, log = opened.store, opened.store.log
    key = await create(log, "created")
    tickets = [await fill_by(opened, key)]
    tickets += [log.submit(Unit(key, sequence, records(str(sequence)))) for sequence in (2, 3)]
    await eventually(lambda: store.committer.backlog == 3)
    read, done = await bodies(log, key), [ticket.done for ticket in tickets]

    await free_the_disk(store)
    await asyncio.gather(*(ticket.wait() for ticket in tickets))

    assert (read, done) == (["created"], [False] * 3)
    assert (await bodies(log, key))[2:] == ["2", "3"]
    await eventually(lambda: refusal(log) is None)
    assert (store.committer.backlog, opened.fatal) == (0, [])


async def test_what_callers_ask_is_refused_at_once_and_changes_nothing(opened: Opened, path: Path) -> None:
    store, log = opened.store, opened.store.log
    key = await create(log, "created")
    waits = await fill_by(opened, key)
    other = ThreadKey(1, log.allocate_thread())
    asked = [log.submit(creation(other, "new", thread_id="wanted")) for _ in range(3)]

    assert all(ticket.done for ticket in asked)  # nobody had to look at the disk for it
    with pytest.raises(Refused) as thread:
        await asked[0].wait()
    with pytest.raises(Refused) as session:
        await store.sessions.create_if_absent(1, NewSession("s", "", 1, "", 1))

    assert (thread.value.reason, session.value.reason) == (Reason.DISK_FULL, Reason.DISK_FULL)
    await free_the_disk(store)
    await waits.wait()
    await eventually(lambda: refusal(log) is None)
    await log.submit(creation(other, "again", thread_id="wanted")).wait()
    assert await bodies(log, other) == ["again"]
    assert execute(path, "SELECT count(*) FROM sessions") == [(0,)]


async def test_of_the_units_that_find_the_disk_full_only_callers_are_refused(opened: Opened) -> None:
    store, log = opened.store, opened.store.log
    keys = [await create(log, "created") for _ in range(2)]
    await fill_the_disk(store)
    gate = Gate()
    await gate.hold(store)
    new = ThreadKey(1, log.allocate_thread())
    small = log.submit(Unit(keys[0], 1, records("small")))
    made = log.submit(creation(new, "new"))
    large = log.submit(Unit(keys[1], 1, [LARGE]))

    gate.opening.set()
    with pytest.raises(Refused) as refused:
        await made.wait()
    before = (small.done, large.done)
    await free_the_disk(store)
    await asyncio.gather(small.wait(), large.wait())

    assert refused.value.reason is Reason.DISK_FULL
    assert before == (False, False)
    assert [await log.last_sequence(key) for key in (*keys, new)] == [2, 2, 0]


async def test_a_unit_that_waited_and_does_not_fit_any_more_is_refused(opened: Opened) -> None:
    log = opened.store.log
    key = await create(log, "created")
    waits = await fill_by(opened, key)
    slower = log.submit(Unit(key, 1, records("slower")))

    await free_the_disk(opened.store)
    await waits.wait()

    with pytest.raises(Conflict):
        await slower.wait()
    assert await log.last_sequence(key) == 2


async def test_what_ends_a_thread_is_written_with_the_reserve_behind_what_waits_of_it(
    kept: Opened, path: Path, space: Space
) -> None:
    log = kept.store.log
    ending, other = [await create(log, "created") for _ in range(2)]
    space.free = 0
    blocking = await fill_by(kept, other)
    waits = log.submit(Unit(ending, 1, records("result")))
    behind = log.submit(Unit(other, 2, records("behind")))
    await eventually(lambda: kept.store.committer.backlog == 3)
    given_up = not path.with_name("t.db-reserve").exists()

    end = Unit(ending, 2, records("ended"), projection(6), urgent=True)
    await log.submit(end).wait()
    done = (waits.done, blocking.done, behind.done)
    asked = space.asked
    await eventually(lambda: space.asked >= asked + 2)  # tried again, and there is no room for the others

    assert given_up
    assert done == (True, False, False)
    assert await bodies(log, ending) == ["created", "result", "ended"]
    assert await bodies(log, other) == ["created"]
    refused = refusal(log)
    assert refused is not None
    assert refused.reason is Reason.DISK_FULL


async def test_a_thread_that_cannot_be_read_is_condemned_on_a_full_disk(kept: Opened, space: Space) -> None:
    store = kept.store
    damaged, other = [await create(store.log, "created") for _ in range(2)]
    space.free = 0
    waits = await fill_by(kept, other)

    await store.threads.condemn(damaged, stop_reason=23, now=5)

    row = await store.threads.get_by_key(damaged)
    assert row is not None
    assert (row.state, waits.done) == (7, False)


async def test_the_reserve_is_made_again_before_ordinary_work_goes_on(
    kept: Opened, path: Path, space: Space
) -> None:
    log = kept.store.log
    key = await create(log, "created")
    space.free = 0
    waits = await fill_by(kept, key)
    await free_the_disk(kept.store)  # SQLite would find room now, but it is the reserve's

    space.free = 2 * RESERVE - 1
    asked = space.asked
    await eventually(lambda: space.asked >= asked + 2)
    too_little = (waits.done, path.with_name("t.db-reserve").exists(), refusal(log) is None)
    space.free = 2 * RESERVE
    await waits.wait()
    await eventually(lambda: refusal(log) is None)

    assert too_little == (False, False, False)
    assert path.with_name("t.db-reserve").stat().st_blocks * 512 >= RESERVE


async def test_a_disk_that_fills_again_is_met_with_the_reserve_again(
    kept: Opened, path: Path, space: Space
) -> None:
    log = kept.store.log
    key = await create(log, "created")
    for expected in (1, 2):
        space.free = 0
        waits = await fill_by(kept, key, expected=expected)
        await eventually(lambda: not path.with_name("t.db-reserve").exists())
        space.free = 1 << 40
        await free_the_disk(kept.store)
        await waits.wait()
        await eventually(lambda: refusal(log) is None)

    assert await log.last_sequence(key) == 3


async def test_a_full_disk_is_tried_twice_a_second_and_no_more(kept: Opened, space: Space) -> None:
    key = await create(kept.store.log, "created")
    space.free = 0
    await fill_by(kept, key)
    started, asked = time.monotonic(), space.asked

    await eventually(lambda: space.asked >= asked + 4)

    assert time.monotonic() - started >= 3 * RETRY_SECONDS * 0.9


async def test_a_full_disk_is_logged_once_and_its_end_once_with_figures(kept: Opened, space: Space) -> None:
    with capture_logs() as lines:
        log = kept.store.log
        key = await create(log, "created")
        space.free = 4096
        waits = await fill_by(kept, key)
        for _ in range(3):
            with pytest.raises(Refused):
                await kept.store.notes.put(1, "scope", "key", "text")
        asked = space.asked
        await eventually(lambda: space.asked >= asked + 2)
        space.free = 1 << 40
        await free_the_disk(kept.store)
        await waits.wait()
        await eventually(lambda: refusal(log) is None)
        await eventually(lambda: len(lines) >= 2)

    begin, end = lines
    assert (begin["event"], begin["free_bytes"], begin["reserve_bytes"]) == ("disk_full", 4096, RESERVE)
    assert (end["event"], end["written_late"]) == ("store_writable", 2)  # the record, and what freed the disk
    assert end["refused"] >= 3
    assert end["seconds"] >= 0


async def test_a_store_that_closes_on_a_full_disk_drops_what_waits(opens: Opens, path: Path) -> None:
    opened = await opens(path)
    log = opened.store.log
    key = await create(log, "created")
    waits = await fill_by(opened, key)
    started = time.monotonic()

    await opened.store.close()

    assert time.monotonic() - started < 2.0
    with pytest.raises(Refused) as refused:
        await waits.wait()
    assert refused.value.reason is Reason.STORE_UNAVAILABLE
    assert opened.fatal == []
    again = await opens(path)
    assert await bodies(again.store.log, key) == ["created"]


async def test_a_store_that_closes_as_there_is_room_again_writes_what_waits(opens: Opens, path: Path) -> None:
    opened = await opens(path)
    log = opened.store.log
    key = await create(log, "created")
    waits = await fill_by(opened, key)
    gate = Gate()
    heal = StatementWork([Answer("PRAGMA max_page_count = 1000000"), gate])
    heal.urgency = type(heal.urgency).URGENT
    opened.store.committer.submit(heal)
    assert await asyncio.to_thread(gate.reached.wait, 10.0)
    closing = asyncio.ensure_future(opened.store.close())
    await eventually(lambda: log.submit(Unit(key, 99)).done)

    gate.opening.set()
    await closing
    await waits.wait()

    assert execute(path, "SELECT sequence FROM threads") == [(2,)]


async def test_another_process_that_keeps_the_write_lock_loses_nothing_that_happened(
    opened: Opened, path: Path
) -> None:
    store, log = opened.store, opened.store.log
    key = await create(log, "created")
    await store.committer.submit(StatementWork([Answer("PRAGMA busy_timeout = 20")])).wait()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    waits = log.submit(Unit(key, 1, [record("recorded")]))
    await eventually(lambda: refusal(log) is not None)
    refused = refusal(log)
    assert refused is not None
    assert (refused.reason, waits.done) == (Reason.STORE_UNAVAILABLE, False)

    other.execute("ROLLBACK")
    other.close()
    await waits.wait()

    assert await bodies(log, key) == ["created", "recorded"]
    await eventually(lambda: refusal(log) is None)
    assert path.with_name("t.db-reserve").exists()  # nobody needed it
