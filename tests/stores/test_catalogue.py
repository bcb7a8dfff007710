"""Agents, sessions, tenants, keys, notes, and what housekeeping forgets."""

import asyncio

import pytest

from tests.contract.units import DAY_MICROS, NOW, request
from tests.stores.kit import Gate, HandClock, Opened
from treadle_server.core.errors import Reason, Refused
from treadle_server.ports.catalogue.agents import AgentRow
from treadle_server.ports.catalogue.keys import NewApiKey
from treadle_server.ports.log import NewSession, Replayed
from treadle_server.stores.sqlite.store import SqliteStore


async def _agent(store: SqliteStore, agent_id: str = "a", tenant: int = 1) -> AgentRow:
    return await store.agents.create(
        tenant, agent_id, body=b"body 1", version_body=b"version 1", create_time=NOW
    )


def _session(session_id: str, session_key: str = "") -> NewSession:
    return NewSession(session_id, session_key, agent=1, parent_object="order/1", create_time=NOW)


async def test_an_agent_is_made_with_its_first_version(opened: Opened) -> None:
    agents = opened.store.agents
    row = await _agent(opened.store)

    version = await agents.get_version(row.key, 1)

    assert row == AgentRow(row.key, 1, "a", 1, 1, b"body 1", NOW, NOW, None, None)
    assert await agents.get(1, "a") == await agents.get_by_key(1, row.key) == row
    assert version is not None
    assert (version.version, version.body, version.create_time) == (1, b"version 1", NOW)
    assert await agents.get(2, "a") is None
    assert await agents.get_by_key(2, row.key) is None
    assert await agents.get_version(row.key, 2) is None


async def test_an_agents_id_is_taken_once_in_a_tenant(opened: Opened) -> None:
    await _agent(opened.store)
    await _agent(opened.store, tenant=2)

    with pytest.raises(Refused) as refused:
        await _agent(opened.store)

    assert refused.value.reason is Reason.RESOURCE_EXISTS
    assert refused.value.resource == ("treadle.dev/Agent", "agents/a")


async def test_an_update_makes_a_version_only_when_asked(opened: Opened) -> None:
    agents = opened.store.agents
    first = await _agent(opened.store)

    renamed = await agents.update(first, body=b"body 2", version_body=None, update_time=NOW + 1)
    changed = await agents.update(renamed, body=b"body 3", version_body=b"version 2", update_time=NOW + 2)

    assert (renamed.version, renamed.revision, renamed.body) == (1, 2, b"body 2")
    assert (changed.version, changed.revision, changed.body, changed.update_time) == (
        2,
        3,
        b"body 3",
        NOW + 2,
    )
    page = await agents.list_versions(first.key, limit=10)
    assert [(row.version, row.body) for row in page.items] == [(2, b"version 2"), (1, b"version 1")]


async def test_of_two_updates_of_one_revision_the_second_is_refused_whole(opened: Opened) -> None:
    agents = opened.store.agents
    row = await _agent(opened.store)

    updates = (
        agents.update(row, body=body, version_body=body, update_time=NOW + 1)
        for body in (b"first", b"second")
    )
    outcomes = await asyncio.gather(*updates, return_exceptions=True)

    assert isinstance(outcomes[1], Refused)
    assert outcomes[1].reason is Reason.ETAG_MISMATCH
    stored = await agents.get(1, "a")
    assert stored is not None
    assert stored.body == b"first"
    assert len((await agents.list_versions(row.key, limit=10)).items) == 2


async def test_a_deleted_agent_can_be_brought_back(opened: Opened) -> None:
    agents = opened.store.agents
    row = await _agent(opened.store)

    deleted = await agents.delete(row, delete_time=NOW + 1, purge_time=NOW + DAY_MICROS)
    listed = [len((await agents.list(1, limit=9, show_deleted=show)).items) for show in (False, True)]
    with pytest.raises(Refused) as refused:
        await agents.update(deleted, body=b"x", version_body=None, update_time=NOW + 2)
    restored = await agents.undelete(deleted, update_time=NOW + 3)

    assert (deleted.delete_time, deleted.purge_time) == (NOW + 1, NOW + DAY_MICROS)
    assert listed == [0, 1]
    assert refused.value.reason is Reason.ETAG_MISMATCH
    assert (restored.delete_time, restored.purge_time, restored.body) == (None, None, b"body 1")
    assert len((await agents.list(1, limit=9)).items) == 1


async def test_a_purged_agent_is_gone_and_its_id_stays_taken(opened: Opened) -> None:
    store = opened.store
    row = await _agent(store)
    await _agent(store, "kept")
    await store.agents.delete(row, delete_time=NOW, purge_time=NOW + 5)

    assert await store.housekeeping.purge_agents(NOW + 4) == 0
    assert await store.housekeeping.purge_agents(NOW + 5) == 1

    assert await store.agents.get(1, "a") is None
    assert await store.agents.get_version(row.key, 1) is None
    assert [one.id for one in (await store.agents.list(1, limit=9, show_deleted=True)).items] == ["kept"]
    with pytest.raises(Refused):
        await _agent(store)


async def test_lists_come_in_pages_with_the_newest_first(opened: Opened) -> None:
    agents = opened.store.agents
    for number in range(5):
        await _agent(opened.store, f"a{number}")

    first = await agents.list(1, limit=2)
    second = await agents.list(1, limit=2, after=first.next)
    third = await agents.list(1, limit=2, after=second.next)

    names = [[row.id for row in page.items] for page in (first, second, third)]
    assert names == [["a4", "a3"], ["a2", "a1"], ["a0"]]
    assert third.next is None


async def test_a_page_that_is_just_full_is_the_last_when_nothing_follows(opened: Opened) -> None:
    for number in range(2):
        await _agent(opened.store, f"a{number}")

    assert (await opened.store.agents.list(1, limit=2)).next is None


async def test_a_mutation_is_remembered_by_its_request_id(opened: Opened) -> None:
    agents = opened.store.agents
    row = await _agent(opened.store)
    asked = request()
    await agents.update(row, body=b"new", version_body=None, update_time=NOW, request=asked)

    with pytest.raises(Replayed) as replayed:  # and not that the revision is another
        await agents.update(row, body=b"new", version_body=None, update_time=NOW, request=asked)
    with pytest.raises(Refused) as refused:
        await agents.update(row, body=b"x", version_body=None, update_time=NOW, request=request(digest=b"x"))

    assert replayed.value.response == b"answer"
    assert refused.value.reason is Reason.REQUEST_ID_REUSED


async def test_a_refused_mutation_leaves_its_request_id_free(opened: Opened) -> None:
    row = await _agent(opened.store)
    with pytest.raises(Refused):
        await opened.store.agents.create(
            1, "a", body=b"", version_body=b"", create_time=NOW, request=request()
        )

    await opened.store.agents.update(row, body=b"x", version_body=None, update_time=NOW, request=request())

    assert await opened.store.requests.find(1, "r1", now=NOW) == request()


async def test_a_session_is_made_once_for_its_key(opened: Opened) -> None:
    sessions = opened.store.sessions

    rows = await asyncio.gather(
        *(sessions.create_if_absent(1, _session(f"s{number}", "mine")) for number in range(5))
    )

    assert {row.id for row in rows} == {"s0"}
    assert await sessions.find(1, "mine") == await sessions.get(1, "s0") == rows[0]
    assert rows[0].active_thread == 0
    assert await sessions.find(2, "mine") is None
    assert await sessions.find(1, "") is None
    assert await sessions.get(1, "s1") is None


async def test_sessions_without_a_key_are_all_different(opened: Opened) -> None:
    sessions = opened.store.sessions
    first = await sessions.create_if_absent(1, _session("s1"))
    second = await sessions.create_if_absent(1, _session("s2"))

    assert first.key != second.key
    page = await sessions.list(1, limit=1)
    assert [row.id for row in page.items] == ["s2"]
    assert [row.id for row in (await sessions.list(1, limit=1, after=page.next)).items] == ["s1"]


@pytest.mark.parametrize("session_key", ["", "another"])
async def test_a_sessions_id_is_taken_once(opened: Opened, session_key: str) -> None:
    sessions = opened.store.sessions
    await sessions.create_if_absent(1, _session("s", "mine"))

    with pytest.raises(Refused) as refused:
        await sessions.create_if_absent(1, _session("s", session_key))

    assert refused.value.reason is Reason.RESOURCE_EXISTS
    assert await sessions.find(1, "another") is None


async def test_a_tenant_is_made_once(opened: Opened) -> None:
    tenants = opened.store.tenants

    rows = await asyncio.gather(*(tenants.get_or_create("default", create_time=NOW) for _ in range(5)))

    assert len({row.key for row in rows}) == 1
    assert await tenants.find("default") == rows[0]
    assert await tenants.find("other") is None


def _key(key_id: str, prefix: str) -> NewApiKey:
    return NewApiKey(1, key_id, "robot", True, prefix, b"\x00hash", "a robot", NOW, expire_time=NOW + 1)


async def test_a_key_is_found_by_its_prefix_until_it_is_deleted(opened: Opened) -> None:
    keys = opened.store.api_keys
    row = await keys.create(_key("k1", "tr_1"))
    await keys.create(_key("k2", "tr_2"))

    found = await keys.find_by_prefix("tr_1")
    await keys.delete(row, delete_time=NOW)
    await keys.delete(row, delete_time=NOW + 1)

    assert found == row
    assert (row.principal, row.admin, row.secret_hash, row.expire_time) == (
        "robot",
        True,
        b"\x00hash",
        NOW + 1,
    )
    assert await keys.find_by_prefix("tr_1") is None
    assert await keys.get(1, "k1") is None
    assert [one.id for one in (await keys.list(1, limit=9)).items] == ["k2"]
    with pytest.raises(Refused):
        await keys.create(_key("k1", "tr_3"))


async def test_notes_are_kept_by_tenant_and_scope(opened: Opened) -> None:
    notes = opened.store.notes
    await notes.put(1, "s", "b", "old")
    await notes.put(1, "s", "b", "new")
    await notes.put(1, "s", "a", "")
    await notes.put(1, "other", "c", "x")

    assert await notes.get(1, "s", "b") == "new"
    assert await notes.get(1, "s", "a") == ""
    assert await notes.get(1, "s", "c") is None
    assert await notes.get(2, "s", "b") is None
    assert await notes.keys(1, "s") == ["a", "b"]


async def test_a_scope_has_room_for_a_thousand_notes(opened: Opened) -> None:
    notes = opened.store.notes
    await asyncio.gather(*(notes.put(1, "s", f"k{number}", "x") for number in range(1000)))

    with pytest.raises(Refused, match="1000"):
        await notes.put(1, "s", "one more", "x")
    await notes.put(1, "s", "k5", "changed")
    await notes.put(1, "other", "one more", "x")

    assert await notes.get(1, "s", "k5") == "changed"
    assert len(await notes.keys(1, "s")) == 1000


@pytest.mark.parametrize(("key", "text"), [("k", "é" * 8193), ("k" * 513, "x")])
async def test_notes_have_a_size(opened: Opened, key: str, text: str) -> None:
    with pytest.raises(Refused) as refused:
        await opened.store.notes.put(1, "s", key, text)

    assert refused.value.reason is Reason.REQUEST_TOO_LARGE
    await opened.store.notes.put(1, "s", "k", "é" * 8192)


async def test_expired_request_ids_are_forgotten_in_small_steps(opened: Opened, clock: HandClock) -> None:
    store = opened.store
    row = await _agent(store)
    for number in range(450):
        row = await store.agents.update(
            row,
            body=b"x",
            version_body=None,
            update_time=NOW,
            request=request(f"r{number}", expire_time=NOW + number),
        )

    forgotten = await store.housekeeping.forget_requests(NOW + 430)

    assert forgotten == 431
    assert await store.readers.rows("SELECT count(*) FROM request_ids") == [(19,)]
    assert await store.housekeeping.forget_requests(NOW + 430) == 0


async def test_a_cancelled_mutation_still_happens(opened: Opened) -> None:
    store = opened.store
    gate = Gate()
    await gate.hold(store)
    creating = asyncio.ensure_future(_agent(store))
    await asyncio.sleep(0)
    creating.cancel()
    await asyncio.gather(creating, return_exceptions=True)

    gate.opening.set()
    await _agent(store, "after")

    assert await store.agents.get(1, "a") is not None
