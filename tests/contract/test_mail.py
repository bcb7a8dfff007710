"""What every log promises of the letters between threads: one suite for all of them."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.contract.units import (
    COMPLETED,
    NOW,
    AllocatingLog,
    bodies,
    create,
    creation,
    projection,
    records,
)
from treadle_server.core.errors import Reason, Refused
from treadle_server.ports.log import Conflict, Posted, ThreadKey, Unit
from treadle_server.ports.mail import Letter, Mailbox
from treadle_server.stores.memory import MemoryLog
from treadle_server.stores.sqlite.store import SqliteStore


class StillClock:
    def now(self) -> int:
        return NOW


@dataclass(slots=True)
class Subject:
    """A log under test, and its mailbox."""

    log: AllocatingLog
    mailbox: Mailbox

    async def waiting(self) -> list[Letter]:
        return list(await self.mailbox.waiting(after=0, limit=100))

    async def post(self, sender: ThreadKey, receiver: ThreadKey, *texts: bytes, expected: int = 1) -> None:
        """A unit of a thread that tells another something."""
        mail = [Posted(f"thread-{receiver.thread}", text) for text in texts]
        await self.log.submit(
            Unit(sender, expected, records("told"), projection=projection(), mail=mail)
        ).wait()


@pytest.fixture(params=["memory", "sqlite"])
async def subject(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Subject]:
    if request.param == "memory":
        memory = MemoryLog(StillClock())
        yield Subject(memory, memory)
        return
    failures: list[Exception] = []
    store = await SqliteStore.open(tmp_path / "t.db", on_fatal=failures.append, clock=StillClock())
    yield Subject(store.log, store.mail)
    await store.close()
    assert failures == []


async def test_a_letter_waits_for_its_thread_in_the_order_of_the_telling(subject: Subject) -> None:
    sender, receiver = await create(subject.log, "a"), await create(subject.log, "b")

    await subject.post(sender, receiver, b"first", b"second")
    await subject.post(sender, receiver, b"third", expected=2)

    letters = await subject.waiting()
    assert [letter.body for letter in letters] == [b"first", b"second", b"third"]
    assert {letter.key for letter in letters} == {receiver}
    assert [letter.position for letter in letters] == sorted({letter.position for letter in letters})
    after = letters[0].position
    assert list(await subject.mailbox.waiting(after=after, limit=1)) == [letters[1]]


async def test_a_letter_goes_with_the_unit_that_takes_it(subject: Subject) -> None:
    sender, receiver = await create(subject.log, "a"), await create(subject.log, "b")
    await subject.post(sender, receiver, b"first", b"second")
    first, second = await subject.waiting()

    unit = Unit(receiver, 1, records("heard"), projection=projection(), takes=[first.position])
    await subject.log.submit(unit).wait()

    assert await subject.waiting() == [second]
    assert await bodies(subject.log, receiver) == ["b", "heard"]


async def test_a_letter_is_taken_once_and_by_its_own_thread(subject: Subject) -> None:
    sender, receiver = await create(subject.log, "a"), await create(subject.log, "b")
    await subject.post(sender, receiver, b"first")
    (letter,) = await subject.waiting()

    with pytest.raises(Conflict):
        await subject.log.submit(
            Unit(sender, 2, records("mine"), projection=projection(), takes=[letter.position])
        ).wait()
    await subject.log.submit(Unit(receiver, 1, takes=[letter.position])).wait()
    with pytest.raises(Conflict):
        await subject.log.submit(
            Unit(receiver, 1, records("again"), projection=projection(), takes=[letter.position])
        ).wait()

    assert await subject.waiting() == []
    assert await bodies(subject.log, sender) == ["a", "told"]
    assert await bodies(subject.log, receiver) == ["b"]


async def test_a_refused_unit_tells_nobody(subject: Subject) -> None:
    sender, receiver = await create(subject.log, "a"), await create(subject.log, "b")

    with pytest.raises(Conflict):
        await subject.post(sender, receiver, b"first", expected=7)

    assert await subject.waiting() == []


async def test_who_has_ended_or_is_of_another_tenant_is_told_nothing(subject: Subject) -> None:
    sender, receiver = await create(subject.log, "a"), await create(subject.log, "b")
    other = await create(subject.log, "c", tenant=2)
    await subject.log.submit(Unit(receiver, 1, records("end"), projection=projection(COMPLETED))).wait()

    await subject.post(sender, receiver, b"first")
    await subject.post(sender, other, b"second", expected=2)
    await subject.post(sender, ThreadKey(1, 99), b"third", expected=3)

    assert await subject.waiting() == []


async def test_a_letter_that_is_dropped_is_gone(subject: Subject) -> None:
    sender, receiver = await create(subject.log, "a"), await create(subject.log, "b")
    await subject.post(sender, receiver, b"first")
    (letter,) = await subject.waiting()

    await subject.mailbox.drop(letter)

    assert await subject.waiting() == []


async def test_a_thread_is_made_below_a_living_one_only(subject: Subject) -> None:
    parent = await create(subject.log, "a")
    first, second = (ThreadKey(1, subject.log.allocate_thread()) for _ in range(2))
    below = creation(first, "child")
    assert below.new_thread is not None
    below.new_thread.parent = parent.thread

    await subject.log.submit(below).wait()
    await subject.log.submit(Unit(parent, 1, records("end"), projection=projection(COMPLETED))).wait()
    late = creation(second, "child")
    assert late.new_thread is not None
    late.new_thread.parent = parent.thread
    with pytest.raises(Refused) as refused:
        await subject.log.submit(late).wait()

    assert refused.value.reason is Reason.THREAD_STATE_CONFLICT
    assert await bodies(subject.log, first) == ["child"]
    assert await bodies(subject.log, second) == []
