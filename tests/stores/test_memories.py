"""Memories: put, listed, counted, found by their words, and not believed when they are damaged."""

from pathlib import Path

import pytest

from tests.contract.units import NOW, request
from tests.stores.kit import Opened, Opens, execute
from treadle_server.core.errors import Reason, Refused
from treadle_server.ports.catalogue.memories import MemoryRow, Room
from treadle_server.ports.log import Replayed
from treadle_server.stores.sqlite.checking import open_inspection
from treadle_server.stores.sqlite.memories import HITS_MAX, PAGE_BYTES_MAX, SqliteMemories
from treadle_server.stores.sqlite.memory_index import TEXT_BYTES_MAX
from treadle_server.stores.sqlite.store import SqliteStore

RED, BLUE = 1, 2


async def put(
    store: SqliteStore, key: str, text: str, *, namespace: str = "user:1", tenant: int = RED
) -> MemoryRow:
    """Makes or replaces one."""
    row = await store.memories.get(tenant, namespace, key)
    if row is None:
        return await store.memories.create(tenant, namespace, key, text=text, thread="", create_time=NOW)
    return await store.memories.replace(row, text=text, thread="threads/t1", update_time=NOW + 5)


async def found(
    store: SqliteStore, query: str, *namespaces: str, tenant: int = RED, limit: int = 50
) -> list[str]:
    rows, _ = await store.memories.search(tenant, namespaces, query, limit=limit)
    return [row.item_key for row in rows]


def problems(path: Path) -> list[str]:
    inspection = open_inspection(path)
    try:
        return [*inspection.structure(), *inspection.rows()]
    finally:
        inspection.close()


async def test_a_memory_is_found_as_it_was_put(opened: Opened) -> None:
    memories = opened.store.memories

    made = await put(opened.store, "colour", "green")
    changed = await put(opened.store, "colour", "blue")

    assert made == MemoryRow(made.key, RED, "user:1", "colour", "green", "", 1, NOW, NOW)
    assert changed == MemoryRow(made.key, RED, "user:1", "colour", "blue", "threads/t1", 2, NOW, NOW + 5)
    assert await memories.get(RED, "user:1", "colour") == changed
    for place in ((BLUE, "user:1", "colour"), (RED, "user:2", "colour"), (RED, "user:1", "color")):
        assert await memories.get(*place) is None


async def test_a_deleted_memory_is_gone_and_its_key_free(opened: Opened) -> None:
    made = await put(opened.store, "colour", "green")

    await opened.store.memories.delete(made)
    gone = await opened.store.memories.get(RED, "user:1", "colour")
    again = await put(opened.store, "colour", "red")

    assert gone is None
    assert again.key > made.key, "the index names rows by a key that no other row ever had"
    assert await found(opened.store, "green") == []
    assert await found(opened.store, "red") == ["colour"]


async def test_who_changes_what_another_has_changed_is_refused(opened: Opened) -> None:
    memories, made = opened.store.memories, await put(opened.store, "colour", "green")
    changed = await put(opened.store, "colour", "blue")

    for late in (
        memories.replace(made, text="red", thread="", update_time=NOW),
        memories.delete(made),
        memories.create(RED, "user:1", "colour", text="red", thread="", create_time=NOW),
    ):
        with pytest.raises(Refused) as refused:
            await late
        assert refused.value.reason is Reason.ETAG_MISMATCH
    assert await memories.get(RED, "user:1", "colour") == changed
    assert await found(opened.store, "red") == []


async def test_what_was_asked_before_is_not_done_again(opened: Opened) -> None:
    memories = opened.store.memories
    made = await memories.create(
        RED, "n", "k", text="green", thread="", create_time=NOW, request=request("r1")
    )
    changed = await memories.replace(made, text="blue", thread="", update_time=NOW, request=request("r2"))

    for asked, repeated in (
        ("r1", memories.create(RED, "n", "k", text="x", thread="", create_time=NOW, request=request("r1"))),
        ("r2", memories.replace(changed, text="y", thread="", update_time=NOW, request=request("r2"))),
        ("r1", memories.delete(changed, request=request("r1"))),
    ):
        with pytest.raises(Replayed):
            await repeated
        assert await memories.get(RED, "n", "k") == changed, asked


async def test_memories_are_listed_newest_first_by_namespace_or_all(opened: Opened) -> None:
    memories = opened.store.memories
    made = [await put(opened.store, f"k{n}", f"text {n}", namespace=f"n{n % 2}") for n in range(5)]
    await put(opened.store, "theirs", "text", tenant=BLUE)

    first = await memories.list(RED, "", limit=3)
    rest = await memories.list(RED, "", limit=3, after=first.next)
    even = await memories.list(RED, "n0", limit=9)

    assert [*first.items, *rest.items] == made[::-1]
    assert rest.next is None
    assert list(even.items) == [made[4], made[2], made[0]]
    assert [await memories.count(RED, name) for name in ("", "n0", "n1", "n2")] == [5, 3, 2, 0]


async def test_what_is_found_of_large_texts_ends_early(opened: Opened) -> None:
    memories, text = opened.store.memories, "word " * 3000
    count = PAGE_BYTES_MAX // len(text) + 2
    for number in range(count):
        await put(opened.store, f"k{number}", text)

    best, skip = await memories.search(RED, (), "word", limit=500)
    others, end = await memories.search(RED, (), "word", limit=500, skip=skip or 0)

    assert (len(best), skip, len(others), end) == (count - 1, count - 1, 1, None)


@pytest.mark.parametrize(
    ("query", "keys"),
    [
        ("green", ["grass"]),
        ("GREEN!", ["grass"]),
        ("cafe", ["place"]),
        ("Café", ["place"]),
        ("favourite", ["place", "food"]),
        ("favourite pasta", ["food", "place"]),
        ('"is green"', ["grass"]),
        ('"green is"', []),
        ("gre*", ["grass"]),
        ("gre", []),
        ("gr*", []),
        ("gre* pas*", ["grass"]),
        ("grass", ["grass"]),
        ("東京", ["tokyo"]),
        ("東京都", ["tokyo"]),
        ("東", ["tokyo"]),
        ("京東", []),
        ("straße", ["road"]),
        ("STRASSE", ["road"]),
        ("", []),
        ("?!*", []),
        ('"', []),
        ('""', []),
        ("'; DROP TABLE memories; --", []),
        ('green" OR NEAR(', ["grass"]),
        ("words : green", ["grass"]),
        ("{words} : ^green -", ["grass"]),
        ("\x00 green", ["grass"]),
    ],
)
async def test_a_query_finds_what_has_its_words_and_is_never_faulty(
    opened: Opened, query: str, keys: list[str]
) -> None:
    texts = {
        "grass": "It is green.",
        "food": "The favourite dish is pasta, the favourite of all.",
        "place": "The favourite place is a Café.",
        "tokyo": "東京都に住んでいます",
        "road": "Lange Straße 7",
    }
    for key, text in texts.items():
        await put(opened.store, key, text)

    assert await found(opened.store, query, "user:1") == keys
    assert await found(opened.store, query) == keys


async def test_rarer_words_count_for_more(opened: Opened) -> None:
    for number in range(4):
        await put(opened.store, f"k{number}", "the customer called")
    await put(opened.store, "rare", "zeppelin")
    await put(opened.store, "newest", "the end")

    assert await found(opened.store, "the zeppelin", limit=2) == ["rare", "newest"]


async def test_a_search_meets_only_what_is_in_its_namespaces_and_its_tenant(opened: Opened) -> None:
    for tenant in (RED, BLUE):
        for namespace in ("a", "b", "c"):
            await put(opened.store, f"{tenant}-{namespace}", "green", namespace=namespace, tenant=tenant)

    assert await found(opened.store, "green", "a", "c") == ["1-c", "1-a"]
    assert await found(opened.store, "green", tenant=BLUE) == ["2-c", "2-b", "2-a"]
    assert await found(opened.store, "green", "d") == []
    assert await found(opened.store, "1wgreen 2wgreen 1na") == []


async def test_the_order_of_a_search_does_not_tell_what_others_keep(opened: Opened) -> None:
    await put(opened.store, "a", "zeus")
    await put(opened.store, "b", "hera")
    before = await found(opened.store, "zeus hera")

    for number in range(20):
        await put(opened.store, f"k{number}", "hera", tenant=BLUE)

    assert await found(opened.store, "zeus hera") == before == ["b", "a"]


async def test_of_a_common_word_the_newest_memories_are_looked_at(opened: Opened) -> None:
    for number in range(HITS_MAX + 1):
        await put(opened.store, f"k{number}", "common" if number else "common first")

    keys = await found(opened.store, "common", limit=1000)

    assert keys == [f"k{number}" for number in range(HITS_MAX, 0, -1)]
    assert await found(opened.store, "first") == ["k0"]


async def test_a_replaced_text_is_found_by_its_new_words_alone(opened: Opened, path: Path) -> None:
    await put(opened.store, "colour", "green grass")

    await put(opened.store, "colour", "blue grass")

    assert [await found(opened.store, word) for word in ("green", "blue", "grass")] == [
        [],
        ["colour"],
        ["colour"],
    ]
    assert problems(path) == []


async def test_there_is_room_for_so_many_memories_and_so_much_text(opened: Opened) -> None:
    store = opened.store
    room = Room(namespace_items_max=2, tenant_items_max=3, tenant_bytes_max=20)
    memories = SqliteMemories(store.memories._changes, store.readers, room)

    async def put_with_room(namespace: str, key: str, text: str) -> None:
        row = await memories.get(RED, namespace, key)
        if row is None:
            await memories.create(RED, namespace, key, text=text, thread="", create_time=NOW)
        else:
            await memories.replace(row, text=text, thread="", update_time=NOW)

    async def refused(namespace: str, key: str, text: str) -> str:
        with pytest.raises(Refused) as caught:
            await put_with_room(namespace, key, text)
        assert caught.value.reason is Reason.QUOTA_EXCEEDED
        return caught.value.metadata["limit"]

    for namespace, key in (("a", "1"), ("a", "2")):
        await put(store, key, "12345", namespace=namespace)
    assert await refused("a", "3", "x") == "2"
    assert await refused("b", "1", "12345678901") == "20"
    assert await refused("a", "1", "1234567890123456") == "20"
    last = await memories.create(RED, "b", "1", text="1", thread="", create_time=NOW)
    assert await refused("b", "2", "x") == "3"
    await memories.delete(last)
    await memories.create(RED, "c", "1", text="ü" * 5, thread="", create_time=NOW)
    assert await refused("c", "1", "ü" * 6) == "20"
    assert await memories.count(RED, "") == 3
    assert await memories.count(BLUE, "") == 0


@pytest.mark.parametrize(
    "column", ["text = 'x'", "words = 'x'", "thread = 'x'", "revision = 7", "key = 'k2'"]
)
async def test_a_damaged_memory_is_never_returned(opens: Opens, path: Path, column: str) -> None:
    opened = await opens(path)
    await put(opened.store, "k1", "green")
    await opened.store.close()
    execute(path, f"UPDATE memories SET {column}")
    store = (await opens(path)).store
    key = "k2" if column.startswith("key") else "k1"

    for read in (
        store.memories.get(RED, "user:1", key),
        store.memories.list(RED, "", limit=9),
        found(store, "green"),
    ):
        with pytest.raises(Refused) as refused:
            await read
        assert refused.value.reason is Reason.RECORD_CORRUPT
        assert refused.value.metadata == {"resource": f"memories/user:1/items/{key}"}
    await store.close()
    assert any(line.startswith("memories: ") for line in problems(path))


async def test_a_damaged_total_is_never_believed(opens: Opens, path: Path) -> None:
    opened = await opens(path)
    made = await put(opened.store, "k1", "green")
    await opened.store.close()
    execute(path, "UPDATE memory_totals SET item_count = 7 WHERE namespace = ''")
    store = (await opens(path)).store

    with pytest.raises(Refused) as refused:
        await put(store, "k2", "x")
    assert refused.value.reason is Reason.RECORD_CORRUPT
    assert await store.memories.get(RED, "user:1", "k2") is None
    assert await store.memories.count(RED, "") == 1
    assert await store.memories.get(RED, "user:1", "k1") == made


async def test_a_start_makes_a_damaged_index_anew(opens: Opens, path: Path) -> None:
    opened = await opens(path)
    await put(opened.store, "k1", "green")
    await put(opened.store, "k2", "blue")
    await opened.store.close()
    row = "SELECT 'delete', memory, words FROM memories WHERE key = 'k1'"
    execute(path, f"INSERT INTO memory_index (memory_index, rowid, words) {row}")
    told = problems(path)

    store = (await opens(path)).store

    assert await found(store, "green") == ["k1"]
    await store.close()
    assert told == ["memory_index: it does not have the words of memory 1"]
    assert problems(path) == []


async def test_a_check_compares_totals_with_what_there_is(opens: Opens, path: Path) -> None:
    opened = await opens(path)
    await put(opened.store, "k1", "green")
    await put(opened.store, "k1", "green", tenant=BLUE)
    await opened.store.close()
    execute(path, "DELETE FROM memory_totals WHERE namespace = '' AND tenant = 2")
    execute(
        path,
        "UPDATE memory_totals SET text_bytes = 6, check_sum = check_sum + 7"
        " WHERE namespace != '' AND tenant = 1",
    )

    assert problems(path) == [
        "memory_totals: that of memories/user:1 is not what there is",
        "memory_totals: that of memories/- is not what there is",
    ]


async def test_what_was_put_is_there_for_the_next_server(opens: Opens, path: Path) -> None:
    opened = await opens(path)
    made = await put(opened.store, "k1", "green")
    await opened.store.close()

    store = (await opens(path)).store

    assert await store.memories.get(RED, "user:1", "k1") == made
    assert await found(store, "green") == ["k1"]
    assert await store.memories.count(RED, "user:1") == 1


async def test_a_start_leaves_a_large_index_to_the_check(opens: Opens, path: Path) -> None:
    opened = await opens(path)
    await put(opened.store, "k1", "green")
    await opened.store.close()
    row = "SELECT 'delete', memory, words FROM memories"
    execute(path, f"INSERT INTO memory_index (memory_index, rowid, words) {row}")
    more = TEXT_BYTES_MAX
    execute(
        path, "UPDATE memory_totals SET text_bytes = text_bytes + ?1, check_sum = check_sum + 7 * ?1", more
    )

    store = (await opens(path)).store

    assert await found(store, "green") == []
    await store.close()
    assert "memory_index: it does not have the words of memory 1" in problems(path)
