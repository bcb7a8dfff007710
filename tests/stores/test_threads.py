"""Rows of threads: found, filtered in full pages, changed, deleted, purged."""

import json
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.contract.units import (
    COMPLETED,
    NOW,
    bodies,
    create,
    creation,
    new_thread,
    projection,
    records,
    request,
)
from tests.stores.kit import Opened, open_store
from treadle_server.core.errors import Reason, Refused
from treadle_server.ports.catalogue.pages import Page
from treadle_server.ports.catalogue.thread_queries import (
    Condition,
    Operator,
    ThreadColumn,
    ThreadOrder,
    ThreadQuery,
)
from treadle_server.ports.catalogue.threads import ThreadRow, Wake
from treadle_server.ports.log import Conflict, NewSession, Replayed, ThreadKey, Unit
from treadle_server.stores.sqlite.append import details_of
from treadle_server.stores.sqlite.database import open_database
from treadle_server.stores.sqlite.store import SqliteStore
from treadle_server.stores.sqlite.thread_queries import keys_of_page

EQUAL, HAS, IN = Operator.EQUAL, Operator.HAS, Operator.IN


async def _create(
    store: SqliteStore,
    thread_id: str,
    *,
    state: int = 2,
    tags: tuple[str, ...] = (),
    labels: dict[str, str] | None = None,
    create_time: int = NOW,
    wake_at: int | None = None,
    cost_micros: int = 4,
) -> ThreadRow:
    key = ThreadKey(1, store.log.allocate_thread())
    new = new_thread(thread_id, tags=tags, labels=labels, create_time=create_time, client_metadata=b"meta")
    new.subject_type, new.subject_id, new.trigger_type, new.triggered_by = "order", thread_id, 4, "someone"
    begun = projection(state, wake_at=wake_at)
    begun.cost_micros = cost_micros
    await store.log.submit(Unit(key, 0, records("created", "more"), begun, new)).wait()
    row = await store.threads.get(1, thread_id)
    assert row is not None
    return row


async def _ids(
    store: SqliteStore, *conditions: Condition, order_by: ThreadOrder = ThreadOrder.CREATE_TIME
) -> list[str]:
    page = await store.threads.list(ThreadQuery(1, conditions, order_by=order_by))
    return [row.id for row in page.items]


async def test_a_thread_is_found_by_id_and_by_key_as_it_was_made(opened: Opened) -> None:
    store = opened.store
    agent = await store.agents.create(1, "helper", body=b"b", version_body=b"v", create_time=NOW)
    session = await store.sessions.create_if_absent(1, NewSession("s", "mine", agent.key, "", NOW))
    key = ThreadKey(1, store.log.allocate_thread())
    unit = creation(key, "created", thread_id="t", session=session.key)
    assert unit.new_thread is not None
    unit.new_thread.agent = agent.key
    unit.new_thread.tags, unit.new_thread.labels = ("b", "a"), {"color": "röt"}
    await store.log.submit(unit).wait()

    row = await store.threads.get(1, "t")

    assert row is not None
    assert row == await store.threads.get_by_key(key)
    assert (row.key, row.agent_id, row.session_id, row.sequence) == (key, "helper", "s", 1)
    assert (row.tags, row.labels, row.summary) == (("b", "a"), {"color": "röt"}, None)
    assert (row.spec_digest, row.create_time, row.revision) == (b"digest", NOW, 1)
    assert await store.threads.spec(1, b"digest") == b"spec"
    active = await store.sessions.get_by_key(1, session.key)
    assert active is not None
    assert active.active_thread == key.thread


async def test_what_is_not_there_or_another_tenants_is_not_found(opened: Opened) -> None:
    row = await _create(opened.store, "t")
    threads = opened.store.threads

    assert await threads.get(1, "other") is None
    assert await threads.get(2, "t") is None
    assert await threads.get_by_key(ThreadKey(2, row.key.thread)) is None
    assert await threads.spec(2, b"digest") is None
    assert await threads.list(ThreadQuery(2)) == Page((), None)


async def test_filters_take_exactly_what_fits(opened: Opened) -> None:
    store = opened.store
    await _create(store, "a", state=2, tags=("x", "y"), labels={"k": "1"}, create_time=NOW + 1)
    await _create(store, "b", state=6, tags=("x",), labels={"k": "2", "l": "1"}, create_time=NOW + 2)
    await _create(store, "c", state=7, create_time=NOW + 3, cost_micros=90)
    column = ThreadColumn

    assert await _ids(store) == ["c", "b", "a"]
    assert await _ids(store, Condition(column.STATE, EQUAL, 6)) == ["b"]
    assert await _ids(store, Condition(column.STATE, IN, (6, 7))) == ["c", "b"]
    assert await _ids(store, Condition(column.STATE, Operator.NOT_EQUAL, 6)) == ["c", "a"]
    assert await _ids(store, Condition(column.CREATE_TIME, Operator.GREATER, NOW + 1)) == ["c", "b"]
    assert await _ids(store, Condition(column.COST_MICROS, Operator.LESS_OR_EQUAL, 89)) == ["b", "a"]
    assert await _ids(store, Condition(column.END_TIME, Operator.GREATER, 0)) == []
    assert await _ids(store, Condition(column.TAG, HAS, "x")) == ["b", "a"]
    assert await _ids(store, Condition(column.TAG, HAS, "x"), Condition(column.TAG, HAS, "y")) == ["a"]
    assert await _ids(store, Condition(column.LABEL, HAS, ("k", "2"))) == ["b"]
    assert await _ids(store, Condition(column.LABEL, HAS, "k")) == ["b", "a"]
    assert (
        await _ids(store, Condition(column.LABEL, HAS, ("k", "1")), Condition(column.STATE, EQUAL, 6)) == []
    )
    assert await _ids(store, Condition(column.SUBJECT_ID, EQUAL, "a")) == ["a"]
    assert await _ids(store, Condition(column.TRIGGERED_BY, EQUAL, "someone")) == ["c", "b", "a"]
    assert await _ids(store, Condition(column.TRIGGERED_BY, EQUAL, "x' OR 1=1 --")) == []
    assert await _ids(store, order_by=ThreadOrder.COST_MICROS) == ["c", "b", "a"]
    tagged = Condition(column.TAG, HAS, "x")
    assert await _ids(store, tagged, order_by=ThreadOrder.STATE_TIME) == ["b", "a"]


@pytest.mark.parametrize(
    "condition",
    [
        Condition(ThreadColumn.STATE, EQUAL, "RUNNING"),
        Condition(ThreadColumn.STATE, HAS, 1),
        Condition(ThreadColumn.STATE, IN, 1),
        Condition(ThreadColumn.STATE, EQUAL, (1, 2)),
        Condition(ThreadColumn.STATE, IN, ()),
        Condition(ThreadColumn.STATE, IN, tuple(range(101))),
        Condition(ThreadColumn.SUBJECT_ID, EQUAL, 1),
        Condition(ThreadColumn.TAG, EQUAL, "x"),
        Condition(ThreadColumn.TAG, HAS, ("x", "y")),
        Condition(ThreadColumn.LABEL, HAS, ("x", "y", "z")),
    ],
)
async def test_a_condition_that_its_column_does_not_have_is_refused(
    opened: Opened, condition: Condition
) -> None:
    with pytest.raises(ValueError, match="cannot be compared"):
        await opened.store.threads.list(ThreadQuery(1, (condition,)))


@pytest.mark.parametrize("order_by", list(ThreadOrder))
@pytest.mark.parametrize("descending", [True, False])
async def test_pages_cover_all_rows_once_whatever_the_order(
    opened: Opened, order_by: ThreadOrder, descending: bool
) -> None:
    store = opened.store
    for number in range(7):  # many of equal value
        await _create(store, f"t{number}", create_time=NOW + number // 3, cost_micros=number % 2)
    found: list[str] = []
    sizes: list[int] = []
    after = None
    while True:
        query = ThreadQuery(1, order_by=order_by, descending=descending, after=after, limit=3)
        page = await store.threads.list(query)
        found += [row.id for row in page.items]
        sizes.append(len(page.items))
        after = page.next
        if after is None:
            break

    assert sorted(found) == [f"t{number}" for number in range(7)]
    assert sizes == [3, 3, 1]


async def test_a_page_that_is_just_full_is_the_last_when_nothing_follows(opened: Opened) -> None:
    for number in range(2):
        await _create(opened.store, f"t{number}")

    assert (await opened.store.threads.list(ThreadQuery(1, limit=2))).next is None
    assert (await opened.store.threads.list(ThreadQuery(1, limit=1))).next is not None


COUNT = 100_000
ONE_IN = 1000


def _fill(connection: sqlite3.Connection) -> None:
    """One thread in a thousand differs from the others in everything that a filter can ask for."""
    numbers = range(1, COUNT + 1)

    def rare(number: int) -> bool:
        return number % ONE_IN == 7

    one, another = (details_of([word], {"kind": word}, b"", b"digest", "") for word in ("rare", "common"))
    connection.execute("BEGIN")
    connection.executemany(
        "INSERT INTO threads (thread, tenant, id, agent, version, session, state, stop_reason, sequence,"
        "epoch, create_time, state_time, iteration_count, tool_call_count, total_tokens, cost_micros,"
        "subject_type, subject_id, trigger_type)"
        "VALUES (?1, 1, 't' || ?1, 1, 1, ?2, ?3, 0, 1, 1, ?1, ?1, 0, 0, 0, 0, '', NULL, 4)",
        [(number, *((7, 7) if rare(number) else (1, 6))) for number in numbers],
    )
    connection.executemany(
        "INSERT INTO thread_details"
        " (thread, spec_digest, triggered_by, tags, labels, client_metadata, checksum)"
        "VALUES (?, ?, ?, ?, ?, ?, ?)",
        [(number, *(one if rare(number) else another)) for number in numbers],
    )
    connection.execute(
        "INSERT INTO thread_tags SELECT 1, json_extract(tags, '$[0]'), t.create_time, thread "
        "FROM thread_details JOIN threads t USING (thread)"
    )
    connection.execute(
        "INSERT INTO thread_labels SELECT 1, 'kind', json_extract(labels, '$.kind'), t.create_time, thread "
        "FROM thread_details JOIN threads t USING (thread)"
    )
    connection.execute("COMMIT")


@pytest.fixture(scope="module")
def large_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("large") / "t.db"
    database = open_database(path)
    _fill(database.connection)
    database.close()
    return path


@pytest.fixture
async def large(large_path: Path) -> AsyncIterator[SqliteStore]:
    opened = await open_store(large_path)
    yield opened.store
    await opened.store.close()


_RARE = {
    "agent and state": (
        (Condition(ThreadColumn.AGENT, EQUAL, 1), Condition(ThreadColumn.STATE, EQUAL, 7)),
        "threads_by_agent_state",
    ),
    "state": ((Condition(ThreadColumn.STATE, EQUAL, 7),), "threads_by_state"),
    "tag": ((Condition(ThreadColumn.TAG, HAS, "rare"),), "PRIMARY KEY"),
    "label": ((Condition(ThreadColumn.LABEL, HAS, ("kind", "rare")),), "PRIMARY KEY"),
    "session": ((Condition(ThreadColumn.SESSION, EQUAL, 7),), "threads_by_session"),
    "session and tag": (
        (Condition(ThreadColumn.SESSION, EQUAL, 7), Condition(ThreadColumn.TAG, HAS, "rare")),
        "threads_by_session",
    ),
}


@pytest.mark.parametrize("name", list(_RARE))
async def test_pages_of_a_rare_match_are_full_and_follow_an_index(large: SqliteStore, name: str) -> None:
    conditions, index = _RARE[name]
    pages: list[Page[ThreadRow]] = []
    after = None
    while not pages or after is not None:
        query = ThreadQuery(1, conditions, after=after, limit=30)
        pages.append(await large.threads.list(query))
        after = pages[-1].next

    sql, values = keys_of_page(query)
    plan = [row[3] for row in await large.readers.rows(f"EXPLAIN QUERY PLAN {sql}", values)]
    assert [len(page.items) for page in pages] == [30, 30, 30, 10]
    found = [row.key.thread for page in pages for row in page.items]
    assert found == [number for number in range(COUNT, 0, -1) if number % ONE_IN == 7]
    assert plan[0].startswith("SEARCH"), plan
    assert index in plan[0], plan
    assert not [line for line in plan if line.startswith("SCAN") or "TEMP B-TREE" in line], plan


@pytest.mark.parametrize(
    ("query", "index"),
    [
        (ThreadQuery(1), "threads_by_create_time"),
        (ThreadQuery(1, order_by=ThreadOrder.STATE_TIME), "threads_by_state_time"),
        (ThreadQuery(1, (Condition(ThreadColumn.AGENT, EQUAL, 1),)), "threads_by_agent"),
        (
            ThreadQuery(
                1,
                (
                    Condition(ThreadColumn.SUBJECT_TYPE, EQUAL, "order"),
                    Condition(ThreadColumn.SUBJECT_ID, EQUAL, "7"),
                ),
            ),
            "threads_by_subject",
        ),
    ],
)
async def test_common_lists_follow_an_index_without_sorting(
    large: SqliteStore, query: ThreadQuery, index: str
) -> None:
    sql, values = keys_of_page(query)
    plan = [row[3] for row in await large.readers.rows(f"EXPLAIN QUERY PLAN {sql}", values)]

    assert len(plan) == 1, plan
    assert f"INDEX {index} " in plan[0], plan


async def test_threads_about_a_few_objects_are_found_by_them(large: SqliteStore) -> None:
    sql, values = keys_of_page(ThreadQuery(1, object_patterns=("account/17", "account/18")))
    plan = " ".join(row[3] for row in await large.readers.rows(f"EXPLAIN QUERY PLAN {sql}", values))

    assert "thread_objects_by_object (tenant=? AND parent_object=?)" in plan


async def test_unfinished_threads_are_found_in_pages(opened: Opened) -> None:
    store = opened.store
    for number in range(7):
        await _create(store, f"t{number}", state=6 if number % 3 == 0 else 2)
    found: list[str] = []
    after = 0
    while page := await store.threads.unfinished(after=after, limit=2):
        found += [row.id for row in page]
        after = page[-1].key.thread

    assert found == ["t1", "t2", "t4", "t5"]


async def test_threads_are_woken_in_the_order_of_their_times(opened: Opened) -> None:
    store = opened.store
    late = await _create(store, "late", wake_at=NOW + 9)
    early = await _create(store, "early", wake_at=NOW + 1)
    same = await _create(store, "same", wake_at=NOW + 1)
    await _create(store, "never")

    first = await store.threads.wakes(until=NOW + 9, limit=2)
    rest = await store.threads.wakes(until=NOW + 9, limit=2, after=(first[-1].wake_at, first[-1].key.thread))

    assert first == [Wake(early.key, NOW + 1), Wake(same.key, NOW + 1)]
    assert rest == [Wake(late.key, NOW + 9)]
    assert await store.threads.wakes(until=NOW, limit=9) == []


async def test_an_update_replaces_tags_labels_and_metadata(opened: Opened) -> None:
    store = opened.store
    row = await _create(store, "t", tags=("old", "both"), labels={"k": "old", "gone": "1"})
    other = await _create(store, "other", tags=("old",), labels={"k": "old"})

    updated = await store.threads.update(
        row, tags=["both", "new"], labels={"k": "new"}, client_metadata=b"new"
    )

    assert (updated.tags, updated.labels, updated.client_metadata) == (("both", "new"), {"k": "new"}, b"new")
    assert (updated.revision, updated.triggered_by, updated.sequence) == (2, "someone", 2)
    assert await store.threads.get(1, "t") == updated
    for tag, expected in (("old", [other.id]), ("both", ["t"]), ("new", ["t"])):
        assert await _ids(store, Condition(ThreadColumn.TAG, HAS, tag)) == expected
    assert await _ids(store, Condition(ThreadColumn.LABEL, HAS, "gone")) == []
    assert await _ids(store, Condition(ThreadColumn.LABEL, HAS, ("k", "old"))) == ["other"]
    assert await _ids(store, Condition(ThreadColumn.LABEL, HAS, ("k", "new"))) == ["t"]


async def test_an_update_of_an_older_revision_is_refused(opened: Opened) -> None:
    store = opened.store
    row = await _create(store, "t", tags=("old",))
    await store.threads.update(row, tags=["first"], labels={}, client_metadata=b"", request=request())

    with pytest.raises(Refused) as refused:
        await store.threads.update(row, tags=["second"], labels={}, client_metadata=b"")
    with pytest.raises(Replayed):
        await store.threads.update(row, tags=["first"], labels={}, client_metadata=b"", request=request())

    assert refused.value.reason is Reason.ETAG_MISMATCH
    assert await _ids(store, Condition(ThreadColumn.TAG, HAS, "first")) == ["t"]
    assert await _ids(store, Condition(ThreadColumn.TAG, HAS, "second")) == []


async def test_a_thread_that_has_not_ended_is_not_deleted(opened: Opened) -> None:
    row = await _create(opened.store, "t", state=2, tags=("x",))

    with pytest.raises(Conflict):
        await opened.store.threads.delete(row, delete_time=NOW)

    assert await _ids(opened.store, Condition(ThreadColumn.TAG, HAS, "x")) == ["t"]


async def test_a_deleted_thread_is_hidden_at_once_and_its_id_stays_taken(opened: Opened) -> None:
    store = opened.store
    row = await _create(store, "t", state=6, tags=("x",), labels={"k": "v"})
    await store.threads.delete(row, delete_time=NOW)

    assert await store.threads.get(1, "t") is None
    assert await store.threads.get_by_key(row.key) is None
    assert await store.log.read(row.key, 0, 10) == []
    assert await _ids(store) == []
    assert await _ids(store, Condition(ThreadColumn.TAG, HAS, "x")) == []
    for purge in (False, True):
        if purge:
            assert await store.housekeeping.purge_threads() == 1
        with pytest.raises(Refused) as refused:
            await _create(store, "t")
        assert refused.value.reason is Reason.RESOURCE_EXISTS


async def test_purging_takes_the_log_of_deleted_threads_only(opened: Opened) -> None:
    store = opened.store
    long = ThreadKey(1, store.log.allocate_thread())
    await store.log.submit(creation(long, *["x"] * 1001, thread_id="long", state=6)).wait()
    row = await store.threads.get_by_key(long)
    assert row is not None
    kept = await _create(store, "kept", state=6)
    await store.threads.delete(row, delete_time=NOW)

    assert await store.housekeeping.purge_threads() == 1
    assert await store.housekeeping.purge_threads() == 0

    count = "SELECT count(*) FROM {} WHERE thread = ?"
    for table, left in (("events", 0), ("thread_details", 0), ("thread_tags", 0), ("threads", 1)):
        assert await store.readers.rows(count.format(table), (long.thread,)) == [(left,)]
    assert await bodies(store.log, kept.key) == ["created", "more"]


async def test_pages_that_nothing_uses_go_back_to_the_disk(opened: Opened) -> None:
    store = opened.store
    key = ThreadKey(1, store.log.allocate_thread())
    await store.log.submit(creation(key, *["x" * 1000] * 3000, thread_id="large", state=6)).wait()
    row = await store.threads.get_by_key(key)
    assert row is not None
    await store.threads.delete(row, delete_time=NOW)
    await store.housekeeping.purge_threads()
    ((before,),) = await store.readers.rows("PRAGMA page_count")

    reclaimed = await store.housekeeping.reclaim()

    ((after,),) = await store.readers.rows("PRAGMA page_count")
    assert reclaimed > 300
    assert after <= before - reclaimed
    assert await store.housekeeping.reclaim() == 0


async def test_the_order_of_all_commits_is_one_tenants(opened: Opened) -> None:
    store = opened.store
    mine = await _create(store, "mine")
    other = ThreadKey(2, store.log.allocate_thread())
    await store.log.submit(creation(other, "other")).wait()
    await store.log.submit(Unit(mine.key, 2, records("third"))).wait()

    page = await store.commits.read(1, after=0, limit=10)
    first = await store.commits.read(1, after=0, limit=1)
    rest = await store.commits.read(1, after=first.position, limit=10)
    end = await store.commits.read(1, after=page.position, limit=10)

    assert [(row.thread_id, row.first, row.last) for row in page.items] == [("mine", 1, 2), ("mine", 3, 3)]
    assert page.position == await store.commits.last_position() == 3
    assert first.items + rest.items == page.items
    assert (end.items, end.position) == ((), 3)


def test_details_are_stored_as_json_text() -> None:
    digest, principal, tags, labels, metadata, _ = details_of(["a", "é"], {"k": "v"}, b"m", b"d", "p")

    assert (digest, principal, metadata) == (b"d", "p", b"m")
    assert (json.loads(tags), json.loads(labels)) == (["a", "é"], {"k": "v"})


async def test_a_condemned_thread_has_ended_by_its_row_and_frees_its_session(opened: Opened) -> None:
    store = opened.store
    session = (await store.sessions.create_if_absent(1, NewSession("s", "", 1, "", NOW))).key
    key = ThreadKey(1, store.log.allocate_thread())
    await store.log.submit(creation(key, "a", "b", thread_id="t", session=session)).wait()

    await store.threads.condemn(key, stop_reason=23, now=NOW + 5)

    row = await store.threads.get(1, "t")
    assert row is not None
    assert (row.state, row.stop_reason, row.end_time, row.state_time) == (7, 23, NOW + 5, NOW + 5)
    assert (row.sequence, row.wake_at, row.summary) == (2, None, None)
    left = await store.sessions.get(1, "s")
    assert left is not None
    assert left.active_thread == 0
    assert await store.threads.unfinished(after=0, limit=10) == []


async def test_a_condemned_thread_can_be_deleted(opened: Opened) -> None:
    store = opened.store
    key = await create(store.log, "a")
    await store.threads.condemn(key, stop_reason=23, now=NOW)
    row = await store.threads.get_by_key(key)
    assert row is not None

    await store.threads.delete(row, delete_time=NOW + 1)

    assert await store.threads.get_by_key(key) is None


async def test_a_thread_that_has_ended_is_not_condemned(opened: Opened) -> None:
    store = opened.store
    key = ThreadKey(1, store.log.allocate_thread())
    await store.log.submit(creation(key, "a", state=COMPLETED)).wait()

    await store.threads.condemn(key, stop_reason=23, now=NOW + 5)

    row = await store.threads.get_by_key(key)
    assert row is not None
    assert (row.state, row.stop_reason, row.end_time) == (COMPLETED, 0, None)
