"""The helpers that wait in tests: they return as soon as it holds, and say what did not come."""

import asyncio
import re
import threading
import time
from collections.abc import Awaitable
from dataclasses import dataclass, field
from functools import partial

import pytest

from tests.waiting import eventually, until

SOON = 0.02


@dataclass(slots=True)
class Hall:
    """What the conditions of these tests look at."""

    seats: int = 3
    guests: list[str] = field(default_factory=list)

    def knows(self, name: str) -> bool:
        return name in self.guests

    async def admits(self, name: str) -> bool:
        await asyncio.sleep(0)
        return self.knows(name)


@pytest.fixture
def hall() -> Hall:
    return Hall(guests=["ann"])


async def failure_of(waiting: Awaitable[None]) -> str:
    with pytest.raises(AssertionError) as failure:
        await waiting
    return str(failure.value)


async def test_it_returns_once_another_task_has_brought_it_about(hall: Hall) -> None:
    asyncio.get_running_loop().call_later(SOON, hall.guests.append, "bob")

    await eventually(lambda: hall.knows("bob"))

    assert hall.guests == ["ann", "bob"]


@pytest.mark.parametrize("name", ["ann", "bob"])
async def test_a_condition_may_be_awaited(hall: Hall, name: str) -> None:
    asyncio.get_running_loop().call_later(SOON, hall.guests.append, "bob")

    await eventually(lambda: hall.admits(name))

    assert hall.knows(name)


async def test_what_holds_is_seen_though_there_is_no_time(hall: Hall) -> None:
    await eventually(lambda: hall.seats == 3, seconds=0)

    until(lambda: hall.seats == 3, seconds=0)


def test_a_test_without_a_loop_waits_for_another_thread(hall: Hall) -> None:
    timer = threading.Timer(SOON, hall.guests.append, ["bob"])
    timer.start()

    until(lambda: hall.knows("bob"))
    timer.join()


async def test_a_failure_shows_what_was_compared(hall: Hall) -> None:
    told = await failure_of(eventually(lambda: hall.seats == len(hall.guests) > 0, seconds=SOON))

    assert told == (
        "not within 0.02 s: hall.seats == len(hall.guests) > 0; "
        "last seen: hall.seats = 3, len(hall.guests) = 1"
    )


def test_a_failure_shows_what_is_behind_a_yes_or_no(hall: Hall) -> None:
    with pytest.raises(AssertionError) as failure:
        until(
            lambda: not hall.knows("ann") or any(len(guest) > hall.seats for guest in hall.guests),
            seconds=SOON,
            what="the hall is empty",
        )

    assert str(failure.value).startswith(
        'not within 0.02 s: the hall is empty: not hall.knows("ann") or any('
    )
    assert str(failure.value).endswith(f"last seen: hall = {hall!r}, hall.guests = ['ann']")


async def test_a_failure_knows_what_a_loop_bound_to_the_condition(hall: Hall) -> None:
    conditions = [lambda count=count: hall.seats == count for count in (3, 5)]

    told = await failure_of(eventually(conditions[1], seconds=SOON))

    assert told.endswith("last seen: hall.seats = 3, count = 5")


async def test_a_failure_shows_a_part_that_cannot_be_evaluated_alone(hall: Hall) -> None:
    told = await failure_of(
        eventually(lambda: len(hall.guests) > 1 and hall.guests[1] == "bob", seconds=SOON)
    )

    assert "hall.guests[1] = (IndexError('list index out of range'))" in told


async def test_a_failure_names_a_condition_that_has_a_name(hall: Hall) -> None:
    told = await failure_of(eventually(partial(hall.knows, "bob"), seconds=SOON))

    assert re.search(r"Hall\.knows of .*, 'bob'\); last seen: False$", told)


async def test_an_awaited_condition_is_not_asked_again_for_the_words(hall: Hall) -> None:
    told = await failure_of(eventually(lambda: hall.admits("bob"), seconds=SOON))

    assert told == 'not within 0.02 s: hall.admits("bob"); last seen: False'


async def test_an_answer_that_does_not_come_is_a_failure_too() -> None:
    never: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
    began = time.monotonic()

    told = await failure_of(eventually(lambda: never, seconds=SOON))

    assert told == "not within 0.02 s: never; last seen: no answer"
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("error", [KeyError("gone"), TimeoutError("of its own")])
async def test_what_a_condition_raises_is_raised(error: Exception) -> None:
    async def raises() -> bool:
        raise error

    with pytest.raises(type(error), match=str(error.args[0])):
        await eventually(raises)
