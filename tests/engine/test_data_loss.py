"""Threads that cannot be read any more: each is ended by its row, and no other suffers."""

import asyncio

import pytest

from tests.engine.conftest import OpenHouse
from tests.engine.handloop import turns, within
from tests.engine.house import House, left_over, say, use
from tests.stores.kit import Gate, execute
from tests.waiting import eventually
from treadle_server.core import signals as s
from treadle_server.core.errors import Reason, Refused
from treadle_server.core.events import Event
from treadle_server.core.kinds import StopReason, ThreadState
from treadle_server.ports.feed import Subscription, Watch
from treadle_server.ports.log import StoredRecord, ThreadKey
from treadle_server.services.controls import Controls
from treadle_server.services.keys import Identity
from treadle_server.services.requests import Replays
from treadle_server.services.thread_reads import ThreadReads
from treadle_server.services.threads import Threads
from treadle_server.stores.sqlite import checksums
from treadle_server.wire.codec import ProtoCodec

CONDEMNED = (ThreadState.FAILED, StopReason.DATA_LOSS)
DAMAGE = {
    "an event": "UPDATE events SET body = x'00' WHERE thread = ? AND sequence = 2",
    "the spec": "UPDATE specs SET body = x'00' WHERE digest = "
    "(SELECT spec_digest FROM thread_details WHERE thread = ?)",
    "no spec": "DELETE FROM specs WHERE digest = (SELECT spec_digest FROM thread_details WHERE thread = ?)",
}


async def state_of(house: House, key: ThreadKey) -> tuple[int, int]:
    row = await house.row(key)
    return row.state, row.stop_reason


async def condemned(house: House, key: ThreadKey) -> None:
    while await state_of(house, key) != CONDEMNED:
        await turns(1)


async def damaged(build: OpenHouse, damage: str, **options: int) -> tuple[House, ThreadKey, ThreadKey]:
    """A house that has not taken up yet what another left: a damaged thread, and one that is whole."""
    first = await build()
    session = await first.session() if options else 0
    keys = [
        await first.start({"hang": True}, session=session if number == 1 else 0, instructions=f"{number}")
        for number in (1, 2)
    ]
    for key in keys:
        await first.committed(key, "model_call_started")
    await first.crash()
    house = await build()
    execute(house.path, damage, keys[0].thread)
    return house, keys[0], keys[1]


@pytest.mark.parametrize("damage", list(DAMAGE))
async def test_a_damaged_thread_is_condemned_when_it_is_taken_up(build: OpenHouse, damage: str) -> None:
    house, bad, whole = await damaged(build, DAMAGE[damage])

    assert await house.recover() == 2
    await within(condemned(house, bad))

    row = await house.row(bad)
    assert row.end_time is not None
    assert row.wake_at is None
    await house.committed(whole, "execution_recovered")
    await house.cancel(whole)
    await house.ended(whole)
    await eventually(lambda: left_over(house.engine) == {})


async def test_the_session_of_a_condemned_thread_is_free(build: OpenHouse) -> None:
    house, bad, _ = await damaged(build, DAMAGE["an event"], session=1)
    waiting = await house.start(say("fine"), session=1)

    await house.recover()
    await within(condemned(house, bad))

    house.clock.advance(1.1)
    assert (await house.ended(waiting)).state == ThreadState.COMPLETED


async def test_who_waits_for_a_thread_hears_of_its_damage(build: OpenHouse) -> None:
    house, bad, whole = await damaged(build, DAMAGE["an event"])
    waits = [asyncio.create_task(wait(bad)) for wait in (house.engine.resting, house.engine.ended)]
    other = asyncio.create_task(house.engine.ended(whole))
    await turns()

    await house.recover()

    for wait in waits:
        with pytest.raises(Refused) as refused:
            await within(wait)
        assert refused.value.reason is Reason.RECORD_CORRUPT
    assert not other.done()
    other.cancel()


async def test_who_asks_something_of_a_damaged_thread_condemns_it(build: OpenHouse) -> None:
    first = await build()
    first.bench.add("ask", asks=True)
    key = await first.start(use("ask"), say("fine"))
    await within(first.reached(key, ThreadState.WAITING_INPUT))
    await first.crash()
    house = await build(bench=first.bench)
    await house.recover()
    execute(house.path, DAMAGE["an event"], key.thread)
    assert await state_of(house, key) == (ThreadState.WAITING_INPUT, 0)

    for _ in range(2):
        with pytest.raises(Refused) as refused:
            await within(house.engine.ask(key, s.Cancel(house.clock.now())))
        assert refused.value.reason is Reason.RECORD_CORRUPT
        assert refused.value.metadata["sequence"] == "2"

    assert await state_of(house, key) == CONDEMNED


async def test_a_watcher_gets_what_is_whole_and_then_the_damage(build: OpenHouse) -> None:
    house, bad, _ = await damaged(build, "UPDATE events SET body = x'00' WHERE thread = ? AND sequence = 3")
    place = house.feed.follow(Watch(bad, 0))

    items = await within(anext(place))
    with pytest.raises(Refused) as refused:
        await within(anext(place))
    place.close()

    assert [item.sequence for item in items] == [1, 2]
    assert refused.value.metadata["sequence"] == "3"


async def test_a_watcher_at_the_end_of_a_damaged_thread_does_not_wait_for_ever(build: OpenHouse) -> None:
    house, bad, whole = await damaged(build, DAMAGE["an event"])
    places = [house.feed.follow(Watch(key, (await house.row(key)).sequence)) for key in (bad, whole)]
    nexts = [asyncio.create_task(anext(place)) for place in places]
    await turns()

    await house.recover()

    with pytest.raises(Refused) as refused:
        await within(nexts[0])
    assert refused.value.reason is Reason.RECORD_CORRUPT
    assert await within(nexts[1])
    for place in places:
        place.close()


async def test_a_thread_that_a_newer_release_wrote_is_not_damaged(build: OpenHouse) -> None:
    house, newer, _ = await damaged(build, "SELECT ?")
    row, body = await house.row(newer), b"\xff what this release does not understand"
    checksum = checksums.of_row(row.spec_digest, body)
    sql = "UPDATE specs SET (body, checksum) = (?, ?) WHERE digest = ?"
    execute(house.path, sql, body, checksum, row.spec_digest)

    await house.recover()
    with pytest.raises(Refused) as refused:
        await within(house.engine.ask(newer, s.Cancel(house.clock.now())))

    assert refused.value.reason is Reason.RECORD_CORRUPT
    assert (await house.row(newer)).state == ThreadState.RUNNING


ROW_DAMAGE = "UPDATE threads SET revision = revision + 1 WHERE thread = ?"
STOP_REASON = "SELECT stop_reason FROM threads WHERE thread = ?"


@pytest.mark.parametrize("damage", [DAMAGE["the spec"], ROW_DAMAGE], ids=["spec", "row"])
async def test_a_server_starts_though_a_damaged_thread_cannot_be_ended_yet(
    build: OpenHouse, damage: str
) -> None:
    house, bad, _ = await damaged(build, damage)
    gate = Gate()
    await gate.hold(house.store)

    assert await house.recover() == 2
    before = execute(house.path, STOP_REASON, bad.thread)
    gate.opening.set()

    assert before == [(0,)]
    while execute(house.path, STOP_REASON, bad.thread) != [(StopReason.DATA_LOSS,)]:
        await turns(1)


async def test_a_damage_that_is_gone_at_the_second_look_condemns_nobody(build: OpenHouse) -> None:
    first = await build()
    first.bench.add("ask", asks=True)
    key = await first.start(use("ask"), say("fine"))
    await within(first.reached(key, ThreadState.WAITING_INPUT))
    await first.crash()
    codec = OneBadLook()
    house = await build(bench=first.bench, codec=codec)
    await house.recover()

    await house.cancel(key)

    assert codec.looks == 1
    assert (await house.ended(key)).state == ThreadState.CANCELLED


class OneBadLook(ProtoCodec):
    """Finds damage once that is not there."""

    def __init__(self) -> None:
        super().__init__()
        self.looks = 0

    def decode(self, stored: StoredRecord) -> Event:
        if not self.looks:
            self.looks = 1
            raise Refused(Reason.RECORD_CORRUPT, "a page")
        return super().decode(stored)


class DamagedJustBefore:
    """Implements `ports.feed.Feed`: a thread is found damaged when its watcher has read its row already."""

    def __init__(self, house: House) -> None:
        self._house = house
        self.delta = house.feed.delta
        self.refuse = house.feed.refuse

    def follow(self, watch: Watch) -> Subscription:
        execute(self._house.path, ROW_DAMAGE, watch.key.thread)
        return self._house.feed.follow(watch)


async def test_a_watcher_who_comes_just_after_the_damage_was_found_does_not_wait_for_ever(
    house: House,
) -> None:
    key = await house.start({"hang": True})
    await house.committed(key, "model_call_started")
    row = await house.row(key)
    store = house.store
    reads = ThreadReads(
        log=house.log,
        threads=store.threads,
        sessions=store.sessions,
        engine=house.engine,
        codec=house.codec,
        specs=house.specs,
    )
    replays = Replays(store.requests, house.clock)
    threads = Threads(
        reads=reads,
        threads=store.threads,
        replays=replays,
        controls=Controls(reads=reads, replays=replays, engine=house.engine, clock=house.clock),
        feed=DamagedJustBefore(house),
        clock=house.clock,
    )
    caller = Identity(key.tenant, "default", "users/ann", admin=False)

    place = await threads.follow(caller, f"threads/{row.id}", Watch(key, row.sequence))
    assert place is not None
    with pytest.raises(Refused) as refused:
        await within(anext(place))
    place.close()

    assert refused.value.reason is Reason.RECORD_CORRUPT
