"""What every log promises: one suite for all of them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.contract.units import (
    COMPLETED,
    DAY_MICROS,
    NOW,
    RUNNING,
    AllocatingLog,
    bodies,
    create,
    creation,
    fork,
    new_thread,
    projection,
    record,
    records,
    request,
)
from tests.stores.disk import LARGE, fill_the_disk, free_the_disk, refusal
from tests.waiting import eventually
from treadle_server.core.errors import Reason, Refused
from treadle_server.ports.log import Conflict, NewSession, Record, Replayed, Shared, ThreadKey, Unit
from treadle_server.stores.memory import MemoryLog
from treadle_server.stores.sqlite.store import SqliteStore


@dataclass(slots=True)
class HandClock:
    """Stands still until a test sets it."""

    time: int = NOW

    def now(self) -> int:
        return self.time


@dataclass(slots=True)
class Subject:
    """A log under test, with what a test needs of the store around it."""

    log: AllocatingLog
    clock: HandClock
    make_session: Callable[[], Awaitable[int]]
    fill: Callable[[], Awaitable[None]]
    """Takes all room away: what is submitted then waits, or is refused."""
    make_room: Callable[[], Awaitable[None]]


@pytest.fixture(params=["memory", "sqlite"])
async def subject(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Subject]:
    clock = HandClock()
    if request.param == "memory":
        keys = iter(range(1, 100))

        async def next_key() -> int:
            return next(keys)

        memory = MemoryLog(clock)
        yield Subject(memory, clock, next_key, _soon(memory.fill), _soon(memory.make_room))
        return
    failures: list[Exception] = []
    store = await SqliteStore.open(tmp_path / "t.db", on_fatal=failures.append, clock=clock)

    async def make_session() -> int:
        new = NewSession(id="s", session_key="", agent=1, parent_object="", create_time=NOW)
        return (await store.sessions.create_if_absent(1, new)).key

    async def fill() -> None:
        key = await create(store.log, "sacrificed")
        await fill_the_disk(store)
        store.log.submit(Unit(key, 1, [LARGE]))
        await eventually(lambda: refusal(store.log) is not None)

    yield Subject(store.log, clock, make_session, fill, lambda: free_the_disk(store))
    await store.close()
    assert failures == []


def _soon(act: Callable[[], None]) -> Callable[[], Awaitable[None]]:
    async def later() -> None:
        act()

    return later


@pytest.fixture
def log(subject: Subject) -> AllocatingLog:
    return subject.log


async def test_a_record_is_read_byte_for_byte_with_its_private_part(log: AllocatingLog) -> None:
    written = [
        Record(1, b"\x00\xff body", b"\x00 private"),
        Record(2**31 - 1, b"", b""),
        Record(0, b"no private part"),
    ]
    key = ThreadKey(1, log.allocate_thread())
    await log.submit(Unit(key, 0, list(written), projection(), new_thread("t"))).wait()

    stored = await log.read(key, 0, 10)

    assert [one.record for one in stored] == written
    assert [one.sequence for one in stored] == [1, 2, 3]


async def test_a_thread_without_records_reads_as_empty(log: AllocatingLog) -> None:
    assert await log.read(ThreadKey(1, 999), 0, 10) == []
    assert await log.last_sequence(ThreadKey(1, 999)) == 0


async def test_a_read_begins_after_a_sequence_and_keeps_its_limit(log: AllocatingLog) -> None:
    key = await create(log, "a", "b", "c", "d")

    assert await bodies(log, key, after=1, limit=2) == ["b", "c"]
    assert await bodies(log, key, after=4) == []
    assert await bodies(log, key, after=9) == []
    assert await log.last_sequence(key) == 4


async def test_another_tenant_with_the_same_thread_key_reads_nothing(log: AllocatingLog) -> None:
    key = await create(log, "a")

    assert await log.read(ThreadKey(2, key.thread), 0, 10) == []
    assert await log.last_sequence(ThreadKey(2, key.thread)) == 0


@pytest.mark.parametrize("state", [None, RUNNING, COMPLETED])
async def test_the_slower_of_two_writers_is_refused_and_writes_nothing(
    log: AllocatingLog, state: int | None
) -> None:
    key = await create(log, "created")
    moved = projection(state) if state is not None else None
    first = log.submit(Unit(key, 1, records("first"), moved))
    second = log.submit(Unit(key, 1, records("second", "more"), moved, request=request()))

    await first.wait()
    with pytest.raises(Conflict):
        await second.wait()

    assert await bodies(log, key) == ["created", "first"]
    await log.submit(Unit(key, 2, records("again"), request=request())).wait()  # its request id is free


async def test_a_unit_for_a_thread_that_is_not_there_is_refused(log: AllocatingLog) -> None:
    with pytest.raises(Conflict):
        await log.submit(Unit(ThreadKey(1, 999), 0, records("a"))).wait()

    assert await log.last_sequence(ThreadKey(1, 999)) == 0


async def test_units_of_one_log_are_applied_in_the_order_of_submit(log: AllocatingLog) -> None:
    key = await create(log, "0")
    tickets = [log.submit(Unit(key, number, records(str(number)))) for number in range(1, 50)]

    for ticket in tickets:
        await ticket.wait()

    assert await bodies(log, key) == [str(number) for number in range(50)]


async def test_units_queued_behind_a_refused_one_are_refused_too(log: AllocatingLog) -> None:
    key = await create(log, "created")
    refused = log.submit(Unit(key, 5, records("too far")))
    behind = log.submit(Unit(key, 6, records("behind")))
    good = log.submit(Unit(key, 1, records("good")))

    for ticket in (refused, behind):
        with pytest.raises(Conflict):
            await ticket.wait()
    await good.wait()

    assert await bodies(log, key) == ["created", "good"]


async def test_a_unit_grows_until_it_is_taken(log: AllocatingLog) -> None:
    key = await create(log, "created")
    unit = Unit(key, 1, records("first"))
    ticket = log.submit(unit)
    grown: list[bool] = []

    def grow(open_unit: Unit) -> None:
        assert open_unit is unit
        open_unit.records.append(record("later"))

    while log.extend(unit, grow):  # until the other side takes it
        grown.append(True)
        if len(grown) == 20:
            break
    await ticket.wait()

    assert log.extend(unit, grow) is False
    assert await bodies(log, key) == ["created", "first", *["later"] * len(grown)]


async def test_a_unit_that_was_never_submitted_cannot_be_extended(log: AllocatingLog) -> None:
    assert log.extend(Unit(ThreadKey(1, 1), 0), lambda unit: pytest.fail("it was called")) is False


async def test_listeners_hear_of_units_in_order_before_their_tickets_are_done(log: AllocatingLog) -> None:
    heard: list[Unit] = []
    done_when_heard: list[bool] = []

    def listener(units: Sequence[Unit]) -> None:
        heard.extend(units)
        done_when_heard.extend(ticket.done for ticket in tickets[: len(heard)][-len(units) :])

    key = await create(log, "created")
    log.subscribe(listener)
    units = [Unit(key, number, records(str(number))) for number in range(1, 6)]
    tickets = [log.submit(unit) for unit in units]
    waits = [asyncio.ensure_future(ticket.wait()) for ticket in tickets]

    await waits[0]
    assert heard[0] is units[0]
    await asyncio.gather(*waits)

    assert [id(unit) for unit in heard] == [id(unit) for unit in units]
    assert done_when_heard == [False] * 5


async def test_what_a_listener_hears_of_can_be_read(log: AllocatingLog) -> None:
    reads: list[asyncio.Task[list[str]]] = []
    key = await create(log, "created")
    log.subscribe(lambda units: reads.append(asyncio.ensure_future(bodies(log, units[-1].key))))

    await log.submit(Unit(key, 1, records("heard"))).wait()

    assert await reads[0] == ["created", "heard"]


async def test_listeners_do_not_hear_of_refused_units(log: AllocatingLog) -> None:
    key = await create(log, "created")
    heard: list[Unit] = []
    log.subscribe(heard.extend)
    refused = Unit(key, 7, records("refused"))

    with pytest.raises(Conflict):
        await log.submit(refused).wait()
    applied = Unit(key, 1, records("applied"))
    await log.submit(applied).wait()

    assert len(heard) == 1
    assert heard[0] is applied


async def test_a_listener_that_fails_keeps_no_one_from_an_answer(log: AllocatingLog) -> None:
    reported: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context["message"]))

    def faulty(units: Sequence[Unit]) -> None:
        raise RuntimeError("faulty listener")

    log.subscribe(faulty)
    key = await create(log, "created")

    assert await bodies(log, key) == ["created"]
    assert len(reported) == 1


async def test_a_cancelled_wait_neither_stops_the_unit_nor_other_waits(log: AllocatingLog) -> None:
    key = await create(log, "created")
    ticket = log.submit(Unit(key, 1, records("durable")))
    cancelled = asyncio.ensure_future(ticket.wait())
    other = asyncio.ensure_future(ticket.wait())
    await asyncio.sleep(0)
    cancelled.cancel()

    await other
    await ticket.wait()

    assert ticket.done
    assert await bodies(log, key) == ["created", "durable"]


async def test_a_refusal_can_be_awaited_more_than_once(log: AllocatingLog) -> None:
    ticket = log.submit(Unit(ThreadKey(1, 999), 0, records("a")))

    for _ in range(2):
        with pytest.raises(Conflict):
            await ticket.wait()


async def test_a_hundred_submissions_of_one_request_are_applied_once(log: AllocatingLog) -> None:
    keys = [ThreadKey(1, log.allocate_thread()) for _ in range(100)]
    tickets = [
        log.submit(creation(key, "created", thread_id=f"t{key.thread}", request=request())) for key in keys
    ]

    outcomes = await asyncio.gather(*(ticket.wait() for ticket in tickets), return_exceptions=True)

    assert outcomes[0] is None
    replayed = [outcome for outcome in outcomes[1:] if isinstance(outcome, Replayed)]
    assert len(replayed) == 99
    assert (replayed[0].resource, replayed[0].from_sequence, replayed[0].response) == (
        "threads/first",
        1,
        b"answer",
    )
    assert [await log.last_sequence(key) for key in keys] == [1] + [0] * 99


@pytest.mark.parametrize("difference", [{"digest": b"other"}, {"principal": "someone else"}])
async def test_a_request_id_used_for_another_call_is_refused(
    log: AllocatingLog, difference: dict[str, str]
) -> None:
    first = ThreadKey(1, log.allocate_thread())
    await log.submit(creation(first, "created", request=request("r7"))).wait()
    second = ThreadKey(1, log.allocate_thread())

    with pytest.raises(Refused) as refused:
        await log.submit(creation(second, "created", request=request("r7", **difference))).wait()  # type: ignore[arg-type]

    assert refused.value.reason is Reason.REQUEST_ID_REUSED
    assert refused.value.metadata == {"request_id": "r7"}
    assert await log.last_sequence(second) == 0


async def test_a_request_id_is_looked_up_before_anything_else_is_checked(log: AllocatingLog) -> None:
    key = ThreadKey(1, log.allocate_thread())
    await log.submit(creation(key, "created", request=request())).wait()

    with pytest.raises(Replayed):  # and not that the id is taken
        await log.submit(creation(key, "created", request=request())).wait()
    with pytest.raises(Replayed):  # and not that the sequence is another
        await log.submit(Unit(key, 7, records("x"), request=request())).wait()


async def test_tenants_do_not_share_request_ids(log: AllocatingLog) -> None:
    first, second = ThreadKey(1, log.allocate_thread()), ThreadKey(2, log.allocate_thread())
    await log.submit(creation(first, "a", request=request())).wait()
    await log.submit(creation(second, "b", request=request(digest=b"other"))).wait()

    assert await bodies(log, second) == ["b"]


async def test_an_expired_request_id_is_free_again(subject: Subject) -> None:
    log = subject.log
    key = ThreadKey(1, log.allocate_thread())
    await log.submit(creation(key, "created", request=request())).wait()
    subject.clock.time = NOW + DAY_MICROS
    later = request(digest=b"other", expire_time=NOW + 2 * DAY_MICROS)

    await log.submit(Unit(key, 1, records("later"), request=later)).wait()

    with pytest.raises(Replayed):
        await log.submit(Unit(key, 2, records("repeated"), request=later)).wait()
    assert await bodies(log, key) == ["created", "later"]


async def test_a_new_thread_with_an_id_that_is_taken_is_refused_whole(log: AllocatingLog) -> None:
    first, second = ThreadKey(1, log.allocate_thread()), ThreadKey(1, log.allocate_thread())
    await log.submit(creation(first, "first", thread_id="same")).wait()

    with pytest.raises(Refused) as refused:
        await log.submit(creation(second, "second", thread_id="same", request=request())).wait()

    assert refused.value.reason is Reason.RESOURCE_EXISTS
    assert refused.value.resource == ("treadle.dev/Thread", "threads/same")
    assert await log.last_sequence(second) == 0
    await log.submit(creation(second, "second", thread_id="other", request=request())).wait()
    assert await bodies(log, second) == ["second"]


async def test_tenants_do_not_share_thread_ids(log: AllocatingLog) -> None:
    for tenant in (1, 2):
        key = ThreadKey(tenant, log.allocate_thread())
        await log.submit(creation(key, str(tenant), thread_id="same")).wait()

        assert await bodies(log, key) == [str(tenant)]


async def test_a_session_takes_one_active_thread_at_a_time(subject: Subject) -> None:
    log, session = subject.log, await subject.make_session()
    first, second = ThreadKey(1, log.allocate_thread()), ThreadKey(1, log.allocate_thread())
    await log.submit(creation(first, "first", session=session)).wait()

    with pytest.raises(Conflict):
        await log.submit(creation(second, "second", session=session)).wait()
    assert await log.last_sequence(second) == 0

    await log.submit(Unit(first, 1, records("more"), enters_session=session)).wait()  # it is in already
    ending = projection(COMPLETED, frees_session=True)
    await log.submit(Unit(first, 2, records("ended"), projection=ending)).wait()
    await log.submit(creation(second, "second", session=session)).wait()

    assert await bodies(log, first) == ["first", "more", "ended"]
    assert await bodies(log, second) == ["second"]


async def test_a_thread_frees_no_session_that_another_is_active_in(subject: Subject) -> None:
    log, session = subject.log, await subject.make_session()
    active, queued, third = (ThreadKey(1, log.allocate_thread()) for _ in range(3))
    await log.submit(creation(active, "active", session=session)).wait()
    waiting = creation(queued, "queued", session=session)
    waiting.enters_session = 0
    await log.submit(waiting).wait()

    ending = projection(COMPLETED, frees_session=True)
    await log.submit(Unit(queued, 1, records("cancelled"), projection=ending)).wait()

    with pytest.raises(Conflict):
        await log.submit(creation(third, "third", session=session)).wait()


async def test_a_unit_without_records_is_guarded_and_remembered(log: AllocatingLog) -> None:
    key = await create(log, "created")

    await log.submit(Unit(key, 1, request=request())).wait()

    with pytest.raises(Conflict):
        await log.submit(Unit(key, 0, request=request("r2"))).wait()
    with pytest.raises(Replayed):
        await log.submit(Unit(key, 1, request=request())).wait()
    assert await bodies(log, key) == ["created"]


async def test_thread_keys_are_all_different(log: AllocatingLog) -> None:
    keys = {log.allocate_thread() for _ in range(100)}

    assert len(keys) == 100


async def test_many_threads_are_written_at_once_without_holes(log: AllocatingLog) -> None:
    keys = [await create(log, "0") for _ in range(20)]

    async def write(key: ThreadKey) -> None:
        for number in range(1, 11):
            await log.submit(Unit(key, number, records(str(number)), projection())).wait()

    await asyncio.gather(*(write(key) for key in keys))

    expected = [str(number) for number in range(11)]
    assert [await bodies(log, key) for key in keys] == [expected] * 20


async def test_without_room_a_new_thread_is_refused_and_its_id_stays_free(subject: Subject) -> None:
    log = subject.log
    key = ThreadKey(1, log.allocate_thread())
    log.check_writable()
    assert log.blocked_by is None
    await subject.fill()

    with pytest.raises(Refused) as writable:
        log.check_writable()
    with pytest.raises(Refused) as made:
        await log.submit(creation(key, "refused", thread_id="wanted", request=request())).wait()

    assert (writable.value.reason, made.value.reason) == (Reason.DISK_FULL, Reason.DISK_FULL)
    assert log.blocked_by is Reason.DISK_FULL
    await subject.make_room()
    await eventually(lambda: refusal(log) is None)
    assert log.blocked_by is None
    await log.submit(creation(key, "made", thread_id="wanted", request=request())).wait()
    assert await bodies(log, key) == ["made"]


async def test_without_room_units_wait_in_their_order_and_are_written_once_there_is(
    subject: Subject,
) -> None:
    log, heard = subject.log, list[Unit]()
    key = await create(log, "created")
    await subject.fill()
    log.subscribe(heard.extend)
    units = [Unit(key, number, records(str(number))) for number in (1, 2, 3)]
    tickets = [log.submit(unit) for unit in units]
    wait = asyncio.ensure_future(tickets[0].wait())
    other = ThreadKey(1, log.allocate_thread())
    with pytest.raises(Refused):  # it came after them, so they have been looked at
        await log.submit(creation(other, "refused")).wait()

    read = await bodies(log, key)
    before = (heard.copy(), [ticket.done for ticket in tickets], wait.done())
    await subject.make_room()
    await asyncio.gather(wait, *(ticket.wait() for ticket in tickets))

    assert before == ([], [False] * 3, False)
    assert read == ["created"]  # reads go on meanwhile
    assert await bodies(log, key) == ["created", "1", "2", "3"]
    assert [id(unit) for unit in heard if unit.key == key] == [id(unit) for unit in units]


async def test_without_room_what_ends_a_thread_is_written_behind_what_waits_of_it(subject: Subject) -> None:
    log = subject.log
    ending, other = [await create(log, "created") for _ in range(2)]
    await subject.fill()
    first = log.submit(Unit(ending, 1, records("result")))
    waits = log.submit(Unit(other, 1, records("waits")))

    await log.submit(Unit(ending, 2, records("ended"), projection(COMPLETED), urgent=True)).wait()
    done = (first.done, waits.done)
    read = [await bodies(log, key) for key in (ending, other)]
    await subject.make_room()
    await waits.wait()

    assert done == (True, False)
    assert read == [["created", "result", "ended"], ["created"]]
    assert await bodies(log, other) == ["created", "waits"]


async def test_without_room_a_unit_that_waits_does_not_grow(subject: Subject) -> None:
    log = subject.log
    key, other = [await create(log, "created") for _ in range(2)]
    await subject.fill()
    unit = Unit(key, 1, records("waits"))
    ticket = log.submit(unit)
    await log.submit(Unit(other, 1, records("ends"), urgent=True)).wait()  # so the one before it was taken

    grew = log.extend(unit, lambda open_unit: open_unit.records.clear())
    await subject.make_room()
    await ticket.wait()

    assert grew is False
    assert await bodies(log, key) == ["created", "waits"]


# Records shared with another log


async def test_a_fork_begins_with_records_of_another_log_and_goes_on_by_itself(subject: Subject) -> None:
    log = subject.log
    first = await create(log, "one", "two", "three")
    second = ThreadKey(1, log.allocate_thread())

    await log.submit(fork(second, Shared(first, 2, 6), "forked")).wait()
    await log.submit(Unit(second, 3, records("four"))).wait()

    assert await bodies(log, second) == ["one", "two", "forked", "four"]
    assert await bodies(log, first) == ["one", "two", "three"]
    assert await log.last_sequence(second) == 4


async def test_a_shared_record_is_byte_for_byte_the_others(subject: Subject) -> None:
    log = subject.log
    first = ThreadKey(1, log.allocate_thread())
    unit = creation(first, "one")
    unit.records.append(Record(kind=200, body=b"\x00body", private=b"kept \xff apart"))
    await log.submit(unit).wait()
    second = ThreadKey(1, log.allocate_thread())

    await log.submit(fork(second, Shared(first, 2, 6), "forked")).wait()

    assert (await log.read(second, 0, 2)) == (await log.read(first, 0, 2))


async def test_what_one_log_gets_later_is_not_shared(subject: Subject) -> None:
    log = subject.log
    first = await create(log, "one")
    second = ThreadKey(1, log.allocate_thread())
    await log.submit(fork(second, Shared(first, 1, 3), "forked")).wait()

    await log.submit(Unit(first, 1, records("more"))).wait()

    assert await bodies(log, second) == ["one", "forked"]
    assert await bodies(log, first) == ["one", "more"]


async def test_a_fork_of_records_that_are_not_there_is_refused_and_leaves_nothing(subject: Subject) -> None:
    log = subject.log
    first = await create(log, "one")
    second = ThreadKey(1, log.allocate_thread())

    for shared in (Shared(first, 2, 6), Shared(ThreadKey(1, 999), 1, 3)):
        with pytest.raises(Refused) as refused:
            await log.submit(fork(second, shared, "forked", thread_id="second")).wait()
        assert refused.value.reason is Reason.RESOURCE_NOT_FOUND

    await log.submit(fork(second, Shared(first, 1, 3), "forked", thread_id="second")).wait()
    assert await bodies(log, second) == ["one", "forked"]


async def test_records_of_another_tenant_are_not_shared(subject: Subject) -> None:
    log = subject.log
    first = await create(log, "one", tenant=2)
    second = ThreadKey(1, log.allocate_thread())

    with pytest.raises(Refused) as refused:
        await log.submit(fork(second, Shared(ThreadKey(1, first.thread), 1, 3), "forked")).wait()

    assert refused.value.reason is Reason.RESOURCE_NOT_FOUND


async def test_a_fork_whose_id_is_taken_shares_nothing(subject: Subject) -> None:
    log = subject.log
    first = await create(log, "one")
    second = ThreadKey(1, log.allocate_thread())

    with pytest.raises(Refused) as refused:
        await log.submit(
            fork(second, Shared(first, 1, 3), "forked", thread_id=f"thread-{first.thread}")
        ).wait()

    assert refused.value.reason is Reason.RESOURCE_EXISTS
    assert await bodies(log, second) == []


async def test_a_thread_that_would_be_alone_in_its_session_is_refused_while_another_lives(
    subject: Subject,
) -> None:
    log, session = subject.log, await subject.make_session()
    first, second = ThreadKey(1, log.allocate_thread()), ThreadKey(1, log.allocate_thread())
    await log.submit(creation(first, "first", session=session)).wait()
    alone = new_thread("second", session=session)
    alone.alone_in_session = True

    with pytest.raises(Refused) as refused:
        await log.submit(Unit(second, 0, records("x"), projection(), new_thread=alone)).wait()
    assert await log.last_sequence(second) == 0
    await log.submit(Unit(first, 1, records("y"), projection(COMPLETED, frees_session=True))).wait()
    await log.submit(Unit(second, 0, records("x"), projection(), new_thread=alone)).wait()

    assert refused.value.reason is Reason.SESSION_BUSY
    assert await bodies(log, second) == ["x"]


async def test_a_session_is_begun_by_one_thread(subject: Subject) -> None:
    log, session = subject.log, await subject.make_session()
    units = []
    for number in range(5):
        key, new = ThreadKey(1, log.allocate_thread()), new_thread(f"t{number}", session=session)
        new.begins_session = True
        units.append(Unit(key, 0, records("x"), projection(), new_thread=new))

    outcomes = await asyncio.gather(*(log.submit(unit).wait() for unit in units), return_exceptions=True)

    assert [type(outcome) for outcome in outcomes] == [type(None)] + [Conflict] * 4
