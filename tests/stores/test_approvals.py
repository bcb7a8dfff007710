"""Rows of approvals: they follow the units of their threads, and go with them."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.contract.units import COMPLETED, NOW, creation, projection, records
from tests.stores.kit import HandClock, Opened, Opens, execute
from treadle_server.core.kinds import ApprovalKind, ApprovalState
from treadle_server.ports.catalogue.approvals import ApprovalQuery, ApprovalRow
from treadle_server.ports.log import ApprovalChange, Conflict, ThreadKey, Unit
from treadle_server.stores.sqlite.approvals import query_of
from treadle_server.stores.sqlite.expiry import DELETE_APPROVALS
from treadle_server.stores.sqlite.store import SqliteStore

PENDING = ApprovalState.PENDING
WAITING = frozenset({int(PENDING)})


def asked(approval_id: str = "a", body: bytes = b"asked.") -> ApprovalChange:
    return ApprovalChange(approval_id, body, PENDING, ApprovalKind.TOOL_CALL, NOW)


def voted(approval_id: str = "a") -> ApprovalChange:
    return ApprovalChange(approval_id, b"voted.", 0)


def decided(approval_id: str = "a", state: ApprovalState = ApprovalState.APPROVED) -> ApprovalChange:
    return ApprovalChange(approval_id, b"decided.", state)


async def make(
    store: SqliteStore, thread_id: str = "t", *changes: ApprovalChange, tenant: int = 1
) -> ThreadKey:
    key = ThreadKey(tenant, store.log.allocate_thread())
    unit = creation(key, "created", thread_id=thread_id)
    unit.approvals.extend(changes or (asked(),))
    await store.log.submit(unit).wait()
    return key


async def append(store: SqliteStore, key: ThreadKey, expected: int, *changes: ApprovalChange) -> None:
    await store.log.submit(Unit(key, expected, records("more"), projection(), approvals=list(changes))).wait()


async def listed(store: SqliteStore, **fields: object) -> list[str]:
    query = ApprovalQuery(**{"tenant": 1, **fields})  # type: ignore[arg-type]
    return [row.id for row in (await store.approvals.list(query)).items]


async def test_a_row_is_what_its_changes_make_of_it_one_after_another(opened: Opened) -> None:
    store = opened.store
    key = await make(store)

    first = await store.approvals.get(1, "t", "a")
    await append(store, key, 1, voted())
    second = await store.approvals.get(1, "t", "a")
    await append(store, key, 2, voted(), decided())
    third = await store.approvals.get(1, "t", "a")

    assert first == ApprovalRow(
        1, key, "t", "a", ApprovalKind.TOOL_CALL, PENDING, NOW, b"asked.", damaged=False
    )
    assert second is not None
    assert (second.body, second.state) == (b"asked.voted.", PENDING)
    assert third is not None
    assert (third.body, third.state) == (b"asked.voted.voted.decided.", ApprovalState.APPROVED)


async def test_a_unit_that_is_refused_changes_no_approval(opened: Opened) -> None:
    key = await make(opened.store)

    with pytest.raises(Conflict):
        await append(opened.store, key, 5, decided(), asked("b"))

    assert await listed(opened.store, states=WAITING) == ["a"]


async def test_an_approval_that_is_asked_for_again_begins_anew(opened: Opened) -> None:
    key = await make(opened.store)
    await append(opened.store, key, 1, decided(), asked(body=b"again."))

    row = await opened.store.approvals.get(1, "t", "a")

    assert row is not None
    assert (row.body, row.state) == (b"again.", PENDING)


async def test_a_change_of_what_is_not_there_changes_nothing(opened: Opened) -> None:
    key = await make(opened.store)

    await append(opened.store, key, 1, decided("other"))

    assert await listed(opened.store) == ["a"]


async def test_lists_are_newest_first_by_state_kind_and_thread_and_in_pages(opened: Opened) -> None:
    store = opened.store
    key = await make(store, "t", asked("a"), asked("b"), asked("c"))
    await make(store, "other", asked("d"))
    await make(store, "foreign", asked("e"), tenant=2)
    await append(store, key, 1, decided("b"))

    page = await store.approvals.list(ApprovalQuery(1, limit=2))
    rest = await store.approvals.list(ApprovalQuery(1, limit=2, after=page.next))

    assert await listed(store) == ["d", "c", "b", "a"]
    assert [row.id for row in (*page.items, *rest.items)] == ["d", "c", "b", "a"]
    assert rest.next is None
    assert await listed(store, states=WAITING) == ["d", "c", "a"]
    assert await listed(store, states=frozenset()) == []
    assert await listed(store, thread=key.thread) == ["c", "b", "a"]
    assert await listed(store, kinds=frozenset({int(ApprovalKind.BUDGET)})) == []


async def plan_of(opened: Opened, sql: str, values: Sequence[int | str]) -> str:
    rows = await opened.store.readers.rows(f"EXPLAIN QUERY PLAN {sql}", tuple(values))
    return " ".join(str(row[-1]) for row in rows)


async def test_the_inbox_is_read_by_an_index_of_what_waits(opened: Opened) -> None:
    steps = await plan_of(opened, *query_of(ApprovalQuery(1, states=WAITING)))

    assert "approvals_pending" in steps
    assert "TEMP B-TREE" not in steps


async def test_no_other_approvals_of_the_tenant_are_looked_through_for_those_of_a_thread(
    opened: Opened,
) -> None:
    for states in (None, WAITING):
        steps = await plan_of(opened, *query_of(ApprovalQuery(1, states=states, thread=7)))
        assert "(thread=?)" in steps
        assert "tenant=?" not in steps

    steps = await plan_of(opened, DELETE_APPROVALS, (1, 7))
    assert "(thread=?)" in steps
    assert "tenant=?" not in steps


async def test_another_tenants_approval_is_not_found(opened: Opened) -> None:
    await make(opened.store)

    assert await opened.store.approvals.get(2, "t", "a") is None


@pytest.mark.parametrize(
    "damage", ["body = x'00'", "state = 2", "create_time = create_time + 1", "checksum = checksum + 1"]
)
async def test_a_damaged_row_is_told_and_never_mended_by_a_change(
    opens: Opens, path: Path, damage: str
) -> None:
    first = await opens(path)
    key = await make(first.store)
    await first.store.close()
    execute(path, f"UPDATE approvals SET {damage}")
    store = (await opens(path)).store

    before = await store.approvals.get(1, "t", "a")
    await append(store, key, 1, decided())
    after = await store.approvals.get(1, "t", "a")

    assert before is not None
    assert before.damaged
    assert after == before


async def test_what_waits_in_a_condemned_thread_is_cancelled(opened: Opened) -> None:
    key = await make(opened.store, "t", asked("a"), asked("b"))
    await append(opened.store, key, 1, decided("b"))

    await opened.store.threads.condemn(key, stop_reason=23, now=NOW)

    rows = (await opened.store.approvals.list(ApprovalQuery(1))).items
    assert [(row.id, row.state, row.damaged) for row in rows] == [
        ("b", ApprovalState.APPROVED, False),
        ("a", ApprovalState.CANCELLED, False),
    ]


async def test_approvals_are_hidden_and_purged_with_their_thread(
    opened: Opened, path: Path, clock: HandClock
) -> None:
    store = opened.store
    key = await make(store, "t", *(asked(f"a{number}") for number in range(100)))
    end = projection(COMPLETED)
    end.end_time, end.summary = NOW, b"summary"
    await store.log.submit(Unit(key, 1, records("ended"), end)).wait()
    await make(store, "other", asked("kept"))
    row = await store.threads.get(1, "t")
    assert row is not None
    await store.threads.delete(row, delete_time=NOW)
    assert await listed(store) == ["kept"]
    assert await store.approvals.get(1, "t", "a1") is None

    while await store.housekeeping.purge_threads():
        pass

    assert execute(path, "SELECT id FROM approvals") == [("kept",)]
