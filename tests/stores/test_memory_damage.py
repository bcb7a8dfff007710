"""One flipped bit anywhere in what is stored of memories: never another answer than before."""

import random
from collections import Counter
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest

from tests.stores.kit import HandClock, execute
from treadle_server.core.errors import Reason, Refused
from treadle_server.stores.sqlite.lock import FileUnusable
from treadle_server.stores.sqlite.store import SqliteStore

SEED = 20_251_122
TENANTS = (1, 2)
TEXTS = {"tea": "green tea with honey", "coffee": "black coffee with milk", "town": "Rome or Paris"}
QUERIES = ("green tea", "milk", "with", '"black coffee"', "coff*", "town", "rome")
_NEAR = 8

Answers = dict[str, Any]


async def open_quietly(path: Path, fatal: list[Exception]) -> SqliteStore:
    return await SqliteStore.open(path, on_fatal=fatal.append, clock=HandClock(), reserve_bytes=0)


async def make(path: Path) -> None:
    """A file with memories that were put, replaced and deleted."""
    store = await open_quietly(path, [])
    memories = store.memories
    for tenant in TENANTS:
        rows = [
            await memories.create(tenant, namespace, key, text=text, thread="", create_time=5)
            for namespace in ("one", "two")
            for key, text in TEXTS.items()
        ]
        await memories.replace(rows[1], text="coffee without milk", thread="threads/t1", update_time=6)
        await memories.delete(rows[3])
    await store.close()


async def ask(path: Path) -> Answers:
    """Every answer, or that it was refused as damaged."""
    fatal: list[Exception] = []
    store = await open_quietly(path, fatal)
    memories = store.memories
    answers: Answers = {}
    for tenant in TENANTS:
        asks: dict[str, Awaitable[Any]] = {
            f"{tenant} {query} {places}": memories.search(tenant, places, query, limit=50)
            for query in QUERIES
            for places in ((), ("one",))
        }
        for namespace in ("", "one", "two"):
            asks[f"{tenant} list {namespace}"] = memories.list(tenant, namespace, limit=50)
            asks[f"{tenant} count {namespace}"] = memories.count(tenant, namespace)
        asks |= {f"{tenant} get {key}": memories.get(tenant, "one", key) for key in (*TEXTS, "none")}
        for question, answer in asks.items():
            try:
                answers[question] = await answer
            except Refused as refused:
                answers[question] = refused.reason
    await store.close()
    assert not fatal
    return answers


def places_of(path: Path) -> list[int]:
    """Bytes that something stands in or near, of the pages where memories, their index and totals begin."""
    data = path.read_bytes()
    ((size,),) = execute(path, "PRAGMA page_size")
    assert isinstance(size, int)
    pages = execute(path, "SELECT rootpage FROM sqlite_master WHERE name LIKE '%memor%' AND rootpage > 0")
    starts = [(page - 1) * size for (page,) in pages if isinstance(page, int)]
    assert len(starts) == 9
    return [
        place
        for start in starts
        for place in range(start, start + size)
        if any(data[max(0, place - _NEAR) : place + _NEAR])
    ]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("count", [150, pytest.param(3000, marks=pytest.mark.soak)])
async def test_a_flipped_bit_is_mended_or_told_and_never_another_answer(tmp_path: Path, count: int) -> None:
    sound = tmp_path / "sound.db"
    await make(sound)
    data, before, places = sound.read_bytes(), await ask(sound), places_of(sound)
    rng, outcomes = random.Random(SEED), Counter[str]()

    for number in range(count):
        place, bit = rng.choice(places), rng.randrange(8)
        changed = bytearray(data)
        changed[place] ^= 1 << bit
        path = tmp_path / str(number) / "t.db"
        path.parent.mkdir()
        path.write_bytes(changed)
        try:
            after = await ask(path)
        except (FileUnusable, Refused):
            outcomes["not served"] += 1
            continue
        wrong = {q: after[q] for q in before if after[q] not in (before[q], Reason.RECORD_CORRUPT)}
        assert not wrong, f"bit {bit} of byte {place}"
        outcomes["the same" if after == before else "told"] += 1

    assert outcomes["told"]
    assert outcomes["the same"]
