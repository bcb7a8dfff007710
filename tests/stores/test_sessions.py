"""Sessions and what threads are about, as rows: begun once, guarded, deleted, purged, and damage told."""

import asyncio
import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from tests.contract.units import COMPLETED, NOW, new_thread, projection, record, records
from tests.stores.kit import Opened, Opens, execute
from treadle_server.core.errors import Reason, Refused
from treadle_server.ports.catalogue.sessions import SessionPlace, SessionRow
from treadle_server.ports.catalogue.thread_queries import ThreadQuery
from treadle_server.ports.log import Conflict, NewSession, NewThread, Record, ThreadKey, Unit
from treadle_server.stores.sqlite import checksums
from treadle_server.stores.sqlite.checking import open_inspection
from treadle_server.stores.sqlite.database import APPLICATION_ID, migrate
from treadle_server.stores.sqlite.session_expiry import SESSIONS_PER_STEP
from treadle_server.stores.sqlite.sessions import SqliteSessions
from treadle_server.stores.sqlite.store import SqliteStore
from treadle_server.stores.sqlite.structure import MIGRATIONS

HOUR = 3_600_000_000


async def make_session(store: SqliteStore, session_id: str = "s", key: str = "mine") -> SessionRow:
    return await store.sessions.create_if_absent(1, NewSession(session_id, key, 1, "", NOW))


async def start(store: SqliteStore, new: NewThread, *, end_time: int | None = None) -> ThreadKey:
    """Makes a thread, which ends at once if it is to."""
    key = ThreadKey(1, store.log.allocate_thread())
    state = projection(COMPLETED) if end_time is not None else projection()
    if end_time is not None:
        state.end_time, state.summary = end_time, b"summary"
    await store.log.submit(Unit(key, 0, records("a", "b"), state, new_thread=new)).wait()
    return key


async def refusal(store: SqliteStore, new: NewThread) -> Reason:
    with pytest.raises(Refused) as refused:
        await start(store, new)
    return refused.value.reason


async def test_sessions_are_numbered_within_their_tenant(opened: Opened) -> None:
    sessions = opened.store.sessions
    rows = [
        await sessions.create_if_absent(tenant, NewSession(f"s{number}", f"k{number}", 1, "", NOW))
        for number in range(3)
        for tenant in (1, 2)
    ]

    assert [row.number for row in rows] == [1, 1, 2, 2, 3, 3]


async def test_the_first_thread_settles_what_a_sessions_context_is(opened: Opened) -> None:
    store = opened.store
    session = await make_session(store)
    new = new_thread("t1", session=session.key)
    new.begins_session, new.context_initial = True, "Speak French."
    other = replace(new, id="t2", context_initial="Speak Latin.")

    await start(store, new)
    with pytest.raises(Conflict):
        await start(store, other)

    found = await store.sessions.get(1, "s")
    assert found is not None
    assert (found.begun, found.context_initial) == (True, "Speak French.")
    assert await store.threads.get(1, "t2") is None


async def test_a_thread_that_would_be_alone_is_refused_while_another_lives(opened: Opened) -> None:
    store = opened.store
    session = await make_session(store)
    await start(store, new_thread("ended", session=session.key), end_time=NOW)
    alone = new_thread("t1", session=session.key)
    alone.alone_in_session = True

    first = await start(store, alone)

    assert await refusal(store, replace(alone, id="t2")) is Reason.SESSION_BUSY
    await store.log.submit(Unit(first, 2, records("end"), projection(COMPLETED, frees_session=True))).wait()
    await start(store, replace(alone, id="t2"))


async def test_a_deleted_session_takes_no_thread_and_its_key_is_free(opened: Opened) -> None:
    store = opened.store
    session = await make_session(store)
    await start(store, new_thread("t1", session=session.key), end_time=NOW)

    await store.sessions.delete(session, delete_time=NOW + 1)

    assert await store.sessions.get(1, "s") is None
    assert await store.sessions.find(1, "mine") is None
    assert (await store.sessions.list(1, limit=9)).items == ()
    assert await refusal(store, new_thread("t2", session=session.key)) is Reason.RESOURCE_NOT_FOUND
    assert (await make_session(store, "s2")).number == 2
    with pytest.raises(Refused):
        await make_session(store, "s", "another")
    row = await store.threads.get(1, "t1")
    assert row is not None
    assert row.session_id == "s"


async def test_of_a_deletion_and_a_start_at_once_only_one_takes_place(opened: Opened) -> None:
    store = opened.store
    for number in range(10):
        session = await make_session(store, f"s{number}", f"k{number}")
        outcomes = await asyncio.gather(
            store.sessions.delete(session, delete_time=NOW + 1),
            start(store, new_thread(f"t{number}", session=session.key)),
            return_exceptions=True,
        )
        assert sum(isinstance(outcome, Refused) for outcome in outcomes) == 1


async def test_a_change_of_an_older_revision_is_refused(opened: Opened) -> None:
    sessions = opened.store.sessions
    before = await make_session(opened.store)

    changed = await sessions.update(before, labels={"team": "a"}, update_time=NOW + 5)

    assert (changed.labels, changed.revision, changed.update_time) == ({"team": "a"}, 2, NOW + 5)
    assert await sessions.get(1, "s") == changed
    for change in (
        sessions.update(before, labels={}, update_time=NOW + 6),
        sessions.delete(before, delete_time=NOW + 6),
    ):
        with pytest.raises(Refused) as refused:
            await change
        assert refused.value.reason is Reason.ETAG_MISMATCH
    assert await sessions.get(1, "s") == changed


async def test_the_notes_of_a_deleted_session_go_by_and_by_and_no_others(opened: Opened) -> None:
    store = opened.store
    gone, kept = await make_session(store, "s1", "a"), await make_session(store, "s2", "b")
    for session in (gone, kept):
        for number in range(70):
            await store.notes.put(1, f"sessions/{session.key}", f"k{number}", "x")
    await store.sessions.delete(gone, delete_time=NOW + 1)

    while await store.housekeeping.purge_sessions():
        pass

    assert await store.notes.keys(1, f"sessions/{gone.key}") == []
    assert len(await store.notes.keys(1, f"sessions/{kept.key}")) == 70


async def test_retention_takes_a_session_once_it_took_its_last_thread(opened: Opened) -> None:
    store = opened.store
    await store.tenants.create("acme", display_name="", thread_retention=HOUR, create_time=NOW, caller=1)
    session = await make_session(store)
    new = new_thread("t1", session=session.key)
    new.begins_session = True
    await start(store, new, end_time=NOW)
    await make_session(store, "fresh", "never begun")

    assert await store.housekeeping.expire_sessions(NOW + 2 * HOUR, None) == 0
    assert await store.housekeeping.expire_threads(NOW + 2 * HOUR, None) == 1
    assert await store.housekeeping.expire_sessions(NOW + HOUR - 1, None) == 0
    assert await store.housekeeping.expire_sessions(NOW + 2 * HOUR, None) == 1

    assert await store.sessions.find(1, "mine") is None
    assert await store.sessions.get(1, "fresh") is not None


async def test_sessions_of_a_damaged_tenant_keep_no_others_from_going(opened: Opened, path: Path) -> None:
    store = opened.store
    for tenant in ("acme", "blue"):
        await store.tenants.create(tenant, display_name="", thread_retention=HOUR, create_time=NOW, caller=1)
    for number in range(SESSIONS_PER_STEP + 10):
        await make_session(store, f"s{number}", f"room {number}")
    await store.sessions.create_if_absent(2, NewSession("other", "theirs", 1, "", NOW))
    execute(path, "UPDATE sessions SET begun = 1")
    execute(path, "UPDATE tenants SET checksum = checksum + 1 WHERE tenant = 1")

    assert await store.housekeeping.expire_sessions(NOW + 2 * HOUR, None) == 1

    assert await store.sessions.find(2, "theirs") is None


async def test_without_retention_sessions_stay(opened: Opened) -> None:
    store = opened.store
    await store.tenants.create("acme", display_name="", thread_retention=None, create_time=NOW, caller=1)
    session = await make_session(store)
    new = new_thread("t1", session=session.key)
    new.begins_session = True
    await start(store, new, end_time=NOW)
    row = await store.threads.get(1, "t1")
    assert row is not None
    await store.threads.delete(row, delete_time=NOW + 1)

    assert await store.housekeeping.expire_sessions(NOW + 9 * HOUR, None) == 0


async def test_the_records_of_a_session_are_read_as_one_in_both_directions(opened: Opened) -> None:
    store = opened.store
    session = await make_session(store)
    keys = []
    for number in range(3):
        key = ThreadKey(1, store.log.allocate_thread())
        new = new_thread(f"t{number}", session=session.key, create_time=NOW + number)
        body = [Record(kind, f"{number}{kind}".encode()) for kind in (7, 8, 9)]
        state = projection(COMPLETED if number < 2 else 2)
        if number < 2:
            state.end_time, state.summary = NOW, b"summary"
        await store.log.submit(Unit(key, 0, body, state, new_thread=new)).wait()
        keys.append(key)
    read = store.session_records

    whole = await read.after(1, session.key, None, kinds=[7, 9], limit=9)
    rest = await read.after(1, session.key, whole[2].place, kinds=[7, 9], limit=9)
    newest = await read.ended_before(1, session.key, None, kinds=[7, 9], limit=3)
    older = await read.ended_before(1, session.key, newest[-1].place, kinds=[7, 9], limit=3)

    assert [each.stored.record.body for each in whole] == [b"07", b"09", b"17", b"19", b"27", b"29"]
    assert [each.stored.record.body for each in rest] == [b"19", b"27", b"29"]
    assert [each.stored.record.body for each in newest] == [b"19", b"17", b"09"]
    assert [each.stored.record.body for each in older] == [b"07"]
    assert whole[0].place == SessionPlace(NOW, keys[0].thread, 1)
    assert [each.thread_id for each in whole] == ["t0", "t0", "t1", "t1", "t2", "t2"]
    assert await read.after(2, session.key, None, kinds=[7], limit=9) == []


async def test_a_damaged_record_of_a_session_is_no_message(opens: Opens, tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    store = (await opens(path)).store
    session = await make_session(store)
    key = ThreadKey(1, store.log.allocate_thread())
    unit = Unit(key, 0, [record("whole")], projection(), new_thread=new_thread("t", session=session.key))
    await store.log.submit(unit).wait()
    await store.close()
    execute(path, "UPDATE events SET body = x'00'")

    again = (await opens(path)).store
    with pytest.raises(Refused) as refused:
        await again.session_records.after(1, session.key, None, kinds=[3], limit=9)

    assert refused.value.reason is Reason.RECORD_CORRUPT


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE sessions SET context_initial = 'Speak Latin.'",
        'UPDATE sessions SET labels = \'{"a":"b"}\'',
        "UPDATE sessions SET number = 7",
        "UPDATE sessions SET begun = 0",
        "UPDATE sessions SET parent_object = 'account/17'",
        "UPDATE sessions SET delete_time = 5",
        "UPDATE sessions SET revision = 9",
    ],
)
async def test_damage_of_a_session_is_told_and_nothing_is_guessed(
    opens: Opens, tmp_path: Path, damage: str
) -> None:
    path = tmp_path / "t.db"
    store = (await opens(path)).store
    session = await make_session(store)
    new = new_thread("t1", session=session.key)
    new.begins_session, new.context_initial = True, "Speak French."
    await start(store, new, end_time=NOW)
    await store.close()
    execute(path, damage)

    again = (await opens(path)).store
    for read in (
        again.sessions.get(1, "s"),
        again.sessions.find(1, "mine"),
        again.sessions.list(1, limit=9),
        start(again, new_thread("t2", session=session.key)),
    ):
        with pytest.raises(Refused) as refused:
            await read
        assert refused.value.reason is Reason.RECORD_CORRUPT
    await again.close()
    with closing(open_inspection(path)) as inspection:
        assert any("sessions" in problem for problem in inspection.rows())


async def test_a_thread_is_about_the_object_that_it_was_made_for(opened: Opened) -> None:
    store = opened.store
    for name, parent in (("t1", "account/1"), ("t2", "account/12"), ("t3", "order/1"), ("t4", "")):
        new = new_thread(name)
        new.parent_object = parent
        await start(store, new)

    async def reached(*patterns: str) -> list[str]:
        page = await store.threads.list(ThreadQuery(1, object_patterns=patterns))
        return sorted(row.id for row in page.items)

    row = await store.threads.get(1, "t1")
    assert row is not None
    assert row.parent_object == "account/1"
    assert await reached() == ["t1", "t2", "t3", "t4"]
    assert await reached("account/1") == ["t1"]
    assert await reached("account/*") == ["t1", "t2"]
    assert await reached("account/12", "order/*") == ["t2", "t3"]
    assert await reached("invoice/*") == []


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE thread_objects SET parent_object = 'account/2'",
        "UPDATE thread_objects SET checksum = checksum + 1",
    ],
)
async def test_damage_of_a_threads_object_is_damage_of_the_thread(
    opens: Opens, tmp_path: Path, damage: str
) -> None:
    path = tmp_path / "t.db"
    store = (await opens(path)).store
    new = new_thread("t1")
    new.parent_object = "account/1"
    await start(store, new)
    await store.close()
    execute(path, damage)

    again = (await opens(path)).store
    with pytest.raises(Refused) as refused:
        await again.threads.get(1, "t1")

    assert refused.value.reason is Reason.RECORD_CORRUPT
    assert [row.damaged for row in (await again.threads.list(ThreadQuery(1))).items] == [True]
    await again.close()
    with closing(open_inspection(path)) as inspection:
        assert any("thread_objects" in problem for problem in inspection.rows())


async def test_the_object_of_a_thread_goes_with_it(opened: Opened) -> None:
    store = opened.store
    new = new_thread("t1")
    new.parent_object = "account/1"
    await start(store, new, end_time=NOW)
    row = await store.threads.get(1, "t1")
    assert row is not None

    await store.threads.delete(row, delete_time=NOW + 1)
    assert await store.housekeeping.purge_threads() == 1

    assert await store.readers.rows("SELECT count(*) FROM thread_objects") == [(0,)]


async def test_sessions_of_an_older_file_have_numbers_and_go_on(opens: Opens, tmp_path: Path) -> None:
    folder, path = tmp_path / "older", tmp_path / "t.db"
    folder.mkdir()
    for file in MIGRATIONS.glob("000[1-6]_*.sql"):
        shutil.copy(file, folder)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for pragma in ("page_size = 8192", "auto_vacuum = 2", f"application_id = {APPLICATION_ID}"):
            connection.execute(f"PRAGMA {pragma}")
        connection.execute("PRAGMA journal_mode = WAL")
        migrate(connection, path, folder)
        for number, (tenant, spoilt) in enumerate([(1, 0), (2, 0), (1, 0), (1, 1)], 1):
            values = (tenant, f"s{number}", f"k{number}", 1, "", NOW)
            connection.execute(
                "INSERT INTO sessions (tenant, id, session_key, agent, parent_object, create_time, checksum)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (*values, checksums.of_row(*values) + spoilt),
            )

    sessions: SqliteSessions = (await opens(path)).store.sessions

    found = [await sessions.get(tenant, name) for tenant, name in ((1, "s1"), (2, "s2"), (1, "s3"))]
    assert [row.number for row in found if row is not None] == [1, 1, 2]
    assert all(row is not None and row.begun and row.update_time == NOW for row in found)
    with pytest.raises(Refused):
        await sessions.get(1, "s4")
    assert (await sessions.create_if_absent(1, NewSession("s5", "k5", 1, "", NOW))).number == 4
