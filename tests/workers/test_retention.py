"""The worker that takes threads which are kept no longer, with a clock that tests drive by hand."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import structlog

from tests.contract.units import COMPLETED, NOW, new_thread, projection, records
from tests.stores.kit import HandClock, Opened, open_store
from tests.waiting import eventually
from treadle_server.core.errors import Reason, Refused
from treadle_server.ports.log import Fenced, StoreFailed, ThreadKey, Unit
from treadle_server.workers.retention import Retention

HOUR = 3_600_000_000


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
async def opened(tmp_path: Path, clock: HandClock) -> AsyncIterator[Opened]:
    found = await open_store(tmp_path / "t.db", clock=clock)
    await found.store.tenants.get_or_create("acme", create_time=NOW)
    yield found
    await found.store.close()


async def make(opened: Opened, thread_id: str, *, end_time: int = NOW, event_count: int = 3) -> ThreadKey:
    key = ThreadKey(1, opened.store.log.allocate_thread())
    state = projection(COMPLETED)
    state.end_time, state.summary = end_time, b"summary"
    unit = Unit(key, 0, records(*["x" * 200] * event_count), state, new_thread(thread_id))
    await opened.store.log.submit(unit).wait()
    return key


def worker(opened: Opened, clock: HandClock, default: int | None = HOUR, **options: float) -> Retention:
    return Retention(opened.store.housekeeping, clock, default_micros=default, **options)


async def rows(opened: Opened, table: str) -> int:
    ((count,),) = await opened.store.readers.rows(f"SELECT count(*) FROM {table}")
    return int(count)


async def test_a_look_takes_what_is_due_by_the_clock_and_leaves_nothing_of_it(
    opened: Opened, clock: HandClock
) -> None:
    retention = worker(opened, clock)
    for number in range(120):
        await make(opened, f"t{number}", end_time=NOW + number)

    clock.time = NOW + HOUR - 1
    assert await retention.look() == 0
    clock.time = NOW + HOUR + 99
    assert await retention.look() == 100

    assert await rows(opened, "events") == 20 * 3
    assert await rows(opened, "commits") == await rows(opened, "thread_details") == 20
    assert await rows(opened, "threads") == 120
    clock.time = NOW + 31 * 24 * HOUR
    assert await retention.look() == 20
    assert await rows(opened, "events") == await rows(opened, "commits") == await rows(opened, "specs") == 0
    assert await rows(opened, "threads") == 20
    assert await rows(opened, "taken_ids") == 100
    with pytest.raises(Refused) as refused:
        await make(opened, "t0")
    assert refused.value.reason is Reason.RESOURCE_EXISTS


async def test_without_a_retention_nothing_is_ever_taken(opened: Opened, clock: HandClock) -> None:
    await make(opened, "t")
    clock.time = NOW + 100 * 365 * 24 * HOUR

    assert await worker(opened, clock, None).look() == 0

    assert await opened.store.threads.get(1, "t") is not None


async def test_a_thread_with_a_long_log_goes_in_pieces(opened: Opened, clock: HandClock) -> None:
    await make(opened, "long", event_count=20_000)
    await make(opened, "other")
    clock.time = NOW + HOUR
    commits = opened.store.committer.commit_count

    assert await worker(opened, clock).look() == 2

    assert await rows(opened, "events") == 0
    assert opened.store.committer.commit_count - commits > 5


async def test_a_poke_makes_it_look_at_once(opened: Opened, clock: HandClock) -> None:
    retention = worker(opened, clock, look_seconds=3_600)
    retention.start()
    await eventually(lambda: retention.looks == 1)
    await make(opened, "t")
    clock.time = NOW + HOUR

    retention.poke()
    await eventually(lambda: retention.looks == 2)

    assert await opened.store.threads.get(1, "t") is None
    await retention.stop()


async def test_it_looks_again_by_itself(opened: Opened, clock: HandClock) -> None:
    retention = worker(opened, clock, look_seconds=0.001)
    retention.start()

    await make(opened, "t")
    clock.time = NOW + HOUR
    async with asyncio.timeout(10):
        while await opened.store.threads.get(1, "t") is not None:
            continue
    await retention.stop()


class FailsOnce:
    """Housekeeping that fails at the first call and has nothing to do afterwards."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.calls = 0
        self._failure = failure or RuntimeError("the disk is on fire")

    async def expire_threads(self, now: int, retention: int | None) -> int:
        self.calls += 1
        if self.calls == 1:
            raise self._failure
        return 0

    async def purge_threads(self) -> int:
        return 0

    async def prune_commits(self) -> int:
        return 0

    async def forget_threads(self, now: int) -> int:
        return 0

    async def forget_requests(self, now: int) -> int:
        return 0

    async def expire_sessions(self, now: int, retention: int | None) -> int:
        return 0

    async def purge_sessions(self) -> int:
        return 0

    async def purge_agents(self, now: int) -> int:
        return 0

    async def reclaim(self) -> int:
        return 0


async def test_a_failure_is_logged_and_tried_again() -> None:
    housekeeping = FailsOnce()
    retention = Retention(housekeeping, HandClock(), default_micros=None, look_seconds=0.001)

    with structlog.testing.capture_logs() as logs:
        retention.start()
        await eventually(lambda: retention.looks > 1)
        await retention.stop()

    assert [entry["event"] for entry in logs] == ["retention_failed"]
    assert housekeeping.calls > 1


@pytest.mark.parametrize("failure", [StoreFailed("it cannot be read"), Fenced("at epoch 2")])
async def test_what_the_store_has_told_itself_is_not_told_again(failure: Exception) -> None:
    retention = Retention(FailsOnce(failure), HandClock(), default_micros=None)

    with structlog.testing.capture_logs() as logs:
        await retention.look()

    assert logs == []


class MeetsDamage(FailsOnce):
    """Housekeeping of which one step always fails."""

    def __init__(self, failing: str) -> None:
        super().__init__()
        self.made: list[str] = []
        self._failing = failing

    def _step(self, name: str) -> int:
        self.made.append(name)
        if name == self._failing:
            raise Refused(Reason.RECORD_CORRUPT, "a page is damaged in the store")
        return int(self.made.count(name) == 1)

    async def expire_threads(self, now: int, retention: int | None) -> int:
        return self._step("expire")

    async def purge_threads(self) -> int:
        return self._step("purge")

    async def prune_commits(self) -> int:
        return self._step("prune")

    async def forget_threads(self, now: int) -> int:
        return self._step("forget")

    async def reclaim(self) -> int:
        return self._step("reclaim")


@pytest.mark.parametrize("failing", ["expire", "purge", "prune", "forget", "reclaim"])
async def test_a_step_that_meets_damage_keeps_no_other_from_its_work(failing: str) -> None:
    housekeeping = MeetsDamage(failing)

    with structlog.testing.capture_logs() as logs:
        await Retention(housekeeping, HandClock(), default_micros=None).look()

    assert set(housekeeping.made) == {"expire", "purge", "prune", "forget", "reclaim"}
    assert [entry["reason"] for entry in logs if entry["event"] == "retention_refused"] == ["RECORD_CORRUPT"]


async def test_a_stop_in_the_middle_leaves_whole_threads_to_the_next_server(
    tmp_path: Path, clock: HandClock
) -> None:
    opened = await open_store(tmp_path / "u.db", clock=clock)
    await opened.store.tenants.get_or_create("acme", create_time=NOW)
    for number in range(60):
        await make(opened, f"t{number}", event_count=100)
    clock.time = NOW + HOUR
    retention = worker(opened, clock)
    retention.start()
    commits = opened.store.committer.commit_count
    await eventually(lambda: opened.store.committer.commit_count > commits + 1)
    await retention.stop()
    await opened.store.close()

    again = await open_store(tmp_path / "u.db", clock=clock)
    left = [number for number in range(60) if await again.store.threads.get(1, f"t{number}") is not None]
    hidden = await again.store.readers.rows("SELECT count(*) FROM threads WHERE delete_time IS NOT NULL")
    await worker(again, clock).look()

    assert hidden == [(60 - len(left),)]
    assert len(left) < 60
    assert await rows(again, "events") == await rows(again, "commits") == 0
    await again.store.close()
