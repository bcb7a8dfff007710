"""When threads began of agents with a start rate: written with their first run, and kept for a time."""

from pathlib import Path

from tests.contract.units import NOW, RUNNING, new_thread, projection, records
from tests.stores.kit import HandClock, Opened, Opens, execute
from treadle_server.ports.catalogue.starts import STARTS_MAX
from treadle_server.ports.log import ThreadKey, Unit
from treadle_server.stores.sqlite.checking import open_inspection
from treadle_server.stores.sqlite.store import SqliteStore

MINUTE = 60_000_000
PENDING = 1


async def made(store: SqliteStore, agent: int = 1) -> ThreadKey:
    """A thread that has not begun."""
    key = ThreadKey(1, store.log.allocate_thread())
    new = new_thread(f"thread-{key.thread}", agent=agent)
    await store.log.submit(Unit(key, 0, records("made"), projection(PENDING), new_thread=new)).wait()
    return key


async def begun(store: SqliteStore, start_time: int, agent: int = 1, *, counts: int = MINUTE) -> ThreadKey:
    key = await made(store, agent)
    runs = projection(RUNNING)
    runs.start_time = start_time
    await store.log.submit(Unit(key, 1, records("began"), runs, start_counts_micros=counts)).wait()
    return key


async def recent(store: SqliteStore, after: int = NOW - MINUTE, agent: int = 1) -> list[tuple[int, int]]:
    return list(await store.starts.recent(agent, after))


async def test_the_unit_with_which_a_thread_begins_says_when(opened: Opened) -> None:
    later = await begun(opened.store, NOW + 5)
    first = await begun(opened.store, NOW)

    assert await recent(opened.store) == [(NOW, first.thread), (NOW + 5, later.thread)]


async def test_only_starts_after_a_time_of_the_agent_asked_for_are_told(opened: Opened) -> None:
    await begun(opened.store, NOW - MINUTE)
    key = await begun(opened.store, NOW - MINUTE + 1)
    await begun(opened.store, NOW, agent=2)

    assert await recent(opened.store) == [(NOW - MINUTE + 1, key.thread)]


async def test_a_thread_that_does_not_count_leaves_no_row(opened: Opened) -> None:
    await made(opened.store)
    await begun(opened.store, NOW, counts=0)

    assert await recent(opened.store) == []


async def test_no_more_are_told_than_an_agent_can_allow(opened: Opened, path: Path) -> None:
    key = await begun(opened.store, NOW)
    rows = f"""
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {STARTS_MAX})
    INSERT INTO starts SELECT 1, {NOW} + i, {key.thread}, {NOW}, 0 FROM n"""
    execute(path, rows)

    assert len(await recent(opened.store)) == STARTS_MAX


async def test_starts_are_forgotten_when_they_count_no_more(opened: Opened) -> None:
    await begun(opened.store, NOW)
    kept = await begun(opened.store, NOW, counts=2 * MINUTE)
    keeping = opened.store.housekeeping

    assert await keeping.forget_starts(NOW + MINUTE - 1) == 0
    assert await keeping.forget_starts(NOW + MINUTE) == 1
    assert await recent(opened.store) == [(NOW, kept.thread)]


async def test_they_are_there_after_a_restart(opens: Opens, path: Path) -> None:
    opened = await opens(path)
    key = await begun(opened.store, NOW)
    await opened.store.close()

    again = await opens(path)

    assert await recent(again.store) == [(NOW, key.thread)]


async def test_a_damaged_row_counts_as_a_start_of_now(opened: Opened, path: Path, clock: HandClock) -> None:
    key = await begun(opened.store, NOW)
    execute(path, "UPDATE starts SET start_time = start_time - 1000000000000")
    clock.time = NOW + 7

    assert await recent(opened.store) == [(NOW + 7, key.thread)]


async def test_check_names_a_damaged_row(opened: Opened, path: Path) -> None:
    await begun(opened.store, NOW)
    await opened.store.close()
    assert _problems(path) == []

    execute(path, "UPDATE starts SET expire_time = expire_time + 1")

    (problem,) = _problems(path)
    assert problem.startswith(f"starts: agent 1, start_time {NOW}, thread ")


def _problems(path: Path) -> list[str]:
    inspection = open_inspection(path)
    try:
        return [problem for problem in inspection.rows() if problem.startswith("starts")]
    finally:
        inspection.close()
