"""A thread that the engine fails to drive: it is tried again a few times, and then it is ended."""

import pytest

from tests.engine.conftest import OpenHouse
from tests.engine.handloop import turns, within
from tests.engine.house import House, left_over, say
from tests.stores.kit import execute
from tests.waiting import eventually
from treadle_server.core import events as e
from treadle_server.core.errors import Reason, Refused
from treadle_server.core.kinds import StopReason, ThreadState
from treadle_server.engine.setbacks import FAULT_SECONDS, FAULTS_MAX
from treadle_server.ports.log import ThreadKey

INTERNAL = (ThreadState.FAILED, StopReason.INTERNAL)


def refuse(house: House, key: ThreadKey, *kinds: str) -> None:
    """Makes every unit fail, alone, that has an event of these kinds for the thread."""
    numbers = ", ".join(str(house.codec.kind(kind)) for kind in kinds)
    execute(
        house.path,
        f"CREATE TRIGGER fault BEFORE INSERT ON events WHEN new.thread = {key.thread} "
        f"AND new.kind IN ({numbers}) BEGIN SELECT RAISE(ABORT, 'a bug of ours'); END",
    )


async def pass_faults(house: House, key: ThreadKey, count: int) -> None:
    """Lets so many drivers fail, one after the pause of the one before."""
    for number in range(1, count + 1):
        await eventually(lambda number=number: house.engine._setbacks._faults.get(key) == number)  # type: ignore[misc]
        await eventually(lambda: house.engine.running_count == 0)
        await turns(20)
        house.clock.advance(FAULT_SECONDS * 2 ** (number - 1) + 0.1)


async def state_of(house: House, key: ThreadKey) -> tuple[int, int]:
    row = await house.row(key)
    return row.state, row.stop_reason


async def failing(build: OpenHouse, *kinds: str) -> tuple[House, ThreadKey]:
    house = await build()
    start = house.plan(say("fine"))
    refuse(house, start.key, *kinds)
    await within(house.engine.start(start))
    return house, start.key


async def test_a_thread_is_ended_after_five_faults_in_a_row(build: OpenHouse) -> None:
    house, key = await failing(build, "message_completed")
    await pass_faults(house, key, FAULTS_MAX - 1)

    await house.ended(key)

    assert await state_of(house, key) == INTERNAL
    ended = (await house.check_ended(key))[-1].payload
    assert isinstance(ended, e.ThreadEnded)
    assert ended.error is not None
    assert "bug of ours" not in ended.error.message
    await eventually(lambda: left_over(house.engine) == {})
    assert house.fatal == []


async def test_a_thread_that_gets_on_again_is_not_ended(build: OpenHouse) -> None:
    house, key = await failing(build, "message_completed")
    await pass_faults(house, key, FAULTS_MAX - 2)
    execute(house.path, "DROP TRIGGER fault")
    house.clock.advance(FAULT_SECONDS * 2**FAULTS_MAX)

    assert (await house.ended(key)).state == ThreadState.COMPLETED


async def test_a_thread_whose_end_cannot_be_recorded_ends_by_its_row(build: OpenHouse) -> None:
    house, key = await failing(build, "message_completed", "thread_ended")
    waiting = house.engine.ended(key)
    await pass_faults(house, key, FAULTS_MAX - 1)

    with pytest.raises(Refused) as refused:
        await within(waiting)

    assert refused.value.reason is Reason.INTERNAL
    assert await state_of(house, key) == INTERNAL
    assert "thread_ended" not in await house.kinds(key)
    await eventually(lambda: left_over(house.engine) == {})


async def test_a_cancels_grace_is_kept_though_the_driver_failed(build: OpenHouse) -> None:
    """The timer is armed at once, and not when the thread is tried again."""
    house, key = await failing(build, "message_completed")
    await eventually(lambda: house.engine._setbacks._faults.get(key) == 1)
    await eventually(lambda: house.engine.running_count == 0)

    await house.cancel(key)

    assert (await house.ended(key)).state == ThreadState.CANCELLED
