"""The committer: groups, faults, a full disk, a failing one, background work, the end."""

import asyncio
import resource
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from tests.contract.units import NOW, bodies, create, creation, new_thread, projection, records, request
from tests.stores.disk import open_with
from tests.stores.kit import (
    DEADLINE_SECONDS,
    Gate,
    HandClock,
    Opened,
    Opens,
    StatementWork,
    execute,
)
from tests.waiting import eventually
from treadle_server.core.errors import Reason, Refused
from treadle_server.ports.log import Conflict, NewSession, Record, StoreFailed, ThreadKey, Unit
from treadle_server.stores.sqlite.checkpoints import LogBounds
from treadle_server.stores.sqlite.database import CORE_VERSION
from treadle_server.stores.sqlite.statements import Answer, Require, Write
from treadle_server.stores.sqlite.transactions import BYTES_MAX


async def test_units_that_wait_together_share_one_commit(opened: Opened) -> None:
    store, log = opened.store, opened.store.log
    keys = [await create(log, "created") for _ in range(100)]
    gate = Gate()
    await gate.hold(store)
    before = store.committer.commit_count
    tickets = [log.submit(Unit(key, 1, records("more"))) for key in keys]
    assert store.committer.backlog == 100

    gate.opening.set()
    await asyncio.gather(*(ticket.wait() for ticket in tickets))

    assert store.committer.commit_count == before + 2  # that of the gate, and one for all
    assert [await bodies(log, key) for key in keys] == [["created", "more"]] * 100


async def test_concurrent_writers_need_fewer_commits_than_units(opened: Opened) -> None:
    store, log = opened.store, opened.store.log
    keys = [await create(log, "created") for _ in range(32)]
    commits, units = store.committer.commit_count, store.committer.unit_count

    async def write(key: ThreadKey) -> None:
        for sequence in range(1, 11):
            await log.submit(Unit(key, sequence, records("more"))).wait()

    await asyncio.gather(*(write(key) for key in keys))

    assert store.committer.unit_count - units == 320
    assert store.committer.commit_count - commits < 320 / 4


async def test_a_unit_grows_while_the_committer_is_busy_and_not_after(opened: Opened) -> None:
    store, log = opened.store, opened.store.log
    key = await create(log, "created")
    gate = Gate()
    await gate.hold(store)
    unit = Unit(key, 1, records("first"))
    ticket = log.submit(unit)

    assert log.extend(unit, lambda open_unit: open_unit.records.extend(records("second"))) is True
    gate.opening.set()
    await ticket.wait()

    assert log.extend(unit, lambda open_unit: open_unit.records.clear()) is False
    assert await bodies(log, key) == ["created", "first", "second"]


async def test_a_taken_unit_cannot_grow_although_it_is_not_committed(opened: Opened) -> None:
    store, log = opened.store, opened.store.log
    key = await create(log, "created")
    gate, second = Gate(), Gate()
    await gate.hold(store)
    unit = Unit(key, 1, records("first"))
    ticket = log.submit(unit)
    store.committer.submit(StatementWork([second]))

    gate.opening.set()
    assert await asyncio.to_thread(second.reached.wait, DEADLINE_SECONDS)
    grew = log.extend(unit, lambda open_unit: open_unit.records.clear())
    second.opening.set()
    await ticket.wait()

    assert grew is False
    assert await bodies(log, key) == ["created", "first"]


async def test_nothing_is_read_or_heard_of_before_its_commit(opened: Opened) -> None:
    store, log = opened.store, opened.store.log
    key = await create(log, "created")
    heard: list[Unit] = []
    log.subscribe(heard.extend)
    gate = Gate()
    hold = await gate.hold(store)
    ticket = log.submit(Unit(key, 1, records("more")))
    tail = Gate()
    store.committer.submit(StatementWork([tail]))
    gate.opening.set()
    await hold.wait()
    assert await asyncio.to_thread(tail.reached.wait, DEADLINE_SECONDS)  # the unit is written, not committed

    read_before = await bodies(log, key)
    heard_before, done_before = list(heard), ticket.done
    tail.opening.set()
    await ticket.wait()

    assert (read_before, heard_before, done_before) == (["created"], [], False)
    assert (await bodies(log, key), len(heard)) == (["created", "more"], 1)


async def test_a_refusal_after_writes_takes_back_only_its_own_unit(opened: Opened) -> None:
    store, log = opened.store, opened.store.log
    session = (await store.sessions.create_if_absent(1, NewSession("s", "", 1, "", NOW))).key
    gate = Gate()
    await gate.hold(store)
    first, refused, last = (ThreadKey(1, log.allocate_thread()) for _ in range(3))
    unit = creation(refused, "refused", session=session)  # the first is in it: found after the thread's row
    tickets = [log.submit(one) for one in (creation(first, "a", session=session), unit, creation(last, "b"))]

    gate.opening.set()
    outcomes = await asyncio.gather(*(ticket.wait() for ticket in tickets), return_exceptions=True)

    assert [type(outcome) for outcome in outcomes] == [type(None), Conflict, type(None)]
    rows = [await store.threads.get_by_key(key) for key in (first, refused, last)]
    assert [row is not None for row in rows] == [True, False, True]
    assert await bodies(log, refused) == []


async def test_a_refused_unit_is_answered_only_after_the_commit_it_was_judged_in(opened: Opened) -> None:
    store, log = opened.store, opened.store.log
    key = await create(log, "created")
    gate, tail = Gate(), Gate()
    await gate.hold(store)
    log.submit(Unit(key, 1, records("first")))
    refused = log.submit(Unit(key, 1, records("second")))
    store.committer.submit(StatementWork([tail]))

    gate.opening.set()
    assert await asyncio.to_thread(tail.reached.wait, DEADLINE_SECONDS)
    done_before = refused.done
    tail.opening.set()

    with pytest.raises(Conflict):
        await refused.wait()
    assert done_before is False


async def test_a_faulty_unit_costs_itself_only(opened: Opened) -> None:
    store, log = opened.store, opened.store.log
    keys = [await create(log, "created") for _ in range(2)]
    gate = Gate()
    await gate.hold(store)
    before = log.submit(Unit(keys[0], 1, records("before")))
    faulty = store.committer.submit(StatementWork([Write("INSERT INTO nowhere VALUES (1)", ())]))
    after = log.submit(Unit(keys[1], 1, records("after")))

    gate.opening.set()
    await asyncio.gather(before.wait(), after.wait())
    with pytest.raises(StoreFailed, match="nowhere"):
        await faulty.wait()

    assert [await bodies(log, key) for key in keys] == [["created", "before"], ["created", "after"]]
    assert opened.fatal == []


async def test_values_that_do_not_fit_a_column_cost_their_unit_only(opened: Opened) -> None:
    log = opened.store.log
    key = await create(log, "created")
    too_large = log.submit(Unit(key, 1, [Record(2**70, b"body")]))

    with pytest.raises(StoreFailed):
        await too_large.wait()

    await log.submit(Unit(key, 1, records("more"))).wait()
    assert await bodies(log, key) == ["created", "more"]


async def test_a_guard_that_meets_more_than_one_row_is_a_fault(opened: Opened) -> None:
    store = opened.store
    keys = [await create(store.log, "created") for _ in range(2)]
    both = StatementWork([Write("UPDATE threads SET epoch = 99", (), Conflict)])

    with pytest.raises(StoreFailed):
        await store.committer.submit(both).wait()

    rows = [await store.threads.get_by_key(key) for key in keys]
    assert [row.epoch for row in rows if row is not None] == [1, 1]


@contextmanager
def _files_no_larger_than(size: int) -> Iterator[None]:
    """The kernel refuses to write beyond: not as a full disk does, but as a broken one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size", [100_000, 30_000_000], ids=["in COMMIT", "before it, beyond the cache"])
async def test_an_i_o_error_is_fatal_and_what_was_acknowledged_stays(
    opens: Opens, path: Path, size: int
) -> None:
    opened = await opens(path)
    log = opened.store.log
    key = await create(log, "created")
    wal = path.with_name(path.name + "-wal")

    with _files_no_larger_than(wal.stat().st_size):
        tickets = [log.submit(Unit(key, 1, [Record(3, b"x" * size)])) for _ in range(3)]
        for ticket in tickets:
            with pytest.raises((StoreFailed, Refused)):
                await ticket.wait()
    with pytest.raises(Refused) as refused:
        await log.submit(Unit(key, 1, records("later"))).wait()
    assert refused.value.reason is Reason.STORE_UNAVAILABLE
    assert [type(error) for error in opened.fatal] == [StoreFailed]
    assert await bodies(log, key) == ["created"]  # reads go on until the process ends
    await opened.store.close()
    assert wal.exists()  # nothing was written any more

    again = await opens(path)
    assert await bodies(again.store.log, key) == ["created"]
    await again.store.close()


async def test_who_waits_behind_a_checkpoint_that_fails_for_good_is_told(path: Path) -> None:
    opened = await open_with(path, log_bounds=LogBounds(checkpoint=1))
    store, log = opened.store, opened.store.log
    key = await create(log, "created")
    await log.submit(Unit(key, 1, [Record(3, b"x" * 1_000_000)])).wait()
    gate = Gate()
    hold = await gate.hold(store)
    grows = Answer("CREATE TABLE grown AS SELECT zeroblob(50000)")
    first = store.committer.submit(StatementWork([grows], byte_count=BYTES_MAX))
    behind = [log.submit(Unit(key, 2, records("behind"))), log.submit(creation(ThreadKey(1, 99), "new"))]

    with _files_no_larger_than(400_000):
        gate.opening.set()
        async with asyncio.timeout(DEADLINE_SECONDS):
            await hold.wait()
            await first.wait()
            for ticket in behind:
                with pytest.raises(Refused) as refused:
                    await ticket.wait()
                assert refused.value.reason is Reason.STORE_UNAVAILABLE
    await store.close()

    assert [type(reason) for reason in opened.fatal] == [StoreFailed]
    assert execute(path, "SELECT count(*) FROM grown") == [(1,)]


async def test_another_process_with_the_write_lock_only_delays(opened: Opened, path: Path) -> None:
    key = await create(opened.store.log, "created")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    ticket = opened.store.log.submit(Unit(key, 1, records("more")))
    waits = asyncio.ensure_future(ticket.wait())
    await eventually(lambda: opened.store.committer.backlog == 0)
    assert not ticket.done
    other.execute("ROLLBACK")
    other.close()
    await waits

    assert await bodies(opened.store.log, key) == ["created", "more"]


async def test_large_units_are_spread_over_commits(opened: Opened) -> None:
    store, log = opened.store, opened.store.log
    keys = [await create(log, "created") for _ in range(6)]
    gate = Gate()
    await gate.hold(store)
    before = store.committer.commit_count
    tickets = [log.submit(Unit(key, 1, [Record(3, b"x" * 2_000_000)])) for key in keys]

    gate.opening.set()
    await asyncio.gather(*(ticket.wait() for ticket in tickets))

    assert store.committer.commit_count - before >= 3
    assert [await log.last_sequence(key) for key in keys] == [2] * 6


async def test_the_log_beside_the_file_does_not_grow_for_ever(opened: Opened, path: Path) -> None:
    log = opened.store.log
    key = await create(log, "created")
    wal = path.with_name(path.name + "-wal")
    body = b"x" * 500_000
    sizes = []

    for sequence in range(1, 121):  # 60 MB
        await log.submit(Unit(key, sequence, [Record(3, body)])).wait()
        sizes.append(wal.stat().st_size)

    assert max(sizes) < 30_000_000


@dataclass(slots=True)
class Trace:
    """Notes when it was applied."""

    name: str
    seen: list[str]
    refuses: ClassVar[bool] = False
    writes: ClassVar[bool] = False

    def apply(self, cursor: sqlite3.Cursor) -> None:
        self.seen.append(self.name)


async def test_background_work_gives_way_to_the_foreground(opened: Opened) -> None:
    store = opened.store
    gate, seen = Gate(), list[str]()
    first = store.committer.submit(StatementWork([Trace("background 0", seen)]), background=True)
    await first.wait()  # its turn was just now
    await gate.hold(store)
    background = [
        store.committer.submit(StatementWork([Trace(f"background {number}", seen)]), background=True)
        for number in (1, 2)
    ]
    foreground = [store.committer.submit(StatementWork([Trace("foreground", seen)])) for _ in range(3)]

    gate.opening.set()
    await asyncio.gather(*(ticket.wait() for ticket in [*background, *foreground]))

    assert seen == ["background 0", *["foreground"] * 3, "background 1", "background 2"]


async def test_background_work_that_had_no_turn_for_long_goes_first(opened: Opened) -> None:
    store = opened.store
    gate, seen = Gate(), list[str]()
    await gate.hold(store)  # no background work has had a turn since the store was opened
    foreground = store.committer.submit(StatementWork([Trace("foreground", seen)]))
    background = [
        store.committer.submit(StatementWork([Trace(f"background {number}", seen)]), background=True)
        for number in (1, 2)
    ]

    gate.opening.set()
    await asyncio.gather(*(ticket.wait() for ticket in [foreground, *background]))

    assert seen == ["background 1", "foreground", "background 2"]


async def test_closing_writes_what_is_queued_and_refuses_what_comes_later(opens: Opens, path: Path) -> None:
    opened = await opens(path)
    store, log = opened.store, opened.store.log
    key = await create(log, "created")
    gate = Gate()
    await gate.hold(store)
    tickets = [log.submit(Unit(key, sequence, records("more"))) for sequence in range(1, 20)]
    closing = asyncio.ensure_future(store.close())
    await eventually(lambda: log.submit(Unit(key, 99)).done)

    with pytest.raises(Refused) as refused:
        await log.submit(Unit(key, 99, records("late"))).wait()
    gate.opening.set()
    await closing

    assert refused.value.reason is Reason.STORE_UNAVAILABLE
    assert all(ticket.done and ticket.error is None for ticket in tickets)
    assert execute(path, "SELECT sequence FROM threads") == [(20,)]
    assert not path.with_name(path.name + "-wal").exists()


async def test_a_requirement_without_a_row_refuses(opened: Opened) -> None:
    store = opened.store
    work = StatementWork(
        [Require("SELECT 1 WHERE ? > 1", (1,), Conflict), Write("UPDATE meta SET core = 9", ())]
    )

    with pytest.raises(Conflict):
        await store.committer.submit(work).wait()

    assert await store.readers.rows("SELECT core FROM meta") == [(CORE_VERSION,)]


async def test_the_state_of_a_row_follows_the_last_projection_of_its_units(opened: Opened) -> None:
    store, log = opened.store, opened.store.log
    key = await create(log, "created")
    ended = projection(6, wake_at=None)
    ended.end_time, ended.summary, ended.state_time = NOW + 5, b"summary", NOW + 4

    await log.submit(Unit(key, 1, records("waits"), projection(3, wake_at=NOW + 9))).wait()
    waiting = await store.threads.get_by_key(key)
    await log.submit(Unit(key, 2, records("ended"), ended)).wait()
    done = await store.threads.get_by_key(key)

    assert waiting is not None
    assert (waiting.state, waiting.wake_at, waiting.sequence, waiting.summary) == (3, NOW + 9, 2, None)
    assert done is not None
    assert (done.state, done.wake_at, done.sequence, done.summary) == (6, None, 3, b"summary")
    assert (done.end_time, done.state_time, done.iteration_count, done.total_tokens) == (
        NOW + 5,
        NOW + 4,
        1,
        30,
    )


async def test_a_request_survives_a_restart(opens: Opens, path: Path, clock: HandClock) -> None:
    opened = await opens(path)
    key = ThreadKey(1, opened.store.log.allocate_thread())
    unit = Unit(key, 0, records("a"), projection(), new_thread("t"), request())
    await opened.store.log.submit(unit).wait()
    await opened.store.close()

    again = await opens(path)
    found = await again.store.requests.find(1, "r1", now=clock.time)
    expired = await again.store.requests.find(1, "r1", now=request().expire_time)
    await again.store.close()

    assert found == request()
    assert expired is None
