"""A watch gives exactly the committed events after its place: in order, none twice, none missing."""

import asyncio

import pytest

from tests.engine.conftest import OpenHouse
from tests.engine.handloop import turns, within
from tests.engine.house import House, left_over, say, use
from tests.engine.workbench import answer
from tests.feed.reading import ENDED, Reader, Writer, read, said, writer
from tests.waiting import eventually
from treadle_server.core import signals as s
from treadle_server.core.errors import Reason, Refused
from treadle_server.feed.feed import BATCH_BYTES_MAX, BATCH_EVENTS_MAX
from treadle_server.ports.feed import Watch


async def filled(house: House, count: int) -> Writer:
    made = writer(house)
    await made.inputs("first")
    for begin in range(1, count, 10):
        await made.inputs(*(f"text {number}" for number in range(begin, min(begin + 10, count))))
    return made


async def got(reader: Reader, count: int) -> None:
    await eventually(lambda: len(reader.items) >= count)


@pytest.mark.parametrize("after", [0, 1, 57, 119, 120])
async def test_a_subscriber_gets_what_comes_after_its_place_and_then_what_is_new(
    house: House, after: int
) -> None:
    log = await filled(house, 120)
    reader = read(house, log.key, after)
    for _ in range(5):
        await log.inputs("new", "new")
    await log.add(ENDED)
    await reader.end()

    assert reader.sequences == list(range(after + 1, 132))
    assert left_over(house.feed) == {}


async def test_what_is_delivered_is_what_is_stored(house: House) -> None:
    log = await filled(house, 30)
    reader = read(house, log.key)
    await log.add(said("new"), ENDED)
    await reader.end()

    stored = await house.store.log.read(log.key, 0, 100)
    assert [item.body for item in reader.items] == [row.record.body for row in stored]


async def test_many_subscribers_at_different_places_all_get_the_same_log(build: OpenHouse) -> None:
    """They come and go while a writer appends and the tail, which is short, drops what is old."""
    house = await build(tail_events_max=16)
    log = await filled(house, 40)
    early = [read(house, log.key, after) for after in range(0, 40, 5)]
    late = []
    for number in range(60):
        ticket = log.append(*(said(f"{number} {i}") for i in range(1 + number % 7)))
        if number % 3 == 0:
            late.append(read(house, log.key, number))
        if number % 5 == 0:
            await within(ticket.wait())
    await log.add(ENDED)
    for reader in (*early, *late):
        await reader.end()

    for reader in (*early, *late):
        assert reader.sequences == list(range(reader.watch.after + 1, log.last + 1))
        assert max(reader.batches) <= BATCH_EVENTS_MAX
    assert left_over(house.feed) == {}


async def test_a_subscriber_that_was_there_before_the_thread_misses_nothing(house: House) -> None:
    reads = house.store.readers.reads
    log = writer(house)
    reader = read(house, log.key, fresh=True)
    await turns()
    await log.inputs("a")
    await log.inputs("b", "c")
    await log.add(ENDED)
    await reader.end()

    assert reader.sequences == [1, 2, 3, 4]
    assert house.store.readers.reads == reads


async def test_a_subscriber_at_the_head_costs_no_read_of_the_store(build: OpenHouse) -> None:
    house = await build(heartbeat_seconds=15)
    log = await filled(house, 10)
    reader = read(house, log.key, after=10)
    await eventually(lambda: house.store.readers.reads >= 2)
    await turns(50)
    reads = house.store.readers.reads

    for _ in range(20):
        await log.inputs("new")
    house.clock.advance(20)
    await eventually(lambda: reader.kinds[-1:] == ["heartbeat"])
    house.feed.delta(log.key, "model-1", 1, 1, "a piece")  # type: ignore[arg-type]
    house.clock.advance(0.1)
    await turns(50)

    assert house.store.readers.reads == reads
    assert reader.sequences == list(range(11, 31))
    await reader.stop()


async def test_a_slow_subscriber_reads_from_the_store_what_the_tail_dropped(build: OpenHouse) -> None:
    house = await build(tail_events_max=8)
    log = await filled(house, 5)
    subscription = house.feed.follow(Watch(log.key, 5))
    await log.inputs("one")
    first = await within(anext(subscription))
    for _ in range(30):
        await log.inputs("more", "and more")
    reads = house.store.readers.reads

    await log.add(ENDED)
    rest = [item async for batch in subscription for item in batch]

    assert [item.sequence for item in (*first, *rest)] == list(range(6, log.last + 1))
    assert house.store.readers.reads > reads
    assert left_over(house.feed) == {}


async def test_a_batch_is_bounded_in_events_and_in_bytes(house: House) -> None:
    log = writer(house)
    await log.inputs(*("x" * 10_000 for _ in range(10)))
    await log.inputs("x" * 60_000)
    await log.inputs(*("y" for _ in range(200)))
    await log.add(ENDED)
    reader = read(house, log.key)
    await reader.end()

    assert max(reader.batches) == BATCH_EVENTS_MAX
    assert reader.batches[:4] == [3, 3, 3, 1]
    place = 0
    for size in reader.batches:
        batch = reader.items[place : place + size]
        assert size == 1 or sum(len(item.body) for item in batch) <= BATCH_BYTES_MAX
        place += size


async def test_only_the_kinds_that_were_asked_for_come_and_the_end_is_known_all_the_same(
    house: House,
) -> None:
    house.bench.add("look", answer)
    wanted = frozenset({house.codec.kind("tool_call_completed") or 0})
    start = house.plan(use("look"), use("look", "look"), say("fine"))
    reader = read(house, start.key, kinds=wanted, fresh=True)
    await within(house.engine.start(start))
    await reader.end()

    assert reader.kinds == ["tool_call_completed"] * 3
    numbered = [event.sequence for event in await house.events(start.key)]
    assert {*reader.sequences} < {*numbered}


async def test_nothing_is_delivered_before_it_is_committed(house: House) -> None:
    log = await filled(house, 5)
    readers = [read(house, log.key, after) for after in (0, 5)]
    await eventually(lambda: readers[0].sequences == [1, 2, 3, 4, 5])
    house.log.hold()
    ticket = log.append(said("held"))
    await turns(200)
    assert [reader.sequences for reader in readers] == [[1, 2, 3, 4, 5], []]

    house.log.release()
    await within(ticket.wait())
    await eventually(lambda: all(reader.sequences[-1:] == [6] for reader in readers))
    for reader in readers:
        await reader.stop()


async def test_what_a_caller_was_answered_is_on_its_way_to_every_subscriber_already(house: House) -> None:
    key = await house.start({"hang": True})
    await house.committed(key, "model_call_started")
    reader = read(house, key, after=5)
    await turns(50)
    await within(house.engine.ask(key, s.SendInput(house.clock.now(), said("x").content)))

    await turns(5)
    assert reader.sequences == [6]
    await reader.stop()


async def test_an_idle_subscriber_gets_a_sign_of_life_in_time(build: OpenHouse) -> None:
    house = await build(heartbeat_seconds=15)
    log = writer(house)
    readers = [read(house, log.key, fresh=True, kinds=kinds) for kinds in (frozenset(), frozenset({999}))]
    await log.inputs("a", "b", "c")
    await got(readers[0], 3)
    del readers[0].items[:]

    for count in (1, 2, 3):
        for _ in range(15):
            house.clock.advance(1)
            await turns(3)
        assert all(len(reader.items) >= count for reader in readers)
    for reader in readers:
        assert set(reader.kinds) == {"heartbeat"}
        assert len(reader.items) <= 4
        assert {message.heartbeat.last_sequence for message in reader.messages} == {3}
        await reader.stop()


async def test_a_subscriber_that_gets_events_gets_no_signs_of_life(build: OpenHouse) -> None:
    house = await build(heartbeat_seconds=15)
    log = await filled(house, 3)
    reader = read(house, log.key, 3)
    for _ in range(10):
        house.clock.advance(5)
        await log.inputs("new")
        await turns(5)

    assert "heartbeat" not in reader.kinds
    await reader.stop()


async def test_a_drain_ends_every_stream_with_a_hint(house: House) -> None:
    log = await filled(house, 100)
    readers = [read(house, log.key, after) for after in (0, 50, 100)]
    await turns(1)
    house.feed.drain()

    for reader in (*readers, read(house, log.key, 100)):
        with pytest.raises(Refused) as refused:
            await reader.end()
        assert refused.value.reason is Reason.DRAINING
        assert refused.value.retry_after_micros
    assert left_over(house.feed) == {}


@pytest.mark.parametrize("after_turns", range(0, 12, 2))
async def test_a_drain_reaches_a_subscriber_whatever_it_is_doing(house: House, after_turns: int) -> None:
    log = await filled(house, 3)
    reader = read(house, log.key, 3)
    await turns(after_turns)
    if after_turns > 8:
        await eventually(lambda: house.store.readers.reads >= 2)

    house.feed.drain()

    with pytest.raises(Refused):
        await reader.end()


async def test_a_slow_subscriber_of_a_thread_that_is_deleted_is_told_so(build: OpenHouse) -> None:
    house = await build(tail_events_max=4)
    key = await house.run(say("fine"))
    subscription = house.feed.follow(Watch(key, 2))
    await house.store.threads.delete(await house.row(key), delete_time=house.clock.now())

    with pytest.raises(Refused) as refused:
        await within(anext(subscription))
    assert refused.value.reason is Reason.RESOURCE_NOT_FOUND
    subscription.close()
    assert left_over(house.feed) == {}


async def test_a_thread_that_grows_while_its_end_is_looked_for_is_not_taken_for_deleted(house: House) -> None:
    """The store shows a commit before the feed is told of it."""
    log = await filled(house, 3)
    for _ in range(50):
        reader = read(house, log.key, log.last)
        await turns(1)
        ticket = log.append(said("just now"))
        await got(reader, 1)
        await within(ticket.wait())
        assert reader.sequences == [log.last]
        await reader.stop()
    assert left_over(house.feed) == {}


async def test_a_subscription_closed_twice_or_read_after_its_end_stays_ended(house: House) -> None:
    key = await house.run(say("fine"))
    subscription = house.feed.follow(Watch(key, 0))
    assert [item async for batch in subscription for item in batch]
    subscription.close()
    subscription.close()

    with pytest.raises(StopAsyncIteration):
        await anext(subscription)


async def test_the_tail_is_dropped_with_its_last_subscriber(house: House) -> None:
    log = await filled(house, 3)
    one, other = read(house, log.key), read(house, log.key)
    await eventually(lambda: len(one.items) == len(other.items) == 3)
    await one.stop()
    await log.inputs("seen by one")
    await got(other, 4)
    await other.stop()
    assert left_over(house.feed) == {}

    await log.inputs("unwatched")
    again = read(house, log.key)
    await log.add(ENDED)
    await again.end()
    assert again.sequences == [1, 2, 3, 4, 5, 6]


async def test_a_hundred_threads_are_watched_while_they_run(house: House) -> None:
    house.bench.add("look", answer)
    plans = [house.plan(use("look"), use("look"), say("fine")) for _ in range(100)]
    readers = [read(house, plan.key, fresh=True) for plan in plans for _ in range(2)]
    await within(asyncio.gather(*map(house.engine.start, plans)))
    for reader in readers:
        await reader.end()

    for reader in readers:
        assert reader.sequences == list(range(1, len(reader.items) + 1))
        assert reader.kinds[-1] == "thread_ended"
    assert left_over(house.feed) == {}
