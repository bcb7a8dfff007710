"""Servers die again and again: who did it is found, and nobody else is."""

import asyncio
from dataclasses import replace
from math import ceil

from tests.engine.conftest import OpenHouse
from tests.engine.handloop import turns, within
from tests.engine.house import House, say, use
from tests.engine.workbench import Gate, Workbench
from tests.stores.disk import LARGE, fill_the_disk, free_the_disk, refusal
from tests.waiting import eventually
from treadle_server.core import events as e
from treadle_server.core.kinds import Effect, StopReason, ThreadState
from treadle_server.core.signals import Cancel
from treadle_server.engine.patience import WAIT_SECONDS
from treadle_server.engine.quarantine import TURNS, Pace
from treadle_server.ports.log import RequestRow, StoredRecord, ThreadKey, Unit
from treadle_server.ports.trials import LastLife, Phase
from treadle_server.wire.codec import ProtoCodec

PACE = Pace(gather_seconds=0.05, without_seconds=0.5)
HOUR = 3_600_000_000


class Lives:
    """Servers on one file, one after another. Tools wait at gates that are new in each life."""

    def __init__(
        self, build: OpenHouse, effect: Effect = Effect.READ_ONLY, gather_seconds: float = PACE.gather_seconds
    ) -> None:
        self._build = build
        self._pace = replace(PACE, gather_seconds=gather_seconds)
        self._effect = effect
        self.gates: dict[str, Gate] = {}
        self.house: House

    async def begin(self) -> House:
        bench = Workbench()
        self.gates = {name: Gate() for name in ("bad", "look")}
        bench.add("look", self.gates["look"], timeout_micros=HOUR)
        bench.add("bad", self.gates["bad"], self._effect)
        self.house = await self._build(bench=bench, pace=self._pace)
        await self.house.recover()
        return self.house

    async def die_of(self, name: str) -> None:
        await eventually(lambda: self.gates[name].inside > 0)
        await self.house.crash()

    async def trial(self) -> tuple[Phase, tuple[ThreadKey, ...]]:
        life: LastLife = await self.house.store.trials.last_life()
        return life.trial.phase, life.trial.threads

    async def on_trial(self, phase: Phase, *keys: ThreadKey) -> None:
        while await self.trial() != (phase, keys):  # noqa: ASYNC110 - each look reads the store
            await asyncio.sleep(0.005)

    async def over(self) -> None:
        await within(self.on_trial(Phase.NONE))


async def end_of(house: House, key: ThreadKey) -> tuple[int, int]:
    row = await house.ended(key)
    return row.state, row.stop_reason


async def test_the_only_thread_of_a_server_is_poisoned_after_three_crashes(build: OpenHouse) -> None:
    lives = Lives(build)
    house = await lives.begin()
    key = await house.start(use("bad"), say("fine"))
    await lives.die_of("bad")
    await lives.begin()
    await lives.die_of("bad")

    await lives.begin()
    await within(lives.on_trial(Phase.SOLE, key))
    await lives.die_of("bad")

    house = await lives.begin()
    assert await end_of(house, key) == (ThreadState.FAILED, StopReason.POISONED)
    ended = (await house.check_ended(key))[-1].payload
    assert isinstance(ended, e.ThreadEnded)
    assert ended.error is not None
    assert ended.error.message.startswith("the server went down 3 times in a row")
    await lives.over()


async def test_what_brings_servers_down_beside_others_is_poisoned_after_its_second_time_alone(
    build: OpenHouse,
) -> None:
    lives = Lives(build)
    house = await lives.begin()
    key = await house.start(use("bad"), say("fine"))
    other = await house.start({"text": "fine", "delay_ms": 60_000})
    for _ in range(2):
        await eventually(lambda: lives.house.engine.running_count == 2)
        await lives.die_of("bad")
        house = await lives.begin()
    await within(lives.on_trial(Phase.ALONE, key))
    await lives.die_of("bad")

    house = await lives.begin()
    assert await lives.trial() == (Phase.WITHOUT, (key,))
    began = house.clock.now()
    await within(lives.on_trial(Phase.AGAIN, key))
    assert house.clock.now() - began > PACE.without_seconds * 1_000_000
    await lives.die_of("bad")

    house = await lives.begin()
    assert await end_of(house, key) == (ThreadState.FAILED, StopReason.POISONED)
    assert lives.gates["bad"].inside == 0
    ended = (await house.check_ended(key))[-1].payload
    assert isinstance(ended, e.ThreadEnded)
    assert ended.error is not None
    assert ended.error.message.startswith("the server went down 4 times in a row")
    await lives.over()
    house.clock.advance(61)
    assert await end_of(house, other) == (ThreadState.COMPLETED, StopReason.FINISHED)


async def test_a_call_that_is_never_repeated_is_found_too(build: OpenHouse) -> None:
    lives = Lives(build, Effect.AT_MOST_ONCE)
    house = await lives.begin()
    key = await house.start(*[use("bad")] * 9, say("fine"))
    for _ in range(6):
        await lives.die_of("bad")
        house = await lives.begin()
        if (await house.row(key)).end_time is not None:
            break

    assert await end_of(house, key) == (ThreadState.FAILED, StopReason.POISONED)


async def test_an_operator_that_kills_and_kills_makes_nobody_guilty(build: OpenHouse) -> None:
    lives = Lives(build)
    house = await lives.begin()
    keys = [await house.start(use("look"), say("fine")) for _ in range(3)]
    seen = set()
    for _ in range(10):
        await house.crash()
        house = await lives.begin()
        for _ in range(40):
            await asyncio.sleep(0.005)
        seen.add((await lives.trial())[0])
    assert {Phase.ALONE, Phase.WITHOUT} <= seen

    lives.gates["look"].open()
    for _ in range(8):
        house.clock.advance(5)
        await turns(200)
    assert {await end_of(house, key) for key in keys} == {(ThreadState.COMPLETED, StopReason.FINISHED)}


async def test_a_suspect_that_lives_through_its_turn_goes_on_with_the_others(build: OpenHouse) -> None:
    lives = Lives(build)
    house = await lives.begin()
    keys = [await house.start(use("look"), say("fine")) for _ in range(3)]
    for _ in range(2):
        await eventually(lambda: lives.gates["look"].inside == 3)
        await house.crash()
        house = await lives.begin()

    for count in (1, 2, 3):
        await eventually(lambda count=count: lives.gates["look"].inside == count)  # type: ignore[misc]
        await turns(100)
        assert lives.gates["look"].inside == count
        house.clock.advance(PACE.turn_seconds + 0.1)
    await lives.over()
    lives.gates["look"].open()
    assert {(await end_of(house, key))[0] for key in keys} == {ThreadState.COMPLETED}


async def test_the_turn_of_a_suspect_ends_with_its_first_outcome(build: OpenHouse) -> None:
    lives = Lives(build)
    house = await lives.begin()
    keys = [await house.start(use("look"), {"hang": True}) for _ in range(5)]
    for _ in range(2):
        await eventually(lambda: lives.gates["look"].inside == 5)
        await house.crash()
        house = await lives.begin()

    lives.gates["look"].open()
    for key in keys:
        await within(house.committed(key, "tool_call_completed"))
    await lives.over()


async def test_a_turn_does_not_end_with_an_outcome_that_a_crash_can_still_take(build: OpenHouse) -> None:
    lives = Lives(build)
    house = await lives.begin()
    for _ in range(2):
        await house.start(use("look"), {"hang": True})
    for _ in range(2):
        await eventually(lambda: lives.gates["look"].inside == 2)
        await house.crash()
        house = await lives.begin()
    await eventually(lambda: lives.gates["look"].inside == 1)
    phase, (tried,) = await lives.trial()

    house.log.hold()
    cancel = Cancel(house.clock.now(), reason="enough", grace_micros=0)
    expire = house.clock.now() + HOUR
    row = RequestRow("r", "users/ann", "CancelThread", b"digest", "threads/t", 0, None, expire)
    asked = asyncio.create_task(house.engine.ask(tried, cancel, row))
    await eventually(lambda: house.log.waiting == 1)
    lives.gates["look"].open()
    await eventually(lambda: house.log.waiting == 2)  # what was asked for, and the outcome
    house.log.release_one()
    await within(house.committed(tried, "control_requested"))
    await turns(200)
    durable, trial = await house.kinds(tried), await lives.trial()
    house.log.release()

    assert "thread_ended" not in durable
    assert trial == (phase, (tried,))
    await within(asked)
    await lives.over()


async def test_others_wait_for_the_first_turn_and_not_for_the_second(build: OpenHouse) -> None:
    lives = Lives(build)
    house = await lives.begin()
    for _ in range(2):
        await house.start(use("look"), say("fine"))
    for _ in range(2):
        await eventually(lambda: lives.gates["look"].inside == 2)
        await house.crash()
        house = await lives.begin()
    await eventually(lambda: lives.gates["look"].inside == 1)

    key = await house.start(say("quick"))
    await turns(200)
    assert (await house.row(key)).state == ThreadState.PENDING
    house.clock.advance(PACE.turn_seconds + 0.1)
    assert await end_of(house, key) == (ThreadState.COMPLETED, StopReason.FINISHED)
    await eventually(lambda: lives.gates["look"].inside == 2)
    another = await house.start(say("quick"))
    assert await end_of(house, another) == (ThreadState.COMPLETED, StopReason.FINISHED)


async def test_stops_in_order_make_no_suspects(build: OpenHouse) -> None:
    lives = Lives(build)
    house = await lives.begin()
    key = await house.start(use("look"), say("fine"))
    for _ in range(5):
        await eventually(lambda: lives.gates["look"].inside == 1)
        await house.stop(0.1)
        house = await lives.begin()

    await eventually(lambda: lives.gates["look"].inside == 1)
    assert (await lives.trial())[0] is Phase.NONE
    recoveries = await house.payloads(key, e.ExecutionRecovered)
    assert [payload.blameless for payload in recoveries] == [True] * len(recoveries)
    assert len(recoveries) == 5


async def test_a_stop_in_order_ends_a_trial(build: OpenHouse) -> None:
    lives = Lives(build)
    house = await lives.begin()
    key = await house.start(use("bad"), say("fine"))
    for _ in range(2):
        await lives.die_of("bad")
        house = await lives.begin()
    await within(lives.on_trial(Phase.SOLE, key))
    await eventually(lambda: lives.gates["bad"].inside == 1)
    await house.stop(0.1)

    house = await lives.begin()
    assert (await lives.trial())[0] is not Phase.WITHOUT
    lives.gates["bad"].open()
    assert (await end_of(house, key))[0] == ThreadState.COMPLETED


async def test_many_suspects_have_all_had_their_turn_after_a_few(build: OpenHouse) -> None:
    lives, count = Lives(build, gather_seconds=60), 200
    house = await lives.begin()
    for _ in range(count):
        await house.start(use("look"), say("fine"))
    for _ in range(2):
        await eventually(lambda: lives.gates["look"].inside == count)
        await house.crash()
        house = await lives.begin()
    await eventually(lambda: house.engine.waiting_count == house.engine.running_count == 0)
    house.clock.advance(60)

    tried: list[ThreadKey] = []
    sizes = []
    while len(tried) < count:
        _, keys = await lives.trial()
        if not keys or keys[0] in tried:
            await asyncio.sleep(0.005)
            continue
        tried += keys
        sizes.append(len(keys))
        expected = len(tried)
        await eventually(lambda expected=expected: lives.gates["look"].inside == expected)  # type: ignore[misc]
        house.clock.advance(PACE.turn_seconds + 0.1)
    await lives.over()
    assert max(sizes) == ceil(count / TURNS)
    assert len(sizes) <= TURNS + 1


async def test_a_suspect_among_others_is_alone_in_the_next_life(build: OpenHouse) -> None:
    """Somebody who is no suspect runs, so the first to die of it was not alone."""
    lives = Lives(build)
    house = await lives.begin()
    key = await house.start(use("bad"), say("fine"))
    for _ in range(2):
        await lives.die_of("bad")
        house = await lives.begin()
        await house.start(use("look"), say("fine")) if house.store.epoch == 3 else None
    await within(lives.on_trial(Phase.AMONG_OTHERS, key))
    await lives.die_of("bad")

    house = await lives.begin()
    await within(lives.on_trial(Phase.ALONE, key))
    await eventually(lambda: lives.gates["bad"].inside == 1)
    await turns(100)
    assert lives.gates["look"].inside == 0
    house.clock.advance(2 * PACE.turn_seconds + 0.1)
    await eventually(lambda: lives.gates["look"].inside == 1)


async def test_a_suspect_that_waits_for_its_turn_can_be_cancelled(build: OpenHouse) -> None:
    lives = Lives(build)
    house = await lives.begin()
    keys = [await house.start(use("look"), say("fine")) for _ in range(2)]
    for _ in range(2):
        await eventually(lambda: lives.gates["look"].inside == 2)
        await house.crash()
        house = await lives.begin()
    await eventually(lambda: lives.gates["look"].inside == 1)

    phase, (tried,) = await lives.trial()
    (waiting,) = (key for key in keys if key != tried)
    await house.cancel(waiting)

    assert phase is Phase.ALONE
    assert (await end_of(house, waiting))[0] == ThreadState.CANCELLED


class Unreadable(ProtoCodec):
    """A release that cannot make sense of what another wrote."""

    def decode(self, stored: StoredRecord) -> e.Event:
        raise KeyError(stored.sequence)


async def test_a_thread_on_trial_that_cannot_be_folded_keeps_no_server_from_starting(
    build: OpenHouse,
) -> None:
    lives = Lives(build)
    house = await lives.begin()
    key = await house.start(use("bad"), say("fine"))
    for _ in range(2):
        await lives.die_of("bad")
        house = await lives.begin()
    await within(lives.on_trial(Phase.SOLE, key))
    await lives.die_of("bad")

    house = await build(codec=Unreadable())
    assert await house.recover() == 1
    await house.crash()

    house = await lives.begin()
    assert (await house.row(key)).state == ThreadState.RUNNING
    assert house.fatal == []


async def test_a_guilty_thread_is_ended_and_the_server_starts_though_the_disk_is_full(
    build: OpenHouse,
) -> None:
    lives = Lives(build)
    house = await lives.begin()
    other = await house.run(say("fine"))
    key = await house.start(use("bad"), say("fine"))
    for _ in range(2):
        await lives.die_of("bad")
        house = await lives.begin()
    await within(lives.on_trial(Phase.SOLE, key))
    await lives.die_of("bad")

    house = lives.house = await build(pace=PACE)
    house.log.hold()  # nothing is written, and the log says so
    await fill_the_disk(house.store)
    starting = asyncio.create_task(house.recover())
    await eventually(lambda: house.log.waiting == 1)
    waits = starting.done()
    await find_it_full(house, other)
    house.clock.advance(WAIT_SECONDS)
    assert await within(starting) == 1

    house.log.release()
    await free_the_disk(house.store)
    assert not waits
    assert await end_of(house, key) == (ThreadState.FAILED, StopReason.POISONED)


async def find_it_full(house: House, ended: ThreadKey) -> None:
    """By a unit that nobody is interested in."""
    house.store.log.submit(Unit(ended, await house.store.log.last_sequence(ended), [LARGE]))
    await eventually(lambda: refusal(house.store.log) is not None)
