"""At most so many threads of an agent begin within a time, whatever servers die meanwhile."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from tests.engine.conftest import OpenHouse
from tests.engine.handloop import LoopClock, turns, within
from tests.engine.house import House, say, use
from tests.waiting import eventually
from treadle_server.core import signals as s
from treadle_server.core.kinds import Effect, ThreadState
from treadle_server.core.spec import SECOND_MICROS, Limits
from treadle_server.core.values import Content
from treadle_server.engine.start_rates import RETRY_SECONDS, StartRate, StartRates, start_rate
from treadle_server.ports.catalogue.starts import Began
from treadle_server.ports.engine import Waiting
from treadle_server.ports.log import ThreadKey

MINUTE = 60 * SECOND_MICROS
TWO_A_MINUTE = Limits(max_starts=2, start_interval_micros=MINUTE)


@dataclass(slots=True)
class KeptStarts:
    """Starts in memory: what a store would have read, once the test lets it."""

    began: list[Began] = field(default_factory=list)
    reads: int = 0
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    broken: bool = False

    async def recent(self, agent: int, after: int) -> Sequence[Began]:
        self.reads += 1
        found = sorted(began for began in self.began if began[0] > after)
        await self.gate.wait()
        if self.broken:
            raise OSError("the disk is gone")
        return found


@dataclass(slots=True)
class Counter:
    """Rates of one agent, and how often somebody was to ask again."""

    starts: KeptStarts = field(default_factory=KeptStarts)
    clock: LoopClock = field(default_factory=LoopClock)
    again: int = 0
    rates: StartRates = field(init=False)
    rate: StartRate = StartRate(2, MINUTE)

    def __post_init__(self) -> None:
        self.rates = StartRates(self.starts, self.clock, self._again)

    def _again(self) -> None:
        self.again += 1

    async def ready(self) -> "Counter":
        self.starts.gate.set()
        self.rates.ask(1, self.rate)
        await turns()
        return self

    def ask(self) -> bool:
        return self.rates.ask(1, self.rate)

    def begin(self, thread: int) -> None:
        assert self.ask()
        self.rates.take(1, ThreadKey(1, thread))
        self.rates.began(1, ThreadKey(1, thread), self.clock.now())


async def test_nobody_begins_before_it_is_known_who_did() -> None:
    counter = Counter()
    counter.starts.began = [(counter.clock.now() - 1, 1), (counter.clock.now() - MINUTE - 1, 2)]

    assert [counter.ask(), counter.ask()] == [False, False]
    assert counter.rates.full(1, counter.rate)
    assert counter.again == 0
    counter.starts.gate.set()
    await turns()

    assert (counter.starts.reads, counter.again) == (1, 1)
    counter.begin(3)
    assert not counter.ask()


async def test_a_start_that_becomes_durable_while_others_are_read_counts_once() -> None:
    counter = Counter()
    now = counter.clock.now()
    counter.starts.began = [(now, 1)]
    counter.ask()
    await turns()

    counter.rates.began(1, ThreadKey(1, 1), now)
    counter.starts.gate.set()
    await turns()
    counter.begin(2)

    assert not counter.ask()


async def test_one_that_is_about_to_begin_counts_until_it_gives_its_place_back() -> None:
    counter = await Counter().ready()
    for thread in (1, 2):
        assert counter.ask()
        counter.rates.take(1, ThreadKey(1, thread))
    counter.clock.advance(120)

    assert not counter.ask()
    counter.rates.give_back(1, ThreadKey(1, 2))
    assert counter.ask()


async def test_who_was_refused_is_told_when_the_first_start_counts_no_more() -> None:
    counter = await Counter().ready()
    counter.begin(1)
    counter.clock.advance(20)
    counter.begin(2)
    again = counter.again

    assert not counter.ask()
    counter.clock.advance(39)
    await turns()
    assert counter.again == again
    counter.clock.advance(2)
    await eventually(lambda: counter.again > again)

    counter.begin(3)
    assert not counter.ask()


async def test_another_version_with_a_longer_interval_counts_what_was_before() -> None:
    counter = await Counter().ready()
    counter.begin(1)
    counter.starts.began = [(counter.clock.now(), 1)]
    counter.clock.advance(90)
    slower = StartRate(1, 2 * MINUTE)

    assert counter.ask()
    assert not counter.rates.ask(1, slower)
    await turns()

    assert not counter.rates.ask(1, slower)
    assert counter.ask()


async def test_a_start_that_lies_ahead_counts_from_now_since_the_clock_was_put_back() -> None:
    counter = Counter(rate=StartRate(1, MINUTE))
    counter.starts.began = [(counter.clock.now() + 60 * MINUTE, 1)]
    await counter.ready()

    assert not counter.ask()
    counter.clock.advance(61)
    assert counter.ask()


async def test_a_failed_read_is_tried_again() -> None:
    counter = Counter()
    counter.starts.broken = True
    await counter.ready()
    assert counter.again == 0

    counter.starts.broken = False
    counter.clock.advance(RETRY_SECONDS + 1)
    await eventually(lambda: counter.again == 1)
    assert not counter.ask()
    await turns()

    assert counter.ask()


def test_a_thread_that_has_begun_is_held_to_no_rate() -> None:
    assert start_rate(TWO_A_MINUTE, None) == start_rate(TWO_A_MINUTE, 0) == StartRate(2, MINUTE)
    assert start_rate(TWO_A_MINUTE, 5) is None
    assert start_rate(Limits(), None) is None


# Within a server


async def started(house: House, count: int, limits: Limits = TWO_A_MINUTE) -> list[ThreadKey]:
    return [await house.start(say("done"), limits=limits) for _ in range(count)]


async def settled(house: House, keys: Sequence[ThreadKey], ended: int) -> None:
    """Waits until so many have ended and the others are told why not."""

    async def so() -> bool:
        rows = [await house.row(key) for key in keys]
        done = [row for row in rows if row.state == ThreadState.COMPLETED]
        waiting = [house.engine.waiting(row.key) for row in rows if row not in done]
        return len(done) == ended and all(found and found.kind == "START_RATE" for found in waiting)

    await eventually(so)


async def start_times(house: House, keys: Sequence[ThreadKey]) -> list[int]:
    return [(await house.row(key)).start_time or 0 for key in keys]


def assert_apart(times: Sequence[int], starts_max: int) -> None:
    """Within no minute more began."""
    times = sorted(times)
    assert times[0] > 0
    assert all(later - first >= MINUTE for first, later in zip(times, times[starts_max:], strict=False))


async def test_those_beyond_the_rate_stay_pending_and_say_why(house: House) -> None:
    keys = await started(house, 5)

    await settled(house, keys, 2)
    row = await house.row(keys[-1])
    assert row.state == ThreadState.PENDING
    assert house.engine.waiting(keys[-1]) == Waiting("START_RATE", "agents/a", row.create_time)


async def test_they_begin_in_order_as_the_interval_goes_on(house: House) -> None:
    keys = await started(house, 5)

    for ended in (2, 4, 5):
        await settled(house, keys, ended)
        house.clock.advance(61)

    times = await start_times(house, keys)
    assert max(times[:2]) < min(times[2:4]) < max(times[2:4]) < times[4]
    assert_apart(times, 2)


async def test_another_agent_and_one_without_a_rate_are_not_held_up(house: House) -> None:
    await started(house, 3)

    await house.run(say("done"), agent=2, limits=TWO_A_MINUTE)
    await house.run(say("done"))


async def test_a_thread_that_waited_for_people_goes_on_without_counting_again(house: House) -> None:
    house.bench.add("ask", effect=Effect.AT_MOST_ONCE, asks=True)
    one = Limits(max_starts=1, start_interval_micros=60 * MINUTE)
    asking = await house.start(use("ask"), say("done"), limits=one)
    await within(house.reached(asking, ThreadState.WAITING_INPUT))
    later = await house.start(say("done"), limits=one)
    await eventually(lambda: house.engine.waiting(later) is not None)

    await within(house.engine.ask(asking, s.SendInput(house.clock.now(), Content("yes"), "call-1-1")))
    await house.ended(asking)

    assert (await house.row(later)).state == ThreadState.PENDING


async def test_one_that_is_cancelled_before_it_begins_does_not_count(house: House) -> None:
    keys = await started(house, 3)
    await settled(house, keys, 2)
    await house.cancel(keys[2])
    assert (await house.row(keys[2])).start_time is None

    house.clock.advance(61)
    more = await started(house, 2)

    await settled(house, more, 2)


@pytest.mark.parametrize("crash", [True, False])
async def test_what_began_before_a_restart_counts_after_it(build: OpenHouse, crash: bool) -> None:
    house = await build()
    keys = await started(house, 4)
    await settled(house, keys, 2)
    begun = await start_times(house, keys[:2])
    await (house.crash() if crash else house.stop())

    again = await build()
    await again.recover()
    await settled(again, keys, 2)
    again.clock.advance((begun[0] + MINUTE - again.clock.now()) / 1e6 + 0.1)
    await settled(again, keys, 4)

    assert_apart(await start_times(again, keys), 2)


async def test_what_was_recorded_and_never_durable_does_not_count(build: OpenHouse) -> None:
    house = await build()
    key = await house.start(say("first"), limits=TWO_A_MINUTE)
    await house.ended(key)
    house.log.hold()
    start = asyncio.create_task(house.start(say("lost"), limits=TWO_A_MINUTE))
    await turns()
    start.cancel()
    await house.crash()

    again = await build()
    await again.recover()
    keys = await started(again, 2)

    await settled(again, keys, 1)


async def test_starts_are_counted_though_their_threads_are_deleted(build: OpenHouse) -> None:
    house = await build()
    keys = await started(house, 2)
    await settled(house, keys, 2)
    for key in keys:
        await house.store.threads.delete(await house.row(key), delete_time=house.clock.now())
    while await house.store.housekeeping.purge_threads():
        pass
    await house.stop()

    again = await build()
    later = await started(again, 1)

    await settled(again, later, 0)


async def test_in_any_interval_no_more_begin_however_often_the_server_dies(build: OpenHouse) -> None:
    limits = Limits(max_starts=3, start_interval_micros=MINUTE)
    house = await build()
    keys = await started(house, 10, limits)
    for ended in (3, 6, 9):
        await settled(house, keys, ended)
        await house.crash()
        house = await build()
        await house.recover()
        await settled(house, keys, ended)
        house.clock.advance(60.5)

    await settled(house, keys, 10)
    assert_apart(await start_times(house, keys), 3)
