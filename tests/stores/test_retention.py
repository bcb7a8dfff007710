"""What retention takes: whole ended threads, in small pieces, with all that was made of them."""

import asyncio
import shutil
import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import structlog

from tests.contract.units import COMPLETED, NOW, RUNNING, bodies, new_thread, projection, records, request
from tests.stores.kit import HandClock, Opened, Opens, StatementWork, execute
from treadle_server.core.errors import Reason, Refused
from treadle_server.ports.catalogue.tenants import TenantRow
from treadle_server.ports.catalogue.thread_queries import ThreadQuery
from treadle_server.ports.catalogue.threads import ExpiredThread
from treadle_server.ports.log import Expired, NewSession, ThreadKey, Unit
from treadle_server.stores.sqlite import database
from treadle_server.stores.sqlite.database import migrate, open_database
from treadle_server.stores.sqlite.expiry import Due, Expire
from treadle_server.stores.sqlite.housekeeping import (
    FORGET_MICROS,
    TENANTS_DUE,
    THREADS_DUE,
    THREADS_TO_FORGET,
)
from treadle_server.stores.sqlite.statements import Answer
from treadle_server.stores.sqlite.store import SqliteStore

HOUR = 3_600_000_000
LEFT = "SELECT count(*) FROM {} WHERE thread = ?"


async def make_tenant(store: SqliteStore, tenant_id: str = "acme", retention: int | None = HOUR) -> TenantRow:
    return await store.tenants.create(
        tenant_id, display_name="", thread_retention=retention, create_time=NOW, caller=1
    )


async def make(
    store: SqliteStore,
    thread_id: str,
    *,
    end_time: int | None = NOW,
    tenant: int = 1,
    texts: Sequence[str] = ("created", "more", "ended"),
    session: int = 0,
    spec: bytes = b"spec",
) -> ThreadKey:
    """A thread that has ended, unless it has no end_time: by a unit of its own, as they do."""
    key = ThreadKey(tenant, store.log.allocate_thread())
    new = new_thread(thread_id, tags=("t",), labels={"k": "v"}, session=session)
    new.spec, new.spec_digest = spec, b"digest of " + spec
    await store.log.submit(Unit(key, 0, records(*texts[:-1]), projection(RUNNING), new)).wait()
    state = projection(RUNNING if end_time is None else COMPLETED)
    if end_time is not None:
        state.end_time, state.summary = end_time, b"summary"
    await store.log.submit(Unit(key, len(texts) - 1, records(texts[-1]), state)).wait()
    return key


async def gone(store: SqliteStore, *thread_ids: str, tenant: int = 1) -> list[str]:
    """Those of the ids that are found no more."""
    return [name for name in thread_ids if await store.threads.get(tenant, name) is None]


async def take(store: SqliteStore, now: int, retention: int | None = None) -> int:
    """Expires and purges all that is due."""
    taken = 0
    while some := await store.housekeeping.expire_threads(now, retention):
        taken += some
    while await store.housekeeping.purge_threads():
        pass
    return taken


async def test_ended_threads_go_when_their_time_is_over_and_no_others(opened: Opened) -> None:
    store = opened.store
    await make_tenant(store)
    await make(store, "old", end_time=NOW)
    await make(store, "younger", end_time=NOW + 1)
    await make(store, "living", end_time=None)

    assert await store.housekeeping.expire_threads(NOW + HOUR - 1, None) == 0
    assert await store.housekeeping.expire_threads(NOW + HOUR, None) == 1
    assert await gone(store, "old", "younger", "living") == ["old"]
    assert await store.housekeeping.expire_threads(NOW + 900 * HOUR, None) == 1
    assert await gone(store, "old", "younger", "living") == ["old", "younger"]


async def test_a_tenants_own_retention_goes_before_the_servers(opened: Opened) -> None:
    store = opened.store
    own, other = await make_tenant(store, "own", 5 * HOUR), await make_tenant(store, "other", None)
    for tenant in (own, other):
        await make(store, "t", tenant=tenant.key)

    assert await take(store, NOW + 9 * HOUR, None) == 1
    assert await gone(store, "t", tenant=own.key) == ["t"]
    assert await take(store, NOW + HOUR - 1, HOUR) == 0
    assert await take(store, NOW + HOUR, HOUR) == 1
    assert await gone(store, "t", tenant=other.key) == ["t"]


async def test_a_changed_retention_holds_for_threads_that_have_ended_already(opened: Opened) -> None:
    store = opened.store
    tenant = await make_tenant(store, retention=HOUR)
    await make(store, "t")

    for retention, taken in ((9 * HOUR, 0), (None, 0), (HOUR // 2, 1)):
        tenant = await store.tenants.update(
            tenant, display_name="", thread_retention=retention, update_time=NOW, caller=1
        )
        assert await take(store, NOW + HOUR) == taken


async def test_a_longer_retention_that_was_acknowledged_meanwhile_holds(opened: Opened) -> None:
    """The thread was found due by the old one, and its hiding comes behind the change."""
    store = opened.store
    tenant = await make_tenant(store, retention=HOUR)
    key = await make(store, "t")
    expire = Expire(tenant.key, tenant.revision, [Due(key.thread, 2)], NOW, NOW + HOUR)
    changed = await store.tenants.update(
        tenant, display_name="", thread_retention=9 * HOUR, update_time=NOW, caller=1
    )

    outcomes = []
    for revision in (tenant.revision, changed.revision):
        work = StatementWork([replace(expire, revision=revision)])
        ticket = store.committer.submit(work, background=True)
        await ticket.wait()
        outcomes.append((ticket.answer, await gone(store, "t")))

    assert outcomes == [((0,), []), ((1,), ["t"])]


async def test_a_thread_goes_with_all_that_was_made_of_it(opened: Opened) -> None:
    store = opened.store
    await make_tenant(store)
    session = await store.sessions.create_if_absent(1, NewSession("s", "mine", 1, "", NOW))
    key = await make(store, "t", texts=["x"] * 500, session=session.key, spec=b"its own")
    kept = await make(store, "kept", end_time=NOW + HOUR, spec=b"shared")
    also = await make(store, "also", spec=b"shared")
    for scope in (f"threads/{key.thread}", f"threads/{kept.thread}", "sessions/s"):
        await asyncio.gather(*(store.notes.put(1, scope, f"k{number}", "x") for number in range(70)))

    assert await take(store, NOW + HOUR) == 2
    await store.housekeeping.prune_commits()

    for thread, left in ((key, 0), (also, 0), (kept, 1)):
        for table in ("thread_details", "thread_tags", "thread_labels"):
            assert await store.readers.rows(LEFT.format(table), (thread.thread,)) == [(left,)], table
        assert await store.readers.rows(LEFT.format("events"), (thread.thread,)) == [(3 * left,)]
        assert await store.readers.rows(LEFT.format("commits"), (thread.thread,)) == [(2 * left,)]
        assert await store.readers.rows(LEFT.format("threads"), (thread.thread,)) == [(1,)]
    assert await store.notes.keys(1, f"threads/{key.thread}") == []
    assert len(await store.notes.keys(1, f"threads/{kept.thread}")) == 70
    assert len(await store.notes.keys(1, "sessions/s")) == 70
    assert await store.sessions.get(1, "s") is not None
    assert await store.threads.spec(1, b"digest of its own") is None
    assert await store.threads.spec(1, b"digest of shared") == b"shared"
    assert await bodies(store.log, kept) == ["created", "more", "ended"]


async def test_a_deleted_thread_takes_its_commits_and_its_spec_along_too(opened: Opened) -> None:
    store = opened.store
    key = await make(store, "t")
    row = await store.threads.get_by_key(key)
    assert row is not None
    await store.threads.delete(row, delete_time=NOW)

    assert await store.housekeeping.purge_threads() == 1
    assert await store.housekeeping.prune_commits() == 2

    assert await store.readers.rows("SELECT count(*) FROM commits") == [(0,)]
    assert await store.readers.rows("SELECT count(*) FROM specs") == [(0,)]
    assert await store.threads.expired(1, "t") is None
    assert await store.commits.horizon(1) == 0
    assert await store.commits.last_position() == 2


async def test_a_damaged_page_keeps_no_other_thread_from_being_purged(opens: Opens, path: Path) -> None:
    opened = await opens(path)
    long = "a text of several pages" + "x" * 50_000
    tenant = (await make_tenant(opened.store)).key
    await make(opened.store, "damaged", texts=("created", long, "ended"), tenant=tenant)
    await make(opened.store, "between", end_time=None, texts=("t" * 1000,) * 40, tenant=tenant)
    whole = [await make(opened.store, f"whole-{number}", tenant=tenant) for number in range(3)]
    await opened.store.close()
    store = (await opens(path)).store
    assert await store.housekeeping.expire_threads(NOW + HOUR, None) == 4
    break_chain(path, b"x" * 1000)
    forget_pages = StatementWork([Answer("PRAGMA shrink_memory")])
    await store.committer.submit(forget_pages).wait()

    with structlog.testing.capture_logs() as lines:
        purged = [await store.housekeeping.purge_threads() for _ in range(2)]

    assert purged == [3, 0]
    assert [line["event"] for line in lines] == ["thread_not_purged"]
    assert await store.readers.rows("SELECT count(*) FROM threads WHERE purged = 0") == [(2,)]
    for key in whole:
        assert await store.readers.rows(LEFT.format("events"), (key.thread,)) == [(0,)]


def break_chain(path: Path, marker: bytes) -> None:
    """Every page that one large value fills alone, where it names its successor."""
    data = path.read_bytes()
    with path.open("r+b") as file:
        for page in range(0, len(data), database.PAGE_SIZE):
            if data.startswith(marker, page + 4):
                file.seek(page)
                file.write(b"\xff" * 4)


async def test_the_log_of_an_expired_thread_says_that_it_is_gone(opened: Opened) -> None:
    store = opened.store
    await make_tenant(store)
    key = await make(store, "t")
    assert await store.housekeeping.expire_threads(NOW + 2 * HOUR, None) == 1

    for purge in (False, True):
        if purge:
            await store.housekeeping.purge_threads()
        for after in (0, 1, 3):
            with pytest.raises(Expired) as expired:
                await store.log.read(key, after, 10)
            assert (expired.value.last, expired.value.expire_time) == (3, NOW + 2 * HOUR)
        assert await store.threads.expired(1, "t") == ExpiredThread(key, "t", 3, NOW + 2 * HOUR)
        assert await store.threads.expired(2, "t") is None
        assert (await store.threads.list(ThreadQuery(1))).items == ()


async def test_the_horizon_is_the_last_commit_of_what_was_taken(opened: Opened) -> None:
    store = opened.store
    await make_tenant(store)
    await make_tenant(store, "other", None)
    await make(store, "first", end_time=NOW + 5)
    await make(store, "noise", tenant=2)
    await make(store, "second", end_time=NOW)
    await make(store, "kept", end_time=NOW + 9)

    assert await take(store, NOW + HOUR) == 1
    assert await store.commits.horizon(1) == 6
    assert await take(store, NOW + HOUR + 5) == 1
    assert await store.commits.horizon(1) == 6
    await store.housekeeping.prune_commits()

    page = await store.commits.read(1, after=0, limit=10)
    assert ([row.thread_id for row in page.items], page.position, page.horizon) == (["kept"] * 2, 8, 6)
    assert (await store.commits.read(1, after=8, limit=10)).horizon == 6
    other = await store.commits.read(2, after=0, limit=10)
    assert ([row.thread_id for row in other.items], other.horizon) == (["noise"] * 2, 0)


async def test_the_horizon_of_a_thread_that_was_ended_by_its_row_is_its_last_commit_too(
    opened: Opened,
) -> None:
    store = opened.store
    await make_tenant(store)
    key = await make(store, "t", end_time=None)
    await make(store, "later", end_time=None)
    await store.threads.condemn(key, stop_reason=23, now=NOW)

    assert await take(store, NOW + HOUR) == 1

    assert await store.commits.horizon(1) == 2


async def test_a_damaged_horizon_is_no_horizon_and_the_next_one_is_safe(opens: Opens, path: Path) -> None:
    opened = await opens(path)
    await make_tenant(opened.store)
    await make(opened.store, "t")
    await take(opened.store, NOW + HOUR)
    await make(opened.store, "u", end_time=NOW + 1)
    await make(opened.store, "living", end_time=None)
    await opened.store.close()
    execute(path, "UPDATE horizons SET position = position - 1")
    store = (await opens(path)).store

    for read in (store.commits.horizon(1), store.commits.read(1, after=0, limit=9)):
        with pytest.raises(Refused) as refused:
            await read
        assert refused.value.reason is Reason.RECORD_CORRUPT
    await take(store, NOW + 2 * HOUR)

    assert await store.commits.horizon(1) == await store.commits.last_position() == 6


@pytest.mark.parametrize("damage", ["state = 8", f"end_time = {NOW - HOUR}", "tenant = 1, revision = 9"])
async def test_a_damaged_row_decides_nothing(opens: Opens, path: Path, damage: str) -> None:
    opened = await opens(path)
    await make_tenant(opened.store)
    await make(opened.store, "damaged", end_time=NOW + HOUR)
    await make(opened.store, "due", end_time=NOW)
    await opened.store.close()
    execute(path, f"UPDATE threads SET {damage} WHERE id = 'damaged'")
    store = (await opens(path)).store

    assert await take(store, NOW + 2 * HOUR) == 1

    assert await store.readers.rows("SELECT id FROM threads WHERE delete_time IS NULL") == [("damaged",)]
    assert await store.readers.rows("SELECT count(*) FROM events") == [(3,)]


async def test_a_damaged_tenant_loses_nothing_and_others_go_on(opens: Opens, path: Path) -> None:
    opened = await opens(path)
    for tenant_id in ("acme", "other"):
        tenant = await make_tenant(opened.store, tenant_id, 90 * HOUR)
        await make(opened.store, "t", tenant=tenant.key)
    await opened.store.close()
    execute(path, "UPDATE tenants SET thread_retention = 1 WHERE id = 'acme'")
    store = (await opens(path)).store

    with structlog.testing.capture_logs() as logs:
        assert await take(store, NOW + HOUR) == 0
        assert await take(store, NOW + 90 * HOUR) == 1

    assert await gone(store, "t", tenant=2) == ["t"]
    assert await store.readers.rows("SELECT count(*) FROM events") == [(3,)]
    assert {entry["event"] for entry in logs} == {"tenant_left_out"}


async def test_an_id_is_never_free_again_though_its_row_goes_after_thirty_days(opened: Opened) -> None:
    store = opened.store
    await make_tenant(store)
    await make(store, "t")
    await take(store, NOW + HOUR)

    assert await store.housekeeping.forget_threads(NOW + HOUR + FORGET_MICROS - 1) == 0
    assert await store.housekeeping.forget_threads(NOW + HOUR + FORGET_MICROS) == 1

    assert await store.readers.rows("SELECT count(*) FROM threads") == [(0,)]
    assert await store.threads.expired(1, "t") is None
    with pytest.raises(Refused) as refused:
        await make(store, "t")
    assert refused.value.reason is Reason.RESOURCE_EXISTS
    made = await make(store, "t", tenant=2, end_time=None)
    assert await bodies(store.log, made) == ["created", "more", "ended"]


async def test_what_is_not_purged_yet_is_not_forgotten(opened: Opened) -> None:
    store = opened.store
    await make_tenant(store)
    await make(store, "t")
    await store.housekeeping.expire_threads(NOW + HOUR, None)

    assert await store.housekeeping.forget_threads(NOW + 2 * FORGET_MICROS) == 0


async def test_a_request_id_outlives_its_thread(opened: Opened) -> None:
    store = opened.store
    await make_tenant(store)
    key = ThreadKey(1, store.log.allocate_thread())
    state = projection(COMPLETED)
    state.end_time, state.summary = NOW, b"summary"
    await store.log.submit(Unit(key, 0, records("all"), state, new_thread("t"), request("r1"))).wait()

    await take(store, NOW + HOUR)

    assert await store.requests.find(1, "r1", now=NOW) is not None


async def test_keys_of_forgotten_threads_are_never_given_again(opens: Opens, path: Path) -> None:
    opened = await opens(path)
    await make_tenant(opened.store)
    keys = [await make(opened.store, f"t{number}") for number in range(3)]
    await take(opened.store, NOW + HOUR)
    assert await opened.store.housekeeping.forget_threads(NOW + HOUR + FORGET_MICROS) == 3
    await opened.store.close()

    store = (await opens(path)).store

    assert store.log.allocate_thread() > max(key.thread for key in keys)


async def test_pruning_goes_round_in_pieces_and_rests_when_nothing_is_gone(
    opened: Opened, clock: HandClock
) -> None:
    store = opened.store
    await make_tenant(store)
    living = await make(store, "living", end_time=None)
    units = [Unit(living, 3 + number, records("x")) for number in range(1_200)]
    await asyncio.gather(*(store.log.submit(unit).wait() for unit in units))
    await make(store, "t")
    await take(store, NOW + HOUR)

    assert await store.housekeeping.prune_commits() == 2
    reads = store.readers.reads
    assert await store.housekeeping.prune_commits() == 0
    assert store.readers.reads == reads
    assert await store.readers.rows("SELECT count(*) FROM commits") == [(1_202,)]
    await make(store, "late", end_time=NOW)
    await take(store, NOW + HOUR)
    assert await store.housekeeping.prune_commits() == 2


async def test_callers_are_served_between_the_pieces(opened: Opened) -> None:
    store = opened.store
    await make_tenant(store)
    await asyncio.gather(*(make(store, f"t{number}", texts=["x" * 500] * 60) for number in range(600)))
    before = store.committer.commit_count

    taking = asyncio.ensure_future(take(store, NOW + HOUR))
    served = 0
    while not taking.done():
        await make(store, f"other{served}", end_time=None)
        served += 1

    assert await taking == 600
    assert served > 10
    assert store.committer.commit_count - before > 20


def test_what_is_due_is_found_by_an_index(path: Path) -> None:
    open_database(path).close()
    connection = sqlite3.connect(path)
    asked = (
        (TENANTS_DUE, (NOW, HOUR), "USING INDEX threads_to_expire (tenant=? AND end_time>? AND end_time<?)"),
        (THREADS_DUE, (1, NOW), "USING INDEX threads_to_expire (tenant=? AND end_time>? AND end_time<?)"),
        (THREADS_TO_FORGET, (NOW,), "USING INDEX threads_to_forget (delete_time<?)"),
    )

    plans = [
        " ".join(row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", values))
        for sql, values, _ in asked
    ]
    connection.close()

    for plan, (_, _, index) in zip(plans, asked, strict=True):
        assert index in plan
        assert "TEMP B-TREE" not in plan


async def test_a_file_of_the_schema_before_keeps_its_threads_and_takes_them_alike(
    opens: Opens, path: Path, tmp_path: Path
) -> None:
    opened = await opens(path)
    await make_tenant(opened.store, retention=None)
    await make(opened.store, "t")
    await make(opened.store, "later", end_time=NOW + HOUR)
    await opened.store.close()
    rows = {
        table: execute(path, f"SELECT * FROM {table}")
        for table in ("threads", "thread_details", "events", "commits", "specs", "tenants")
    }
    old = tmp_path / "old.db"
    _rebuild(old, _migrations_before(4, tmp_path / "migrations"), path, rows)

    store = (await opens(old)).store

    tenant = await store.tenants.find("acme")
    assert tenant == TenantRow(1, "acme", "", None, 1, NOW, NOW)
    assert await take(store, NOW + HOUR, HOUR) == 1
    assert await store.commits.horizon(1) == 2
    assert await gone(store, "t", "later") == ["t"]


def _migrations_before(number: int, folder: Path) -> Path:
    folder.mkdir()
    for file in (Path(database.__file__).parent / "migrations").glob("*.sql"):
        if int(file.name[:4]) < number:
            shutil.copy(file, folder)
    return folder


def _rebuild(old: Path, migrations: Path, new: Path, rows: dict[str, list[tuple[object, ...]]]) -> None:
    """A file with these rows, as the schema before would hold them."""
    connection = sqlite3.connect(old, isolation_level=None)
    connection.execute("PRAGMA application_id = 0x54524441")
    migrate(connection, old, migrations)
    for table, found in rows.items():
        columns = f"PRAGMA table_info({table})"
        present = [str(row[1]) for row in execute(new, columns)]
        wanted = [str(row[1]) for row in connection.execute(columns)]
        for row in found:
            values = dict(zip(present, row, strict=True))
            marks = ", ".join("?" * len(wanted))
            connection.execute(
                f"INSERT INTO {table} ({', '.join(wanted)}) VALUES ({marks})",
                [values[name] for name in wanted],
            )
    connection.execute("UPDATE tenants SET checksum = row_checksum(id, create_time)")
    connection.close()
