"""Events that a fork shares: copied whole with their checksums, from threads that are there."""

from pathlib import Path

import pytest

from tests.contract.units import COMPLETED, NOW, bodies, create, creation, fork, records
from tests.stores.kit import Opened, Opens, execute
from treadle_server.core.errors import Reason, Refused
from treadle_server.ports.log import Expired, Shared, ThreadKey, Unit
from treadle_server.stores.sqlite.checking import open_inspection


async def forked(opened: Opened, first: ThreadKey, through: int) -> ThreadKey:
    """A fork of a thread, with one record of its own."""
    log = opened.store.log
    second = ThreadKey(first.tenant, log.allocate_thread())
    await log.submit(fork(second, Shared(first, through, 9), "forked")).wait()
    return second


async def test_the_commits_of_a_fork_cover_what_it_shares(opened: Opened, path: Path) -> None:
    first = await create(opened.store.log, "one", "two", "three")
    second = await forked(opened, first, 2)
    await opened.store.log.submit(Unit(second, 3, records("more"))).wait()

    page = await opened.store.commits.read(1, after=0, limit=10)

    spans = [(commit.key, commit.first, commit.last) for commit in page.items]
    assert spans == [(first, 1, 3), (second, 1, 3), (second, 4, 4)]
    await opened.store.close()
    inspection = open_inspection(path)
    found = [*inspection.structure(), *inspection.rows(), *inspection.threads()]
    inspection.close()
    assert [problem for problem in found if isinstance(problem, str)] == []


async def test_damage_to_a_shared_event_is_found_in_the_copy_alone(opens: Opens, path: Path) -> None:
    opened = await opens(path)
    first = await create(opened.store.log, "one", "two")
    second = await forked(opened, first, 2)
    await opened.store.close()
    execute(path, f"UPDATE events SET body = x'00' WHERE thread = {second.thread} AND sequence = 1")
    opened = await opens(path)

    with pytest.raises(Refused) as refused:
        await opened.store.log.read(second, 0, 10)

    assert refused.value.reason is Reason.RECORD_CORRUPT
    assert await bodies(opened.store.log, first) == ["one", "two"]


async def test_an_event_that_is_damaged_when_it_is_shared_is_not_made_whole_by_that(
    opens: Opens, path: Path
) -> None:
    opened = await opens(path)
    first = await create(opened.store.log, "one", "two")
    await opened.store.close()
    execute(path, f"UPDATE events SET body = x'00' WHERE thread = {first.thread} AND sequence = 1")
    opened = await opens(path)

    second = await forked(opened, first, 2)

    with pytest.raises(Refused) as refused:
        await opened.store.log.read(second, 0, 10)
    assert refused.value.reason is Reason.RECORD_CORRUPT


async def test_a_fork_of_a_log_with_a_hole_is_refused_and_leaves_nothing(opens: Opens, path: Path) -> None:
    opened = await opens(path)
    first = await create(opened.store.log, "one", "two", "three")
    await opened.store.close()
    execute(path, f"DELETE FROM events WHERE thread = {first.thread} AND sequence = 2")
    opened = await opens(path)

    with pytest.raises(Refused) as refused:
        await forked(opened, first, 3)

    assert refused.value.reason is Reason.RECORD_CORRUPT
    assert await opened.store.threads.get(1, "thread-2") is None


@pytest.mark.parametrize("way", ["deleted", "expired"])
async def test_a_thread_that_is_gone_is_not_forked(opened: Opened, way: str) -> None:
    log, store = opened.store.log, opened.store
    tenant = await store.tenants.create(
        "acme", display_name="", thread_retention=1, create_time=NOW, caller=1
    )
    first = ThreadKey(tenant.key, log.allocate_thread())
    unit = creation(first, "one", "two", state=COMPLETED)
    assert unit.projection is not None
    unit.projection.end_time = NOW
    unit.projection.summary = b"summary"
    await log.submit(unit).wait()
    row = await store.threads.get_by_key(first)
    assert row is not None
    if way == "deleted":
        await store.threads.delete(row, delete_time=NOW + 1)
    else:
        assert await store.housekeeping.expire_threads(NOW + 10, None) == 1

    with pytest.raises(Refused) as refused:
        await forked(opened, first, 2)

    assert refused.value.reason is Reason.RESOURCE_NOT_FOUND
    if way == "expired":
        with pytest.raises(Expired):
            await log.read(first, 0, 10)
