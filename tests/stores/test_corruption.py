"""Damage on the disk is read as damage: never as data, and never as the end of a log."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.contract.units import NOW, creation, new_thread, projection, records
from tests.stores.kit import Opened, Opens, execute, flip_bit
from treadle_server.core.errors import Reason, Refused
from treadle_server.ports.catalogue.keys import NewApiKey
from treadle_server.ports.catalogue.thread_queries import (
    Condition,
    Operator,
    ThreadColumn,
    ThreadOrder,
    ThreadQuery,
)
from treadle_server.ports.log import Record, ThreadKey, Unit
from treadle_server.stores.sqlite.store import SqliteStore

BODY = b"the body of the second record"
PRIVATE = b"what the provider said verbatim"


async def _damaged(opens: Opens, path: Path, damage: Callable[[], object]) -> tuple[Opened, ThreadKey]:
    """A store whose thread of three records met with damage while nobody had it open."""
    opened = await opens(path)
    key = ThreadKey(1, opened.store.log.allocate_thread())
    three = [Record(1, b"first"), Record(2, BODY, PRIVATE), Record(3, b"third")]
    await opened.store.log.submit(Unit(key, 0, three, projection(), new_thread("t"))).wait()
    other = ThreadKey(1, opened.store.log.allocate_thread())
    await opened.store.log.submit(creation(other, "whole", "too", thread_id="other")).wait()
    await opened.store.close()
    damage()
    return await opens(path), key


def _sql(path: Path, sql: str) -> Callable[[], object]:
    return lambda: execute(path, sql)


_DAMAGE: dict[str, Callable[[Path], Callable[[], object]]] = {
    "a bit of the body": lambda path: lambda: flip_bit(path, BODY),
    "a bit of the private part": lambda path: lambda: flip_bit(path, PRIVATE),
    "another kind": lambda path: _sql(path, "UPDATE events SET kind = 9 WHERE thread = 1 AND sequence = 2"),
    "no private part": lambda path: _sql(path, "UPDATE events SET private = NULL WHERE sequence = 2"),
    "another checksum": lambda path: _sql(
        path, "UPDATE events SET checksum = 1 WHERE thread = 1 AND sequence = 2"
    ),
    "a hole": lambda path: _sql(path, "DELETE FROM events WHERE thread = 1 AND sequence = 2"),
    "a body in another's place": lambda path: _sql(
        path,
        "UPDATE events SET (kind, body, private, checksum) = (SELECT kind, body, private, checksum "
        "FROM events WHERE thread = 1 AND sequence = 1) WHERE thread = 1 AND sequence = 2",
    ),
}


@pytest.mark.parametrize("damage", list(_DAMAGE))
async def test_a_damaged_record_is_refused_and_named(opens: Opens, path: Path, damage: str) -> None:
    opened, key = await _damaged(opens, path, _DAMAGE[damage](path))

    with pytest.raises(Refused) as refused:
        await opened.store.log.read(key, 0, 10)
    before = await opened.store.log.read(key, 0, 1)
    beyond = await opened.store.log.read(key, 2, 10)
    other = await opened.store.log.read(ThreadKey(1, key.thread + 1), 0, 10)
    await opened.store.close()

    assert refused.value.reason is Reason.RECORD_CORRUPT
    assert refused.value.metadata == {"thread": "1", "sequence": "2"}
    assert [one.record.body for one in before + beyond] == [b"first", b"third"]
    assert len(other) == 2


async def test_lost_last_records_are_not_taken_for_the_end(opens: Opens, path: Path) -> None:
    opened, key = await _damaged(
        opens, path, _sql(path, "DELETE FROM events WHERE thread = 1 AND sequence > 1")
    )

    with pytest.raises(Refused) as refused:
        await opened.store.log.read(key, 0, 10)
    with pytest.raises(Refused):
        await opened.store.log.read(key, 1, 10)
    await opened.store.close()

    assert refused.value.metadata == {"thread": "1", "sequence": "2"}


def _wipe_page(path: Path, marker: bytes) -> None:
    """The beginning of the page where the marker stands."""
    with path.open("r+b") as file:
        page = file.read().index(marker) // 8192
        file.seek(page * 8192)
        file.write(b"\xff" * 64)


async def test_a_damaged_page_is_refused(opens: Opens, path: Path) -> None:
    opened, key = await _damaged(opens, path, lambda: None)
    _wipe_page(path, BODY)  # the store has it open already, and has not read it yet

    with pytest.raises(Refused) as refused:
        await opened.store.log.read(key, 0, 10)
    await opened.store.close()

    assert refused.value.reason is Reason.RECORD_CORRUPT
    assert refused.value.metadata["thread"] == "1"


async def _agent(store: SqliteStore) -> None:
    body, version = b"body of an agent", b"body of a version"
    await store.agents.create(1, "a", body=body, version_body=version, create_time=NOW)


async def _key(store: SqliteStore) -> None:
    await store.api_keys.create(NewApiKey(1, "k", "principal of a key", False, "pre", b"hash", "", NOW))


async def _note(store: SqliteStore) -> None:
    await store.notes.put(1, "scope", "key", "text of a note")


async def _thread(store: SqliteStore) -> None:
    key = ThreadKey(1, store.log.allocate_thread())
    new = new_thread("t", tags=["tag of a thread"], client_metadata=b"metadata of a thread")
    new.spec = b"spec of a thread"
    await store.log.submit(Unit(key, 0, records("a"), projection(), new)).wait()
    ended = projection(6)
    ended.summary = b"summary of a thread"
    await store.log.submit(Unit(key, 1, records("b"), ended)).wait()


Making = Callable[[SqliteStore], Awaitable[None]]
Reading = Callable[[SqliteStore], Awaitable[object]]
_ROWS: list[tuple[str, Making, Reading]] = [
    ("body of an agent", _agent, lambda store: store.agents.get(1, "a")),
    ("body of a version", _agent, lambda store: store.agents.get_version(1, 1)),
    ("principal of a key", _key, lambda store: store.api_keys.find_by_prefix("pre")),
    ("text of a note", _note, lambda store: store.notes.get(1, "scope", "key")),
    ("metadata of a thread", _thread, lambda store: store.threads.get(1, "t")),
    ("summary of a thread", _thread, lambda store: store.threads.get(1, "t")),
    ("spec of a thread", _thread, lambda store: store.threads.spec(1, b"digest")),
]


@pytest.mark.parametrize(("marker", "make", "read"), _ROWS, ids=[row[0] for row in _ROWS])
async def test_a_damaged_row_is_refused(
    opens: Opens, path: Path, marker: str, make: Making, read: Reading
) -> None:
    opened = await opens(path)
    await make(opened.store)
    assert await read(opened.store) is not None
    await opened.store.close()
    flip_bit(path, marker.encode())

    again = await opens(path)
    with pytest.raises(Refused) as refused:
        await read(again.store)
    await again.store.close()

    assert refused.value.reason is Reason.RECORD_CORRUPT


async def test_an_administrator_is_not_made_by_a_flipped_bit(opens: Opens, path: Path) -> None:
    opened = await opens(path)
    await _key(opened.store)
    await opened.store.close()
    execute(path, "UPDATE api_keys SET admin = 1")

    again = await opens(path)
    with pytest.raises(Refused) as refused:
        await again.store.api_keys.find_by_prefix("pre")
    await again.store.close()

    assert refused.value.reason is Reason.RECORD_CORRUPT


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE threads SET cost_micros = cost_micros + 1 WHERE thread = 1",
        "UPDATE threads SET version = 3 WHERE thread = 1",
        "UPDATE threads SET subject_type = 'x' WHERE thread = 1",
        "UPDATE threads SET progress_sum = 0 WHERE thread = 1",
        "UPDATE threads SET expired = 1 WHERE thread = 1",
        "UPDATE thread_details SET triggered_by = 'x' WHERE thread = 1",
        "UPDATE thread_details SET client_metadata = x'ff' WHERE thread = 1",
        "DELETE FROM thread_details WHERE thread = 1",
    ],
)
@pytest.mark.parametrize(
    "condition",
    [
        None,
        Condition(ThreadColumn.COST_MICROS, Operator.EQUAL, 4),
        Condition(ThreadColumn.VERSION, Operator.EQUAL, 1),
        Condition(ThreadColumn.STATE, Operator.IN, (2, 3)),
    ],
    ids=["all", "cost", "version", "state"],
)
async def test_a_damaged_thread_is_in_every_list_as_such_and_keeps_no_other_out(
    opens: Opens, path: Path, damage: str, condition: Condition | None
) -> None:
    opened, key = await _damaged(opens, path, _sql(path, damage))
    conditions = () if condition is None else (condition,)

    page = await opened.store.threads.list(ThreadQuery(1, conditions, ThreadOrder.CREATE_TIME))
    unfinished = await opened.store.threads.unfinished(after=0, limit=10)
    with pytest.raises(Refused) as refused:
        await opened.store.threads.get_by_key(key)
    await opened.store.close()

    assert {row.key: row.damaged for row in page.items} == {key: True, ThreadKey(1, 2): False}
    assert {row.key: row.damaged for row in unfinished} == {key: True, ThreadKey(1, 2): False}
    assert [(row.state, row.stop_reason) for row in page.items if row.damaged] == [(7, 23)]
    assert refused.value.reason is Reason.RECORD_CORRUPT


async def test_a_condemned_thread_whose_row_is_damaged_stays_damaged(opens: Opens, path: Path) -> None:
    opened, key = await _damaged(opens, path, _sql(path, "UPDATE threads SET total_tokens = 7"))

    await opened.store.threads.condemn(key, stop_reason=23, now=NOW)
    page = await opened.store.threads.list(ThreadQuery(1))
    left = await opened.store.threads.unfinished(after=key.thread - 1, limit=1)
    await opened.store.close()

    assert {row.key.thread for row in page.items if row.damaged} == {1, 2}
    assert [row.key.thread for row in left] == [2]
